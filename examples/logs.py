"""The client logs with ``logging``, under ``metamorphosis.client``."""

import asyncio
import logging

from metamorphosis.client.aio import MessageSessionFactory

logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
# The life of connections, sessions and groups; WARNING is enough in production.
logging.getLogger("metamorphosis.client").setLevel(logging.INFO)
# kazoo speaks to ZooKeeper; what matters of it the client says itself.
logging.getLogger("kazoo").setLevel(logging.ERROR)


async def main():
    async with MessageSessionFactory(zookeeper="localhost:2181") as factory:
        producer = await factory.create_producer("test")
        await producer.send("test", b"hello")


asyncio.run(main())
