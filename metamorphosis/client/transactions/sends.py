"""``send`` and ``send_many`` of a transaction: the same for local ones and branches of XA."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any

from metamorphosis.client.checks import require
from metamorphosis.client.model import OutgoingMessage, Partition, SendResult
from metamorphosis.client.producer.many import MessageList, Outcomes
from metamorphosis.client.producer.puts import Put, too_large
from metamorphosis.client.transactions.enlisted import Enlisted
from metamorphosis.errors import InvalidMessage

if TYPE_CHECKING:
    from metamorphosis.client.session import Session


class Sends(ABC):
    """
    Takes messages and gives them to ``_enlist``. Thread: the loop's.

    :param send_timeout: seconds for the answer to a message, unless its sender gives another.
    """

    def __init__(self, session: Session, send_timeout: float) -> None:
        self._runtime = session.runtime
        self._api = session.runtime.api
        self._send_timeout = send_timeout
        self._most_bytes = session.config.max_body_bytes

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Awaitable[SendResult]:
        """
        Put a message into the transaction; ``partition`` and ``key`` choose from the partitions of
        the transaction's broker, the other arguments are those of a producer's ``send``.

        Costs one request; the broker keeps the message in memory until the end of the transaction.

        :returns: id and partition; the offset is -1, as it is not known before the commit.
        :raises TransactionLost: the transaction is gone.
        :raises TransactionFailed: an earlier message failed; of XA: ``XAError``.
        :raises InvalidState: the transaction has ended, or no branch is started.
        """
        future: Awaitable[SendResult] = self._api.create_future()
        try:
            limit = self._send_timeout if timeout is None else timeout
            require("topic", topic, InvalidMessage)
            message = OutgoingMessage(topic, data, attribute, key)
            owner: Any = self._enlisted()
            put = Put(owner, message, partition, limit, future, None)
            if len(put.body) > self._most_bytes:
                raise too_large(topic, len(put.body), self._most_bytes)
            self._enlist(put)
        except Exception as error:
            self._refused(error)
            self._api.reject(future, error)
        return future

    def send_many(
        self,
        messages: Iterable[OutgoingMessage],
        *,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Awaitable[list[SendResult]]:
        """
        Put many messages into the transaction, with one result for all, in their order. Otherwise
        as ``send``.

        Costs a request for each message, and less than as many calls of ``send``.

        :returns: as of ``send``, one for each message.
        :raises MessagesFailed: one failed, and with it the transaction; the ``outcomes`` say why.
        :raises InvalidMessage: one of them is wrong: none was sent, and the transaction has failed.
        """
        outcomes = Outcomes(self._runtime)
        try:
            limit = self._send_timeout if timeout is None else timeout
            owner: Any = self._enlisted()
            some = MessageList(owner, messages, partition, limit, self._most_bytes)
        except Exception as error:
            self._refused(error)
            outcomes.refuse(error)
        else:
            outcomes.expect(len(some.messages))
            outcomes.take(some, 0, self._enlist, self._refused)
        return outcomes.future

    @abstractmethod
    def _enlisted(self) -> Enlisted | None:
        """Where messages go at present; None: nowhere, and ``_enlist`` says why."""

    @abstractmethod
    def _enlist(self, put: Put) -> None:
        """
        Send a message as soon as it is its turn.

        :raises MetaQError: that is not possible.
        """

    @abstractmethod
    def _refused(self, error: Exception) -> None:
        """A message was not enlisted."""
