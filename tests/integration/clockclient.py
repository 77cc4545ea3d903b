"""
A program with a producer and a consumer, for the tests of clocks::

    python -m tests.integration.clockclient twisted|asyncio|blocking CONNECT

Topic and group have the name of the face. It sends a message whenever the one before has been
answered, and prints, each on a line: ``sent`` for an answer, ``got`` for a message, ``owns N`` when
it has N partitions now, ``error`` and its text.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from metamorphosis.client import aio, blocking, tx
from metamorphosis.errors import MetaQError

PAUSE_SECONDS = 0.05
SETTINGS: dict[str, Any] = {
    "send_timeout_ms": 1000,
    "delivery_timeout_ms": 2000,
    "heartbeat_idle_ms": 1000,
    "heartbeat_timeout_ms": 1000,
    "zookeeper_session_timeout_ms": 6000,
    "zookeeper_sync_time_ms": 200,
}
CONSUMER: dict[str, Any] = {"max_delay_fetch_time_ms": 200, "long_poll_ms": 1000}


class Owned:
    """Says how many partitions the consumer has, when that changes."""

    def __init__(self) -> None:
        self._count = -1

    def look(self, consumer: Any) -> None:
        """It may have changed."""
        count = len(consumer.assignment)
        if count != self._count:
            self._count = count
            say(f"owns {count}")


def say(text: str) -> None:
    """One line."""
    print(text, flush=True)


async def run(face: str, factory: Any, pause: Any) -> None:
    """The program, for the two faces with coroutines."""
    consumer = factory.create_consumer(face, **CONSUMER)
    consumer.subscribe(face, listener=lambda _: say("got"))
    await consumer.complete_subscribe()
    producer = await factory.create_producer(face)
    owned = Owned()
    while True:
        owned.look(consumer)
        try:
            await producer.send(face, b"hello")
            say("sent")
        except MetaQError as error:
            say(f"error {error}")
        await pause(PAUSE_SECONDS)


def run_twisted(connect: str) -> None:
    """In the reactor of a program that is not ours; its own pauses need no timer of it."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.internet.threads import deferToThread

    def start() -> None:
        factory = tx.MessageSessionFactory(zookeeper=connect, **SETTINGS)
        pause = lambda seconds: deferToThread(time.sleep, seconds)  # noqa: E731
        Deferred.fromCoroutine(run("twisted", factory, pause)).addErrback(
            lambda f: say(f"error {f}")
        )

    reactor.callWhenRunning(start)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


def run_asyncio(connect: str) -> None:
    """In a loop."""

    async def start() -> None:
        await run(
            "asyncio", aio.MessageSessionFactory(zookeeper=connect, **SETTINGS), asyncio.sleep
        )

    asyncio.run(start())


def run_blocking(connect: str) -> None:
    """Without a loop."""
    face = "blocking"
    with blocking.MessageSessionFactory(zookeeper=connect, **SETTINGS) as factory:
        consumer = factory.create_consumer(face, **CONSUMER)
        consumer.subscribe(face, listener=lambda _: say("got"))
        consumer.complete_subscribe()
        producer = factory.create_producer(face)
        owned = Owned()
        while True:
            owned.look(consumer)
            try:
                producer.send(face, b"hello")
                say("sent")
            except MetaQError as error:
                say(f"error {error}")
            time.sleep(PAUSE_SECONDS)


FACES = {"twisted": run_twisted, "asyncio": run_asyncio, "blocking": run_blocking}

if __name__ == "__main__":
    FACES[sys.argv[1]](sys.argv[2])
