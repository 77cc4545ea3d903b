"""Recovery of the last segment, and the writes at its end."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import StoreError
from metamorphosis.store.disk import MOST_AT_ONCE
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.segment import open_last
from metamorphosis.store.segmentwriter import SegmentWriter, single_records, whole_records
from metamorphosis.store.unflushed import Unflushed
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


class LoggingDisk(BreakableDisk):
    """
    Notes the length of each write.

    :ivar sizes: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def write(self, fd: int, data: bytes | memoryview, position: int) -> int:
        """See ``Disk``."""
        self.sizes.append(len(data))
        return super().write(fd, data, position)


class WriterTests(SynchronousTestCase):
    """``SegmentWriter.write``: in one call or in several, whole or cut short anywhere."""

    def setUp(self) -> None:
        """See ``begin``."""
        self.begin()

    def begin(self, keeps: bool = True) -> None:
        """A writer at the end of a file with one record; what it writes is kept or not."""
        self.disk = LoggingDisk()
        self.writer = SegmentWriter(self.disk)
        self.total = FlushSchedule(Clock())
        self.writer.unflushed = Unflushed(self.total) if keeps else None
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(M1)
        self.segment = open_last(self.disk, 0, path, False)[0]
        self.addCleanup(self.segment.close)

    def written(self, pieces: list[bytes], more: int = 0) -> tuple[int, int, bool]:
        """The result of a write, after a look at the file and at what is kept; an error is bool."""
        size = sum(map(len, pieces))
        count, stored, error = self.writer.write(self.segment, pieces, size, more)
        expected = b"".join(pieces)[:stored]
        with open(self.segment.path, "rb") as file:
            self.assertEqual(M1 + expected, file.read())
        self.assertEqual(len(M1) + stored, self.segment.size)
        self.assertEqual(1 + count, self.segment.message_count)
        if self.writer.unflushed is not None:
            kept = self.writer.unflushed.pieces()
            self.assertEqual(expected, b"".join(data for _, data in kept))
            self.assertEqual(stored, self.total.unflushed)
        return count, stored, error is not None

    def test_every_length(self) -> None:
        """What is reported as written is in the file, for every place where the disk is full."""
        pieces = [M1[:20], M1[20:], M3[:20], M3[20:], M0, b""]
        whole = {0: 0, len(M1): 1, len(M1 + M3): 2, len(M1 + M3 + M0): 3}
        for room in range(len(M1 + M3 + M0) + 1):
            for keeps in (False, True):
                self.begin(keeps)
                self.disk.room = room
                stored = max(end for end in whole if end <= room)
                expected = (whole[stored], stored, room < len(M1 + M3 + M0))
                self.assertEqual(expected, self.written(pieces))

    def test_joined(self) -> None:
        """As many pieces as one call may write are joined."""
        body = bytes(MOST_AT_ONCE - 20)
        self.assertEqual((1, MOST_AT_ONCE, False), self.written([M1[:20], body]))
        self.assertEqual([MOST_AT_ONCE], self.disk.sizes)

    def test_parts(self) -> None:
        """Beyond that each call writes as many as fit; of a longer piece it writes a part."""
        half = MOST_AT_ONCE // 2
        sizes = [half, half, half, half + 1, 1, 2 * MOST_AT_ONCE + 2, 5, 0]
        for keeps in (False, True):
            self.begin(keeps)
            self.written([os.urandom(size) for size in sizes])
            most = MOST_AT_ONCE
            self.assertEqual([most, half, half + 2, most, most, 2, 5], self.disk.sizes)

    def test_runs_are_not_copied(self) -> None:
        """A run of the turn in C is written and kept as it is, alone or beside others."""
        long = M1 * (MOST_AT_ONCE // len(M1))
        for run, times in ((M3 * 2, 1), (long, 2)):
            self.begin()
            self.written([run, b""] * times, times)
            assert self.writer.unflushed is not None
            for _, data in self.writer.unflushed.pieces():
                self.assertIs(run, data)

    def test_full_in_any_part(self) -> None:
        """The whole records of all parts up to the fault stay."""
        body = MOST_AT_ONCE // 4
        pieces = [piece for n in range(10) for piece in (M1[:20], bytes([n]) * body)]
        for keeps in (False, True):
            for room in (0, 20, 3 * (20 + body), 3 * (20 + body) + 1, MOST_AT_ONCE, 9 * body):
                self.begin(keeps)
                self.disk.room = room
                count = room // (20 + body)
                self.assertEqual((count, count * (20 + body), True), self.written(pieces))

    def test_short_write_that_goes_on(self) -> None:
        """A write that is cut short for no reason, as by a signal, is simply continued."""
        write = self.disk.write
        self.patch(self.disk, "write", lambda fd, data, at: write(fd, data[:10], at))
        self.assertEqual((2, 56, False), self.written([M1[:20], M1[20:], M3[:20], M3[20:]]))

    def test_write_that_takes_nothing(self) -> None:
        """A disk that takes no byte and reports no error does not make us loop."""
        self.patch(self.disk, "write", lambda fd, data, at: 0)
        self.assertEqual((0, 0, True), self.written([M1[:20], M1[20:]]))


class PiecesTests(SynchronousTestCase):
    """The pieces of a batch whose write has failed."""

    def test_whole_records(self) -> None:
        """Only records that are complete count."""
        pieces = [M1[:20], M1[20:], M3[:20], M3[20:]]
        expected = {0: (0, 0), 24: (0, 0), 25: (1, 25), 55: (1, 25), 56: (2, 56)}
        for written, found in expected.items():
            self.assertEqual(whole_records(pieces, written), found)

    def test_runs_and_single_records(self) -> None:
        """Each record counts by itself, whether it came alone or in a run."""
        one, two, three = log(b"one", b"two", b"three")
        pieces = [one[:20], one[20:], two + three, b"", one[:20], one[20:]]
        single = single_records(pieces)
        self.assertEqual(b"".join(pieces), b"".join(single))
        self.assertEqual(8, len(single))
        self.assertEqual((2, len(one + two)), whole_records(single, len(one + two + three) - 1))
