"""
The session factory: the calls that create producers, consumers and browsers of a session, and those
that query brokers and ZooKeeper.

This is the core of the faces' ``MessageSessionFactory``.

Source: ``MetaMessageSessionFactory``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, Unpack

from metamorphosis.client.checked import as_future, checked
from metamorphosis.client.consumer.browser import TopicBrowser
from metamorphosis.client.consumer.consumer import Consumer
from metamorphosis.client.delivery.recovery import Recovery
from metamorphosis.client.delivery.subscription import INSIDE
from metamorphosis.client.model import Partition
from metamorphosis.client.offsets.localfile import LocalFileOffsetStore
from metamorphosis.client.producer.oneway import OneWayProducer, Policy
from metamorphosis.client.producer.ordered import OrderedProducer
from metamorphosis.client.producer.producer import Producer
from metamorphosis.client.producer.publisher import Publisher
from metamorphosis.client.session import Session
from metamorphosis.client.settings import ConsumerConfig, broadcast_config, consumer_config
from metamorphosis.client.settingtypes import ConsumerSettings
from metamorphosis.client.topics.brokerstats import BrokerStats, Stats
from metamorphosis.client.topics.selectors import Selector
from metamorphosis.client.transactions.xaproducer import XAProducer
from metamorphosis.errors import InvalidConsumerConfig, InvalidState
from metamorphosis.interfaces import OffsetStore

P = TypeVar("P", bound=Publisher)


class SessionFactory(Session):
    """
    A ``Session`` and everything that can be made of it. Thread: the loop's. One long class, because
    each call has a long text and a short body.

    The faces declare the exact results of ``create_*``, with the futures of their runtime: hence
    the ``Any``.
    """

    _recovery: Recovery | None = None

    @property
    def recovery(self) -> Recovery:
        """Messages for which listeners failed too often, shared by all consumers."""
        if self._recovery is None:
            self._recovery = Recovery(self.runtime, self.config, self.log)
            self.add_part("the kept messages", self._recovery.close)
        return self._recovery

    def close(self) -> Awaitable[None]:
        """
        End producers, consumers and browsers, then the connections and the ZooKeeper session:
        messages under way meet their fate, listeners finish, positions are stored, groups are left.
        Idempotent; cancelling a future of it does not cancel the close.

        Costs the time of what is under way: of listeners ``stop_timeout_ms`` at most.

        :raises InvalidState: a listener of one of its consumers calls it, which it would wait for;
            nothing is closed then. It raises nothing else: what fails is logged.
        """
        consumers = [each for each in self.children if isinstance(each, Consumer)]
        if any(each.calls.is_inside() for each in consumers):
            return as_future(self, InvalidState(INSIDE), {})
        closing = super().close()
        for each in consumers:
            each.calls.ends.append(closing)
        return closing

    @checked(as_future)
    def create_producer(
        self,
        topic: str | None = None,
        selector: Selector | None = None,
        *,
        retries: int | None = None,
        in_order: bool = False,
        max_outstanding_bytes: int = 64 << 20,
    ) -> Awaitable[Any]:
        """
        Make a producer, connecting first if need be, and publish ``topic`` if one is given.

        Costs a few reads of ZooKeeper for a topic that is new here, and a connection to each of its
        brokers that is not connected yet.

        :param selector: chooses partitions; None: round robin.
        :param retries: at most so many attempts after the first; None: as many as
            ``delivery_timeout_ms`` has time for.
        :param in_order: a partition has the messages in the order of the calls, whatever fails.
        :param max_outstanding_bytes: of messages under way; further ones wait.
        :returns: the producer, to be closed by you or with the factory.
        :raises NotConnected: no connection to ZooKeeper or the broker; or ZooKeeper does not
            answer.
        :raises InvalidArgument: no name of a topic, or another argument is wrong.
        :raises ClientClosed: after ``close``.
        """

        def make() -> Producer:
            return Producer(
                self,
                selector,
                retries=retries,
                in_order=in_order,
                max_outstanding_bytes=max_outstanding_bytes,
            )

        return self.runtime.start(self._published(topic, make))

    @checked(as_future)
    def create_one_way_producer(
        self,
        topic: str | None = None,
        selector: Selector | None = None,
        *,
        window: int = 0,
        policy: Policy | None = None,
    ) -> Awaitable[Any]:
        """
        Make a producer that does not wait for answers, and publish ``topic`` if one is given.

        Costs what ``create_producer`` costs.

        :param selector: chooses partitions; None: round robin.
        :param window: units of 4 KiB that may be under way; 0: as many as this process has memory
            for.
        :param policy: called with each message that cannot be sent now; None: it is kept on disk.
        :returns: a ``OneWayProducer``.
        :raises NotConnected: no connection to ZooKeeper or the broker; or ZooKeeper does not
            answer.
        :raises InvalidArgument: no name of a topic, or another argument is wrong.
        :raises ClientClosed: after ``close``.
        """

        def make() -> OneWayProducer:
            return OneWayProducer(self, selector, window=window, policy=policy)

        return self.runtime.start(self._published(topic, make))

    @checked(as_future)
    def create_ordered_producer(
        self, topic: str | None = None, selector: Selector | None = None
    ) -> Awaitable[Any]:
        """
        Make a producer that keeps the order of each partition of the setting ``partitions_info``,
        and publish ``topic`` if one is given.

        Costs what ``create_producer`` costs, and reading what is kept of the topic on this machine.

        :param selector: picks one of the configured partitions; None: that of the key.
        :returns: an ``OrderedProducer``.
        :raises NotConnected: no connection to ZooKeeper or the broker; or ZooKeeper does not
            answer.
        :raises InvalidArgument: no name of a topic, or another argument is wrong.
        :raises ClientClosed: after ``close``.
        """
        return self.runtime.start(self._published(topic, lambda: OrderedProducer(self, selector)))

    @checked(as_future)
    def create_xa_producer(
        self,
        topic: str | None = None,
        selector: Selector | None = None,
        *,
        unique_qualifier: str | None = None,
        in_order: bool = False,
        timeout: float = 5.0,
    ) -> Awaitable[Any]:
        """
        Make a producer whose resources a transaction manager calls, and publish ``topic`` if one is
        given.

        Costs what ``create_producer`` costs.

        :param selector: chooses partitions; None: round robin.
        :param unique_qualifier: of the application, the same after each restart.
        :param in_order: the next message of a branch leaves when the last was answered.
        :param timeout: seconds for the answer to each step.
        :returns: an ``XAProducer``.
        :raises NotConnected: no connection to ZooKeeper or the broker; or ZooKeeper does not
            answer.
        :raises InvalidArgument: no name of a topic, or another argument is wrong.
        :raises ClientClosed: after ``close``.
        """

        def make() -> XAProducer:
            return XAProducer(
                self,
                selector,
                unique_qualifier=unique_qualifier,
                in_order=in_order,
                timeout=timeout,
            )

        return self.runtime.start(self._published(topic, make))

    async def _published(self, topic: str | None, make: Callable[[], P]) -> P:
        """A new producer when the session has started and the topic is published."""
        await self.started()
        producer = make()
        if topic is not None:
            try:
                await producer.publish(topic)
            except BaseException:  # cancelled as well
                await producer.close()
                raise
        return producer

    @checked(error=InvalidConsumerConfig)
    def create_consumer(
        self,
        group: str | None = None,
        config: ConsumerConfig | None = None,
        store: OffsetStore | None = None,
        **settings: Unpack[ConsumerSettings],
    ) -> Any:
        """
        Make a consumer, a member of a group. It connects to nothing before ``complete_subscribe``.

        Costs nothing.

        :param group: or ``config`` has it.
        :param store: keeps the positions; None: ZooKeeper, or memory in direct mode. A store that
            is given is not closed with the consumer.
        :param settings: of ``ConsumerConfig``; they take precedence over ``config``.
        :returns: the consumer, to be closed by you or with the factory.
        :raises InvalidConsumerConfig: a setting is wrong; the text names it.
        :raises ClientClosed: after ``close``.
        """
        return Consumer(self, consumer_config(config, group, settings), self.recovery, store)

    @checked(error=InvalidConsumerConfig)
    def create_broadcast_consumer(
        self,
        group: str | None = None,
        config: ConsumerConfig | None = None,
        store: OffsetStore | None = None,
        **settings: Unpack[ConsumerSettings],
    ) -> Any:
        """
        Make a consumer that gets all messages, as one on every other machine does: the address of
        this machine is a part of its group's name.

        Costs the creation of a file, unless a store is given.

        :param group: the part of the name that all machines share; or ``config`` has it.
        :param store: None: the file ``~/.meta_offsets``.
        :param settings: of ``ConsumerConfig``; they take precedence over ``config``.
        :returns: the consumer.
        :raises InvalidConsumerConfig: a setting is wrong; the text names it.
        :raises InvalidConfig: the file cannot be created.
        :raises ClientClosed: after ``close``.
        """
        shared = broadcast_config(consumer_config(config, group, settings))
        own = LocalFileOffsetStore(self.runtime) if store is None else store
        consumer: Consumer = self.create_consumer(config=shared, store=own)
        if store is None:
            consumer.own_store()
        return consumer

    @checked(as_future)
    def create_topic_browser(
        self, topic: str, max_size: int = 1 << 20, timeout: float = 5.0
    ) -> Awaitable[Any]:
        """
        Make a browser, which reads everything a topic holds, without a group.

        Costs nothing but the connection of the factory.

        :param max_size: bytes of one fetch.
        :param timeout: seconds of one fetch.
        :returns: a ``TopicBrowser``.
        :raises NotConnected: no connection to ZooKeeper or the broker.
        :raises InvalidArgument: no name of a topic, or another argument is wrong.
        :raises ClientClosed: after ``close``.
        """
        return self.runtime.start(self._create_topic_browser(topic, max_size, timeout))

    async def _create_topic_browser(
        self, topic: str, max_size: int, timeout: float
    ) -> TopicBrowser:
        await self.started()
        return TopicBrowser(self, topic, max_size, timeout)

    @checked(as_future)
    def get_stats(self, target: str | None = None, item: str | None = None) -> Awaitable[Stats]:
        """
        The statistics of all brokers that are connected at present, as they print them.

        Costs one request to each.

        :param target: only of this broker; connects to it if necessary.
        :param item: ``topics``, ``realtime``, ``offsets``, ``config`` or a topic; None: the broker.
        :returns: url -> key -> value.
        :raises BrokerError: the ``target`` refused; without a target such a broker is left out.
        :raises NotConnected: no connection.
        :raises ClientClosed: after ``close``.
        """
        return self.runtime.start(self._get_stats(target, item))

    async def _get_stats(self, target: str | None, item: str | None) -> Stats:
        await self.started()
        asked = BrokerStats(self.runtime, self.connections, self.config, self.log)
        return await asked.of_all(target, item)

    @checked(as_future)
    def get_partitions_for_topic(self, topic: str) -> Awaitable[list[Partition]]:
        """
        The partitions of a topic that its masters take messages for.

        Costs a read of ZooKeeper for each broker of the topic.

        :returns: sorted by number; none when no broker has the topic.
        :raises InvalidState: in direct mode that is unknown.
        :raises RegistryError: ZooKeeper does not answer.
        :raises ClientClosed: after ``close``.
        """
        return self.runtime.start(self._get_partitions_for_topic(topic))

    async def _get_partitions_for_topic(self, topic: str) -> list[Partition]:
        await self.started()
        return await self.directory.partitions_of(topic)
