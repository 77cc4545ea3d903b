"""A service that handles messages one by one, until it is stopped."""

import asyncio
import signal

from metamorphosis.client.aio import MessageSessionFactory


async def handle(message):
    """An exception here means: again later. Afterwards the message counts as done."""
    print("got", message.data.decode(), "from", message.partition, flush=True)


async def main():
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with MessageSessionFactory(zookeeper="localhost:2181") as factory:
        consumer = factory.create_consumer(group="listener")
        consumer.subscribe("test", listener=handle)
        await consumer.complete_subscribe()
        await stopped.wait()
    print("stopped", flush=True)


asyncio.run(main())
