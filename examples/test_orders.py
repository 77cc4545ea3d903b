"""Tests of a program without a broker: ``python -m unittest test_orders``."""

import asyncio
import unittest

from metamorphosis.errors import InternalServerError
from metamorphosis.testing import MemoryCluster


async def confirm(factory, count):
    """The code under test: confirms so many orders."""
    producer = await factory.create_producer("confirmations")
    consumer = factory.create_consumer("confirming").subscribe("orders")
    await consumer.complete_subscribe()
    async for message in consumer:
        await producer.send("confirmations", b"confirmed: " + message.data)
        count -= 1
        if not count:
            consumer.ack(message)
            return


class ConfirmTests(unittest.IsolatedAsyncioTestCase):
    async def test_every_order_is_confirmed(self):
        cluster = MemoryCluster({"orders": 1, "confirmations": 1})
        cluster.brokers[0].append("orders", b"one", b"two")
        async with cluster.asyncio_factory() as factory:
            await asyncio.wait_for(confirm(factory, 2), 10)
        expected = [b"confirmed: one", b"confirmed: two"]
        self.assertEqual(cluster.bodies("confirmations"), expected)

    async def test_a_broker_that_refuses(self):
        cluster = MemoryCluster({"orders": 1, "confirmations": 1})
        cluster.brokers[0].append("orders", b"one")
        cluster.brokers[0].faults = lambda command: (
            InternalServerError("the disk is full")
            if type(command).__name__ == "PutCommand"
            else None
        )
        async with cluster.asyncio_factory() as factory:
            with self.assertRaises(InternalServerError):
                await asyncio.wait_for(confirm(factory, 1), 10)


if __name__ == "__main__":
    unittest.main()
