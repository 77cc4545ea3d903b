"""
The life of one ZooKeeper connection, from the first byte to the last packet.

    state       event                                                  next
    HANDSHAKE   the first frame                                        SERVING
    HANDSHAKE   a four-letter word, or four bytes that are none        CLOSING
    SERVING     ``close``: the server, or a stop, ends it              CLOSING
    CLOSING     everything sent is with the transport                  CLOSED
    any         ``abort``; ten seconds of silence; the peer is gone    CLOSED
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from metamorphosis.readgate import ReadGate
from metamorphosis.zookeeper.commits import Commits
from metamorphosis.zookeeper.members import Members, Traffic
from metamorphosis.zookeeper.outbox import Outbox
from metamorphosis.zookeeper.sessions import Session

HANDSHAKE_SECONDS = 10.0
"""Limit for the first frame, and for the peer to read the last bytes before the close."""


class State(Enum):
    """The states of a connection; see the module's text."""

    HANDSHAKE = "waits for the first frame"
    SERVING = "takes requests"
    CLOSING = "takes no more requests; sent packets leave"
    CLOSED = "passes no more packets to the transport"


class ConnectionLife(Protocol, ABC):
    """
    The start and the end of a ``ZooKeeperConnection``. Thread: reactor.

    :param members: the table of connections in which it registers.
    """

    transport: Any  # Twisted's, of TCP or of a test
    identities: list[tuple[str, str]]
    _gate: ReadGate

    def __init__(self, commits: Commits, clock: IReactorTime, members: Members) -> None:
        self.session: Session | None = None
        self.watching: set[tuple[bool, str]] = set()
        self.traffic = Traffic()
        self._clock = clock
        self._members = members
        self._outbox = Outbox(commits, self)
        self._state = State.HANDSHAKE
        self._buffer = bytearray()
        self._taking = False  # a chunk is being taken in: packets sent now are replies, not events
        self._timer: IDelayedCall | None = None

    @abstractmethod
    def send(self, packet: bytes) -> None:
        """Send a frame, given without its length; it leaves after all earlier packets and its
        barrier."""

    @abstractmethod
    def release(self, durable: int) -> None:
        """Send the frames that waited for the batches up to ``durable``."""

    @property
    def waiting(self) -> int:
        """Replies and events that wait for the disk."""
        return self._outbox.packets

    @property
    def address(self) -> IAddress:
        """The peer's address."""
        address: IAddress = self.transport.getPeer()
        return address

    def connectionMade(self) -> None:
        """Wait for the handshake, unless the limit of connections is reached."""
        self._gate = ReadGate(self.transport)
        self.identities = [("ip", self.transport.getPeer().host)]
        if not self._members.admit(self):
            self.abort()
            return
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)  # or an event could wait for the reply's ACK
            self.transport.setTcpKeepAlive(True)
        self.transport.registerProducer(self, True)
        self._timer = self._clock.callLater(HANDSHAKE_SECONDS, self.abort)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection has ended: leave the table of connections."""
        self._end()
        self._stop_timer()
        self._members.forget(self)
        self._buffer.clear()

    def abort(self) -> None:
        """End the connection now; waiting packets are dropped."""
        self._end()
        self.transport.abortConnection()

    def _end(self) -> None:
        self._state = State.CLOSED
        self._gate.end()
        self._outbox.clear()

    def close(self) -> None:
        """Take no more requests; close when everything sent has left."""
        if self._closing():
            return
        self._state = State.CLOSING
        self._gate.end()
        self._buffer.clear()
        self._stop_timer()
        self._timer = self._clock.callLater(HANDSHAKE_SECONDS, self.abort)
        if not self._taking:
            self._close_when_empty()

    def _closing(self) -> bool:
        return self._state is State.CLOSING or self._state is State.CLOSED

    def _close_when_empty(self) -> None:
        if not self._outbox.held and self._state is State.CLOSING:
            self._state = State.CLOSED
            # With a paused producer, Twisted would not close at the end of its buffer.
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
