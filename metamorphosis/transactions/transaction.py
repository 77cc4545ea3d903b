"""
One open transaction: its state, and the messages that it will store.

Source: ``Transaction``, ``LocalTransaction``, ``XATransaction``; section 5.1 of the specification
of transactions.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from enum import IntEnum

from metamorphosis.message import HEADER
from metamorphosis.transactions.redofile import RedoFile
from metamorphosis.wire.transactionids import LocalTransactionId, XATransactionId

Partition = tuple[str, int]

Message = tuple[Partition, bytes, bytes]
"""Where it goes, the header that it will be stored with, and its record of the journal."""

OVERHEAD = 300
"""Bytes of memory that a message takes beside its record."""

EMPTY = 800
"""Bytes of memory that a transaction takes beside its messages."""


class State(IntEnum):
    """
    Where a transaction stands. The numbers of the first four are the original's.

    ========== ======================= =======================================================
    START      begun                   put -> IN_USE; every end -> FINISHED
    IN_USE     has messages            prepare -> PREPARED; commit, rollback -> ENDING
    PREPARED   XA: keeps what it has   commit, rollback -> ENDING
    ENDING     its outcome is written  -> FINISHED; back where it was if that fails
    FINISHED   in no table any more
    ========== ======================= =======================================================
    """

    START = 0
    IN_USE = 1
    PREPARED = 2
    FINISHED = 3
    ENDING = 7


class Transaction:
    """
    Thread: reactor.

    :ivar file: where its records are, or go; None before the first one is written.
    :ivar records: as they stand there, without outcomes.
    :ivar held: so many of the last ones are not on their way there; see ``recording``.
    :ivar bytes: memory that it takes with its messages.
    :ivar owner: the connection that a local one belongs to.
    :ivar abandoned: nobody can go on with it: if its end fails it is dropped.
    :ivar began: seconds of the timers' clock; of a recovered one, when it was recovered.
    :ivar recovered: it was prepared before the broker started.
    :ivar timeout: seconds after which it is rolled back, 0 for never.
    """

    __slots__ = (
        "_before",
        "_pieces",
        "abandoned",
        "began",
        "bytes",
        "file",
        "held",
        "id",
        "key",
        "owner",
        "records",
        "recovered",
        "state",
        "timeout",
    )

    def __init__(
        self, transaction_id: LocalTransactionId | XATransactionId, began: float, timeout: int = 0
    ) -> None:
        self.id = transaction_id
        self.key = str(transaction_id)
        self.state = State.START
        self.file: RedoFile | None = None
        self.records: list[bytes] = []
        self.held = 0
        self.bytes = EMPTY
        self.began = began
        self.recovered = False
        self.owner: Hashable = None
        self.abandoned = False
        self.timeout = timeout
        self._before = State.START
        self._pieces: dict[Partition, list[bytes]] = {}  # header, record, header, record, ...

    def __repr__(self) -> str:
        return f"<Transaction {self.key} {self.state.name} of {len(self.records)} messages>"

    @property
    def is_unwritten(self) -> bool:
        """Whether nothing of it stands in the journal, or is on its way there."""
        return self.held == len(self.records)

    @property
    def is_xa(self) -> bool:
        """Whether it belongs to the broker, and not to a connection."""
        return isinstance(self.id, XATransactionId)

    def end(self) -> None:
        """Its outcome is on its way to the journal."""
        self._before = self.state
        self.state = State.ENDING

    def end_failed(self) -> None:
        """Its outcome could not be written: it is as it was."""
        self.state = self._before

    def prepare_failed(self) -> None:
        """Its prepare could not be written."""
        if self.state is State.PREPARED:
            self.state = State.IN_USE
        elif self._before is State.PREPARED:
            self._before = State.IN_USE

    @property
    def was_prepared(self) -> bool:
        """Of one that ends: whether it was prepared before."""
        return self._before is State.PREPARED

    @property
    def partitions(self) -> list[Partition]:
        """Where it has messages, in the order of their first ones."""
        return list(self._pieces)

    def add(self, messages: Sequence[Message], records: Sequence[bytes]) -> None:
        """
        Take messages.

        :param records: those of the messages; each ends with the body of its message.
        """
        kept = self._pieces
        for partition, header, record in messages:
            pieces = kept.get(partition)
            if pieces is None:
                pieces = kept[partition] = []
            pieces.append(header)
            pieces.append(record)
        self.records += records
        self.bytes += sum(map(len, records)) + OVERHEAD * len(records)

    def take_back(self, count: int) -> None:
        """The last records could not be written, and with them the messages are gone; their puts
        were refused."""
        for _ in range(count):
            record = self.records.pop()
            partition = next(p for p, pieces in self._pieces.items() if pieces[-1] is record)
            pieces = self._pieces[partition]
            del pieces[-2:]
            if not pieces:
                del self._pieces[partition]
            self.bytes -= len(record) + OVERHEAD

    def blocks(self) -> Iterator[tuple[Partition, list[bytes]]]:
        """For each partition the headers and bodies of its messages, in the order of the puts."""
        for partition, kept in self._pieces.items():
            pieces = kept.copy()
            index = 1
            for header, record in zip(kept[::2], kept[1::2]):
                pieces[index] = record[len(record) - HEADER.unpack(header)[0] :]
                index += 2
            yield partition, pieces
