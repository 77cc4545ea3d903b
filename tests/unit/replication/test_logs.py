"""Two logs of one partition side by side."""

from __future__ import annotations

import os
import random
from collections.abc import Coroutine
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import LogChanged, OffsetTooSmall, SegmentsInvalid
from metamorphosis.message import encode_record
from metamorphosis.replication.logs import (
    TAIL_BYTES,
    DirectoryLog,
    LogEnds,
    LogReader,
    RecordWalk,
    StoreLog,
    Verdict,
    common_range,
    compare_all,
    compare_tail,
    equal_bytes,
    judge_ends,
    read_fully,
)
from metamorphosis.store.layout import segment_name
from tests.support.partitions import Partition

T = TypeVar("T")


def records(count: int, size: int = 50, seed: int = 0) -> list[bytes]:
    """Different records of that size."""
    chance = random.Random(seed)
    return [encode_record(number + 1, 0, chance.randbytes(size - 20)) for number in range(count)]


def write_log(directory: str, start: int, *segments: bytes) -> DirectoryLog:
    """A directory with these segment files, the first at ``start``."""
    os.makedirs(directory)
    for data in segments:
        with open(os.path.join(directory, segment_name(start)), "wb") as file:
            file.write(data)
        start += len(data)
    return DirectoryLog(directory)


class MemoryLog:
    """A log in memory, which gives at most ``most`` bytes at once."""

    def __init__(self, data: bytes, first: int = 0, most: int = 1 << 30) -> None:
        self.data = data
        self.first = first
        self.most = most

    async def ends(self) -> LogEnds | None:
        """See ``LogReader``."""
        return LogEnds(self.first, self.first + len(self.data))

    async def read(self, offset: int, size: int) -> bytes:
        """See ``LogReader``."""
        at = offset - self.first
        if at < 0:
            raise OffsetTooSmall(self.first)
        return self.data[at : at + min(size, self.most)]


class Absent(MemoryLog):
    """No log."""

    def __init__(self) -> None:
        super().__init__(b"")

    async def ends(self) -> LogEnds | None:
        """See ``LogReader``."""
        return None


class EndsTests(SynchronousTestCase):
    """What the ranges alone say."""

    def test_ranges(self) -> None:
        """Every relation of two ranges, and the same the other way round."""
        mirror = {
            Verdict.A_AHEAD: Verdict.B_AHEAD,
            Verdict.ABSENT_A: Verdict.ABSENT_B,
            Verdict.B_AHEAD: Verdict.A_AHEAD,
        }
        for a, b, verdict, ahead in (
            ((0, 100), (0, 100), Verdict.EQUAL, 0),
            ((50, 100), (0, 100), Verdict.EQUAL, 0),
            ((0, 0), (0, 0), Verdict.EQUAL, 0),
            ((0, 120), (0, 100), Verdict.A_AHEAD, 20),
            ((0, 120), (50, 100), Verdict.A_AHEAD, 20),
            ((100, 120), (0, 100), Verdict.A_AHEAD, 20),
            ((0, 120), (0, 0), Verdict.A_AHEAD, 120),
            ((0, 100), (101, 120), Verdict.APART, 20),
            ((0, 0), (1000, 1000), Verdict.APART, 1000),
            (None, (0, 0), Verdict.ABSENT_A, 0),
            (None, None, Verdict.EQUAL, 0),
        ):
            one = a and LogEnds(*a)
            other = b and LogEnds(*b)
            found = judge_ends(one, other)
            self.assertEqual((verdict, ahead), (found.verdict, found.ahead), (a, b))
            turned = judge_ends(other, one)
            self.assertEqual((mirror.get(verdict, verdict), ahead), (turned.verdict, turned.ahead))
            self.assertEqual(
                verdict in (Verdict.EQUAL, Verdict.A_AHEAD, Verdict.B_AHEAD), found.is_prefix
            )

    def test_common_range(self) -> None:
        """What both have; ranges that only touch share no byte."""
        self.assertEqual((50, 100), common_range(LogEnds(0, 100), LogEnds(50, 120)))
        self.assertEqual((100, 100), common_range(LogEnds(0, 100), LogEnds(100, 120)))
        self.assertIsNone(common_range(LogEnds(0, 99), LogEnds(100, 120)))

    def test_text(self) -> None:
        """Ranges are shown in log lines."""
        self.assertEqual("5-70", f"{LogEnds(5, 70)}")


