"""The duties of every provider of ``IRuntime``, the one in memory included."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyClass, verifyObject

from metamorphosis.client.network.flow import Event, Slots, settle, sleep, within
from metamorphosis.client.runtimes.aio import AsyncioRuntime
from metamorphosis.client.runtimes.tx import TwistedRuntime
from metamorphosis.cluster.model import SessionEvent
from metamorphosis.errors import NoNode, RequestTimeout
from metamorphosis.interfaces import IRuntime
from metamorphosis.testing.registry import MemoryRegistry
from metamorphosis.testing.runtime import MemoryLink, MemoryRuntime

TURNS = 200_000  # of waiting for the kernel; far more than it ever takes


class Collector:
    """A ``Receiver`` that keeps everything."""

    def __init__(self) -> None:
        self.link: Any = None
        self.data = b""
        self.wanted = bytearray()
        self.filled = 0  # bytes of wanted
        self.events: list[str] = []

    def connected(self, link: Any) -> None:
        self.link = link
        self.events.append("connected")

    def room(self) -> memoryview | None:
        left = memoryview(self.wanted)[self.filled :]
        return left if left else None

    def received(self, count: int) -> None:
        self.filled += count

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.data += data

    def disconnected(self, reason: str) -> None:
        assert isinstance(reason, str)
        self.events.append("disconnected")

    def pause_sending(self) -> None:
        self.events.append("pause")

    def resume_sending(self) -> None:
        self.events.append("resume")


class SocketPeer:
    """The other end of a connection over the loopback interface."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._socket: socket.socket | None = None

    def accept(self) -> None:
        self._socket, _ = self._listening.accept()
        self._socket.setblocking(False)

    def read(self) -> bytes | None:
        """What is there; None at the end."""
        assert self._socket is not None
        try:
            return self._socket.recv(1 << 20) or None
        except BlockingIOError:
            return b""
        except ConnectionResetError:
            return None

    def send(self, data: bytes) -> None:
        assert self._socket is not None
        self._socket.sendall(data)

    def close(self) -> None:
        for each in (self._socket, self._listening):
            if each is not None:
                each.close()


class MemoryPeer:
    """The same for links in memory; nothing listens until ``accept``."""

    port = 8123

    def __init__(self, runtime: MemoryRuntime) -> None:
        self._runtime = runtime
        self._link: MemoryLink | None = None

    def accept(self) -> None:
        self._link = self._runtime.links[-1]

    def read(self) -> bytes | None:
        assert self._link is not None
        if self._link.written:
            written, self._link.written = self._link.written, b""
            return written
        return b"" if self._link.open else None

    def send(self, data: bytes) -> None:
        assert self._link is not None
        if self._link.open and self._link.reading:
            self._runtime.call_soon(self._link.receiver.data_received, data)
        else:
            self._link.receive(data)

    def close(self) -> None:
        if self._link is not None and self._link.open:
            self._link.open = False
            self._runtime.call_soon(self._link.receiver.disconnected, "closed by the peer")


