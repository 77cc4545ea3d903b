"""
The brokers and the ZooKeeper that tests of the client share or have to themselves.
"""

from __future__ import annotations

import atexit
import shutil
import signal
import tempfile
from itertools import count
from typing import Any

from metamorphosis.client.offsets.memory import MemoryOffsetStore
from tests.faults.faces import Stage
from tests.faults.ledger import Ledger, Reader, WatchedStore, read_logs
from tests.faults.wire import FaultyWire
from tests.support.broker import BrokerProcess
from tests.support.embedded import EmbeddedZooKeeper

MOST_TOPICS = 64
TICK_MS = 100
"""Sessions of the embedded ZooKeeper end after 0.2 to 2 seconds."""

PARTITIONS = 2
"""Of the topics of a cluster."""

_shared: list[BrokerProcess] = []
_servers: list[tuple[EmbeddedZooKeeper, BrokerProcess]] = []
_topics = count()


def shared_broker() -> BrokerProcess:
    """One without ZooKeeper that no test stops; it ends with the process."""
    if not _shared:
        directory = tempfile.mkdtemp(prefix="metamorphosis-client-")
        topics: dict[str, Any] = {f"t{number}": {} for number in range(MOST_TOPICS)}
        broker = BrokerProcess(directory, topics=topics, system={"updateConsumerOffsets": "true"})
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        broker.start()
        _shared.append(broker)
    return _shared[0]


def shared_cluster() -> tuple[EmbeddedZooKeeper, BrokerProcess]:
    """
    A ZooKeeper of ours and a broker that is registered there; what tests do to them has to be
    undone by ``heal``. They end with the process.
    """
    if not _servers:
        directory = tempfile.mkdtemp(prefix="metamorphosis-client-")
        topics = {f"t{number}": {"numPartitions": PARTITIONS} for number in range(MOST_TOPICS)}
        zookeeper = EmbeddedZooKeeper(f"{directory}/zookeeper", tick_time=TICK_MS)
        broker = BrokerProcess(
            f"{directory}/broker",
            topics=topics,
            zookeeper=zookeeper,
            zookeeper_keys={"zk.zkSessionTimeoutMs": 1500},
        )
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        _servers.append((zookeeper, broker))
    return _servers[0]


def heal(zookeeper: EmbeddedZooKeeper, broker: BrokerProcess) -> None:
    """Both run, whatever was done to them."""
    for server in (zookeeper, broker):
        if server.process is None:
            server.start()
        else:
            server.process.send_signal(signal.SIGCONT)


def fresh_topic() -> str:
    """A topic of the shared brokers that no other test has used."""
    return f"t{next(_topics) % MOST_TOPICS}"


class Direct:
    """
    One topic of a broker, the shared one unless given, behind a wire with faults, and a factory in
    direct mode.

    ``async with``: closed at the end, and everything judged.
    """

    def __init__(self, stage: Stage, broker: BrokerProcess | None = None, **settings: Any) -> None:
        self.stage = stage
        self.ledger = Ledger()
        self.broker = shared_broker() if broker is None else broker
        self.topic = fresh_topic() if broker is None else "test"
        self.wire = FaultyWire(("127.0.0.1", self.broker.port))
        stage.case.addCleanup(self.wire.close)
        self.factory = stage.factory(broker=self.wire.address, **settings)
        self.producer: Any = None
        self._numbers = count()
        self._closing: list[Any] = []

    def closing(self, close: Any) -> None:
        """Call it behind the end of the factory."""
        self._closing.append(close)

    async def __aenter__(self) -> Direct:
        self.producer = await self.factory.create_producer(self.topic, retries=0)
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        await self.factory.close()
        for close in self._closing:
            await close()
        if error is None:
            logs = await self.stage.blocking(read_logs, self.broker, 0, [self.topic], 1)
            self.ledger.judge(logs)

    async def reader(self, behave: Any = lambda message: None, **settings: Any) -> Reader:
        """A consumer that reads already."""
        reader = self.make_reader(behave, **settings)
        reader.subscribe([self.topic])
        await reader.consumer.complete_subscribe()
        return reader

    def make_reader(
        self,
        behave: Any = lambda message: None,
        group: str | None = None,
        store: Any = None,
        **settings: Any,
    ) -> Reader:
        """A consumer, of its own group unless one is given, that reads nothing yet."""
        number = next(self._numbers)
        watched = WatchedStore(self.ledger, store or MemoryOffsetStore())
        given = {"partition": "0-0", **READING, **settings}
        consumer = self.factory.create_consumer(group or f"g{number}", store=watched, **given)
        return Reader(self.ledger, consumer, f"reader {number}", behave)

    async def send(self, *values: bytes) -> None:
        """Until they are stored."""
        for value in values:
            await self.ledger.send(self.producer, self.topic, value, self.stage.sleep)

    async def until_read(self, *values: bytes) -> None:
        """Until each of these, or all that was acknowledged, was given to every group."""
        wanted = set(values or self.ledger.acknowledged)
        await self.stage.until(lambda: all_have(self.ledger, wanted), f"delivery of {wanted}")


