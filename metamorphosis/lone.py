"""
The decision that the reactor thread itself flushes, because nobody can use the time.

A flush in a worker costs three thread switches, more than half of the time of a single client's
put. When two flushes in a row have one record each, and the last one was faster than
``QUICK_SECONDS``, the reactor flushes the second.

In the embedded ZooKeeper all replies wait for the batch that is being committed, even those to
reads. So it allows more records than one: the reactor flushes a batch that has as many as the one
before, which means that all clients that were answered wait for it.

The rule adapts to measured behaviour and needs no setting; it never applies to a slow disk.
"""

from __future__ import annotations

QUICK_SECONDS = 1e-3
"""As long as a round of the set of sockets may take, and other connections wait, anyway. A limit of
0.3 ms made 1,480 puts a second of a single client of 1,620, on a disk that flushes in 0.4 ms."""


class LoneClient:
    """
    Watches the flushes of one file. Thread: reactor.

    :param allowed: False: every flush runs in a worker.
    :param most: records that the reactor may flush.
    :ivar flush_seconds: duration of the last flush; infinite before the first.
    """

    __slots__ = ("_allowed", "_before", "_most", "flush_seconds")

    def __init__(self, allowed: bool, most: int = 1) -> None:
        self.flush_seconds = float("inf")
        self._allowed = allowed
        self._most = most
        self._before = most + 1  # the number of records in the last flush

    def flush_here(self, count: int) -> bool:
        """Whether the reactor flushes ``count`` records; called once for each flush."""
        before, self._before = self._before, count
        quick = self.flush_seconds < QUICK_SECONDS
        return quick and 1 <= before <= count <= self._most and self._allowed
