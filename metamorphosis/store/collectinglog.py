"""
The records that a partition has accepted but not written: the batch that collects, and the blocks.

Records collect in ``batch``; ``commit`` writes them with one call at the end of the last segment.

``reserve`` takes space in the log for a block that must not be written yet, because a journal has
to force its record first. Records after it collect in separate batches. From the first undecided
block on, all batches and blocks stand in ``_queue``, in the order of their offsets:

    block       event                                  block
    -           reserve                                undecided: nothing after it is written
    undecided   commit_block                           decided: written in its turn
    undecided   cancel_block                           refused, with everything after it
    any         a write before it failed, a stall      refused, with everything after it
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Sequence

from metamorphosis.errors import StoreClosed, StoreError, StoreStalled
from metamorphosis.message import HEADER, HEADER_BYTES
from metamorphosis.store.batch import PENDING, Batch, Block, Copy
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.segment import Segment
from metamorphosis.store.states import Life, Worker
from metamorphosis.store.writablelog import WritableLog

HOLDING = Worker.HOLDING


class CollectingLog(WritableLog):
    """
    One topic-partition with its collecting batch. Thread: reactor.

    :ivar batch: the batch that collects now.
    :ivar put_count: records that were to be written since the store was opened, see
        ``Batch.counted``.
    :ivar put_bytes: bytes of their bodies.
    """

    def __init__(
        self, topic: str, partition: int, segments: list[Segment], environment: StoreEnvironment
    ) -> None:
        super().__init__(topic, partition, segments, environment)
        self.batch: Batch | None = None
        self.put_count = 0
        self.put_bytes = 0
        # Starts with the first block that was undecided. Only where blocks were reserved it is a
        # deque: an empty one has 760 bytes, a third of a partition.
        self._queue: deque[Batch] | tuple[()] = ()

    @abstractmethod
    def _check_writable(self) -> None:
        """
        Check before a batch is opened; none collects.

        :raises StoreDamaged: the batch could not be stored.
        """

    @abstractmethod
    def _write(self, batch: Batch, more: bool) -> None:
        """
        Write a batch whose size is known.

        :param more: see ``FlushPolicy.written``.
        """

    @abstractmethod
    def refused(self) -> None:
        """See ``Collecting``."""

    @abstractmethod
    def _end_if_idle(self) -> None:
        """Close if ``close`` was called and no work is left."""

    # Records

    def open_batch(self) -> Batch:
        """
        The batch that collects from now on; ``on_dirty`` is called for a new one. Calls no waiter.

        :raises StoreClosed: after ``close``.
        :raises StoreDamaged: an earlier write failed and could not yet be undone, or flushes fail.
        """
        self.check_open()
        if self.batch is not None:
            return self.batch
        batch = self.batch = Batch(self, self.next_offset)
        self.environment.on_dirty(self)
        return batch

    @property
    def collects(self) -> bool:
        """Whether records wait to be written."""
        return self.batch is not None or bool(self._queue)

    def check_open(self) -> None:
        """See ``open_batch``."""
        if self.life is not Life.OPEN:
            raise StoreClosed()
        if self.stalled is not None:
            raise StoreStalled(str(self.stalled)) from self.stalled
        if self.batch is None:
            self._check_writable()

    def add(self, message_id: int, flag: int, checksum: int, body: bytes) -> int:
        """
        Add one record to the batch that collects; returns its offset.

        Every single record enters the log here; the hot path does the same inline.

        :raises StoreError: as ``open_batch``.
        """
        batch = self.batch or self.open_batch()
        batch.pieces += (HEADER.pack(len(body), checksum, message_id, flag), body)
        offset = self.next_offset
        self.next_offset = offset + HEADER_BYTES + len(body)
        return offset

    def count_puts(self, count: int, size: int) -> None:
        """So many records, of ``size`` bytes in all, are to be written."""
        self.put_count += count
        self.put_bytes += size - HEADER_BYTES * count

    def own_pieces(self) -> None:
        """
        Copy the pieces of the collecting batch that are views, because their buffer is about to be
        reused.
        """
        if self.batch is not None:
            self.batch.own()

    # Blocks

    def reserve(self, records: Sequence[bytes]) -> Block:
        """
        Reserve space for whole records as one contiguous block, all or nothing; it counts as one
        message. Its offsets are fixed from now on, and nothing after it is written, or readable,
        before ``commit_block`` or ``cancel_block``.

        :raises StoreError: as ``open_batch``.
        """
        self.commit()
        self.check_open()
        self._close_batch()
        block = Block(self, self.next_offset, b"".join(records))
        self.next_offset += block.size
        self._enqueue(block)
        return block

    def commit_block(self, block: Block) -> None:
        """
        Write the block as soon as everything before it is written, and then the batches after it.

        :raises StoreError: the block has failed already, with a batch before it.
        """
        if block.state is not PENDING:
            raise StoreError(f"The block at {block.offset} was refused") from block.error
        block.decided = True
        self.commit()
        self._end_if_idle()

    def cancel_block(self, block: Block, error: BaseException) -> None:
        """
        Give the block up. The offsets after it are no longer valid: the batches and blocks there
        are refused with the same error.
        """
        if block.state is not PENDING or block.decided:
            raise StoreError(f"The block at {block.offset} has been decided")
        refuse(self._take_from(block), error)
        self.commit()
        self._end_if_idle()

    def append(self, records: Sequence[bytes]) -> Block:
        """
        Store whole records as one block at once: ``reserve`` and ``commit_block``.

        :raises StoreError: as ``open_batch``.
        """
        block = self.reserve(records)
        self.commit_block(block)
        return block

    def append_copy(self, data: bytes | memoryview, records: int) -> Copy:
        """
        Store whole records of another broker's log, all or nothing, at once. They are one write and
        covered by one fsync, so ``unflushThreshold`` counts them as one message.

        :param data: the bytes of the records, which never change.
        :param records: the number of records.
        :raises StoreError: as ``open_batch``.
        """
        self.commit()
        self.check_open()
        self._close_batch()
        copy = Copy(self, self.next_offset, data, records)
        self.next_offset += copy.size
        self._enqueue(copy)
        self.commit()
        return copy

    @property
    def collected(self) -> int:
        """See ``WritableLog``."""
        waiting = sum(batch.count for batch in self._queue)
        return waiting if self.batch is None else waiting + self.batch.count

    @property
    def block_is_next(self) -> bool:
        """See ``WritableLog``."""
        return self._queue[0].decided if self._queue else False

    # Commits and refusals

    def commit(self) -> None:
        """
        Write the batch that collects; while a worker holds the last segment, leave it collecting.
        """
        if self._queue:
            self._commit_queue()
            return
        batch = self.batch
        if batch is None or self.worker is HOLDING or self.apart is not None:
            return
        self.batch = None
        batch.size = self.next_offset - batch.offset
        self._write(batch, False)

    def _commit_queue(self) -> None:
        """Write the batches before the first block that is undecided; there is one."""
        queue = self._queue
        assert queue
        while self.worker is not HOLDING and self.apart is None:
            if not queue:
                if self.batch is None:
                    return
                self._close_batch()
            if not queue[0].decided:
                return
            batch = queue.popleft()
            self._write(batch, more=queue[0].decided if queue else self.batch is not None)

    def _close_batch(self) -> None:
        """End the batch that collects and put it into the queue."""
        batch = self.batch
        if batch is not None:
            self.own_pieces()
            self.batch = None
            batch.size = self.next_offset - batch.offset
            self._enqueue(batch)

    def _enqueue(self, batch: Batch) -> None:
        if isinstance(self._queue, tuple):
            self._queue = deque()
        self._queue.append(batch)

    def take_unwritten(self) -> list[Batch]:
        """See ``WritableLog``."""
        taken = [*self._queue, *([] if self.batch is None else [self.batch])]
        if self._queue:
            self._queue.clear()
        self.batch = None
        self.next_offset = self.last.end + self.apart_size
        return taken

    def refuse_unwritten(self, error: BaseException) -> None:
        """See ``WritableLog``."""
        refuse(self.take_unwritten(), error)

    def _take_from(self, block: Block) -> list[Batch]:
        """Remove and return ``block`` and everything after it."""
        before: list[Batch] = []
        queue = self._queue
        assert queue
        while queue[0] is not block:
            before.append(queue.popleft())
        taken = self.take_unwritten()
        self.next_offset = block.offset
        queue.extend(before)
        return taken


def refuse(batches: list[Batch], error: BaseException) -> None:
    """Complete batches without a stored record."""
    for batch in batches:
        batch.complete(batch.offset, 0, error)
