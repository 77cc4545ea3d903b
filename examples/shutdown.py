"""A program that consumes and produces, and stops without losing or repeating more than it must."""

import asyncio
import signal

from metamorphosis.client.aio import MessageSessionFactory


async def main():
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)

    factory = MessageSessionFactory(zookeeper="localhost:2181")
    await factory.start()
    producer = await factory.create_producer("test")
    consumer = factory.create_consumer(group="shutdown", stop_timeout_ms=10_000)

    async def forward(message):
        """Done when the copy is stored: until then the original is not acknowledged."""
        if not message.data.startswith(b"copy of "):
            await producer.send("test", b"copy of " + message.data)
            print("copied", message.data.decode(), flush=True)

    consumer.subscribe("test", listener=forward)
    await consumer.complete_subscribe()
    await stopped.wait()

    # First the consumer: it waits for the listeners that run, ten seconds at most, stores its
    # positions and gives its partitions to the other members of the group. Then the producer, which
    # waits for the answers to what is under way; then connections and the ZooKeeper session.
    await consumer.close()
    await producer.close()
    await factory.close()
    print("stopped", flush=True)


asyncio.run(main())
