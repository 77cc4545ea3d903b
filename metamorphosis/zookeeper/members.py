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
"""Stands for the first bytes of a handshake among those of requests: xid and operation."""


class Latency:
    """
    How long chunks of requests took until their last reply left, in seconds.

    :ivar count: chunks.
    :ivar last: of the newest.
    """

    __slots__ = ("count", "last", "least", "most", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = self.least = self.most = self.last = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
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

    :ivar established: milliseconds since 1970.
    :ivar first_zxid: the newest when its session began or was resumed.
    :ivar received: requests and words since the start, or since ``reset``.
    :ivar sent: replies and events since then.
    :ivar last_request: the first bytes of the newest request, xid and operation; empty if there was
        none since ``reset``.
    :ivar last_numbered: the same of the newest whose xid counts; that of a ping does not.
    :ivar last_reply: the header of the newest reply.
    :ivar answered: when the newest reply left, seconds of the reactor's clock.
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
        """Count from here on."""
        self.received = 0
        self.sent = 0
        self.last_request = b""
        self.last_numbered = b""
        self.last_reply = b""
        self.answered = 0.0
        self.latency = Latency()

    def began(self, zxid: int) -> None:
        """The handshake counts as a request; its answer has no header."""
        self.last_request = self.last_numbered = HANDSHAKE
        self.first_zxid = zxid


class Member(Client, Protocol):
    """
    A connection, as those see it that count connections.

    :ivar address: of the peer.
    :ivar waiting: replies and events that wait for the disk.
    """

    traffic: Traffic

    @property
    def address(self) -> IAddress: ...

    @property
    def waiting(self) -> int: ...

    def abort(self) -> None:
        """End now, with frames that wait."""


class Members:
    """
    The connections of one server. Thread: reactor.

    :param limit: a further connection is closed. The log says when the first one is, and when there
        is room again: for a quarter of the limit, so that one client that comes and goes does not
        fill it.
    :ivar connections: the open ones, in order of arrival.
    :ivar latency: of all.
    """

    _log = Logger()

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.connections: dict[Member, None] = {}
        self.latency = Latency()
        self._received = 0  # by connections that are gone, and by open ones before a reset
        self._sent = 0
        self._complaints = 0
        self._refused = 0  # beyond the limit, since there was room

    @property
    def received(self) -> int:
        """Requests and words, since the start or since ``reset``."""
        return self._received + sum(one.traffic.received for one in self.connections)

    @property
    def sent(self) -> int:
        """Replies and events since then."""
        return self._sent + sum(one.traffic.sent for one in self.connections)

    def admit(self, connection: Member) -> bool:
        """Whether there is room for one more."""
        if len(self.connections) >= self.limit:
            self._refuse(connection)
            return False
        self.connections[connection] = None
        return True

    def forget(self, connection: Member) -> None:
        """It is gone."""
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
        """No room for this one."""
        self._refused += 1
        if self._refused == 1:
            self._log.warn(
                "Closing {peer} and all that follow: there are {limit} connections"
                " (--max-connections)",
                peer=connection.address,
                limit=self.limit,
            )

    def complain(self, connection: Member, text: str) -> None:
        """A connection is closed because of its peer. The first ten are logged, later ones only
        now and then, so that garbage cannot fill the log."""
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
        """Reset the counts of all together."""
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
        """Close each when everything sent has left."""
        for connection in list(self.connections):
            connection.close()

    def abort(self) -> None:
        """End each now; what waits never leaves."""
        for connection in list(self.connections):
            connection.abort()
