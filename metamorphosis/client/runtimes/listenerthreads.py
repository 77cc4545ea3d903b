"""
The threads in which listeners of the blocking face run, so that they may block and call the client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from threading import local
from typing import TypeVar

from metamorphosis.client.delivery.subscription import INSIDE
from metamorphosis.client.runtimes.aio import AsyncioThreads
from metamorphosis.errors import InvalidState

T = TypeVar("T")


class ListenerThreads:
    """
    Of one session factory. They know the consumer whose listener a thread runs.

    :param threads: report to ``loop``.
    """

    def __init__(self, threads: AsyncioThreads, loop: asyncio.AbstractEventLoop) -> None:
        self._threads = threads
        self._loop = loop
        self._running = local()

    def awaited(
        self, owner: object, function: Callable[[T], object]
    ) -> Callable[[T], asyncio.Future[object]]:
        """The function, called in a thread: a future of its result."""
        loop = self._loop

        def call(argument: T) -> asyncio.Future[object]:
            future: asyncio.Future[object] = loop.create_future()

            def done(result: object, error: BaseException | None) -> None:
                if future.done():
                    return
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

            self._threads.submit(lambda: self._run(owner, function, argument), done)
            return future

        return call

    def told(
        self, owner: object, function: Callable[[T], object], what: str
    ) -> Callable[[T], None]:
        """The function, called in a thread and not waited for; its exceptions are logged."""

        def done(_: object, error: BaseException | None) -> None:
            if error is not None:
                logging.getLogger("metamorphosis.client").error(
                    "The listener for %s failed", what, exc_info=error
                )

        def call(argument: T) -> None:
            self._threads.submit(lambda: self._run(owner, function, argument), done)

        return call

    def check_not_inside(self, owner: object = None) -> None:
        """
        Thread: any.

        :param owner: None: any.
        :raises InvalidState: the calling thread runs a listener of this owner.
        """
        running = getattr(self._running, "owner", None)
        if running is not None and owner in (None, running):
            raise InvalidState(INSIDE)

    def stop(self) -> asyncio.Future[None]:
        """End the threads, when the calls under way have ended. Thread: the loop's."""
        return self._threads.stop()

    def _run(self, owner: object, function: Callable[[T], object], argument: T) -> object:
        self._running.owner = owner
        try:
            return function(argument)
        finally:
            self._running.owner = None
