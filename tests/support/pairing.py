"""
A pair master without network or threads: a real broker in memory (``serving``), a scripted slave
(``scriptedgregor``) at the other end of its connection, and a registry in memory.
"""

from __future__ import annotations

import os
from typing import Any, cast

from metamorphosis.cluster.model import Broker as Member
from metamorphosis.cluster.presence import Presence
from metamorphosis.cluster.registration import BrokerRegistration
from metamorphosis.config.roles import PairMasterConfig
from metamorphosis.message import checksum
from metamorphosis.replication.pairmaster.pairedlog import PairedLog
from metamorphosis.replication.pairmaster.role import PairMaster
from metamorphosis.replication.role import Attached
from metamorphosis.store.layout import find_segments
from metamorphosis.testing.registry import MemoryRegistry, MemoryTree
from metamorphosis.testing.runtime import MemoryLink, MemoryRuntime
from tests.support.scriptedpeers import ScriptedGregor
from tests.support.scriptedwire import LinkWire
from tests.support.serving import Broker, Client

SLAVE = "gregor:8123"
SLAVE_FAILED = b"Put message to [slave 'meta://gregor:8123'] [partition 'test-%d'] failed"
MASTER_FAILED = b"Put message to [master 'meta://localhost:8123'] [partition 'test-%d'] failed"
DISCONNECTED = b"Slave is disconnected "


def put(body: bytes, opaque: int = 1, partition: int = 0, topic: bytes = b"test") -> bytes:
    """A request with its checksum."""
    return b"put %b %d %d 0 %d %d\r\n%b" % (
        topic,
        partition,
        len(body),
        checksum(body),
        opaque,
        body,
    )


def result(status: int, text: bytes, opaque: int = 1) -> bytes:
    """A whole reply."""
    return b"result %d %d %d\r\n%b" % (status, len(text), opaque, text)


class Pair:
    """
    A pair master and its slave. ``restart`` is a kill and a new start of the master.

    :param gregor: the slave; None: a Java one that accepts the same topics.
    :ivar wire: the present connection; None: there is none.
    """

    def __init__(
        self,
        directory: str,
        gregor: ScriptedGregor | None = None,
        topics: dict[str, dict[str, Any]] | None = None,
        threshold: int = 100,
        timeout_ms: int = 2000,
        recovers_offsets: bool = False,
        **system: Any,
    ) -> None:
        self.directory = directory
        self.topics = {"test": {"num_partitions": 2}} if topics is None else topics
        counts = {name: values.get("num_partitions", 1) for name, values in self.topics.items()}
        self.gregor = ScriptedGregor(counts) if gregor is None else gregor
        self.config = PairMasterConfig(
            SLAVE,
            recovers_offsets,
            send_timeout_ms=timeout_ms,
            failure_threshold=threshold,
        )
        self.system = system
        self.tree = MemoryTree()
        self.wire: LinkWire | None = None
        self.runtime: MemoryRuntime
        self.broker: Broker
        self.role: PairMaster
        self.registry: MemoryRegistry | None = None
        self.registration: BrokerRegistration
        self.start()

    # -- the master

    def start(self) -> None:
        """Begin to serve."""
        self.wire = None
        if self.registry is not None:
            self.tree.end_session(self.registry.crash())
        self.runtime = MemoryRuntime()
        self.broker = Broker(self.directory, self.topics, **self.system)
        self.runtime.clock = self.broker.clock
        if os.path.isdir(self.directory):
            self.broker.stores.load()
        member = Member(0, "localhost", 8123)
        presence = Presence(
            self.broker.clock,
            self.broker.config,
            member,
            self.broker.threads,
            lambda *_: MemoryRegistry(self.tree),
        )
        self.broker.responders.topic_used = presence.topic_used
        self.registry = cast(MemoryRegistry, presence.registry)
        self.registration = presence.registration
        self.role = PairMaster(self.config, self.runtime)
        broker = self.broker
        self.role.attach(
            Attached(
                broker.clock,
                broker.config,
                broker.settings,
                member,
                broker.responders,
                broker.stores,
                broker.ids,
                broker.threads,
                broker.turn,
                presence,
                lambda: None,
            )
        )
        presence.start(broker.config.topics.values(), withdrawn=True)
        self.role.start()
        self.runtime.turn()

    def kill(self) -> None:
        """Kill the master: none of its calls runs any more."""
        if self.wire is not None:
            self.wire.take()
            self.wire.ended = True
            self.wire.line.lost()
            self.wire = None

    def restart(self) -> None:
        """Kill it and start it again; it is not connected then."""
        self.kill()
        self.start()

    def client(self) -> Client:
        """A producer."""
        return self.broker.client()

    def log(self, partition: int = 0, topic: str = "test") -> PairedLog:
        """Of a partition that exists."""
        found = self.role.logs.get((topic, partition))
        assert found is not None
        return found

    # -- the line

    def connect(self) -> None:
        """Connect the master, and let both sides react."""
        while SLAVE not in [repr(each) for each in self.runtime.attempts]:
            self.runtime.advance(0.05)
        self.wire = LinkWire(self.gregor, self.runtime.accept(SLAVE))
        self.settle()

    def lose(self) -> None:
        """Lose the connection, on both sides."""
        assert self.wire is not None
        self.wire.lose()
        self.wire = None
        self.runtime.advance(0)

    def settle(self) -> None:
        """Deliver all bytes to the other side, until none are left."""
        for _ in range(50):
            self.runtime.advance(0)
            wire = self.wire
            if wire is None:
                return
            before = len(wire.line.said)
            wire.pump()
            self.gregor.settle()
            self.runtime.advance(0)
            if wire.ended:
                self.wire = None
            elif len(wire.line.said) == before and not wire.coming and not wire.link.written:
                return

    def advance(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass, with the connection working."""
        while seconds > 0:
            self.runtime.advance(min(step, seconds))
            self.settle()
            seconds -= step

    @property
    def link(self) -> MemoryLink:
        """The master's end of the connection."""
        assert self.wire is not None
        return self.wire.link

    def send(self, client: Client, data: bytes) -> bytes:
        """Let a producer send; returns its replies when no bytes are left."""
        client.connection.dataReceived(data)
        self.settle()
        return client.received()

    # -- ZooKeeper

    def nodes(self) -> list[str]:
        """The registered nodes of the master, without the root."""
        return sorted(
            path.removeprefix("/meta/brokers/")
            for path, node in self.tree.nodes.items()
            if node.owner or path == "/meta/brokers/ids/0"
        )

    # -- the logs

    def own(self, partition: int = 0, topic: str = "test") -> bytes:
        """The bytes of the master's log, from the files."""
        directory = os.path.join(self.directory, f"{topic}-{partition}")
        if not os.path.isdir(directory):
            return b""
        data = b""
        for segment in find_segments(directory):
            with open(segment.path, "rb") as file:
                data += file.read()
        return data

    def slaves(self, partition: int = 0, topic: str = "test") -> bytes:
        """The bytes of the slave's log."""
        return bytes(self.gregor.log(topic, partition).data)
