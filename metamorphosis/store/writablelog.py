"""
The last segment of a log, and the worker that may have its descriptor.

The flush policies (``policy``), the rolls (``rolling``) and the writes in a worker (``apart``) use
only this part of a store, so that they do not depend on its batches.
"""

from __future__ import annotations

from abc import abstractmethod

from metamorphosis.errors import StoreStalled
from metamorphosis.store.batch import PENDING, Batch
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.segment import Segment
from metamorphosis.store.segmentlog import SegmentLog
from metamorphosis.store.segmentwriter import SegmentWriter
from metamorphosis.store.states import Life, Worker


class WritableLog(SegmentLog):
    """
    One topic-partition that is appended to. Thread: reactor.

    :ivar next_offset: where the next record will start; the hot path advances it as it fills the
        batch.
    :ivar on_readable: not None while a get waits for a flush.
    :ivar worker: the work on the last segment; set by policy and roller.
    :ivar apart: the batch that a worker writes, with ``StoreEnvironment.apart``.
    :ivar stalled: the reason why the disk takes no writes now; None while it answers.
    :ivar life: whether it takes messages.
    """

    def __init__(
        self, topic: str, partition: int, segments: list[Segment], environment: StoreEnvironment
    ) -> None:
        super().__init__(topic, partition, segments, environment)
        self.next_offset = self.last.end
        self.on_readable: object | None = None
        self.worker = Worker.IDLE
        self.life = Life.OPEN
        self.writer = SegmentWriter(environment.disk)
        self.apart: Batch | None = None
        self.stalled: StoreStalled | None = None
        self._lent = False  # a worker was given the descriptor of the last segment

    # Used by a worker

    def needs(self, segment: Segment) -> bool:
        """See ``SegmentLog``: a worker uses the descriptor, or the file has to be cut."""
        lent = self._lent and self.worker is not Worker.IDLE
        return segment is self.last and (
            lent or self.apart is not None or self.writer.damage is not None
        )

    def lend(self) -> int:
        """The descriptor of the last segment for a worker; -1: it has to open the file itself."""
        scarce = self.environment.descriptors.scarce
        self._lent = self.last.fd >= 0 and not scarce
        return self.last.fd if self._lent else -1

    def open_last(self) -> None:
        """
        Open the last segment unless it is open.

        :raises StoreError: naming the file.
        """
        if self.last.fd < 0:
            self.environment.descriptors.open(self, self.last)

    @property
    def apart_size(self) -> int:
        """Bytes that a worker is writing, in the log as soon as the write has succeeded."""
        batch = self.apart
        return 0 if batch is None or batch.state is not PENDING else batch.size

    # Outcomes of the work

    @abstractmethod
    def readable(self, end: int) -> None:
        """Everything below ``end`` is flushed."""

    @abstractmethod
    def proceed(self) -> None:
        """The worker is done: continue with the steps that waited for it."""

    @abstractmethod
    def wrote(
        self, batch: Batch, count: int, size: int, error: BaseException | None, more: bool
    ) -> None:
        """
        A batch was written.

        :param count: the number of its records that are in the file.
        :param size: their bytes.
        :param more: see ``FlushPolicy.written``.
        """

    @property
    @abstractmethod
    def collected(self) -> int:
        """The number of records and blocks that wait to be written."""

    @property
    @abstractmethod
    def block_is_next(self) -> bool:
        """Whether the first batch in the queue may be written."""

    @abstractmethod
    def take_unwritten(self) -> list[Batch]:
        """
        Remove and return all batches that are not being written yet; the next record starts at the
        end of the file.
        """

    @abstractmethod
    def refuse_unwritten(self, error: BaseException) -> None:
        """Refuse all collected batches."""

    @abstractmethod
    def roll_if_due(self) -> bool:
        """
        Start a roll if the last segment is full; True if one runs, or has to wait for the worker.
        """

    @abstractmethod
    def roll_failed(self, error: BaseException) -> None:
        """Continue in the last segment, and try the roll again later."""

    # Recovery of the journal, before the store has taken a message

    def cut_back(self, offset: int) -> None:
        """
        Remove the records from ``offset`` on from the last segment: a crash has left half a block.

        :raises StoreError: the file could not be opened or cut.
        """
        self.open_last()
        self.writer.take_back(self.last, 0, self.last.end - offset)
        self.next_offset = self.max_offset = self.read_end = offset
        self.writer.repair(self.last)
