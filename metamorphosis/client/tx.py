"""
The client for Twisted: calls that take time return a Deferred.

::

    factory = MessageSessionFactory(zookeeper="localhost:2181")
    async with factory:                               # in a coroutine: Deferred.fromCoroutine(...)
        producer = await factory.create_producer("test")
        result = await producer.send("test", b"hello")

The producers, ``Consumer`` and ``TopicBrowser`` declare for type checkers the types of the core's
classes of the same names on this runtime; ``tests/unit/client/test_faces.py`` compares both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from twisted.internet.defer import Deferred

from metamorphosis.client.checked import checked
from metamorphosis.client.factory import SessionFactory
from metamorphosis.client.model import (
    ConsumerCounts,
    Lag,
    LostMessage,
    MessagesFailed,
    OutgoingMessage,
    Partition,
    PassedOver,
    ReceivedMessage,
    SendResult,
    StoredOffset,
)
from metamorphosis.client.producer.oneway import Policy
from metamorphosis.client.runtimes.tx import ShutdownTrigger, TwistedRuntime
from metamorphosis.client.runtimes.txconsumers import Consumer, TopicBrowser
from metamorphosis.client.runtimes.txproducers import (
    OneWayProducer,
    OrderedProducer,
    Producer,
    XAProducer,
)
from metamorphosis.client.runtimes.txtransactions import Transaction, XAResource
from metamorphosis.client.settings import ClientConfig, ConsumerConfig, client_config
from metamorphosis.client.settingtypes import ClientSettings, ConsumerSettings
from metamorphosis.client.topics.brokerstats import Stats
from metamorphosis.client.topics.selectors import Selector
from metamorphosis.errors import InvalidConfig
from metamorphosis.interfaces import OffsetStore

__all__ = [
    "ClientConfig",
    "Consumer",
    "ConsumerConfig",
    "ConsumerCounts",
    "Lag",
    "LostMessage",
    "MessageSessionFactory",
    "MessagesFailed",
    "OneWayProducer",
    "OrderedProducer",
    "OutgoingMessage",
    "Partition",
    "PassedOver",
    "Producer",
    "ReceivedMessage",
    "SendResult",
    "StoredOffset",
    "TopicBrowser",
    "Transaction",
    "XAProducer",
    "XAResource",
]


class MessageSessionFactory(SessionFactory):
    """
    Creates producers, consumers and browsers, which share its connections and ZooKeeper session.

    A stop of the reactor closes it, and waits for the end.

    :param zookeeper: ``host:port,host:port/chroot``.
    :param broker: ``host:port``, direct mode: the one broker, without ZooKeeper.
    :param config: all settings; the other arguments take precedence.
    :param reactor: None: the global reactor, which is installed if necessary.
    :param settings: of ``ClientConfig``.
    :raises InvalidConfig: a setting is wrong.
    """

    @checked(error=InvalidConfig)
    def __init__(
        self,
        zookeeper: str | None = None,
        broker: str | None = None,
        config: ClientConfig | None = None,
        reactor: Any = None,
        **settings: Unpack[ClientSettings],
    ) -> None:
        chosen = client_config(config, {"zookeeper": zookeeper, "broker": broker, **settings})
        runtime = TwistedRuntime(reactor)
        super().__init__(runtime, chosen)
        self.add_child(ShutdownTrigger(runtime.reactor, self.close))

    if TYPE_CHECKING:  # the types of the core's methods on this runtime

        def start(self) -> Deferred[None]:
            """Connect."""

        def close(self) -> Deferred[None]:
            """
            End producers, consumers and browsers, then the connections and the ZooKeeper session.
            """

        def create_producer(
            self,
            topic: str | None = None,
            selector: Selector | None = None,
            *,
            retries: int | None = None,
            in_order: bool = False,
            max_outstanding_bytes: int = 64 << 20,
        ) -> Deferred[Producer]:
            """
            Make a producer, connecting first if need be, and publish ``topic`` if one is given.
            """

        def create_one_way_producer(
            self,
            topic: str | None = None,
            selector: Selector | None = None,
            *,
            window: int = 0,
            policy: Policy | None = None,
        ) -> Deferred[OneWayProducer]:
            """
            Make a producer that does not wait for answers, and publish ``topic`` if one is given.
            """

        def create_ordered_producer(
            self, topic: str | None = None, selector: Selector | None = None
        ) -> Deferred[OrderedProducer]:
            """
            Make a producer that keeps the order of each partition of the setting
            ``partitions_info``, and publish ``topic`` if one is given.
            """

        def create_xa_producer(
            self,
            topic: str | None = None,
            selector: Selector | None = None,
            *,
            unique_qualifier: str | None = None,
            in_order: bool = False,
            timeout: float = 5.0,
        ) -> Deferred[XAProducer]:
            """
            Make a producer whose resources a transaction manager calls, and publish ``topic`` if
            one is given.
            """

        def create_consumer(
            self,
            group: str | None = None,
            config: ConsumerConfig | None = None,
            store: OffsetStore | None = None,
            **settings: Unpack[ConsumerSettings],
        ) -> Consumer:
            """Make a consumer, a member of a group."""

        def create_broadcast_consumer(
            self,
            group: str | None = None,
            config: ConsumerConfig | None = None,
            store: OffsetStore | None = None,
            **settings: Unpack[ConsumerSettings],
        ) -> Consumer:
            """Make a consumer that gets all messages, as one on every other machine does."""

        def create_topic_browser(
            self, topic: str, max_size: int = 1 << 20, timeout: float = 5.0
        ) -> Deferred[TopicBrowser]:
            """Make a browser, which reads everything a topic holds, without a group."""

        def get_stats(self, target: str | None = None, item: str | None = None) -> Deferred[Stats]:
            """The statistics of all brokers that are connected at present, as they print them."""

        def get_partitions_for_topic(self, topic: str) -> Deferred[list[Partition]]:
            """The partitions of a topic that its masters take messages for."""
