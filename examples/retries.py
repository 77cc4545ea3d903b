"""What a send tells, and what to do with it."""

import asyncio

from metamorphosis.client.aio import MessageSessionFactory
from metamorphosis.errors import InvalidMessage, MetaQError


async def main():
    # A send is tried again for ten seconds, whatever fails in a way that may pass.
    settings = {"zookeeper": "localhost:2181", "delivery_timeout_ms": 10_000}
    async with MessageSessionFactory(**settings) as factory:
        producer = await factory.create_producer("test")
        for body in (b"order 1", b"order 2", b"x" * (3 << 20)):
            try:
                result = await producer.send("test", body)
            except InvalidMessage as error:
                print("never:", type(error).__name__)  # nothing was sent, and nothing will help
            except MetaQError as error:
                if error.outcome_known:
                    print("not stored:", error)  # safe to send again later
                else:
                    # It may be stored. Sent again it may be there twice: let consumers notice,
                    # by a number of the order for instance.
                    print("perhaps stored:", error)
            else:
                print("stored at", result.offset, "of", result.partition)


asyncio.run(main())
