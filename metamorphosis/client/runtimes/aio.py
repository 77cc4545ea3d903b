"""
asyncio under the client's core.

Worker threads and ZooKeeper over kazoo, which the core shares with the broker, report to a Twisted
reactor by three of its methods; ``_LoopReactor`` has them. No reactor is imported or run.

Thread: the loop's, but for ``call_from_thread``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from inspect import isawaitable, iscoroutine
from typing import Any, TypeVar, cast

import txaio.aio
from twisted.internet.defer import Deferred
from twisted.logger import Logger, STDLibLogObserver
from zope.interface import implementer

from metamorphosis.client.network.links import MEANWHILE, Receiver
from metamorphosis.client.runtimes.aiohanded import HandedOut
from metamorphosis.client.runtimes.aiolink import BUFFER_BYTES, AsyncioLink
from metamorphosis.client.runtimes.aiolog import StandardLog
from metamorphosis.cluster.model import NodeStat, WatchEvent
from metamorphosis.cluster.registry import ZooKeeperRegistry
from metamorphosis.interfaces import IRegistry, IRuntime
from metamorphosis.threads import WorkerThreads

T = TypeVar("T")

Watch = Callable[[WatchEvent], None]


@implementer(IRuntime)
class AsyncioRuntime:
    """
    See ``IRuntime``; futures are ``asyncio.Future``s.

    :param loop: None: the running one.
    :raises RuntimeError: there is none.
    :ivar buffer: where all links receive.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = asyncio.get_running_loop() if loop is None else loop
        self.api: Any = txaio.aio.with_config(loop=self.loop)
        # the same without txaio's checks: there is one of each for every message sent
        self.api.create_future = self.loop.create_future
        self.api.resolve = asyncio.Future.set_result
        self.api.is_called = asyncio.Future.done
        self.buffer = memoryview(bytearray(BUFFER_BYTES))
        self._tasks: set[asyncio.Task[Any]] = set()  # the loop itself only has weak references

    def seconds(self) -> float:
        """See ``IRuntime``."""
        return self.loop.time()

    def call_later(
        self, seconds: float, function: Callable[..., object], *args: object
    ) -> asyncio.TimerHandle:
        """See ``IRuntime``."""
        return self.loop.call_later(seconds, function, *args)

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """See ``IRuntime``."""
        self.loop.call_soon(function, *args)

    def call_from_thread(self, function: Callable[..., object], *args: object) -> None:
        """See ``IRuntime``."""
        self.loop.call_soon_threadsafe(function, *args)

    def start(self, coroutine: Coroutine[object, None, T]) -> asyncio.Task[T]:
        """See ``IRuntime``."""
        return self._kept(self.loop.create_task(coroutine))

    def hand_out(
        self, coroutine: Coroutine[object, None, T]
    ) -> tuple[asyncio.Task[T], Callable[[], bool]]:
        """See ``IRuntime``."""
        task = HandedOut(coroutine, loop=self.loop)
        return self._kept(task), lambda: task.is_taken

    def _kept(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def abandon(self, closers: Iterable[Callable[[], Awaitable[object] | None]]) -> None:
        """See ``IRuntime``; where the loop has ended ZooKeeper's threads are ended without it."""
        parts = list(closers)
        try:
            self.loop.call_soon_threadsafe(lambda: self.start(_close_all(parts)))
        except RuntimeError:  # closed: nothing runs in it any more
            for close in parts:
                registry = getattr(close, "__self__", None)
                if isinstance(registry, AsyncioRegistry):
                    registry.abandon()

    def adopt(self, awaitable: object) -> asyncio.Future[Any]:
        """See ``IRuntime``; a Deferred has to fire in the loop's thread."""
        if isinstance(awaitable, asyncio.Future):
            return awaitable
        if isinstance(awaitable, Deferred):
            return awaitable.asFuture(self.loop)
        if iscoroutine(awaitable):
            return self.start(awaitable)
        if isawaitable(awaitable):
            return self.start(_await(awaitable))
        future = self.loop.create_future()
        future.set_result(awaitable)
        return future

    def is_cancelled(self) -> bool:
        """See ``IRuntime``."""
        task = asyncio.current_task(self.loop)
        return task is not None and task.cancelling() > 0

    def connect(
        self, host: str, port: int, receiver: Receiver, timeout: float
    ) -> asyncio.Future[None]:
        """See ``IRuntime``."""
        return self.start(self._connect(host, port, receiver, timeout))

    async def _connect(self, host: str, port: int, receiver: Receiver, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._connect_to_any(host, port, partial(AsyncioLink, receiver, self.buffer))
        except TimeoutError:
            raise TimeoutError(f"no connection to {host}:{port} within {timeout:g} s") from None

    async def _connect_to_any(self, host: str, port: int, link: Callable[[], AsyncioLink]) -> None:
        """
        One address of the host after another; asyncio's own way joins the errors of all addresses
        into one, which is hard to read.
        """
        try:
            found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
        except socket.gaierror:  # a name; resolving it takes a thread
            found = await self.loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        failure: OSError | None = None
        for family, _, protocol, _, address in found:
            try:
                await self.loop.create_connection(
                    link, str(address[0]), port, family=family, proto=protocol
                )
                return
            except OSError as error:
                failure = error
        raise failure or OSError(f"the name {host} has no address")

    def threads(self, count: int, name: str) -> AsyncioThreads:
        """See ``IRuntime``."""
        return AsyncioThreads(self.loop, count, name)

    def registry(self, connect: str, session_timeout: int) -> IRegistry:
        """See ``IRuntime``."""
        return self.adopt_registry(_ZooKeeper(self.loop, connect, session_timeout))

    def adopt_registry(self, registry: IRegistry) -> IRegistry:
        """See ``IRuntime``; the core awaits the results, and so takes any kind of future."""
        return cast(IRegistry, AsyncioRegistry(registry, self.loop))

    def logger(self, name: str) -> StandardLog:
        """See ``IRuntime``; ``logging``."""
        return StandardLog(name)


class AsyncioThreads:
    """``WorkerThreads`` that report to a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int, name: str) -> None:
        reactor: Any = _LoopReactor(loop)
        self._loop = loop
        self._threads = _Threads(reactor, count, name)

    def submit(
        self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        """See ``IWorkerThreads``."""
        self._threads.submit(work, done)

    def stop(self) -> asyncio.Future[None]:
        """See ``IWorkerThreads``, but for the future."""
        return self._threads.stop().asFuture(self._loop)


class AsyncioRegistry:
    """An ``IRegistry`` whose results are ``asyncio.Future``s."""

    def __init__(self, registry: IRegistry, loop: asyncio.AbstractEventLoop) -> None:
        self._registry = registry
        self._loop = loop
        self.on_session = registry.on_session
        self.session_id = registry.session_id
        self.fault = registry.fault

    def start(self) -> asyncio.Future[None]:
        """See ``IRegistry``."""
        return self._future(self._registry.start())

    def stop(self) -> asyncio.Future[None]:
        """See ``IRegistry``."""
        return self._future(self._registry.stop())

    def abandon(self) -> None:
        """End its threads, even if the loop has ended. Thread: any."""
        if isinstance(self._registry, ZooKeeperRegistry):
            self._registry.abandon()

    def create(self, path: str, data: bytes | None, ephemeral: bool) -> asyncio.Future[None]:
        """See ``IRegistry``."""
        return self._future(self._registry.create(path, data, ephemeral))

    def get(
        self, path: str, watch: Watch | None = None
    ) -> asyncio.Future[tuple[bytes | None, NodeStat]]:
        """See ``IRegistry``."""
        return self._future(self._registry.get(path, watch))

    def set_data(self, path: str, data: bytes) -> asyncio.Future[None]:
        """See ``IRegistry``."""
        return self._future(self._registry.set_data(path, data))

    def delete(self, path: str) -> asyncio.Future[None]:
        """See ``IRegistry``."""
        return self._future(self._registry.delete(path))

    def exists(self, path: str, watch: Watch | None = None) -> asyncio.Future[NodeStat | None]:
        """See ``IRegistry``."""
        return self._future(self._registry.exists(path, watch))

    def children(self, path: str, watch: Watch | None = None) -> asyncio.Future[list[str]]:
        """See ``IRegistry``."""
        return self._future(self._registry.children(path, watch))

    def _future(self, deferred: Deferred[T]) -> asyncio.Future[T]:
        return deferred.asFuture(self._loop)


class _Threads(WorkerThreads):
    _log = Logger("metamorphosis.client", observer=STDLibLogObserver("metamorphosis.client"))


class _ZooKeeper(ZooKeeperRegistry):
    """A session with a thread of its own, which reports to a loop."""

    _log = Logger("metamorphosis.client", observer=STDLibLogObserver("metamorphosis.client"))

    def __init__(self, loop: asyncio.AbstractEventLoop, connect: str, session_timeout: int) -> None:
        reactor: Any = _LoopReactor(loop)
        self._own_threads = _Threads(reactor, 1, "zookeeper-client")
        super().__init__(
            reactor, reactor, self._own_threads, connect, session_timeout, meanwhile=MEANWHILE
        )

    def stop(self) -> Deferred[None]:
        """The session, then the thread."""
        return super().stop().addCallback(lambda _: self._own_threads.stop())


class _LoopReactor:
    """What ``WorkerThreads`` and ``ZooKeeperRegistry`` need of a reactor, on a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def callFromThread(self, function: Callable[..., object], *args: object) -> None:
        """From any thread; a closed loop ignores the call."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def callLater(
        self, seconds: float, function: Callable[..., object], *args: object, **options: object
    ) -> _DelayedCall:
        """A timer with the methods of ``IDelayedCall`` that are used."""
        return _DelayedCall(self._loop, seconds, lambda: function(*args, **options))

    def seconds(self) -> float:
        """The loop's clock."""
        return self._loop.time()


class _DelayedCall:
    """The part of ``IDelayedCall`` that is used."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, function: Callable[[], object]
    ) -> None:
        self._function = function
        self._done = False
        self._handle = loop.call_later(seconds, self._run)

    def _run(self) -> None:
        self._done = True
        self._function()

    def active(self) -> bool:
        """Neither called nor cancelled."""
        return not self._done

    def cancel(self) -> None:
        """Do not call."""
        self._done = True
        self._handle.cancel()


async def _close_all(closers: list[Callable[[], Awaitable[object] | None]]) -> None:
    for close in closers:
        try:
            closing = close()
            if closing is not None:
                await closing
        except Exception:  # there is no caller to tell
            logging.getLogger("metamorphosis.client").exception("A part was not closed")


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable
