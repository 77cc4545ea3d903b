"""
The time at which a group commit, of a partition or of the embedded ZooKeeper, writes its next batch
after a flush.

The clients that a flush has answered send their next requests at once. If the first of these starts
a flush alone, the others wait for the one after it: with 16 clients, 7 messages per flush were
counted, and 15 when the batch waits for them. So after a flush the next batch *gathers* until as
many requests have arrived as were answered, or none has arrived for ``QUIET_SECONDS``, or a quarter
of the flush's own duration has passed. Both times begin when the replies have left: in Python eight
replies take 120 us, and a time that began before them was always over (8 messages per flush).

The rule adapts to measured behaviour and needs no setting. ``lone`` has the rule for a single
client.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

QUIET_SECONDS = 60e-6
SHARE_OF_FLUSH = 0.25


class Gathering:
    """
    Watches the flushes of one file. Thread: reactor.

    :param collected: returns the number of records collected for the next batch.
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
        Start gathering after a flush; False if there is nothing to wait for: with one client, no
        other request can arrive.

        :param answered: the number of records whose replies leave now.
        :param flush_seconds: the duration of the flush.
        """
        have = self._collected()
        if not self._allowed or have + answered < 2:
            return False
        self._wanted = have + answered
        self._longest = flush_seconds * SHARE_OF_FLUSH
        self._clock.callLater(0, self._first_look)
        return True

    def _first_look(self) -> None:
        """The replies have left. The reactor may not have read the sockets since, so the time
        begins now."""
        self._have = self._collected()
        now = self._clock.seconds()
        self._ends_at = now + self._longest
        self._go_on(now)

    def _look(self) -> None:
        """The sockets were read once more."""
        have = self._collected()
        now = self._clock.seconds()
        if have > self._have:
            self._have = have
            self._go_on(now)
        elif now >= self._quiet_at or now >= self._ends_at:
            self._done()
        else:
            self._clock.callLater(0, self._look)

    def _go_on(self, now: float) -> None:
        """Requests have arrived, or may arrive: wait for more, unless it is enough."""
        if self._have >= self._wanted or now >= self._ends_at:
            self._done()
            return
        self._quiet_at = now + QUIET_SECONDS
        self._clock.callLater(0, self._look)
