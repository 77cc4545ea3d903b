"""Keeps a line that others can cause many times a second from filling the log. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SECONDS: Final = 10.0
"""Between two lines."""


class Seldom:
    """
    One kind of line.

    :param seconds: the time, of a clock that is never set back.
    :ivar left_out: how many lines there were between the last two that were logged.
    """

    __slots__ = ("_next", "_seconds", "_skipped", "left_out")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.left_out = 0
        self._seconds = seconds
        self._next = float("-inf")
        self._skipped = 0

    def may_log(self) -> bool:
        """Whether it is time again for such a line; the first one is logged at once."""
        now = self._seconds()
        if now < self._next:
            self._skipped += 1
            return False
        self._next = now + SECONDS
        self.left_out, self._skipped = self._skipped, 0
        return True
