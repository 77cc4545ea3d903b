"""
The session factory: the calls that create producers, consumers and browsers of a session, and those
that query brokers and ZooKeeper.

This is the core of the faces' ``MessageSessionFactory``.

Source: ``MetaMessageSessionFactory``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from metamorphosis.client.checked import as_future, checked
from metamorphosis.client.consumer.browser import TopicBrowser
from metamorphosis.client.consumer.consumer import Consumer
from metamorphosis.client.delivery.recovery import Recovery
from metamorphosis.client.model import Partition
from metamorphosis.client.offsets.localfile import LocalFileOffsetStore
from metamorphosis.client.producer.oneway import OneWayProducer, Policy
from metamorphosis.client.producer.ordered import OrderedProducer
from metamorphosis.client.producer.producer import Producer
from metamorphosis.client.producer.publisher import Publisher
from metamorphosis.client.session import Session
from metamorphosis.client.settings import ConsumerConfig, broadcast_config, consumer_config
from metamorphosis.client.topics.brokerstats import BrokerStats, Stats
from metamorphosis.client.topics.selectors import Selector
from metamorphosis.client.transactions.xaproducer import XAProducer
from metamorphosis.errors import ClientClosed, InvalidConsumerConfig
from metamorphosis.interfaces import IOffsetStore

P = TypeVar("P", bound=Publisher)


class SessionFactory(Session):
    """
    A ``Session`` with the calls that create its children. Thread: the loop's.

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
        A future of a producer, which has published ``topic`` if one is given.

        :param selector: chooses partitions; None: round robin. The others: see ``Producer``.
        :raises NotConnected: see ``start``.
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
        """A future of a ``OneWayProducer``, otherwise as ``create_producer``."""

        def make() -> OneWayProducer:
            return OneWayProducer(self, selector, window=window, policy=policy)

        return self.runtime.start(self._published(topic, make))

    @checked(as_future)
    def create_ordered_producer(
        self, topic: str | None = None, selector: Selector | None = None
    ) -> Awaitable[Any]:
        """
        A future of an ``OrderedProducer``, otherwise as ``create_producer``.

        :param selector: chooses one of the configured partitions; None: that of the key.
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
        A future of an ``XAProducer``, otherwise as ``create_producer``.

        :param unique_qualifier: of the application, the same after each restart.
        :param timeout: seconds for the reply to each step.
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
        store: IOffsetStore | None = None,
        **settings: object,
    ) -> Any:
        """
        A consumer, which does not connect before ``complete_subscribe``.

        :param group: None: that of ``config``.
        :param store: an ``IOffsetStore``; None: ZooKeeper, or memory in direct mode.
        :param settings: of ``ConsumerConfig``; they take precedence over ``config``.
        :raises InvalidConsumerConfig: a setting is wrong.
        """
        if self.is_closed:
            raise ClientClosed("The session factory has been closed.")
        return Consumer(self, consumer_config(config, group, settings), self.recovery, store)

    @checked(error=InvalidConsumerConfig)
    def create_broadcast_consumer(
        self,
        group: str | None = None,
        config: ConsumerConfig | None = None,
        store: IOffsetStore | None = None,
        **settings: object,
    ) -> Any:
        """
        A consumer that gets all messages, like one on every other machine: its group is named
        after this machine. See ``create_consumer``.

        :param store: None: the file ``~/.meta_offsets``.
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
        A future of a browser of all messages of a topic.

        :param max_size: bytes of one fetch.
        :param timeout: seconds of one fetch.
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
        A future of the statistics of all brokers connected at present: url -> key -> value.

        :param target: only of this broker; connects to it if necessary.
        :param item: ``topics``, ``realtime``, ``offsets``, ``config`` or a topic; None: the broker.
        :raises BrokerError: the ``target`` refused; without a target such a broker is left out.
        """
        return self.runtime.start(self._get_stats(target, item))

    async def _get_stats(self, target: str | None, item: str | None) -> Stats:
        await self.started()
        asked = BrokerStats(self.runtime, self.connections, self.config, self.log)
        return await asked.of_all(target, item)

    @checked(as_future)
    def get_partitions_for_topic(self, topic: str) -> Awaitable[list[Partition]]:
        """
        A future of the writable partitions of a topic, sorted by number; empty if no broker has the
        topic.

        :raises InvalidState: in direct mode, in which they are unknown.
        """
        return self.runtime.start(self._get_partitions_for_topic(topic))

    async def _get_partitions_for_topic(self, topic: str) -> list[Partition]:
        await self.started()
        return await self.directory.partitions_of(topic)
