"""
The log of one topic-partition: append, roll, slice, nearest offset.

Theory of operation. Records collect in ``batch``; ``commit`` writes them with one call at the end
of the last segment. What happens then differs: ``DirectStore`` acknowledges at once and flushes
later, ``GroupCommitStore`` acknowledges when a worker has flushed. While a worker must not be
disturbed the store is *busy*: batches go on collecting, and ``_proceed`` commits them when the
worker is done. One worker at most has a store's descriptor at any time.

A store that cannot write, or flush, refuses batches, and tries again at each of them, so it works
again as soon as the disk does.

Every attribute and method: reactor thread.

Source: ``MessageStore``.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from twisted.internet.defer import Deferred, succeed

from metamorphosis.errors import StoreClosed
from metamorphosis.message import HEADER, HEADER_BYTES
from metamorphosis.store.batch import Batch
from metamorphosis.store.flushing import Rolled, StoreEnvironment, roll_segment
from metamorphosis.store.layout import segment_name
from metamorphosis.store.segment import Segment
from metamorphosis.store.segmentlog import SegmentLog
from metamorphosis.store.segmentwriter import SegmentWriter

ROLL_RETRY_SECONDS = 1.0
"""From a roll that failed to the next attempt; until then the old segment grows."""


class MessageStore(SegmentLog, ABC):
    """
    One topic-partition. Made by ``messagestores.make_store``.

    :ivar next_offset: where the next record will start; the hot path advances it as it fills the
        batch.
    :ivar batch: the batch that collects now.
    :ivar get_count: gets that found data, counted by the hot path.
    :ivar on_readable: called with the store after each of its flushes while somebody waits for it.
    :ivar put_count: records that were to be stored since the store was opened.
    :ivar put_bytes: bytes of their bodies.
    :ivar group_commit: whether a put is acknowledged after its flush; fixed at creation.
    """

    group_commit: ClassVar[bool]

    def __init__(
        self,
        topic: str,
        partition: int,
        segments: list[Segment],
        environment: StoreEnvironment,
        unflush_threshold: int = 1000,
        unflush_interval: int = 10000,
    ) -> None:
        super().__init__(topic, partition, segments, environment)
        self.next_offset = self._last.end
        self.batch: Batch | None = None
        self.on_readable: Callable[[MessageStore], None] | None = None
        self.get_count = 0
        self.put_count = 0
        self.put_bytes = 0
        self._writer = SegmentWriter(environment.disk)
        self._threshold = unflush_threshold
        self._interval = unflush_interval / 1000
        self._busy = False  # commits wait for a worker
        self._syncing = False  # a worker has the descriptor of the last segment
        self._roll_at = 0.0  # not before, after a failed roll
        self._closing: list[Deferred[None]] | None = None
        self._closed = False

    def reconfigure(self, unflush_threshold: int, unflush_interval: int) -> None:
        """Apply a reload: messages and ms. A store keeps the mode in which it was created."""
        self._threshold = unflush_threshold
        self._interval = unflush_interval / 1000

    # Reading

    def await_flush(self, on_readable: Callable[[MessageStore], None]) -> None:
        """
        A reader waits at the end: flush without delay from now on, and call ``on_readable``, which
        must not raise, after each flush; until it is set to None.
        """
        self.on_readable = on_readable

    def _now_readable(self) -> None:
        """``max_offset`` has moved."""
        if self.on_readable is not None:
            self.on_readable(self)

    # Appending

    def open_batch(self) -> Batch:
        """
        The batch that collects from now on; announced by ``on_dirty``. Calls no waiter.

        :raises StoreClosed: after ``close``.
        :raises StoreDamaged: an earlier write failed and could not be undone until now, or flushes
            fail.
        """
        if self._closing is not None:
            raise StoreClosed()
        if self.batch is not None:
            return self.batch
        if self._writer.damaged:
            self._writer.repair(self._last)
        self._check_writable()
        batch = self.batch = Batch(self, self.next_offset)
        self._environment.on_dirty(self)
        return batch

    def add(self, message_id: int, flag: int, checksum: int, body: bytes) -> int:
        """
        Add one record to the batch that collects; returns its offset.

        This is how every record gets into the log, but that the hot path does the same inline.

        :raises StoreError: as ``open_batch``.
        """
        batch = self.batch or self.open_batch()
        batch.pieces += (HEADER.pack(len(body), checksum, message_id, flag), body)
        offset = self.next_offset
        self.next_offset = offset + HEADER_BYTES + len(body)
        return offset

    def append(self, records: Sequence[bytes]) -> Batch:
        """
        Store whole records as one contiguous block, all or nothing; it counts as one message.

        Unless it was refused, the block ends at what ``next_offset`` is after the call. It starts
        at ``Batch.offset``, or further on if it had to join a batch that collects.

        :raises StoreError: as ``open_batch``.
        """
        self.commit()
        batch = self.open_batch()
        block = b"".join(records)
        batch.pieces += (block, b"")
        self.next_offset += len(block)
        self.commit()
        return batch

    def commit(self) -> None:
        """
        Write the batch that collects; while a worker must not be disturbed, leave it collecting.
        """
        batch = self.batch
        if batch is None or self._busy:
            return
        self.batch = None
        pieces = batch.pieces
        size = batch.size = self.next_offset - batch.offset
        count = len(pieces) >> 1
        self.put_count += count
        self.put_bytes += size - HEADER_BYTES * count
        count, size, error = self._writer.write(self._last, pieces, size)
        if error is not None:
            batch.error = error
            self.next_offset = batch.offset + size
        self._written(batch, count)

    def own_pieces(self) -> None:
        """
        Copy the pieces of the collecting batch that are views: their buffer is about to be used
        again.
        """
        batch = self.batch
        if batch is None:
            return
        pieces = batch.pieces
        for index in range(batch.owned, len(pieces)):
            if type(pieces[index]) is not bytes:
                pieces[index] = bytes(pieces[index])
        batch.owned = len(pieces)

    @abstractmethod
    def _written(self, batch: Batch, count: int) -> None:
        """
        The first ``count`` records of ``batch`` are in the file, all of them unless it has an
        ``error``.
        """

    @abstractmethod
    def _check_writable(self) -> None:
        """Refuse a new batch with ``StoreDamaged`` while nothing could come of it."""

    # Flushing and rolling

    @abstractmethod
    def flush(self) -> None:
        """Ask for a flush in the background."""

    def _roll_if_due(self) -> bool:
        """
        Start a roll if the last segment is full; True if one runs, or has to wait for the worker.
        """
        if self._last.size < self._environment.max_segment_size or not self._last.size:
            return False
        if self._writer.damaged or not self._may_roll():
            return False
        if 0 < self._roll_at - self._environment.clock.seconds() <= ROLL_RETRY_SECONDS:
            return False
        self._busy = True
        if not self._syncing:
            self._syncing = True
            segment = self._last
            path = os.path.join(self.directory, segment_name(segment.end))
            self._environment.threads.submit(
                partial(roll_segment, self._disk, segment.fd, path, segment.unsynced_directories),
                partial(self._rolled, path),
            )
        return True

    def _rolled(self, path: str, result: Rolled | None, error: BaseException | None) -> None:
        """Nothing was written meanwhile."""
        self._syncing = False
        old = self._last
        if result is None:
            result = Rolled(sync_error=error)
        if result.sync_error is not None:
            self._flush_failed(result.sync_error)
            return
        old.unsynced_directories = ()
        self._flushed(old.end)
        if result.create_error is not None:
            self._roll_failed(path, result.create_error)
        else:
            segment = Segment(old.end, path, 0, 0, result.fd)
            segment.unsynced_directories = (self.directory,)
            self._segments.append(segment)
            self._last = segment
            self._roll_at = 0.0
        self._proceed()

    def _roll_failed(self, path: str, error: BaseException) -> None:
        if not self._roll_at:
            self._log.error(
                "Could not roll to {path}, {old} grows until it works: {error}",
                path=path,
                old=self._last.path,
                error=error,
            )
        self._roll_at = self._environment.clock.seconds() + ROLL_RETRY_SECONDS

    def _may_roll(self) -> bool:
        """Whether a roll has a chance."""
        return True

    @abstractmethod
    def _flushed(self, end: int) -> None:
        """Everything below ``end`` is on the disk."""

    @abstractmethod
    def _flush_failed(self, error: BaseException) -> None:
        """A worker could not sync the last segment."""

    def _proceed(self) -> None:
        """The worker is done: go on with what waited for it."""
        self._busy = False
        if self._roll_if_due():
            return
        if self.batch is not None:
            self.commit()
        if self._closing is not None:
            self._close_if_idle()

    # Closing

    def close(self) -> Deferred[None]:
        """
        Take nothing more, store and flush what has collected, answer it, close the files. Never
        fails.
        """
        if self._closed:
            return succeed(None)
        if self._closing is None:
            self._closing = []
        closed: Deferred[None] = Deferred()
        self._closing.append(closed)
        self.commit()
        self._close_if_idle()
        return closed

    def _close_at_once(self, fd: int) -> None:
        try:
            self._disk.close(fd)
        except OSError as error:
            self._descriptor_closed(None, error)

    @abstractmethod
    def _last_flush(self) -> bool:
        """Start the flush before the end; False if there is nothing to flush."""

    def _close_if_idle(self) -> None:
        if self._closed or self._syncing or self._last_flush():
            return
        self._closed = True
        if self._writer.damaged:
            self._writer.cut(self._last, self._last.size)
        for segment in self._segments:
            segment.discard(self._close_at_once)
        for closed in self._closing or ():
            closed.callback(None)
