"""
A broker without network or threads for the tests of this package: real stores in a temporary
directory, a ``Clock`` for the reactor, ``StringTransport`` for the clients.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from metamorphosis.broker.connection import ClientConnection
from metamorphosis.broker.factory import BrokerFactory
from metamorphosis.broker.responders import Responders
from metamorphosis.broker.turn import Turn
from metamorphosis.config.model import BrokerConfig, Settings, TopicConfig
from metamorphosis.ids import MessageIds
from metamorphosis.store.disk import Disk
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.messagestores import MessageStores
from metamorphosis.threads import SynchronousThreads

URL = "meta://localhost:8123"


class NoRoutes(dict[Any, Any]):
    """Empty routes: every request takes the slow path, the oracle of the hot path."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Stay empty."""


class Client:
    """One connection, seen from the peer."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.transport = StringTransport()
        self.connection: ClientConnection = broker.factory.buildProtocol(None)
        self.connection.makeConnection(self.transport)

    def send(self, data: bytes) -> bytes:
        """Send ``data`` in one piece, let the turn end, and return what came back."""
        self.connection.dataReceived(data)
        self.broker.clock.advance(0)
        return self.received()

    def received(self) -> bytes:
        """The bytes received since the last call."""
        value = self.transport.value()
        self.transport.clear()
        return value

    @property
    def closed(self) -> bool:
        """Whether the broker wants this connection closed."""
        return bool(self.transport.disconnecting)


class Broker:
    """
    Everything behind a port.

    :param slow: keep the hot path from taking anything.
    """

    def __init__(
        self,
        directory: str,
        topics: dict[str, dict[str, Any]] | None = None,
        slow: bool = False,
        settings: Settings = Settings(),
        disk: Disk = Disk(),
        **system: Any,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1385000000)
        system.setdefault("unflush_threshold", 0)
        config = BrokerConfig(broker_id=0, host_name="localhost", data_path=directory, **system)
        names = {"test": {"num_partitions": 2}} if topics is None else topics
        sections = {name: _section(config, name, values) for name, values in sorted(names.items())}
        self.config = with_changes(config, topics=sections)
        self.threads = SynchronousThreads()
        turn = self.turn = Turn(self.clock.callLater)
        self.schedule = FlushSchedule(self.clock)
        environment = StoreEnvironment(
            threads=self.threads,
            clock=self.clock,
            schedule=self.schedule,
            on_dirty=turn.store_dirty,
            max_segment_size=self.config.max_segment_size,
            flush_delay=settings.flush_delay_ms / 1000,
            disk=disk,
        )
        self.stores = MessageStores(self.config, environment)
        self.ids = MessageIds(0, None, self.threads, self.clock.seconds)
        self.used_topics: list[TopicConfig] = []
        self.responders = Responders(
            self.config, settings, URL, self.stores, self.ids, self.clock, self.used_topics.append
        )
        if slow:
            self.responders.routes.puts = NoRoutes()
            self.responders.routes.reads = NoRoutes()
        self.factory = BrokerFactory(self.clock, self.responders, settings, turn)
        self.settings = settings

    def close_partitions(self, topic: str, *ranges: tuple[int, int]) -> None:
        """A reload with these ranges of closed partitions."""
        closed = with_changes(self.settings, closed_partitions={topic: ranges})
        self.responders.rules.reconfigure(self.config, closed)

    def client(self) -> Client:
        """A new connection."""
        return Client(self)


def _section(config: BrokerConfig, name: str, values: dict[str, Any]) -> TopicConfig:
    return with_changes(config.default_topic, name=name, **values)


def with_changes(value: Any, **changes: Any) -> Any:
    return replace(value, **changes)
