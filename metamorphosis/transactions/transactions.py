"""
The open transactions of a broker, and the steps of a transaction.

A local transaction belongs to a connection and ends with it. An XA transaction belongs to the
broker: any connection may prepare, commit, roll back or recover it. A prepared one stays until its
outcome is known, also over the end of connections and restarts; an administrator may decide the
outcome, which is then recorded until it is forgotten.

A step returns the outcome that its reply must wait for, or ``None``. It raises the ``BrokerError``
that the peer gets.

Source: ``TransactionProcessor``, ``SessionContextImpl``, ``XATransaction``, ``LocalTransaction``;
sections 3.4, 4 and 5 of the specification of transactions.

Differs: local transactions are rolled back when their connection ends; a put after prepare is
refused; a refused BEGIN over the capacity leaves no transaction; a completion by an administrator
survives a restart, and its xid cannot be begun again before it is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import Enum
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from metamorphosis.errors import JournalError
from metamorphosis.store.batch import STORED
from metamorphosis.transactions import refusals
from metamorphosis.transactions.commit import Commit
from metamorphosis.transactions.endings import Endings
from metamorphosis.transactions.heuristiclog import Heuristic
from metamorphosis.transactions.intake import Intake
from metamorphosis.transactions.recording import Recording
from metamorphosis.transactions.records import Operation, OperationType, encode_operation
from metamorphosis.transactions.redofile import Written
from metamorphosis.transactions.tables import OpenTransactions
from metamorphosis.transactions.transaction import Partition, State, Transaction
from metamorphosis.wire.transactionids import LocalTransactionId, TransactionId, XATransactionId

if TYPE_CHECKING:
    from metamorphosis.store.messagestore import MessageStore
    from metamorphosis.transactions.outcomes import OutcomeFile
    from metamorphosis.transactions.redolog import RedoLog


class Vote(Enum):
    """The answer to a prepare; the values are those of X/Open."""

    OK = 0
    READ_ONLY = 3


class Transactions:
    """
    The transactions of one broker. Thread: reactor.

    :param open_store: returns the store of a partition, created if it is new; raises
        ``StoreError``.
    :param clock: the timers' clock.
    :param on_lost: called when a commit is recorded and cannot be stored: the broker must stop.
    :param outcomes: the file of the outcomes that administrators decided.
    :param max_timeout: seconds; longer timeouts are shortened to it; 0 or less: no limit.
    :param capacity: the most timeouts at the same time.
    :param max_bytes: limit of the memory of open transactions.
    :ivar open: the transactions that are not finished.
    :ivar intake: takes their messages.
    :ivar endings: ends them.
    :ivar heuristic: outcomes that administrators decided, oldest first.
    """

    _log = Logger()

    def __init__(
        self,
        journal: RedoLog,
        open_store: Callable[[Partition], MessageStore],
        clock: IReactorTime,
        on_lost: Callable[[Transaction, BaseException | None], None],
        outcomes: OutcomeFile,
        max_timeout: int,
        capacity: int,
        max_bytes: int,
    ) -> None:
        self.open = OpenTransactions()
        self._recording = Recording(self.open, journal)
        self.endings = Endings(
            self.open, journal, self._recording, open_store, clock, on_lost, capacity
        )
        self.heuristic: dict[XATransactionId, Heuristic] = {}
        self._clock = clock
        self._outcomes = outcomes
        self._max_timeout = max_timeout
        self.intake = Intake(self.open, self._recording, max_bytes)

    # Steps of clients

    def begin(self, owner: Hashable, transaction_id: TransactionId, timeout: int) -> None:
        """
        Begin a transaction; no effect if it was begun before.

        :param owner: the connection, whose ``lost`` ends a local transaction.
        :param timeout: seconds; 0 or less for none.
        :raises BrokerError: the key is ``null``, too many timeouts are armed, no memory is left, or
            it was completed by hand and is not forgotten: the original records that only in
            ``heuristic.log``, so a start could not distinguish it from a new one.
        """
        if not isinstance(transaction_id, LocalTransactionId | XATransactionId):
            raise refusals.no_id()
        found = self.open.get(owner, transaction_id)
        if found is not None:
            if found.state is State.ENDING:
                raise refusals.being_committed(transaction_id)
            return
        outcome = self._outcome(transaction_id)
        if outcome is Heuristic.COMPLETED:
            raise refusals.decided(transaction_id, outcome)
        if self._max_timeout > 0:
            timeout = min(timeout, self._max_timeout)
        transaction = Transaction(transaction_id, self._clock.seconds(), max(timeout, 0))
        self.intake.check_memory(transaction.bytes)
        self.endings.timeouts.arm(transaction)
        self.open.add(owner, transaction)

    def use(self, owner: Hashable, transaction_id: TransactionId) -> Transaction:
        """
        The transaction of a put, which is in use from now on even if the put is refused.

        :raises BrokerError: it was not begun, is prepared, or its outcome is decided.
        """
        transaction = self.open.usable(owner, transaction_id)
        if transaction is None:
            outcome = self._outcome(transaction_id)
            if outcome is not None:
                raise refusals.decided_in_put(transaction_id, outcome)
            raise refusals.unknown_in_put(transaction_id)
        if transaction.state is State.PREPARED:
            raise refusals.put_after_prepare(transaction_id)
        transaction.state = State.IN_USE
        return transaction

    def prepare(
        self, owner: Hashable, transaction_id: TransactionId
    ) -> tuple[Vote, Written | None]:
        """
        Prepare a transaction.

        :returns: the vote, and the force of its record. After ``READ_ONLY`` the transaction no
            longer exists.
        :raises BrokerError: it cannot be prepared.
        """
        transaction = self._known(owner, transaction_id)
        if not transaction.is_xa:
            raise refusals.local_prepare()
        if transaction.state is State.PREPARED:
            raise refusals.prepared_already()
        if transaction.state is State.START:
            self.endings.finish(transaction)
            return Vote.READ_ONLY, None
        if not transaction.records:
            self.endings.timeouts.disarm(transaction)
            transaction.state = State.PREPARED
            return Vote.OK, None
        record = encode_operation(Operation(OperationType.XA_PREPARE, transaction.key))
        try:
            prepared = self._recording.end(transaction, record)
        except JournalError as error:
            raise refusals.not_journaled(transaction.id, error) from error
        transaction.state = State.PREPARED
        prepared.waiters.append(lambda: self._prepared(transaction, prepared))
        return Vote.OK, prepared

    def _prepared(self, transaction: Transaction, prepared: Written) -> None:
        if prepared.state is STORED:
            self.endings.timeouts.disarm(transaction)
        else:
            transaction.prepare_failed()

    def commit(
        self, owner: Hashable, transaction_id: TransactionId, two_phase: bool
    ) -> Commit | None:
        """
        Commit a transaction: store its messages.

        :param two_phase: an XA transaction must be prepared; no effect for a local one.
        :raises BrokerError: it cannot be committed; the transaction is unchanged.
        """
        transaction = self._known(owner, transaction_id)
        if two_phase and transaction.is_xa and transaction.state is not State.PREPARED:
            raise refusals.not_prepared()
        return self.endings.commit(transaction)

    def roll_back(self, owner: Hashable, transaction_id: TransactionId) -> Written | None:
        """
        Roll back a transaction: drop its messages.

        :raises BrokerError: it cannot be rolled back; the transaction is unchanged.
        """
        return self.endings.roll_back(self._known(owner, transaction_id))

    def forget(self, transaction_id: TransactionId) -> Written | None:
        """
        Delete the record of an outcome that an administrator decided.

        :returns: completes when that is written; a failure keeps the record. None: there was none.
        :raises BrokerError: it is not an XA transaction.
        """
        if not isinstance(transaction_id, XATransactionId):
            raise refusals.not_an_xid(transaction_id)
        return self._outcomes.forget(self.heuristic, transaction_id)

    def recover(self, qualifier: str | None) -> list[str]:
        """
        The keys of prepared transactions, in the order of their BEGIN, then of decided ones.

        :param qualifier: only those with this unique qualifier; None for all.
        """
        prepared = [t.id for t in self.open.xa if t.state is State.PREPARED]
        return [
            str(each)
            for each in (*prepared, *self.heuristic)
            if isinstance(each, XATransactionId)
            and (qualifier is None or each.unique_qualifier == qualifier)
        ]

    def lost(self, owner: Hashable) -> None:
        """A connection has ended: roll back its local transactions."""
        for transaction in self.open.of(owner):
            self.endings.give_up(transaction)

    # Inside

    def _outcome(self, transaction_id: TransactionId) -> Heuristic | None:
        if isinstance(transaction_id, XATransactionId):
            return self.heuristic.get(transaction_id)
        return None

    def _known(self, owner: Hashable, transaction_id: TransactionId) -> Transaction:
        """
        The transaction of a step.

        :raises BrokerError: it was not begun, or its outcome is decided.
        """
        transaction = self.open.usable(owner, transaction_id)
        if transaction is not None:
            return transaction
        outcome = self._outcome(transaction_id)
        if outcome is not None:
            raise refusals.decided(transaction_id, outcome)
        raise refusals.unknown(transaction_id)

    def stop(self) -> None:
        """Stop all timeouts."""
        self.endings.timeouts.stop()
