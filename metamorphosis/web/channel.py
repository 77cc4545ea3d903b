"""
HTTP connections of administrators: only those of the broker's user, few, small, and not for long.

No request of an administrator may stop the broker: a connection has a bound for its bytes and its
time, and there is a bound for the connections.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, ITransport
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import Site

CONNECTIONS = 32
"""At the same time; one too many is closed at once."""

IDLE_SECONDS = 15
"""A connection on which nothing comes for so long is closed."""

LIFE_SECONDS = 120
"""A connection is closed after so long, whatever it does."""

MOST_BYTES = 256 * 1024
"""Bytes that one connection may send, with the headers."""

_TOO_LARGE = b'{"error": "no request is as long as this"}\n'
TOO_LARGE = (
    b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_TOO_LARGE), _TOO_LARGE)
)

_CREDENTIALS = struct.Struct("3i")


def peer_user(transport: ITransport) -> int | None:
    """The user id of the process at the other end of a Unix socket; None if it cannot be known."""
    end = getattr(transport, "socket", None)
    if end is None:
        return None
    try:
        data = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return None
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid


class AdminSite(Site):
    """
    A site without an access log: what administrators change is logged with the change.

    :param reactor: for the timeouts.
    """

    displayTracebacks = False

    def __init__(self, root: IResource, reactor: Any) -> None:
        super().__init__(root, timeout=IDLE_SECONDS, reactor=reactor)

    def startFactory(self) -> None:
        """No log file, and no timer that keeps its clock."""

    def stopFactory(self) -> None:
        """Likewise."""

    def log(self, request: object) -> None:
        """Likewise."""


class AdminChannel(Protocol):
    """
    One connection: takes in what HTTP gets, as long as it stays within the bounds.

    :param http: the protocol inside.
    """

    _log = Logger()

    factory: AdminFactory

    def __init__(self, http: IProtocol) -> None:
        self._http = http
        self._peer: Any = None
        self._received = 0
        self._end: IDelayedCall | None = None

    def makeConnection(self, transport: ITransport) -> None:
        """Called by Twisted."""
        self._peer = transport
        user = self.factory.peer_user(transport)
        if user not in (0, os.geteuid()):
            self._log.warn(
                "Administration refused: user {user} is not that of the broker", user=user
            )
            self._peer.abortConnection()
        elif len(self.factory.channels) >= CONNECTIONS:
            self._log.warn("More than {count} connections to the administration", count=CONNECTIONS)
            self._peer.abortConnection()
        else:
            self.factory.channels.add(self)
            self._end = self.factory.reactor.callLater(LIFE_SECONDS, self.abort)
            self._http.makeConnection(transport)

    def abort(self) -> None:
        """End it at once."""
        self._take_no_more()
        self._peer.abortConnection()

    def _take_no_more(self) -> None:
        if self._end is not None and self._end.active():
            self._end.cancel()
        self._end = None

    def dataReceived(self, data: bytes) -> None:
        """Called by Twisted."""
        if self._end is None:
            return
        self._received += len(data)
        if self._received <= MOST_BYTES:
            self._http.dataReceived(data)
        else:
            self._take_no_more()
            self._peer.write(TOO_LARGE)
            self._peer.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Called by Twisted."""
        self._take_no_more()
        if self in self.factory.channels:
            self.factory.channels.discard(self)
            self._http.connectionLost(reason)


class AdminFactory(ServerFactory):
    """
    Makes the connections.

    :ivar channels: those that are open.
    :ivar peer_user: the user id at the other end; replaced by tests.
    """

    noisy = False

    def __init__(self, root: IResource, reactor: Any) -> None:
        self.reactor = reactor
        self.channels: set[AdminChannel] = set()
        self.peer_user: Callable[[ITransport], int | None] = peer_user
        self._site = AdminSite(root, reactor)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Called by Twisted."""
        http = self._site.buildProtocol(addr)
        assert http is not None
        channel = AdminChannel(http)
        channel.factory = self
        return channel

    def close(self) -> None:
        """End every connection at once."""
        for channel in list(self.channels):
            channel.abort()