class Contract:
    """The tests; a subclass says which provider, and how to run a coroutine on it."""

    runtime: Any

    def run_on(self, test: Callable[[], Coroutine[Any, Any, None]]) -> Any:
        """Run the test to its end."""
        raise AssertionError("a subclass does that")

    def make_peer(self) -> Any:
        """A server that accepts one connection."""
        raise AssertionError("a subclass does that")

    # -- tools

    async def turn(self) -> None:
        """Run the loop's pending calls."""
        future = self.runtime.api.create_future()
        self.runtime.call_soon(self.runtime.api.resolve, future, None)
        await future

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Run the loop until a condition holds."""
        for _ in range(TURNS):
            found = condition()
            if found:
                return found
            await self.turn()
        raise AssertionError(f"never: {condition}")

    async def connected_pair(self) -> tuple[Collector, Any]:
        """A receiver and its peer."""
        peer = self.make_peer()
        self.addCleanup(peer.close)
        receiver = Collector()
        await self.runtime.connect("127.0.0.1", peer.port, receiver, 10.0)
        peer.accept()
        return receiver, peer

    # -- tests

    def test_provides_the_interface(self) -> Any:
        """Class and object are verified."""

        async def test() -> None:
            verifyClass(IRuntime, type(self.runtime))
            verifyObject(IRuntime, self.runtime)

        return self.run_on(test)

    def test_call_soon(self) -> Any:
        """Calls happen later, in their order, also those asked for meanwhile."""

        async def test() -> None:
            calls: list[int] = []
            soon = self.runtime.call_soon

            def first() -> None:
                calls.append(1)
                soon(calls.append, 4)

            soon(first)
            soon(calls.append, 2)
            soon(calls.append, 3)
            self.assertEqual([], calls)
            await self.until(lambda: len(calls) == 4)
            self.assertEqual([1, 2, 3, 4], calls)

        return self.run_on(test)

    def test_call_soon_raises(self) -> Any:
        """A call that raises is logged and does not stop the next ones."""

        async def test() -> None:
            calls: list[int] = []
            self.runtime.call_soon(self._raise)
            self.runtime.call_soon(calls.append, 1)
            await self.until(lambda: calls)

        return self.run_on(test)

    def _raise(self) -> None:
        raise ZeroDivisionError("on purpose")

    def test_call_later(self) -> Any:
        """Timers fire by their time, and a cancelled one never."""

        async def test() -> None:
            calls: list[int] = []
            self.runtime.call_later(0.02, calls.append, 2)
            fired = self.runtime.call_later(0.0, calls.append, 1)
            never = self.runtime.call_later(0.01, calls.append, 3)
            never.cancel()
            never.cancel()
            await sleep(self.runtime, 0.03)
            fired.cancel()
            self.assertEqual([1, 2], calls)

        return self.run_on(test)

    def test_seconds(self) -> Any:
        """The clock advances with the timers."""

        async def test() -> None:
            before = self.runtime.seconds()
            await sleep(self.runtime, 0.02)
            self.assertGreaterEqual(self.runtime.seconds() - before, 0.019)

        return self.run_on(test)

    def test_futures(self) -> Any:
        """Results and errors reach the awaiting coroutine."""

        async def test() -> None:
            api = self.runtime.api
            good, bad = api.create_future(), api.create_future()
            self.assertFalse(api.is_called(good))
            self.runtime.call_soon(api.resolve, good, 42)
            self.runtime.call_soon(api.reject, bad, ValueError("bad"))
            self.assertEqual(42, await good)
            self.assertTrue(api.is_called(good))
            with self.assertRaisesRegex(ValueError, "bad"):
                await bad
            self.assertTrue(api.is_called(bad))

        return self.run_on(test)

    def test_cancelled_future(self) -> Any:
        """A cancelled future counts as called."""

        async def test() -> None:
            api = self.runtime.api
            future = api.create_future()
            api.cancel(future)
            self.assertTrue(api.is_called(future))
            await self.outcome_of(future)

        return self.run_on(test)

    async def outcome_of(self, future: Any) -> Any:
        try:
            return await future
        except BaseException as error:
            return error

    def test_start(self) -> Any:
        """Coroutines run beside each other; their results and errors are futures."""

        async def test() -> None:
            gate = Event(self.runtime)

            async def good() -> str:
                await gate.wait()
                return "done"

            async def bad() -> str:
                await gate.wait()
                raise ValueError("bad")

            started = [self.runtime.start(good()), self.runtime.start(bad())]
            gate.set()
            first, second = await settle(started)
            self.assertEqual("done", first)
            self.assertIsInstance(second, ValueError)

        return self.run_on(test)

    def test_adopt(self) -> Any:
        """Any result of a user's function becomes a future."""

        async def test() -> None:
            runtime = self.runtime

            async def coroutine() -> int:
                await sleep(runtime, 0.001)
                return 2

            class Awaitable:
                def __await__(self) -> Any:
                    return coroutine().__await__()

            own = runtime.api.create_future()
            deferred: Deferred[int] = Deferred()
            runtime.call_soon(runtime.api.resolve, own, 1)
            runtime.call_soon(deferred.callback, 4)
            self.assertEqual(1, await runtime.adopt(own))
            self.assertEqual(2, await runtime.adopt(coroutine()))
            self.assertEqual(2, await runtime.adopt(Awaitable()))
            self.assertEqual(4, await runtime.adopt(deferred))
            self.assertEqual(5, await runtime.adopt(5))

        return self.run_on(test)

    def test_adopt_error(self) -> Any:
        """An error becomes a failed future."""

        async def test() -> None:
            async def bad() -> None:
                raise ValueError("bad")

            with self.assertRaisesRegex(ValueError, "bad"):
                await self.runtime.adopt(bad())

        return self.run_on(test)

    def test_connect_write_and_read(self) -> Any:
        """Bytes pass in both directions, and everything written before ``close`` arrives."""

        async def test() -> None:
            receiver, peer = await self.connected_pair()
            self.assertEqual(["connected"], receiver.events)
            receiver.link.write(b"hel")
            receiver.link.write(b"lo")
            got = bytearray()

            def arrived() -> bool:
                got.extend(peer.read() or b"")
                return got == b"hello"

            await self.until(arrived)
            peer.send(b"good" * 100_000)
            await self.until(lambda: len(receiver.data) == 400_000)
            receiver.link.write(b"bye")
            receiver.link.close()
            self.assertEqual(["connected"], receiver.events)
            await self.until(lambda: peer.read() == b"bye")
            await self.until(lambda: peer.read() is None)
            await self.until(lambda: receiver.events == ["connected", "disconnected"])
            receiver.link.write(b"nobody reads this")
            receiver.link.close()
            receiver.link.abort()
            await self.turn()
            self.assertEqual(["connected", "disconnected"], receiver.events)

        return self.run_on(test)

    def test_abort(self) -> Any:
        """The end is reported once, and not during the call."""

        async def test() -> None:
            receiver, peer = await self.connected_pair()
            receiver.link.abort()
            self.assertEqual(["connected"], receiver.events)
            await self.until(lambda: len(receiver.events) == 2)
            await self.until(lambda: peer.read() is None)
            self.assertEqual(["connected", "disconnected"], receiver.events)

        return self.run_on(test)

    def test_peer_closes(self) -> Any:
        """The receiver is called."""

        async def test() -> None:
            receiver, peer = await self.connected_pair()
            peer.close()
            await self.until(lambda: receiver.events == ["connected", "disconnected"])

        return self.run_on(test)

    def test_pause_reading(self) -> Any:
        """Bytes that arrive while reading is paused are delivered later."""

        async def test() -> None:
            receiver, peer = await self.connected_pair()
            receiver.link.pause_reading()
            await self.turn()
            peer.send(b"later")
            for _ in range(20):
                await self.turn()
            self.assertEqual(b"", receiver.data)
            receiver.link.resume_reading()
            await self.until(lambda: receiver.data == b"later")
            receiver.link.close()
            await self.until(lambda: len(receiver.events) == 2)

        return self.run_on(test)

    def test_threads(self) -> Any:
        """The work runs, and its end is reported in the loop's thread; ``stop`` returns a
        future."""

        async def test() -> None:
            threads = self.runtime.threads(1, "contract")
            outcomes: list[Any] = []
            here = threading.get_ident()

            def done(result: Any, error: BaseException | None) -> None:
                outcomes.append((result, error, threading.get_ident() == here))

            threads.submit(lambda: 42, done)
            await self.until(lambda: outcomes)
            self.assertEqual([(42, None, True)], outcomes)
            await threads.stop()

        return self.run_on(test)

    def test_call_from_thread(self) -> Any:
        """The call happens in the loop's thread."""

        async def test() -> None:
            threads = self.runtime.threads(1, "contract")
            idents: list[int] = []

            def note() -> None:
                idents.append(threading.get_ident())

            def work() -> None:
                self.runtime.call_from_thread(note)

            threads.submit(work, lambda result, error: None)
            await self.until(lambda: idents)
            self.assertEqual([threading.get_ident()], idents)
            await threads.stop()

        return self.run_on(test)

    def test_registry(self) -> Any:
        """A registry's results can be awaited."""

        async def test() -> None:
            registry = self.runtime.adopt_registry(MemoryRegistry())
            events: list[SessionEvent] = []
            registry.on_session(events.append)
            await registry.start()
            self.assertEqual(1, len(events))
            self.assertNotEqual(0, registry.session_id())
            await registry.create("/a/b", b"1", False)
            await registry.set_data("/a/b", b"2")
            fired: list[Any] = []
            data, _ = await registry.get("/a/b", fired.append)
            self.assertEqual(b"2", data)
            self.assertEqual(["b"], await registry.children("/a"))
            self.assertIsNone(await registry.exists("/c"))
            await registry.delete("/a/b")
            self.assertEqual(1, len(fired))
            with self.assertRaises(NoNode):
                await registry.get("/a/b")
            await registry.stop()

        return self.run_on(test)

    def test_within(self) -> Any:
        """A result after the time limit is an error; one in time is returned."""

        async def test() -> None:
            never = self.runtime.api.create_future()
            with self.assertRaisesRegex(RequestTimeout, "tea: not done within 0.01 s"):
                await within(self.runtime, never, 0.01, "tea")
            self.assertIsNone(await within(self.runtime, sleep(self.runtime, 0.001), 10, "tea"))

            async def bad() -> None:
                raise ValueError("bad")

            with self.assertRaisesRegex(ValueError, "bad"):
                await within(self.runtime, self.runtime.start(bad()), 10, "tea")
            self.runtime.api.resolve(never, None)

        return self.run_on(test)

    def test_slots(self) -> Any:
        """Places are given in the order of requests."""

        async def test() -> None:
            slots = Slots(self.runtime, 2)
            self.assertTrue(await slots.acquire(2))
            order: list[int] = []

            async def want(number: int) -> None:
                if await slots.acquire():
                    order.append(number)

            waiting = [self.runtime.start(want(number)) for number in range(3)]
            await self.turn()
            slots.release(2)
            await self.until(lambda: len(order) == 2)
            slots.close()
            await settle(waiting)
            self.assertEqual([0, 1], order)

        return self.run_on(test)

    def test_logger(self) -> Any:
        """Every level takes texts with fields."""

        async def test() -> None:
            log = self.runtime.logger("metamorphosis.contract")
            for write in (log.debug, log.info, log.warn, log.error):
                write("{what} happened", what="nothing")
            try:
                raise ZeroDivisionError("on purpose")
            except ZeroDivisionError:
                log.failure("{what} failed", what="all")

        return self.run_on(test)


