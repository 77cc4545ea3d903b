"""
Whether a broker that says nothing is still there: it is asked for its version, and a link on which
several such questions get no answer has ended.

Source: gecko's ``HeartBeatCommand`` listener.

Differs: heartbeats are sent when nothing was *received* for the time, so that a broker that takes
requests and answers none is noticed; the original's timer starts again with each request.
"""

from __future__ import annotations

from typing import Protocol

from metamorphosis.client.network.links import Waiter
from metamorphosis.client.network.opaques import next_opaque
from metamorphosis.client.settings import ClientConfig


class Beaten(Protocol):
    """
    The connection.

    :ivar received_at: when the last bytes came, seconds.
    :ivar reading_paused: nothing can come, because nobody takes it.
    """

    received_at: float
    reading_paused: bool

    @property
    def has_link(self) -> bool:
        """Whether there is a link."""

    def request(self, opaque: int, frame: bytes, waiter: Waiter, timeout: float) -> None:
        """Ask."""

    def wake(self, when: float) -> None:
        """Call ``beat_if_silent`` then, or earlier."""

    def wake_now(self) -> None:
        """Call it as soon as possible."""

    def fail(self, reason: str) -> None:
        """The link has ended."""


class Heartbeat:
    """Of one connection. Thread: the loop's."""

    __slots__ = ("_beating", "_connection", "_failures", "_idle", "_limit", "_missed")

    def __init__(self, connection: Beaten, config: ClientConfig) -> None:
        self._connection = connection
        self._idle = config.heartbeat_idle_ms / 1000
        self._limit = config.heartbeat_timeout_ms / 1000
        self._failures = config.heartbeat_failures
        self._beating = False
        self._missed = 0

    def begin(self) -> None:
        """There is a new link."""
        self._beating = False
        self._missed = 0
        self._connection.wake(self._connection.received_at + self._idle)

    def beat_if_silent(self, now: float) -> None:
        """Ask for the version when nothing has come for a while."""
        connection = self._connection
        if self._beating or connection.reading_paused:
            connection.wake(now + self._idle)
        elif connection.received_at + self._idle > now:
            connection.wake(connection.received_at + self._idle)
        else:
            self._beating = True

            def beaten(status: int, body: bytes) -> None:
                self._beating = False
                self._answered(status, now)

            opaque = next_opaque()
            connection.request(opaque, b"version %d\r\n" % opaque, beaten, self._limit)

    def _answered(self, status: int, asked: float) -> None:
        """Or not; anything that came meanwhile is as good."""
        connection = self._connection
        if not connection.has_link:
            return
        if status >= 0 or connection.received_at >= asked:
            self._missed = 0
            connection.wake(connection.received_at + self._idle)
            return
        self._missed += 1
        if self._missed >= self._failures:
            connection.fail(f"{self._missed} heartbeats without an answer")
        else:
            connection.wake_now()
