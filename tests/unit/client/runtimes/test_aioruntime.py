"""The parts of the asyncio runtime: its registry, log lines, links and timers."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.runtimes.aio import (
    AsyncioRegistry,
    AsyncioRuntime,
    _DelayedCall,
    _LoopReactor,
)
from metamorphosis.client.runtimes.aiolink import QUEUE_LIMIT, AsyncioLink
from metamorphosis.client.runtimes.aiolog import StandardLog
from tests.contract.test_runtime import Collector

NAME = "metamorphosis.test"


class Registry:
    """Notes each call; its result is the name of it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[object, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*values: object) -> Deferred[str]:
            self.calls.append((name, values))
            return succeed(f"the {name}")

        return call


class LoopCase(SynchronousTestCase):
    """A loop that runs only where the test says so."""

    def setUp(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)

    def result(self, future: Any) -> Any:
        """Of a future of the loop."""
        return self.loop.run_until_complete(future)


class RegistryTests(LoopCase):
    """ZooKeeper's session on a loop."""

    def test_arguments_and_result(self) -> None:
        """Each call goes on with its arguments in their order, and its result comes back."""
        core: Any = Registry()
        registry = AsyncioRegistry(core, self.loop)
        for name in ("start", "stop", "create", "get", "set_data", "delete", "exists", "children"):
            call = getattr(registry, name)
            given = tuple(f"a {each}" for each in inspect.signature(call).parameters)
            self.assertEqual(f"the {name}", self.result(call(*given)))
            self.assertEqual([(name, given)], core.calls)
            core.calls.clear()


class RuntimeTests(LoopCase):
    """What the runtime keeps."""

    def test_ended_tasks_are_forgotten(self) -> None:
        """The runtime keeps those alone that run: the loop would lose them."""
        runtime = AsyncioRuntime(self.loop)
        waiting = self.loop.create_future()

        async def wait() -> object:
            return await waiting

        task = runtime.start(wait())
        self.assertEqual({task}, runtime._tasks)
        waiting.set_result("done")
        self.assertEqual("done", self.result(task))
        self.loop.run_until_complete(asyncio.sleep(0))
        self.assertEqual(set(), runtime._tasks)


class HandedOutTests(LoopCase):
    """Whether a result has come to who awaits it."""

    def setUp(self) -> None:
        super().setUp()
        self.runtime = AsyncioRuntime(self.loop)

    def hand_out(self) -> Any:
        """A result that comes in the next round of the loop."""

        async def answer() -> int:
            await asyncio.sleep(0)
            return 7

        return self.runtime.hand_out(answer())

    def test_awaited(self) -> None:
        """It has when the task that awaits it goes on, and not before."""

        async def test() -> None:
            future, is_taken = self.hand_out()
            self.assertIn(future, self.runtime._tasks)
            self.assertFalse(is_taken())
            self.assertEqual(7, await future)
            self.assertTrue(is_taken())

        self.result(test())

    def test_asked_for(self) -> None:
        """The same where the future is asked, and has the result."""

        async def test() -> None:
            future, is_taken = self.hand_out()
            self.assertRaises(asyncio.InvalidStateError, future.result)
            await asyncio.wait([future])
            self.assertFalse(is_taken())
            self.assertEqual(7, future.result())
            self.assertTrue(is_taken())

        self.result(test())

    def test_cancelled(self) -> None:
        """It has not where that task is cancelled as soon as the result is there; another one that
        awaits it gets it."""

        async def wait(future: Any) -> object:
            return await future

        async def test() -> None:
            future, is_taken = self.hand_out()
            first = asyncio.ensure_future(wait(future))
            while not future.done():
                await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])
            self.assertEqual((True, False), (first.cancelled(), is_taken()))
            self.assertEqual(7, await wait(future))
            self.assertTrue(is_taken())

        self.result(test())


