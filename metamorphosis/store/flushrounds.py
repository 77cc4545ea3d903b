"""
Background flushes of many stores, in rounds.

A store with something unflushed joins the next round. On an idle broker a round begins at once, so
a message is readable milliseconds after its put; under load rounds keep their distance, because
each costs the disk a journal commit per store: 200 busy partitions flushed one by one every 10 ms
took half of the processor. While a reader waits for what was written, the distance is not kept
(``hurry``), and only rounds of many stores make a pause.

A round is cut into a few jobs, each of which flushes its share of the stores one after the other.
The file system joins the commits of jobs that run at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from metamorphosis.interfaces import IWorkerThreads

FIRST_DELAY = 0.002
"""Seconds from a write on an idle broker to the round; what is written meanwhile comes along."""

SHARE = 4
"""Rounds take at most one part in so many of the time, as long as the pauses are not too long."""

LONGEST_PAUSE = 2.0
"""Seconds between rounds at most: after one that hung for minutes there is no pause of minutes
more."""

JOBS = 4
"""Jobs of a round at most; more than the threads would only wait for each other."""


class Flush(NamedTuple):
    """
    One store's part of a round.

    :ivar work: blocks until the store's data are on the disk; in a worker.
    :ivar done: told the error, or None; on the reactor.
    """

    work: Callable[[], None]
    done: Callable[[BaseException | None], None]


class FlushRounds:
    """
    Flushes the stores that have joined. Thread: reactor.

    :param clock: the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._joined: list[Callable[[], Flush | None]] = []
        self._call: IDelayedCall | None = None
        self._not_before = 0.0
        self._rested = 0.0  # the same for a round that is in a hurry
        self._hurried = False
        self._began = 0.0
        self._size = 0  # stores in the present round
        self._running = 0  # jobs of the present round

    def join(
        self, begin: Callable[[], Flush | None], threads: IWorkerThreads, distance: float
    ) -> None:
        """
        Call ``begin`` when the next round does, and run what it returns.

        :param distance: seconds from the beginning of one round to that of the next, at least.
        """
        self._joined.append(begin)
        if self._call is None and not self._running:
            self._schedule(threads, distance)

    def hurry(self, threads: IWorkerThreads, distance: float) -> None:
        """
        Begin the next round without delay, when the present one is over; after one of more than
        ``JOBS`` stores the disk gets its pause all the same.
        """
        if self._hurried or not self._joined:
            return
        self._hurried = True
        if self._call is not None:
            self._call.cancel()
        if not self._running:
            self._schedule(threads, distance)

    def stop(self) -> None:
        """Begin no more rounds."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._joined.clear()

    def _schedule(self, threads: IWorkerThreads, distance: float) -> None:
        now = self._clock.seconds()
        if self._hurried:
            delay = max(0.0, self._rested - now)
        else:
            delay = max(FIRST_DELAY, self._not_before - now)
        self._call = self._clock.callLater(delay, self._begin, threads, distance)

    def _begin(self, threads: IWorkerThreads, distance: float) -> None:
        self._call = None
        self._hurried = False
        joined, self._joined = self._joined, []
        self._began = self._clock.seconds()
        self._not_before = self._began + distance
        self._rested = self._began
        flushes = [flush for begin in joined if (flush := begin()) is not None]
        self._size = len(flushes)
        jobs = [flushes[first::JOBS] for first in range(min(JOBS, len(flushes)))]
        self._running = len(jobs)
        for job in jobs:
            done = partial(self._done, job, threads, distance)
            threads.submit(partial(_run, job), done)

    def _done(
        self,
        job: list[Flush],
        threads: IWorkerThreads,
        distance: float,
        errors: list[BaseException | None] | None,
        error: BaseException | None,
    ) -> None:
        self._running -= 1
        if not self._running:
            now = self._clock.seconds()
            rested = min(self._began + SHARE * (now - self._began), now + LONGEST_PAUSE)
            self._not_before = max(self._began + distance, rested)
            if self._size > JOBS:
                self._rested = rested
        for flush, failed in zip(job, errors or [error] * len(job)):
            flush.done(failed)
        if not self._running and self._joined and self._call is None:
            self._schedule(threads, distance)


def _run(job: list[Flush]) -> list[BaseException | None]:
    """The outcome of each. Thread: worker."""
    errors: list[BaseException | None] = []
    for flush in job:
        try:
            flush.work()
        except Exception as error:
            errors.append(error)
        else:
            errors.append(None)
    return errors
