"""
Group commit: a put is acknowledged when it is flushed. While one flush runs, the next batch
collects; ``gathering`` decides when it is written, ``lone`` when the reactor flushes without a
thread.

Differs: in the original big messages bypass the queue, are acknowledged unflushed and may stay
unreadable, and an I/O error ends the partition's writer thread and with it the partition (D-4,
D-5). Here messages of all sizes take the same way. A batch that cannot be flushed is refused and
removed from the file again, and the next batch is tried.

Source: ``MessageStore``.
"""

from __future__ import annotations

from contextlib import suppress

from twisted.logger import Logger

from metamorphosis.errors import StoreError
from metamorphosis.gathering import Gathering
from metamorphosis.lone import LoneClient
from metamorphosis.store.batch import Batch
from metamorphosis.store.flushing import timed_sync
from metamorphosis.store.policy import FlushPolicy
from metamorphosis.store.states import Worker
from metamorphosis.store.writablelog import WritableLog


class GroupCommit(FlushPolicy):
    """See the module. Nothing is written while a flush runs. Thread: reactor."""

    group_commit = True

    _log = Logger()

    def __init__(self, store: WritableLog) -> None:
        super().__init__(store)
        self._flying: list[tuple[Batch, int]] = []  # written and being flushed, with their counts
        self._failing = False
        self._refused: BaseException | None = None  # the flying batches were refused with this
        environment = store.environment
        self._gathering = Gathering(
            environment.clock, self._collected, self._go_on, environment.gather
        )
        # A device that hangs must not stop the reactor, which serves others.
        self._lone = LoneClient(environment.gather and not environment.apart)

    def reconfigure(self, threshold: int, interval: float) -> None:
        """See ``FlushPolicy``; every write is followed by its flush."""

    def check_writable(self) -> None:
        """See ``FlushPolicy``; every batch is tried."""

    def may_roll(self) -> bool:
        """See ``FlushPolicy``; not before the flush of what is written: a roll that cannot flush it
        would not refuse it, and the next flush would not write it again."""
        return not self._flying

    def written(self, batch: Batch, count: int, more: bool) -> None:
        """See ``FlushPolicy``: flush now, unless another batch is written first."""
        if batch.size:
            self._flying.append((batch, count))
        if self._flying and not more:
            self._flush_flying()
        if not batch.size:  # last: its waiters may put again, which must not start a second flush
            batch.complete(batch.offset, 0, batch.error)

    def _flush_flying(self) -> None:
        store = self.store
        store.worker = Worker.HOLDING
        segment = store.last
        work = timed_sync(
            store.environment.disk,
            store.lend(),
            segment.path,
            segment.unsynced_directories,
        )
        if not self._lone.flush_here(sum(count for _, count in self._flying)):
            store.environment.threads.submit(work, self._synced)
            return
        try:
            seconds = work()
        except OSError as error:
            self._synced(None, error)
        else:
            self._synced(seconds, None)

    def _synced(self, seconds: float | None, error: BaseException | None) -> None:
        store = self.store
        flying, self._flying = self._flying, []
        refused, self._refused = self._refused, None
        error = error or refused
        if error is not None or seconds is None:
            self._take_back(flying, error or StoreError("the flush was broken off"))
            self._go_on()
            return
        self._lone.flush_seconds = seconds
        store.last.unsynced_directories = ()
        self.flushed(store.last.end)
        for batch, count in flying:
            batch.complete(batch.offset + batch.size, count, batch.error)
        if not self._gathering.begin(sum(count for _, count in flying), seconds):
            self._go_on()

    def _collected(self) -> int:
        return self.store.collected

    def _go_on(self) -> None:
        """The collected batch may be written."""
        self.store.worker = Worker.IDLE
        self.store.proceed()

    def flushed(self, end: int) -> None:
        """See ``FlushPolicy``."""
        if self._failing:
            self._failing = False
            self._log.info("{path} can be flushed again", path=self.store.last.path)
        self.store.read_end = end
        self.store.readable(end)

    def stalled(self, error: BaseException) -> None:
        """See ``FlushPolicy``; the refused batches are removed from the file when the running flush
        ends, even if it succeeds."""
        if self._flying:
            self._refused = error
            for batch, _ in self._flying:
                batch.complete(batch.offset, 0, error)

    def _take_back(self, flying: list[tuple[Batch, int]], error: BaseException) -> None:
        """
        Remove the batches from the file and refuse them. The batch that collected after them has
        wrong offsets now, so it is refused too.
        """
        store = self.store
        segment = store.last
        if not self._failing:
            self._failing = True
            self._log.error(
                "{path} could not be flushed, messages are refused until it works again: {error}",
                path=segment.path,
                error=error,
            )
        count = sum(count for _, count in flying)
        with suppress(StoreError):  # then the cut fails, and is tried again before the next batch
            store.open_last()
        store.writer.take_back(segment, count, segment.end - store.max_offset)
        after = store.take_unwritten()
        for batch in [*(batch for batch, _ in flying), *after]:
            batch.complete(store.max_offset, 0, error)

    def roll_unflushed(self, error: BaseException) -> None:
        """See ``FlushPolicy``; every message was flushed before."""
        self.store.roll_failed(error)
        self._go_on()

    def hurry(self) -> None:
        """See ``FlushPolicy``; nothing waits for a flush."""

    def flush(self) -> None:
        """See ``FlushPolicy``; every write is being flushed already."""
