"""
What an administrator can know of the transactions of a broker, and do to them.

An outcome is decided by hand only for an XA transaction that is prepared: its transaction manager
has promised to end it, and may never come back. The decision is journaled like that of a client,
then remembered in ``heuristic.log``, so that the manager is told when it does come back.

Source: ``TransactionalCommandProcessorMBean``, ``JournalTransactionStoreMBean``; sections 11 and 13
of the specification of transactions.

Differs: what can be done to no transaction is an error; the original does nothing and reports
success. ``complete`` is journaled as a rollback, so that the next start does not undo it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from metamorphosis.wire.transactionids import TransactionId, XATransactionId, parse_transaction_id

if TYPE_CHECKING:
    from metamorphosis.transactions.service import TransactionService

STATES = ("open", "prepared", "heuristic")
"""What ``transactions`` can be asked for; open ones are neither prepared nor decided by hand."""

_End = Callable[[Transaction], Written | None]

_WORDS = {
    Heuristic.COMMITTED: "committed",
    Heuristic.ROLLED_BACK: "rolled back",
    Heuristic.COMPLETED: "completed",
}


class UnknownTransaction(MetaQError):
    """There is none of this key."""


class NotPrepared(MetaQError):
    """Its outcome cannot be decided by hand: its client still works with it."""


class AlreadyDecided(MetaQError):
    """Its outcome was decided by hand before."""


class NotDecided(MetaQError):
    """Its outcome was not decided by hand, so there is nothing to forget."""


@dataclass(frozen=True, slots=True)
class TransactionView:
    """
    One transaction at the time of the question.

    :ivar kind: ``xa`` or ``local``.
    :ivar state: ``started``, ``in use``, ``prepared``, ``ending``; or, if it was decided by hand,
        ``heuristically committed``, ``... rolled back`` or ``... completed``.
    :ivar age_seconds: since its BEGIN; since the broker's start if it was recovered.
    :ivar recovered: it was prepared before the broker started.
    :ivar bytes: memory that it takes.
    :ivar partitions: ``<topic>-<number>`` of each that has messages of it.
    :ivar timeout_seconds: after which it is rolled back; None: never.
    :ivar redo_file: number of the file that has its records; None: there are none.
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
    The journal at the time of the question.

    :ivar flush_mode: ``flushTxLogAtCommit``.
    :ivar files: oldest first.
    :ivar open: transactions that are neither prepared nor decided by hand.
    :ivar heuristic: outcomes decided by hand that are not forgotten.
    :ivar bytes: memory that open and prepared transactions take.
    :ivar max_bytes: how much they may (``max-transaction-bytes``).
    :ivar forces: ``fdatasync`` calls since the start.
    :ivar writes: since the start.
    :ivar broken: why nothing more is taken; None while all is well.
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


