"""The faces' ZooKeeper sessions against a real server."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from metamorphosis.client import aio, blocking, tx
from metamorphosis.client.model import Partition
from metamorphosis.cluster import registry
from metamorphosis.cluster.model import TopicBroker, WatchKind
from metamorphosis.errors import NoNode, NotConnected
from tests.support import zookeeper

SERIAL = itertools.count()


class RegistryTests(TestCase):
    """One session each."""

    skip = zookeeper.missing()
    timeout = 60

    def setUp(self) -> None:
        """A root of its own."""
        self.server = zookeeper.shared()
        self.root = f"/client-{next(SERIAL)}"

    async def check(self, factory: Any) -> None:
        """Create, read, watch; the end of the session removes its nodes."""
        async with factory:
            registry, path = factory.registry, f"{self.root}/a/b"
            events: list[Any] = []
            await registry.create(path, b"1", True)
            self.assertEqual(["b"], await registry.children(f"{self.root}/a", events.append))
            data, stat = await registry.get(path)
            self.assertEqual((b"1", registry.session_id()), (data, stat.owner))
            await registry.delete(path)
            with self.assertRaises(NoNode):
                await registry.get(path)
            while not events:
                await registry.exists("/")
            self.assertEqual(WatchKind.CHILDREN, events[0].kind)
            described = TopicBroker(2, "0-m").encode()
            await registry.create(f"{self.root}/brokers/topics-pub/t/0-m", described, True)
            found = await factory.get_partitions_for_topic("t")
            self.assertEqual([Partition(0, 0), Partition(0, 1)], found)

    def test_twisted(self) -> Deferred[None]:
        """On trial's reactor."""
        factory = tx.MessageSessionFactory(self.server.connect_string, zookeeper_root=self.root)
        return Deferred.fromCoroutine(self.check(factory))

    def test_asyncio(self) -> None:
        """On a loop of its own."""

        async def run() -> None:
            await self.check(
                aio.MessageSessionFactory(self.server.connect_string, zookeeper_root=self.root)
            )

        asyncio.run(run())


class AbsentTests(TestCase):
    """Without ZooKeeper each face logs the words of a client, not those of a broker."""

    timeout = 60
    options: ClassVar[dict[str, int]] = {"zookeeper_connection_timeout_ms": 300}

    def setUp(self) -> None:
        """A missing ZooKeeper is reported soon."""
        self.patch(registry, "CHECK_SECONDS", 0.05)

    def check(self, lines: list[str]) -> None:
        """One line, correct for this process."""
        (line,) = [each for each in lines if "ZooKeeper" in each and "is not there" in each]
        self.assertIn("still trying, brokers and partitions known so far are used", line)
        self.assertNotIn("served", line)

    async def start(self, factory: Any) -> None:
        """Start without success."""
        with self.assertRaises(NotConnected):
            await factory.start()
        await factory.close()

    async def test_twisted(self) -> None:
        """To Twisted's log."""
        with capturedLogs() as events:
            await self.start(tx.MessageSessionFactory("127.0.0.1:1", **self.options))
        self.check([formatEvent(each) for each in events])

    def test_asyncio(self) -> None:
        """To ``logging``."""

        async def run() -> None:
            await self.start(aio.MessageSessionFactory("127.0.0.1:1", **self.options))

        with self.assertLogs("metamorphosis.client") as logged:
            asyncio.run(run())
        self.check([each.getMessage() for each in logged.records])

    def test_blocking(self) -> None:
        """The same from the thread of the blocking face."""
        with self.assertLogs("metamorphosis.client") as logged:
            factory = blocking.MessageSessionFactory("127.0.0.1:1", **self.options)
            self.assertRaises(NotConnected, factory.start)
            factory.close()
        self.check([each.getMessage() for each in logged.records])


class BlockingTests(SynchronousTestCase):
    """Plain calls."""

    skip = zookeeper.missing()

    def test_blocking(self) -> None:
        """An unknown topic has no partitions."""
        connect = zookeeper.shared().connect_string
        root = f"/client-{next(SERIAL)}"
        with blocking.MessageSessionFactory(connect, zookeeper_root=root) as factory:
            self.assertEqual([], factory.get_partitions_for_topic("nothing"))

    def test_nobody_there(self) -> None:
        """The error is raised in time, and ``close`` ends in time."""
        with (
            self.assertRaises(NotConnected),
            blocking.MessageSessionFactory("127.0.0.1:1", zookeeper_connection_timeout_ms=300),
        ):
            self.fail("there is no ZooKeeper")
