"""
The default mode: a put is acknowledged when it is written, and readable when it is flushed soon
after.

Differs: in the original the put that reaches a threshold waits for the flush, in its own thread.
Here every flush runs in a worker, and puts wait for it only if the disk cannot keep up: while a
flush runs, at most ``unflushThreshold`` further messages are acknowledged, then batches collect
until it is done. So at most about twice the threshold are acknowledged and unflushed. Limits in
bytes (``unflushed``) work the same way, because unflushed messages are kept in memory.

Differs: when a flush fails, the unflushed messages are written again, from memory, and flushed
again: at every put, and after 1 s, 2 s, 4 s and then every 5 s. Until a flush succeeds, only
messages flushed before are readable, and puts are acknowledged up to the same limits. Beyond them a
put waits for the attempt that it has caused, and is refused if that fails.

Source: ``MessageStore``, ``MessageStoreManager``.
"""

from __future__ import annotations

from functools import partial

from twisted.logger import Logger

from metamorphosis.errors import StoreDamaged
from metamorphosis.store.batch import Batch
from metamorphosis.store.fields import FlushFields
from metamorphosis.store.flushing import sync_segment
from metamorphosis.store.flushrounds import Flush
from metamorphosis.store.policy import FlushPolicy
from metamorphosis.store.states import Life, Worker
from metamorphosis.store.unflushed import MOST, MOST_IN_ALL, Unflushed
from metamorphosis.store.writablelog import WritableLog

FEW = 10
"""With more unflushed messages than this, a waiting reader gets them by the next round instead of
an extra flush: an extra flush each millisecond costs a tenth of the processor."""

FIRST_RETRY = 1.0
LAST_RETRY = 5.0
"""Seconds from a failed flush to the next attempt without a put: first and last; doubled each
time."""