class TransactionAdministration:
    """
    Thread: reactor.

    :param service: has started.
    """

    _log = Logger()

    def __init__(self, service: TransactionService, clock: IReactorTime) -> None:
        self._service = service
        self._transactions = service.transactions
        self._clock = clock

    # What can be known

    def transactions(self, state: str | None = None) -> list[TransactionView]:
        """
        XA transactions in the order of their BEGIN, local ones, then what was decided by hand.

        :param state: one of ``STATES``; None: all.
        :raises InvalidArgument: another state.
        """
        if state not in (None, *STATES):
            raise InvalidArgument(f"state: {state!r} is none of {', '.join(STATES)}")
        return [view for group, view in self._views() if state in (None, group)]

    def _views(self) -> Iterator[tuple[str, TransactionView]]:
        for transaction in self._transactions.open:
            group = "prepared" if transaction.state is State.PREPARED else "open"
            yield group, self._view(transaction)
        for xid, outcome in self._transactions.heuristic.items():
            yield "heuristic", _decided(xid, outcome)

    def transaction(self, key: str) -> TransactionView:
        """
        One of them; of an xid that was used again after its outcome was decided by hand the new
        one.

        :raises UnknownTransaction: there is none.
        :raises InvalidArgument: it is no key.
        """
        transaction_id = _id(key)
        found = self._find(transaction_id)
        if found is not None:
            return self._view(found)
        if not isinstance(transaction_id, XATransactionId):
            raise UnknownTransaction(f"There is no transaction {key}")
        xid = transaction_id
        outcome = self._transactions.heuristic.get(xid)
        if outcome is None:
            raise UnknownTransaction(f"There is no transaction {key}")
        return _decided(xid, outcome)

    def _find(self, transaction_id: TransactionId) -> Transaction | None:
        """The open one; of local ones with the same key on several connections any."""
        every = self._transactions.open
        return next((each for each in every if each.id == transaction_id), None)

    def _view(self, transaction: Transaction) -> TransactionView:
        prepared = transaction.state is State.PREPARED
        return TransactionView(
            key=transaction.key,
            kind="xa" if transaction.is_xa else "local",
            state=_STATES[transaction.state],
            age_seconds=round(max(self._clock.seconds() - transaction.began, 0), 3),
            recovered=transaction.recovered,
            messages=len(transaction.records),
            bytes=transaction.bytes,
            partitions=tuple(f"{topic}-{number}" for topic, number in transaction.partitions),
            timeout_seconds=None if prepared else transaction.timeout or None,
            redo_file=None if transaction.file is None else transaction.file.number,
        )

    def journal(self) -> JournalView:
        """The redo files, and how many transactions there are."""
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
            max_bytes=self._transactions.max_bytes,
            forces=journal.forces,
            writes=journal.writes,
            broken=None if journal.broken is None else str(journal.broken),
        )

    # What can be done

    async def commit(self, key: str) -> TransactionView:
        """
        Store the messages of a prepared transaction.

        :returns: when they are stored, and the outcome is remembered.
        :raises UnknownTransaction: there is none.
        :raises NotPrepared: it is not prepared.
        :raises AlreadyDecided: its outcome was decided before.
        :raises InvalidArgument: it is no key of an XA transaction.
        :raises JournalError: the decision cannot be written down, and the transaction is prepared
            as before; or it was written down and cannot be remembered: the text says which.
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
        The same, and its manager is told that the outcome is not known: for messages that were
        brought elsewhere by other means. See ``commit``.
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
            raise NotPrepared(f"Transaction {key} is not prepared, it is {_STATES[found.state]}")
        outcome = self._transactions.heuristic.get(_xid(key))
        if outcome is not None:
            raise AlreadyDecided(f"Transaction {key} was heuristically {_WORDS[outcome]} before")
        raise UnknownTransaction(f"There is no transaction {key}")

    async def _decide(
        self, transaction: Transaction, end: _End, outcome: Heuristic
    ) -> TransactionView:
        xid = transaction.id
        assert isinstance(xid, XATransactionId)  # only those are prepared
        try:
            await _outcome(end(transaction))
        except BrokerError as error:
            raise JournalError(str(error).partition(",msg=")[2] or str(error)) from error
        self._log.warn(
            "Transaction {key} was {outcome} by hand", key=transaction.key, outcome=_WORDS[outcome]
        )
        heuristic = self._transactions.heuristic
        heuristic.pop(xid, None)  # its last outcome is that of this key
        heuristic[xid] = outcome
        try:
            await self._service.outcomes.write(heuristic)
        except JournalError as error:
            done = f"Transaction {transaction.key} was {_WORDS[outcome]}"
            raise JournalError(f"{done}, but the next start will not know why: {error}") from error
        return _decided(xid, outcome)

    async def forget(self, key: str) -> None:
        """
        Do not remember any more that an outcome was decided by hand.

        :raises NotDecided: the outcome of this transaction was not.
        :raises UnknownTransaction: there is none.
        :raises InvalidArgument: it is no key of an XA transaction.
        :raises JournalError: the next start will remember it again.
        """
        xid = _xid(key)
        if self._transactions.heuristic.pop(xid, None) is None:
            if self._find(xid) is not None:
                raise NotDecided(f"The outcome of transaction {key} was not decided by hand")
            raise UnknownTransaction(f"There is no transaction {key}")
        self._log.info("Transaction {key} was forgotten by hand", key=key)
        await self._service.outcomes.write(self._transactions.heuristic)

    def checkpoint(self) -> bool:
        """
        Begin a new redo file and delete the old one, if no transaction needs it.

        :returns: whether it was done.
        :raises JournalError: the new file cannot be made.
        """
        return self._service.journal.roll_if_finished()


_STATES = {
    State.START: "started",
    State.IN_USE: "in use",
    State.PREPARED: "prepared",
    State.ENDING: "ending",
    State.FINISHED: "finished",
}


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


def _decided(xid: XATransactionId, outcome: Heuristic) -> TransactionView:
    return TransactionView(str(xid), "xa", f"heuristically {_WORDS[outcome]}")


def _outcome(awaited: Written | None) -> Deferred[None]:
    """Fires when it is decided; with a ``JournalError`` if it has failed."""
    done: Deferred[None] = Deferred()

    def decided() -> None:
        if awaited is None or awaited.state is STORED:
            done.callback(None)
        else:
            text = f"The transaction stays prepared, because the journal fails: {awaited.error}"
            done.errback(JournalError(text))

    if awaited is None or awaited.state is not PENDING:
        decided()
    else:
        awaited.waiters.append(decided)
    return done
