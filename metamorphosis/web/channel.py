"""
HTTP connections of administrators: of the broker's user only, limited in number, bytes and time.

The limits keep requests of administrators from blocking the broker.
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

CONNECTIONS = 32
"""Limit of open connections; a further one is closed at once."""

IDLE_SECONDS = 15
"""A connection without received bytes for this time is closed."""

LIFE_SECONDS = 120
"""A connection is closed after this time in any case."""

MOST_BYTES = 256 * 1024
"""Bytes that one connection may send, with the headers."""

_TOO_LARGE = b'{"error": "no request is as long as this"}\n'
TOO_LARGE = (
    b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_TOO_LARGE), _TOO_LARGE)
)

_CREDENTIALS = struct.Struct("3i")


def peer_user(transport: ITransport) -> int | None:
    """The user id of the process at the other end of a Unix socket; None if it is unknown."""
    end = getattr(transport, "socket", None)
    if end is None:
        return None
    try:
        data = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return None
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid


class AdminChannel(Protocol):
    """
    One connection: passes bytes to HTTP within the limits.

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
        """Close it at once."""
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

    :param make_site: makes what speaks HTTP, for the first connection.
    :ivar channels: the open ones.
    :ivar peer_user: the user id at the other end; replaced by tests.
    """

    noisy = False

    def __init__(self, make_site: Callable[[], ServerFactory[Any]], reactor: Any) -> None:
        self.reactor = reactor
        self.channels: set[AdminChannel] = set()
        self.peer_user: Callable[[ITransport], int | None] = peer_user
        self._make_site = make_site
        self._site: ServerFactory[Any] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Called by Twisted."""
        if self._site is None:
            self._site = self._make_site()
        http = self._site.buildProtocol(addr)
        assert http is not None
        channel = AdminChannel(http)
        channel.factory = self
        return channel

    def close(self) -> None:
        """Close every connection at once."""
        for channel in list(self.channels):
            channel.abort()
