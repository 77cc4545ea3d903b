"""Recovery of the last segment, and the writes at its end."""

from __future__ import annotations

import os

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import StoreError
from metamorphosis.store.disk import Disk
from metamorphosis.store.segment import open_last
from metamorphosis.store.segmentwriter import single_records, whole_records, write_pieces
from tests.support.partitions import (
    M0,
    M1,
    M2,
    M3,
    N0,
    BreakableDisk,
    Partition,
    stored,
)
from tests.unit.store.test_recovery import log, oracle


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


class StartTests(SynchronousTestCase):
    """What a start says of a partition, and where its messages go then."""

    def setUp(self) -> None:
        """A partition; what our code logs is kept."""
        self.partition = Partition(self.mktemp())
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)
        self.records = log(b"hello", b"damaged", b"good", b"good too")
        bad = self.records[1].replace(b"m", b"M")
        self.data = self.records[0] + bad + b"".join(self.records[2:])

    def observe(self, event: dict) -> None:
        """Keep a line."""
        if str(event.get("log_namespace")).startswith("metamorphosis.store"):
            self.lines.append(event["log_format"].format(**event))

    def path(self, name: str = N0) -> str:
        """Of a segment."""
        return os.path.join(self.partition.directory, name)

    def test_clean_start_says_nothing(self) -> None:
        """Neither of a whole file nor of an empty one."""
        for data in (M1 + M2, b""):
            self.partition.fill(n0=data).open()
        self.assertEqual(self.lines, [])

    def test_torn_tail_is_logged(self) -> None:
        """How much was cut off, and of which file."""
        self.partition.fill(n0=M1 + b"abc").open()
        (line,) = self.lines
        self.assertTrue(line.startswith(f"3 bytes truncated from {self.path()} after 1 messages"))

    def test_damage_is_logged_and_stays(self) -> None:
        """One line names file, position, bytes and messages; readers get the file as it is."""
        store = self.partition.fill(n0=self.data).open()
        (line,) = self.lines
        for text in (self.path(), "position 25 on", "27 bytes", "2 valid messages after it"):
            self.assertIn(text, line)
        self.assertEqual(stored(store), self.data)
        self.assertEqual(store.message_count, 3)

    def test_messages_go_into_a_new_file(self) -> None:
        """So that the next start finds a good last file and has nothing to say."""
        for torn in (b"", b"\0\0\0\7torn"):
            self.partition.fill(n0=self.data + torn)
            store = self.partition.open()
            end = len(self.data)
            name = f"{end:020d}.meta"
            self.assertEqual(store.append([M3]).offset, end)
            self.assertEqual(self.partition.files(), {N0: self.data, name: M3})
            self.lines.clear()
            again = self.partition.open()
            self.assertEqual(self.lines, [])
            self.assertEqual((stored(again), stored(again, end)), (self.data, M3))
            os.remove(self.path(name))

    def test_no_room_for_a_new_file(self) -> None:
        """The partition is opened nevertheless and continues in the damaged file."""
        self.partition.disk.broken.add("create")
        store = self.partition.fill(n0=self.data).open()
        self.assertEqual(store.append([M3]).offset, len(self.data))
        self.assertEqual(self.partition.files(), {N0: self.data + M3})
        self.assertIn("Messages go into the damaged file", self.lines[-1])

    def test_behind_the_tail_of_a_fast_boot(self) -> None:
        """
        With fast boot messages follow a torn tail, which claims the bytes that they have; the next
        thorough start finds them.
        """
        torn = log(b"torn" * 90, first=3)[0][:-8]
        store = self.partition.fill(n0=self.data + torn).open(fast_boot=True)
        self.assertEqual(self.lines, [])
        later = log(b"later", b"and later", first=9)
        store.append(later)
        data = self.data + torn + b"".join(later)
        self.assertEqual(self.partition.read(), data)
        self.assertEqual(stored(self.partition.open()), data)
        self.assertIn("in 2 places", self.lines[0])
        self.assertIn("4 valid messages after it", self.lines[0])


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


class PiecesTests(SynchronousTestCase):
    """The pieces of a batch whose write has failed."""

    def test_runs_and_single_records(self) -> None:
        """Each record counts by itself, whether it came alone or in a run."""
        one, two, three = log(b"one", b"two", b"three")
        pieces = [one[:20], one[20:], two + three, b"", one[:20], one[20:]]
        single = single_records(pieces)
        self.assertEqual(b"".join(pieces), b"".join(single))
        self.assertEqual(8, len(single))
        self.assertEqual((2, len(one + two)), whole_records(single, len(one + two + three) - 1))
