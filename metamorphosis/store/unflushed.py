"""
The written bytes that are not flushed yet, kept in memory.

After a flush that has failed the kernel holds the pages for clean and may drop them: what is read
back from the file then is what stood there before, zeros or nothing. So everything that was
acknowledged before its flush is kept until the flush has worked, and is written again from here.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

MOST = 16 << 20
"""Bytes of one store beyond which nothing more is acknowledged before a flush."""

MOST_IN_ALL = 128 << 20
"""The same of all stores of a data path together."""

Pieces = tuple[tuple[int, bytes | memoryview], ...]


class Total(Protocol):
    """
    Counts the bytes that all stores keep.

    :ivar unflushed: bytes.
    """

    unflushed: int


class Unflushed:
    """
    The unflushed end of one segment. Thread: reactor.

    :param total: counts the bytes of all stores.
    :ivar size: bytes kept.
    """

    __slots__ = ("_pieces", "_total", "size")

    def __init__(self, total: Total) -> None:
        self._total = total
        self._pieces: deque[tuple[int, bytes | memoryview]] = deque()
        self.size = 0

    def add(self, position: int, data: bytes | memoryview) -> None:
        """``data`` has been written at ``position``, the end of what is kept."""
        self._pieces.append((position, data))
        size = len(data)
        self.size += size
        self._total.unflushed += size

    def drop(self, position: int) -> None:
        """The bytes below ``position`` are on the disk."""
        pieces = self._pieces
        size = 0
        while pieces and pieces[0][0] < position:
            size += len(pieces.popleft()[1])
        self.size -= size
        self._total.unflushed -= size

    def pieces(self) -> Pieces:
        """All that is kept: positions and bytes, in order."""
        return tuple(self._pieces)
