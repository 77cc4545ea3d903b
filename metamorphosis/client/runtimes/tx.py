"""
Twisted under the client's core.

Thread: the reactor's, but for ``call_from_thread``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from inspect import isawaitable, iscoroutine
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakMethod

import txaio.tx
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from metamorphosis.client.network.links import MEANWHILE, Receiver
from metamorphosis.client.runtimes.txclock import with_monotonic_timers
from metamorphosis.client.runtimes.txlink import open_link
from metamorphosis.cluster.registry import ZooKeeperRegistry
from metamorphosis.interfaces import IRegistry, IRuntime
from metamorphosis.threads import WorkerThreads

if TYPE_CHECKING:
    from asyncio import Future

T = TypeVar("T")


class _Timer:
    """A ``callLater`` whose ``cancel`` does no harm afterwards."""

    __slots__ = ("_call",)

    def __init__(self, call: IDelayedCall) -> None:
        self._call = call

    def cancel(self) -> None:
        if self._call.active():
            self._call.cancel()


class TwistedLog(Logger):
    """
    ``failure`` logs at level error, as ``logging`` does on the other faces: a listener that raises
    does not end the program.
    """

    def failure(  # type: ignore[override]
        self, format: str, **fields: Any
    ) -> None:
        """See ``client.links.Log``."""
        super().failure(format, level=LogLevel.error, **fields)


@implementer(IRuntime)
class TwistedRuntime:
    """
    See ``IRuntime``; futures are Deferreds.

    :param reactor: None: the global one, which is installed if need be.
    :ivar reactor: it, with timers of the monotonic clock.
    """

    _log = TwistedLog()

    def __init__(self, reactor: Any = None) -> None:
        if reactor is None:
            from importlib import import_module

            reactor = import_module("twisted.internet.reactor")
        self.reactor: Any = with_monotonic_timers(reactor)
        self.api: Any = txaio.tx.with_config()
        # the same without txaio's checks: there is one of each for every message sent
        self.api.create_future = Deferred
        self.api.resolve = Deferred.callback
        self.api.is_called = attrgetter("called")
        self._soon: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()

    def seconds(self) -> float:
        """See ``IRuntime``; the reactor's clock jumps when the system's clock is set."""
        return time.monotonic()

    def call_later(self, seconds: float, function: Callable[..., object], *args: object) -> _Timer:
        """See ``IRuntime``."""
        return _Timer(self.reactor.callLater(seconds, function, *args))

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """See ``IRuntime``; one timer for all of a turn, which keeps their order."""
        if not self._soon:
            self.reactor.callLater(0, self._run_soon)
        self._soon.append((function, args))

    def _run_soon(self) -> None:
        soon, self._soon = self._soon, deque()
        try:
            while soon:
                function, args = soon.popleft()
                try:
                    function(*args)
                except Exception:
                    self._log.failure("A call of the client failed")
        finally:
            if soon:  # anything but an Exception goes to the reactor alone
                self._soon.extendleft(reversed(soon))
                self.reactor.callLater(0, self._run_soon)

    def call_from_thread(self, function: Callable[..., object], *args: object) -> None:
        """See ``IRuntime``."""
        self.reactor.callFromThread(function, *args)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """See ``IRuntime``."""
        return Deferred.fromCoroutine(coroutine)

    def hand_out(self, coroutine: Coroutine[Any, Any, T]) -> tuple[Deferred[T], Callable[[], bool]]:
        """See ``IRuntime``: a Deferred gives its result as soon as it has one."""
        return self.start(coroutine), lambda: True

    def abandon(self, closers: Iterable[Callable[[], Awaitable[object] | None]]) -> None:
        """See ``IRuntime``."""
        self.reactor.callFromThread(self._close_all, list(closers))

    def _close_all(self, closers: list[Callable[[], Awaitable[object] | None]]) -> None:
        for close in closers:
            try:
                closing = close()
                if closing is not None:
                    self.adopt(closing).addErrback(lambda _: None)
            except Exception:
                self._log.failure("Closing the parts of a dropped session factory failed")

    def adopt(self, awaitable: object) -> Deferred[Any]:
        """See ``IRuntime``."""
        if isinstance(awaitable, Deferred):
            return awaitable
        if iscoroutine(awaitable):
            return Deferred.fromCoroutine(awaitable)
        if hasattr(awaitable, "add_done_callback"):
            return Deferred.fromFuture(cast("Future[object]", awaitable))
        if isawaitable(awaitable):
            return Deferred.fromCoroutine(_await(awaitable))
        return succeed(awaitable)

    def is_cancelled(self) -> bool:
        """See ``IRuntime``: a reactor ends nothing."""
        return False

    def connect(self, host: str, port: int, receiver: Receiver, timeout: float) -> Deferred[None]:
        """See ``IRuntime``."""
        return open_link(self.reactor, host, port, receiver, timeout)

    def threads(self, count: int, name: str) -> WorkerThreads:
        """See ``IRuntime``."""
        return WorkerThreads(self.reactor, count, name)

    def registry(self, connect: str, session_timeout: int) -> ZooKeeperRegistry:
        """See ``IRuntime``."""
        return _Registry(self.reactor, connect, session_timeout)

    def adopt_registry(self, registry: IRegistry) -> IRegistry:
        """See ``IRuntime``: it is one already."""
        return registry

    def logger(self, name: str) -> TwistedLog:
        """See ``IRuntime``."""
        return TwistedLog(namespace=name)


class ShutdownTrigger:
    """
    A reactor that stops waits for ``close``, so that consumers commit and leave their groups:
    without it the groups would wait for the end of a session. The child of a factory, whose own end
    removes it.
    """

    def __init__(self, reactor: Any, close: Callable[[], Deferred[None]]) -> None:
        self._reactor = reactor
        self._trigger: object = None
        closing = WeakMethod(close)  # the reactor keeps no factory alive

        def stopping() -> Deferred[None] | None:
            self._trigger = None
            found = closing()
            return None if found is None else found()

        self._trigger = reactor.addSystemEventTrigger("before", "shutdown", stopping)

    async def close(self) -> None:
        """The factory was closed before."""
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            self._reactor.removeSystemEventTrigger(trigger)


class _Registry(ZooKeeperRegistry):
    """One with threads of its own."""

    def __init__(self, reactor: Any, connect: str, session_timeout: int) -> None:
        self._own_threads = WorkerThreads(reactor, 1, "zookeeper-client")
        super().__init__(
            reactor, reactor, self._own_threads, connect, session_timeout, meanwhile=MEANWHILE
        )

    def stop(self) -> Deferred[None]:
        """The session, then the threads."""
        return super().stop().addCallback(lambda _: self._own_threads.stop())


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable
