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
"""Its partition, the header that it will be stored with, and its record of the journal."""

OVERHEAD = 300
"""Bytes of memory that a message takes beside its record."""

EMPTY = 800
"""Bytes of memory that a transaction takes beside its messages."""


class State(IntEnum):
    """
    The state of a transaction. The numbers of the first four are the original's.

    ========== ======================= =======================================================
    START      begun                   put -> IN_USE; every end -> FINISHED
    IN_USE     has messages            prepare -> PREPARED; commit, rollback -> ENDING
    PREPARED   XA: keeps its messages  commit, rollback -> ENDING
    ENDING     its outcome is written  -> FINISHED; its former state if that fails
    FINISHED   removed from all tables
    ========== ======================= =======================================================
    """

    START = 0
    IN_USE = 1
    PREPARED = 2
    FINISHED = 3
    ENDING = 7


class Transaction:
    """
    An open transaction. Thread: reactor.

    :ivar file: the file of its records; None before the first one is written.
    :ivar records: its records in that file, without outcomes.
    :ivar held: the number of the last records that are not yet passed to it; see ``recording``.
    :ivar bytes: memory that it takes with its messages.
    :ivar owner: the connection of a local one.
    :ivar abandoned: no client can continue it: if its end fails it is dropped.
    :ivar began: start in seconds of the timers' clock; the recovery's time for a recovered one.
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
        """Whether none of its records is in the journal, or in a pending write."""
        return self.held == len(self.records)

    @property
    def is_xa(self) -> bool:
        """Whether it belongs to the broker, not to a connection."""
        return isinstance(self.id, XATransactionId)

    def end(self) -> None:
        """Its outcome is being written to the journal."""
        self._before = self.state
        self.state = State.ENDING

    def end_failed(self) -> None:
        """Its outcome could not be written: restore its former state."""
        self.state = self._before

    def prepare_failed(self) -> None:
        """Its prepare could not be written."""
        if self.state is State.PREPARED:
            self.state = State.IN_USE
        elif self._before is State.PREPARED:
            self._before = State.IN_USE

    @property
    def was_prepared(self) -> bool:
        """Whether a transaction that is ending was prepared before."""
        return self._before is State.PREPARED

    @property
    def partitions(self) -> list[Partition]:
        """The partitions of its messages, in the order of the first message of each."""
        return list(self._pieces)

    def add(self, messages: Sequence[Message], records: Sequence[bytes]) -> None:
        """
        Take messages.

        :param records: the records of the messages; each ends with the body of its message.
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
        """Remove the last messages, because their records could not be written; their puts were
        refused."""
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