class TimerTests(LoopCase):
    """A loop in the place of a reactor."""

    def later(self, found: list[object]) -> Any:
        """A call in an hour."""
        call = _LoopReactor(self.loop).callLater(
            3600, lambda *values, **named: found.append((values, named)), 1, name=2
        )
        self.assertIsInstance(call, _DelayedCall)
        self.assertTrue(call.active())
        return call

    def test_called(self) -> None:
        """With its arguments; afterwards it is not active."""
        found: list[object] = []
        call = self.later(found)
        call._run()
        self.assertEqual([((1,), {"name": 2})], found)
        self.assertFalse(call.active())
        call.cancel()

    def test_cancelled(self) -> None:
        """The loop does not call it."""
        call = self.later([])
        call.cancel()
        self.assertFalse(call.active())
        self.assertTrue(call._handle.cancelled())

    def test_from_a_thread(self) -> None:
        """A call to a loop that was closed is dropped; other errors are raised."""
        found: list[object] = []
        reactor = _LoopReactor(self.loop)
        reactor.callFromThread(found.append, 1)
        self.loop.run_until_complete(asyncio.sleep(0))
        self.assertEqual([1], found)

        def refuse(*_: object) -> None:
            raise RuntimeError("no")

        self.patch(self.loop, "call_soon_threadsafe", refuse)
        self.assertRaises(RuntimeError, reactor.callFromThread, found.append, 2)
        self.loop.close()
        reactor.callFromThread(found.append, 2)


class LogTests(SynchronousTestCase):
    """Lines of ``logging``."""

    def test_levels(self) -> None:
        """Each method has its own; ``failure`` has the traceback."""
        log = StandardLog(NAME)
        with self.assertLogs(NAME, logging.DEBUG) as caught:
            log.debug("{a} debug", a=1)
            log.info("{a} info", a=1)
            log.warn("{a} warn", a=1)
            log.error("{a} error", a=1)
            try:
                raise KeyError("x")
            except KeyError:
                log.failure("{a} failure", a=1)
        levels = [logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.ERROR]
        self.assertEqual(levels, [each.levelno for each in caught.records])
        texts = [f"1 {each}" for each in ("debug", "info", "warn", "error", "failure")]
        self.assertEqual(texts, [each.getMessage() for each in caught.records])
        self.assertEqual([False] * 4 + [True], [bool(each.exc_info) for each in caught.records])


class Transport:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def set_write_buffer_limits(self, high: int) -> None:
        """See ``asyncio.WriteTransport``."""
        self.calls.append(high)

    def write(self, data: bytes) -> None:
        """The same."""
        self.calls.append(data)

    def __getattr__(self, name: str) -> Any:
        return lambda: self.calls.append(name)


class LinkTests(SynchronousTestCase):
    """A connection without a socket."""

    def setUp(self) -> None:
        self.receiver = Collector()
        self.buffer = memoryview(bytearray(8))
        self.link = AsyncioLink(self.receiver, self.buffer)
        self.transport = Transport()
        self.link.connection_made(self.transport)

    def test_received(self) -> None:
        """In the loop's buffer, or right where it belongs; the place is not kept afterwards."""
        self.assertIs(self.buffer, self.link.get_buffer(-1))
        self.buffer[:3] = b"abc"
        self.link.buffer_updated(3)
        self.assertEqual(b"abc", self.receiver.data)
        self.receiver.wanted = bytearray(4)
        self.assertEqual(4, len(self.link.get_buffer(-1)))
        self.link.buffer_updated(4)
        self.assertEqual((b"abc", 4), (self.receiver.data, self.receiver.filled))
        self.receiver.wanted += b"one more"  # not possible while somebody has a view of it

    def test_reason_of_the_end(self) -> None:
        """The error's text, else its name."""
        reasons: list[str] = []
        self.patch(self.receiver, "disconnected", reasons.append)
        for error in (None, OSError("gone"), ConnectionResetError()):
            self.link.connection_lost(error)
        self.assertEqual(["connection closed", "gone", "ConnectionResetError"], reasons)

    def test_passed_on(self) -> None:
        """What the core asks for is the transport's, and the other way round."""
        self.link.write(b"x")
        for call in (
            self.link.close,
            self.link.abort,
            self.link.pause_reading,
            self.link.resume_reading,
        ):
            call()
        names = ["close", "abort", "pause_reading", "resume_reading"]
        self.assertEqual([QUEUE_LIMIT, b"x", *names], self.transport.calls)
        self.link.pause_writing()
        self.link.resume_writing()
        self.assertEqual(["connected", "pause", "resume"], self.receiver.events)