class CompareTests(SynchronousTestCase):
    """The bytes that both have."""

    def now(self, coroutine: Coroutine[object, object, T]) -> T:
        """The result of a coroutine that never waits."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def fails(self, kind: type[BaseException], coroutine: Coroutine[object, object, T]) -> str:
        """The text of its error."""
        failure = self.failureResultOf(Deferred.fromCoroutine(coroutine), kind)
        return str(failure.value)

    def test_equal_and_ahead(self) -> None:
        """Both ways of comparing find no difference where there is none."""
        log = records(2000)
        whole, part = b"".join(log), b"".join(log[:1500])
        for compare in (compare_tail, compare_all):
            for a, b, verdict in (
                (MemoryLog(whole), MemoryLog(whole), Verdict.EQUAL),
                (MemoryLog(whole), MemoryLog(part), Verdict.A_AHEAD),
                (MemoryLog(part), MemoryLog(whole, most=999), Verdict.B_AHEAD),
                (MemoryLog(whole), MemoryLog(whole[5000:], 5000), Verdict.EQUAL),
                (MemoryLog(b""), MemoryLog(whole), Verdict.B_AHEAD),
                (MemoryLog(b""), MemoryLog(whole, 7), Verdict.APART),
                (Absent(), MemoryLog(whole), Verdict.ABSENT_A),
                (MemoryLog(whole), Absent(), Verdict.ABSENT_B),
            ):
                self.assertEqual(verdict, self.now(compare(a, b)).verdict)

    def test_every_byte_is_compared(self) -> None:
        """
        A bit that differs anywhere in any record is found, and the offset is that of its record.
        """
        log = b"".join(records(6))
        for at in range(len(log)):
            other = bytearray(log)
            other[at] ^= 4
            found = self.now(compare_all(MemoryLog(log), MemoryLog(bytes(other))))
            self.assertEqual((Verdict.DIFFERENT, at - at % 50), (found.verdict, found.differs_at))
            self.assertFalse(found.is_prefix)

    def test_long_logs(self) -> None:
        """Records lie across the steps, and one is longer than several steps."""
        log = records(40, 70_001) + [encode_record(50, 0, bytes(3 << 20))] + records(3, 999)
        whole = b"".join(log)
        starts = [sum(map(len, log[:number])) for number in range(len(log))]
        for number in (0, 14, 15, 39, 40, 41, 43):
            other = bytearray(whole)
            other[starts[number] + len(log[number]) - 1] ^= 1
            found = self.now(compare_all(MemoryLog(whole), MemoryLog(bytes(other), most=77_777)))
            self.assertEqual(starts[number], found.differs_at)

    def test_difference_behind_damage(self) -> None:
        """Where no record can be followed any more, the byte itself is named."""
        log = records(2)
        damaged = log[0] + b"\xff" * 50 + log[1]
        other = damaged[:-1] + b"?"
        found = self.now(compare_all(MemoryLog(damaged), MemoryLog(other)))
        self.assertEqual(149, found.differs_at)

    def test_tail(self) -> None:
        """Only the last bytes are read; a difference before them is not seen."""
        log = b"".join(records(3000))
        late, early = bytearray(log), bytearray(log)
        late[-TAIL_BYTES] ^= 1
        early[-TAIL_BYTES - 1] ^= 1
        found = self.now(compare_tail(MemoryLog(log), MemoryLog(bytes(late))))
        self.assertEqual(
            (Verdict.DIFFERENT, len(log) - TAIL_BYTES), (found.verdict, found.differs_at)
        )
        self.assertTrue(self.now(compare_tail(MemoryLog(log), MemoryLog(bytes(early)))).is_prefix)
        found = self.now(compare_tail(MemoryLog(log), MemoryLog(bytes(early)), len(log)))
        self.assertEqual(len(log) - TAIL_BYTES - 1, found.differs_at)

    def test_log_that_changes(self) -> None:
        """A log that was cut, or has lost its beginning, meanwhile is an error of its own."""
        log = b"".join(records(4))

        class Cut(MemoryLog):
            async def ends(self) -> LogEnds | None:
                return LogEnds(0, 400)

        for compare in (compare_tail, compare_all):
            text = self.fails(LogChanged, compare(Cut(log), Cut(log)))
            self.assertEqual("the log ends at 200, although it reached 400 a moment ago", text)

        class Deleted(MemoryLog):
            async def ends(self) -> LogEnds | None:
                return LogEnds(0, 200)

        self.fails(OffsetTooSmall, compare_all(MemoryLog(log), Deleted(log[50:], 50)))

    def test_read_fully(self) -> None:
        """Pieces are put together."""
        self.assertEqual(b"cdefg", self.now(read_fully(MemoryLog(b"abcdefgh", most=2), 2, 5)))

    def test_equal_bytes(self) -> None:
        """The length of the common beginning."""
        for one, other, same in (
            (b"", b"", 0),
            (b"ab", b"ab", 2),
            (b"ab", b"a", 1),
            (b"a", b"b", 0),
        ):
            self.assertEqual(same, equal_bytes(one, other))
        self.assertEqual(999, equal_bytes(bytes(2000), bytes(999) + b"x" * 1001))


class RecordWalkTests(SynchronousTestCase):
    """The records of a log that comes in pieces."""

    def test_pieces_of_any_size(self) -> None:
        """It stands at the record of the last byte, or after it, however the bytes come."""
        log = b"".join([encode_record(1, 0, bytes(size)) for size in (0, 1, 70, 3)])
        starts = [0, 20, 41, 131, 154]
        for size in range(1, 30):
            walk = RecordWalk(0)
            for at in range(0, len(log), size):
                walk.feed(log[at : at + size])
                fed = min(at + size, len(log))
                self.assertEqual(max(start for start in starts if start <= fed), walk.start)
        self.assertFalse(walk.lost)

    def test_lost(self) -> None:
        """A negative length ends it."""
        walk = RecordWalk(100)
        walk.feed(b"\xff" * 3)
        self.assertFalse(walk.lost)
        walk.feed(b"\xff" * 50)
        walk.feed(b"\x00" * 50)
        self.assertEqual((100, True), (walk.start, walk.lost))


class ReaderTests(CompareTests):
    """Directories and stores."""

    def contract(self, log: LogReader, first: int, data: bytes) -> None:
        """What holds for every reader."""
        end = first + len(data)
        self.assertEqual(LogEnds(first, end), self.now(log.ends()))
        self.assertEqual(data, self.now(read_fully(log, first, len(data))))
        for offset in range(first, end, 7):
            got = self.now(log.read(offset, 30))
            self.assertTrue(1 <= len(got) <= 30)
            self.assertEqual(data[offset - first : offset - first + len(got)], got)
        self.assertEqual(b"", self.now(log.read(end, 10)))
        if first:
            self.fails(OffsetTooSmall, log.read(first - 1, 10))

    def test_directory(self) -> None:
        """Several segments, the last with a torn tail, which does not count."""
        log = records(9)
        torn = records(1, seed=1)[0][:-1]
        found = write_log(self.mktemp(), 1000, b"".join(log[:4]), log[4], b"".join(log[5:]) + torn)
        self.contract(found, 1000, b"".join(log))

    def test_empty_directories(self) -> None:
        """No directory, or no file in it, is not a log; an empty file is an empty one."""
        path = self.mktemp()
        self.assertIsNone(self.now(DirectoryLog(path).ends()))
        os.mkdir(path)
        self.assertIsNone(self.now(DirectoryLog(path).ends()))
        self.assertEqual((700, 700), self.now(write_log(self.mktemp(), 700, b"").ends()))

    def test_directory_that_is_none(self) -> None:
        """A hole between two files is told with their names."""
        log = records(2)
        path = self.mktemp()
        write_log(path, 0, log[0])
        with open(os.path.join(path, segment_name(51)), "wb") as file:
            file.write(log[1])
        self.assertIn(segment_name(51), self.fails(SegmentsInvalid, DirectoryLog(path).ends()))

    def test_store(self) -> None:
        """What is written counts, flushed or not."""
        log = records(9)
        partition = Partition(self.mktemp())
        os.mkdir(partition.path)
        store = partition.fill(n500=b"".join(log[:3]), n650=b"".join(log[3:6])).open()
        for record in log[6:]:
            store.append([record])
        self.contract(StoreLog(store), 500, b"".join(log))

    def test_kinds_are_compared(self) -> None:
        """A directory with a store."""
        log = records(9)
        partition = Partition(self.mktemp())
        os.mkdir(partition.path)
        store = partition.fill(n500=b"".join(log[:6])).open()
        directory = write_log(self.mktemp(), 550, b"".join(log[1:3]), b"".join(log[3:]))
        found = self.now(compare_all(StoreLog(store), directory))
        self.assertEqual((Verdict.B_AHEAD, 150), (found.verdict, found.ahead))
