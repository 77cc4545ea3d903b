"""
The heartbeat notices that a broker has gone: a silent broker is asked for its version, and the link
is aborted when several such requests in a row get no answer.

Source: gecko's ``HeartBeatCommand`` listener.

Differs: a heartbeat is sent when nothing was *received* for the idle time, so that a broker that
takes requests and answers none is noticed; the original's timer starts again with each request.
"""

from __future__ import annotations

from typing import Protocol

from metamorphosis.client.network.links import Waiter
from metamorphosis.client.network.opaques import next_opaque
from metamorphosis.client.network.sweeps import Sweeps
from metamorphosis.client.settings import ClientConfig


class Beaten(Protocol):
    """
    The connection, as its heartbeat needs it.

    :ivar received_at: when the last bytes came, seconds.
    :ivar reading_paused: nothing is read from the socket, so that no bytes can come.
    """

    received_at: float
    reading_paused: bool

    @property
    def is_connected(self) -> bool:
        """Whether there is a link."""

    def request(self, opaque: int, frame: bytes, waiter: Waiter, timeout: float) -> None:
        """Send a frame; see ``BrokerConnection``."""

    def fail(self, reason: str) -> None:
        """Give the link up."""


class Heartbeat:
    """The heartbeat of one connection. Thread: the loop's."""

    __slots__ = ("_beating", "_connection", "_failures", "_idle", "_limit", "_missed", "_sweeps")

    def __init__(self, connection: Beaten, sweeps: Sweeps, config: ClientConfig) -> None:
        """:param sweeps: each calls ``beat_if_silent``."""
        self._connection = connection
        self._sweeps = sweeps
        self._idle = config.heartbeat_idle_ms / 1000
        self._limit = config.heartbeat_timeout_ms / 1000
        self._failures = config.heartbeat_failures
        self._beating = False
        self._missed = 0

    def begin(self) -> None:
        """There is a new link."""
        self._beating = False
        self._missed = 0
        self._sweeps.plan(self._connection.received_at + self._idle)

    def beat_if_silent(self, now: float) -> None:
        """Ask for the version when nothing has come for a while."""
        connection = self._connection
        if self._beating or connection.reading_paused:
            self._sweeps.plan(now + self._idle)
        elif connection.received_at + self._idle > now:
            self._sweeps.plan(connection.received_at + self._idle)
        else:
            self._beating = True

            def beaten(status: int, body: bytes, opaque: int) -> None:
                self._beating = False
                self._ended(now)

            opaque = next_opaque()
            connection.request(opaque, b"version %d\r\n" % opaque, beaten, self._limit)

    def _ended(self, asked: float) -> None:
        """The request ended; any bytes that came meanwhile count as an answer."""
        connection = self._connection
        if not connection.is_connected:
            return
        if connection.received_at >= asked:
            self._missed = 0
            self._sweeps.plan(connection.received_at + self._idle)
            return
        self._missed += 1
        if self._missed >= self._failures:
            connection.fail(f"{self._missed} heartbeats without an answer")
        # Otherwise the sweep that has found this one late sends the next one.
