"""
One measurement of a Kafka client; runs in the environment of ``kafka.python``, so it imports
nothing of ours. Prints one line of JSON.

``kafkaclients.py WORKLOAD PORT --seconds S --window W --size BYTES --messages N``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import uuid
from typing import Any

WARM_UP = 1.0
TOPIC = "bench"


def main() -> None:
    """Run the workload that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--messages", type=int, default=200000)
    options = parser.parse_args()
    print(json.dumps({"rate": WORKLOADS[options.workload](options)}))


def fill(options: argparse.Namespace) -> float:
    """Store the messages that are read later."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": f"127.0.0.1:{options.port}", "acks": "1"})
    body = bytes(options.size)
    for _ in range(options.messages):
        while True:
            try:
                producer.produce("reads", body, partition=0)
                break
            except BufferError:
                producer.poll(0.1)
    left = producer.flush(60)
    if left:
        raise SystemExit(f"{left} messages were not stored")
    return float(options.messages)


def aiokafka_produce(options: argparse.Namespace) -> float:
    """So many sends in flight, each result awaited."""

    async def run() -> float:
        from aiokafka import AIOKafkaProducer

        producer = AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{options.port}", acks=1)
        await producer.start()
        body = bytes(options.size)
        await producer.send_and_wait(TOPIC, body, partition=0)
        begin = time.perf_counter() + WARM_UP
        end = begin + options.seconds
        done = 0

        async def worker() -> None:
            nonlocal done
            while (now := time.perf_counter()) < end:
                await producer.send_and_wait(TOPIC, body, partition=0)
                done += now >= begin

        await asyncio.gather(*(worker() for _ in range(options.window)))
        rate = done / (time.perf_counter() - begin)
        await producer.stop()
        return rate

    return asyncio.run(run())


def aiokafka_consume(options: argparse.Namespace) -> float:
    """``getmany``: batches."""
    return asyncio.run(_aiokafka_consume(options, many=True))


def aiokafka_iterate(options: argparse.Namespace) -> float:
    """``async for``."""
    return asyncio.run(_aiokafka_consume(options, many=False))


async def _aiokafka_consume(options: argparse.Namespace, many: bool) -> float:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        "reads",
        bootstrap_servers=f"127.0.0.1:{options.port}",
        group_id=str(uuid.uuid4()),
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=1 << 20,
    )
    await consumer.start()
    seen, begin = 0, 0.0
    if many:
        while seen < options.messages:
            for batch in (await consumer.getmany(timeout_ms=1000)).values():
                begin = begin or time.perf_counter()
                seen += len(batch)
    else:
        async for _ in consumer:
            begin = begin or time.perf_counter()
            seen += 1
            if seen >= options.messages:
                break
    rate = seen / (time.perf_counter() - begin)
    await consumer.stop()
    return rate


def confluent_produce(options: argparse.Namespace) -> float:
    """So many sends in flight, each with a delivery callback; linger 0 as the others."""
    from confluent_kafka import Producer

    producer = Producer(
        {"bootstrap.servers": f"127.0.0.1:{options.port}", "acks": "1", "linger.ms": 0}
    )
    body = bytes(options.size)
    in_flight = done = 0

    def delivered(error: Any, message: Any) -> None:
        nonlocal in_flight, done
        in_flight -= 1
        done += 1

    begin = time.perf_counter() + WARM_UP
    end = begin + options.seconds
    counted = -1
    while (now := time.perf_counter()) < end:
        if counted < 0 and now >= begin:
            counted, begin = done, now
        while in_flight < options.window:
            in_flight += 1
            producer.produce(TOPIC, body, partition=0, on_delivery=delivered)
        producer.poll(0.01)
    rate = (done - counted) / (time.perf_counter() - begin)
    producer.flush(10)
    return rate


def confluent_consume(options: argparse.Namespace) -> float:
    """``consume``: batches of 1000."""
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": f"127.0.0.1:{options.port}",
            "group.id": str(uuid.uuid4()),
            "auto.offset.reset": "earliest",
            "fetch.message.max.bytes": 1 << 20,
        }
    )
    consumer.subscribe(["reads"])
    seen, begin = 0, 0.0
    while seen < options.messages:
        found = consumer.consume(1000, timeout=1.0)
        if found:
            begin = begin or time.perf_counter()
            seen += len(found)
    rate = seen / (time.perf_counter() - begin)
    consumer.close()
    return rate


WORKLOADS = {
    "fill": fill,
    "aiokafka-produce": aiokafka_produce,
    "aiokafka-consume": aiokafka_consume,
    "aiokafka-iterate": aiokafka_iterate,
    "confluent-produce": confluent_produce,
    "confluent-consume": confluent_consume,
}

if __name__ == "__main__":
    main()
