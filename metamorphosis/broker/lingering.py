"""
When the set of sockets waits for the next request itself, before it returns to the reactor.

Each return through the reactor costs a third of the CPU time of a turn with one request. So the set
*lingers* after a turn with nothing but ordinary requests: it waits up to a millisecond for the next
one. Other sockets and timers of the reactor wait for the same moment.

It lingers where the next request comes soon: at the two members of a pair, since a put to a pair
takes three turns; and for a *lone* client, when a turn has served one socket and has begun within
``SOON_SECONDS`` of the end of the turn before. It does not linger while a reply waits for a flush,
whose end the reactor must see, nor with much under way: then larger turns save more.

The wait begins with a busy poll. In a virtual machine a processor that sleeps is woken by a signal
through the hypervisor: that, and the return from sleep, took 53 % of the broker's CPU time for the
puts of a lone client. A busy poll that finds nothing in its time was in vain: then the
next wait has none, after the second in a row the next three, up to ``MOST_SKIPPED``. So it ends
by itself where the client is slower, or shares the processor with the broker. The master of a pair
counts the polls for answers of its slave apart: where both have one processor these are in vain,
and those for the client's next put are not.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

LINGER_SECONDS = 0.001
LINGER_MILLISECONDS = 1
"""No further wait begins after the first, and none is longer than the second."""

SOON_SECONDS = 0.0005
"""A client whose requests come at longer intervals does not gain: 8 us of 500."""

MOST_SKIPPED = 255
"""Waits without a busy poll, at most, before the next one with it: 0.2 us a wait."""

NOTHING, AT_ONCE, LATER = range(3)
"""The outcome of a wait: nothing came, something came during the busy poll, or after it; as in
``turnmodule.c``."""


class Lingering:
    """
    See the module. Thread: reactor.

    :param wait: waits for a ready socket: first a busy poll of so many microseconds, then asleep
        for so many milliseconds.
    :param busy_poll: microseconds; 0: never.
    :ivar soon: the present turn began soon after the one before.
    """

    def __init__(
        self,
        wait: Callable[[int, int], int],
        busy_poll: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._wait = wait
        self._busy_poll = busy_poll
        self._clock = clock
        self._ended = -SOON_SECONDS
        self._until = 0.0
        self._polls = Polls(), Polls()  # for requests, and for answers of the slave
        self.soon = False

    def begin(self) -> None:
        """The reactor has found a ready socket."""
        now = self._clock()
        self.soon = now - self._ended < SOON_SECONDS
        self._until = now + LINGER_SECONDS

    def end(self) -> None:
        """The set returns to the reactor."""
        self._ended = self._clock()

    def more(self, sleeps: bool, answers: bool = False) -> bool:
        """
        Wait for the next request, unless it is time to return.

        :param sleeps: for up to a millisecond; otherwise in a busy poll only.
        :param answers: what comes next is an answer of the slave of a pair.
        :returns: whether it has come.
        """
        if self._clock() >= self._until:
            return False
        milliseconds = LINGER_MILLISECONDS if sleeps else 0
        polls = self._polls[answers]
        if not self._busy_poll or polls.skips:
            polls.skips = max(polls.skips - 1, 0)
            return sleeps and self._wait(0, milliseconds) != NOTHING
        outcome = self._wait(self._busy_poll, milliseconds)
        polls.in_vain = 0 if outcome == AT_ONCE else min(2 * polls.in_vain + 1, MOST_SKIPPED)
        polls.skips = polls.in_vain
        return outcome != NOTHING


class Polls:
    """
    The outcome of busy polls for the same thing.

    :ivar in_vain: the waits to skip after the last one: 0, 1, 3, 7, ...
    :ivar skips: those of them that are left.
    """

    __slots__ = ("in_vain", "skips")

    def __init__(self) -> None:
        self.in_vain = self.skips = 0
