"""
The session factory: what producers, consumers and browsers share, and the order in which it ends.

This is the core of the faces' ``MessageSessionFactory``; only futures of the runtime leave it.

Source: ``MetaMessageSessionFactory``.

Differs: nothing is connected by the constructor; ``start``, ``async with`` or the first that needs
it does that, and gets the error.

Differs: where every attempt is refused ``start`` fails after 5 s, and always with the last reason;
the original waits for 80 s and says that they are over.

Differs: no exit hook of the process; ``async with`` or ``close`` ends the factory.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol, Self

from metamorphosis.client.checked import as_future, checked
from metamorphosis.client.network.connections import Connections
from metamorphosis.client.network.flow import Event, wait_unless_refused
from metamorphosis.client.network.links import Log
from metamorphosis.client.settings import (
    ClientConfig,
    ConsumerConfig,
    broadcast_config,
    consumer_config,
)
from metamorphosis.client.topics.brokerstats import Stats, stats
from metamorphosis.cluster.model import ConnectionFault, SessionEvent, SessionState
from metamorphosis.cluster.paths import Paths
from metamorphosis.config.hostname import own_address
from metamorphosis.errors import (
    ClientClosed,
    ConfigError,
    InvalidConfig,
    InvalidConsumerConfig,
    NotConnected,
)
from metamorphosis.interfaces import IRuntime

if TYPE_CHECKING:
    from metamorphosis.client.delivery.recovery import Recovery
    from metamorphosis.client.model import Partition
    from metamorphosis.client.topics.directory import PartitionDirectory


class Child(Protocol):
    """Something that ends before its factory."""

    def close(self) -> Awaitable[None]:
        """May be called more than once."""


class SessionFactory:
    """
    Thread: the loop's.

    :ivar runtime: the ``IRuntime`` of everything.
    :ivar connections: to the brokers, shared.
    :ivar registry: ZooKeeper; None in direct mode.
    :ivar paths: below the configured root.
    :ivar subscriptions: (group, topic) -> the consumer that has it; two are impossible.
    """

    def __init__(self, runtime: IRuntime, config: ClientConfig, registry: Any = None) -> None:
        """:param registry: used, started and stopped in place of one made from ``config``."""
        self.runtime = runtime
        self.config = config
        self.log: Log = runtime.logger("metamorphosis.client")
        self.connections = Connections(runtime, config, self.log)
        self.paths = Paths(config.zookeeper_root)
        self.subscriptions: dict[tuple[str, str], object] = {}
        if registry is None and config.zookeeper is not None:
            try:
                registry = runtime.registry(config.zookeeper, config.zookeeper_session_timeout_ms)
            except ConfigError as error:
                raise InvalidConfig(
                    f"zookeeper is {config.zookeeper!r}; host:port,host:port/chroot expected"
                ) from error
        self.registry: Any = registry
        self._directory: Any = None
        self._recovery: Any = None
        self._children: list[Child] = []
        self._first: list[Child] = []
        self._numbers = count(1)
        self._session_prefix = f"{own_address()}-{int(time.time() * 1000)}"
        self._starting = False
        self._started = Event(runtime)
        self._closing = False
        self._closed = Event(runtime)

    # -- life

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:  # nobody else would end what has begun
            await self.close()
            raise
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self.close()

    def start(self) -> Any:
        """
        Connect: a future that fires when there is a broker (direct mode), or ZooKeeper's session.

        It may be called any number of times. After a failure the factory keeps trying, and the next
        call waits once more.

        :raises NotConnected: neither came within the configured time, which is short where every
            attempt is refused (``refused_timeout_ms``); the text says why.
        """
        return self.runtime.start(self.started())

    async def started(self) -> None:
        """``start`` for coroutines of the core; does nothing when it has succeeded before."""
        if self._closing:
            raise ClientClosed("The session factory has been closed.")
        if not self._starting:
            self._starting = True
            await self._begin()
        if self._started.is_set:
            return
        if self.config.broker is not None:
            seconds = self.config.connect_timeout_ms / 1000
            what = f"broker {self.config.broker}: no connection"
        else:
            seconds = self.config.zookeeper_connection_timeout_ms / 1000
            what = f"ZooKeeper at {self.config.zookeeper}: no session"
        patience = self.config.refused_timeout_ms / 1000
        began = self.runtime.seconds()
        if not await wait_unless_refused(self._started, seconds, patience, self._fault):
            if self._closing:
                raise ClientClosed("The session factory has been closed.")
            waited = self.runtime.seconds() - began
            fault = self._fault()
            reason = "" if fault is None else f" ({fault.reason})"
            raise NotConnected(f"{what} within {round(waited, 1):g} s{reason}; still trying")

    def _fault(self) -> ConnectionFault | None:
        """Why there is neither broker nor session."""
        if self.config.broker is None:
            fault: ConnectionFault | None = self.registry.fault()
            return fault
        connection = self.connections.connection_of(self.config.broker)
        return None if connection is None else connection.fault

    async def _begin(self) -> None:
        started, closing = self._started, self._closed
        if self.config.broker is not None:
            connection = self.connections.acquire(self.config.broker, self)
            connection.changes.watch(self, started.set)
            if connection.is_connected:
                started.set()
        else:
            # Not a method of the factory, which sockets and threads must not keep alive.
            def session_changed(event: SessionEvent) -> None:
                if event.state is SessionState.CONNECTED and not closing.is_set:
                    started.set()

            self.registry.on_session(session_changed)
            await self.registry.start()

    def __del__(self) -> None:
        """Nobody can close it any more: say so, and let nothing of it go on."""
        if not getattr(self, "_starting", False) or self._closing:
            return
        where = self.config.broker or f"ZooKeeper at {self.config.zookeeper}"
        warnings.warn(
            f"a session factory of {where} was not closed; use it in a with statement, or call"
            " close",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )
        parts = [self._recovery, self._directory, self.connections]
        closers = [each.close for each in parts if each is not None]
        if self.registry is not None:
            closers.append(self.registry.stop)
        self.runtime.abandon(closers)

    def close(self) -> Any:
        """
        End everything: what was made by the factory in that order, then recovery, the connections,
        the ZooKeeper session. A future; it never fails, and may be asked for again.
        """
        if not self._closing:
            self._closing = True
            self.runtime.start(self._close())
        return self.runtime.start(self._wait_for_end())

    async def _wait_for_end(self) -> None:
        await self._closed.wait()

    async def _close(self) -> None:
        """Not in the hands of those who wait for it, who may be cancelled."""
        self._started.abandon()
        for child in [*self._first, *self._children]:
            try:
                await child.close()
            except Exception:
                self.log.failure("Closing {child} failed", child=child)
        if self._recovery is not None:  # consumers on their way out may still need it
            await self._guarded(self._recovery.close, "the kept messages")
        if self._directory is not None:
            await self._guarded(self._directory.close, "the topics")
        await self._guarded(self.connections.close, "the connections")
        if self.registry is not None:
            await self._guarded(self.registry.stop, "the ZooKeeper session")
        self._closed.set()

    async def _guarded(self, close: Callable[[], Any], what: str) -> None:
        try:
            closing = close()
            if closing is not None:
                await closing
        except Exception:
            self.log.failure("Closing {what} failed", what=what)

    @property
    def is_closed(self) -> bool:
        """``close`` has been called."""
        return self._closing

    # -- for what is made by the factory

    def add_child(self, child: Child, first: bool = False) -> None:
        """
        Close it with the factory, after those that were added before.

        :param first: it ends before all others.
        :raises ClientClosed: the factory has been closed.
        """
        if self._closing:
            raise ClientClosed("The session factory has been closed.")
        (self._first if first else self._children).append(child)

    def remove_child(self, child: Child) -> None:
        """It has been closed, and is of no interest any more."""
        for children in (self._first, self._children):
            if child in children:
                children.remove(child)

    @property
    def directory(self) -> PartitionDirectory:
        """The writable partitions of topics, shared by all producers."""
        if self._directory is None:
            from metamorphosis.client.topics.directory import PartitionDirectory

            self._directory = PartitionDirectory(
                self.runtime, self.config, self.connections, self.registry, self.paths, self.log
            )
        return self._directory  # type: ignore[no-any-return]

    @property
    def recovery(self) -> Recovery:
        """Messages that listeners failed too often, shared by all consumers."""
        if self._recovery is None:
            from metamorphosis.client.delivery.recovery import Recovery

            self._recovery = Recovery(self.runtime, self.config, self.log)
        return self._recovery  # type: ignore[no-any-return]

    def next_session_id(self) -> str:
        """``<host>-<milliseconds>-<n>``, the id of a producer's session."""
        return f"{self._session_prefix}-{next(self._numbers)}"

    # -- what users call

    @checked(as_future)
    def create_producer(
        self,
        topic: str | None = None,
        selector: Any = None,
        *,
        retries: int | None = None,
        in_order: bool = False,
        max_outstanding_bytes: int = 64 << 20,
    ) -> Any:
        """
        A future of a producer, which has published ``topic`` if one is given.

        :param selector: chooses partitions; None: round robin. The others: see ``Producer``.
        :raises NotConnected: see ``start``.
        """
        options = {
            "retries": retries,
            "in_order": in_order,
            "max_outstanding_bytes": max_outstanding_bytes,
        }
        from metamorphosis.client.producer.producer import Producer

        return self.runtime.start(self._create_producer(topic, Producer, selector, options))

    @checked(as_future)
    def create_one_way_producer(
        self,
        topic: str | None = None,
        selector: Any = None,
        *,
        window: int = 0,
        policy: Any = None,
    ) -> Any:
        """A future of a ``OneWayProducer``, otherwise as ``create_producer``."""
        from metamorphosis.client.producer.oneway import OneWayProducer

        options = {"window": window, "policy": policy}
        return self.runtime.start(self._create_producer(topic, OneWayProducer, selector, options))

    @checked(as_future)
    def create_ordered_producer(self, topic: str | None = None, selector: Any = None) -> Any:
        """
        A future of an ``OrderedProducer``, otherwise as ``create_producer``.

        :param selector: picks one of the configured partitions; None: that of the key.
        """
        from metamorphosis.client.producer.ordered import OrderedProducer

        return self.runtime.start(self._create_producer(topic, OrderedProducer, selector, {}))

    @checked(as_future)
    def create_xa_producer(
        self,
        topic: str | None = None,
        selector: Any = None,
        *,
        unique_qualifier: str | None = None,
        in_order: bool = False,
        timeout: float = 5.0,
    ) -> Any:
        """
        A future of an ``XAProducer``, otherwise as ``create_producer``.

        :param unique_qualifier: of the application, the same in each of its lives.
        :param timeout: seconds for the answer to each step.
        """
        from metamorphosis.client.transactions.xaproducer import XAProducer

        options = {"unique_qualifier": unique_qualifier, "in_order": in_order, "timeout": timeout}
        return self.runtime.start(self._create_producer(topic, XAProducer, selector, options))

    async def _create_producer(
        self, topic: str | None, make: Any, selector: Any, options: dict[str, Any]
    ) -> Any:
        await self.started()
        producer = make(self, selector, **options)
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
        store: Any = None,
        **settings: Any,
    ) -> Any:
        """
        A consumer, which connects to nothing before ``complete_subscribe``.

        :param group: or ``config`` has it.
        :param store: an ``IOffsetStore``; None: ZooKeeper, or memory in direct mode.
        :param settings: of ``ConsumerConfig``; they take precedence over ``config``.
        :raises InvalidConsumerConfig: a setting is wrong.
        """
        from metamorphosis.client.consumer.consumer import Consumer

        if self._closing:
            raise ClientClosed("The session factory has been closed.")
        return Consumer(self, consumer_config(config, group, settings), store)

    @checked(error=InvalidConsumerConfig)
    def create_broadcast_consumer(
        self,
        group: str | None = None,
        config: ConsumerConfig | None = None,
        store: Any = None,
        **settings: Any,
    ) -> Any:
        """
        A consumer that gets all messages, as one on every other machine does: its group is named
        after this machine. See ``create_consumer``.

        :param store: None: the file ``~/.meta_offsets``.
        """
        from metamorphosis.client.offsets.localfile import LocalFileOffsetStore

        shared = broadcast_config(consumer_config(config, group, settings))
        own = LocalFileOffsetStore(self.runtime) if store is None else store
        consumer = self.create_consumer(config=shared, store=own)
        if store is None:
            consumer.own_store()
        return consumer

    @checked(as_future)
    def create_topic_browser(
        self, topic: str, max_size: int = 1 << 20, timeout: float = 5.0
    ) -> Any:
        """
        A future of a browser of everything a topic holds.

        :param max_size: bytes of one fetch.
        :param timeout: seconds of one fetch.
        """
        return self.runtime.start(self._create_topic_browser(topic, max_size, timeout))

    async def _create_topic_browser(self, topic: str, max_size: int, timeout: float) -> Any:
        from metamorphosis.client.consumer.browser import TopicBrowser

        await self.started()
        browser = TopicBrowser(self, topic, max_size, timeout)
        return browser

    @checked(as_future)
    def get_stats(self, target: str | None = None, item: str | None = None) -> Any:
        """
        A future of the statistics of all brokers connected at present: url -> key -> value.

        :param target: only of this broker; it is connected to if need be.
        :param item: ``topics``, ``realtime``, ``offsets``, ``config`` or a topic; None: the broker.
        :raises BrokerError: the ``target`` refused; without a target such a broker is left out.
        """
        return self.runtime.start(self._get_stats(target, item))

    async def _get_stats(self, target: str | None, item: str | None) -> Stats:
        await self.started()
        return await stats(self, target, item)

    @checked(as_future)
    def get_partitions_for_topic(self, topic: str) -> Any:
        """
        A future of the partitions of a topic that its masters take messages for, sorted by number;
        none when nobody has the topic.

        :raises InvalidState: in direct mode nobody knows.
        """
        return self.runtime.start(self._get_partitions_for_topic(topic))

    async def _get_partitions_for_topic(self, topic: str) -> list[Partition]:
        await self.started()
        return await self.directory.partitions_of(topic)
