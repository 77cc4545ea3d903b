"""
Transactions and their journal at one moment, as frozen values: for administration, dashboard and
tests.
"""

from __future__ import annotations

from dataclasses import dataclass

from metamorphosis.transactions.heuristiclog import Heuristic
from metamorphosis.transactions.transaction import State, Transaction
from metamorphosis.wire.transactionids import XATransactionId

OUTCOME_WORDS = {
    Heuristic.COMMITTED: "committed",
    Heuristic.ROLLED_BACK: "rolled back",
    Heuristic.COMPLETED: "completed",
}

STATE_WORDS = {
    State.START: "started",
    State.IN_USE: "in use",
    State.PREPARED: "prepared",
    State.ENDING: "ending",
    State.FINISHED: "finished",
}


@dataclass(frozen=True, slots=True)
class TransactionView:
    """
    One transaction at one moment.

    :ivar kind: ``xa`` or ``local``.
    :ivar state: ``started``, ``in use``, ``prepared``, ``ending``; or, if it was decided by hand,
        ``heuristically committed``, ``... rolled back`` or ``... completed``.
    :ivar age_seconds: since its BEGIN; since the broker's start if it was recovered.
    :ivar recovered: it was prepared before the broker started.
    :ivar bytes: memory that it takes.
    :ivar partitions: ``<topic>-<number>`` of each partition of its messages.
    :ivar timeout_seconds: seconds after which it is rolled back; None: never.
    :ivar redo_file: number of the file with its records; None: it has none.
    """

    key: str
    kind: str
    state: str
    age_seconds: float | None = None
    recovered: bool = False
    messages: int = 0
    bytes: int = 0
    partitions: tuple[str, ...] = ()
    timeout_seconds: int | None = None
    redo_file: int | None = None


@dataclass(frozen=True, slots=True)
class RedoFileView:
    """
    One redo file.

    :ivar bytes: its size.
    :ivar transactions: unfinished ones that keep it from being deleted.
    """

    number: int
    bytes: int
    transactions: int


@dataclass(frozen=True, slots=True)
class JournalView:
    """
    The journal at one moment.

    :ivar flush_mode: ``flushTxLogAtCommit``.
    :ivar files: oldest first.
    :ivar open: transactions that are neither prepared nor decided by hand.
    :ivar heuristic: outcomes decided by hand that are not forgotten.
    :ivar bytes: memory that open and prepared transactions take.
    :ivar max_bytes: the limit of that memory (``max-transaction-bytes``).
    :ivar forces: ``fdatasync`` calls since the start.
    :ivar writes: writes since the start.
    :ivar broken: the error after which no records are taken; None while the journal works.
    """

    directory: str
    flush_mode: int
    files: tuple[RedoFileView, ...]
    open: int
    prepared: int
    heuristic: int
    bytes: int
    max_bytes: int
    forces: int
    writes: int
    broken: str | None


def view_of(transaction: Transaction, now: float) -> TransactionView:
    """
    The view of an open transaction.

    :param now: seconds of the timers' clock.
    """
    prepared = transaction.state is State.PREPARED
    return TransactionView(
        key=transaction.key,
        kind="xa" if transaction.is_xa else "local",
        state=STATE_WORDS[transaction.state],
        age_seconds=round(max(now - transaction.began, 0), 3),
        recovered=transaction.recovered,
        messages=len(transaction.records),
        bytes=transaction.bytes,
        partitions=tuple(f"{topic}-{number}" for topic, number in transaction.partitions),
        timeout_seconds=None if prepared else transaction.timeout or None,
        redo_file=None if transaction.file is None else transaction.file.number,
    )


def decided_view(xid: XATransactionId, outcome: Heuristic) -> TransactionView:
    """The view of a transaction whose outcome was decided by hand."""
    return TransactionView(str(xid), "xa", f"heuristically {OUTCOME_WORDS[outcome]}")
