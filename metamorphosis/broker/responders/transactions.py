"""
``transaction``, and ``put`` with a transaction's key.

A step is answered when its record is written, and forced where the flush mode says so; the reply
keeps its place in request order like every other.

Source: ``TransactionalCommandProcessor``, ``PutProcessor``; without a journal
``SamsaCommandProcessor``. Section 3 of the specification of transactions.

Differs: the checksum of a put in a transaction is compared, and a closed partition takes none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from metamorphosis.broker import refusals
from metamorphosis.broker.dispatch import Respond, Table, opaque_in, refusal
from metamorphosis.broker.replies import Refuse, Reply
from metamorphosis.broker.topics import ANY_PARTITION
from metamorphosis.errors import BrokerError, InternalServerError
from metamorphosis.message import checksum
from metamorphosis.transactions import refusals as steps
from metamorphosis.wire import commands as wire
from metamorphosis.wire.commands import TransactionType
from metamorphosis.wire.encoding import result
from metamorphosis.wire.transactionids import TransactionId, XATransactionId

if TYPE_CHECKING:
    from metamorphosis.broker.responders.shared import Shared
    from metamorphosis.broker.session import Session
    from metamorphosis.transactions.redofile import Written
    from metamorphosis.transactions.transactions import Transactions

UNSUPPORTED = {
    TransactionType.BEGIN: "Unsupported beginTransaction",
    TransactionType.PREPARE: "Unsupported prepareTransaction",
    TransactionType.COMMIT_ONE_PHASE: "Unsupported commitTransaction",
    TransactionType.COMMIT_TWO_PHASE: "Unsupported commitTransaction",
    TransactionType.ROLLBACK: "Unsupported rollbackTransaction",
    TransactionType.FORGET: "Unsupported forgetTransaction",
    TransactionType.RECOVER: "Unsupported getPreparedTransactions",
}


def table() -> Table:
    """The commands as a broker without a journal answers them."""
    return {wire.TransactionCommand: refuse}


def refuse(command: wire.TransactionCommand, session: Session) -> None:
    """Refuse a step; END has no reply."""
    text = UNSUPPORTED.get(command.type)
    if text is not None:
        session.replies.add(result(500, command.opaque, text))


def refuse_put(command: wire.PutCommand, session: Session) -> None:
    """
    Refuse a put in a transaction.

    Differs: the original's pair takes it for a plain put, so that a rollback undoes nothing.

    :raises BrokerError: always.
    """
    raise InternalServerError(UNSUPPORTED[TransactionType.BEGIN])


class TransactionSteps:
    """
    Answers every step of a transaction. Thread: reactor.
    """

    def __init__(self, shared: Shared, transactions: Transactions) -> None:
        self._shared = shared
        self._transactions = transactions
        self._steps: dict[TransactionType, Respond] = {
            TransactionType.BEGIN: self._begin,
            TransactionType.PREPARE: self._prepare,
            TransactionType.COMMIT_ONE_PHASE: partial(self._commit, False),
            TransactionType.COMMIT_TWO_PHASE: partial(self._commit, True),
            TransactionType.ROLLBACK: self._roll_back,
            TransactionType.FORGET: self._forget,
            TransactionType.RECOVER: self._recover,
        }

    def table(self) -> Table:
        """The commands that are answered here."""
        return {wire.TransactionCommand: self._step}

    def put(self, command: wire.PutCommand, session: Session) -> None:
        """Take one message into a transaction; the reply gives -1 for its offset, which is not
        known yet."""
        shared = self._shared
        shared.refuse_if_stopping()
        assert command.transaction_id is not None
        transaction = self._transactions.use(session, command.transaction_id)
        computed = self._check(command)
        if not shared.ids.ready:
            raise InternalServerError(refusals.NO_ID)
        # Later puts take the hot path.
        topic, partition = command.topic, command.partition
        shared.routes.places[topic.encode(), b"%d" % partition] = topic, partition
        message_id = shared.ids.take()
        written = self._transactions.intake.put(transaction, command, message_id, computed)
        reply = result(200, command.opaque, b"%d %d -1" % (message_id, command.partition))
        session.replies.add(reply, written, 0, refuse_puts(transaction.id))

    def _check(self, command: wire.PutCommand) -> int:
        """
        The checksum of the body of a put that can be stored.

        :raises BrokerError: the put cannot be stored.
        """
        rules, topic, partition = self._shared.rules, command.topic, command.partition
        if partition == ANY_PARTITION:
            raise steps.invalid_partition(partition)
        if not rules.accepts(topic):
            raise InternalServerError(refusals.topic_not_accepted(topic))
        if not 0 <= partition < rules.partition_count(topic):
            raise InternalServerError(refusals.wrong_partition(partition))
        if rules.is_closed(topic, partition):
            url, broker_id = self._shared.url, self._shared.config.broker_id
            raise refusals.put_closed(url, topic, broker_id, partition)
        computed = checksum(command.body)
        if command.checksum not in (wire.NO_CHECKSUM, computed):
            raise InternalServerError(refusals.CHECKSUM_FAILURE)
        return computed

    def _step(self, command: wire.TransactionCommand, session: Session) -> None:
        """Answer a step; END has no reply and no effect."""
        respond = self._steps.get(command.type)
        if respond is not None:
            respond(command, session)

    def _begin(self, command: wire.TransactionCommand, session: Session) -> None:
        self._shared.refuse_if_stopping()
        statistics = self._shared.statistics
        statistics.tx_begin += 1
        statistics.tx_xa_begin += isinstance(command.transaction_id, XATransactionId)
        self._transactions.begin(session, command.transaction_id, command.timeout)
        session.on_lost(self._transactions.lost)
        session.replies.add(result(200, command.opaque))

    def _prepare(self, command: wire.TransactionCommand, session: Session) -> None:
        vote, prepared = self._transactions.prepare(session, command.transaction_id)
        self._end(session, command, b"%d" % vote.value, prepared)

    def _commit(self, two_phase: bool, command: wire.TransactionCommand, session: Session) -> None:
        self._shared.statistics.tx_commit += 1
        commit = self._transactions.commit(session, command.transaction_id, two_phase)
        self._end(session, command, None, commit)

    def _roll_back(self, command: wire.TransactionCommand, session: Session) -> None:
        self._shared.statistics.tx_rollback += 1
        written = self._transactions.roll_back(session, command.transaction_id)
        self._end(session, command, None, written)

    def _forget(self, command: wire.TransactionCommand, session: Session) -> None:
        forgotten = self._transactions.forget(command.transaction_id)
        self._end(session, command, None, forgotten)

    def _recover(self, command: wire.TransactionCommand, session: Session) -> None:
        keys = self._transactions.recover(command.unique_qualifier)
        session.replies.add(result(200, command.opaque, "\r\n".join(keys)))

    def _end(
        self,
        session: Session,
        command: wire.TransactionCommand,
        text: bytes | None,
        awaited: Written | None,
    ) -> None:
        """Queue the reply to a step that changes the transaction."""
        reply = result(200, command.opaque, text)
        if awaited is None:
            session.replies.add(reply)
        else:
            error = partial(steps.not_journaled, command.transaction_id)
            session.replies.add(reply, awaited, 0, partial(_refused, error))


def _refused(
    error: Callable[[BaseException | None], BrokerError],
    awaited: Written,
    record: int,
    replies: list[Reply],
) -> list[Reply]:
    """The refusals that replace replies whose outcome is a failure."""
    text = error(awaited.error)
    return [refusal(text, opaque_in(reply)) for reply in replies]


def refuse_puts(transaction_id: TransactionId) -> Refuse:
    """The function that makes the refusals of a transaction's puts which could not be written."""
    return partial(_refused, partial(steps.not_journaled_put, transaction_id))
