"""The thread of the blocking face, and what runs beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from threading import Condition
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.producer.puts import OVERHEAD_BYTES
from metamorphosis.client.runtimes.listenerthreads import ListenerThreads
from metamorphosis.client.runtimes.loopthread import LoopThread
from metamorphosis.client.runtimes.plainconsumers import Taker
from metamorphosis.client.runtimes.plainlater import LaterSends
from metamorphosis.errors import ClientClosed, InvalidState


class EndTests(SynchronousTestCase):
    """The end of the loop."""

    def test_everything_is_closed(self) -> None:
        """Generators end as well, and the loop itself is closed."""
        thread = LoopThread("test")
        ends: list[str] = []

        async def numbers() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                ends.append("the generator's")

        async def begin() -> int:
            self.numbers = numbers()
            return await anext(self.numbers)

        self.assertEqual(1, thread.call(begin))
        self.assertEqual(set(), thread._outcomes, "what is over is forgotten")
        thread.stop()
        self.assertEqual((["the generator's"], True), (ends, thread.loop.is_closed()))
        self.assertFalse(thread.is_alive)
        self.assertEqual(set(), thread._calls)
        self.assertRaises(ClientClosed, thread.call, int)
        self.assertRaises(ClientClosed, thread.outcome)
        self.assertRaises(ClientClosed, thread.post, int)
        self.assertRaises(ClientClosed, thread._ask, Future(), int)


class Threads:
    """Work is done at once, or when the test does it."""

    _held: list[Callable[[], None]] | None = None

    @contextmanager
    def held(self) -> Iterator[list[Callable[[], None]]]:
        """Work that is given meanwhile is put here."""
        self._held = []
        yield self._held
        self._held = None

    def submit(
        self, work: Callable[[], object], done: Callable[[object, BaseException | None], None]
    ) -> None:
        """See ``IWorkerThreads``."""
        if self._held is not None:
            self._held.append(partial(Threads().submit, work, done))
            return
        try:
            result = work()
        except Exception as error:
            done(None, error)
        else:
            done(result, None)


class ListenerTests(SynchronousTestCase):
    """Listeners in threads."""

    def setUp(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)
        self.threads = Threads()
        threads: Any = self.threads
        self.listeners = ListenerThreads(threads, self.loop)

    def fail(self, argument: object) -> None:  # type: ignore[override]
        """A listener."""
        raise ZeroDivisionError("on purpose")

    def test_awaited(self) -> None:
        """The result or the error, unless nobody waits any more."""
        future = self.listeners.awaited(self, lambda argument: [argument])(7)
        self.assertEqual([7], self.loop.run_until_complete(future))
        failed = self.listeners.awaited(self, self.fail)(7)
        self.assertRaises(ZeroDivisionError, self.loop.run_until_complete, failed)
        for function in (len, self.fail):
            with self.threads.held() as work:
                self.listeners.awaited(self, function)([]).cancel()
            work.pop()()

    def test_failure_that_nobody_waits_for(self) -> None:
        """It is logged, with what the listener is for."""
        with self.assertLogs("metamorphosis.client", "ERROR") as logged:
            self.listeners.told(self, len, "nothing")([])
            self.listeners.told(self, self.fail, "messages that are passed over")(7)
        (record,) = logged.records
        text = "The listener for messages that are passed over failed"
        self.assertEqual(text, record.getMessage())
        self.assertIs(ZeroDivisionError, record.exc_info[0])  # type: ignore[index]

    def test_inside(self) -> None:
        """A thread that runs a listener knows whose it is, as long as it does."""
        found: list[bool] = []

        def listener(argument: object) -> None:
            for owner in (self, None, "another one"):
                try:
                    self.listeners.check_not_inside(owner)
                    found.append(False)
                except InvalidState:
                    found.append(True)

        self.listeners.told(self, listener, "a test")(7)
        self.assertEqual([True, True, False], found)
        for owner in (self, None):
            self.listeners.check_not_inside(owner)


class InLoop:
    """In the place of the thread, which is the caller's."""

    def check(self) -> None:
        """See ``LoopThread``."""
        raise InvalidState("it would never return")

    def call(self, function: object, *values: object) -> list[int]:
        """Three messages."""
        return [1, 2, 3]


class CallTests(SynchronousTestCase):
    """Calls of the blocking face."""

    def test_in_the_loop(self) -> None:
        """A send there is refused before anything is done; so is the wait for all of them."""
        thread: Any = InLoop()
        core: Any = None
        later = LaterSends(thread, core, 1 << 20)
        self.assertRaises(InvalidState, later.send, "t", b"x", None, None, None, None)
        self.assertRaises(InvalidState, later.flush, None)

    def test_room(self) -> None:
        """Messages that fill the memory exactly need not wait."""

        class Free(InLoop):
            """Looks often enough for two messages, and posts nothing."""

            looks = 2

            def check(self) -> None:
                """See ``LoopThread``."""
                self.looks -= 1
                if self.looks < 0:
                    raise AssertionError("it waits")

            def outcome(self) -> Future[Any]:
                """The same."""
                return Future()

            def post(self, function: object) -> None:
                """The same."""

        thread: Any = Free()
        core: Any = None
        later = LaterSends(thread, core, 2 * (OVERHEAD_BYTES + 10))
        for _ in range(2):
            later.send("t", bytes(10), None, None, None, None)

    def test_error_behind_its_outcome(self) -> None:
        """``flush`` raises the error of a message whose future has it, and has told nobody yet."""
        late: list[Callable[[], object]] = []

        class Late(Future[Any]):
            """Calls back when the test says so."""

            def add_done_callback(self, function: Callable[[Any], object]) -> None:
                """See ``Future``."""
                late.append(partial(function, self))

        class Waiting(Condition):
            """Meanwhile the other thread goes on."""

            def wait(self, timeout: float | None = None) -> bool:
                """See ``Condition``."""
                late.pop()()
                return True

        thread: Any = InLoop()
        core: Any = None
        self.patch(thread, "check", lambda: None)
        thread.outcome, thread.post = Late, id
        later = LaterSends(thread, core, 1 << 20)
        later._changed = Waiting()
        future = later.send("t", b"x", None, None, None, None)
        future.set_exception(ValueError("no"))
        self.assertRaises(ValueError, later.flush, None)
        self.assertEqual([], late)

    def test_take_after_an_interruption(self) -> None:
        """What was asked for before is waited for as long as the call may take, and handed out."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        thread: Any = InLoop()
        self.patch(
            thread, "call", lambda function, *values: loop.run_until_complete(function(*values))
        )
        ask: Any = None
        taker = Taker(thread)
        asked: Any = loop.create_future()
        taker._taking = asked
        self.assertEqual([], taker.take(ask, 0.0))
        asked.set_result([7])
        self.assertEqual([7], taker.take(ask, 0.0))

    def test_take(self) -> None:
        """One message at a time, unless more are asked for."""
        thread: Any = InLoop()
        taker = Taker(thread)
        ask: Any = None
        self.assertEqual([[1], [2, 3]], [taker.take(ask), taker.take(ask, None, 5)])
