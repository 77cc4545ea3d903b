"""What the connections of a port share, and the limit of what waits in all of them together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from metamorphosis.broker.inbox import ReceiveBuffer
from metamorphosis.wire.decoding import FrameLimits

if TYPE_CHECKING:
    from metamorphosis.broker.dispatch import Dispatch
    from metamorphosis.broker.hotpath import Routes
    from metamorphosis.broker.session import Session
    from metamorphosis.broker.turn import Turn
    from metamorphosis.config.model import Settings
    from metamorphosis.ids import MessageIds


class Member(Protocol):
    """One of the connections. Provider: ``ClientConnection``."""

    transport: Any
    session: Session

    def check_pressure(self) -> None:
        """Pause or resume reading, by what waits here and in all connections."""

    def close_after_replies(self) -> None:
        """Take no more requests; close when the last reply has left."""


class Connections:
    """
    The parts that the connections of a port share. Thread: reactor.

    :ivar open: the open ones, in order of arrival.
    :ivar max_waiting: bytes of requests of one connection whose replies wait; then it pauses.
    :ivar waiting: bytes of requests whose replies wait, of all connections.
    :ivar busy_poll: see ``lingering.h``; microseconds.
    :ivar overloaded: they exceed ``max-total-bytes``.
    """

    _log = Logger()

    def __init__(
        self, dispatch: Dispatch, routes: Routes, ids: MessageIds, settings: Settings, turn: Turn
    ) -> None:
        self.dispatch = dispatch
        self.routes = routes
        self.ids = ids
        self.turn = turn
        self.limits = FrameLimits(settings.max_line_bytes, settings.max_body_bytes)
        self.buffer = ReceiveBuffer()
        self.max_waiting = settings.max_connection_bytes
        self.busy_poll = settings.busy_poll_us
        self.open: dict[Member, None] = {}
        self.waiting = 0
        self.overloaded = False
        self._max_total = settings.max_total_bytes
        self._protocol_errors = 0

    def waiting_changed(self, by: int) -> None:
        """``by`` more bytes of requests wait for their replies; over the limit connections that add
        to it pause."""
        self.waiting += by
        if self.overloaded:
            if self.waiting < self._max_total // 2:
                self.overloaded = False
                for connection in list(self.open):
                    connection.check_pressure()
        elif self.waiting > self._max_total:
            self.overloaded = True

    def protocol_error(self, connection: Member, error: Exception) -> None:
        """A peer broke the protocol. The first ten are logged, later ones when their number is a
        power of two, so that garbage cannot fill the log."""
        self._protocol_errors += 1
        count = self._protocol_errors
        if count <= 10 or not count & (count - 1):
            self._log.warn(
                "Closing {peer}: {error} (protocol error number {count} since the start)",
                peer=connection.transport.getPeer(),
                error=error,
                count=count,
            )
