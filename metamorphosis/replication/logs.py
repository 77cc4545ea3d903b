"""
The comparison of two logs of one partition: the range of each, and whether their common bytes are
equal.

A comparison uses only a ``LogReader``: another broker, a directory, and the store of this process
are read in the same way. It compares bytes, not records, because a ``get`` may begin inside a
record. ``compare_tail`` compares the last common bytes, and is quick enough for every connection;
``compare_all`` compares all of them.

The coroutines await only the readers, so they run on any loop, and without a loop if the readers
never wait.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from metamorphosis.errors import LogChanged, OffsetTooSmall
from metamorphosis.message import HEADER_BYTES
from metamorphosis.store.layout import SegmentFile, find_segments
from metamorphosis.store.recovery import recover

if TYPE_CHECKING:
    from metamorphosis.store.segmentlog import SegmentLog

TAIL_BYTES: Final = 64 * 1024
"""The number of last common bytes that ``compare_tail`` compares."""

STEP_BYTES: Final = 1 << 20
"""Bytes that ``compare_all`` reads at once."""

_LENGTH_BYTES: Final = 4


class LogEnds(NamedTuple):
    """
    The range of a log, in bytes from the start of the partition.

    :ivar first: the lowest offset.
    :ivar end: the offset of the next record; ``first`` without a record.
    """

    first: int
    end: int

    def __str__(self) -> str:
        return f"{self.first}-{self.end}"


class LogReader(Protocol):
    """
    One log. Providers: ``DirectoryLog``, ``StoreLog``, and ``replication.peer.PeerLog`` for another
    broker.
    """

    async def ends(self) -> LogEnds | None:
        """Its present range; None without evidence of such a log."""

    async def read(self, offset: int, size: int) -> bytes:
        """
        At least one and at most ``size`` bytes from ``offset``; none at the end.

        :raises OffsetTooSmall: the log begins above ``offset``.
        """


class Verdict(Enum):
    """The relation of two logs."""

    EQUAL = "equal"
    A_AHEAD = "a is ahead"
    B_AHEAD = "b is ahead"
    DIFFERENT = "different"
    APART = "apart"
    """The ranges do not touch: one ends below the beginning of the other."""
    ABSENT_A = "a has none"
    ABSENT_B = "b has none"


PREFIXES: Final = frozenset({Verdict.EQUAL, Verdict.A_AHEAD, Verdict.B_AHEAD})
"""One log begins with the other, apart from segments deleted by retention."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    The result of a comparison.

    :ivar a: range of the first log, None without one.
    :ivar b: range of the second log.
    :ivar differs_at: of ``DIFFERENT``: the offset of the record that differs, or, by
        ``compare_tail``, of the byte.
    """

    verdict: Verdict
    a: LogEnds | None
    b: LogEnds | None
    differs_at: int | None = None

    @property
    def ahead(self) -> int:
        """Bytes of the longer log beyond the end of the other; all bytes if that is absent."""
        if self.a is None or self.b is None:
            only = self.a or self.b
            return 0 if only is None else only.end - only.first
        return abs(self.a.end - self.b.end)

    @property
    def is_prefix(self) -> bool:
        """Whether one log is a prefix of the other."""
        return self.verdict in PREFIXES


def common_range(a: LogEnds, b: LogEnds) -> LogEnds | None:
    """The common range, which may be empty; None if the ranges do not touch."""
    first, end = max(a.first, b.first), min(a.end, b.end)
    return LogEnds(first, end) if first <= end else None


def judge_ends(a: LogEnds | None, b: LogEnds | None) -> Comparison:
    """The verdict by the ranges alone; right if the common bytes are equal."""
    if a is None or b is None:
        absent = Verdict.ABSENT_A if a is None else Verdict.ABSENT_B
        return Comparison(Verdict.EQUAL if a is b else absent, a, b)
    if common_range(a, b) is None:
        return Comparison(Verdict.APART, a, b)
    if a.end == b.end:
        return Comparison(Verdict.EQUAL, a, b)
    return Comparison(Verdict.A_AHEAD if a.end > b.end else Verdict.B_AHEAD, a, b)


async def compare_tail(a: LogReader, b: LogReader, tail: int = TAIL_BYTES) -> Comparison:
    """
    Compare the ranges, and the last common bytes.

    :param tail: the number of bytes.
    :raises LogChanged: a log became shorter meanwhile.
    :raises OffsetTooSmall: retention deleted needed bytes.
    """
    return await _compare(a, b, tail)


async def compare_all(a: LogReader, b: LogReader) -> Comparison:
    """
    Compare all common bytes. Errors: those of ``compare_tail``.

    :returns: ``differs_at`` is the offset of the first record that differs.
    """
    return await _compare(a, b, None)


async def _compare(a: LogReader, b: LogReader, tail: int | None) -> Comparison:
    ends = judge_ends(await a.ends(), await b.ends())
    if ends.a is None or ends.b is None:
        return ends
    common = common_range(ends.a, ends.b)
    if common is None:
        return ends
    first = common.first if tail is None else max(common.first, common.end - tail)
    walk = None if tail is not None else RecordWalk(first)
    at = await _first_difference(a, b, LogEnds(first, common.end), walk)
    if at is None:
        return ends
    return Comparison(Verdict.DIFFERENT, ends.a, ends.b, at)


async def _first_difference(
    a: LogReader, b: LogReader, common: LogEnds, walk: RecordWalk | None
) -> int | None:
    """
    The offset of the first differing byte, or with ``walk`` of its record; None: all are equal.
    """
    at = common.first
    while at < common.end:
        size = min(STEP_BYTES, common.end - at)
        one, other = await read_fully(a, at, size), await read_fully(b, at, size)
        if one != other:
            same = equal_bytes(one, other)
            if walk is None:
                return at + same
            walk.feed(one[:same])
            return at + same if walk.lost else walk.start
        if walk is not None:
            walk.feed(one)
        at += size
    return None


async def read_fully(log: LogReader, offset: int, size: int) -> bytes:
    """
    Exactly ``size`` bytes.

    :raises LogChanged: the log ends earlier.
    """
    data = await log.read(offset, size)
    if len(data) == size:
        return data
    pieces = [data]
    got = len(data)
    while got < size:
        data = await log.read(offset + got, size - got)
        if not data:
            raise LogChanged(
                f"the log ends at {offset + got}, although it reached {offset + size} a moment ago"
            )
        pieces.append(data)
        got += len(data)
    return b"".join(pieces)


def equal_bytes(one: bytes, other: bytes) -> int:
    """The number of equal bytes at the start."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class RecordWalk:
    """
    Follows the records of a log whose bytes arrive in pieces.

    :ivar start: offset of the record with the last byte, or of the next record.
    :ivar lost: bytes that are not a record were found; the next record's offset is unknown.
    """

    def __init__(self, start: int) -> None:
        """:param start: the offset of a record, and of the first bytes."""
        self.start = start
        self.lost = False
        self._fed = start  # offset after the bytes seen so far
        self._length = bytearray()  # of the record at start, as far as received

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        at = self._fed  # offset of data[0]
        self._fed = end = at + len(data)
        while not self.lost:
            begin = self.start + len(self._length) - at
            missing = _LENGTH_BYTES - len(self._length)
            self._length += data[begin : begin + missing]
            if len(self._length) < _LENGTH_BYTES:
                return
            length = int.from_bytes(self._length, "big", signed=True)
            self.lost = length < 0
            if self.lost or self.start + HEADER_BYTES + length > end:
                return
            self.start += HEADER_BYTES + length
            self._length.clear()


