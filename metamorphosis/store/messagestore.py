"""
The log of one topic-partition: append, roll, slice, nearest offset.

Theory of operation. Records collect in ``batch``; ``commit`` writes them with one call at the end
of the last segment. What happens then is up to the ``FlushPolicy``: the default mode acknowledges
at once and flushes later, group commit acknowledges when a worker has flushed.

One worker at most has the descriptor of the last segment:

    worker      event                                          worker
    IDLE        group commit has written a batch               HOLDING
    IDLE        the default mode flushes                       FLUSHING
    FLUSHING    too much is unflushed, or a roll is due        HOLDING
    IDLE        a roll is due                                  HOLDING
    any         the work is done                               IDLE, then ``proceed``

``proceed`` starts what became due meanwhile, in this order: a roll, the batches that have
collected, the end of a store that is closing. ``life`` is a state apart, because closing waits for
whatever the worker does:

    life        event                                          life
    OPEN        close                                          CLOSING
    CLOSING     nothing collects, no worker, all is flushed    CLOSED

With ``StoreEnvironment.apart`` a worker also writes. One batch is being written then (``apart``),
which a flush in the default mode does not mind; batches collect until it is written, and no roll
begins.

``reserve`` takes room in the log for a block that is not to be written yet, because a journal has
to force its record first. What comes after it collects in batches of its own; everything from the
first undecided block on stands in ``_queue``, in the order of the offsets.

A store that cannot write, or flush, refuses batches, and tries again at each of them, so it works
again as soon as the disk does.

Every attribute and method: reactor thread.

Source: ``MessageStore``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, succeed

from metamorphosis.errors import StoreClosed, StoreError, StoreStalled
from metamorphosis.message import HEADER, HEADER_BYTES
from metamorphosis.store.apart import ApartWrites
from metamorphosis.store.batch import PENDING, Batch, Block
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.policy import FlushPolicy
from metamorphosis.store.rolling import Roller
from metamorphosis.store.segment import Segment
from metamorphosis.store.segmentlog import SegmentLog
from metamorphosis.store.segmentwriter import SegmentWriter
from metamorphosis.store.states import Life, Worker

HOLDING = Worker.HOLDING


class MessageStore(SegmentLog):
    """
    One topic-partition. Made by ``messagestores.make_store``.

    :ivar next_offset: where the next record will start; the hot path advances it as it fills the
        batch.
    :ivar batch: the batch that collects now.
    :ivar get_count: gets that found data, counted by the hot path.
    :ivar on_readable: called with the store after each of its flushes while somebody waits for it.
    :ivar put_count: records that were to be stored since the store was opened.
    :ivar put_bytes: bytes of their bodies.
    :ivar policy: when it acknowledges and flushes; fixed at creation.
    :ivar worker: what is being done with the last segment; for policy and roller.
    :ivar stalled: why the disk takes nothing now.
    :ivar apart: what a worker writes, with ``StoreEnvironment.apart``.
    :ivar life: whether it takes messages.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        segments: list[Segment],
        environment: StoreEnvironment,
        make_policy: Callable[[MessageStore], FlushPolicy],
    ) -> None:
        super().__init__(topic, partition, segments, environment)
        self.next_offset = self.last.end
        self.batch: Batch | None = None
        self.on_readable: Callable[[MessageStore], None] | None = None
        self.get_count = 0
        self.put_count = 0
        self.put_bytes = 0
        self.worker = Worker.IDLE
        self.life = Life.OPEN
        self.writer = SegmentWriter(environment.disk)
        self.roller = Roller(self)
        self.policy = make_policy(self)
        self._lent = False  # a worker was given the descriptor of the last segment
        self.apart = ApartWrites(self)
        self.stalled: StoreStalled | None = None
        self._queue: deque[Batch] = deque()  # from the first block on that was undecided
        self._ended: list[Deferred[None]] = []  # of those who wait for the end

    def reconfigure(self, unflush_threshold: int, unflush_interval: int) -> None:
        """Apply a reload: messages and ms. A store keeps the mode in which it was created."""
        self.policy.reconfigure(unflush_threshold, unflush_interval / 1000)

    @property
    def group_commit(self) -> bool:
        """Whether a put is acknowledged after its flush."""
        return self.policy.group_commit

    # Reading

    def await_flush(self, on_readable: Callable[[MessageStore], None]) -> None:
        """
        A reader waits at the end: flush without delay from now on, what is written already
        included, and call ``on_readable``, which must not raise, after each flush; until it is set
        to None.
        """
        self.on_readable = on_readable
        self.policy.hurry()

    def readable(self, end: int) -> None:
        """Everything below ``end`` is flushed."""
        self.max_offset = end
        if self.on_readable is not None:
            self.on_readable(self)

    def needs(self, segment: Segment) -> bool:
        """See ``SegmentLog``: a worker has it, or the file has to be cut."""
        lent = self._lent and self.worker is not Worker.IDLE
        written = self.apart.batch is not None
        return segment is self.last and (lent or written or self.writer.damaged)

    def lend(self) -> int:
        """The descriptor of the last segment for a worker; -1: it has to open the file itself."""
        scarce = self.environment.descriptors.scarce
        self._lent = self.last.fd >= 0 and not scarce
        return self.last.fd if self._lent else -1

    def open_last(self) -> None:
        """
        See to it that the last segment is open.

        :raises StoreError: naming the file.
        """
        if self.last.fd < 0:
            self.environment.descriptors.open(self, self.last)

    # Appending

    def open_batch(self) -> Batch:
        """
        The batch that collects from now on; announced by ``on_dirty``. Calls no waiter.

        :raises StoreClosed: after ``close``.
        :raises StoreDamaged: an earlier write failed and could not be undone until now, or flushes
            fail.
        """
        self._check_open()
        if self.batch is not None:
            return self.batch
        batch = self.batch = Batch(self, self.next_offset)
        self.environment.on_dirty(self)
        return batch

    def _check_open(self) -> None:
        """See ``open_batch``."""
        if self.life is not Life.OPEN:
            raise StoreClosed()
        if self.stalled is not None:
            raise StoreStalled(str(self.stalled)) from self.stalled
        if self.batch is None and self.writer.damaged:
            self.open_last()
            self.writer.repair(self.last)
        if self.batch is None:
            self.policy.check_writable()

    def add(self, message_id: int, flag: int, checksum: int, body: bytes) -> int:
        """
        Add one record to the batch that collects; returns its offset.

        This is how every single record gets into the log; the hot path does the same inline.

        :raises StoreError: as ``open_batch``.
        """
        batch = self.batch or self.open_batch()
        batch.pieces += (HEADER.pack(len(body), checksum, message_id, flag), body)
        offset = self.next_offset
        self.next_offset = offset + HEADER_BYTES + len(body)
        return offset

    def reserve(self, records: Sequence[bytes]) -> Block:
        """
        Take room for whole records as one contiguous block, all or nothing; it counts as one
        message. Its offsets are fixed from now on, and nothing after it is written, or readable,
        before ``commit_block`` or ``cancel_block``.

        :raises StoreError: as ``open_batch``.
        """
        self.commit()
        self._check_open()
        self._close_batch()
        block = Block(self, self.next_offset, b"".join(records))
        self.next_offset += block.size
        self._queue.append(block)
        return block

    def commit_block(self, block: Block) -> None:
        """
        Write the block as soon as everything before it is written, and then what has collected
        after it.

        :raises StoreError: it has failed already, with what stood before it.
        """
        if block.state is not PENDING:
            raise StoreError(f"The block at {block.offset} was refused") from block.error
        block.decided = True
        self.commit()
        self._end_if_idle()

    def cancel_block(self, block: Block, error: BaseException) -> None:
        """
        Never write the block. What has collected after it has offsets that come no more: batches
        and blocks there are refused with the same error.
        """
        if block.state is not PENDING or block.decided:
            raise StoreError(f"The block at {block.offset} has been decided")
        self._refuse(self._take_from(block), error)
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

    def commit(self) -> None:
        """
        Write the batch that collects; while a worker must not be disturbed, leave it collecting.
        """
        if self._queue:
            self._commit_queue()
            return
        batch = self.batch
        if batch is None or self.worker is HOLDING or self.apart.batch is not None:
            return
        self.batch = None
        batch.size = self.next_offset - batch.offset
        self._write(batch, False)

    def _commit_queue(self) -> None:
        """Write what stands before the first block that is undecided."""
        queue = self._queue
        while self.worker is not HOLDING and self.apart.batch is None:
            if not queue:
                if self.batch is None:
                    return
                self._close_batch()
            if not queue[0].decided:
                return
            batch = queue.popleft()
            self._write(batch, more=queue[0].decided if queue else self.batch is not None)

    @property
    def block_is_next(self) -> bool:
        """Whether something stands in the queue that may be written."""
        return bool(self._queue) and self._queue[0].decided

    def _close_batch(self) -> None:
        """What collects must not grow: it gets its place in the queue."""
        batch = self.batch
        if batch is not None:
            self.own_pieces()
            self.batch = None
            batch.size = self.next_offset - batch.offset
            self._queue.append(batch)

    def _write(self, batch: Batch, more: bool) -> None:
        pieces = batch.pieces
        count = len(pieces) >> 1
        self.put_count += count
        self.put_bytes += batch.size - HEADER_BYTES * count
        if self.environment.apart:
            self.apart.start(batch)
            return
        error: BaseException | None
        try:
            if self.last.fd < 0:
                self.open_last()
            count, size, error = self.writer.write(self.last, pieces, batch.size)
        except StoreError as failure:
            count, size, error = self.writer.cannot_open(self.last, failure)
        if error is None:
            self.policy.written(batch, count, more)
        else:
            self.wrote(batch, count, size, error, more)

    def wrote(
        self, batch: Batch, count: int, size: int, error: BaseException | None, more: bool
    ) -> None:
        """
        A batch was written.

        :param count: of the records that are in the file.
        :param size: their bytes.
        :param more: see ``FlushPolicy.written``.
        """
        if error is None:
            self.policy.written(batch, count, more)
            return
        # What stands after it has wrong offsets now.
        batch.error = error
        batch.size = size
        behind = self.take_unwritten()
        self.policy.written(batch, count, False)
        self._refuse(behind, error)

    def stall(self, error: StoreStalled | None) -> None:
        """
        The disk does not answer: refuse everything that waits for it, and wait for nothing. What is
        in the file and was refused is cut off when the disk answers again, which None tells.
        """
        self.stalled = error
        if error is None:
            return
        if self.apart.batch is not None:
            self.next_offset = self.last.end
            self._refuse([self.apart.batch], error)
        if self.worker is not Worker.IDLE or self.apart.batch is not None:
            behind = self.take_unwritten()
            self.policy.stalled(error)
            self._refuse(behind, error)
            self._tell_ended()

    def take_unwritten(self) -> list[Batch]:
        """
        Take out everything that is not being written yet; what comes next starts where the file
        ends.
        """
        taken = [*self._queue, *([] if self.batch is None else [self.batch])]
        self._queue.clear()
        self.batch = None
        self.next_offset = self.last.end + self.apart.unrefused_size
        return taken

    def refuse_unwritten(self, error: BaseException) -> None:
        """Refuse everything that has collected."""
        self._refuse(self.take_unwritten(), error)

    def _take_from(self, block: Block) -> list[Batch]:
        """The same from ``block`` on."""
        before: list[Batch] = []
        while self._queue[0] is not block:
            before.append(self._queue.popleft())
        taken = self.take_unwritten()
        self.next_offset = block.offset
        self._queue.extend(before)
        return taken

    def _refuse(self, batches: list[Batch], error: BaseException) -> None:
        for batch in batches:
            batch.complete(batch.offset, 0, error)

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

    # Recovery of the journal, before the store has taken a message

    def ends_with(self, data: bytes) -> bool:
        """Whether these are the last bytes of the log, within its last segment."""
        if len(data) > self.last.size:
            return False
        with open(self.last.path, "rb") as file:
            file.seek(self.last.size - len(data))
            return file.read(len(data)) == data

    def cut_back(self, offset: int) -> None:
        """
        Take what stands from ``offset`` on out of the last segment: a crash has left half a block.

        :raises StoreError: the file could not be opened or cut.
        """
        self.open_last()
        self.writer.take_back(self.last, 0, self.last.end - offset)
        self.next_offset = self.max_offset = self.read_end = offset
        self.writer.repair(self.last)

    # Flushing and closing

    def flush(self) -> None:
        """Ask for a flush in the background."""
        self.policy.flush()

    def proceed(self) -> None:
        """The worker is done: go on with what waited for it."""
        if self.roller.start_if_due():
            return
        self.commit()
        self._end_if_idle()

    def close(self) -> Deferred[None]:
        """
        Take nothing more, store and flush what has collected, answer it, close the files. Waits for
        blocks to be decided, but not for a disk that does not answer. Never fails.
        """
        if self.life is Life.CLOSED:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._ended.append(closed)
        self.life = Life.CLOSING
        self.commit()
        self._end_if_idle()
        if self.stalled is not None:
            self._tell_ended()
        return closed

    def _end_if_idle(self) -> None:
        """Close if that is asked for and there is nothing left to do."""
        if self.life is not Life.CLOSING or self._queue or self.apart.batch is not None:
            return
        if self.worker is not Worker.IDLE:
            return
        if self.policy.last_flush():
            return
        self.life = Life.CLOSED
        if self.writer.damaged:
            self.writer.cut(self.last, self.last.size)
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
