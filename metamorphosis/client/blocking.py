"""
The client for scripts: plain blocking calls, without an event loop.

::

    with MessageSessionFactory(zookeeper="localhost:2181") as factory:
        with factory.create_producer("test") as producer:
            result = producer.send("test", b"hello")

        with factory.create_consumer("readers") as consumer:
            consumer.subscribe("test").complete_subscribe()
            for message in consumer:
                ...

An asyncio loop runs in a separate thread; every call is passed to it, and the caller waits.
Listeners run in further threads, so that they may block and call the client. Thread: any except the
loop's, several at a time if necessary.
"""

from __future__ import annotations

import warnings
from typing import Self, Unpack

from metamorphosis.client.documented import documented
from metamorphosis.client.factory import SessionFactory
from metamorphosis.client.model import (
    ConsumerCounts,
    Lag,
    MessagesFailed,
    OutgoingMessage,
    Partition,
    PassedOver,
    ReceivedMessage,
    SendResult,
    StoredOffset,
)
from metamorphosis.client.producer.oneway import Policy
from metamorphosis.client.runtimes.aio import AsyncioRuntime
from metamorphosis.client.runtimes.listenerthreads import ListenerThreads
from metamorphosis.client.runtimes.loopthread import LoopThread
from metamorphosis.client.runtimes.plainconsumers import Consumer, TopicBrowser
from metamorphosis.client.runtimes.plainproducers import (
    OneWayProducer,
    OrderedProducer,
    Producer,
)
from metamorphosis.client.runtimes.plaintransactions import Transaction, XAProducer, XAResource
from metamorphosis.client.settings import (
    ClientConfig,
    ConsumerConfig,
    client_config,
    unclosed_warning,
)
from metamorphosis.client.settingtypes import ClientSettings, ConsumerSettings
from metamorphosis.client.topics.brokerstats import Stats
from metamorphosis.client.topics.selectors import Selector
from metamorphosis.errors import ClientClosed
from metamorphosis.interfaces import IRuntime, OffsetStore

__all__ = [
    "ClientConfig",
    "Consumer",
    "ConsumerConfig",
    "ConsumerCounts",
    "Lag",
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

LISTENER_THREADS = 8
"""Limit of listeners that run at the same time, of all consumers of a factory."""


@documented(SessionFactory)
class MessageSessionFactory:
    """
    Creates producers, consumers and browsers.

    :param settings: of ``ClientConfig``; they take precedence over ``config``.
    :raises InvalidConfig: a setting is wrong.
    """

    _closed = True  # until the constructor has succeeded

    def __init__(
        self,
        zookeeper: str | None = None,
        broker: str | None = None,
        config: ClientConfig | None = None,
        **settings: Unpack[ClientSettings],
    ) -> None:
        self._config = client_config(config, {"zookeeper": zookeeper, "broker": broker, **settings})
        self._thread = LoopThread("metamorphosis-client")
        try:
            self._core = self._thread.call(self._make)
        except BaseException:
            self._thread.stop()
            raise
        threads = self._thread.call(
            self._runtime.threads, LISTENER_THREADS, "metamorphosis-listener"
        )
        self._listeners = ListenerThreads(threads, self._thread.loop)
        self._closed = False

    def _make(self) -> SessionFactory:
        """Thread: the loop's."""
        self._runtime = AsyncioRuntime()
        return SessionFactory(self._runtime, self._config)

    @property
    def runtime(self) -> IRuntime:
        """The runtime of the loop: what offset stores are made with."""
        return self._runtime

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def start(self) -> None:
        self._thread.call(self._core.start)

    def __del__(self) -> None:
        """Called without ``close`` before: warn, and end the thread."""
        thread: LoopThread | None = getattr(self, "_thread", None)
        if self._closed or thread is None or not thread.is_alive:
            return
        message = unclosed_warning(self._core.config)
        warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
        thread.end_after([self._core.close, self._listeners.stop])

    def close(self) -> None:
        """Ends the threads as well."""
        self._listeners.check_not_inside()
        self._closed = True
        try:
            self._thread.call(self._core.close)
            self._thread.call(self._listeners.stop)
        except ClientClosed:
            return
        self._thread.stop()

    def create_producer(
        self,
        topic: str | None = None,
        selector: Selector | None = None,
        *,
        retries: int | None = None,
        in_order: bool = False,
        max_outstanding_bytes: int = 64 << 20,
    ) -> Producer:
        """The selector must not block."""
        core = self._thread.call(
            self._core.create_producer,
            topic,
            selector,
            retries=retries,
            in_order=in_order,
            max_outstanding_bytes=max_outstanding_bytes,
        )
        return Producer(self._thread, core, self, max_outstanding_bytes)

    def create_one_way_producer(
        self,
        topic: str | None = None,
        selector: Selector | None = None,
        *,
        window: int = 0,
        policy: Policy | None = None,
    ) -> OneWayProducer:
        """Neither selector nor policy may block."""
        create = self._core.create_one_way_producer
        core = self._thread.call(create, topic, selector, window=window, policy=policy)
        return OneWayProducer(self._thread, core, self)

    def create_ordered_producer(
        self, topic: str | None = None, selector: Selector | None = None
    ) -> OrderedProducer:
        """The selector must not block."""
        core = self._thread.call(self._core.create_ordered_producer, topic, selector)
        return OrderedProducer(self._thread, core, self)

    def create_xa_producer(
        self,
        topic: str | None = None,
        selector: Selector | None = None,
        *,
        unique_qualifier: str | None = None,
        in_order: bool = False,
        timeout: float = 5.0,
    ) -> XAProducer:
        """The selector must not block."""
        core = self._thread.call(
            self._core.create_xa_producer,
            topic,
            selector,
            unique_qualifier=unique_qualifier,
            in_order=in_order,
            timeout=timeout,
        )
        return XAProducer(self._thread, core, self)

    def create_consumer(
        self,
        group: str | None = None,
        config: ConsumerConfig | None = None,
        store: OffsetStore | None = None,
        **settings: Unpack[ConsumerSettings],
    ) -> Consumer:
        core = self._thread.call(self._core.create_consumer, group, config, store, **settings)
        return Consumer(self._thread, core, self, self._listeners)

    def create_broadcast_consumer(
        self,
        group: str | None = None,
        config: ConsumerConfig | None = None,
        store: OffsetStore | None = None,
        **settings: Unpack[ConsumerSettings],
    ) -> Consumer:
        create = self._core.create_broadcast_consumer
        core = self._thread.call(create, group, config, store, **settings)
        return Consumer(self._thread, core, self, self._listeners)

    def create_topic_browser(
        self, topic: str, max_size: int = 1 << 20, timeout: float = 5.0
    ) -> TopicBrowser:
        core = self._thread.call(self._core.create_topic_browser, topic, max_size, timeout)
        return TopicBrowser(self._thread, core, self)

    def get_stats(self, target: str | None = None, item: str | None = None) -> Stats:
        return self._thread.call(self._core.get_stats, target, item)

    def get_partitions_for_topic(self, topic: str) -> list[Partition]:
        return self._thread.call(self._core.get_partitions_for_topic, topic)
