"""
When the next batch of a group commit is written, after the flush of the last one: of a partition,
and of the embedded ZooKeeper.

The clients that a flush has answered send their next requests at once. If the first of these starts
a flush alone, the others wait for the next: with 16 clients 7 messages a flush were counted, and 15
when the batch waits for them. So after a flush the next batch *gathers*: until as many requests
have come as were answered, or none has come for ``QUIET_SECONDS``, or a quarter of the time that
the flush took is over.

The rule looks at what has happened and needs no setting. For a client that is alone there is
another: ``lone``.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

QUIET_SECONDS = 60e-6
SHARE_OF_FLUSH = 0.25


class Gathering:
    """
    Watches the flushes of one file. Thread: reactor.

    :param collected: how many records have collected for the next batch.
    :param done: called when the next batch is to be written; never from within ``begin``.
    :param allowed: False: each batch is written at once.
    """

    def __init__(
        self,
        clock: IReactorTime,
        collected: Callable[[], int],
        done: Callable[[], None],
        allowed: bool = True,
    ) -> None:
        self._clock = clock
        self._collected = collected
        self._done = done
        self._allowed = allowed

    def begin(self, answered: int, flush_seconds: float) -> bool:
        """
        The replies to so many records leave now, after a flush that took so long. False: there is
        nothing to wait for.

        With one client there is no other whose request could come.
        """
        have = self._collected()
        if not self._allowed or have + answered < 2:
            return False
        now = self._clock.seconds()
        self._wanted = have + answered
        self._have = have
        self._quiet_at = now + QUIET_SECONDS
        self._ends_at = now + flush_seconds * SHARE_OF_FLUSH
        self._look_soon()
        return True

    def _look_soon(self) -> None:
        """In the next turn, after the sockets were read."""
        self._clock.callLater(0, self._look)

    def _look(self) -> None:
        now = self._clock.seconds()
        have = self._collected()
        if have > self._have:
            self._have = have
            self._quiet_at = now + QUIET_SECONDS
        if have >= self._wanted or now >= self._quiet_at or now >= self._ends_at:
            self._done()
        else:
            self._look_soon()
