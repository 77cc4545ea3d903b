"""The behaviour of every face of the client: one scenario for Twisted, asyncio and plain calls."""

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
from metamorphosis.errors import ClientClosed, InvalidArgument, InvalidState
from metamorphosis.ids import EPOCH_MS
from metamorphosis.message import encode_record
from tests.support.fakebroker import FakeBroker, listen

SECONDS = 60.0
PARTITION = Partition(0, 0)

Scenario = Callable[[Any], Coroutine[Any, Any, None]]


def scenario(method: Scenario) -> Callable[[Any], Any]:
    """Make a test of a coroutine method: it awaits ``got`` of each result of a face."""

    @functools.wraps(method)
    def test(case: Any) -> Any:
        return case.perform(method(case))

    vars(test).pop("__wrapped__")  # trial would look at the coroutine
    return test


async def got(given: Any) -> Any:
    """The result of a call, from a future or returned directly."""
    return await given if isawaitable(given) else given


async def all_of(messages: Any) -> list[Any]:
    """The messages of a loop that ends."""
    if hasattr(messages, "__aiter__"):
        return [each async for each in messages]
    return list(messages)


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
        """Wait until a condition holds."""
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

    module: Any
    broker: FakeBroker
    factory: Any
    until: Any
    assertEqual: Any
    assertRaises: Any

    async def begin(self, factory: Any, *bodies: bytes, **settings: Any) -> Any:
        """A consumer of a partition with these messages; its topic is not subscribed yet."""
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

    async def begin_iteration(self, factory: Any, *bodies: bytes) -> Any:
        """A consumer without a listener that has joined its group."""
        consumer = await self.begin(factory, *bodies)
        await got(consumer.subscribe("test").complete_subscribe())
        return consumer

    @scenario
    async def test_poll(self) -> None:
        """Lists with a time limit and a greatest length; the next acknowledges the last."""
        factory = self.factory()
        consumer = await self.begin_iteration(factory, b"1", b"2", b"3")
        found = await got(consumer.poll(SECONDS, 2))
        self.assertEqual([b"1", b"2"], [each.data for each in found])
        consumer.ack(found[0])
        self.assertEqual(21, consumer.assignment["test", PARTITION].offset)
        (third,) = await got(consumer.poll(max=2))
        self.assertEqual((b"3", 42), (third.data, consumer.assignment["test", PARTITION].offset))
        consumer.rollback(third)
        (third,) = await got(consumer.poll())
        self.assertEqual(b"3", third.data)
        self.assertEqual([], await got(consumer.poll(0)))
        self.assertEqual([], await got(consumer.poll(timeout=0.01)))
        self.assertEqual(63, consumer.assignment["test", PARTITION].offset)
        for wrong in ({"timeout": -1}, {"max": 0}, {"timeout": "1"}):
            with self.assertRaises(InvalidArgument):
                await got(consumer.poll(**wrong))
        await got(factory.close())
        with self.assertRaises(ClientClosed):
            await got(consumer.poll(0))

    @scenario
    async def test_poll_needs_a_topic(self) -> None:
        """``poll`` without a topic, or before the group is joined, is an error."""
        factory = self.factory()
        consumer = factory.create_consumer("g")
        for topic in ("test", "other"):
            with self.assertRaises(InvalidState):
                await got(consumer.poll(0))
            with self.assertRaises(InvalidState):
                consumer.messages(1)
            consumer.subscribe(topic)
        await got(factory.close())

    @scenario
    async def test_loop_with_a_limit(self) -> None:
        """The iteration ends when no message arrives within the time; a new iteration continues."""
        factory = self.factory()
        consumer = await self.begin_iteration(factory, b"1", b"2")
        (first,) = await got(consumer.poll(SECONDS, 1))
        self.assertEqual(b"1", first.data)
        for expected in ([b"2"], []):  # fetched together with the first
            seen = [each.data for each in await all_of(consumer.messages(0.01))]
            self.assertEqual(expected, seen)
        self.assertEqual(42, consumer.assignment["test", PARTITION].offset)
        await got(factory.close())

    @scenario
    async def test_pause_and_resume(self) -> None:
        """No message arrives in between, and none is lost."""
        factory = self.factory()
        consumer = await self.begin_iteration(factory)
        consumer.pause("test", PARTITION)
        self.assertEqual({("test", PARTITION)}, consumer.paused)
        producer = await got(factory.create_producer("test"))
        await got(producer.send("test", b"1"))
        self.assertEqual([], await got(consumer.poll(0.05)))
        consumer.resume("test", PARTITION)
        self.assertEqual([b"1"], [each.data for each in await got(consumer.poll(SECONDS))])
        with self.assertRaises(InvalidState):
            consumer.pause("other", PARTITION)
        await got(factory.close())

    @scenario
    async def test_counts(self) -> None:
        """The numbers of delivered, failed and stored messages, for metrics."""
        factory = self.factory()
        consumer = await self.begin_iteration(factory, b"1", b"2")
        self.assertEqual((0,) * 9, factory.create_consumer("other").counts)
        for message in await got(consumer.poll(SECONDS, 1)):
            consumer.rollback(message)
        while consumer.assignment["test", PARTITION].offset < 42:
            await got(consumer.poll(SECONDS))
            await got(consumer.poll(0))
        await got(consumer.commit())
        counts = consumer.counts
        self.assertEqual((1, 0, 0), (counts.failed, counts.rejected, counts.failed_commits))
        self.assertEqual((4, 84, 0), (counts.delivered, counts.delivered_bytes, counts.damaged))
        self.assertEqual(True, counts.commits >= 1)
        await got(factory.close())

    @scenario
    async def test_assigned_and_revoked(self) -> None:
        """The listener is called at the beginning, where a seek has effect, and at the end, before
        the last ack is too late."""
        factory = self.factory()
        consumer = await self.begin(factory, b"1", b"2", b"3", store=MemoryOffsetStore())
        told: list[Any] = []
        kept: list[Any] = []

        def assigned(keys: Any) -> None:
            told.append(keys)
            consumer.seek("test", PARTITION, 21)

        def revoked(keys: Any) -> None:
            told.append(keys)
            consumer.ack(kept[0])

        consumer.on_assigned(assigned).on_revoked(revoked)
        consumer.subscribe("test", listener=kept.append, auto_ack=False)
        await got(consumer.complete_subscribe())
        await self.until(lambda: len(kept) == 2)
        self.assertEqual([b"2", b"3"], [each.data for each in kept])
        store = consumer.committed("test", PARTITION)
        self.assertEqual(None, await got(store))
        await got(consumer.close())
        self.assertEqual([[("test", PARTITION)]] * 2, told)
        await got(factory.close())

    @scenario
    async def test_close_from_within_a_listener(self) -> None:
        """A ``close`` that would wait for itself fails at once; the message counts as failed, or as
        the listener decides."""
        factory = self.factory()
        consumer = await self.begin(factory, b"1")
        errors: list[str] = []

        def plain(message: Any) -> None:
            for close in (consumer.close, factory.close):
                try:
                    close()
                except InvalidState as error:
                    errors.append(str(error))

        async def awaiting(message: Any) -> None:
            for close in (consumer.close, factory.close):
                try:
                    await close()
                except InvalidState as error:
                    errors.append(str(error))

        consumer.subscribe("test", listener=plain if self.module is blocking else awaiting)
        await got(consumer.complete_subscribe())
        await self.until(lambda: len(errors) == 2)
        for text in errors:
            self.assertIn("close was called in a listener", text)
        self.assertEqual({("test", PARTITION)}, set(consumer.assignment))
        await got(factory.close())

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
