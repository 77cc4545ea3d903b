"""
Producers of the Python client, a broker process and a real ZooKeeper: no confirmed message is lost,
and order is kept, through kill -9 and outages.
"""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from metamorphosis.client import aio, tx
from metamorphosis.client.model import Partition
from metamorphosis.client.topics.selectors import OrderedSelector
from tests.support import zookeeper
from tests.support.broker import BrokerProcess

SETTINGS: dict[str, Any] = {"zookeeper_session_timeout_ms": 6000, "send_timeout_ms": 5000}


def pause(seconds: float) -> Deferred[None]:
    """Fires after so long."""
    done: Deferred[None] = Deferred()
    reactor.callLater(seconds, done.callback, None)  # type: ignore[attr-defined]
    return done


class ProducingTests(TestCase):
    """One broker with two partitions of ``test``."""

    skip = zookeeper.missing()
    timeout = 120

    def setUp(self) -> None:
        """Broker and ZooKeeper of one test."""
        server = zookeeper.ZooKeeperServer(self.mktemp())
        server.start()
        self.addCleanup(server.stop)
        self.broker = BrokerProcess(
            self.mktemp(),
            topics={"test": {"numPartitions": 2}},
            system={"unflushThreshold": 0},
            zookeeper=server,
        )
        self.addCleanup(self.broker.kill)
        self.broker.start()
        self.broker.wait_for_log("connected")
        self.connect = server.connect_string
        self.paths = {
            name: self.mktemp()
            for name in ("recover_path", "local_message_path", "async_storage_path")
        }

    def factory(self, **settings: Any) -> tx.MessageSessionFactory:
        """A factory of the Twisted face."""
        given = {**SETTINGS, **self.paths, **settings}
        return tx.MessageSessionFactory(zookeeper=self.connect, **given)

    async def published(self, factory: Any, count: int = 2) -> None:
        """Wait until ZooKeeper shows the partitions."""
        while len(await factory.get_partitions_for_topic("test")) < count:
            await pause(0.05)

    async def stored(self, factory: tx.MessageSessionFactory) -> dict[int, list[bytes]]:
        """Everything in the log, by partition, in order."""
        found: dict[int, list[bytes]] = {0: [], 1: []}
        browser = await factory.create_topic_browser("test")
        async for message in browser:
            found[message.partition.number].append(message.data)
        await browser.close()
        return found

    async def test_kill_in_order(self) -> None:
        """kill -9 of the broker while messages are sent: finally every send is confirmed, and each
        partition has the messages in the order of the sends, some of them repeated."""
        async with self.factory() as factory:
            await self.published(factory)
            producer = await factory.create_producer("test", retries=12, in_order=True)
            sends = []
            for number in range(600):
                data = b"%d" % number
                sends.append(producer.send("test", data, partition=Partition(0, number % 2)))
                if number == 200:
                    await sends[50]
                    self.broker.kill()
                    await pause(0.2)
                    await deferToThread(self.broker.start)
            for send in sends:
                await send
            found = await self.stored(factory)
        for partition, bodies in found.items():
            first = list(dict.fromkeys(int(body) for body in bodies))
            self.assertEqual([n for n in range(600) if n % 2 == partition], first)

    async def test_ordered_through_an_outage(self) -> None:
        """While the broker is away messages are kept on disk; when it is back they are in the log
        in order, before those sent afterwards."""
        partition = Partition(0, 1)
        selector = OrderedSelector({"test": [Partition(0, 0), partition]}, lambda *_: partition)
        async with self.factory(recover_message_interval_ms=500) as factory:
            await self.published(factory)
            producer = await factory.create_ordered_producer("test", selector)
            results = [await producer.send("test", b"%d" % number) for number in range(5)]
            self.assertEqual([True] * 5, [each.is_stored for each in results])
            await deferToThread(self.broker.stop)
            await pause(0.5)
            results = [await producer.send("test", b"%d" % number) for number in range(5, 40)]
            self.assertEqual([False] * 35, [each.is_stored for each in results])
            await deferToThread(self.broker.start)
            await self.published(factory)
            while producer.local_count("test", partition):
                await pause(0.1)
            self.assertTrue((await producer.send("test", b"40")).is_stored)
            found = await self.stored(factory)
        self.assertEqual([b"%d" % number for number in range(41)], found[1])

    async def test_one_way_through_a_restart_of_the_client(self) -> None:
        """Messages that could not be sent are kept, and sent by the next producer of another
        factory."""
        async with self.factory() as factory:
            await self.published(factory)
            producer = await factory.create_one_way_producer("test")
            await deferToThread(self.broker.stop)
            await pause(0.5)
            for number in range(300):
                producer.send("test", b"%d" % number)
        await deferToThread(self.broker.start)
        async with self.factory() as factory:
            await self.published(factory)
            producer = await factory.create_one_way_producer("test")
            while sum(map(len, (await self.stored(factory)).values())) < 300:
                await pause(0.1)
            found = await self.stored(factory)
        self.assertEqual({b"%d" % n for n in range(300)}, set(found[0] + found[1]))

    def test_asyncio(self) -> Deferred[None]:
        """The same on asyncio: 500 sends at once over both partitions, with attributes."""
        return deferToThread(asyncio.run, self._asyncio())

    async def _asyncio(self) -> None:
        given = {**SETTINGS, **self.paths}
        async with aio.MessageSessionFactory(zookeeper=self.connect, **given) as factory:
            while len(await factory.get_partitions_for_topic("test")) < 2:
                await asyncio.sleep(0.05)
            producer = await factory.create_producer("test")
            sends = [producer.send("test", b"%d" % n, f"a{n}") for n in range(500)]
            results = await asyncio.gather(*sends)
            self.assertEqual({0: 250, 1: 250}, _counts(each.partition.number for each in results))
            browser = await factory.create_topic_browser("test")
            found = {message.data: message.attribute async for message in browser}
            await browser.close()
        self.assertEqual({b"%d" % n: f"a{n}" for n in range(500)}, found)


def _counts(numbers: Any) -> dict[int, int]:
    found: dict[int, int] = {}
    for number in numbers:
        found[number] = found.get(number, 0) + 1
    return found
