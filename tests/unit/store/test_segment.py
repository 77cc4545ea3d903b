"""Recovery of the last segment, and the writes at its end."""

from __future__ import annotations

import os
import random

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import StoreError
from metamorphosis.message import HEADER, checksum
from metamorphosis.store import segment as segment_module
from metamorphosis.store.disk import Disk
from metamorphosis.store.segment import open_last, recover
from metamorphosis.store.segmentwriter import whole_records, write_pieces
from tests.unit.store.partitions import M0, M1, M2, M3, N0, BreakableDisk, Partition, record


def oracle(data: bytes) -> tuple[int, int]:
    """The recovery of the specification, word by word, over a file in memory."""
    position = count = 0
    while len(data) - position >= 20:
        length, stored, _, _ = HEADER.unpack_from(data, position)
        if position + 20 + length > len(data) or length < 0:
            break
        if checksum(data[position + 20 : position + 20 + length]) != stored:
            break
        position += 20 + length
        count += 1
    return position, count


class RecoverTests(SynchronousTestCase):
    """``recover`` against the oracle."""

    def recover(self, data: bytes) -> tuple[int, int]:
        """What it finds in a file with that content."""
        path = self.mktemp()
        with open(path, "w+b") as file:
            file.write(data)
            file.flush()
            return tuple(recover(file.fileno(), len(data)))  # type: ignore[return-value]

    def test_cut_at_every_byte(self) -> None:
        """Wherever a crash cut the file, exactly the whole records in front of it are found."""
        data = M1 + M2 + M3 + M0 + record(64, 5)
        for length in range(len(data) + 1):
            self.assertEqual(self.recover(data[:length]), oracle(data[:length]), length)

    def test_every_byte_changed(self) -> None:
        """Whatever byte went bad, the same records are found as the specification finds."""
        data = M1 + M2 + M3 + M0
        for position in range(len(data)):
            for change in (0x01, 0x80):
                bad = bytearray(data)
                bad[position] ^= change
                self.assertEqual(self.recover(bytes(bad)), oracle(bytes(bad)), (position, change))

    def test_buffers_of_every_size(self) -> None:
        """Records that lie across, at, or are longer than what is read at once."""
        data = M1 + record(100, 3) + M0 + M2 + record(45, 9) + M3 + b"\x00\x00\x00\x05"
        for size in range(20, 130):
            self.patch(segment_module, "READ_SIZE", size)
            self.assertEqual(self.recover(data), oracle(data), size)
            self.assertEqual(self.recover(data[:-30]), oracle(data[:-30]), size)

    def test_long_record_with_wrong_checksum(self) -> None:
        """A record longer than what is read at once is checked as well."""
        self.patch(segment_module, "READ_SIZE", 32)
        data = bytearray(M1 + record(100, 3))
        data[-1] ^= 1
        self.assertEqual(self.recover(bytes(data)), (25, 1))

    def test_random_files(self) -> None:
        """Random records, random damage, seeded."""
        generator = random.Random(8123)
        for _ in range(300):
            parts = [
                record(20 + generator.randrange(60), generator.randrange(1, 200))
                for _ in range(generator.randrange(6))
            ]
            data = bytearray(b"".join(parts) + generator.randbytes(generator.randrange(40)))
            for _ in range(generator.randrange(3)):
                if data:
                    data[generator.randrange(len(data))] = generator.randrange(256)
            self.patch(segment_module, "READ_SIZE", generator.choice((20, 33, 64, 4096)))
            self.assertEqual(self.recover(bytes(data)), oracle(bytes(data)))

    def test_file_shorter_than_expected(self) -> None:
        """A file that shrank meanwhile ends where it ends."""
        with open(self.mktemp(), "w+b") as file:
            file.write(M1 + M2)
            file.flush()
            self.assertEqual(tuple(recover(file.fileno(), 500)), (50, 2))


