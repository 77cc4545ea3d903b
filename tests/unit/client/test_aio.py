"""The asyncio face over real sockets, and what is asyncio's own."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import AsyncMock, patch

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.aio import MessageSessionFactory
from metamorphosis.client.runtimes.aio import AsyncioRuntime, _close_all, _LoopReactor
from metamorphosis.client.runtimes.aiolink import AsyncioLink
from metamorphosis.client.runtimes.aiolog import StandardLog
from metamorphosis.errors import InvalidConfig, NotConnected, SendTimeout
from metamorphosis.testing.registry import MemoryRegistry
from tests.support.fakebroker import FakeBroker, serving
from tests.support.leftovers import new_threads


def on_loop(test: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], None]:
    """Run the test on a loop of its own, within a minute; whatever it leaves behind is an error."""

    def run(self: Any) -> None:
        complaints: list[Any] = []

        async def bounded() -> None:
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: complaints.append(context)
            )
            async with asyncio.timeout(60):
                await test(self)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            self.assertEqual(set(), left)

        asyncio.run(bounded())
        self.assertEqual([], complaints)

    run.__doc__ = test.__doc__
    return run


class FactoryTests(SynchronousTestCase):
    """Producer, consumer, browser, statistics."""

    def setUp(self) -> None:
        """No log lines on the terminal."""
        logger = logging.getLogger("metamorphosis.client")
        logger.setLevel(logging.CRITICAL)
        self.addCleanup(logger.setLevel, logging.NOTSET)

    @on_loop
    async def test_there_and_back(self) -> None:
        """Messages sent are consumed and browsed; nothing is left on the loop."""
        broker = FakeBroker()
        async with (
            serving(broker) as address,
            MessageSessionFactory(broker=address) as factory,
        ):
            async with await factory.create_producer("test") as producer:
                sent = [producer.send("test", b"%d" % number) for number in range(5)]
                self.assertTrue(all(isinstance(each, asyncio.Future) for each in sent))
                results = await asyncio.gather(*sent)
                self.assertEqual([0, 21, 42, 63, 84], [each.offset for each in results])
            consumer = factory.create_consumer("g", partition="0-0", long_poll_ms=0)
            await consumer.subscribe("test").complete_subscribe()
            got = []
            async for message in consumer:
                got.append(message.data)
                if len(got) == 5:
                    break
            self.assertEqual([b"0", b"1", b"2", b"3", b"4"], got)
            stats = await factory.get_stats(item="topics")
            self.assertEqual("topics", stats[f"meta://{address}"]["item"])

    @on_loop
    async def test_nobody_there(self) -> None:
        """An error within the time, and nothing is left."""
        async with serving(FakeBroker()) as address:
            pass
        factory = MessageSessionFactory(broker=address, refused_timeout_ms=50)
        with self.assertRaisesRegex(NotConnected, "Connection refused"):
            await factory.start()
        await factory.close()

    @on_loop
    async def test_name_that_does_not_resolve(self) -> None:
        """The error names the system's reason, and comes as soon."""
        factory = MessageSessionFactory(broker="nowhere.invalid:1", refused_timeout_ms=50)
        loop = asyncio.get_running_loop()
        reason = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        with (
            patch.object(loop, "getaddrinfo", AsyncMock(side_effect=reason)),
            self.assertRaisesRegex(NotConnected, "Name or service not known"),
        ):
            await factory.start()
        await factory.close()

    @on_loop
    async def test_every_address_of_a_name_is_tried(self) -> None:
        """The broker listens on one of them; where none answers the last reason counts."""
        loop = asyncio.get_running_loop()
        async with serving(FakeBroker()) as address:
            port = int(address.rpartition(":")[2])
            found = [
                (socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))
                for host in ("127.0.0.2", "127.0.0.1")
            ]
            with patch.object(loop, "getaddrinfo", AsyncMock(return_value=found)):
                async with MessageSessionFactory(broker=f"two:{port}") as factory:
                    self.assertEqual([f"meta://two:{port}"], factory.connections.connected_urls())

    @on_loop
    async def test_numeric_address(self) -> None:
        """It needs no thread, which would resolve a name."""
        loop = asyncio.get_running_loop()
        async with serving(FakeBroker()) as address:
            with patch.object(loop, "getaddrinfo", AsyncMock(side_effect=OSError("asked"))):
                async with MessageSessionFactory(broker=address) as factory:
                    self.assertEqual([f"meta://{address}"], factory.connections.connected_urls())

    @on_loop
    async def test_broker_that_never_answers(self) -> None:
        """Accepts and is silent: the send fails in time."""
        broker = FakeBroker()
        broker.answer = lambda buffer: b""  # type: ignore[method-assign]
        async with (
            serving(broker) as address,
            MessageSessionFactory(broker=address, send_timeout_ms=60) as factory,
        ):
            producer = await factory.create_producer("test", retries=0)
            with self.assertRaises(SendTimeout) as caught:
                await producer.send("test", b"hello")
            self.assertFalse(caught.exception.outcome_known)

    @on_loop
    async def test_abandoned_send(self) -> None:
        """A cancelled wait affects no other; its answer is dropped."""
        broker = FakeBroker()
        async with (
            serving(broker) as address,
            MessageSessionFactory(broker=address) as factory,
        ):
            producer = await factory.create_producer("test")
            sent = producer.send("test", b"first")
            sent.cancel()
            result = await producer.send("test", b"second")
            self.assertEqual(25, result.offset)

    @on_loop
    async def test_settings(self) -> None:
        """Checked when the factory is made."""
        with self.assertRaises(InvalidConfig):
            MessageSessionFactory()

    def test_no_loop(self) -> None:
        """Outside of a coroutine there is no loop to run on; one can be given."""
        with self.assertRaises(RuntimeError):
            MessageSessionFactory(broker="host:1")
        loop = asyncio.new_event_loop()
        factory = MessageSessionFactory(broker="host:1", loop=loop)
        loop.run_until_complete(factory.close())
        loop.close()

    def test_program_that_does_not_close(self) -> None:
        """The loop ends, and no line is written about what it interrupts."""
        complaints: list[Any] = []

        async def program() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            factory = MessageSessionFactory(broker="host:1")
            factory.runtime.connect = lambda *_: loop.create_future()
            factory.start()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        with self.assertNoLogs("metamorphosis.client"):
            asyncio.run(program())
        self.assertEqual([], complaints)


