"""Messages about one customer stay in order: they go to one partition, one after the other."""

import asyncio

from metamorphosis.client.aio import MessageSessionFactory


async def main():
    async with MessageSessionFactory(zookeeper="localhost:2181") as factory:
        # in_order: also when a message has to be tried again, and with Java brokers
        producer = await factory.create_producer("test", in_order=True)
        sends = [
            producer.send("test", f"{customer}: step {step}".encode(), key=customer)
            for step in (1, 2, 3)
            for customer in ("ann", "bob")
        ]
        results = await asyncio.gather(*sends)
        ann, bob = results[0::2], results[1::2]
        for name, mine in (("ann", ann), ("bob", bob)):
            assert len({each.partition for each in mine}) == 1
            assert mine[0].offset < mine[1].offset < mine[2].offset
            print(name, "in partition", mine[0].partition)


asyncio.run(main())
