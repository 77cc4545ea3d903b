"""
The schedule by which old segments of the stores are deleted or archived.

Theory of operation. There is one timer for each different ``deleteWhen``. When it fires, a worker
reads the modification times of the segments of every store whose topic has that schedule. The
segments that are older than the retention leave the store one by one, the oldest first: each is
removed from the list (reactor), then its file is disposed of (worker), then the next follows. If
the disposal fails, the segment returns to the list, and the run over that store ends.

Differs: a run takes all stores that exist when it starts, and uses the policies of the latest
configuration. The original fixes the topics when it schedules and the policy when it makes a store.

Differs: segments go from the oldest on, and the run stops at the first that is not old enough. The
original decides for each file separately, so that an older file with a newer modification time
leaves a gap, at which its next start fails.

Source: ``MessageStoreManager.runDeletePolicy``, ``MessageStore.runDeletePolicy``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import tzinfo
from functools import partial

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from metamorphosis.config.model import BrokerConfig
from metamorphosis.config.policies import parse_policy
from metamorphosis.cron import CronExpression
from metamorphosis.interfaces import IDeletePolicy, IWorkerThreads
from metamorphosis.store.deletepolicies import count_expired, make_policy
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.segment import Segment
from metamorphosis.store.states import Life

#: Longest timer in seconds: the wall clock may be set while a timer runs.
MAX_SLEEP = 3600.0
#: Stores that are worked on at a time; the others wait, so that a run does not fill the threads or
#: one turn.
CONCURRENT_STORES = 2
#: Partitions, and faults, named in one line of the log.
SHOWN = 5

_log = Logger()


class Retention:
    """
    Runs the delete policies over the stores. Thread: reactor.

    :param stores: all stores; iterated anew by every run.
    :param config: schedules and policies.
    :param clock: the reactor, for timers; it is monotonic.
    :param threads: for blocking work. Compressing takes many seconds, so the threads that flush are
        not used.
    :ivar report: the results of the runs that were started together.
    :param wall_clock: seconds since 1970; an operator may set it.
    :param zone: time zone of the schedules, None: the system's.
    """

    def __init__(
        self,
        stores: Iterable[MessageStore],
        config: BrokerConfig,
        clock: IReactorTime,
        threads: IWorkerThreads,
        wall_clock: Callable[[], float] = time.time,
        zone: tzinfo | None = None,
    ) -> None:
        self._stores = stores
        self._config = config
        self._clock = clock
        self._threads = threads
        self._wall_clock = wall_clock
        self._zone = zone
        self._timers: dict[str, IDelayedCall] = {}
        self._waiting: dict[MessageStore, None] = {}
        self._running: set[MessageStore] = set()
        self.report = _Report()
        self._stopped: list[Deferred[None]] | None = None

    def start(self) -> None:
        """Schedule the runs."""
        config = self._config
        topics = (config.default_topic, *config.topics.values())
        for when in sorted({topic.delete_when for topic in topics}):
            self._schedule(when)

    def reconfigure(self, config: BrokerConfig) -> None:
        """Apply a reload: schedules and policies. A run keeps the policies with which it
        started."""
        self._cancel()
        self._config = config
        if not self.stopped:
            self.start()

    def stop(self) -> Deferred[None]:
        """Start no more work; fires when no file is being worked on."""
        self._cancel()
        self._waiting.clear()
        if self._stopped is None:
            self._stopped = []
        if not self._running:
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        return stopped

    def run(self, when: str | None = None) -> None:
        """
        Start a run over the stores whose topic has this ``deleteWhen``, None: over all. A store
        with a run in progress is left out.
        """
        for store in self._stores:
            if when in (None, self._config.topic(store.topic).delete_when):
                if store not in self._running and store not in self._waiting:
                    self._waiting[store] = None
        self._start_waiting()

    def _cancel(self) -> None:
        """Cancel all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _schedule(self, when: str) -> None:
        """Set the timer for the next time from now on."""
        due = CronExpression.parse(when).next_timestamp(self._wall_clock(), self._zone)
        if due is None:
            _log.warn("deleteWhen {when} never comes again: old messages are kept", when=when)
        else:
            self._sleep(when, due)

    def _sleep(self, when: str, due: float) -> None:
        """Set a timer for ``due``; a long wait has several steps."""
        delay = min(max(due - self._wall_clock(), 0.0), MAX_SLEEP)
        self._timers[when] = self._clock.callLater(delay, self._wake, when, due)

    def _wake(self, when: str, due: float) -> None:
        """Run if ``due`` has come, and set the next timer."""
        del self._timers[when]
        if self._wall_clock() < due:
            self._sleep(when, due)
            return
        self._schedule(when)
        self.run(when)

    def _start_waiting(self) -> None:
        """Begin with as many of the waiting stores as may be worked on at a time."""
        while self._waiting and len(self._running) < CONCURRENT_STORES:
            store = next(iter(self._waiting))
            del self._waiting[store]
            if store.immutable_segments():
                policy = make_policy(parse_policy(self._config.topic(store.topic).delete_policy))
                self._running.add(store)
                _StoreRun(store, policy, self, self._threads).start(int(self._wall_clock() * 1000))

    def end(self, store: MessageStore) -> None:
        """The run over the store is over; called by it."""
        self._running.discard(store)
        self._start_waiting()
        if not self._running:
            report, self.report = self.report, _Report()
            report.tell()
        if self._stopped is not None and not self._running:
            for stopped in self._stopped:
                stopped.callback(None)

    @property
    def stopped(self) -> bool:
        """Whether runs must end."""
        return self._stopped is not None


