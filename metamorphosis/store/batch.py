"""The records collected for one partition, stored or refused together."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol


class Outcome(Enum):
    """The outcome of a batch, or of a record that a journal forces."""

    PENDING = "collecting, or written and not yet flushed"
    STORED = "every record is stored; with group commit also flushed"
    FAILED = "some records are not in the log"


PENDING = Outcome.PENDING
STORED = Outcome.STORED
FAILED = Outcome.FAILED


class Collecting(Protocol):
    """
    The partition that a batch is for.

    :ivar batch: the batch that collects now.
    :ivar next_offset: where the next record will start.
    """

    topic: str
    partition: int
    next_offset: int

    @property
    def batch(self) -> Batch | None: ...

    def refused(self) -> None:
        """Records of a batch are not stored."""

    def commit(self) -> None:
        """Write the batch that collects."""

    def own_pieces(self) -> None:
        """Copy the pieces of that batch that are views of a receive buffer."""


class Batch:
    """
    The records that one partition stores with one write. Thread: reactor.

    :ivar store: the partition that stores it.
    :ivar offset: offset of the first record.
    :ivar pieces: header, body, header, body, ...: two per record, or for a run of whole records
        that and an empty one. Emptied on completion.
    :ivar more: records of runs beyond one for two pieces.
    :ivar owned: leading pieces known not to be views of a receive buffer.
    :ivar size: bytes, known when the batch is committed.
    :ivar state: its outcome.
    :ivar stored_end: after completion: records that end at or below this offset are stored.
    :ivar stored_count: after completion: the number of stored records, counted from the first.
    :ivar error: the reason of a failure.
    :ivar decided: whether it may be written; only a ``Block`` may have to wait.
    :ivar counted: its records are in ``MessageStore.put_count``, whatever the outcome is.
    :ivar waiters: called once each on completion; never from within ``open_batch``.
    """

    __slots__ = (
        "counted",
        "decided",
        "error",
        "more",
        "offset",
        "owned",
        "pieces",
        "size",
        "state",
        "store",
        "stored_count",
        "stored_end",
        "waiters",
    )

    def __init__(self, store: Collecting, offset: int) -> None:
        self.store = store
        self.offset = offset
        self.decided = True
        self.counted = False
        self.pieces: list[bytes | memoryview] = []
        self.owned = 0
        self.more = 0
        self.size = 0
        self.state: Outcome = PENDING
        self.stored_end = offset
        self.stored_count = 0
        self.error: BaseException | None = None
        self.waiters: list[Callable[[], None]] = []

    @property
    def count(self) -> int:
        """Records that have collected."""
        return (len(self.pieces) >> 1) + self.more

    def add_run(self, data: bytes, count: int) -> None:
        """Add so many whole records."""
        self.pieces += (data, b"")
        self.more += count - 1

    def own(self) -> None:
        """Copy the pieces that are views of a receive buffer."""
        pieces = self.pieces
        for index in range(self.owned, len(pieces)):
            if type(pieces[index]) is not bytes:
                pieces[index] = bytes(pieces[index])
        self.owned = len(pieces)

    def complete(self, stored_end: int, count: int, error: BaseException | None = None) -> None:
        """
        Set the outcome, once, and call the waiters.

        :param count: the number of records that end at or below ``stored_end``.
        """
        if self.state is not PENDING:
            return  # it was refused before, because the disk did not answer
        self.stored_end = stored_end
        self.stored_count = count
        self.error = error
        self.state = STORED if error is None else FAILED
        self.pieces = []
        if error is not None:
            self.store.refused()
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()


class Block(Batch):
    """
    Records that are stored all or none, in space that was reserved for them. Thread: reactor.

    :ivar offset: the offset of its first byte; known from the reservation on.
    """

    __slots__ = ()

    def __init__(self, store: Collecting, offset: int, data: bytes | memoryview) -> None:
        super().__init__(store, offset)
        self.pieces = [data, b""]
        self.owned = 2
        self.size = len(data)
        self.decided = False


class Copy(Block):
    """
    Records of another broker's log, byte for byte. They count as messages of the log, not as puts.
    Thread: reactor.

    :ivar records: the number of records.
    """

    __slots__ = ("records",)

    def __init__(
        self, store: Collecting, offset: int, data: bytes | memoryview, records: int
    ) -> None:
        super().__init__(store, offset, data)
        self.pieces = [data]  # a single piece is written without another copy
        self.owned = 1
        self.decided = True
        self.records = records