READING: dict[str, Any] = {
    "fetch_timeout_ms": 1000,
    "long_poll_ms": 300,
    "max_delay_fetch_time_ms": 200,
    "commit_offset_period_ms": 100,
}
"""Settings with which a consumer of a test is quick."""


def all_have(ledger: Ledger, wanted: set[bytes]) -> bool:
    """Whether every group got them."""
    return bool(ledger.values) and all(wanted <= set(got) for got in ledger.values.values())


class Cluster:
    """
    A topic of the shared cluster, and a factory.

    ``async with``: closed at the end, and everything judged.
    """

    def __init__(self, stage: Stage, **settings: Any) -> None:
        self.stage = stage
        self.ledger = Ledger()
        self.topic = fresh_topic()
        self.zookeeper, self.broker = shared_cluster()
        stage.case.addCleanup(heal, self.zookeeper, self.broker)
        self.settings = settings
        self.factory: Any = None
        self.producer: Any = None

    async def __aenter__(self) -> Cluster:
        await self.stage.blocking(heal, self.zookeeper, self.broker)
        self.factory = self.stage.factory(zookeeper=self.zookeeper.connect_string, **self.settings)
        await self.factory.start()
        self.producer = await self.factory.create_producer(retries=0)
        await self.published(self.producer)
        return self

    async def published(self, producer: Any) -> None:
        """Wait until the broker is registered and a producer knows."""
        await producer.publish(self.topic)
        await self.stage.until(
            lambda: self.factory.directory.topics[self.topic].partitions, "partitions"
        )

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        await self.factory.close()
        if error is None:
            topics = [self.topic]
            logs = await self.stage.blocking(read_logs, self.broker, 0, topics, PARTITIONS)
            self.ledger.judge(logs)

    async def reader(
        self, group: str = "g", behave: Any = lambda message: None, **settings: Any
    ) -> Reader:
        """A consumer that reads already."""
        store = settings.pop("store", None)
        watched = None if store is None else WatchedStore(self.ledger, store)
        settings = {**READING, **settings}
        consumer = self.factory.create_consumer(group, store=watched, **settings)
        reader = Reader(self.ledger, consumer, f"{group}.{id(consumer)}", behave)
        reader.subscribe([self.topic])
        await consumer.complete_subscribe()
        return reader

    async def send(self, *values: bytes) -> None:
        """Until they are stored."""
        for value in values:
            await self.ledger.send(self.producer, self.topic, value, self.stage.sleep)

    async def until_read(self) -> None:
        """Until all that was acknowledged was given to every group."""
        wanted = set(self.ledger.acknowledged)
        await self.stage.until(lambda: all_have(self.ledger, wanted), f"delivery of {wanted}")