class DirectFlush(FlushFields, FlushPolicy):
    """
    See the module. Thread: reactor.

    The flags are independent: a planned flush and a planned retry may both be pending, and the last
    attempt belongs to the close of the store.

    :param threshold: messages.
    :param interval: seconds.
    :ivar flush_error: of the last flush.
    """

    group_commit = False

    _log = Logger()

    def __init__(self, store: WritableLog, threshold: int, interval: float) -> None:
        super().__init__(store)
        self._threshold = threshold
        self._interval = interval
        self._unflushed = 0  # messages written since the last flush was submitted
        self._in_flight = 0  # messages that the running flush covers
        self._flushed_at = store.environment.clock.seconds()  # when the last flush was submitted
        self._max_segment_size = store.environment.max_segment_size
        self._asked = False  # the schedule will call _flush_due
        self._retry_asked = False  # the schedule will call _retry_due
        self._seconds = store.environment.clock.seconds
        self._schedule = store.environment.schedule
        self._kept = store.writer.unflushed = Unflushed(store.environment.schedule)
        self._kept_in_flight = 0  # bytes that the running flush covers
        self.flush_error: BaseException | None = None
        self._retry_delay = FIRST_RETRY
        self._last_tried = False  # the closing store has made its one attempt

    def reconfigure(self, threshold: int, interval: float) -> None:
        """See ``FlushPolicy``."""
        self._threshold = threshold
        self._interval = interval

    def check_writable(self) -> None:
        """See ``FlushPolicy``."""
        if self.flush_error is None or not self._full():
            return
        store = self.store
        self.flush()
        if store.worker is not Worker.IDLE:
            store.worker = Worker.HOLDING  # the batch waits for this attempt
        elif self.flush_error is not None:
            raise StoreDamaged(
                f"{store.last.path} cannot be flushed,"
                f" {self._unflushed} messages wait for it: {self.flush_error}"
            ) from self.flush_error

    def _full(self) -> bool:
        """Whether the next messages must wait for a flush."""
        return (
            self._unflushed > self._threshold
            or self._kept.size - self._kept_in_flight > MOST
            or self._schedule.unflushed > MOST_IN_ALL
        )

    def may_roll(self) -> bool:
        """See ``FlushPolicy``."""
        return self.flush_error is None

    def written(self, batch: Batch, count: int, more: bool) -> None:
        """See ``FlushPolicy``: acknowledge now, flush later."""
        end = batch.offset + batch.size
        batch.complete(end, count, batch.error)
        if end != batch.offset:
            self.appended(end, count)

    def appended(self, end: int, count: int) -> None:
        """
        Let readers have acknowledged records, and flush when enough wait.

        :param end: the offset after them.
        :param count: their number.
        """
        store = self.store
        self._unflushed += count
        if self.flush_error is not None:
            self.flush()
        else:
            store.read_end = end
            since = self._seconds() - self._flushed_at
            if since > self._interval or self._full():
                self.flush()
            elif not self._asked or store.on_readable is not None:
                self._ask()
        if store.last.size >= self._max_segment_size:  # checked here to save two calls per batch
            store.roll_if_due()

    def _ask(self) -> None:
        """Plan a flush if anything is unflushed."""
        environment = self.store.environment
        if environment.flush_delay <= 0:
            if not self._asked:
                self._asked = True
                environment.schedule.request(self._flush_due, max(self._interval, 0.0))
            return
        rounds = environment.schedule.rounds
        if not self._asked:
            self._asked = True
            rounds.join(self._round_begins, environment.threads, environment.flush_delay)
        if self.store.on_readable is not None and self._unflushed <= FEW:
            rounds.hurry(environment.threads, environment.flush_delay)

    def hurry(self) -> None:
        """See ``FlushPolicy``; flush the messages written so far at once."""
        if self._asked:
            self._ask()

    def _round_begins(self) -> Flush | None:
        self._asked = False
        return self._begin_flush()

    def _flush_due(self) -> None:
        self._asked = False
        self.flush()

    def _retry_due(self) -> None:
        self._retry_asked = False
        self.flush()

    def flush(self) -> None:
        """
        Flush the messages written so far, in a worker. No effect while a flush runs: its completion
        flushes the rest.
        """
        flush = self._begin_flush()
        if flush is not None:
            self.store.environment.threads.submit(flush.work, lambda _, error: flush.done(error))

    def _begin_flush(self) -> Flush | None:
        """The work that flushes the messages written so far; None if there are none, unless a roll
        could not flush: its retry shows that the disk works again."""
        store = self.store
        if store.worker is not Worker.IDLE:
            if self._full():
                store.worker = Worker.HOLDING
            return None
        segment = store.last
        end = segment.end
        if store.life is Life.CLOSED:
            return None
        if end == store.max_offset and self.flush_error is None:
            return None
        store.worker = Worker.FLUSHING
        self._in_flight, self._unflushed = self._unflushed, 0
        self._flushed_at = self.store.environment.clock.seconds()
        self._kept_in_flight = self._kept.size
        again = self._kept.pieces() if self.flush_error is not None else ()
        return Flush(
            partial(
                sync_segment,
                store.environment.disk,
                store.lend(),
                segment.path,
                segment.unsynced_directories,
                again,
            ),
            partial(self._flush_done, end),
        )

    def _flush_done(self, end: int, error: BaseException | None) -> None:
        store = self.store
        if error is not None:
            self.roll_unflushed(error)
            return
        store.last.unsynced_directories = ()
        self.flushed(end)
        store.worker = Worker.IDLE
        if self._full():
            self.flush()
        elif store.last.end > end:
            self._ask()
        store.proceed()

    def flushed(self, end: int) -> None:
        """See ``FlushPolicy``."""
        store = self.store
        self._in_flight = self._kept_in_flight = 0
        self._kept.drop(end - store.last.start)
        if store.last.end == end:
            self._unflushed = 0
        store.read_end = store.last.end
        if self.flush_error is not None:
            self.flush_error = None
            self._retry_delay = FIRST_RETRY
            self._log.info("{path} can be flushed again", path=store.last.path)
        store.readable(end)

    def roll_unflushed(self, error: BaseException) -> None:
        """
        See ``FlushPolicy``; called after any failed flush. The written messages were acknowledged,
        so they stay, and are written and flushed again until that works.
        """
        self._unflushed += self._in_flight
        self._in_flight = self._kept_in_flight = 0
        self.store.read_end = self.store.max_offset  # the kernel may have dropped the rest
        if self.flush_error is None:
            self._log.error(
                "{path} could not be flushed, {count} acknowledged messages wait;"
                " it is tried again: {error}",
                path=self.store.last.path,
                count=self._unflushed,
                error=error,
            )
        self.flush_error = error
        if not self._retry_asked and self.store.life is Life.OPEN:
            self._retry_asked = True
            self.store.environment.schedule.request(self._retry_due, self._retry_delay)
            self._retry_delay = min(2 * self._retry_delay, LAST_RETRY)
        if self._full():
            # The messages that have collected during the flush would exceed the limit.
            self.store.refuse_unwritten(error)
        self.store.worker = Worker.IDLE
        self.store.proceed()

    def stalled(self, error: BaseException) -> None:
        """See ``FlushPolicy``; the messages being flushed are acknowledged already."""

    def last_flush(self) -> bool:
        """See ``FlushPolicy``; tried once."""
        if self._last_tried or self.store.last.end == self.store.max_offset:
            return False
        self._last_tried = True
        self.flush()
        return True
