"""The positions of a group are kept in MySQL or MariaDB instead of ZooKeeper."""

import asyncio
import os
import signal

from metamorphosis.client.aio import MessageSessionFactory
from metamorphosis.client.offsets.mysql import MySQLOffsetStore
from metamorphosis.client.runtimes.aio import AsyncioRuntime


async def main():
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    # Arguments of pymysql.connect. ~/.my.cnf has host, user and password.
    store = MySQLOffsetStore(
        AsyncioRuntime(),
        table="metaq_offsets",
        database="metaq",
        read_default_file=os.path.expanduser("~/.my.cnf"),
    )
    async with MessageSessionFactory(zookeeper="localhost:2181") as factory:
        consumer = factory.create_consumer(group="mysql", store=store)
        consumer.subscribe(
            "test", listener=lambda message: print(message.data.decode(), flush=True)
        )
        await consumer.complete_subscribe()
        await stopped.wait()
    await store.close()  # after the consumers that use it


asyncio.run(main())
