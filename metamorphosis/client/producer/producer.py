"""
The producer: messages go out as they are sent, any number of them under way at once.

Each message is one request of its broker's connection, which writes all requests of a turn at once;
there is neither a coroutine nor a timer per message. What is under way is bounded by
``max_outstanding_bytes``; further messages wait their turn, in order, and so do their futures.

Attempts. Errors that say ``retriable`` lead to another attempt after a growing pause, until
``delivery_timeout_ms`` (two minutes) are over, or the ``retries`` that were asked for are used up;
0 makes it one attempt. Where ``outcome_known`` is false the message may be stored twice.

``in_order``: the log of a partition has the messages in the order of the calls, whatever fails; see
``lanes``. Without it retries may overtake each other, and a Java broker stores pipelined messages
in any order. While no partition can be chosen for a message, the later messages wait for it.

Source: ``SimpleMessageProducer``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING

from metamorphosis.client.checked import checked
from metamorphosis.client.checks import require
from metamorphosis.client.model import OutgoingMessage, Partition, SendResult
from metamorphosis.client.producer.many import MessageList, Outcomes
from metamorphosis.client.producer.publisher import Publisher
from metamorphosis.client.producer.puts import OVERHEAD_BYTES, Callback, Put, too_large
from metamorphosis.client.producer.sending import Sending
from metamorphosis.client.topics.selectors import RoundRobinSelector, Selector
from metamorphosis.client.transactions.local import LocalTransactions, Transaction

if TYPE_CHECKING:
    from metamorphosis.client.session import Session

_new = tuple.__new__


class Producer(Publisher):
    """
    Sends messages. Made by the session factory. Thread: the loop's.

    :param selector: chooses the partition of a message; round robin unless given.
    :param retries: at most so many attempts after the first; None: as many as
        ``delivery_timeout_ms`` has time for.
    :param in_order: see the module.
    :param max_outstanding_bytes: of messages under way, with ``puts.OVERHEAD_BYTES`` for each.
    """

    def __init__(
        self,
        session: Session,
        selector: Selector | None = None,
        *,
        retries: int | None = None,
        in_order: bool = False,
        max_outstanding_bytes: int = 64 << 20,
    ) -> None:
        super().__init__(session)
        self._create_future = self._api.create_future
        self._selector = RoundRobinSelector() if selector is None else selector
        self._sending = Sending(
            session.runtime,
            session.log,
            session.directory,
            self._selector,
            retries,
            session.config.delivery_timeout_ms / 1000,
            in_order,
            max_outstanding_bytes,
        )
        self._submit = self._sending.submit
        self._most_cost = session.config.max_body_bytes + OVERHEAD_BYTES
        self._transactions: LocalTransactions | None = None
        self._in_order = in_order

    # -- sending

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
        Send a message. Where the result is a future, nothing is raised here, and cancelling it does
        not take the message back.

        Costs one request of ``len(data)`` and some 60 bytes, more after a failure: attempts follow
        until ``delivery_timeout_ms`` or ``retries`` are used up. It waits behind
        ``max_outstanding_bytes``.

        :param attribute: is sent and stored with the message; brokers filter by it.
        :param key: messages with the same key go to the same partition.
        :param partition: the message goes exactly there.
        :param timeout: seconds for the answer to each attempt; ``send_timeout_ms`` unless given.
        :returns: where the broker has stored it.
        :raises InvalidMessage: blank topic, data that are no bytes.
        :raises MessageTooLarge: longer than ``max_body_bytes``.
        :raises NoPartition: no broker takes messages of the topic at present.
        :raises BrokerError: the broker refused it.
        :raises SendTimeout: no answer; it may have been stored.
        :raises NotConnected: it was not sent.
        :raises ConnectionLost: it may have been stored.
        :raises ClientClosed: after ``close``.
        """
        future: Awaitable[SendResult] = self._create_future()
        try:
            if self._closed:
                self._check_open()
            message = _new(OutgoingMessage, (topic, data, attribute, key))
            limit = self._timeout if timeout is None else timeout
            put = Put(self._sending, message, partition, limit, future, None)
            if put.cost > self._most_cost:
                raise too_large(topic, len(put.body), self._most_cost - OVERHEAD_BYTES)
            self._submit(put)
        except Exception as error:
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
        Send many messages, with one result for all, in their order. Where it is a future, nothing
        is raised here, and cancelling it does not take the messages back.

        All of them are checked first: if one is wrong none is sent. Then each is as if it had been
        given to ``send``: partition, further attempts, time limits, order, memory. The result comes
        when the last one has met its fate.

        Costs about a third of as many awaited calls of ``send``: 3 us of the processor a message
        of 1 KiB; more with ``in_order``, where each is sent by itself. Lists of 100 to 10,000
        messages serve best: the loop does nothing else while one is taken in.

        :param messages: are taken in at once, an iterator as well.
        :param partition: all of them go exactly there.
        :param timeout: seconds for the answer to each attempt; ``send_timeout_ms`` unless given.
        :returns: where the brokers have stored them.
        :raises MessagesFailed: not all of them were stored; its ``outcomes`` says which, and why.
        :raises InvalidMessage: one of them is wrong; nothing was sent.
        :raises MessageTooLarge: longer than ``max_body_bytes``; nothing was sent.
        :raises ClientClosed: after ``close``; nothing was sent.
        """
        outcomes = Outcomes(self._runtime)
        try:
            self._check_open()
            limit = self._timeout if timeout is None else timeout
            most = self._most_cost - OVERHEAD_BYTES
            some = MessageList(self._sending, messages, partition, limit, most)
        except Exception as error:
            outcomes.refuse(error)
        else:
            self._sending.submit_all(some, outcomes)
        return outcomes.future

    def send_with_callback(
        self,
        callback: Callback,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> None:
        """
        Send a message and call ``callback(result, error)`` when its fate is known, one of them
        None; never from within this call. Otherwise as ``send``.

        Costs what ``send`` costs, without a future.

        :raises InvalidArgument: ``callback`` cannot be called; all other errors are given to it.
        """
        require("callback", callback)
        try:
            if self._closed:
                self._check_open()
            message = OutgoingMessage(topic, data, attribute, key)
            limit = self._timeout if timeout is None else timeout
            put = Put(self._sending, message, partition, limit, None, callback)
            if put.cost > self._most_cost:
                raise too_large(topic, len(put.body), self._most_cost - OVERHEAD_BYTES)
            self._submit(put)
        except Exception as error:
            self._runtime.call_soon(callback, None, error)

    @property
    def is_full(self) -> bool:
        """A message sent now would wait for others to be answered."""
        return self._sending.is_full

    def ready(self) -> Awaitable[bool]:
        """
        Wait until the producer is not full; for programs that do not await their sends.

        Costs the wait alone.

        :returns: True; False when the producer was closed meanwhile. Raises nothing.
        """
        return self._sending.ready()

    @checked()
    def transaction(
        self, lifetime: int | None = None, *, target: str | None = None, timeout: float = 5.0
    ) -> Transaction:
        """
        A new local transaction, whose messages become visible together or not at all::

            async with producer.transaction() as transaction:
                await transaction.send("orders", b"...")

        Costs nothing before its first message; then a request to begin and one to commit or roll
        back.

        :param lifetime: seconds after which the broker rolls it back, as far as the broker's
            ``maxTxTimeoutInSeconds`` allows; None: it has no limit.
        :param target: its broker; None: the one that has the first message's partition.
        :param timeout: seconds for the answers to begin, commit and rollback.
        :returns: the transaction.
        :raises InvalidArgument: an argument is wrong.
        :raises ClientClosed: after ``close``.
        """
        self._check_open()
        if self._transactions is None:
            self._transactions = LocalTransactions(
                self._session, self._selector, self._in_order, self._timeout
            )
        return self._transactions.new(lifetime, target, timeout)

    async def _end(self) -> None:
        """Nothing is tried again; open transactions are rolled back."""
        if self._transactions is not None:
            await self._transactions.close()
        await self._sending.end()
