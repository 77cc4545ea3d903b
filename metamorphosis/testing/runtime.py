"""
The client's environment in memory: clock, log, threads, and TCP connections that end in the test.

A test creates a ``MemoryRuntime``, calls the core, and acts as its environment::

    runtime = MemoryRuntime()
    ...                                   # code that connects to meta://host:8123
    link = runtime.accept("host:8123")    # or runtime.refuse("host:8123")
    runtime.turn()                        # runs the calls for the end of the turn
    link.take()                           # the bytes that the core has written
    link.receive(b"result 200 0 1\\r\\n")
    runtime.advance(5)                    # seconds
    runtime.result(future)                # of a Deferred
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar

import txaio.tx
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from metamorphosis.interfaces import IRuntime
from metamorphosis.testing.registry import MemoryRegistry, MemoryTree
from metamorphosis.threads import SynchronousThreads

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from metamorphosis.client.network.links import Receiver

T = TypeVar("T")
Network = Callable[["MemoryRuntime", str, int, "Receiver"], None]
"""See ``MemoryCluster.connect``."""

MOST_CALLS = 100_000  # limit per turn, to detect an endless loop


class MemoryLog:
    """
    Keeps the lines.

    :ivar lines: (level, text) in order.
    """

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def _add(self, level: str, format: str, fields: dict[str, object]) -> None:
        self.lines.append((level, format.format(**fields)))

    def debug(self, format: str, **fields: object) -> None:
        """Keep it."""
        self._add("debug", format, fields)

    def info(self, format: str, **fields: object) -> None:
        """Keep it."""
        self._add("info", format, fields)

    def warn(self, format: str, **fields: object) -> None:
        """Keep it."""
        self._add("warn", format, fields)

    def error(self, format: str, **fields: object) -> None:
        """Keep it."""
        self._add("error", format, fields)

    def failure(self, format: str, **fields: object) -> None:
        """Keep it, with the exception."""
        failure = Failure()
        error = f"{type(failure.value).__name__} {failure.value}"
        self._add("failure", format + ": {_error}", fields | {"_error": error})

    def texts(self, *levels: str) -> list[str]:
        """The texts of these levels, or of all."""
        return [text for level, text in self.lines if not levels or level in levels]


class MemoryLink:
    """
    One connection, as seen by the test, which acts as the broker.

    :ivar written: bytes of the core that were not taken yet.
    :ivar open: neither side has closed it.
    :ivar reading: the core reads; otherwise received bytes wait.
    """

    def __init__(self, runtime: MemoryRuntime, host: str, port: int, receiver: Receiver) -> None:
        self.host = host
        self.port = port
        self.receiver = receiver
        self.written = b""
        self.writes = 0
        self.open = True
        self.reading = True
        self.aborted = False
        self._runtime = runtime
        self._unread: deque[bytes] = deque()

    # -- Link

    def write(self, data: bytes) -> None:
        """See ``Link``; after the end the bytes are dropped, as on a socket."""
        if self.open:
            self.written += data
            self.writes += 1

    def close(self) -> None:
        """See ``Link``."""
        if self.open:
            self.open = False
            self._runtime.call_soon(self.receiver.disconnected, "closed")

    def abort(self) -> None:
        """See ``Link``."""
        self.aborted = True
        self.close()

    def pause_reading(self) -> None:
        """See ``Link``."""
        self.reading = False

    def resume_reading(self) -> None:
        """See ``Link``."""
        self.reading = True
        while self._unread and self.open and self.reading:
            self.receiver.data_received(self._unread.popleft())

    # -- the broker

    def take(self) -> bytes:
        """The bytes that the core has written since the last call, after the end of the turn."""
        self._runtime.turn()
        written, self.written = self.written, b""
        return written

    def receive(self, data: bytes) -> None:
        """Deliver bytes of the broker, and run the turn."""
        if self.open and self.reading:
            self.receiver.data_received(data)
        else:
            self._unread.append(data)
        self._runtime.turn()

    def answer(self, status: int, body: bytes = b"") -> bytes:
        """Answer all written requests with one status; returns the written bytes."""
        written = self.take()
        for opaque in opaques_of(written):
            head = b"value" if status == 0 else b"result %d" % status
            self.receive(b"%b %d %d\r\n%b" % (head, len(body), opaque, body))
        return written

    def lose(self, reason: str = "connection lost") -> None:
        """Lose the connection."""
        if self.open:
            self.open = False
            self.receiver.disconnected(reason)
        self._runtime.turn()

    def stall(self) -> None:
        """Stop reading as the broker, so that the link's queue is full."""
        self.receiver.pause_sending()

    def drain(self) -> None:
        """Read again as the broker."""
        self.receiver.resume_sending()
        self._runtime.turn()


