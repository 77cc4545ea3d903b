"""The fields of a message without the part in C; its ``MessageFields`` is the same. Pure."""

from __future__ import annotations

from metamorphosis.message import HEADER_BYTES
from metamorphosis.partitions import Partition


class FieldsInPython:
    """
    See ``model.ReceivedMessage``.

    A million per second are created: therefore no dataclass, and no body before it is read.
    """

    __slots__ = ("_end", "_piece", "_start", "flag", "id", "offset", "partition", "topic")

    topic: str
    partition: Partition
    offset: int
    id: int
    flag: int
    _piece: bytes
    _start: int
    _end: int

    @property
    def body(self) -> bytes:
        """The body of the record, including the attribute."""
        return self._piece[self._start : self._end]

    @property
    def next_offset(self) -> int:
        """The offset of the next record."""
        return self.offset + HEADER_BYTES + self._end - self._start
