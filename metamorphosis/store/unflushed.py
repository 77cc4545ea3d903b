"""
The written bytes that are not flushed yet, kept in memory.

After a failed flush the kernel marks the pages as clean and may drop them: a read of the file then
returns the former contents, zeros or nothing. So every message that was acknowledged before its
flush is kept until the flush has succeeded, and is written again from here.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Protocol

from metamorphosis.store.fields import UnflushedFields

MOST = 16 << 20
"""Limit in bytes of one store; beyond it, messages are acknowledged only after a flush."""

MOST_IN_ALL = 128 << 20
"""The same limit for all stores of a data path together."""

Pieces = tuple[tuple[int, bytes | memoryview], ...]


class Total(Protocol):
    """
    Counts the bytes that all stores keep.

    :ivar unflushed: bytes.
    """

    unflushed: int


class Unflushed(UnflushedFields):
    """
    The unflushed end of one segment. Thread: reactor.

    :param total: counts the bytes of all stores.
    :ivar size: bytes kept.
    """

    __slots__ = ()

    def __init__(self, total: Total) -> None:
        self._total = total
        self._pieces: list[bytes | memoryview] = []
        self._start = 0  # the position of the first piece; each begins where the one before ends
        self._chunk: bytes | None = None  # behind the pieces: filled by the turn in C
        self._used = 0  # bytes of the chunk
        self.size = 0

    def add(self, position: int, data: bytes | memoryview) -> None:
        """Keep ``data``, which was written at ``position``, the end of the kept bytes."""
        self.close_chunk()
        if not self._pieces:
            self._start = position
        self._pieces.append(data)
        size = len(data)
        self.size += size
        self._total.unflushed += size

    def drop(self, position: int) -> None:
        """Drop the pieces that end at ``position`` or before it, which are on the disk."""
        places = self._places()
        count = max(0, bisect_right(places, position) - 1)
        size = places[count] - self._start
        del self._pieces[:count]
        self._start += size
        self.size -= size
        self._total.unflushed -= size

    def pieces(self) -> Pieces:
        """All kept bytes with their positions, in order."""
        return tuple(zip(self._places(), self._pieces))

    def close_chunk(self) -> None:
        """Let what is used of the chunk be a piece."""
        if self._chunk is not None and self._used:
            self._pieces.append(memoryview(self._chunk)[: self._used])
        self._chunk = None
        self._used = 0

    def _places(self) -> list[int]:
        """Where each piece begins, and the end of the last; no loop of Python, there are many."""
        self.close_chunk()
        return list(accumulate(map(len, self._pieces), initial=self._start))
