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

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from twisted.internet.defer import Deferred

from metamorphosis.client.checked import checked
from metamorphosis.client.delivery.subscription import Filter, Listener, Reject
from metamorphosis.client.factory import SessionFactory
from metamorphosis.client.fetch.passing import PassedOverMessages, PassingListener
from metamorphosis.client.model import (
    Lag,
    LostMessage,
    MessagesFailed,
    OutgoingMessage,
    Partition,
    PassedOver,
    Position,
    ReceivedMessage,
    SendResult,
    StoredOffset,
)
from metamorphosis.client.producer.oneway import LossListener, Policy
from metamorphosis.client.producer.puts import Callback
from metamorphosis.client.runtimes.tx import ShutdownTrigger, TwistedRuntime
from metamorphosis.client.runtimes.txtransactions import Transaction, XAResource
from metamorphosis.client.settings import ClientConfig, ConsumerConfig, client_config
from metamorphosis.client.topics.brokerstats import Stats
from metamorphosis.client.topics.selectors import Selector
from metamorphosis.errors import InvalidConfig
from metamorphosis.interfaces import IOffsetStore

__all__ = [
    "ClientConfig",
    "Consumer",
    "ConsumerConfig",
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


class Closing(Protocol):
    """Objects that are closed after use."""

    def close(self) -> Deferred[None]:
        """See the class."""

    async def __aenter__(self) -> Self:
        """The object itself."""

    async def __aexit__(self, *reason: object) -> None:
        """``close``."""


class Publishing(Closing, Protocol):
    """See ``client.producer.publisher.Publisher``."""

    def publish(self, topic: str) -> Deferred[None]:
        """See ``client.producer.publisher.Publisher``."""

    def set_default_topic(self, topic: str) -> Deferred[None]:
        """See ``client.producer.publisher.Publisher``."""


class Producer(Publishing, Protocol):
    """See ``client.producer.producer.Producer``."""

    is_full: bool

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Deferred[SendResult]:
        """See ``client.producer.producer.Producer``."""

    def send_many(
        self,
        messages: Iterable[OutgoingMessage],
        *,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Deferred[list[SendResult]]:
        """See ``client.producer.producer.Producer``."""

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
        """See ``client.producer.producer.Producer``."""

    def ready(self) -> Deferred[bool]:
        """See ``client.producer.producer.Producer``."""

    def transaction(
        self, lifetime: int | None = None, *, target: str | None = None, timeout: float = 5.0
    ) -> Transaction:
        """See ``client.producer.producer.Producer``."""


class OneWayProducer(Publishing, Protocol):
    """See ``client.producer.oneway.OneWayProducer``."""

    window: int
    free: int
    lost: int

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> SendResult | None:
        """See ``client.producer.oneway.OneWayProducer``."""

    def on_lost(self, listener: LossListener) -> Self:
        """See ``client.producer.oneway.OneWayProducer``."""

    def ready(self) -> Deferred[bool]:
        """See ``client.producer.oneway.OneWayProducer``."""

    def recover(self) -> Deferred[None]:
        """See ``client.producer.oneway.OneWayProducer``."""


class OrderedProducer(Publishing, Protocol):
    """See ``client.producer.ordered.OrderedProducer``."""

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        timeout: float | None = None,
    ) -> Deferred[SendResult]:
        """See ``client.producer.ordered.OrderedProducer``."""

    def local_count(self, topic: str, partition: Partition) -> int:
        """See ``client.producer.ordered.OrderedProducer``."""

    def recover(self) -> Deferred[None]:
        """See ``client.producer.ordered.OrderedProducer``."""


class XAProducer(Publishing, Protocol):
    """See ``client.transactions.xaproducer.XAProducer``."""

    unique_qualifier: str

    def resource(self, target: str | None = None) -> XAResource:
        """See ``client.transactions.xaproducer.XAProducer``."""


class Consumer(Closing, Protocol):
    """See ``client.consumer.consumer.Consumer``."""

    config: ConsumerConfig
    passed_over: PassedOverMessages
    group: str
    assignment: Mapping[tuple[str, Partition], Position]

    def subscribe(
        self,
        topic: str,
        max_size: int = 1 << 20,
        listener: Listener | None = None,
        filter: Filter | None = None,
        *,
        batch: bool = False,
        auto_ack: bool = True,
    ) -> Self:
        """See ``client.consumer.consumer.Consumer``."""

    def on_rejection(self, strategy: Reject) -> Self:
        """See ``client.consumer.consumer.Consumer``."""

    def on_passed_over(self, listener: PassingListener) -> Self:
        """See ``client.fetch.passing.PassesOver``."""

    def complete_subscribe(self) -> Deferred[None]:
        """See ``client.consumer.consumer.Consumer``."""

    def __aiter__(self) -> AsyncIterator[ReceivedMessage]:
        """See ``client.consumer.consumer.Consumer``."""

    def ack(self, message: ReceivedMessage) -> None:
        """See ``client.consumer.consumer.Consumer``."""

    def rollback(self, message: ReceivedMessage) -> None:
        """See ``client.consumer.consumer.Consumer``."""

    def seek(self, topic: str, partition: Partition, offset: int) -> None:
        """See ``client.consumer.consumer.Consumer``."""

    def commit(self) -> Deferred[bool]:
        """See ``client.consumer.consumer.Consumer``."""

    def get(
        self,
        topic: str,
        partition: Partition,
        offset: int,
        max_size: int = 1 << 20,
        timeout: float = 10.0,
    ) -> Deferred[Sequence[ReceivedMessage] | None]:
        """See ``client.consumer.consumer.Consumer``."""

    def offset(
        self, topic: str, partition: Partition, offset: int, timeout: float = 10.0
    ) -> Deferred[int]:
        """See ``client.consumer.consumer.Consumer``."""

    def offset_at(
        self, topic: str, partition: Partition, milliseconds: int, timeout: float = 10.0
    ) -> Deferred[int]:
        """See ``client.consumer.consumer.Consumer``."""

    def committed(
        self, topic: str, partition: Partition, timeout: float = 10.0
    ) -> Deferred[StoredOffset | None]:
        """See ``client.consumer.consumer.Consumer``."""

    def end(self, topic: str, partition: Partition, timeout: float = 10.0) -> Deferred[int]:
        """See ``client.consumer.consumer.Consumer``."""

    def lag(self, topic: str, timeout: float = 10.0) -> Deferred[dict[Partition, Lag]]:
        """See ``client.consumer.consumer.Consumer``."""


class TopicBrowser(Closing, Protocol):
    """See ``client.consumer.browser.TopicBrowser``."""

    topic: str
    passed_over: PassedOverMessages

    def on_passed_over(self, listener: PassingListener) -> Self:
        """See ``client.fetch.passing.PassesOver``."""

    def partitions(self) -> Deferred[list[Partition]]:
        """See ``client.consumer.browser.TopicBrowser``."""

    def __aiter__(self) -> AsyncIterator[ReceivedMessage]:
        """See ``client.consumer.browser.TopicBrowser``."""


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
        **settings: object,
    ) -> None:
        settings = {"zookeeper": zookeeper, "broker": broker, **settings}
        chosen = client_config(config, settings)
        runtime = TwistedRuntime(reactor)
        super().__init__(runtime, chosen)
        self.add_child(ShutdownTrigger(runtime.reactor, self.close))

    if TYPE_CHECKING:  # the types of the core's methods on this runtime

        def start(self) -> Deferred[None]:
            """See ``SessionFactory``."""

        def close(self) -> Deferred[None]:
            """See ``SessionFactory``."""

        def create_producer(
            self,
            topic: str | None = None,
            selector: Selector | None = None,
            *,
            retries: int | None = None,
            in_order: bool = False,
            max_outstanding_bytes: int = 64 << 20,
        ) -> Deferred[Producer]:
            """See ``SessionFactory`` and ``client.producer.producer.Producer``."""

        def create_one_way_producer(
            self,
            topic: str | None = None,
            selector: Selector | None = None,
            *,
            window: int = 0,
            policy: Policy | None = None,
        ) -> Deferred[OneWayProducer]:
            """See ``SessionFactory`` and ``client.producer.oneway.OneWayProducer``."""

        def create_ordered_producer(
            self, topic: str | None = None, selector: Selector | None = None
        ) -> Deferred[OrderedProducer]:
            """See ``SessionFactory`` and ``client.producer.ordered.OrderedProducer``."""

        def create_xa_producer(
            self,
            topic: str | None = None,
            selector: Selector | None = None,
            *,
            unique_qualifier: str | None = None,
            in_order: bool = False,
            timeout: float = 5.0,
        ) -> Deferred[XAProducer]:
            """See ``SessionFactory`` and ``client.transactions.xaproducer.XAProducer``."""

        def create_consumer(
            self,
            group: str | None = None,
            config: ConsumerConfig | None = None,
            store: IOffsetStore | None = None,
            **settings: object,
        ) -> Consumer:
            """See ``SessionFactory``."""

        def create_broadcast_consumer(
            self,
            group: str | None = None,
            config: ConsumerConfig | None = None,
            store: IOffsetStore | None = None,
            **settings: object,
        ) -> Consumer:
            """See ``SessionFactory``."""

        def create_topic_browser(
            self, topic: str, max_size: int = 1 << 20, timeout: float = 5.0
        ) -> Deferred[TopicBrowser]:
            """See ``SessionFactory``."""

        def get_stats(self, target: str | None = None, item: str | None = None) -> Deferred[Stats]:
            """See ``SessionFactory``."""

        def get_partitions_for_topic(self, topic: str) -> Deferred[list[Partition]]:
            """See ``SessionFactory``."""
