"""
Records sent to the pair slave, and the outcome of their puts.

Replies to producers wait for a ``PairBatch``; a ``Flight`` has its records from the send until the
slave's replies. The batch can end before the flight: after ``sendToSlaveTimeoutInMills`` its puts
are answered, and the flight stays, because the slave's reply decides whether its records are
written to the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from itertools import accumulate
from typing import Protocol

from metamorphosis.replication.pairmaster.fields import FlightFields
from metamorphosis.replication.pairmaster.frames import sizes_in
from metamorphosis.store.batch import FAILED, PENDING, STORED, Batch, Collecting


class Fault(Enum):
    """The reason why a put was not acknowledged."""

    SLAVE = "the slave refused it, did not answer in time, or was lost meanwhile"
    DISCONNECTED = "there is no connection to the slave, and it was not sent"
    MASTER = "the slave has it, and nothing could be written here"
    WRITE = "the slave has it, and its write here has failed; the store has counted it"


class TakesReplies(Collecting, Protocol):
    """The partition of a ``PairBatch``. Provider: ``PairedLog``."""

    def accepted_next(self, flight: Flight, data: bytes, position: int) -> int:
        """
        Take the replies at ``position`` that accept the next records of the flight at the expected
        offsets, if none came out of order; returns the position after them. All other replies are
        left for ``Sender.accepted`` and ``answered``.
        """


class PairBatch(Batch):
    """
    Puts of one partition that are sent together. Thread: reactor.

    ``state`` becomes ``STORED`` when both brokers have every record at the offset in its reply;
    else ``FAILED``, and ``deviating`` has the records for which this does not hold.

    :param run: all of its records, if it does not collect.
    :param count: their number.
    :ivar deviating: by the number of a record: its true offset, or the fault of its put.
    :ivar unchecked: records whose producer gave no checksum.
    :ivar run: all records as they are in the log, see ``frames``; from ``close`` to the outcome.
    :ivar records: their number, from ``close`` on.
    :ivar shifted: offsets in its replies may be wrong, because an earlier record was refused while
        the batch was collecting.
    """

    __slots__ = ("_unsettled", "deviating", "records", "run", "shifted", "unchecked")

    store: TakesReplies

    def __init__(self, store: TakesReplies, offset: int, run: bytes = b"", count: int = 0) -> None:
        super().__init__(store, offset)
        self.deviating: dict[int, int | Fault] = {}
        self.unchecked: set[int] = set()
        self.shifted = False
        self._unsettled = self.records = count
        self.run = run
        self.size = len(run)

    def close(self) -> None:
        """Note that the batch is complete, and its outcome pending."""
        self.records = self._unsettled = self.count
        self.run = b"".join(self.pieces)
        self.size = len(self.run)
        self.pieces = []

    def settle(self, first: int, offsets: Sequence[int] | int) -> None:
        """
        Note that both brokers have these records.

        :param offsets: of the records; or their number, if the offsets in their replies are right.
        """
        if isinstance(offsets, int):
            self._settled(offsets)
            return
        self.deviating.update(enumerate(offsets, first))
        self._settled(len(offsets))

    def all_stored(self) -> None:
        """Note that both brokers have all records, at the offsets in their replies."""
        self.state = STORED
        self._unsettled = 0
        self.run = b""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()

    def refuse(self, first: int, count: int, fault: Fault) -> None:
        """Refuse the puts of these records."""
        self.deviating.update(dict.fromkeys(range(first, first + count), fault))
        self._settled(count)

    def refuse_all(self, fault: Fault) -> None:
        """Refuse all puts of a batch that was not sent."""
        self.close()
        self.refuse(0, self.records, fault)

    def _settled(self, count: int) -> None:
        self._unsettled -= count
        if self._unsettled or self.state is not PENDING:
            return
        self.state = FAILED if self.deviating else STORED
        self.run = b""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()


class Sender(Protocol):
    """The origin of a flight. Providers: ``PairedLog``, and ``Sending`` and ``Question``."""

    def accepted(self, flight: Flight, record: int, offsets: list[int]) -> None:
        """The slave has stored these successive records at these offsets."""

    def answered(self, flight: Flight, record: int, offset: int | None, text: bytes) -> None:
        """
        The slave has replied to one record.

        :param offset: None: it was refused.
        :param text: of the reply.
        """

    def overdue(self, flight: Flight) -> int:
        """The time limit has passed; returns the number of records that count as failures."""

    def lost(self, flight: Flight) -> int:
        """The connection is lost, and no reply will come; returns as ``overdue``."""


class Flight(FlightFields):
    """
    Successive records sent together. Thread: reactor.

    :ivar number: of the first frame, see ``frames.OPAQUES``; never repeated here.
    :ivar count: the number of records.
    :ivar sender: gets the slave's replies.
    :ivar deadline: seconds; of the puts, and after it of the connection.
    :ivar is_late: the time limit of the puts has passed.
    :ivar done: the number of records, from the first, that were answered and processed.
    :ivar early: by the number of a record: the offset from a reply that arrived before that of an
        earlier record; None: refused.
    :ivar batch: the batch that waits for it; None: no put waits, or no longer.
    :ivar offset: the offset of the next unanswered record by the replies to its puts.
    :ivar run: all records, see ``frames``; empty if they need not be written here.
    :ivar at: the position in ``run`` of the next unanswered record.
    :param sizes: of the records in the log, if there is no ``run``.
    """

    __slots__ = ()

    def __init__(
        self,
        sender: Sender,
        number: int,
        count: int,
        deadline: float,
        batch: PairBatch | None = None,
        run: bytes = b"",
        sizes: list[int] | None = None,
    ) -> None:
        self.sender = sender
        self.number = number
        self.count = count
        self._sizes = sizes
        self.deadline = deadline
        self.is_late = False
        self.done = 0
        self.early: dict[int, int | None] = {}
        self.batch = batch
        self.offset = 0 if batch is None else batch.offset
        self.run = run
        self.at = 0

    @property
    def sizes(self) -> list[int]:
        """Of the records in the log."""
        if self._sizes is None:
            self._sizes = sizes_in(self.run)
        return self._sizes

    @property
    def is_over(self) -> bool:
        """Whether the slave has replied to every record."""
        return self.done == self.count

    def fits(self, offset: int, offsets: list[int]) -> bool:
        """Whether the next records have these offsets if the first of them is at ``offset``, and
        no reply arrived before that of an earlier record."""
        if self.early or offsets[0] != offset:
            return False
        count = len(offsets)
        return count == 1 or offsets == self.offsets_from(offset, count)

    def offsets_from(self, offset: int, count: int) -> list[int]:
        """The offsets of the next ``count`` records if the first of them is at ``offset``."""
        sizes = self.sizes[self.done : self.done + count - 1]
        return list(accumulate(sizes, initial=offset))

    def next_bytes(self, size: int) -> bytes:
        """The next records, which have ``size`` bytes."""
        run = self.run
        return run if size == len(run) else run[self.at : self.at + size]

    def pass_over(self, count: int, size: int) -> None:
        """Advance past the next ``count`` records, which have ``size`` bytes."""
        self.done += count
        self.at += size
        self.offset += size

    def give_up(self, fault: Fault) -> int:
        """Refuse the puts of unanswered records; returns their number."""
        batch, self.batch = self.batch, None
        if batch is None:
            return 0
        left = self.count - self.done
        batch.refuse(self.done, left, fault)
        return left
