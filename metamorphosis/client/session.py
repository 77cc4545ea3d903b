"""
A session: the parts that producers, consumers and browsers share, and the order in which they end.

``factory.SessionFactory`` adds the calls that create them. Only futures of the runtime leave the
core.

The end: first the children, in the order in which they were added; then the shared parts, in the
reverse of the order in which they were created, so that each ends before the parts it uses: kept
messages and topics, the connections, the ZooKeeper session.

Source: ``MetaMessageSessionFactory``.

Differs: the constructor does not connect; ``start``, ``async with`` or the first call that needs a
connection does, and raises the error.

Differs: if every attempt is refused ``start`` fails after 5 s, and always with the last reason; the
original waits for 80 s and gives no reason.

Differs: no exit hook of the process; ``async with`` or ``close`` ends the factory.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Protocol, Self

from metamorphosis.client.network.connections import Connections
from metamorphosis.client.network.flow import Event, wait_unless_refused
from metamorphosis.client.network.links import Log
from metamorphosis.client.settings import ClientConfig, unclosed_warning
from metamorphosis.client.topics.directory import PartitionDirectory
from metamorphosis.cluster.model import ConnectionFault, SessionEvent, SessionState
from metamorphosis.cluster.paths import Paths
from metamorphosis.config.hostname import own_address
from metamorphosis.errors import ClientClosed, NotConnected
from metamorphosis.interfaces import IRegistry, IRuntime

Close = Callable[[], Awaitable[None] | None]
"""Ends a part; an awaitable result fires at its end."""


class Child(Protocol):
    """A producer, consumer or browser: it ends before its session."""

    def close(self) -> Awaitable[None]:
        """End it. Further calls have no effect."""


class Session:
    """
    The shared parts of one session factory. Thread: the loop's.

    :ivar runtime: the ``IRuntime`` of all parts.
    :ivar connections: to the brokers, shared.
    :ivar registry: ZooKeeper, results are futures of the runtime; None in direct mode.
    :ivar paths: below the configured root.
    :ivar subscriptions: (group, topic) -> its consumer; a second one is refused.
    """

    def __init__(
        self, runtime: IRuntime, config: ClientConfig, registry: IRegistry | None = None
    ) -> None:
        """:param registry: used, started and stopped in place of one created from ``config``."""
        self.runtime = runtime
        self.config = config
        self.log: Log = runtime.logger("metamorphosis.client")
        self.connections = Connections(runtime, config, self.log)
        self.paths = Paths(config.zookeeper_root)
        self.subscriptions: dict[tuple[str, str], object] = {}
        if registry is None and config.zookeeper is not None:
            registry = runtime.registry(config.zookeeper, config.zookeeper_session_timeout_ms)
        self.registry = registry
        self._parts: list[tuple[str, Close]] = []  # with names for the log, in order of creation
        if registry is not None:
            self.add_part("the ZooKeeper session", registry.stop)
        self.add_part("the connections", self.connections.close)
        self._directory: PartitionDirectory | None = None
        self._children: list[Child] = []
        self._first: list[Child] = []
        self._numbers = count(1)
        self._session_prefix = f"{own_address()}-{int(time.time() * 1000)}"
        self._starting = False
        self._started = Event(runtime)
        self._closing = False
        self._closed = Event(runtime)

    # -- life

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:  # ``__aexit__`` is not called: end the parts that have begun
            await self.close()
            raise
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self.close()

    def start(self) -> Awaitable[None]:
        """
        Connect: to the broker (direct mode), or to ZooKeeper. Called by ``async with`` and by
        whatever needs a connection first; any number of times. After a failure the factory keeps
        trying, and the next call waits once more.

        Costs nothing when it is connected.

        :raises NotConnected: neither came within the configured time, which is short where every
            attempt is refused (``refused_timeout_ms``); the text says why.
        :raises ClientClosed: after ``close``.
        """
        return self.runtime.start(self.started())

    async def started(self) -> None:
        """``start`` for coroutines of the core; returns at once after an earlier success."""
        if self._closing:
            raise ClientClosed("The session factory has been closed.")
        if not self._starting:
            self._starting = True
            await self._begin()
        if self._started.is_set:
            return
        if self.config.broker is not None:
            seconds = self.config.connect_timeout_ms / 1000
            what = f"broker {self.config.broker}: no connection"
        else:
            seconds = self.config.zookeeper_connection_timeout_ms / 1000
            what = f"ZooKeeper at {self.config.zookeeper}: no session"
        patience = self.config.refused_timeout_ms / 1000
        began = self.runtime.seconds()
        if not await wait_unless_refused(self._started, seconds, patience, self._fault):
            if self._closing:
                raise ClientClosed("The session factory has been closed.")
            waited = self.runtime.seconds() - began
            fault = self._fault()
            reason = "" if fault is None else f" ({fault.reason})"
            raise NotConnected(f"{what} within {round(waited, 1):g} s{reason}; still trying")

    def _fault(self) -> ConnectionFault | None:
        """The reason why neither broker nor ZooKeeper is connected."""
        if self.config.broker is None:
            return None if self.registry is None else self.registry.fault()
        connection = self.connections.connection_of(self.config.broker)
        return None if connection is None else connection.fault

    async def _begin(self) -> None:
        started, closing = self._started, self._closed
        if self.config.broker is not None:
            connection = self.connections.acquire(self.config.broker, self)
            connection.changes.watch(self, started.set)
            if connection.is_connected:
                started.set()
        else:
            assert self.registry is not None  # the settings name one of the two

            # Not a method of the session, so that sockets and threads do not keep it alive.
            def session_changed(event: SessionEvent) -> None:
                if event.state is SessionState.CONNECTED and not closing.is_set:
                    started.set()

            self.registry.on_session(session_changed)
            await self.registry.start()

    def __del__(self) -> None:
        """Called without ``close`` before: warn, and end the parts."""
        if not getattr(self, "_starting", False) or self._closing:
            return
        warnings.warn(unclosed_warning(self.config), ResourceWarning, stacklevel=2, source=self)
        self.runtime.abandon([close for _, close in reversed(self._parts)])

    def close(self) -> Awaitable[None]:
        """
        End the children and the parts. A future that never fails. Idempotent; cancelling the future
        does not cancel the close.
        """
        if not self._closing:
            self._closing = True
            self.runtime.start(self._close())
        return self.runtime.start(self._wait_for_end())

    async def _wait_for_end(self) -> None:
        await self._closed.wait()

    async def _close(self) -> None:
        """A separate coroutine, which a cancelled caller of ``close`` does not cancel."""
        self._started.abandon()
        for child in self.children:
            await self._ended(child, child.close)
        while self._parts:  # a closing child may have added one
            await self._ended(*self._parts.pop())
        self._closed.set()

    async def _ended(self, what: object, close: Close) -> None:
        try:
            closing = close()
            if closing is not None:
                await closing
        except Exception:
            self.log.failure("Closing {what} failed", what=what)

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` has been called."""
        return self._closing

    # -- for children

    @property
    def children(self) -> list[Child]:
        """A copy, in the order of their ends."""
        return [*self._first, *self._children]

    def add_child(self, child: Child, first: bool = False) -> None:
        """
        Close a child with the session, after the children that were added before.

        :param first: close it before all others.
        :raises ClientClosed: the factory has been closed.
        """
        if self._closing:
            raise ClientClosed("The session factory has been closed.")
        (self._first if first else self._children).append(child)

    def remove_child(self, child: Child) -> None:
        """Remove a closed child."""
        for children in (self._first, self._children):
            if child in children:
                children.remove(child)

    def add_part(self, what: str, close: Close) -> None:
        """
        Add a part that children share: it ends after them, and before the parts that were added
        earlier.

        :param what: its name in the log, after "Closing".
        """
        self._parts.append((what, close))

    @property
    def directory(self) -> PartitionDirectory:
        """The writable partitions of topics, shared by all producers."""
        if self._directory is None:
            self._directory = PartitionDirectory(
                self.runtime, self.config, self.connections, self.registry, self.paths, self.log
            )
            self.add_part("the topics", self._directory.close)
        return self._directory

    def next_session_id(self) -> str:
        """``<host>-<milliseconds>-<n>``, the id of a producer's session."""
        return f"{self._session_prefix}-{next(self._numbers)}"