class SocketContract(Contract):
    """Tests that need a real network."""

    def make_peer(self) -> SocketPeer:
        """Over the loopback interface."""
        return SocketPeer()

    def test_refused(self) -> Any:
        """Without a listening server ``connect`` raises ``OSError``, and the receiver is not
        called."""

        async def test() -> None:
            peer = self.make_peer()
            peer.close()
            receiver = Collector()
            with self.assertRaises(OSError):
                await self.runtime.connect("127.0.0.1", peer.port, receiver, 10.0)
            self.assertEqual([], receiver.events)

        return self.run_on(test)

    def test_host_name(self) -> Any:
        """Host names are resolved."""

        async def test() -> None:
            peer = self.make_peer()
            self.addCleanup(peer.close)
            receiver = Collector()
            await self.runtime.connect("localhost", peer.port, receiver, 10.0)
            receiver.link.close()
            await self.until(lambda: len(receiver.events) == 2)

        return self.run_on(test)

    def test_cancelled_attempt(self) -> Any:
        """Cancelling ends the attempt."""

        async def test() -> None:
            peer = self.make_peer()
            self.addCleanup(peer.close)
            receiver = Collector()
            attempt = self.runtime.connect("127.0.0.1", peer.port, receiver, 10.0)
            self.runtime.api.cancel(attempt)
            self.assertIsInstance(await self.outcome_of(attempt), BaseException)
            for _ in range(20):
                await self.turn()
            self.assertEqual([], receiver.events)

        return self.run_on(test)

    def test_peer_that_does_not_read(self) -> Any:
        """With a full socket the receiver is asked to pause, and later to resume."""

        async def test() -> None:
            receiver, peer = await self.connected_pair()
            total = 64 << 20
            receiver.link.write(bytes(total))
            await self.until(lambda: "pause" in receiver.events)
            got = 0

            def all_read() -> bool:
                nonlocal got
                got += len(peer.read() or b"")
                return got == total

            await self.until(all_read)
            await self.until(lambda: "resume" in receiver.events)
            self.assertEqual(["connected", "pause", "resume"], receiver.events)
            receiver.link.close()
            await self.until(lambda: len(receiver.events) == 4)

        return self.run_on(test)

    def test_room(self) -> Any:
        """Bytes are received into the receiver's room while it offers one."""

        async def test() -> None:
            receiver, peer = await self.connected_pair()
            receiver.wanted = bytearray(5)
            peer.send(b"hello world")
            await self.until(lambda: receiver.data == b" world")
            self.assertEqual(b"hello", bytes(receiver.wanted))
            receiver.link.close()
            await self.until(lambda: len(receiver.events) == 2)

        return self.run_on(test)


