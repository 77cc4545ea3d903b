"""Consumers that join a group one after another, on a real broker and a real ZooKeeper."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from unittest import IsolatedAsyncioTestCase

from metamorphosis.client.aio import MessageSessionFactory
from metamorphosis.client.model import ReceivedMessage
from tests.support import zookeeper
from tests.support.broker import BrokerProcess

MEMBERS = 6
MESSAGES = 100
WAIT_SECONDS = 30.0


async def closed(factory: MessageSessionFactory) -> None:
    """Close it. trial does not await a clean-up that is not a coroutine function."""
    await factory.close()


class JoiningTests(IsolatedAsyncioTestCase):
    """One topic of ten partitions, one producer, six consumers."""

    skip = zookeeper.missing()

    def setUp(self) -> None:
        """A broker with a root of its own."""
        directory = tempfile.mkdtemp(prefix="metamorphosis-joining-")
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        self.root = f"/{os.path.basename(directory)}"
        self.zookeeper = zookeeper.shared()
        self.broker = BrokerProcess(
            directory,
            topics={"test": {"numPartitions": 10}},
            zookeeper=self.zookeeper,
            zookeeper_keys={"zk.zkRoot": self.root},
        )
        self.addCleanup(self.broker.kill)
        self.broker.start()
        self.broker.wait_for_log("registered in ZooKeeper")
        self.received: Counter[bytes] = Counter()

    def factory(self) -> MessageSessionFactory:
        """A session factory; two members of a group need two."""
        return MessageSessionFactory(
            zookeeper=self.zookeeper.connect_string, zookeeper_root=self.root
        )

    def listen(self, message: ReceivedMessage) -> None:
        """The listener of all members."""
        self.received[message.data] += 1

    async def join(self) -> None:
        """One more member; it leaves at the end of the test."""
        factory = self.factory()
        self.addAsyncCleanup(closed, factory)
        consumer = factory.create_consumer(group="g", max_delay_fetch_time_ms=200)
        consumer.subscribe("test", listener=self.listen)
        await consumer.complete_subscribe()

    async def test_row_58_six_join_one_after_another(self) -> None:
        """A hundred messages, sent while the members join, are received once each."""
        producing = self.factory()
        self.addAsyncCleanup(closed, producing)
        producer = await producing.create_producer("test")
        sent = [b"%d" % number for number in range(MESSAGES)]
        each = MESSAGES // MEMBERS
        for member in range(MEMBERS):
            await self.join()
            last = MESSAGES if member == MEMBERS - 1 else (member + 1) * each
            for body in sent[member * each : last]:
                await producer.send("test", body)
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while len(self.received) < MESSAGES and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        self.assertEqual(Counter(sent), self.received)
