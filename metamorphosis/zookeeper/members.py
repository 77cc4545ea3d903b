"""
The open connections: their limit, their counters, and the log lines about their faults.
"""

from __future__ import annotations

import struct
import time
from typing import Final, Protocol

from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from metamorphosis.zookeeper.codes import Opcode
from metamorphosis.zookeeper.sessions import Client

HANDSHAKE: Final = struct.pack(">ii", 0, Opcode.CREATE_SESSION)
"""Represents a handshake among the first bytes of requests: xid and operation."""


class Latency:
    """
    The time in seconds from the arrival of a chunk of requests until its last reply left.

    :ivar count: the number of chunks.
    :ivar last: the time of the newest chunk.
    """

    __slots__ = ("count", "last", "least", "most", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = self.least = self.most = self.last = 0.0

    def add(self, seconds: float) -> None:
        """Add the time of one chunk."""
        if seconds > self.most:
            self.most = seconds
        if seconds < self.least or not self.count:
            self.least = seconds
        self.count += 1
        self.total += seconds
        self.last = seconds


class Traffic:
    """
    The counters of one connection.

    :ivar established: start of the connection, in milliseconds since 1970.
    :ivar first_zxid: the newest zxid when its session was created or resumed.
    :ivar received: requests and words since the start, or since ``reset``.
    :ivar sent: replies and events since the same time.
    :ivar last_request: the first bytes of the newest request, xid and operation; empty if there was
        none since ``reset``.
    :ivar last_numbered: the same for the newest request with a numbered xid; pings have none.
    :ivar last_reply: the header of the newest reply.
    :ivar answered: the time at which the newest reply left, in seconds of the reactor's clock.
    """

    __slots__ = (
        "answered",
        "established",
        "first_zxid",
        "last_numbered",
        "last_reply",
        "last_request",
        "latency",
        "received",
        "sent",
    )

    def __init__(self) -> None:
        self.established = int(time.time() * 1000)
        self.first_zxid = 0
        self.reset()

    def reset(self) -> None:
        """Reset all counters."""
        self.received = 0
        self.sent = 0
        self.last_request = b""
        self.last_numbered = b""
        self.last_reply = b""
        self.answered = 0.0
        self.latency = Latency()

    def began(self, zxid: int) -> None:
        """Count the handshake as a request; its answer has no header."""
        self.last_request = self.last_numbered = HANDSHAKE
        self.first_zxid = zxid


class Member(Client, Protocol):
    """
    The part of a connection that the counters and words use.

    :ivar address: the peer's address.
    :ivar waiting: replies and events that wait for the disk.
    """

    traffic: Traffic

    @property
    def address(self) -> IAddress: ...

    @property
    def waiting(self) -> int: ...

    def abort(self) -> None:
        """End the connection now; waiting packets are dropped."""


class Members:
    """
    The connections of one server. Thread: reactor.

    :param limit: a further connection is closed. The first such one is logged, and the end of the
        shortage, when a quarter of the limit is free again, so that one client that reconnects does
        not fill the log.
    :ivar connections: the open ones, in order of arrival.
    :ivar latency: the times of all connections.
    """

    _log = Logger()

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.connections: dict[Member, None] = {}
        self.latency = Latency()
        self._received = 0  # by closed connections, and by open ones before a reset
        self._sent = 0
        self._complaints = 0
        self._refused = 0  # connections closed since the limit was reached

    @property
    def received(self) -> int:
        """Requests and words, since the start or since ``reset``."""
        return self._received + sum(one.traffic.received for one in self.connections)

    @property
    def sent(self) -> int:
        """Replies and events since the same time."""
        return self._sent + sum(one.traffic.sent for one in self.connections)

    def admit(self, connection: Member) -> bool:
        """Add a connection; False if the limit is reached."""
        if len(self.connections) >= self.limit:
            self._refuse(connection)
            return False
        self.connections[connection] = None
        return True

    def forget(self, connection: Member) -> None:
        """Remove a connection that has ended."""
        if connection in self.connections:
            del self.connections[connection]
            self._received += connection.traffic.received
            self._sent += connection.traffic.sent
            if self._refused and len(self.connections) <= self.limit - max(1, self.limit // 4):
                self._log.info(
                    "There is room for connections again; {count} were closed", count=self._refused
                )
                self._refused = 0

    def _refuse(self, connection: Member) -> None:
        """Count a refused connection, and log the first."""
        self._refused += 1
        if self._refused == 1:
            self._log.warn(
                "Closing {peer} and all that follow: there are {limit} connections"
                " (--max-connections)",
                peer=connection.address,
                limit=self.limit,
            )

    def complain(self, connection: Member, text: str) -> None:
        """A connection is closed because of its peer. The first ten are logged, later ones when
        their number is a power of two, so that garbage cannot fill the log."""
        self._complaints += 1
        count = self._complaints
        if count <= 10 or not count & (count - 1):
            self._log.warn(
                "Closing {peer}: {text} (closed connection number {count} since the start)",
                peer=connection.address,
                text=text,
                count=count,
            )

    def reset(self) -> None:
        """Reset the totals."""
        self._received -= self.received
        self._sent -= self.sent
        self.latency = Latency()

    def reset_connections(self) -> None:
        """Reset the counts of each connection."""
        for connection in self.connections:
            self._received += connection.traffic.received
            self._sent += connection.traffic.sent
            connection.traffic.reset()

    def close(self) -> None:
        """Close every connection after its last packet."""
        for connection in list(self.connections):
            connection.close()

    def abort(self) -> None:
        """End every connection now; waiting packets are dropped."""
        for connection in list(self.connections):
            connection.abort()