class MemoryRuntimeTests(Contract, SynchronousTestCase):
    """The tests' own."""

    def run_on(self, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Time passes as long as it takes."""
        self.runtime = MemoryRuntime()
        future = self.runtime.start(test())
        for _ in range(100):
            if future.called:
                break
            if self.runtime.attempts:
                self.runtime.accept()
            try:
                self.runtime.advance(0.005)
            except ZeroDivisionError:
                pass
        self.successResultOf(future)

    def make_peer(self) -> MemoryPeer:
        """In memory."""
        return MemoryPeer(self.runtime)


class TwistedRuntimeTests(SocketContract, TestCase):
    """On the reactor that trial runs."""

    timeout = 60

    def run_on(self, test: Callable[[], Coroutine[Any, Any, None]]) -> Deferred[None]:
        """As a Deferred of the test."""
        self.runtime = TwistedRuntime()

        def flush(result: Any) -> Any:
            self.flushLoggedErrors(ZeroDivisionError)
            return result

        return Deferred.fromCoroutine(test()).addBoth(flush)


class AsyncioRuntimeTests(SocketContract, SynchronousTestCase):
    """On a loop of its own for each test."""

    def run_on(self, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """The loop ends with the test; no task may be left."""

        async def run() -> None:
            loop = asyncio.get_running_loop()
            complaints: list[Any] = []
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            self.runtime = AsyncioRuntime()
            async with asyncio.timeout(60):
                await test()
            unexpected = [
                each
                for each in complaints
                if not isinstance(each.get("exception"), ZeroDivisionError)
            ]
            self.assertEqual([], unexpected)

        logger = logging.getLogger("metamorphosis.contract")
        logger.propagate = False
        logger.addHandler(logging.NullHandler())
        asyncio.run(run())
