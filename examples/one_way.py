"""Messages whose loss can be borne are sent without waiting for an answer."""

import asyncio

from metamorphosis.client.aio import MessageSessionFactory


async def main():
    # What cannot be sent now is kept in this directory, and sent later.
    settings = {"zookeeper": "localhost:2181", "async_storage_path": "one-way"}
    async with MessageSessionFactory(**settings) as factory:
        producer = await factory.create_one_way_producer("test")
        for number in range(1000):
            producer.send("test", b"click %d" % number)
    print("1000 clicks are on their way or kept")


asyncio.run(main())
