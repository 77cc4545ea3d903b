"""
A consumer group in memory: brokers and members on one ``MemoryTree``, with checks of the partitions
that each member reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from metamorphosis.client.group.committing import Key
from metamorphosis.client.group.rebalance import Rebalance
from metamorphosis.client.model import FetchTarget, Partition
from metamorphosis.client.offsets.zookeeper import ZooKeeperOffsetStore
from metamorphosis.client.settings import ConsumerConfig
from metamorphosis.cluster.model import TopicBroker
from metamorphosis.cluster.paths import Paths
from metamorphosis.testing.registry import MemoryRegistry, MemoryTree
from metamorphosis.testing.runtime import MemoryRuntime

PATHS = Paths()


class MemoryFetching:
    """
    Replaces the fetching: records the partitions to be read.

    :ivar reading: what is read, and where.
    :ivar runs: what every ``start`` was told.
    :ivar stops: how many there were.
    :ivar left: the partitions that each of them gave away.
    :ivar held: whether ``stop`` waits for ``let_go``.
    :ivar started: called with every start and stop.
    """

    def __init__(self, runtime: MemoryRuntime) -> None:
        self.reading: dict[Key, FetchTarget] = {}
        self.runs: list[dict[Key, str | None]] = []
        self.stops = 0
        self.left: list[list[Key]] = []
        self.held = False
        self.answering: set[str] = set()
        self.connection_changed: Any = lambda: None
        self.changed: Any = lambda: None
        self._runtime = runtime
        self._stopping: list[Any] = []

    def start(self, targets: Iterable[FetchTarget]) -> None:
        """See ``Fetching``."""
        assert not self.reading, "start without stop"
        self.reading = {(each.position.topic, each.position.partition): each for each in targets}
        self.runs.append({key: target.url for key, target in self.reading.items()})
        self.changed()

    async def stop(self, leaving: Collection[Key] = ()) -> None:
        """See ``Fetching``."""
        self.left.append(sorted(leaving))
        if self.held:
            waiting = self._runtime.api.create_future()
            self._stopping.append(waiting)
            await waiting
        self.stops += 1
        self.reading = {}
        self.changed()

    def answers(self, url: str) -> bool:
        """See ``Fetching``."""
        return url in self.answering

    def hang_up(self, url: str) -> None:
        """Close the connections of a broker."""
        self.answering.discard(url)
        self.connection_changed()
        self._runtime.turn()

    def let_go(self) -> None:
        """Let the slow listener return."""
        self.held = False
        waiting, self._stopping = self._stopping, []
        for each in waiting:
            self._runtime.api.resolve(each, None)
        self._runtime.turn()

    def process(self, topic: str, partition: str, offset: int, message_id: int = 7) -> None:
        """Move a position, as delivery does; the partition must be being read."""
        position = self.reading[topic, Partition.parse(partition)].position
        position.offset, position.message_id, position.modified = offset, message_id, True


class Member:
    """
    A consumer's process.

    :ivar registry: its connection to ZooKeeper, for accidents.
    """

    def __init__(
        self,
        group: Group,
        name: str | None = None,
        topics: Iterable[str] = ("test",),
        store: Any = None,
        registry: MemoryRegistry | None = None,
        sync_seconds: float = 5.0,
        **settings: Any,
    ) -> None:
        self.runtime = group.runtime
        self.registry = registry or MemoryRegistry(group.tree)
        self.fetching = MemoryFetching(group.runtime)
        self.topics = dict.fromkeys(topics)
        self.store = ZooKeeperOffsetStore(self.registry, PATHS) if store is None else store
        config = ConsumerConfig(group=group.name, consumer_id=name, **settings)
        self.rebalance = Rebalance(
            group.runtime,
            self.registry,
            PATHS,
            config,
            self.topics,
            self.store,
            self.fetching,
            group.runtime.log,
            sync_seconds,
        )
        self.registering: Any = None

    def join(self) -> None:
        """Connect and register; the outcome is in ``registering``."""
        self.registry.start()
        self.registering = self.runtime.start(self.rebalance.register())
        self.runtime.turn()

    def leave(self) -> Any:
        """Unregister and disconnect."""
        leaving = self.runtime.start(self._leave())
        self.runtime.turn()
        return leaving

    async def _leave(self) -> None:
        await self.rebalance.unregister()
        await self.registry.stop()

    def crash(self) -> int:
        """Kill the process; returns its session, which exists until ``tree.end_session``."""
        self.fetching.reading = {}
        return self.registry.crash()

    def reads(self, topic: str = "test") -> list[str]:
        """The partitions that are being read."""
        return [str(part) for name, part in sorted(self.fetching.reading) if name == topic]


class Group:
    """
    The rest of the world.

    :ivar tree: ZooKeeper.
    """

    def __init__(self, name: str = "g") -> None:
        self.name = name
        self.runtime = MemoryRuntime()
        self.tree: MemoryTree = self.runtime.tree

    def broker(self, broker_id: int, slave_id: int | None = None, **topics: int) -> MemoryRegistry:
        """A broker with so many partitions of each topic; its registry, for its accidents."""
        registry = MemoryRegistry(self.tree)
        registry.start()
        if slave_id is None:
            name, path = f"{broker_id}-m", PATHS.master(broker_id)
        else:
            name, path = f"{broker_id}-s{slave_id}", PATHS.slave(broker_id, slave_id)
        url = b"meta://10.0.0.%d:%d" % (broker_id, 8123 if slave_id is None else 9000 + slave_id)
        registry.create(path, url, True)
        for topic, count in topics.items():
            data = TopicBroker(count, name).encode()
            registry.create(f"{PATHS.topics_sub(topic)}/{name}", data, True)
        self.runtime.turn()
        return registry

    def member(self, name: str | None = None, **options: Any) -> Member:
        """A member that has not joined."""
        return Member(self, name, **options)

    def joined(self, name: str | None = None, **options: Any) -> Member:
        """A member that has joined and has its partitions."""
        member = self.member(name, **options)
        member.join()
        self.advance(20)
        self.runtime.result(member.registering)
        return member

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.runtime.advance(seconds)

    def owners(self, topic: str = "test") -> dict[str, str]:
        """Partition -> the member that claimed it."""
        directory = PATHS.owners(self.name, topic)
        names = self.tree.nodes[directory].children if directory in self.tree.nodes else ()
        return {name: self.data(f"{directory}/{name}") or "" for name in sorted(names)}

    def ids(self) -> dict[str, str | None]:
        """Member -> its topics."""
        directory = PATHS.consumer_ids(self.name)
        names = self.tree.nodes[directory].children if directory in self.tree.nodes else ()
        return {name: self.data(f"{directory}/{name}") for name in sorted(names)}

    def offset(self, partition: str, topic: str = "test") -> str | None:
        """The stored position."""
        return self.data(PATHS.offset(self.name, topic, partition))

    def data(self, path: str) -> str | None:
        """Of a node, or None without it."""
        node = self.tree.nodes.get(path)
        return None if node is None or node.data is None else node.data.decode()