class _Report:
    """The result of the runs over all stores: one log line for the removed segments, one for the
    faults."""

    def __init__(self) -> None:
        self._removed = 0
        self._begins: list[str] = []
        self._faults: list[str] = []

    def removed(self, store: MessageStore, count: int) -> None:
        """Segments of a store were removed."""
        self._removed += count
        self._begins.append(f"{store.topic}-{store.partition} at {store.min_offset}")

    def failed(self, fault: str) -> None:
        """The run over a store has ended early."""
        self._faults.append(fault)

    def tell(self) -> None:
        """Write the lines."""
        if self._removed:
            _log.info(
                "Retention took {count} segments; partitions begin now: {begins}",
                count=self._removed,
                begins=_some(self._begins),
            )
        if self._faults:
            _log.error(
                "Retention, tried again at the next run: {faults}", faults=_some(self._faults)
            )


def _some(items: list[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


class _StoreRun:
    """One run over one store. Thread: reactor."""

    def __init__(
        self,
        store: MessageStore,
        policy: IDeletePolicy,
        retention: Retention,
        threads: IWorkerThreads,
    ) -> None:
        self._store = store
        self._policy = policy
        self._retention = retention
        self._threads = threads
        self._expired: list[Segment] = []
        self._removed = 0

    def start(self, now_ms: int) -> None:
        """Look for expired segments."""
        segments = self._store.immutable_segments()
        paths = [segment.path for segment in segments]
        self._threads.submit(
            partial(count_expired, paths, now_ms, self._policy.retention_ms),
            partial(self._counted, segments),
        )

    def _counted(
        self, segments: list[Segment], count: int | None, error: BaseException | None
    ) -> None:
        if error is not None:
            self._failed("looked at", self._store.directory, error)
            return
        self._expired = segments[: count or 0]
        self._next()

    def _next(self) -> None:
        """Remove the oldest segment from the store, then dispose of its file."""
        closed = self._store.life is not Life.OPEN  # the directory may belong to another by now
        if not self._expired or self._retention.stopped or closed:
            self._end()
            return
        segment = self._expired.pop(0)
        try:
            self._store.remove_segment(segment)
        except ValueError as error:
            self._failed("taken out of the log", segment.path, error)
            return
        self._threads.submit(
            partial(self._policy.dispose, segment.path), partial(self._disposed, segment)
        )

    def _disposed(self, segment: Segment, _: object, error: BaseException | None) -> None:
        if error is None:
            self._removed += 1
            self._next()
            return
        # A younger file must not be deleted before this one, or the next start finds a gap.
        self._store.restore_segment(segment)
        self._failed("deleted or archived, it stays readable", segment.path, error)

    def _failed(self, what: str, path: str, error: BaseException) -> None:
        self._retention.report.failed(f"{path} could not be {what}: {error}")
        self._end()

    def _end(self) -> None:
        if self._removed:
            self._retention.report.removed(self._store, self._removed)
        self._retention.end(self._store)
