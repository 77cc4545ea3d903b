"""
An asyncio loop in a thread, for programs that have none.

Thread: any, several at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from threading import Lock, current_thread
from typing import Any, ParamSpec, TypeVar, overload

from metamorphosis.errors import ClientClosed, InvalidState
from metamorphosis.threads import start_daemon

P = ParamSpec("P")
T = TypeVar("T")


class LoopThread:
    """An asyncio loop in a thread, and calls into it."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._calls: set[asyncio.Task[None]] = set()  # the loop itself only has weak references
        self._lock = Lock()
        self._outcomes: set[Future[Any]] = set()  # of the calls that wait; under the lock
        self._ended = False  # calls get no answer any more; under the lock
        self._thread = start_daemon(self._run, name)

    def _run(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        loop.run_forever()
        rest = asyncio.all_tasks(loop)
        for task in rest:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        with self._lock:
            self._ended = True
            rest_of_calls = [each for each in self._outcomes if not each.done()]
        for outcome in rest_of_calls:  # they came when the loop was ending
            outcome.set_exception(_closed())

    @overload
    def call(
        self, function: Callable[P, Awaitable[T]], *args: P.args, **options: P.kwargs
    ) -> T: ...

    @overload
    def call(self, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T: ...

    def call(self, function: Callable[P, object], *args: P.args, **options: P.kwargs) -> object:
        """
        The result of ``function(...)``, called in the loop; if it can be awaited, the result of
        that.

        :raises InvalidState: the caller is the loop itself, which would wait without end.
        :raises ClientClosed: the loop has ended, or was left behind by a fork.
        """
        self.check()
        outcome = self.outcome()
        self._ask(outcome, partial(function, *args, **options))
        return outcome.result()

    def check(self) -> None:
        """
        :raises InvalidState: the caller is the loop itself, which would wait without end.
        :raises ClientClosed: the loop has ended, or was left behind by a fork.
        """
        if current_thread() is self._thread:
            raise InvalidState("a blocking call in the event loop's own thread would never return")
        if not self._thread.is_alive():
            raise _closed()

    def outcome(self) -> Future[Any]:
        """
        The future of something that the loop will do; it fails if the loop ends before.

        :raises ClientClosed: the loop has ended.
        """
        outcome: Future[Any] = Future()
        with self._lock:
            if self._ended:
                raise _closed()
            self._outcomes.add(outcome)
        outcome.add_done_callback(self._forget)
        return outcome

    def post(self, function: Callable[[], object]) -> None:
        """
        Call it in the loop, and do not wait for it. An exception goes to the loop's handler.

        :raises ClientClosed: the loop has ended.
        """
        try:
            self.loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed
            raise _closed() from None

    def _forget(self, outcome: Future[Any]) -> None:
        with self._lock:
            self._outcomes.discard(outcome)

    def _ask(self, outcome: Future[object], function: Callable[[], object]) -> None:
        async def perform() -> None:
            try:
                result = function()
                if isinstance(result, Awaitable):
                    result = await result
            except asyncio.CancelledError:
                outcome.set_exception(_closed())
            except BaseException as error:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        try:
            self.loop.call_soon_threadsafe(self._start, perform)
        except RuntimeError:  # the loop is closed
            raise _closed() from None

    def _start(self, perform: Callable[[], Coroutine[object, object, None]]) -> None:
        task = self.loop.create_task(perform())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    @property
    def is_alive(self) -> bool:
        """Whether calls are possible; not after a fork."""
        return self._thread.is_alive()

    def end_after(self, closers: list[Callable[[], object]]) -> None:
        """Call these, wait for what can be awaited, then end. Returns at once. Thread: any."""

        async def perform() -> None:
            for close in closers:
                try:
                    closing = close()
                    if isinstance(closing, Awaitable):
                        await closing
                except Exception:
                    logging.getLogger("metamorphosis.client").exception("A part was not closed")
            self.loop.stop()

        try:
            self.loop.call_soon_threadsafe(self._start, perform)
        except RuntimeError:
            pass  # it has ended

    def stop(self) -> None:
        """End loop and thread; calls that still wait are cancelled."""
        try:
            self.loop.call_soon_threadsafe(self.loop.stop)
        except RuntimeError:
            pass  # it was closed meanwhile
        self._thread.join()


def _closed() -> ClientClosed:
    return ClientClosed("The session factory has been closed, or belongs to the parent process.")
