"""
The reports and actions of an administrator for the transactions of a broker.

An outcome is decided by hand only for a prepared XA transaction: its transaction manager must end
it, but may never return. The decision is journaled like that of a client, then recorded in
``heuristic.log``, so that the manager gets it when it returns.

Source: ``TransactionalCommandProcessorMBean``, ``JournalTransactionStoreMBean``; sections 11 and 13
of the specification of transactions.

Differs: an action that applies to no transaction is an error; the original does nothing and reports
success. ``complete`` is journaled as a rollback, so that the next start does not undo it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from metamorphosis.errors import (
    BrokerError,
    InvalidArgument,
    JournalError,
    MetaQError,
    ProtocolError,
)
from metamorphosis.store.batch import PENDING, STORED
from metamorphosis.transactions.heuristiclog import Heuristic
from metamorphosis.transactions.redofile import Written
from metamorphosis.transactions.transaction import State, Transaction
from metamorphosis.transactions.views import (
    OUTCOME_WORDS,
    STATE_WORDS,
    JournalView,
    RedoFileView,
    TransactionView,
    decided_view,
    view_of,
)
from metamorphosis.wire.transactionids import TransactionId, XATransactionId, parse_transaction_id

if TYPE_CHECKING:
    from metamorphosis.transactions.service import TransactionService

STATES = ("open", "prepared", "heuristic")
"""The selections of ``transactions``; open ones are neither prepared nor decided by hand."""

_End = Callable[[Transaction], Written | None]


class UnknownTransaction(MetaQError):
    """There is no transaction with this key."""


class NotPrepared(MetaQError):
    """Its outcome cannot be decided by hand: its client still works with it."""


class AlreadyDecided(MetaQError):
    """Its outcome was decided by hand before."""


class NotDecided(MetaQError):
    """Its outcome was not decided by hand, so there is nothing to forget."""


class TransactionAdministration:
    """
    Reports and actions of one broker. Thread: reactor.

    :param service: must have started.
    """

    _log = Logger()

    def __init__(self, service: TransactionService, clock: IReactorTime) -> None:
        self._service = service
        self._transactions = service.transactions
        self._clock = clock

    # Reports

    def transactions(self, state: str | None = None) -> list[TransactionView]:
        """
        XA transactions in the order of their BEGIN, local ones, then those decided by hand.

        :param state: one of ``STATES``; None: all.
        :raises InvalidArgument: another state.
        """
        if state not in (None, *STATES):
            raise InvalidArgument(f"state: {state!r} is none of {', '.join(STATES)}")
        return [view for group, view in self._views() if state in (None, group)]

    def _views(self) -> Iterator[tuple[str, TransactionView]]:
        for transaction in self._transactions.open:
            group = "prepared" if transaction.state is State.PREPARED else "open"
            yield group, view_of(transaction, self._clock.seconds())
        for xid, outcome in self._transactions.heuristic.items():
            yield "heuristic", decided_view(xid, outcome)

    def transaction(self, key: str) -> TransactionView:
        """
        One transaction; the new one if its xid was used again after a decision by hand.

        :raises UnknownTransaction: there is none.
        :raises InvalidArgument: ``key`` is not a key.
        """
        transaction_id = _id(key)
        found = self._find(transaction_id)
        if found is not None:
            return view_of(found, self._clock.seconds())
        if not isinstance(transaction_id, XATransactionId):
            raise UnknownTransaction(f"There is no transaction {key}")
        xid = transaction_id
        outcome = self._transactions.heuristic.get(xid)
        if outcome is None:
            raise UnknownTransaction(f"There is no transaction {key}")
        return decided_view(xid, outcome)

    def _find(self, transaction_id: TransactionId) -> Transaction | None:
        """The open transaction of a key; any one of local ones with the same key on several
        connections."""
        every = self._transactions.open
        return next((each for each in every if each.id == transaction_id), None)

    def journal(self) -> JournalView:
        """The redo files, and the numbers of transactions."""
        journal = self._service.journal
        every = list(self._transactions.open)
        prepared = sum(each.state is State.PREPARED for each in every)
        return JournalView(
            directory=journal.directory,
            flush_mode=journal.mode.value,
            files=tuple(
                RedoFileView(file.number, file.size, file.references) for file in journal.files
            ),
            open=len(every) - prepared,
            prepared=prepared,
            heuristic=len(self._transactions.heuristic),
            bytes=self._transactions.open.bytes,
            max_bytes=self._transactions.intake.max_bytes,
            forces=journal.forces,
            writes=journal.writes,
            broken=None if journal.broken is None else str(journal.broken),
        )

    # Actions

    async def commit(self, key: str) -> TransactionView:
        """
        Store the messages of a prepared transaction.

        :returns: after they are stored and the outcome is recorded.
        :raises UnknownTransaction: there is none.
        :raises NotPrepared: it is not prepared.
        :raises AlreadyDecided: its outcome was decided before.
        :raises InvalidArgument: ``key`` is not the key of an XA transaction.
        :raises JournalError: the decision cannot be journaled, and the transaction is still
            prepared; or it was journaled, but cannot be recorded in ``heuristic.log``: the text
            tells which.
        """
        transaction = self._prepared(key)
        return await self._decide(
            transaction, self._transactions.endings.commit, Heuristic.COMMITTED
        )

    async def roll_back(self, key: str) -> TransactionView:
        """Drop the messages of a prepared transaction; see ``commit``."""
        return await self._drop(key, Heuristic.ROLLED_BACK)

    async def complete(self, key: str) -> TransactionView:
        """
        Drop the messages, and report the outcome to its manager as unknown: for messages that were
        stored elsewhere by other means. See ``commit``.
        """
        return await self._drop(key, Heuristic.COMPLETED)

    async def _drop(self, key: str, outcome: Heuristic) -> TransactionView:
        transaction = self._prepared(key)
        return await self._decide(transaction, self._transactions.endings.roll_back, outcome)

    def _prepared(self, key: str) -> Transaction:
        """The transaction, if its outcome may be decided by hand."""
        found = self._find(_id(key))
        if found is not None:
            if found.state is State.PREPARED:
                return found
            raise NotPrepared(
                f"Transaction {key} is not prepared, it is {STATE_WORDS[found.state]}"
            )
        outcome = self._transactions.heuristic.get(_xid(key))
        if outcome is not None:
            raise AlreadyDecided(
                f"Transaction {key} was heuristically {OUTCOME_WORDS[outcome]} before"
            )
        raise UnknownTransaction(f"There is no transaction {key}")

    async def _decide(
        self, transaction: Transaction, end: _End, outcome: Heuristic
    ) -> TransactionView:
        xid = transaction.id
        assert isinstance(xid, XATransactionId)  # only those are prepared
        try:
            await _outcome(end(transaction), "The transaction stays prepared")
        except BrokerError as error:
            raise JournalError(str(error).partition(",msg=")[2] or str(error)) from error
        self._log.warn(
            "Transaction {key} was {outcome} by hand",
            key=transaction.key,
            outcome=OUTCOME_WORDS[outcome],
        )
        heuristic = self._transactions.heuristic
        heuristic.pop(xid, None)  # the newest outcome of a key replaces an earlier one
        heuristic[xid] = outcome
        try:
            await self._service.outcomes.write(heuristic)
        except JournalError as error:
            done = f"Transaction {transaction.key} was {OUTCOME_WORDS[outcome]}"
            raise JournalError(f"{done}, but the next start will not know why: {error}") from error
        return decided_view(xid, outcome)

    async def forget(self, key: str) -> None:
        """
        Delete the record of an outcome that was decided by hand.

        :raises NotDecided: the outcome of this transaction was not decided by hand.
        :raises UnknownTransaction: there is none.
        :raises InvalidArgument: ``key`` is not the key of an XA transaction.
        :raises JournalError: the deletion cannot be written, and the record stays.
        """
        xid = _xid(key)
        forgotten = self._transactions.forget(xid)
        if forgotten is None:
            if self._find(xid) is not None:
                raise NotDecided(f"The outcome of transaction {key} was not decided by hand")
            raise UnknownTransaction(f"There is no transaction {key}")
        await _outcome(forgotten, "The outcome stays remembered")
        self._log.info("Transaction {key} was forgotten by hand", key=key)

    def checkpoint(self) -> bool:
        """
        Start a new redo file and delete the old one, if no transaction needs it.

        :returns: whether it was done.
        :raises JournalError: the new file cannot be made.
        """
        return self._service.journal.roll_if_finished()


def _id(key: str) -> TransactionId:
    try:
        return parse_transaction_id(key)
    except ProtocolError as error:
        raise InvalidArgument(f"{key!r} is not the key of a transaction: {error}") from error


def _xid(key: str) -> XATransactionId:
    xid = _id(key)
    if not isinstance(xid, XATransactionId):
        raise UnknownTransaction(f"There is no XA transaction {key}")
    return xid


def _outcome(awaited: Written | None, otherwise: str) -> Deferred[None]:
    """
    Fires when the outcome is known; with a ``JournalError`` if it is a failure.

    :param otherwise: the state after a failure, for the text.
    """
    done: Deferred[None] = Deferred()

    def decided() -> None:
        if awaited is None or awaited.state is STORED:
            done.callback(None)
        else:
            text = f"{otherwise}, because the journal fails: {awaited.error}"
            done.errback(JournalError(text))

    if awaited is None or awaited.state is not PENDING:
        decided()
    else:
        awaited.waiters.append(decided)
    return done
