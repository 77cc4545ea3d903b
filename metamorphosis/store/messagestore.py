"""
The log of one topic-partition: append, roll, slice, nearest offset.

Theory of operation. Records collect in ``batch``; ``commit`` writes them with one call at the end
of the last segment. What happens then differs: ``DirectStore`` acknowledges at once and flushes
later, ``GroupCommitStore`` acknowledges when a worker has flushed. While a worker must not be
disturbed the store is *busy*: batches go on collecting, and ``_proceed`` commits them when the
worker is done. One worker at most has a store's descriptor at any time.

After a failed write the file is cut behind the last whole record that was written. If that fails
too the store is damaged: it refuses appends, and tries to cut again at each of them, so it works
again as soon as the disk does.

Every attribute and method: reactor thread.

Source: ``MessageStore``.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from metamorphosis.errors import OffsetTooSmall, StoreClosed, StoreDamaged
from metamorphosis.message import HEADER_BYTES
from metamorphosis.store.batch import Batch
from metamorphosis.store.flushing import Rolled, StoreEnvironment, roll_segment
from metamorphosis.store.layout import segment_name
from metamorphosis.store.segment import Segment, write_pieces
from metamorphosis.store.segmentlist import SegmentList

_new_tuple = tuple.__new__

ROLL_RETRY_SECONDS = 1.0
"""From a roll that failed to the next attempt; until then the old segment grows."""


class FileRange(NamedTuple):
    """
    A range of a segment file that a reader gets. Retain the segment while the range waits to be
    sent.
    """

    segment: Segment
    position: int
    length: int


class MessageStore(ABC):
    """
    One topic-partition. Made by ``messagestores.open_store``.

    :ivar min_offset: of the oldest message.
    :ivar max_offset: the high-water mark: what is below is flushed and can be read.
    :ivar next_offset: where the next record will start; the hot path advances it as it fills the
        batch.
    :ivar batch: the batch that collects now.
    :ivar get_count: gets that found data, counted by the hot path.
    :ivar put_count: records written since the store was opened.
    :ivar put_bytes: bytes of their bodies.
    :ivar group_commit: whether a put is acknowledged after its flush; fixed at creation.
    """

    group_commit: ClassVar[bool]
    _log = Logger()

    def __init__(
        self,
        topic: str,
        partition: int,
        segments: list[Segment],
        environment: StoreEnvironment,
        unflush_threshold: int = 1000,
        unflush_interval: int = 10000,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.batch: Batch | None = None
        self.get_count = 0
        self.put_count = 0
        self.put_bytes = 0
        self._segments = SegmentList(segments)
        self._last = segments[-1]
        self.min_offset = segments[0].start
        self.max_offset = self.next_offset = self._read_end = self._last.end
        self._environment = environment
        self._disk = environment.disk
        self._threshold = unflush_threshold
        self._interval = unflush_interval / 1000
        self._busy = False  # commits wait for a worker
        self._syncing = False  # a worker has the descriptor of the last segment
        self._rewrite = (
            False  # a flush has failed in direct mode: write again before the next, and do not roll
        )
        self._damaged: OSError | None = None
        self._write_failing = False
        self._roll_at = 0.0  # not before, after a failed roll
        self._closing: list[Deferred[None]] | None = None
        self._closed = False

    def __repr__(self) -> str:
        range_ = f"{self.min_offset}-{self.max_offset}"
        return f"<{type(self).__name__} {self.topic}-{self.partition} {range_}>"

    def reconfigure(self, unflush_threshold: int, unflush_interval: int) -> None:
        """Apply a reload: messages and ms. A store keeps the mode in which it was created."""
        self._threshold = unflush_threshold
        self._interval = unflush_interval / 1000

    # Reading

    @property
    def message_count(self) -> int:
        """
        Messages appended or recovered since start; a block counts 1, segments that were immutable
        at start 0 (D-15).
        """
        return sum(segment.message_count for segment in self._segments)

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self._segments)

    @property
    def directory(self) -> str:
        """Absolute path of the partition's directory."""
        return os.path.dirname(self._last.path)

    def slice(self, offset: int, max_size: int) -> FileRange | None:
        """
        The stored bytes from ``offset`` on, at most ``max_size``, of one segment; None if nothing
        is readable there.

        In direct mode the range may go on into what is written and not yet flushed, as in the
        original. Differs: with group commit it ends at the flushed end, because what lies behind
        may still be taken back.

        :raises OffsetTooSmall: before the oldest message.
        :raises StoreError: the file of an older segment cannot be opened.
        """
        segment = self._last
        position = offset - segment.start
        if position >= 0:
            if offset >= self.max_offset:
                return None
            length = self._read_end - offset
            # Half the time of FileRange(...): this is all a get does here.
            return _new_tuple(
                FileRange, (segment, position, length if length < max_size else max_size)
            )
        return self._slice_older(offset, max_size)

    def _slice_older(self, offset: int, max_size: int) -> FileRange | None:
        if offset < self.min_offset:
            raise OffsetTooSmall(self.min_offset)
        segment = self._segments.find(offset)
        if segment is None or offset >= self.max_offset:
            return None
        if segment.fd < 0:
            segment.reopen()
        segment.used = True
        return FileRange(segment, offset - segment.start, min(segment.end - offset, max_size))

    def nearest_offset(self, offset: int) -> int:
        """
        The start of the segment that holds ``offset``; outside of the readable range its nearer
        end.
        """
        if offset < self.min_offset:
            return self.min_offset
        if offset >= self.max_offset:
            return self.max_offset
        segment = self._segments.find(offset)
        return self.max_offset if segment is None else segment.start

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
        if self._damaged is not None:
            self._cut()
        self._check_writable()
        batch = self.batch = Batch(self, self.next_offset)
        self._environment.on_dirty(self)
        return batch

    def append(self, records: Sequence[bytes]) -> Batch:
        """
        Store whole records as one contiguous block, all or nothing; it counts as one message.

        The block starts at what ``next_offset`` was before; that is ``Batch.offset``, unless a
        batch collects already, which the block then joins.

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
        segment = self._last
        size = batch.size = self.next_offset - batch.offset
        written, error = write_pieces(self._disk, segment.fd, pieces, size, segment.size)
        count = len(pieces) >> 1
        if error is not None:
            count, size = self._whole_records(pieces, written)
            self._write_failed(batch, size, error)
        elif self._write_failing:
            self._write_works()
        self._count(count, size)
        self._written(batch, count)

    def _count(self, count: int, size: int) -> None:
        """
        ``count`` records of ``size`` bytes in all came to the last segment; less than 0: were taken
        back.
        """
        segment = self._last
        segment.size += size
        segment.message_count += count
        self.put_count += count
        self.put_bytes += size - HEADER_BYTES * count

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

    @staticmethod
    def _whole_records(pieces: Sequence[bytes | memoryview], written: int) -> tuple[int, int]:
        """Number and size of the records that lie wholly within the first ``written`` bytes."""
        count = size = 0
        for header, body in zip(pieces[::2], pieces[1::2]):
            if size + len(header) + len(body) > written:
                break
            size += len(header) + len(body)
            count += 1
        return count, size

    def _write_failed(self, batch: Batch, kept: int, error: OSError) -> None:
        """The first ``kept`` bytes of the batch stay in the file, the rest is undone."""
        segment = self._last
        batch.error = error
        self.next_offset = batch.offset + kept
        if not self._write_failing:
            self._write_failing = True
            self._log.error(
                "Append to {path} failed at {position},"
                " messages are refused until it works again: {error}",
                path=segment.path,
                position=segment.size + kept,
                error=error,
            )
        self._try_cut(segment.size + kept)

    def _write_works(self) -> None:
        self._write_failing = False
        self._log.info("Append to {path} works again", path=self._last.path)

    def _try_cut(self, size: int) -> None:
        """Cut the file behind its last record; a failure is remembered."""
        segment = self._last
        try:
            self._disk.truncate(segment.fd, size)
            self._damaged = None
        except OSError as error:
            if self._damaged is None:
                self._log.error(
                    "{path} could not be cut to {size} bytes,"
                    " it is tried again at every append: {error}",
                    path=segment.path,
                    size=size,
                    error=error,
                )
            self._damaged = error

    def _cut(self) -> None:
        self._try_cut(self._last.size)
        if self._damaged is not None:
            raise StoreDamaged(f"{self._last.path} is damaged: {self._damaged}") from self._damaged

    # Flushing and rolling

    @abstractmethod
    def flush(self) -> None:
        """Ask for a flush in the background."""

    @abstractmethod
    def flush_due(self) -> None:
        """The time has come that was asked for in the schedule."""

    def _roll_if_due(self) -> bool:
        """
        Start a roll if the last segment is full; True if one runs, or has to wait for the worker.
        """
        if self._last.size < self._environment.max_segment_size or not self._last.size:
            return False
        if self._rewrite or self._damaged is not None:
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
            old.used = True
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

    @abstractmethod
    def _flushed(self, end: int) -> None:
        """Everything below ``end`` is on the disk."""

    @abstractmethod
    def _flush_failed(self, error: BaseException) -> None:
        """A worker could not sync the last segment."""

    def _proceed(self) -> None:
        """The worker is done: go on with what waited for it."""
        self._busy = False
        if self._closing is None and self._roll_if_due():
            return
        if self.batch is not None:
            self.commit()
        if self._closing is not None:
            self._close_if_idle()

    # Retention

    def immutable_segments(self) -> list[Segment]:
        """The segments that will never change, oldest first."""
        return self._segments.immutable()

    def remove_segment(self, segment: Segment) -> None:
        """
        Take the oldest segment out of the log; its file is left to the caller, its descriptor
        closes in a worker.

        If the file then cannot be deleted, ``restore_segment`` must follow before anything else is
        removed: a younger file must not go first, or the next start finds a gap and refuses.

        :raises ValueError: it is not the oldest immutable segment.
        """
        self._segments.remove_first(segment)
        self.min_offset = self._segments.first.start
        segment.discard(self._close_in_worker)

    def restore_segment(self, segment: Segment) -> None:
        """
        Take the segment that was removed last back in, because its file is still there.

        :raises ValueError: it does not join the oldest segment.
        """
        self._segments.restore_first(segment)
        segment.keep()
        self.min_offset = segment.start

    def close_idle_segments(self) -> None:
        """Close descriptors of older segments that nobody has read from since the last call."""
        for segment in self._segments.immutable():
            segment.close_if_idle()

    def _close_in_worker(self, fd: int) -> None:
        # Closing the last descriptor of a deleted segment of 1 GiB took 775 ms.
        def closed(_: object, error: BaseException | None) -> None:
            if error is not None:
                self._log.warn(
                    "Could not close a segment in {path}: {error}", path=self.directory, error=error
                )

        self._environment.threads.submit(partial(self._disk.close, fd), closed)

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
            self._log.warn(
                "Could not close a segment in {path}: {error}", path=self.directory, error=error
            )

    @abstractmethod
    def _last_flush(self) -> bool:
        """Start the flush before the end; False if there is nothing to flush."""

    def _close_if_idle(self) -> None:
        if self._closed or self._syncing or self._last_flush():
            return
        self._closed = True
        if self._damaged is not None:
            self._try_cut(self._last.size)
        for segment in self._segments:
            segment.discard(self._close_at_once)
        for closed in self._closing or ():
            closed.callback(None)