class StoreLog:
    """The store of this process. Reads from the files, including unflushed bytes."""

    def __init__(self, store: SegmentLog) -> None:
        self._store = store

    async def ends(self) -> LogEnds | None:
        """See ``LogReader``: up to the last written byte."""
        return LogEnds(self._store.min_offset, self._store.last.end)

    async def read(self, offset: int, size: int) -> bytes:
        """See ``LogReader``."""
        if offset < self._store.min_offset:
            raise OffsetTooSmall(self._store.min_offset)
        return self._store.bytes_at(offset, size)


class DirectoryLog:
    """
    The directory of a partition, read while its broker is down or running. Thread: any; blocks.

    A torn tail does not count: a broker truncates it when it starts.

    :raises StoreError: from the coroutines; names the file.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._segments: list[SegmentFile] = []

    async def ends(self) -> LogEnds | None:
        """See ``LogReader``; None without a segment file."""
        self._segments = find_segments(self.directory) if os.path.isdir(self.directory) else []
        if not self._segments:
            return None
        last = self._segments[-1]
        with open(last.path, "rb") as file:
            size = recover(file.fileno(), last.size).size
        self._segments[-1] = last._replace(size=size)
        return LogEnds(self._segments[0].start, last.start + size)

    async def read(self, offset: int, size: int) -> bytes:
        """See ``LogReader``; within the range that ``ends`` returned."""
        if self._segments and offset < self._segments[0].start:
            raise OffsetTooSmall(self._segments[0].start)
        for start, path, length in self._segments:
            if start <= offset < start + length:
                with open(path, "rb") as file:
                    file.seek(offset - start)
                    return file.read(min(size, start + length - offset))
        return b""