class ClosingTests(SynchronousTestCase):
    """The parts of a factory that was dropped."""

    def test_one_after_the_other(self) -> None:
        """Each ends before the next one is closed, whatever it raises."""
        order: list[str] = []

        async def first() -> None:
            await asyncio.sleep(0)
            order.append("first has ended")
            raise ZeroDivisionError

        def second() -> None:
            order.append("second")

        with self.assertLogs("metamorphosis.client", logging.ERROR) as logged:
            asyncio.run(_close_all([first, second]))
        self.assertEqual((["first has ended", "second"], 1), (order, len(logged.output)))


class RuntimeTests(SynchronousTestCase):
    """Beyond the contract."""

    @on_loop
    async def test_tasks_are_kept(self) -> None:
        """A coroutine without references runs to its end, despite the garbage collector."""
        import gc

        runtime = AsyncioRuntime()
        done = []

        async def work() -> None:
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.01, future.set_result, None)
            gc.collect()
            await future
            done.append(1)

        runtime.start(work())
        gc.collect()
        while not done:
            await asyncio.sleep(0)

    @on_loop
    async def test_loops_receive_into_their_own_memory(self) -> None:
        """Two loops in two threads receive at the same time, into buffers of their own."""

        class Receiver:
            got = b""

            def room(self) -> None:
                return None

            def data_received(self, data: bytes) -> None:
                self.got = data

        receivers: Any = Receiver(), Receiver()
        links = [AsyncioLink(receiver, AsyncioRuntime().buffer) for receiver in receivers]
        for link, data in zip(links, (b"one", b"two")):
            link.get_buffer(-1)[:3] = data
        for link in links:
            link.buffer_updated(3)
        self.assertEqual([b"one", b"two"], [receiver.got for receiver in receivers])

    @on_loop
    async def test_deferred_of_a_listener(self) -> None:
        """A Deferred that fires in the loop's thread can be waited for."""
        deferred: Deferred[int] = Deferred()
        future = AsyncioRuntime().adopt(deferred)
        asyncio.get_running_loop().call_soon(deferred.callback, 5)
        self.assertEqual(5, await future)

    @on_loop
    async def test_registry_from_settings(self) -> None:
        """ZooKeeper that is not there: operations fail, and the end is bounded."""
        runtime = AsyncioRuntime()
        registry = runtime.registry("127.0.0.1:1", 30000)
        await registry.start()
        error = (await asyncio.gather(registry.get("/"), return_exceptions=True))[0]
        self.assertEqual("RegistryUnavailable", type(error).__name__)
        await registry.stop()

    @on_loop
    async def test_cancelled_operation(self) -> None:
        """The late answer to a cancelled operation of the registry is not an error."""
        memory = MemoryRegistry()
        registry = AsyncioRuntime().adopt_registry(memory)
        await registry.start()
        memory.hold()
        operation = registry.create("/a", b"", False)
        operation.cancel()
        await asyncio.sleep(0)
        memory.release()
        self.assertIn("/a", memory.tree.nodes)

    def test_timer_of_the_shim(self) -> None:
        """``active`` and ``cancel`` are those of ``IDelayedCall``."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        reactor = _LoopReactor(loop)
        calls: list[int] = []
        fires = reactor.callLater(0, calls.append, 1)
        never = reactor.callLater(0, calls.append, 2)
        self.assertTrue(never.active())
        never.cancel()
        self.assertFalse(never.active())
        loop.call_later(0.01, loop.stop)
        loop.run_forever()
        self.assertEqual([1], calls)
        self.assertFalse(fires.active())
        self.patch(loop, "time", lambda: 7.5)
        self.assertEqual(7.5, reactor.seconds())

    def test_closed_loop(self) -> None:
        """A thread that reports to a loop that has ended is not told about it."""
        loop = asyncio.new_event_loop()
        loop.close()
        _LoopReactor(loop).callFromThread(print, "never")

    def test_factory_dropped_after_its_loop(self) -> None:
        """The threads of its ZooKeeper client end, although nothing runs in the loop any more."""
        before = threading.enumerate()

        async def begin() -> tuple[AsyncioRuntime, Any]:
            runtime = AsyncioRuntime()
            registry = runtime.registry("127.0.0.1:1", 30000)
            await registry.start()
            return runtime, registry

        loop = asyncio.new_event_loop()
        runtime, registry = loop.run_until_complete(begin())
        loop.close()
        self.assertTrue(new_threads(before))
        runtime.abandon([registry.stop])
        for thread in new_threads(before):
            thread.join(20)
        self.assertEqual(set(), new_threads(before))

    def test_log(self) -> None:
        """Fields in braces become text; levels and tracebacks are those of ``logging``."""
        with self.assertLogs("metamorphosis.test", logging.INFO) as caught:
            log = StandardLog("metamorphosis.test")
            log.debug("not {a}", a=1)
            log.info("broker {url}: 100% {a}", url="{x}", a=1)
            log.warn("warned")
            try:
                raise ZeroDivisionError("on purpose")
            except ZeroDivisionError:
                log.failure("failed")
        texts = [each.getMessage() for each in caught.records]
        self.assertEqual(["broker {x}: 100% 1", "warned", "failed"], texts)
        self.assertIsNotNone(caught.records[2].exc_info)
