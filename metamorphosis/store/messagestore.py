"""
The log of one topic-partition: append, roll, slice, nearest offset.

Four classes, each in its own module: ``SegmentLog`` reads, ``WritableLog`` has the last segment and
the worker, ``CollectingLog`` has the batch and the blocks, ``MessageStore`` writes, flushes and
closes.

Theory of operation. A batch that is committed is written with one call at the end of the last
segment. The ``FlushPolicy`` decides the next step: the default mode acknowledges at once and
flushes later, group commit acknowledges when a worker has flushed.

At most one worker has the descriptor of the last segment:

    worker      event                                          worker
    IDLE        group commit has written a batch               HOLDING
    IDLE        the default mode flushes                       FLUSHING
    FLUSHING    too much is unflushed, or a roll is due        HOLDING
    IDLE        a roll is due                                  HOLDING
    any         the work is done, the next batch has gathered  IDLE, then ``proceed``

``proceed`` starts what became due meanwhile, in this order: a roll, the batches that have
collected, the end of a store that is closing. ``life`` is a separate state, because closing waits
for the worker:

    life        event                                          life
    OPEN        close                                          CLOSING
    CLOSING     nothing collects, no worker, all is flushed    CLOSED

With ``StoreEnvironment.apart`` a worker also writes. While one batch is being written (``apart``),
later batches collect and no roll begins; a flush in the default mode may run at the same time.

A store that cannot write or flush refuses batches, but tries again at each of them, so it works
again as soon as the disk does.

Every attribute and method: reactor thread.

Source: ``MessageStore``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred, succeed

from metamorphosis.errors import StoreError, StoreStalled
from metamorphosis.store.apart import ApartWrites
from metamorphosis.store.appender import UNKNOWN_END, Appender
from metamorphosis.store.batch import STORED, Batch, Copy
from metamorphosis.store.collectinglog import CollectingLog, refuse
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.policy import FlushPolicy
from metamorphosis.store.rolling import Roller
from metamorphosis.store.segment import Segment
from metamorphosis.store.states import Life, Worker
from metamorphosis.store.writablelog import WritableLog


class MessageStore(CollectingLog):
    """
    One topic-partition. Made by ``messagestores.make_store``.

    :ivar on_readable: called with the store after each flush; set while a get waits for messages.
    :ivar on_refused: called with the store as soon as records of a batch are refused, before any
        other step of the refusal.
    :ivar get_count: gets that found data, counted by the hot path.
    :ivar appender: for the turn in C.
    :ivar policy: decides when messages are acknowledged and flushed; fixed at creation.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        segments: list[Segment],
        environment: StoreEnvironment,
        make_policy: Callable[[WritableLog], FlushPolicy],
    ) -> None:
        super().__init__(topic, partition, segments, environment)
        self.on_readable: Callable[[MessageStore], None] | None = None
        self.on_refused: Callable[[MessageStore], None] | None = None
        self.get_count = 0
        self.policy = make_policy(self)
        self.appender = Appender(self, self.policy)
        self._roller = Roller(self, self.policy)
        self._apart_writes = ApartWrites(self)
        self._ended: list[Deferred[None]] = []  # fired when the store has closed

    def reconfigure(self, unflush_threshold: int, unflush_interval: int) -> None:
        """Apply a reload: messages and ms. A store keeps the mode in which it was created."""
        self.policy.reconfigure(unflush_threshold, unflush_interval / 1000)

    @property
    def group_commit(self) -> bool:
        """Whether a put is acknowledged after its flush."""
        return self.policy.group_commit

    def await_flush(self, on_readable: Callable[[MessageStore], None]) -> None:
        """
        A reader waits at the end of the log: flush without delay from now on, also the messages
        written before, and call ``on_readable``, which must not raise, after each flush until it is
        set to None.
        """
        self.on_readable = on_readable
        self.policy.hurry()

    def readable(self, end: int) -> None:
        """See ``WritableLog``."""
        self.max_offset = end
        if self.on_readable is not None:
            self.on_readable(self)

    def refused(self) -> None:
        """See ``Collecting``."""
        if self.on_refused is not None:
            self.on_refused(self)

    # Writing

    def _check_writable(self) -> None:
        """See ``CollectingLog``."""
        if self.writer.damage is not None:
            self.open_last()
            self.writer.repair(self.last)
        self.policy.check_writable()

    def _write(self, batch: Batch, more: bool) -> None:
        """See ``CollectingLog``."""
        pieces = batch.pieces
        if isinstance(batch, Copy):
            batch.waiters.insert(0, partial(self._copied, batch))
        else:
            batch.counted = True
            self.count_puts(batch.count, batch.size)
        if self.environment.apart:
            self._apart_writes.start(batch)
            return
        error: BaseException | None
        try:
            if self.last.fd < 0:
                self.open_last()
            count, size, error = self.writer.write(self.last, pieces, batch.size, batch.more)
        except StoreError as failure:
            count, size, error = self.writer.cannot_open(self.last, failure)
        if error is None:
            self.policy.written(batch, count, more)
        else:
            self.wrote(batch, count, size, error, more)

    def wrote(
        self, batch: Batch, count: int, size: int, error: BaseException | None, more: bool
    ) -> None:
        """See ``WritableLog``."""
        if error is None:
            self.policy.written(batch, count, more)
            return
        # The records after this batch have wrong offsets now.
        batch.error = error
        batch.size = size
        after = self.take_unwritten()
        self.policy.written(batch, count, False)
        refuse(after, error)

    def _copied(self, copy: Copy) -> None:
        """Count the messages of a stored copy: the write has counted one."""
        if copy.state is STORED:
            self.last.message_count += copy.records - 1

    def stall(self, error: StoreStalled | None) -> None:
        """
        The disk does not answer: refuse everything that waits for it, and do not wait. Refused
        records in the file are cut off when the disk answers again.

        :param error: None: the disk answers again.
        """
        if self.stalled is not UNKNOWN_END:  # that lasts until the next start
            self.stalled = error
        if error is None:
            return
        if self.apart is not None:
            self.next_offset = self.last.end
            refuse([self.apart], error)
        if self.worker is not Worker.IDLE or self.apart is not None:
            after = self.take_unwritten()
            self.policy.stalled(error)
            refuse(after, error)
            self._tell_ended()

    # Flushing, rolling and closing

    def flush(self) -> None:
        """Ask for a flush in the background."""
        self.policy.flush()

    def roll_if_due(self) -> bool:
        """See ``WritableLog``."""
        return self._roller.start_if_due()

    def roll_failed(self, error: BaseException) -> None:
        """See ``WritableLog``."""
        self._roller.failed(self.last.path, error)

    def proceed(self) -> None:
        """See ``WritableLog``."""
        if self.roll_if_due():
            return
        self.commit()
        self._end_if_idle()

    def close(self) -> Deferred[None]:
        """
        Take no more messages, store, flush and answer the collected batch, close the files. Waits
        for blocks to be decided, but not for a disk that does not answer. Never fails.
        """
        if self.life is Life.CLOSED:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._ended.append(closed)
        self.life = Life.CLOSING
        self.commit()
        self._end_if_idle()
        if self.environment.stalled() is not None or self.stalled not in (None, UNKNOWN_END):
            self._tell_ended()
        return closed

    def _end_if_idle(self) -> None:
        """See ``CollectingLog``."""
        if self.life is not Life.CLOSING or self._queue or self.apart is not None:
            return
        if self.worker is not Worker.IDLE:
            return
        if self.policy.last_flush():
            return
        self.life = Life.CLOSED
        if self.writer.damage is not None:
            self.writer.cut(self.last, self.last.size)
        if self.writer.unflushed is not None:
            self.writer.unflushed.drop(self.last.size)  # which counts for the others
        for segment in self._segments:
            segment.discard(self._close_at_once)
        self._tell_ended()

    def _tell_ended(self) -> None:
        ended, self._ended = self._ended, []
        for closed in ended:
            closed.callback(None)

    def _close_at_once(self, fd: int) -> None:
        try:
            self.environment.disk.close(fd)
        except OSError as error:
            self._descriptor_closed(None, error)
