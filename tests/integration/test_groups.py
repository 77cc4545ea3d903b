"""Members of a group on a real ZooKeeper: joins, leaves, ended sessions, a server that restarts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from metamorphosis.client.group.committing import Key
from metamorphosis.client.group.rebalance import Rebalance
from metamorphosis.client.model import FetchTarget
from metamorphosis.client.offsets.zookeeper import ZooKeeperOffsetStore
from metamorphosis.client.runtimes.tx import TwistedRuntime
from metamorphosis.client.settings import ConsumerConfig
from metamorphosis.cluster.model import TopicBroker
from metamorphosis.cluster.paths import Paths
from tests.support import zookeeper

WAIT_SECONDS = 20.0
PARTITIONS = 6

_roots = itertools.count(1)


class Reading:
    """A fake that does not read, but records its partitions, and fails if it is started twice
    without a stop."""

    def __init__(self) -> None:
        self.targets: dict[Key, FetchTarget] = {}

    def start(self, targets: Iterable[FetchTarget]) -> None:
        """See ``Fetching``."""
        assert not self.targets, "start without stop"
        self.targets = {(each.position.topic, each.position.partition): each for each in targets}

    async def stop(self, leaving: object = ()) -> None:
        """See ``Fetching``."""
        self.targets = {}


class GroupTests(TestCase):
    """One broker's nodes with six partitions, and members in sessions of their own."""

    skip = zookeeper.missing()

    async def setUp(self) -> None:
        """A server for this test only, which it may stop."""
        self.server = zookeeper.ZooKeeperServer(self.mktemp())
        await deferToThread(self.server.start)
        self.addCleanup(self.server.kill)
        self.paths = Paths(f"/groups-{next(_roots)}")
        self.runtime = TwistedRuntime(reactor)
        self.members: list[tuple[Any, Reading, Any]] = []
        self.broker = await self.registry()
        # not ephemeral: a slow machine may end the test's sessions
        await self.broker.create(self.paths.master(0), b"meta://127.0.0.1:1", False)
        node = f"{self.paths.topics_sub('test')}/0-m"
        await self.broker.create(node, TopicBroker(PARTITIONS, "0-m").encode(), False)

    async def registry(self) -> Any:
        """A session."""
        registry = self.runtime.registry(self.server.connect_string, 6000)
        there: Deferred[None] = Deferred()
        registry.on_session(lambda event: there.called or there.callback(None))
        self.addCleanup(registry.stop)
        await registry.start()
        await there
        return registry

    async def join(self, name: str) -> tuple[Any, Reading, Any]:
        """A member that has registered."""
        registry, reading = await self.registry(), Reading()
        member = Rebalance(
            self.runtime,
            registry,
            self.paths,
            ConsumerConfig(group="g", consumer_id=name, commit_offset_period_ms=200),
            {"test": None},
            ZooKeeperOffsetStore(registry, self.paths),
            reading,
            self.runtime.logger("test"),
            sync_seconds=1.0,
            session_seconds=6.0,
        )
        self.addCleanup(lambda: self.runtime.start(member.unregister()))
        await member.register()
        self.members.append((member, reading, registry))
        return self.members[-1]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Poll until the condition holds, or fail with its text."""
        for _ in range(int(WAIT_SECONDS / 0.02)):
            if condition():
                return
            await deferLater(reactor, 0.02)
        shares = [sorted(reading.targets) for _, reading, _ in self.members]
        raise AssertionError(f"{what}: not within {WAIT_SECONDS} s; {shares}")

    async def shared(self, *sizes: int) -> None:
        """Wait until every partition is read once and claimed, and each member has its share."""

        def balanced() -> bool:
            shares = [reading.targets.keys() for _, reading, _ in self.members]
            read = [key for share in shares for key in share]
            return [len(share) for share in shares] == list(sizes) and len(set(read)) == PARTITIONS

        await self.until(balanced, f"shares of {sizes}")
        for member, reading, registry in self.members:
            for topic, partition in reading.targets:
                path = self.paths.owner("g", topic, str(partition))
                data, stat = await registry.get(path)
                self.assertEqual(member.consumer_id.encode(), data)
                self.assertEqual(registry.session_id(), stat.owner)

    async def test_join_and_leave(self) -> None:
        """Row 60: members join and leave, and no member is without partitions for long."""
        for name, sizes in (("a", [6]), ("b", [3, 3]), ("c", [2, 2, 2]), ("d", [2, 2, 1, 1])):
            await self.join(name)
            await self.shared(*sizes)
        member, _, _ = self.members.pop(1)
        await member.unregister()
        await self.shared(2, 2, 2)

    async def test_session_ends(self) -> None:
        """Row 67: the server ends a session; its member returns with the same id and share."""
        await self.join("a")
        _, reading, registry = await self.join("b")
        await self.shared(3, 3)
        key = min(reading.targets)
        position = reading.targets[key].position
        position.offset, position.message_id, position.modified = 4711, -5, True
        session = registry.session_id()
        await deferToThread(self.server.expire, session)
        await self.until(lambda: registry.session_id() not in (0, session), "a new session")
        await self.shared(3, 3)
        path = self.paths.offset("g", "test", str(key[1]))

        async def stored() -> bytes | None:
            return (await self.broker.get(path))[0]  # type: ignore[no-any-return]

        for _ in range(200):
            if await self.broker.exists(path) and await stored() == b"-5-4711":
                return
            await deferLater(reactor, 0.02)
        raise AssertionError("the progress before the end of the session is not stored")

    async def test_server_restarts(self) -> None:
        """While the server is away reading continues; afterwards changes are noticed again."""
        await self.join("a")
        await self.join("b")
        await self.shared(3, 3)
        await deferToThread(self.server.stop)
        await deferLater(reactor, 1.0)
        self.assertEqual([3, 3], [len(reading.targets) for _, reading, _ in self.members])
        await deferToThread(self.server.start)
        await self.join("c")
        await self.shared(2, 2, 2)

    async def test_crash(self) -> None:
        """The session of a dead member expires, and the others take over."""
        await self.join("a")
        _, _, registry = await self.join("b")
        await self.shared(3, 3)
        member, reading, _ = self.members.pop()
        member._closing.set()  # as dead as it gets within one process
        member._wake.set()
        reading.targets = {}
        await deferToThread(self.server.expire, registry.session_id())
        await self.shared(6)

    async def test_fixed_id(self) -> None:
        """Row 70: the id exists in another session; the member joins as soon as that session
        ends."""
        other = await self.registry()
        await other.create(f"{self.paths.consumer_ids('g')}/g_a", b"test", True)
        joining = Deferred.fromCoroutine(self.join("a"))
        await deferLater(reactor, 1.0)
        self.assertNoResult(joining)
        await other.stop()
        await joining
        await self.shared(6)
