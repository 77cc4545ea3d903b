"""The segments of one partition in the order of their offsets: which of them holds an offset."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter

from metamorphosis.store.segment import Segment

_start = attrgetter("start")


class SegmentList:
    """
    At least one segment, sorted by start offset. Only the last is appended to. Thread: reactor.

    Segments leave at the front only, so there is never a hole; ``find`` copes with one all the
    same.
    """

    __slots__ = ("_segments",)

    def __init__(self, segments: list[Segment]) -> None:
        self._segments = segments

    def __iter__(self) -> Iterator[Segment]:
        return iter(tuple(self._segments))

    def __len__(self) -> int:
        return len(self._segments)

    @property
    def first(self) -> Segment:
        """The oldest segment."""
        return self._segments[0]

    @property
    def last(self) -> Segment:
        """The segment that is appended to."""
        return self._segments[-1]

    def immutable(self) -> list[Segment]:
        """All but the last, oldest first."""
        return self._segments[:-1]

    def find(self, offset: int) -> Segment | None:
        """The segment that holds the byte at ``offset``, None if no segment does."""
        index = bisect_right(self._segments, offset, key=_start) - 1
        if index < 0:
            return None
        segment = self._segments[index]
        return segment if offset < segment.end else None

    def append(self, segment: Segment) -> None:
        """The new last segment."""
        self._segments.append(segment)

    def remove_first(self, segment: Segment) -> None:
        """
        Take away the oldest segment.

        :raises ValueError: it is not the oldest, or the last.
        """
        if len(self._segments) < 2 or segment is not self._segments[0]:
            raise ValueError(f"{segment.path} is not the oldest immutable segment")
        del self._segments[0]

    def restore_first(self, segment: Segment) -> None:
        """
        Put back the segment that was taken away last.

        :raises ValueError: it does not join the first.
        """
        if segment.end != self._segments[0].start:
            raise ValueError(f"{segment.path} does not join {self._segments[0].path}")
        self._segments.insert(0, segment)
