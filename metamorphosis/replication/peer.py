"""
The other broker of a replicated pair: one connection that is always restored, and the requests that
a role sends on it.

Requests of one turn leave in one write and replies are matched by their opaque, as in the client,
whose connection this is. A role encodes its frequent requests itself, as frames for ``request``;
the coroutines are for infrequent requests.

A silent peer is asked for its version, and the connection is closed after ``Heartbeats.failures``
such requests without a reply. So a link that drops all packets is noticed within seconds, and every
pending request ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.connections import Connections
from metamorphosis.client.network.flow import settle
from metamorphosis.client.network.links import Waiter
from metamorphosis.client.network.replies import LOST, NOT_SENT, SUCCESS, TIMED_OUT, VALUE
from metamorphosis.client.settings import ClientConfig
from metamorphosis.cluster.model import ConnectionFault
from metamorphosis.errors import OffsetTooSmall, PeerMisbehaved, PeerRefused, PeerUnreachable
from metamorphosis.interfaces import IRuntime
from metamorphosis.replication.logs import LogEnds
from metamorphosis.wire.commands import (
    GetCommand,
    OffsetCommand,
    Request,
    StatsCommand,
    VersionCommand,
)
from metamorphosis.wire.numbers import shown
from metamorphosis.wire.status import Status

END_OF_LOG: Final = (1 << 63) - 1
"""As an offset: the end of the log."""

OFFSET_DIGITS: Final = len(str(END_OF_LOG))

QUESTION_SECONDS: Final = 5.0
"""Time limit of ``offset``, ``stats`` and ``version``."""

READ_SECONDS: Final = 10.0
"""Time limit of a ``get``, in addition to the time for which it may be held."""

MAX_REPLY_BYTES: Final = 16 << 20
"""Longest body of a reply: the longest ``get`` asks for 4 MiB, a ``server.ini`` has less."""

CONNECT_MS: Final = 5000
"""Time limit of an attempt to connect; then the next one begins."""

_OF_THIS_SIDE: Final = {
    NOT_SENT: "there is no connection",
    LOST: "the connection was lost before the answer",
    TIMED_OUT: "no answer in time",
}


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """
    Detection of a silent peer: after ``idle_ms`` without a byte a request is sent, its reply may
    take ``timeout_ms``, and the connection is closed at the ``failures``-th timeout in a row.
    """

    idle_ms: int = 2000
    timeout_ms: int = 2000
    failures: int = 2


@dataclass(frozen=True, slots=True)
class Absent:
    """A ``get`` was answered 404: no bytes can be read there now. This does not prove an empty
    partition: a restarted Java master answers so for partitions that it has not opened yet."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A ``get`` was answered 301: the log is to be read from ``to``."""

    to: int


