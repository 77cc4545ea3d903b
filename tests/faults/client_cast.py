"""
Who takes part in the soak of the client: ZooKeeper, brokers behind wires, members of groups.
"""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING, Any

from metamorphosis.client.offsets.localfile import LocalFileOffsetStore
from metamorphosis.client.offsets.zookeeper import ZooKeeperOffsetStore
from tests.faults.ledger import Reader, WatchedStore
from tests.faults.wire import FaultyWire
from tests.faults.world import READING, TICK_MS
from tests.support.broker import BrokerProcess
from tests.support.embedded import EmbeddedZooKeeper
from tests.support.zookeeper import ZooKeeperServer, free_port

if TYPE_CHECKING:
    from tests.faults.client_soak import Soak

TOPIC = "soak"
PARTITIONS = 3
GROUPS = ("ours", "files", "ours")
"""Of the three consumers; one group stores in ZooKeeper, the other in a file."""
STYLES = ("listener", "batch", "iteration")
"""Any consumer may have any, another one each time it joins."""
SEGMENT_BYTES = 64 << 10


class Directory:
    """Stands in for a test case: makes names of directories."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._numbers = count()

    def mktemp(self) -> str:
        """The next one."""
        return os.path.join(self.path, str(next(self._numbers)))


class Broker:
    """A broker's process and the wire in front of it, which has its published address."""

    def __init__(self, directory: str, number: int, zookeeper: ZooKeeperServer) -> None:
        self.number = number
        self.host = f"127.0.0.{number + 2}"
        self.wire: FaultyWire | None = None
        self.process = BrokerProcess(
            directory,
            topics={TOPIC: {"numPartitions": PARTITIONS}},
            system={
                "brokerId": number,
                "hostName": self.host,
                "maxSegmentSize": SEGMENT_BYTES,
                "updateConsumerOffsets": "true",  # as the original's server.ini says
            },
            zookeeper=zookeeper,
            zookeeper_keys={"zk.zkSessionTimeoutMs": 1500},
            settings={"network": {"interface": "127.0.0.1"}},
        )

    def start(self) -> None:
        """Wire and process."""
        port = self.process.port
        self.process.start()
        self.wire = FaultyWire(("127.0.0.1", port), (self.host, port))

    def end(self, kill: bool) -> None:
        """Both."""
        if self.wire is not None:
            self.wire.close()
        if kill:
            self.process.kill()
        elif self.process.process is not None:
            self.process.stop()

    def move(self) -> None:
        """The next start is at another port."""
        self.process.port = free_port()
        self.process.system = {**self.process.system, "serverPort": self.process.port}


class Member:
    """One consumer with its own factory; it may leave and come back."""

    def __init__(self, soak: Soak, number: int) -> None:
        self.factory: Any = None
        self._soak = soak
        self._number = number
        self._group = GROUPS[number]
        self._numbers = count()

    async def join(self) -> None:
        """A new factory and consumer."""
        soak = self._soak
        self.factory = soak.stage.factory(zookeeper=soak.zookeeper.connect_string)
        store: Any
        if self._group == "files":
            store = LocalFileOffsetStore(self.factory.runtime, os.path.join(soak.path, "offsets"))
        else:
            store = ZooKeeperOffsetStore(self.factory.registry, self.factory.paths)
        watched = WatchedStore(soak.ledger, store)
        settings = {**READING, "stop_timeout_ms": 10000, "max_fetch_retries": 1000}
        consumer = self.factory.create_consumer(self._group, store=watched, **settings)
        name = f"{self._group}.{self._number}.{next(self._numbers)}"
        reader = Reader(soak.ledger, consumer, name, soak.behave)
        style = soak.random.choice(STYLES)
        if style == "iteration":
            consumer.subscribe(TOPIC, 16 << 10)
        else:
            reader.subscribe([TOPIC], max_size=16 << 10, batch=style == "batch")
        self.factory.runtime.start(self._complete(consumer, reader, style))

    async def _complete(self, consumer: Any, reader: Reader, style: str) -> None:
        try:
            await consumer.complete_subscribe()
        except Exception as error:  # it goes on trying
            self._soak.ledger.errors[f"complete_subscribe: {type(error).__name__}"] += 1
        if style == "iteration":
            await self._soak.guarded(reader.iterate())

    async def leave(self) -> None:
        """Close what ``join`` made."""
        await self.factory.close()


def last_segment(directory: str) -> int:
    """Where it begins."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return max((int(name[:-5]) for name in names if name.endswith(".meta")), default=0)


def make_zookeeper(path: str, debian: bool) -> ZooKeeperServer:
    """Debian's, or ours."""
    if debian:
        return ZooKeeperServer(os.path.join(path, "zookeeper"))
    return EmbeddedZooKeeper(os.path.join(path, "zookeeper"), tick_time=TICK_MS)