class Attempt:
    """An attempt of the core to connect."""

    def __init__(self, host: str, port: int, receiver: Receiver, timeout: float) -> None:
        self.host = host
        self.port = port
        self.receiver = receiver
        self.timeout = timeout
        self.future: Deferred[None] = Deferred()

    def __repr__(self) -> str:
        return f"{self.host}:{self.port}"


@implementer(IRuntime)
class MemoryRuntime:
    """
    See ``IRuntime`` and the module.

    :ivar clock: moved only by ``advance`` of the runtime.
    :ivar attempts: pending attempts to connect, oldest first.
    :ivar links: all links so far.
    :ivar log: of all loggers.
    :ivar pools: the results of ``threads``, which a test can hold and release.
    :ivar tree: the server of every registry of ``registry``.
    :ivar network: connects, or raises an ``OSError``; None: the test does, with ``accept``.
    """

    def __init__(self) -> None:
        self.api: Any = txaio.tx.with_config()
        self.clock = Clock()
        self.attempts: list[Attempt] = []
        self.links: list[MemoryLink] = []
        self.log = MemoryLog()
        self.pools: list[SynchronousThreads] = []
        self.tree = MemoryTree()
        self.network: Network | None = None
        self._soon: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()

    # -- IRuntime

    def seconds(self) -> float:
        """See ``IRuntime``."""
        return self.clock.seconds()

    def call_later(self, seconds: float, function: Callable[..., object], *args: object) -> _Timer:
        """See ``IRuntime``."""
        return _Timer(self.clock.callLater(seconds, function, *args))

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """See ``IRuntime``."""
        self._soon.append((function, args))

    def call_from_thread(self, function: Callable[..., object], *args: object) -> None:
        """See ``IRuntime``."""
        self.call_soon(function, *args)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """See ``IRuntime``."""
        return Deferred.fromCoroutine(coroutine)

    def hand_out(self, coroutine: Coroutine[Any, Any, T]) -> tuple[Deferred[T], Any]:
        """See ``IRuntime``."""
        return self.start(coroutine), lambda: True

    def abandon(self, closers: Iterable[Callable[[], Awaitable[object] | None]]) -> None:
        """See ``IRuntime``."""
        parts = list(closers)

        async def close_all() -> None:
            for close in parts:
                closing = close()
                if closing is not None:
                    await closing

        self.call_soon(lambda: self.start(close_all()))

    def adopt(self, awaitable: object) -> Deferred[Any]:
        """See ``IRuntime``."""
        if isinstance(awaitable, Deferred):
            return awaitable
        if isawaitable(awaitable):
            return Deferred.fromCoroutine(_await(awaitable))
        return succeed(awaitable)

    def is_cancelled(self) -> bool:
        """See ``IRuntime``."""
        return False

    def connect(self, host: str, port: int, receiver: Receiver, timeout: float) -> Deferred[None]:
        """See ``IRuntime``; the network or the test accepts or refuses it."""
        if self.network is not None:
            return maybeDeferred(self.network, self, host, port, receiver)
        attempt = Attempt(host, port, receiver, timeout)
        attempt.future = Deferred(lambda _: self.attempts.remove(attempt))
        self.attempts.append(attempt)
        return attempt.future

    def threads(self, count: int, name: str) -> SynchronousThreads:
        """See ``IRuntime``."""
        threads = SynchronousThreads()
        self.pools.append(threads)
        return threads

    def registry(self, connect: str, session_timeout: int) -> MemoryRegistry:
        """See ``IRuntime``; a client of ``tree``."""
        return MemoryRegistry(self.tree)

    def adopt_registry(self, registry: T) -> T:
        """See ``IRuntime``."""
        return registry

    def logger(self, name: str) -> MemoryLog:
        """See ``IRuntime``."""
        return self.log

    # -- the test

    def turn(self) -> None:
        """Run all calls for the end of the turn, and all further calls that they cause."""
        for _ in range(MOST_CALLS):
            if not self._soon:
                return
            function, args = self._soon.popleft()
            function(*args)
        raise AssertionError(f"{MOST_CALLS} calls in one turn; the last one was {function}")

    def advance(self, seconds: float = 0.0) -> None:
        """Let time pass; every timer is called at its time, with a turn of its own."""
        self.turn()
        end = self.clock.seconds() + seconds
        while True:
            times = [call.getTime() for call in self.clock.getDelayedCalls()]
            due = min((each for each in times if each <= end), default=None)
            if due is None:
                break
            self.clock.advance(max(due - self.clock.seconds(), 0.0))
            self.turn()
        self.clock.advance(max(end - self.clock.seconds(), 0.0))
        self.turn()

    def accept(self, address: str | None = None) -> MemoryLink:
        """Let the oldest attempt, or the oldest to ``host:port``, succeed; returns its link."""
        attempt = self._take(address)
        link = MemoryLink(self, attempt.host, attempt.port, attempt.receiver)
        self.links.append(link)
        attempt.receiver.connected(link)
        attempt.future.callback(None)
        self.turn()
        return link

    def refuse(
        self,
        address: str | None = None,
        reason: str = "connection refused",
        error: type[OSError] = OSError,
    ) -> None:
        """Let the oldest attempt, or the oldest to ``host:port``, fail."""
        self._take(address).future.errback(error(reason))
        self.turn()

    def refuse_all(self, reason: str, seconds: float) -> None:
        """Let time pass in which every attempt is refused at once."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            while self.attempts:
                self.refuse(reason=reason, error=ConnectionRefusedError)
            self.advance(min(0.05, end - self.clock.seconds()))

    def link_to(self, address: str) -> MemoryLink:
        """The latest link to ``host:port``."""
        return [each for each in self.links if f"{each.host}:{each.port}" == address][-1]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that ends at once; its exception is raised."""
        return self.result(self.start(coroutine))

    def result(self, future: Deferred[T]) -> T:
        """
        The outcome of a future, after the present turn; its exception is raised.

        :raises AssertionError: it has no outcome yet.
        """
        self.turn()
        outcome: list[T | Failure] = []
        future.addBoth(outcome.append)
        if not outcome:
            raise AssertionError("there is no result yet")
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]

    def _take(self, address: str | None) -> Attempt:
        for attempt in self.attempts:
            if address is None or repr(attempt) == address.removeprefix("meta://"):
                self.attempts.remove(attempt)
                return attempt
        raise AssertionError(f"no attempt to connect to {address}; there are {self.attempts}")


class _Timer:
    """A ``callLater`` whose ``cancel`` has no effect after the call."""

    def __init__(self, call: IDelayedCall) -> None:
        self._call = call

    def cancel(self) -> None:
        if self._call.active():
            self._call.cancel()


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def opaques_of(data: bytes) -> list[int]:
    """The opaques of the requests in written bytes, bodies of puts skipped."""
    found = []
    while data:
        line, _, data = data.partition(b"\r\n")
        tokens = line.split(b" ")
        if tokens[0] in (b"put", b"sync"):
            data = data[int(tokens[3]) :]
        found.append(int(tokens[6 if tokens[0] == b"get" else -1]))  # a long poll has one more
    return found