class OpenLastTests(SynchronousTestCase):
    """``open_last``: cut, flush, and errors that name the file."""

    def test_cut_at_every_byte_and_go_on(self) -> None:
        """
        After a crash at any byte the partition opens, keeps every whole message and takes more.
        """
        data = M1 + M2 + M3
        for length in range(len(data) + 1):
            partition = Partition(self.mktemp())
            os.mkdir(partition.path)
            store = partition.fill(n0=data[:length]).open()
            kept = oracle(data[:length])[0]
            self.assertEqual((store.max_offset, partition.read()), (kept, data[:kept]))
            self.assertEqual(store.append([M3]).offset, kept)
            self.assertEqual(partition.read(), data[:kept] + M3)

    def test_flushed_before_it_is_shown(self) -> None:
        """What recovery finds may not be on the disk yet, and readers will see it."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(M1 + b"x")
        disk = BreakableDisk()
        open_last(disk, 0, path, False)
        self.assertEqual(disk.calls, ["open", "truncate", "sync"])

    def test_errors_name_the_file(self) -> None:
        """A file that cannot be opened, cut or flushed is named, and no descriptor is left open."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(M1 + b"x")
        for broken in ("open", "truncate", "sync"):
            disk = BreakableDisk()
            disk.broken.add(broken)
            error = self.assertRaises(StoreError, open_last, disk, 0, path, False)
            self.assertIn(path, str(error))

    def test_recovery_names_the_file_in_the_log(self) -> None:
        """How much was cut off, and of which file, is said."""
        lines: list[str] = []

        def observe(event: dict) -> None:
            if event.get("log_namespace") == "metamorphosis.store.segment":
                lines.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        partition = Partition(self.mktemp())
        os.mkdir(partition.path)
        partition.fill(n0=M1 + b"abc").open()
        self.assertEqual(len(lines), 1)
        path = os.path.join(partition.directory, N0)
        self.assertTrue(lines[0].startswith(f"3 bytes truncated from {path} behind 1 messages"))


class WritePiecesTests(SynchronousTestCase):
    """``write_pieces``: joined or vectored, whole or cut short anywhere."""

    def write(self, pieces: list[bytes], room: int) -> tuple[int, bytes, bool]:
        """Written, what the file holds, and whether there was an error."""
        disk = BreakableDisk()
        disk.room = room
        with open(self.mktemp(), "w+b") as file:
            size = sum(map(len, pieces))
            written, error = write_pieces(disk, file.fileno(), pieces, size, 7)
            file.seek(7)
            return written, file.read(), error is not None

    def test_every_length(self) -> None:
        """What is reported as written is in the file, for every place where the disk is full."""
        pieces = [M1[:20], M1[20:], M3[:20], M3[20:], M0, b""]
        data = b"".join(pieces)
        for room in range(len(data) + 1):
            expected = (room, data[:room], room < len(data))
            self.assertEqual(self.write(pieces, room), expected)

    def test_vectors(self) -> None:
        """Big batches go out in vectors of 1024 pieces, and may end in any of them."""
        pieces = [bytes([n % 251]) * 300 for n in range(2500)]
        data = b"".join(pieces)
        for room in (0, 1, 307_199, 307_200, 307_201, 700_000, len(data) - 1, len(data)):
            expected = (room, data[:room], room < len(data))
            self.assertEqual(self.write(pieces, room), expected, room)

    def test_short_write_that_goes_on(self) -> None:
        """A write that is cut short for no reason, as by a signal, is simply continued."""

        class Hesitant(Disk):
            """Takes ten bytes at a time."""

            def write(self, fd: int, data: bytes | memoryview, position: int) -> int:
                return super().write(fd, memoryview(data)[:10], position)

        with open(self.mktemp(), "w+b") as file:
            pieces = [M1, M3]
            self.assertEqual(write_pieces(Hesitant(), file.fileno(), pieces, 56, 0), (56, None))
            file.seek(0)
            self.assertEqual(file.read(), M1 + M3)

    def test_write_that_takes_nothing(self) -> None:
        """A disk that takes no byte and reports no error does not make us loop."""

        class Stuck(Disk):
            """Takes nothing."""

            def write(self, fd: int, data: bytes | memoryview, position: int) -> int:
                return 0

        written, error = write_pieces(Stuck(), 0, [M1], 25, 0)
        self.assertEqual(written, 0)
        self.assertIsInstance(error, OSError)

    def test_whole_records(self) -> None:
        """Only records that are complete count."""
        pieces = [M1[:20], M1[20:], M3[:20], M3[20:]]
        expected = {0: (0, 0), 24: (0, 0), 25: (1, 25), 55: (1, 25), 56: (2, 56)}
        for written, found in expected.items():
            self.assertEqual(whole_records(pieces, written), found)
