"""
Records on their way to the pair slave, and what becomes of the puts that brought them.

A ``PairBatch`` is what replies wait for; a ``Flight`` is what was sent of it and has no answer yet.
The first can end before the second: after ``sendToSlaveTimeoutInMills`` its puts are answered, and
the flight stays, because the answer decides whether its records get into the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from itertools import accumulate
from typing import Protocol

from metamorphosis.replication.pairmaster.frames import Pieces
from metamorphosis.store.batch import FAILED, PENDING, STORED, Batch, Collecting


class Fault(Enum):
    """Why a put was not acknowledged."""

    SLAVE = "the slave refused it, did not answer in time, or was lost meanwhile"
    DISCONNECTED = "there is no connection to the slave, and it was not sent"
    MASTER = "the slave has it, and nothing could be written here"
    WRITE = "the slave has it, and its write here has failed; the store has counted it"


class PairBatch(Batch):
    """
    Puts of one partition that are sent together. Thread: reactor.

    ``state`` becomes ``STORED`` when both have every record, at the offset that its reply names;
    else ``FAILED``, and ``deviating`` says of which records that is not so.

    :ivar deviating: by the number of a record: its offset, or why its put is refused.
    :ivar unchecked: records whose producer gave no checksum.
    :ivar shifted: offsets in its replies may be wrong, because a record before them was refused
        while they were collecting.
    """

    __slots__ = ("_unsettled", "deviating", "shifted", "unchecked")

    def __init__(self, store: Collecting, offset: int) -> None:
        super().__init__(store, offset)
        self.deviating: dict[int, int | Fault] = {}
        self.unchecked: set[int] = set()
        self.shifted = False
        self._unsettled = 0

    def sent(self) -> None:
        """It is complete, and its outcome is awaited."""
        self._unsettled = len(self.pieces) >> 1

    def settle(self, first: int, offsets: Sequence[int] | int) -> None:
        """
        Both have these records.

        :param offsets: of them; or how many, if they are where their replies say.
        """
        if isinstance(offsets, int):
            self._settled(offsets)
            return
        self.deviating.update(enumerate(offsets, first))
        self._settled(len(offsets))

    def refuse(self, first: int, count: int, fault: Fault) -> None:
        """The puts of these records are not acknowledged."""
        self.deviating.update(dict.fromkeys(range(first, first + count), fault))
        self._settled(count)

    def refuse_all(self, fault: Fault) -> None:
        """Nothing was sent."""
        self.sent()
        self.refuse(0, self.count, fault)

    def _settled(self, count: int) -> None:
        self._unsettled -= count
        if self._unsettled or self.state is not PENDING:
            return
        self.state = FAILED if self.deviating else STORED
        self.pieces = []
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()


class Sender(Protocol):
    """Whose records a flight has. Providers: ``PairedLog``, ``joining.Sending``, ``Question``."""

    def accepted(self, flight: Flight, record: int, offsets: list[int]) -> None:
        """The slave has stored these records, one after the other, at these offsets."""

    def answered(self, flight: Flight, record: int, offset: int | None, text: bytes) -> None:
        """
        The slave has answered one record.

        :param offset: None: it was refused.
        :param text: of the answer.
        """

    def overdue(self, flight: Flight) -> int:
        """The time limit is over; returns for how many records that counts as a failure."""

    def lost(self, flight: Flight) -> int:
        """The connection is lost, nothing more is heard; returns as above."""


class Flight:
    """
    Records sent one after the other. Thread: reactor.

    :ivar number: of the first frame, see ``frames.OPAQUES``; never repeated here.
    :ivar count: of the records.
    :ivar sizes: of the records in the log.
    :ivar sender: gets the answers.
    :ivar deadline: seconds; of the puts, and when they are late, of the connection.
    :ivar is_late: the time limit of the puts is over.
    :ivar done: so many of the records, from the first on, have been answered and dealt with.
    :ivar early: by the number of a record: the answer that came before that of an earlier one;
        None: refused.
    :ivar batch: whose puts wait for it; None: nobody waits, or not any more.
    :ivar offset: where its replies say that the next record to be answered is.
    :ivar pieces: header, body, ... of all records; empty if they need not be written here.
    """

    __slots__ = (
        "batch",
        "count",
        "deadline",
        "done",
        "early",
        "is_late",
        "number",
        "offset",
        "pieces",
        "sender",
        "sizes",
    )

    def __init__(
        self,
        sender: Sender,
        number: int,
        sizes: list[int],
        deadline: float,
        batch: PairBatch | None = None,
        pieces: Pieces = (),
    ) -> None:
        self.sender = sender
        self.number = number
        self.count = len(sizes)
        self.sizes = sizes
        self.deadline = deadline
        self.is_late = False
        self.done = 0
        self.early: dict[int, int | None] = {}
        self.batch = batch
        self.offset = 0 if batch is None else batch.offset
        self.pieces = pieces

    @property
    def is_over(self) -> bool:
        """Whether every record was answered."""
        return self.done == self.count

    def fits(self, offset: int, offsets: list[int]) -> bool:
        """Whether the next records are at these offsets if the first of them is at ``offset``, and
        no answer came before that of an earlier one."""
        if self.early or offsets[0] != offset:
            return False
        count = len(offsets)
        return count == 1 or offsets == self.offsets_from(offset, count)

    def offsets_from(self, offset: int, count: int) -> list[int]:
        """Where the next ``count`` records are if the first of them is at ``offset``."""
        sizes = self.sizes[self.done : self.done + count - 1]
        return list(accumulate(sizes, initial=offset))

    def pieces_of_next(self, count: int) -> Pieces:
        """The pieces of the next ``count`` records."""
        if count == self.count:
            return self.pieces
        return self.pieces[2 * self.done : 2 * (self.done + count)]

    def pass_over(self, count: int, size: int) -> None:
        """The next ``count`` records are dealt with; they have ``size`` bytes."""
        self.done += count
        self.offset += size

    def give_up(self, fault: Fault) -> int:
        """Refuse the puts of what was not answered; returns how many those are."""
        batch, self.batch = self.batch, None
        if batch is None:
            return 0
        left = self.count - self.done
        batch.refuse(self.done, left, fault)
        return left
