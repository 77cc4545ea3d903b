"""
A cluster in memory: brokers, their ZooKeeper, and session factories that connect to them.

The factories are those of ``client.tx`` and ``client.aio``, on the same event loops as in
production; ``stepped_factory`` returns one whose clock the test controls.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Unpack

from metamorphosis.client import aio, tx
from metamorphosis.client.factory import SessionFactory
from metamorphosis.client.network.links import Receiver
from metamorphosis.client.runtimes.aio import AsyncioRuntime
from metamorphosis.client.runtimes.tx import TwistedRuntime
from metamorphosis.client.settings import ClientConfig, client_config
from metamorphosis.client.settingtypes import ClientSettings
from metamorphosis.cluster.model import TopicBroker
from metamorphosis.cluster.paths import Paths
from metamorphosis.interfaces import IRuntime
from metamorphosis.testing.broker import Conversation, MemoryBroker
from metamorphosis.testing.registry import MemoryRegistry, MemoryTree
from metamorphosis.testing.runtime import MemoryRuntime

SESSION = 1
"""The ZooKeeper session of all brokers; registries of clients count from a larger number."""


class MemoryCluster:
    """
    Brokers that are registered in a ZooKeeper in memory. Thread: that of the loop.

    :param topics: topic -> number of partitions at each broker.
    :param brokers: the number of brokers.
    :ivar brokers: by broker id, including stopped ones.
    :ivar tree: the nodes of ZooKeeper.
    """

    def __init__(self, topics: Mapping[str, int], brokers: int = 1) -> None:
        self.tree = MemoryTree()
        self.brokers = [
            MemoryBroker(topics, number, f"meta://broker{number}:8123") for number in range(brokers)
        ]
        self._links: dict[int, list[BrokerLink]] = {}  # of running brokers, by broker id
        self._directory = tempfile.mkdtemp(prefix="metamorphosis-testing-")
        self._removal = weakref.finalize(self, shutil.rmtree, self._directory, True)
        for number in range(brokers):
            self.start(number)

    def bodies(self, topic: str) -> list[bytes]:
        """The bodies of all messages of a topic, by broker, partition and offset."""
        return [body for broker in self.brokers for body in broker.bodies(topic)]

    # -- accidents

    def stop(self, broker_id: int = 0) -> None:
        """Stop a broker: its connections are lost, its nodes are removed, its messages stay."""
        for link in self._links.pop(broker_id, []):
            link.lose("the broker has ended")
        for path in self._nodes(self.brokers[broker_id]):
            if path in self.tree.nodes:
                self.tree.delete(path)

    def start(self, broker_id: int = 0) -> None:
        """Start a broker, or start it again."""
        self._links.setdefault(broker_id, [])
        for path, data in self._nodes(self.brokers[broker_id]).items():
            if path not in self.tree.nodes:
                self.tree.create(path, data, SESSION)

    def cut(self, broker_id: int = 0) -> None:
        """Cut the connections of a broker; new ones can be made."""
        for link in list(self._links.get(broker_id, [])):
            link.lose("connection lost")

    def _nodes(self, broker: MemoryBroker) -> dict[str, bytes]:
        paths, name = Paths(), f"{broker.broker_id}-m"
        nodes = {paths.master(broker.broker_id): broker.url.encode()}
        for topic, partitions in broker.topics.items():
            data = TopicBroker(partitions, name).encode()
            nodes[f"{paths.topics_pub(topic)}/{name}"] = data
            nodes[f"{paths.topics_sub(topic)}/{name}"] = data
        return nodes

    # -- clients

    def twisted_factory(
        self, reactor: Any = None, **settings: Unpack[ClientSettings]
    ) -> tx.MessageSessionFactory:
        """
        A session factory of ``client.tx``.

        :param reactor: None: the global one.
        :param settings: of ``ClientConfig``.
        """
        return _TwistedFactory(_TwistedRuntime(self, reactor), self._config(settings))

    def asyncio_factory(self, **settings: Unpack[ClientSettings]) -> aio.MessageSessionFactory:
        """A session factory of ``client.aio`` on the running loop."""
        return _AsyncioFactory(_AsyncioRuntime(self), self._config(settings))

    def stepped_factory(
        self, runtime: MemoryRuntime | None = None, **settings: Unpack[ClientSettings]
    ) -> tx.MessageSessionFactory:
        """
        A session factory whose futures are Deferreds; events occur only in ``runtime.turn``,
        ``runtime.advance(seconds)`` and ``runtime.result(future)``.
        """
        stepped = MemoryRuntime() if runtime is None else runtime
        stepped.tree = self.tree
        stepped.network = self.connect
        return _TwistedFactory(stepped, self._config(settings))

    def _config(self, settings: Mapping[str, object]) -> ClientConfig:
        usual = {
            name: f"{self._directory}/{name}"
            for name in ("recover_path", "local_message_path", "async_storage_path")
        }
        return client_config(
            None, {"zookeeper": "memory:2181", "broker": None, **usual, **settings}
        )

    def connect(self, runtime: Any, host: str, port: int, receiver: Receiver) -> None:
        """
        Connect a client.

        :raises ConnectionRefusedError: no broker runs at this address.
        """
        for number, links in self._links.items():
            if self.brokers[number].url == f"meta://{host}:{port}":
                links.append(BrokerLink(runtime, self.brokers[number], receiver, links.remove))
                return
        raise ConnectionRefusedError(f"no broker at {host}:{port}")


class BrokerLink:
    """A ``Link`` to a broker in memory; bytes arrive in a later turn of the loop."""

    def __init__(
        self,
        runtime: IRuntime,
        broker: MemoryBroker,
        receiver: Receiver,
        forget: Callable[[BrokerLink], None],
    ) -> None:
        self._runtime = runtime
        self._receiver = receiver
        self._forget = forget
        self._conversation: Conversation = broker.connect(runtime, self._answer)
        self._written: list[bytes] = []
        self._unread: list[bytes] = []
        self._reading = True
        self._open = True
        receiver.connected(self)

    def write(self, data: bytes) -> None:
        """See ``Link``; after the end the bytes are dropped, as on a socket."""
        if self._open:
            if not self._written:
                self._runtime.call_soon(self._arrive)
            self._written.append(data)

    def _arrive(self) -> None:
        written, self._written = self._written, []
        for data in written:
            if self._open:
                self._conversation.receive(data)
        if self._open and self._conversation.closed:
            self.lose("closed by the broker")

    def _answer(self, data: bytes) -> None:
        self._unread.append(data)
        self._runtime.call_soon(self._deliver)

    def _deliver(self) -> None:
        while self._unread and self._reading and self._open:
            self._receiver.data_received(self._unread.pop(0))

    def close(self) -> None:
        """See ``Link``."""
        self._end("closed")

    def abort(self) -> None:
        """See ``Link``."""
        self._end("closed")

    def lose(self, reason: str) -> None:
        """Lose the connection."""
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self._open:
            self._open = False
            self._conversation.close()
            self._forget(self)
            self._runtime.call_soon(self._receiver.disconnected, reason)

    def pause_reading(self) -> None:
        """See ``Link``."""
        self._reading = False

    def resume_reading(self) -> None:
        """See ``Link``."""
        self._reading = True
        self._runtime.call_soon(self._deliver)


class _InMemory:
    """The methods of a runtime that differ for a cluster in memory."""

    cluster: MemoryCluster
    start: Callable[[Any], Any]
    adopt_registry: Callable[[Any], Any]

    def connect(self, host: str, port: int, receiver: Receiver, timeout: float) -> Any:
        """See ``IRuntime``."""
        return self.start(self._reach(host, port, receiver))

    async def _reach(self, host: str, port: int, receiver: Receiver) -> None:
        self.cluster.connect(self, host, port, receiver)

    def registry(self, connect: str, session_timeout: int) -> Any:
        """See ``IRuntime``."""
        return self.adopt_registry(MemoryRegistry(self.cluster.tree))


class _TwistedRuntime(_InMemory, TwistedRuntime):
    """The runtime of Twisted."""

    def __init__(self, cluster: MemoryCluster, reactor: Any) -> None:
        TwistedRuntime.__init__(self, reactor)
        self.cluster = cluster


class _AsyncioRuntime(_InMemory, AsyncioRuntime):
    """The runtime of asyncio."""

    def __init__(self, cluster: MemoryCluster) -> None:
        AsyncioRuntime.__init__(self)
        self.cluster = cluster


class _TwistedFactory(tx.MessageSessionFactory):
    """The factory of ``client.tx`` on an existing runtime."""

    def __init__(self, runtime: IRuntime, config: ClientConfig) -> None:
        SessionFactory.__init__(self, runtime, config)


class _AsyncioFactory(aio.MessageSessionFactory):
    """The factory of ``client.aio`` on an existing runtime."""

    def __init__(self, runtime: IRuntime, config: ClientConfig) -> None:
        SessionFactory.__init__(self, runtime, config)
