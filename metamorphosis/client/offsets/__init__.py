"""
Stores for the positions of groups: ZooKeeper, MySQL, a local file, memory. See ``IOffsetStore``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from metamorphosis.errors import OffsetStoreError
from metamorphosis.interfaces import IRuntime

T = TypeVar("T")


class Worker:
    """
    One thread that runs blocking calls in order.

    :param name: of the thread, and of the store in errors.
    """

    def __init__(self, runtime: IRuntime, name: str) -> None:
        self._api = runtime.api
        self._name = name
        self._threads = runtime.threads(1, name)
        self._closed = False

    def run(self, work: Callable[[], T]) -> Awaitable[T]:
        """
        A future of ``work()``, run in the thread.

        :raises OffsetStoreError: from the future, after ``close``.
        """
        future: Awaitable[T] = self._api.create_future()
        if self._closed:
            self._api.reject(future, OffsetStoreError(f"{self._name}: the store is closed"))
            return future

        def done(result: T | None, error: BaseException | None) -> None:
            if self._api.is_called(future):
                return  # the future was cancelled
            if error is None:
                self._api.resolve(future, cast(T, result))
            else:
                self._api.reject(future, error)

        self._threads.submit(work, done)
        return future

    async def close(self, last: Callable[[], None]) -> None:
        """Finish all calls, run ``last`` in the thread, and end it."""
        if not self._closed:
            closing = self.run(last)
            self._closed = True
            await closing
        await self._threads.stop()
