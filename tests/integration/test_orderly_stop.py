"""
An orderly stop of a broker has no visible effect: no send fails, no message is stored twice, and
stored messages reach consumers before the broker is back. Real processes, and the embedded
ZooKeeper.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from metamorphosis.client.model import ReceivedMessage
from metamorphosis.client.tx import MessageSessionFactory
from metamorphosis.errors import BadRequest, UnknownTopic, WrongRoot
from tests.support.broker import BrokerProcess
from tests.support.embedded import EmbeddedZooKeeper

BURST = 20
BURST_SECONDS = 0.02


def pause(seconds: float) -> Deferred[None]:
    """Fires after this time."""
    done: Deferred[None] = Deferred()
    reactor.callLater(seconds, done.callback, None)  # type: ignore[attr-defined]
    return done


class OrderlyStopTests(TestCase):
    """Two brokers with two partitions of ``test`` each."""

    timeout = 120

    def setUp(self) -> None:
        """Brokers, ZooKeeper and factory of one test."""
        self.zookeeper = EmbeddedZooKeeper(self.mktemp())
        self.zookeeper.start()
        self.addCleanup(self.zookeeper.kill)
        self.brokers = [self.broker(0), self.broker(1)]
        self.received: list[bytes] = []
        self.sends: list[Deferred[Any]] = []

    def broker(self, broker_id: int) -> BrokerProcess:
        """A running broker."""
        broker = BrokerProcess(
            self.mktemp(),
            topics={"test": {"numPartitions": 2}},
            system={"brokerId": broker_id, "unflushThreshold": 0},
            zookeeper_keys={"zk.zkSyncTimeMs": 1500},
            zookeeper=self.zookeeper,
            settings={"network": {"max-body-bytes": 1 << 20}},
        )
        self.addCleanup(broker.kill)
        broker.start()
        broker.wait_for_log("registered in ZooKeeper")
        return broker

    def factory(self, **settings: Any) -> MessageSessionFactory:
        """A factory of the Twisted face."""
        names = ("recover_path", "local_message_path", "async_storage_path")
        paths = {name: self.mktemp() for name in names}
        given = {"zookeeper": self.zookeeper.connect_string, **paths, **settings}
        return MessageSessionFactory(**given)

    async def published(self, factory: MessageSessionFactory, count: int) -> None:
        """Wait until ZooKeeper shows the partitions."""
        while len(await factory.get_partitions_for_topic("test")) < count:
            await pause(0.05)

    def listen(self, message: ReceivedMessage) -> None:
        """The listener of the group."""
        self.received.append(message.data)

    async def load(self, producer: Any, seconds: float) -> None:
        """A thousand sends a second."""
        for _ in range(int(seconds / BURST_SECONDS)):
            for _ in range(BURST):
                self.sends.append(producer.send("test", b"%d" % len(self.sends)))
            await pause(BURST_SECONDS)

    async def stored(self, factory: MessageSessionFactory) -> list[bytes]:
        """All messages in the logs."""
        browser = await factory.create_topic_browser("test")
        found = [message.data async for message in browser]
        await browser.close()
        return found

    async def test_one_of_two(self) -> None:
        """One attempt for each send is enough, while a broker leaves and when it returns."""
        async with self.factory() as factory:
            await self.published(factory, 4)
            consumer = factory.create_consumer("readers")
            consumer.subscribe("test", listener=self.listen)
            await consumer.complete_subscribe()
            producer = await factory.create_producer("test", retries=0)
            loading = Deferred.fromCoroutine(self.load(producer, 5.0))
            await pause(1.0)
            await deferToThread(self.brokers[1].stop)
            await loading
            await pause(1.0)
            for send in self.sends:
                await send
            everything = {b"%d" % number for number in range(len(self.sends))}
            self.assertEqual(set(), everything - set(self.received))
            await deferToThread(self.brokers[1].start)
            await self.published(factory, 4)
            found = await self.stored(factory)
            self.assertEqual(len(self.sends), len(found))
            self.assertEqual(everything, set(found))

    async def test_the_only_one(self) -> None:
        """With the default time of a send a restart of the only broker fails none."""
        await deferToThread(self.brokers[1].stop)
        async with self.factory() as factory:
            await self.published(factory, 2)
            producer = await factory.create_producer("test")
            loading = Deferred.fromCoroutine(self.load(producer, 6.0))
            await pause(1.0)
            await deferToThread(self.brokers[0].stop)
            await deferToThread(self.brokers[0].start)
            await loading
            for send in self.sends:
                await send
            found = await self.stored(factory)
            self.assertEqual(len(self.sends), len(found))
            self.assertEqual(len(self.sends), len(set(found)))

    async def test_reasons(self) -> None:
        """The error of a failed send has the reason, and is raised at once."""
        before = await self.nodes()
        async with self.factory(zookeeper_root="/mtea") as factory:
            producer = await factory.create_producer("test")
            with self.assertRaisesRegex(WrongRoot, "registered below /meta"):
                await producer.send("test", b"x")
        connect = f"{self.zookeeper.connect_string}/nowhere"
        async with self.factory(zookeeper=connect) as factory:
            producer = await factory.create_producer("test")
            with self.assertRaisesRegex(WrongRoot, "no /nowhere, the chroot"):
                await producer.send("test", b"x")
        async with self.factory() as factory:
            producer = await factory.create_producer("tset")
            with self.assertRaisesRegex(UnknownTopic, "ids of the registered brokers: 0, 1"):
                await producer.send("tset", b"x")
        self.assertEqual(before, await self.nodes())

    async def nodes(self) -> list[str]:
        """The nodes at the top, and those of topics."""
        async with self.factory() as factory:
            topics = await factory.registry.children("/meta/brokers/topics-pub")
            return [*await factory.registry.children("/"), *topics]

    async def test_message_that_the_broker_refuses(self) -> None:
        """A body beyond the broker's limit is refused in its words; other sends continue."""
        async with self.factory() as factory:
            producer = await factory.create_producer("test")
            with self.assertRaisesRegex(BadRequest, "longer than max-body-bytes, 1048576"):
                await producer.send("test", bytes(1500000))
            await producer.send("test", b"x")
