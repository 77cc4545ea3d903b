"""The log of a partition in memory, in the format of a broker's files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from metamorphosis.errors import Moved, NotFound
from metamorphosis.message import encode_record


class MemoryPartition:
    """
    The messages of a partition.

    :param start: offset of the first byte; earlier messages have been deleted.
    :ivar data: the records from ``start``; a test may damage them.
    :ivar segments: the first offsets of the segments.
    """

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.data = b""
        self.segments = [start]

    @property
    def end(self) -> int:
        """The offset of the next message."""
        return self.start + len(self.data)

    def append(self, *bodies: bytes, first_id: int = 1, flag: int = 0) -> None:
        """Put messages; ids count up from ``first_id``."""
        records = (encode_record(first_id + n, flag, body) for n, body in enumerate(bodies))
        self.data += b"".join(records)

    def roll(self) -> None:
        """Begin a new segment."""
        self.segments.append(self.end)

    def segment_end(self, offset: int) -> int:
        """End of the segment with ``offset``, and of the reply to a get."""
        index = bisect_right(self.segments, offset)
        return self.segments[index] if index < len(self.segments) else self.end

    def nearest(self, offset: int) -> int:
        """The offset in a broker's reply to an ``offset`` command."""
        if offset >= self.end:
            return self.end
        return self.segments[max(bisect_right(self.segments, offset) - 1, 0)]

    def read(self, offset: int, size: int) -> bytes:
        """
        The bytes of a broker's reply to a get.

        :param size: limit of the number of bytes.
        :raises Moved: ``offset`` is before the log; the text is its first offset.
        :raises NotFound: the log ends there.
        """
        if offset < self.start:
            raise Moved(str(self.start))
        place = offset - self.start
        end = min(place + size, self.segment_end(offset) - self.start)
        if end <= place:
            raise NotFound(f"Could not find message at position {offset}")
        return self.data[place:end]

    def bodies(self) -> Iterator[bytes]:
        """The bodies of the messages; the log must be undamaged."""
        place = 0
        while place < len(self.data):
            length = int.from_bytes(self.data[place : place + 4], "big")
            yield self.data[place + 20 : place + 20 + length]
            place += 20 + length
