"""The port of a broker, and the sweep that closes idle connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from metamorphosis.broker.congestion import CongestionControl
from metamorphosis.broker.connection import ClientConnection
from metamorphosis.broker.connections import Connections
from metamorphosis.broker.lanes import LaneSet
from metamorphosis.broker.sockets import BrokerSockets, Line, NoLine, Take
from metamorphosis.broker.transport import BACKLOG, BrokerPort
from metamorphosis.native import turn

if TYPE_CHECKING:
    from metamorphosis.broker.responders import Responders
    from metamorphosis.broker.turn import Turn
    from metamorphosis.config.model import Settings

DRAIN_SECONDS = 5.0
"""The longest wait of ``close_connections`` for replies to leave before it aborts connections (the
original waits as long for its pools)."""

TALLY_SECONDS = 10.0
"""The interval at which the realtime counters catch up with the stores while nothing reads them;
their resets are exact to this."""


class BrokerFactory(ServerFactory):
    """
    Makes and owns the connections. Thread: reactor.

    :ivar shared: the parts that the connections share.
    :ivar connections: the open ones, in order of arrival.
    :ivar max_connections: further clients wait to be accepted.
    :ivar congestion: looks at the sockets of accepted connections.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self, reactor: Any, responders: Responders, settings: Settings, turn: Turn
    ) -> None:
        self._reactor = reactor
        self.shared = Connections(
            responders.dispatch, responders.routes, responders.ids, settings, turn
        )
        self.connections = self.shared.open
        self.max_connections = 1 << 30
        self.congestion = CongestionControl(settings.congestion_control)
        self._figures = responders.figures
        self._figures.connection_count = self.connections.__len__
        self._port: Any = None
        self._sockets: BrokerSockets | None = None
        self._sweep = LoopingCall(self._close_idle)
        self._sweep.clock = reactor
        self._idle_seconds = settings.idle_seconds
        self._tally = LoopingCall(self._figures.tally)
        self._tally.clock = reactor

    # Listening

    def listen(self, port: int, interface: str = "") -> int:
        """
        Bind and accept.

        :param port: 0 for any free one.
        :param interface: address to listen on, empty: all.
        :returns: the port bound.
        :raises CannotListenError: the port is taken.
        """
        self._port = BrokerPort(port, self, BACKLOG, interface, self._reactor)
        self._port.sockets = self._sockets = self._make_sockets()
        self._port.startListening()
        self._sockets.open()
        self._sweep.start(self._idle_seconds, now=False)
        self._tally.start(TALLY_SECONDS, now=False)
        bound: int = self._port.getHost().port
        self._figures.port = bound
        return bound

    def _make_sockets(self) -> BrokerSockets:
        """With the turn in C, where it is built."""
        return BrokerSockets(self._reactor) if turn is None else LaneSet(self._reactor, self.shared)

    def adopt(self, transport: Any, take: Take, is_expected: Callable[[], bool]) -> Line:
        """Serve a connection that this broker has made in the same turn as its clients; see
        ``BrokerSockets.adopt``."""
        if self._sockets is None or self._sockets.is_closed:
            return NoLine()
        return self._sockets.adopt(transport, take, is_expected)

    def stop_accepting(self) -> Deferred[None]:
        """Close the port; connections stay."""
        for loop in (self._sweep, self._tally):
            if loop.running:
                loop.stop()
        port, self._port = self._port, None
        return (
            maybeDeferred(port.stopListening) if port is not None else maybeDeferred(lambda: None)
        )

    def close_connections(self) -> Deferred[None]:
        """Let every connection answer the requests that it has taken, then close; fires when all
        have ended, within ``DRAIN_SECONDS``."""
        done: Deferred[None] = Deferred()
        for connection in list(self.connections):
            connection.close_after_replies()
        waited = 0.0

        def gone() -> None:
            if self._sockets is not None:
                self._sockets.close()
            done.callback(None)

        def look() -> None:
            nonlocal waited
            if self.connections and waited < DRAIN_SECONDS:
                waited += 0.05
                self._reactor.callLater(0.05, look)
                return
            for connection in list(self.connections):
                connection.transport.abortConnection()
            self._reactor.callLater(0, gone)

        look()
        return done

    def buildProtocol(self, addr: IAddress | None) -> ClientConnection:
        """A connection that shares this broker's parts."""
        return ClientConnection(self.shared)

    def _close_idle(self) -> None:
        if self._sockets is not None:
            self._sockets.note_active()
        for connection in list(self.connections):
            session = connection.session
            if session.active or session.held:
                session.active = False
            else:
                self._log.info("Closing {peer}: idle", peer=connection.transport.getPeer())
                connection.transport.abortConnection()
