"""
Two logs of one partition, side by side: where each begins and ends, and whether the bytes that both
have are the same.

A comparison needs nothing of a log but a ``LogReader``: a broker that is asked, a directory, and
the store of this process are read in the same way. It compares bytes, not records, because a
``get`` may begin inside a record. ``compare_tail`` looks at the last bytes that both have, and is
quick enough for every connection; ``compare_all`` looks at every one.

The coroutines await nothing but the readers, so they run on any loop, and without one where the
readers never wait.
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
"""How many of the last common bytes ``compare_tail`` looks at."""

STEP_BYTES: Final = 1 << 20
"""How many bytes ``compare_all`` reads at once."""

_LENGTH_BYTES: Final = 4


class LogEnds(NamedTuple):
    """
    The range of a log, in bytes from the start of the partition.

    :ivar first: the lowest offset.
    :ivar end: where the next record will begin; ``first`` if there is no record.
    """

    first: int
    end: int

    def __str__(self) -> str:
        return f"{self.first}-{self.end}"


class LogReader(Protocol):
    """
    One log. Providers: ``DirectoryLog``, ``StoreLog``, and a broker that is asked
    (``replication.peer``).
    """

    async def ends(self) -> LogEnds | None:
        """Its range now; None if nothing shows that there is such a log."""

    async def read(self, offset: int, size: int) -> bytes:
        """
        At least one and at most ``size`` bytes from ``offset`` on; none at the end.

        :raises OffsetTooSmall: the log begins above ``offset``.
        """


class Verdict(Enum):
    """What two logs are to each other."""

    EQUAL = "equal"
    A_AHEAD = "a is ahead"
    B_AHEAD = "b is ahead"
    DIFFERENT = "different"
    APART = "apart"
    """The ranges do not touch: one ends below the beginning of the other."""
    ABSENT_A = "a has none"
    ABSENT_B = "b has none"


PREFIXES: Final = frozenset({Verdict.EQUAL, Verdict.A_AHEAD, Verdict.B_AHEAD})
"""One log begins with the other, as far as retention has left it."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    The outcome.

    :ivar a: range of the first log, None without one.
    :ivar b: range of the second one.
    :ivar differs_at: of ``DIFFERENT``: the offset of the record that differs, or, by
        ``compare_tail``, of the byte.
    """

    verdict: Verdict
    a: LogEnds | None
    b: LogEnds | None
    differs_at: int | None = None

    @property
    def ahead(self) -> int:
        """How many bytes the longer one has beyond the end of the other; all, if that is absent."""
        if self.a is None or self.b is None:
            only = self.a or self.b
            return 0 if only is None else only.end - only.first
        return abs(self.a.end - self.b.end)

    @property
    def is_prefix(self) -> bool:
        """Whether one is a prefix of the other."""
        return self.verdict in PREFIXES


def common_range(a: LogEnds, b: LogEnds) -> LogEnds | None:
    """The bytes that both have, which may be none; None if the ranges do not even touch."""
    first, end = max(a.first, b.first), min(a.end, b.end)
    return LogEnds(first, end) if first <= end else None


def judge_ends(a: LogEnds | None, b: LogEnds | None) -> Comparison:
    """What the ranges alone say; right if the bytes that both have are the same."""
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
    Compare the ranges, and the last bytes that both have.

    :param tail: how many bytes.
    :raises LogChanged: a log became shorter meanwhile.
    :raises OffsetTooSmall: retention took away what is needed.
    """
    return await _compare(a, b, tail)


async def compare_all(a: LogReader, b: LogReader) -> Comparison:
    """
    Compare every byte that both have. Errors: those of ``compare_tail``.

    :returns: ``differs_at`` is the offset of the first record that is not the same.
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
    The offset of the first byte that differs, or with ``walk`` of its record; None: all are equal.
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

    :raises LogChanged: the log ends before.
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
    """How many bytes at the start are the same."""
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
    Follows the records of a log whose bytes come in pieces.

    :ivar start: offset of the record that the last byte belongs to, or of the next one.
    :ivar lost: something is no record, so that nobody knows where the next one begins.
    """

    def __init__(self, start: int) -> None:
        """:param start: where a record begins; the first bytes are those from there on."""
        self.start = start
        self.lost = False
        self._fed = start  # offset after the bytes seen so far
        self._length = bytearray()  # of the record at start, as far as it has come

    def feed(self, data: bytes) -> None:
        """The next bytes."""
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
    """The store of this process. Reads from the files, what is not yet flushed as well."""

    def __init__(self, store: SegmentLog) -> None:
        self._store = store

    async def ends(self) -> LogEnds | None:
        """See ``LogReader``: up to what is written."""
        return LogEnds(self._store.min_offset, self._store.last.end)

    async def read(self, offset: int, size: int) -> bytes:
        """See ``LogReader``."""
        if offset < self._store.min_offset:
            raise OffsetTooSmall(self._store.min_offset)
        return self._store.bytes_at(offset, size)


class DirectoryLog:
    """
    The directory of a partition whose broker is down, or that is only read. Thread: any; blocks.

    A torn tail does not count: a broker cuts it off when it starts.

    :raises StoreError: from the coroutines, naming the file.
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
        """See ``LogReader``; of what ``ends`` has found."""
        if self._segments and offset < self._segments[0].start:
            raise OffsetTooSmall(self._segments[0].start)
        for start, path, length in self._segments:
            if start <= offset < start + length:
                with open(path, "rb") as file:
                    file.seek(offset - start)
                    return file.read(min(size, start + length - offset))
        return b""
