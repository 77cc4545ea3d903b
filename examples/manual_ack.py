"""The program says itself when messages are done: here after each ten of a partition."""

import asyncio
from collections import Counter
from contextlib import suppress

from metamorphosis.client.aio import MessageSessionFactory


class Refused(Exception):
    """What the message asks for cannot be done now."""


async def work_on(message):
    if message.data == b"bad":
        raise Refused


async def main():
    waiting = Counter()  # messages of each partition that are not acknowledged
    async with MessageSessionFactory(zookeeper="localhost:2181") as factory:
        consumer = factory.create_consumer(group="manual", max_fetch_retries=2)
        consumer.subscribe("test", auto_ack=False)
        await consumer.complete_subscribe()
        async for message in consumer:
            try:
                await work_on(message)
            except Refused:
                # What follows the last ack comes again after a pause; a message that fails too
                # often is put aside, and the others go on.
                consumer.rollback(message)
                print("rolled back", message.data.decode(), flush=True)
                waiting[message.partition] = 0
                continue
            waiting[message.partition] += 1
            if waiting[message.partition] == 10:
                consumer.ack(message)  # this one and all before it in its partition
                waiting[message.partition] = 0
                print("acknowledged", message.data.decode(), flush=True)


with suppress(KeyboardInterrupt):  # Ctrl-C: the end of `async with` stores what was acknowledged
    asyncio.run(main())
