"""
The memory for fetched bytes, shared by all partitions: taken before a request is sent, returned
when its bytes are in the log or dropped.

A partition that has to wait for memory holds none meanwhile: it drops its part of an incomplete
record, so partitions never wait for each other's parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Wish:
    """
    A waiting request for memory.

    :ivar size: bytes.
    :ivar granted: called when they are available.
    """

    __slots__ = ("cancelled", "granted", "size")

    def __init__(self, size: int, granted: Callable[[], None]) -> None:
        self.size = size
        self.granted = granted
        self.cancelled = False

    def cancel(self) -> None:
        """Withdraw the request, which was not granted."""
        self.cancelled = True


class Budget:
    """
    First come, first served; a request for more than the total is granted when no other memory is
    taken. Thread: reactor.

    :param total: bytes.
    :ivar taken: bytes.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self._waiting: deque[Wish] = deque()

    def try_take(self, size: int) -> bool:
        """Take the bytes if they are available and no request waits."""
        if self.is_short or not self._fits(size):
            return False
        self.taken += size
        return True

    def wait(self, size: int, granted: Callable[[], None]) -> Wish:
        """Call ``granted`` when the bytes are taken; never from within this call."""
        wish = Wish(size, granted)
        self._waiting.append(wish)
        return wish

    def give_back(self, size: int) -> None:
        """Return ``size`` bytes, and grant waiting requests."""
        self.taken -= size
        waiting = self._waiting
        while waiting and (waiting[0].cancelled or self._fits(waiting[0].size)):
            wish = waiting.popleft()
            if not wish.cancelled:
                self.taken += wish.size
                wish.granted()

    @property
    def is_short(self) -> bool:
        """Whether a request waits."""
        while self._waiting and self._waiting[0].cancelled:
            self._waiting.popleft()
        return bool(self._waiting)

    def _fits(self, size: int) -> bool:
        return self.taken + size <= self.total or not self.taken
