"""
The producer: messages go out as they are sent, any number of them under way at once.

Each message is one request of its broker's connection, which writes all requests of a turn at once;
there is neither a coroutine nor a timer per message. What is under way is bounded by
``max_outstanding_bytes``; further messages wait their turn, in order, and so do their futures.

Attempts. One, unless ``retries`` are asked for; then errors that say ``retriable`` lead to another
attempt after a growing pause. Where ``outcome_known`` is false the message may be stored twice.

``in_order``: of each partition one message is under way at a time and the next one waits for its
fate, so that the log has them in the order of the calls whatever fails. Without it retries may
overtake each other, and a Java broker stores pipelined messages in any order. A message that no
partition could be chosen for is not tried again in this mode.

Source: ``SimpleMessageProducer``.

Differs: retries. Differs: no thread is bound, transactions are not there yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from metamorphosis.client.model import OutgoingMessage, Partition
from metamorphosis.client.puts import Callback, Put
from metamorphosis.client.selectors import RoundRobinSelector, Selector
from metamorphosis.client.sending import Sending
from metamorphosis.errors import ClientClosed, InvalidArgument

if TYPE_CHECKING:
    from metamorphosis.client.session import SessionFactory


class Producer:
    """
    Sends messages. Made by the session factory. Thread: the loop's.

    :param selector: chooses the partition of a message; round robin unless given.
    :param retries: further attempts after the first.
    :param in_order: see the module.
    :param max_outstanding_bytes: of messages under way, with ``puts.OVERHEAD_BYTES`` for each.
    """

    def __init__(
        self,
        session: SessionFactory,
        selector: Selector | None = None,
        *,
        retries: int = 0,
        in_order: bool = False,
        max_outstanding_bytes: int = 64 << 20,
    ) -> None:
        if retries < 0:
            raise InvalidArgument(f"retries is {retries}; 0 or more expected")
        if max_outstanding_bytes < 1:
            raise InvalidArgument(
                f"max_outstanding_bytes is {max_outstanding_bytes}; 1 or more expected"
            )
        self._session = session
        self._runtime = session.runtime
        self._api = session.runtime.api
        self._create_future = self._api.create_future
        self._directory = session.directory
        self._sending = Sending(
            session.runtime,
            session.log,
            session.directory,
            RoundRobinSelector() if selector is None else selector,
            retries,
            in_order,
            max_outstanding_bytes,
        )
        self._submit = self._sending.submit
        self._timeout = session.config.send_timeout_ms / 1000
        self._published: set[str] = set()
        self._closed = False
        session.add_child(self)

    # -- topics

    def publish(self, topic: str) -> Any:
        """
        Announce that messages of the topic will be sent. A future that fires when its partitions
        are known and its brokers connected, or given up on for now.

        :raises InvalidArgument: no name of a topic.
        :raises NotConnected: ZooKeeper does not answer; sends work as soon as it does.
        """
        return self._runtime.start(self._publish(topic, self._directory.publish))

    def set_default_topic(self, topic: str) -> Any:
        """
        Publish a topic whose partitions also take the messages of all topics that nobody in this
        factory has published. A future, as of ``publish``.

        :raises InvalidState: the factory has another default topic.
        """
        return self._runtime.start(self._publish(topic, self._directory.set_default_topic))

    async def _publish(self, topic: str, publish: Callable[[str, object], Any]) -> None:
        if self._closed:
            raise ClientClosed("Producer has been shutdown")
        self._published.add(topic)
        await publish(topic, self)

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
    ) -> Any:
        """
        Send a message: a future of its ``SendResult``. Nothing is raised here.

        :param attribute: travels with the message; brokers filter by it.
        :param key: messages with the same key go to the same partition.
        :param partition: goes exactly there.
        :param timeout: seconds for the answer to each attempt; ``send_timeout_ms`` unless given.
        :raises InvalidMessage: by the future, as all others: blank topic, data that are no bytes.
        :raises NoPartition: nobody takes messages of the topic at present.
        :raises BrokerError: the broker refused it.
        :raises SendTimeout: no answer; it may have been stored.
        :raises NotConnected: it was not sent.
        :raises ConnectionLost: it may have been stored.
        """
        future = self._create_future()
        try:
            if self._closed:
                raise ClientClosed("Producer has been shutdown")
            message = OutgoingMessage(topic, data, attribute, key)
            limit = self._timeout if timeout is None else timeout
            self._submit(Put(self._sending, message, partition, limit, future, None))
        except Exception as error:
            self._api.reject(future, error)
        return future

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
        """
        try:
            if self._closed:
                raise ClientClosed("Producer has been shutdown")
            message = OutgoingMessage(topic, data, attribute, key)
            limit = self._timeout if timeout is None else timeout
            self._submit(Put(self._sending, message, partition, limit, None, callback))
        except Exception as error:
            self._runtime.call_soon(callback, None, error)

    @property
    def is_full(self) -> bool:
        """A message sent now would wait for others to be answered."""
        return self._sending.is_full

    def ready(self) -> Any:
        """A future that fires when the producer is not full; for senders who do not await sends."""
        return self._sending.ready()

    # -- end

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self.close()

    def close(self) -> Any:
        """
        Take no more messages, wait for the fate of those under way, release the topics. A future;
        repeated calls do the same. Nothing is tried again any more.
        """
        return self._runtime.start(self._close())

    async def _close(self) -> None:
        first, self._closed = not self._closed, True
        await self._sending.end()
        if first:
            for topic in self._published:
                self._directory.release(topic, self)
            self._session.remove_child(self)
