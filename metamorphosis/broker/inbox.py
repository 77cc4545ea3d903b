"""
The received bytes of a connection, and the incomplete request that is kept until its rest arrives.

All connections receive into one buffer of the process, after the bytes that each has left over from
its last read: an idle connection costs no memory, and nothing is allocated per read. A long frame
gets a buffer of its own, so that a slow sender's bytes are not copied again with every read.
"""

from __future__ import annotations

SMALL_CHUNK = 16 * 1024
"""A left-over part of a longer frame than this moves to a buffer of its own."""

FIRST_GROWTH = 2 * SMALL_CHUNK
"""First size of that buffer; it doubles as bytes arrive, so that memory for a peer is at most twice
the bytes that it has sent."""


class ReceiveBuffer:
    """
    The buffer that every connection receives into.

    Its contents belong to one connection from its ``room`` to the end of its ``received``.
    """

    __slots__ = ("data", "view")

    def __init__(self, size: int = 256 * 1024) -> None:
        self.data = bytearray(size)
        self.view = memoryview(self.data)


class Inbox:
    """
    The bytes of one connection that are not consumed yet. Thread: reactor.

    :ivar data: the buffer that holds them during ``received``; complete requests are taken off its
        front.
    :ivar view: the same memory.
    :ivar needed: total length of the first frame; 0 if unknown.
    """

    __slots__ = ("_common", "_filled", "_left", "data", "needed", "view")

    def __init__(self, common: ReceiveBuffer) -> None:
        self._common = common
        self._left = b""
        self._filled = 0
        self.data = common.data
        self.view = common.view
        self.needed = 0

    def room(self) -> memoryview:
        """The place for the next bytes: after the left-over of the last read."""
        if self.data is not self._common.data:
            return self.view[self._filled :]
        left = self._filled = len(self._left)
        if not left:
            return self.view
        if left >= len(self.view):  # of a line that ``max-line-bytes`` allows
            self.data = bytearray(2 * left)
            self.view = memoryview(self.data)
        self.view[:left] = self._left
        return self.view[left:]

    def add(self, count: int) -> int:
        """``count`` bytes were put into the room; returns the number of bytes now held."""
        self._filled += count
        return self._filled

    def clear(self) -> None:
        """Drop all bytes."""
        self._left = b""
        self._filled = self.needed = 0
        self.data, self.view = self._common.data, self._common.view

    def take_left(self, most: int) -> bytes | None:
        """Give away what is left over, and forget it; None: it is more than ``most`` bytes, or has
        a buffer of its own."""
        left = self._left
        if self.data is not self._common.data or len(left) > most:
            return None
        self.clear()
        return left

    def put_back(self, left: bytes) -> None:
        """Nothing is kept here: keep this until more bytes arrive."""
        self._left = left

    def keep(self, consumed: int) -> None:
        """Keep the bytes after the first ``consumed`` ones until more arrive."""
        if self.needed > SMALL_CHUNK:
            self._keep_apart(consumed)
            return
        self._left = bytes(self.view[consumed : self._filled])
        self.data, self.view = self._common.data, self._common.view

    def _keep_apart(self, consumed: int) -> None:
        own = self.data is not self._common.data
        left = self._filled - consumed
        if own and not consumed and left < len(self.data):
            return
        grown = bytearray(min(self.needed, max(FIRST_GROWTH, 2 * left)))
        grown[:left] = self.view[consumed : self._filled]
        self.data, self.view = grown, memoryview(grown)
        self._filled = left
        self._left = b""