class Peer:
    """
    One other broker. Thread: reactor, which is that of ``runtime``.

    :param runtime: a ``TwistedRuntime`` of the reactor; a ``MemoryRuntime`` in tests.
    :param url: ``meta://host:port``.
    :param write_ahead: bytes of requests that may wait for the socket; above it
        ``connection.writable`` is False.
    :param make: makes the connection, see ``Connections``.
    :ivar url: as given.
    :raises InvalidConfig: ``url`` is not a valid URL.
    """

    def __init__(
        self,
        runtime: IRuntime,
        url: str,
        heartbeats: Heartbeats = Heartbeats(),
        write_ahead: int = 16 << 20,
        make: Callable[..., BrokerConnection] = BrokerConnection,
    ) -> None:
        config = ClientConfig(
            broker=url,
            heartbeat_idle_ms=heartbeats.idle_ms,
            heartbeat_timeout_ms=heartbeats.timeout_ms,
            heartbeat_failures=heartbeats.failures,
            connect_attempt_timeout_ms=CONNECT_MS,
            max_reply_bytes=MAX_REPLY_BYTES,
            max_scheduled_written_bytes=write_ahead,
        )
        self.url = url
        self._runtime = runtime
        log = runtime.logger("metamorphosis.replication.peer")
        self._connections = Connections(runtime, config, log, make)
        self._connection: BrokerConnection | None = None
        self._watching: list[Callable[[bool], None]] = []
        self._told = False  # the watchers' last argument

    def start(self) -> None:
        """Connect, and reconnect after each loss, within 50 ms to 2 s."""
        connection = self._connection = self._connections.acquire(self.url, self)
        connection.changes.watch(self, self._changed)

    def close(self) -> Awaitable[None]:
        """Close the connection. Waiters get ``LOST`` or ``NOT_SENT``; fires when the socket is
        closed, after 2 s by an abort."""
        return self._runtime.start(self._connections.close())

    # The connection

    @property
    def is_connected(self) -> bool:
        """Whether requests can be sent."""
        return self._connection is not None and self._connection.is_connected

    @property
    def fault(self) -> ConnectionFault | None:
        """The reason why the connection is missing; None if connected, or before a failure."""
        return None if self._connection is None else self._connection.fault

    @property
    def connection(self) -> BrokerConnection:
        """
        For ``writable``, ``drained``, ``pause_reading`` and ``fail``; the same object for the life
        of the peer.
        """
        assert self._connection is not None, "the peer has not been started"
        return self._connection

    def on_change(self, call: Callable[[bool], None]) -> None:
        """
        Call with True when the connection is established, and with False when it is lost: after all
        pending requests have ended.
        """
        self._watching.append(call)

    def _changed(self) -> None:
        if self.is_connected:
            self._tell(True)
        else:  # the waiters are called before this turn ends
            self._runtime.call_soon(self._tell_lost)

    def _tell_lost(self) -> None:
        if not self.is_connected:
            self._tell(False)

    def _tell(self, connected: bool) -> None:
        if connected != self._told:
            self._told = connected
            for call in list(self._watching):
                call(connected)

    # Questions

    def request(self, opaque: int, frame: bytes, waiter: Waiter, timeout: float) -> None:
        """
        Send a frame at the end of this turn, or earlier. ``waiter`` gets status and body of the
        reply, or a status of ``client.network.replies`` and the reason; never from within this
        call.

        :param opaque: that of the frame, from ``next_opaque``.
        :param timeout: seconds.
        """
        self.connection.request(opaque, frame, waiter, timeout)

    async def ends(self, topic: str, partition: int, group: str) -> LogEnds | None:
        """
        The lowest offset and the end of a partition; None: 404.

        :raises PeerError: no such reply.
        """
        asked = [
            self._runtime.start(self._offset(topic, partition, group, offset))
            for offset in (0, END_OF_LOG)
        ]
        first, end = [_value(outcome) for outcome in await settle(asked)]
        if first is None or end is None:
            return None
        if end < first:
            raise PeerMisbehaved(
                f"{self.url}: {topic}-{partition} begins at {first}, ends at {end}"
            )
        return LogEnds(first, end)

    async def _offset(self, topic: str, partition: int, group: str, offset: int) -> int | None:
        asked = f"offset {topic} {partition} {offset}"
        command = OffsetCommand(topic, group, partition, offset, 0)
        status, body = await self._ask(command, asked, QUESTION_SECONDS)
        if status == Status.NOT_FOUND:
            return None
        self._check(asked, status, body, SUCCESS)
        return self._number(asked, body)

    async def read(
        self, topic: str, partition: int, group: str, offset: int, size: int, wait_ms: int = 0
    ) -> bytes | Absent | Moved:
        """
        One ``get``: at most ``size`` bytes of the log from ``offset`` on.

        :param wait_ms: time for which the broker may hold the request at the end of the log; the
            original replies at once.
        :raises PeerError: no such reply, or one with more bytes than were asked for.
        """
        asked = f"get {topic} {partition} {offset}"
        command = GetCommand(topic, group, partition, offset, size, 0, wait_ms)
        status, body = await self._ask(command, asked, READ_SECONDS + wait_ms / 1000)
        if status == Status.NOT_FOUND:
            return Absent()
        if status == Status.MOVED:
            return Moved(self._number(asked, body))
        self._check(asked, status, body, VALUE)
        if not 0 < len(body) <= size:
            raise PeerMisbehaved(f"{self.url}: {asked}: {len(body)} bytes for {size} asked for")
        return body

    async def config_file(self) -> bytes:
        """
        The bytes of its ``server.ini``.

        :raises PeerError: no such reply.
        """
        return await self._text(StatsCommand("config"), "stats config")

    async def stats(self, item: str) -> str:
        """
        The lines of ``stats <item>``, ended by CRLF.

        :raises PeerError: no such reply.
        """
        text = await self._text(StatsCommand(item), f"stats {item}")
        return text.decode("utf-8", "replace")

    async def version(self) -> str:
        """
        The version that the broker reports.

        :raises PeerError: no such reply.
        """
        return (await self._text(VersionCommand(), "version")).decode("utf-8", "replace")

    async def _text(self, command: Request, asked: str) -> bytes:
        status, body = await self._ask(command, asked, QUESTION_SECONDS)
        self._check(asked, status, body, SUCCESS)
        return body

    async def _ask(self, command: Request, asked: str, seconds: float) -> tuple[int, bytes]:
        """
        :raises PeerUnreachable: no reply.
        """
        if self._connection is None:
            raise PeerUnreachable(f"{self.url}: {asked}: {_OF_THIS_SIDE[NOT_SENT]}")
        status, body = await self._connection.call(command, seconds)
        if status < 0:
            reason = f" ({body.decode('utf-8', 'replace')})" if body else ""
            raise PeerUnreachable(f"{self.url}: {asked}: {_OF_THIS_SIDE[status]}{reason}")
        return status, body

    def _check(self, asked: str, status: int, body: bytes, expected: int) -> None:
        """
        :raises PeerRefused: the status is not that of a success.
        """
        if status != expected:
            text = body.decode("utf-8", "replace")
            raise PeerRefused(f"{self.url}: {asked}", status, text)

    def _number(self, asked: str, body: bytes) -> int:
        """
        :raises PeerMisbehaved: the body is not an offset.
        """
        offset = offset_of(body)
        if offset is None:
            raise PeerMisbehaved(f"{self.url}: {asked}: {shown(body)} is no offset")
        return offset


def offset_of(body: bytes) -> int | None:
    """The offset in a reply; None for another body."""
    if not body.isdigit() or len(body) > OFFSET_DIGITS:
        return None
    offset = int(body)
    return offset if offset <= END_OF_LOG else None


def _value(outcome: int | None | Exception) -> int | None:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


class PeerLog:
    """
    One partition of the other broker, as a ``LogReader``.

    :raises PeerError: from the coroutines.
    """

    def __init__(self, peer: Peer, topic: str, partition: int, group: str) -> None:
        self._peer = peer
        self._topic = topic
        self._partition = partition
        self._group = group

    async def ends(self) -> LogEnds | None:
        """See ``LogReader``; None does not prove an empty partition, see ``Absent``."""
        return await self._peer.ends(self._topic, self._partition, self._group)

    async def read(self, offset: int, size: int) -> bytes:
        """See ``LogReader``."""
        asked = self._topic, self._partition, self._group
        found = await self._peer.read(*asked, offset, size)
        if isinstance(found, bytes):
            return found
        if isinstance(found, Moved) and found.to > offset:
            raise OffsetTooSmall(found.to)
        return b""
