"""
Whether the reactor itself flushes for a client that is alone.

A thread that flushes for it costs three switches of threads, more than half of a put of its own.
When two flushes in a row have one record each, and the last one was faster than ``QUICK_SECONDS``,
the reactor flushes the second. The rule looks at what has happened and needs no setting; a slow
disk never sees it.
"""

from __future__ import annotations

QUICK_SECONDS = 300e-6


class LoneClient:
    """
    Watches the flushes of one file. Thread: reactor.

    :param allowed: False: a thread flushes, whoever waits.
    :ivar flush_seconds: of the last flush; infinite before the first.
    """

    __slots__ = ("_allowed", "_alone", "flush_seconds")

    def __init__(self, allowed: bool) -> None:
        self.flush_seconds = float("inf")
        self._allowed = allowed
        self._alone = False  # the last flush had one record

    def flush_here(self, count: int) -> bool:
        """Whether the reactor flushes ``count`` records; asked once for each flush."""
        before, self._alone = self._alone, count == 1
        return before and self._alone and self._allowed and self.flush_seconds < QUICK_SECONDS
