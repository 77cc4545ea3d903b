"""
Background flushes of many stores, in rounds.

A store with unflushed messages joins the next round. On an idle broker a round begins at once, so a
message is readable milliseconds after its put; under load rounds keep a distance, because each
costs the disk a journal commit per store: 200 busy partitions flushed one by one every 10 ms took
half of the processor. While a reader waits for written messages, the distance is not kept
(``hurry``), and only rounds of many stores are followed by a pause.

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
"""Seconds from a write on an idle broker to the round, which also covers the writes until then."""

SHARE = 4
"""Rounds take at most one part in this number of the time, except after a round that hung."""

LONGEST_PAUSE = 2.0
"""The longest time in seconds between rounds, so that a round that hung for minutes is not followed
by a pause of minutes."""

JOBS = 4
"""Most jobs of a round; more jobs than threads would only wait for each other."""


class Flush(NamedTuple):
    """
    One store's part of a round.

    :ivar work: blocks until the store's data are on the disk; called in a worker.
    :ivar done: gets the error, or None; called on the reactor thread.
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
        self._rested = 0.0  # the same for a hurried round
        self._hurried = False
        self._began = 0.0
        self._size = 0  # stores in the present round
        self._running = 0  # jobs of the present round

    def join(
        self, begin: Callable[[], Flush | None], threads: IWorkerThreads, distance: float
    ) -> None:
        """
        Call ``begin`` at the start of the next round, and run the flush that it returns.

        :param distance: the least time in seconds from the start of one round to that of the next.
        """
        self._joined.append(begin)
        if self._call is None and not self._running:
            self._schedule(threads, distance)

    def hurry(self, threads: IWorkerThreads, distance: float) -> None:
        """
        Start the next round without delay after the present one; after a round of more than
        ``JOBS`` stores the pause is kept.
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
    """The error of each flush, or None. Thread: worker."""
    errors: list[BaseException | None] = []
    for flush in job:
        try:
            flush.work()
        except Exception as error:
            errors.append(error)
        else:
            errors.append(None)
    return errors
