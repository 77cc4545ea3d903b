"""
The ends of transactions: commit, rollback, timeout, or the end of their connection.

Differs: a commit for which the disk has no space is refused before it is recorded.

Source: ``TransactionProcessor``, ``XATransaction``, ``LocalTransaction``; sections 5.2 to 5.5 of
the specification of transactions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from metamorphosis.errors import BrokerError, JournalError
from metamorphosis.store.batch import STORED
from metamorphosis.transactions import refusals
from metamorphosis.transactions.commit import Commit
from metamorphosis.transactions.recording import Recording
from metamorphosis.transactions.records import Operation, OperationType, encode_operation
from metamorphosis.transactions.redofile import Written
from metamorphosis.transactions.room import Room
from metamorphosis.transactions.tables import OpenTransactions
from metamorphosis.transactions.timeouts import Timeouts
from metamorphosis.transactions.transaction import Partition, State, Transaction

if TYPE_CHECKING:
    from metamorphosis.store.messagestore import MessageStore
    from metamorphosis.transactions.redolog import RedoLog


class Endings:
    """
    Ends transactions. Thread: reactor.

    :ivar open_store: returns the store of a partition, created if it is new; raises
        ``StoreError``. The broker replaces it by one that also announces a new partition.
    :param on_lost: called when a commit is recorded and cannot be stored: the broker must stop.
    :param capacity: the most timeouts at the same time.
    :ivar timeouts: timeouts of transactions that are neither prepared nor finished.
    """

    _log = Logger()

    def __init__(
        self,
        open_transactions: OpenTransactions,
        journal: RedoLog,
        recording: Recording,
        open_store: Callable[[Partition], MessageStore],
        clock: IReactorTime,
        on_lost: Callable[[Transaction, BaseException | None], None],
        capacity: int,
    ) -> None:
        self.open_store = open_store
        self.timeouts = Timeouts(clock, capacity, self._expired)
        self._open = open_transactions
        self._journal = journal
        self._recording = recording
        self._on_lost = on_lost
        self._room = Room(clock)
        self._commits: dict[Commit, int] = {}  # commits in progress, and the bytes that they store

    def commit(self, transaction: Transaction) -> Commit | None:
        """
        Commit a transaction that may be committed; None: it had no messages.

        :raises BrokerError: it cannot be committed; the transaction is unchanged.
        """
        if not transaction.records:
            self.finish(transaction)
            return None
        commit = Commit(transaction, self._recording, self.open_store, self._on_lost)
        size = transaction.bytes  # somewhat more than it stores
        commit.begin(self._room.check, size + sum(self._commits.values()))
        self._commits[commit] = size
        commit.waiters.append(lambda: self._committed(commit))
        return commit

    def _committed(self, commit: Commit) -> None:
        del self._commits[commit]
        self._ended(commit.transaction, commit)

    def roll_back(self, transaction: Transaction) -> Written | None:
        """
        Roll back a transaction that may be rolled back; None: the journal has no record of it.

        :raises BrokerError: it cannot be rolled back; the transaction is unchanged.
        """
        if transaction.is_unwritten:
            self.finish(transaction)
            return None
        xa = transaction.is_xa
        kind = OperationType.XA_ROLLBACK if xa else OperationType.LOCAL_ROLLBACK
        record = encode_operation(Operation(kind, transaction.key))
        try:
            written = self._recording.end(transaction, record)
        except JournalError as error:
            raise refusals.not_journaled(transaction.id, error) from error
        transaction.end()
        written.waiters.append(lambda: self._rolled_back(transaction, written))
        return written

    def _rolled_back(self, transaction: Transaction, written: Written) -> None:
        if written.state is not STORED:
            transaction.end_failed()
        self._ended(transaction, written)

    def _ended(self, transaction: Transaction, outcome: Written) -> None:
        """The end of a transaction is recorded, or has failed."""
        recorded = outcome.state is STORED
        if recorded or transaction.abandoned:
            self.finish(transaction, recorded)

    def give_up(self, transaction: Transaction) -> None:
        """
        Roll back a transaction that no client can continue. If the rollback cannot be recorded, the
        next start repeats it; an end in progress is completed if possible.
        """
        transaction.abandoned = True
        if transaction.state is State.ENDING:
            return
        try:
            self.roll_back(transaction)
        except BrokerError as error:
            self._log.error("Could not roll back {key}: {error}", key=transaction.key, error=error)
            self.finish(transaction)

    def _expired(self, transaction: Transaction) -> None:
        """The timeout of a transaction is over: roll it back."""
        if transaction.state in (State.ENDING, State.PREPARED):
            transaction.timeout = 1  # checked again, in case its end or its prepare fails
            self.timeouts.arm(transaction)
        else:
            self._log.info("Rolling back {key}: its timeout is over", key=transaction.key)
            self.give_up(transaction)

    def finish(self, transaction: Transaction, recorded: bool = True) -> None:
        """
        Remove a transaction from all tables.

        :param recorded: its outcome is in the journal, or none of its records is.
        """
        transaction.state = State.FINISHED
        self.timeouts.disarm(transaction)
        self._open.remove(transaction)
        if transaction.file is not None:
            self._journal.release(transaction.file, transaction.key if recorded else None)
            transaction.file = None

    @property
    def undecided(self) -> bool:
        """Whether a commit is neither stored nor refused."""
        return bool(self._commits)

    def abandon(self, error: BaseException) -> None:
        """The journal is broken: leave commits undecided, so that no store waits for them."""
        for commit in tuple(self._commits):
            commit.abandon(error)
