"""
One measurement of our client. Prints one line of JSON.

``python -m benchmarks.clients.ours WORKLOAD --face tx|aio --broker HOST:PORT ...``
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.processes import resident_kib

WARM_UP = 1.0
TOPIC = "bench"
PROBES = 400
PAUSE = 0.01  # between the messages whose latency is measured

Result = dict[str, float]
"""``rate``: messages per second; ``cpu_us``: CPU time of the process for each, all threads."""
Workload = Callable[[Any, argparse.Namespace], Awaitable[Result]]


class Stretch:
    """A measured stretch of messages. It begins when it is made."""

    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def of(self, messages: int) -> Result:
        """The figures of so many messages from the begin until now."""
        cpu = time.process_time() - self._cpu
        seconds = time.perf_counter() - self._began
        return {"rate": messages / seconds, "cpu_us": cpu / messages * 1e6}


async def produce(face: Any, options: argparse.Namespace) -> Result:
    """So many sends in flight, each result awaited."""
    body = bytes(options.size)
    async with face.factory(broker=options.broker) as factory:
        producer = await factory.create_producer(TOPIC)
        await producer.send(TOPIC, body)
        end = 0.0
        done = 0

        async def worker() -> None:
            nonlocal done
            send, clock = producer.send, time.perf_counter
            while clock() < end:
                await send(TOPIC, body)
                done += 1

        async def run(seconds: float) -> Result:
            nonlocal end, done
            done, end = 0, time.perf_counter() + seconds
            stretch = Stretch()
            await face.all([worker() for _ in range(options.window)])
            return stretch.of(done)

        await run(WARM_UP)
        return await run(options.seconds)


async def send_many(face: Any, options: argparse.Namespace) -> Result:
    """Lists of messages, so many of them in flight, the results of each list awaited."""
    from metamorphosis.client.model import OutgoingMessage

    body = bytes(options.size)
    async with face.factory(broker=options.broker) as factory:
        producer = await factory.create_producer(TOPIC, in_order=options.in_order)
        await producer.send(TOPIC, body)
        end = 0.0
        done = 0

        async def worker() -> None:
            nonlocal done
            while time.perf_counter() < end:
                some = [OutgoingMessage(TOPIC, body) for _ in range(options.list)]
                await producer.send_many(some)
                done += options.list

        async def run(seconds: float) -> Result:
            nonlocal end, done
            done, end = 0, time.perf_counter() + seconds
            stretch = Stretch()
            await face.all([worker() for _ in range(options.window)])
            return stretch.of(done)

        await run(WARM_UP)
        return await run(options.seconds)


async def one_way(face: Any, options: argparse.Namespace) -> Result:
    """Sends that nobody waits for, as fast as the window takes them."""
    body = bytes(options.size)
    async with face.factory(broker=options.broker) as factory:
        producer = await factory.create_one_way_producer(TOPIC)

        async def run(seconds: float) -> Result:
            done, end = 0, time.perf_counter() + seconds
            stretch = Stretch()
            while time.perf_counter() < end:
                for _ in range(64):
                    producer.send(TOPIC, body)
                done += 64
                await producer.ready()
            return stretch.of(done)

        await run(WARM_UP)
        return await run(options.seconds)


async def consume(face: Any, options: argparse.Namespace) -> Result:
    """A listener that takes batches."""
    return await _consume(face, options, batch=True)


async def consume_one(face: Any, options: argparse.Namespace) -> Result:
    """A listener that takes one message at a time."""
    return await _consume(face, options, batch=False)


async def _consume(face: Any, options: argparse.Namespace, batch: bool) -> Result:
    seen, stretch = 0, Stretch()
    done = face.future()

    def count(number: int) -> None:
        nonlocal seen, stretch
        if not seen:
            stretch = Stretch()
        seen += number
        if seen >= options.messages and not done.called():
            done.fire(stretch.of(seen))

    listener: Callable[[Any], None]
    if batch:
        listener = lambda messages: count(len(messages))  # noqa: E731
    else:
        listener = lambda message: count(1)  # noqa: E731
    async with face.factory(broker=options.broker) as factory:
        consumer = factory.create_consumer(group=f"bench-{os.getpid()}", partition="0-0")
        consumer.subscribe("reads", max_size=1 << 20, listener=listener, batch=batch)
        await consumer.complete_subscribe()
        found: Result = await done.wait()
        return found


async def iterate(face: Any, options: argparse.Namespace) -> Result:
    """``async for``."""
    async with face.factory(broker=options.broker) as factory:
        consumer = factory.create_consumer(group=f"bench-{os.getpid()}", partition="0-0")
        consumer.subscribe("reads", max_size=1 << 20)
        await consumer.complete_subscribe()
        seen, stretch = 0, Stretch()
        async for _ in consumer:
            if not seen:
                stretch = Stretch()
            seen += 1
            if seen >= options.messages:
                break
        return stretch.of(seen)


async def latency(face: Any, options: argparse.Namespace) -> Result:
    """From the call of ``send`` to the listener, on an idle system, in ms."""
    arrived: list[float] = []
    waiting: list[Any] = []

    def listener(message: Any) -> None:
        if waiting:  # the first message is not yet flushed when the consumer asks for the end
            arrived.append(time.perf_counter() - float(message.data))
            waiting.pop().fire(None)

    async with face.factory(broker=options.broker) as factory:
        producer = await factory.create_producer(options.topic)
        consumer = factory.create_consumer(
            group=f"bench-{os.getpid()}", partition="0-0", always_consume_from_max_offset=True
        )
        consumer.subscribe(options.topic, max_size=1 << 20, listener=listener)
        await producer.send(options.topic, b"0")
        await consumer.complete_subscribe()
        await face.sleep(1.0)
        for _ in range(PROBES):
            waiting.append(face.future())
            await producer.send(options.topic, b"%.9f" % time.perf_counter())
            if waiting:
                await waiting[0].wait()
            await face.sleep(PAUSE)
    found = sorted(arrived[PROBES // 10 :])
    return {
        "median_ms": statistics.median(found) * 1000,
        "p99_ms": found[int(len(found) * 0.99)] * 1000,
    }


async def memory(face: Any, options: argparse.Namespace) -> Result:
    """
    What a consumer of 100 full partitions adds to the process while its listener stands still, in
    MiB, beside what its buffers may hold.
    """
    gc.collect()
    before = resident_kib(os.getpid())
    async with face.factory(zookeeper=options.zookeeper) as factory:
        consumer = factory.create_consumer(group=f"bench-{os.getpid()}")
        consumer.subscribe("wide", max_size=1 << 20)
        await consumer.complete_subscribe()
        async for _ in consumer:
            break
        await face.sleep(options.seconds)
        added = resident_kib(os.getpid()) - before
        buffers = consumer.config.max_buffered_bytes
        return {"added_mib": added / 1024, "buffers_mib": buffers / 2**20}


WORKLOADS: dict[str, Workload] = {
    "produce": produce,
    "send-many": send_many,
    "one-way": one_way,
    "consume": consume,
    "consume-one": consume_one,
    "iterate": iterate,
    "latency": latency,
    "memory": memory,
}


class AsyncioFace:
    """What the workloads need of asyncio."""

    def __init__(self) -> None:
        from metamorphosis.client.aio import MessageSessionFactory

        self.factory = MessageSessionFactory
        self.sleep = asyncio.sleep

    @staticmethod
    async def all(workers: list[Any]) -> None:
        """Run them side by side."""
        await asyncio.gather(*workers)

    @staticmethod
    def future() -> _Future:
        """Something to wait for."""
        future = asyncio.get_running_loop().create_future()
        return _Future(future, future.set_result, future.done)

    @staticmethod
    def run(workload: Workload, options: argparse.Namespace) -> None:
        """Run it and print what it found."""
        face = AsyncioFace()

        async def run() -> None:
            print(json.dumps(await workload(face, options)))

        asyncio.run(run())


class TwistedFace:
    """What the workloads need of Twisted."""

    def __init__(self, reactor: Any) -> None:
        from twisted.internet.task import deferLater

        from metamorphosis.client.tx import MessageSessionFactory

        self.factory = MessageSessionFactory
        self.sleep = lambda seconds: deferLater(reactor, seconds)

    @staticmethod
    async def all(workers: list[Any]) -> None:
        """Run them side by side."""
        from twisted.internet.defer import Deferred, gatherResults

        await gatherResults([Deferred.fromCoroutine(worker) for worker in workers])

    @staticmethod
    def future() -> _Future:
        """Something to wait for."""
        from twisted.internet.defer import Deferred

        future: Deferred[Any] = Deferred()
        return _Future(future, future.callback, lambda: future.called)

    @staticmethod
    def run(workload: Workload, options: argparse.Namespace) -> None:
        """Run it and print what it found."""
        from twisted.internet import task

        async def run(reactor: Any) -> None:
            print(json.dumps(await workload(TwistedFace(reactor), options)))

        task.react(lambda reactor: _deferred(run(reactor)))


def _deferred(coroutine: Any) -> Any:
    from twisted.internet.defer import Deferred

    return Deferred.fromCoroutine(coroutine)


class _Future:
    """A future of either face."""

    def __init__(
        self, awaited: Any, fire: Callable[[Any], object], called: Callable[[], bool]
    ) -> None:
        self._awaited = awaited
        self.fire = fire
        self.called = called

    async def wait(self) -> Any:
        """Its result."""
        return await self._awaited


def main() -> None:
    """Run the workload that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("--face", choices=("tx", "aio"), default="tx")
    parser.add_argument("--broker")
    parser.add_argument("--zookeeper")
    parser.add_argument("--topic", default=TOPIC)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--list", type=int, default=100, help="messages of a send_many")
    parser.add_argument("--in-order", action="store_true")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--messages", type=int, default=500000)
    options = parser.parse_args()
    face = TwistedFace if options.face == "tx" else AsyncioFace
    face.run(WORKLOADS[options.workload], options)


if __name__ == "__main__":
    sys.exit(main())
