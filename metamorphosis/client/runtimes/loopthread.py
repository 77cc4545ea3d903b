"""
An asyncio loop in a thread, for programs that have none.

Thread: any, several at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from threading import current_thread
from typing import Any

from metamorphosis.errors import ClientClosed, InvalidState
from metamorphosis.threads import start_daemon


class LoopThread:
    """An asyncio loop in a thread, and calls into it."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._calls: set[asyncio.Task[None]] = set()  # the loop itself only has weak references
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

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """
        The result of ``function(...)``, called in the loop; if that can be awaited, what comes of
        it.

        :raises InvalidState: the caller is the loop itself, which would wait for ever.
        :raises ClientClosed: the loop has ended.
        """
        if current_thread() is self._thread:
            raise InvalidState("a blocking call in the event loop's own thread would never return")
        outcome: Future[Any] = Future()

        async def perform() -> None:
            try:
                result = function(*args, **options)
                if isinstance(result, Awaitable):
                    result = await result
            except asyncio.CancelledError:
                outcome.set_exception(ClientClosed("The session factory has been closed."))
            except BaseException as error:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        try:
            self.loop.call_soon_threadsafe(self._start, perform)
        except RuntimeError:  # the loop is closed
            raise ClientClosed("The session factory has been closed.") from None
        return outcome.result()

    def _start(self, perform: Callable[[], Any]) -> None:
        task = self.loop.create_task(perform())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def stop(self) -> None:
        """End loop and thread; calls that still wait are cancelled."""
        try:
            self.loop.call_soon_threadsafe(self.loop.stop)
        except RuntimeError:
            pass  # somebody else was faster
        self._thread.join()
