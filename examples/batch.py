"""Messages are written to a database, many in one transaction."""

import asyncio
import signal
import sqlite3

from metamorphosis.client.aio import MessageSessionFactory

database = sqlite3.connect("orders.sqlite3", isolation_level=None)
database.execute(
    "CREATE TABLE IF NOT EXISTS orders"
    " (partition TEXT, offset INTEGER, body BLOB, PRIMARY KEY (partition, offset))"
)


def store(messages):
    """A list of one partition. INSERT OR IGNORE: a message may come twice."""
    rows = [(str(each.partition), each.offset, each.data) for each in messages]
    database.execute("BEGIN")
    try:
        database.executemany("INSERT OR IGNORE INTO orders VALUES (?, ?, ?)", rows)
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
    (count,) = database.execute("SELECT count(*) FROM orders").fetchone()
    print(count, "orders", flush=True)


async def main():
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with MessageSessionFactory(zookeeper="localhost:2181") as factory:
        consumer = factory.create_consumer(group="batch")
        consumer.subscribe("test", listener=store, batch=True)
        await consumer.complete_subscribe()
        await stopped.wait()


asyncio.run(main())
