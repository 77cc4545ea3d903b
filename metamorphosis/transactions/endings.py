"""
How transactions end: committed, rolled back, timed out, or with the connection they belong to.

Differs: a commit for which the disk has no room is refused before it is recorded.

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
    Thread: reactor.

    :ivar open_store: the store of a partition, made if it is new; raises ``StoreError``. The
        broker replaces it by one that also announces a new partition.
    :param on_lost: a commit is recorded and cannot be stored: the broker must stop.
    :param capacity: timeouts at the same time.
    :ivar timeouts: of those that are neither prepared nor finished.
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
        self._commits: dict[Commit, int] = {}  # under way: how much they store

    def commit(self, transaction: Transaction) -> Commit | None:
        """
        Commit one that may be committed; None: it had no messages.

        :raises BrokerError: it cannot be committed; the transaction is as it was.
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
        Roll back one that may be rolled back; None: nothing of it stands in the journal.

        :raises BrokerError: it cannot be rolled back; the transaction is as it was.
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
        """The outcome of a transaction is written, or it is as it was."""
        recorded = outcome.state is STORED
        if recorded or transaction.abandoned:
            self.finish(transaction, recorded)

    def give_up(self, transaction: Transaction) -> None:
        """
        Roll back one with which nobody can go on. If that cannot be written down the next start
        does it again; an end that is under way has its way if it can.
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
        """Its time is over."""
        if transaction.state in (State.ENDING, State.PREPARED):
            transaction.timeout = 1  # looked at again, in case its end or its prepare fails
            self.timeouts.arm(transaction)
        else:
            self._log.info("Rolling back {key}: its timeout is over", key=transaction.key)
            self.give_up(transaction)

    def finish(self, transaction: Transaction, recorded: bool = True) -> None:
        """
        It is in no table any more.

        :param recorded: its outcome stands in the journal, or nothing of it does.
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
        """The journal is broken: commits stay undecided, and no store waits for them."""
        for commit in tuple(self._commits):
            commit.abandon(error)
