"""
The connections of a session factory: one per broker URL, shared; a lost one is made again, with
growing pauses, without end.

Source: ``RemotingClientWrapper``, gecko's ``ReconnectManager``.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial

from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.flow import Event, settle
from metamorphosis.client.network.links import Log
from metamorphosis.client.settings import ClientConfig, normalise_url
from metamorphosis.cluster.model import Broker, ConnectionFault
from metamorphosis.errors import ClientClosed
from metamorphosis.interfaces import IRuntime, Timer

DELAYS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds before each attempt after a loss; the last one repeats without end, and is the original's
pause."""

CLOSE_SECONDS = 2.0
"""How long a closed connection may take to send the bytes that were written."""


class Shared:
    """A connection, its users and its attempts."""

    __slots__ = ("attempt", "connection", "failures", "host", "port", "reported", "timer", "users")

    def __init__(self, connection: BrokerConnection, host: str, port: int) -> None:
        self.connection = connection
        # By id: a shared connection must not keep a factory alive.
        self.users: set[int] = set()
        self.host = host
        self.port = port
        self.failures = 0  # since the last sensible reply
        self.timer: Timer | None = None  # of the next attempt
        self.attempt: Awaitable[None] | None = None  # the one under way
        self.reported = False  # "it cannot be reached" was logged


class Connections:
    """
    Thread: the loop's.

    :param make: makes a connection, of the arguments of ``BrokerConnection``.
    """

    def __init__(
        self,
        runtime: IRuntime,
        config: ClientConfig,
        log: Log,
        make: Callable[..., BrokerConnection] = BrokerConnection,
    ) -> None:
        self._make = make
        self._runtime = runtime
        self._config = config
        self._log = log
        self._shared: dict[str, Shared] = {}
        self._leaving: set[BrokerConnection] = set()  # closed; their sockets are still open
        self._closed = False
        self._following = 0  # the attempts that are being made
        self._followed = Event(runtime)  # pulses

    def acquire(self, url: str, user: object) -> BrokerConnection:
        """
        The connection to a broker. A new one is opened. It lives while it has users; the same user
        twice counts once.

        :raises InvalidConfig: no URL of a broker.
        :raises ClientClosed: after ``close``.
        """
        url = normalise_url(url)
        if self._closed:
            raise ClientClosed(f"no connection to {url}: the session factory has been closed")
        shared = self._shared.get(url)
        if shared is None:
            broker = Broker.parse(0, url)
            connection = self._make(self._runtime, url, self._config, self._log, self._link_ended)
            host = broker.host
            if self._config.loopback_connection and is_own_address(host):
                host = "localhost"
            shared = self._shared[url] = Shared(connection, host, broker.port)
            self._attempt(shared)
        shared.connection.on_idle(None)
        shared.users.add(id(user))
        return shared.connection

    def release(self, url: str, user: object) -> None:
        """
        A user releases the connection. Without users it is closed when all requests have been
        answered or their time is over, or when the connection ends by itself: a broker that left
        ZooKeeper still answers for a while.
        """
        url = normalise_url(url)
        shared = self._shared.get(url)
        if shared is None:
            return
        shared.users.discard(id(user))
        if shared.users:
            return
        if shared.connection.is_connected:
            shared.connection.on_idle(partial(self._discard, url))
        else:
            self._discard(url)

    def connected_urls(self) -> list[str]:
        """URLs of the brokers that are connected and have users."""
        return [
            url for url, each in self._shared.items() if each.users and each.connection.is_connected
        ]

    def connection_of(self, url: str) -> BrokerConnection | None:
        """The connection to a broker; None if it has no users."""
        shared = self._shared.get(normalise_url(url))
        return None if shared is None or not shared.users else shared.connection

    async def close(self) -> None:
        """Close all, with users or without; sockets that take too long are cut."""
        self._closed = True
        for url in list(self._shared):
            self._discard(url)
        leaving = list(self._leaving)
        await settle([each.gone(CLOSE_SECONDS) for each in leaving])
        for each in leaving:
            each.cut()
        await settle([each.gone(CLOSE_SECONDS) for each in leaving])
        while self._following:
            await self._followed.wait()

    def _discard(self, url: str) -> None:
        shared = self._shared.pop(url)
        shared.connection.on_idle(None)
        if shared.timer is not None:
            shared.timer.cancel()
        if shared.connection.has_socket:
            self._leaving.add(shared.connection)
        elif shared.attempt is not None:
            self._runtime.api.cancel(shared.attempt)
        shared.connection.close()

    # -- keeping them

    def _attempt(self, shared: Shared) -> None:
        shared.timer = None
        seconds = self._config.connect_attempt_timeout_ms / 1000
        shared.attempt = self._runtime.connect(shared.host, shared.port, shared.connection, seconds)
        self._following += 1
        self._runtime.start(self._follow(shared, shared.attempt))

    async def _follow(self, shared: Shared, attempt: Awaitable[None]) -> None:
        """Wait for the outcome of an attempt."""
        url = shared.connection.url
        try:
            await attempt
            shared.reported = False
            if shared.connection.recurrences.begins(f"broker {url} is connected"):
                self._log.info("Broker {url} is connected", url=url)
        except BaseException as error:  # after _discard: that it was cancelled
            if self._runtime.is_cancelled():
                raise  # the loop ends, and cancels all its tasks
            if self._is_current(shared):
                if not isinstance(error, OSError):
                    self._log.failure("Connecting to broker {url} failed", url=url)
                fault = ConnectionFault.of(error)
                shared.connection.fault = fault
                self._try_later(shared, fault.reason)
        shared.attempt = None
        self._following -= 1
        self._followed.pulse()

    def _link_ended(self, connection: BrokerConnection) -> None:
        self._leaving.discard(connection)
        shared = self._shared.get(connection.url)
        if shared is None or shared.connection is not connection:
            return
        if not shared.users:
            self._discard(connection.url)
            return
        if connection.answered:
            shared.failures = 0
        self._try_later(shared, None)

    def _try_later(self, shared: Shared, reason: str | None) -> None:
        if reason is not None and not shared.reported:
            shared.reported = True
            url = shared.connection.url
            if shared.connection.recurrences.begins(f"broker {url} cannot be reached"):
                self._log.warn(
                    "Broker {url} cannot be reached ({reason}); still trying",
                    url=url,
                    reason=reason,
                )
        if shared.timer is not None:
            return  # the link ended before the attempt that made it
        delay = DELAYS[min(shared.failures, len(DELAYS) - 1)]
        shared.failures += 1
        shared.timer = self._runtime.call_later(delay, self._attempt, shared)

    def _is_current(self, shared: Shared) -> bool:
        return self._shared.get(shared.connection.url) is shared


def is_own_address(host: str) -> bool:
    """Whether a numeric address is one of this machine: a socket can be bound to it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True
