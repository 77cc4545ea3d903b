"""An asynchronous slave in memory: role, broker, ZooKeeper and master, without network."""

from __future__ import annotations

from typing import Any, cast

from metamorphosis.cluster.model import Broker as Member
from metamorphosis.cluster.model import TopicBroker
from metamorphosis.cluster.presence import Presence
from metamorphosis.config.roles import FollowerConfig
from metamorphosis.replication.follower.role import Follower
from metamorphosis.replication.role import Attached
from metamorphosis.testing.registry import MemoryRegistry, MemoryTree
from metamorphosis.testing.runtime import MemoryRuntime
from tests.support.memorymaster import MemoryMaster
from tests.support.serving import Broker, with_changes

MASTER = "/meta/brokers/ids/0/master"
CHECKSUM = "/meta/brokers/ids/0/master_config_checksum"


class FollowerBroker:
    """
    One slave; ``master`` is what it follows once ``register`` was called.

    :ivar others: the client of the tree that plays the master.
    :ivar reloads: how often the configuration was to be read again.
    """

    def __init__(
        self,
        directory: str,
        topics: dict[str, dict[str, Any]] | None = None,
        slave_id: int = 0,
        group: str = "meta-slave-group_0",
        syncs_config: bool = False,
        **system: Any,
    ) -> None:
        self.runtime = MemoryRuntime()
        self.broker = Broker(directory, topics, unflush_threshold=1000, **system)
        self.runtime.clock = self.broker.clock
        self.broker.stores.load()
        self.tree = MemoryTree()
        self.others = MemoryRegistry(self.tree)
        self.others.start()
        self.master = MemoryMaster(self.runtime, "master:8123")
        member = Member(0, "slave", 8124, slave_id)
        self.presence = Presence(
            self.broker.clock,
            self.broker.config,
            member,
            self.broker.threads,
            lambda *_: MemoryRegistry(self.tree),
        )
        self.registry = cast(MemoryRegistry, self.presence.registry)
        self.broker.responders.topic_used = self.presence.topic_used
        self.role = Follower(
            FollowerConfig(slave_id, group, syncs_config=syncs_config), self.runtime
        )
        self.reloads = 0
        self.role.attach(
            Attached(
                reactor=self.broker.clock,
                config=self.broker.config,
                settings=self.broker.settings,
                broker=member,
                responders=self.broker.responders,
                stores=self.broker.stores,
                ids=self.broker.ids,
                threads=self.broker.threads,
                turn=self.broker.turn,
                presence=self.presence,
                reload=self._reload,
            )
        )

    def _reload(self) -> None:
        self.reloads += 1

    def start(self) -> None:
        """Start the role as the daemon does."""
        self.presence.start(self.broker.config.topics.values())
        self.role.start()
        self.serve(1)

    def stop(self) -> None:
        """Stop the role as the daemon does, within 5 s."""
        stopped = self.role.stop()
        ended = []
        stopped.addBoth(ended.append)
        self.serve(5)
        assert ended == [None], ended

    def serve(self, seconds: float = 0.0) -> None:
        """Let time pass, with replies of the master."""
        self.master.serve(seconds)

    def register(self, address: str = "master:8123", **topics: int) -> None:
        """Start the master and register it in ZooKeeper, with these topics."""
        self.master.away = False
        if MASTER not in self.tree.nodes:
            self.create(MASTER, f"meta://{address}".encode())
        for name, count in topics.items():
            path = f"/meta/brokers/topics-sub/{name}/0-m"
            if path in self.tree.nodes:
                self.others.delete(path)
            self.create(path, TopicBroker(count, "0-m").encode())

    def create(self, path: str, data: bytes) -> None:
        """A node of the master."""
        self.others.create(path, data, True)

    def master_dies(self) -> None:
        """End the master's session and connections, until it is registered again."""
        self.master_leaves()
        self.master.away = True
        self.master.lose()

    def master_leaves(self) -> None:
        """End only the master's session."""
        self.tree.end_session(self.others.crash())
        self.others = MemoryRegistry(self.tree)
        self.others.start()

    def set_topics(self, **topics: int) -> None:
        """Reload the slave with these topics."""
        base = self.broker.config
        sections = {
            name: with_changes(base.default_topic, name=name, num_partitions=count)
            for name, count in topics.items()
        }
        self.broker.config = with_changes(base, topics=sections)
        self.broker.responders.reconfigure(self.broker.config, self.broker.settings)
        self.broker.stores.reconfigure(self.broker.config)
        self.presence.update(self.broker.config.topics.values())
        self.role.reconfigure(self.broker.config, self.broker.settings)

    def nodes(self) -> dict[str, bytes | None]:
        """Ephemeral nodes of the slave, by path."""
        session = self.registry.session_id()
        return {p: node.data for p, node in self.tree.nodes.items() if node.owner == session != 0}
