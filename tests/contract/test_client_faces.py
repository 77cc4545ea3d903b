"""What every face of the client does: one scenario for Twisted, asyncio and plain calls."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Coroutine
from inspect import isawaitable
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from metamorphosis.client import aio, blocking, tx
from metamorphosis.client.model import Lag, Partition
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.client.runtimes.loopthread import LoopThread
from metamorphosis.errors import ClientClosed
from metamorphosis.ids import EPOCH_MS
from metamorphosis.message import encode_record
from tests.support.fakebroker import FakeBroker, listen

SECONDS = 60.0
PARTITION = Partition(0, 0)

Scenario = Callable[[Any], Coroutine[Any, Any, None]]


def scenario(method: Scenario) -> Callable[[Any], Any]:
    """Make a test of a coroutine method: it awaits ``got`` of what a face gives."""

    @functools.wraps(method)
    def test(case: Any) -> Any:
        return case.perform(method(case))

    vars(test).pop("__wrapped__")  # trial would look at the coroutine
    return test


async def got(given: Any) -> Any:
    """The result of a call, be it a future or the result itself."""
    return await given if isawaitable(given) else given


class Face:
    """
    A broker in a thread of its own, and factories of one face.

    :ivar broker: its messages.
    """

    module: Any

    def setUp(self) -> None:
        """Begin to listen."""
        case: Any = self
        logger = logging.getLogger("metamorphosis.client")
        logger.setLevel(logging.CRITICAL)
        case.addCleanup(logger.setLevel, logging.NOTSET)
        self.broker = FakeBroker()
        side = LoopThread("broker")
        server, self.address = side.call(listen, self.broker)
        case.addCleanup(side.stop)
        case.addCleanup(side.call, self.broker.end)
        case.addCleanup(side.call, server.close)

    def perform(self, coroutine: Coroutine[Any, Any, None]) -> Any:
        """Run a scenario to its end."""
        raise AssertionError("a face does that")

    def sleep(self, seconds: float) -> Any:
        """Let time pass."""
        raise AssertionError("a face has it")

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something that will happen."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it does not happen"
            await got(self.sleep(0.005))

    def factory(self, **settings: Any) -> Any:
        """The scenario closes it."""
        return self.module.MessageSessionFactory(broker=self.address, **settings)


class OnTwisted(Face, TestCase):
    """Trial's reactor."""

    module = tx
    timeout = SECONDS

    def perform(self, coroutine: Coroutine[Any, Any, None]) -> Any:
        """See ``Face``."""
        return Deferred.fromCoroutine(coroutine)

    def sleep(self, seconds: float) -> Any:
        """See ``Face``."""
        return deferLater(global_reactor, seconds, lambda: None)


class OnAsyncio(Face, SynchronousTestCase):
    """A loop for each scenario."""

    module = aio

    def perform(self, coroutine: Coroutine[Any, Any, None]) -> Any:
        """See ``Face``."""
        asyncio.run(asyncio.wait_for(coroutine, SECONDS))

    def sleep(self, seconds: float) -> Any:
        """See ``Face``."""
        return asyncio.sleep(seconds)


class OnThread(Face, SynchronousTestCase):
    """Plain calls: no await of the scenario waits."""

    module = blocking

    def perform(self, coroutine: Coroutine[Any, Any, None]) -> Any:
        """See ``Face``."""
        try:
            coroutine.send(None)
        except StopIteration:
            return
        raise AssertionError("a plain call has given something to await")

    def sleep(self, seconds: float) -> Any:
        """See ``Face``."""
        time.sleep(seconds)


class Contract:
    """What a consumer does."""

    broker: FakeBroker
    factory: Any
    until: Any
    assertEqual: Any
    assertRaises: Any

    async def begin(self, factory: Any, *bodies: bytes, **settings: Any) -> Any:
        """A consumer of a partition with these messages, whose topic is not subscribed yet."""
        producer = await got(factory.create_producer("test"))
        for body in bodies:
            await got(producer.send("test", body))
        options = {"partition": "0-0", "long_poll_ms": 0, "max_delay_fetch_time_ms": 10}
        return factory.create_consumer("g", **options, **settings)

    @scenario
    async def test_committed_end_and_lag(self) -> None:
        """Of a group that begins: without a position, and after a commit."""
        factory, store = self.factory(), MemoryOffsetStore()
        consumer = await self.begin(factory, b"1", b"2", b"3", store=store)
        self.assertEqual(None, await got(consumer.committed("test", PARTITION)))
        self.assertEqual(63, await got(consumer.end("test", PARTITION)))
        lags = await got(consumer.lag("test"))
        self.assertEqual({PARTITION: Lag(None, -1, 0, 63)}, lags)
        seen: list[bytes] = []
        consumer.subscribe("test", listener=lambda message: seen.append(message.data))
        await got(consumer.complete_subscribe())
        await self.until(lambda: len(seen) == 3)
        self.assertEqual(True, await got(consumer.commit()))
        self.assertEqual(63, (await got(consumer.committed("test", PARTITION))).offset)
        ((partition, lag),) = (await got(consumer.lag("test"))).items()
        self.assertEqual((PARTITION, 63, 0, 63, 0), (partition, *_numbers(lag)))
        self.assertEqual({}, await got(consumer.lag("other")))
        await got(factory.close())
        with self.assertRaises(ClientClosed):
            await got(consumer.lag("test"))

    @scenario
    async def test_begin_at_a_time(self) -> None:
        """A group without a position begins there; the same place by hand."""
        ids = [second * 1000 << 22 for second in range(1, 6)]
        log = bytearray().join(encode_record(each, 0, b"x") for each in ids)
        self.broker.logs["test", 0] = log
        time = EPOCH_MS + 4000
        factory = self.factory()
        consumer = await self.begin(factory, offset_at_ms=time)
        seen: list[int] = []
        consumer.subscribe("test", listener=lambda message: seen.append(message.id))
        await got(consumer.complete_subscribe())
        await self.until(lambda: len(seen) == 2)
        self.assertEqual(ids[3:], seen)
        self.assertEqual(63, await got(consumer.offset_at("test", PARTITION, time)))
        await got(factory.close())


def _numbers(lag: Lag) -> tuple[int | None, ...]:
    return lag.committed, lag.begin, lag.end, lag.bytes


class TwistedTests(Contract, OnTwisted):
    """On Twisted."""


class AsyncioTests(Contract, OnAsyncio):
    """On asyncio."""


class BlockingTests(Contract, OnThread):
    """Plain calls."""
