"""
A client of the wire protocol over a blocking socket, for tests that let many of them loose on a
broker.

The few frames that it needs are written out here: an oracle must not share the codec of what it
judges.
"""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import NamedTuple

CONNECT_SECONDS = 5.0
REPLY_SECONDS = 20.0


class Reply(NamedTuple):
    """One reply; ``status`` is 0 for a ``value``."""

    status: int
    opaque: int
    body: bytes


def put(topic: str, partition: int, body: bytes, opaque: int) -> bytes:
    """A put without a checksum."""
    return b"put %s %d %d 0 %d\r\n%s" % (topic.encode(), partition, len(body), opaque, body)


def get(topic: str, partition: int, offset: int, size: int, opaque: int) -> bytes:
    """A get of group ``g``."""
    return b"get %s g %d %d %d %d\r\n" % (topic.encode(), partition, offset, size, opaque)


class Peer:
    """One connection. Every wait is bounded; a timeout is an ``OSError``."""

    def __init__(self, port: int, seconds: float = REPLY_SECONDS) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), CONNECT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(seconds)
        self._received = bytearray()

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def ask(self, request: bytes) -> Reply:
        """Send one request and wait for its reply."""
        self.send(request)
        return self.reply()

    def reply(self) -> Reply:
        """
        The next reply.

        :raises ConnectionError: the broker closed the connection, or what it sent is no reply.
        """
        head = self._line().split(b" ")
        if len(head) == 4 and head[0] == b"result":
            return Reply(int(head[1]), int(head[3]), self._take(int(head[2])))
        if len(head) == 3 and head[0] == b"value":
            return Reply(0, int(head[2]), self._take(int(head[1])))
        raise ConnectionError(f"not a reply: {head!r}")

    def close(self) -> None:
        """Close in order."""
        self.socket.close()

    def vanish(self) -> None:
        """Close with a reset, as a client whose machine dies and comes back."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _line(self) -> bytes:
        while (end := self._received.find(b"\r\n")) < 0:
            self._receive()
        line = bytes(self._received[:end])
        del self._received[: end + 2]
        return line

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            self._receive()
        body = bytes(self._received[:size])
        del self._received[:size]
        return body

    def _receive(self) -> None:
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the broker closed the connection")
        self._received += data
