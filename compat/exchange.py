"""
Bytes to a broker and back over a plain socket.

The frame rules here are written anew and know only what a test needs; the broker's own decoder is
what is being tested.
"""

from __future__ import annotations

import re
import socket
import time
from typing import NamedTuple

REPLY_SECONDS = 10.0
SILENCE_SECONDS = 0.15

CLOSED = b"<closed>"
SILENT = b"<silent>"


class Reply(NamedTuple):
    """One frame from a broker: ``result`` (with its status) or ``value`` (status 0)."""

    status: int
    opaque: int
    body: bytes


_RESULT = re.compile(rb"result (\d+) (\d+) (-?\d+)\Z")
_BODY = re.compile(rb"(?:put|sync) [^ ]* [^ ]* (\d+) ")
_VALUE = re.compile(rb"value (\d+) (-?\d+)\Z")


def split_reply(stream: bytes) -> tuple[Reply | None, bytes]:
    """
    The first frame of what a broker sent, and the rest; no frame while it is incomplete.

    :raises ValueError: the bytes are no reply; the head has exactly the tokens every client can
    read.
    """
    head, separator, rest = stream.partition(b"\r\n")
    if not separator:
        return None, stream
    found = _RESULT.match(head)
    if found:
        status, length, opaque = (int(number) for number in found.groups())
    else:
        found = _VALUE.match(head)
        if not found:
            raise ValueError(f"no reply starts like this: {head[:100]!r}")
        status, length, opaque = 0, *(int(number) for number in found.groups())
    if len(rest) < length:
        return None, stream
    return Reply(status, opaque, rest[:length]), rest[length:]


def split_replies(stream: bytes) -> list[Reply]:
    """All frames of a whole recorded stream."""
    replies = []
    while stream:
        reply, stream = split_reply(stream)
        if reply is None:
            raise ValueError(f"cut reply: {stream[:100]!r}")
        replies.append(reply)
    return replies


def split_requests(stream: bytes) -> list[bytes]:
    """The requests of a recorded client stream, each with its body."""
    requests = []
    while stream:
        head, separator, rest = stream.partition(b"\r\n")
        found = _BODY.match(head)
        length = int(found.group(1)) if found else 0
        requests.append(head + separator + rest[:length])
        stream = rest[length:]
    return requests


class Connection:
    """One client connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.closed = False

    def send(self, data: bytes) -> None:
        """Send everything; a broker that has closed already is no error here."""
        try:
            self.socket.sendall(data)
        except OSError:
            self.closed = True

    def _receive(self, seconds: float) -> bool:
        """Take in what comes; whether anything came, the end of the connection included."""
        self.socket.settimeout(max(seconds, 0.001))
        try:
            data = self.socket.recv(1 << 18)
        except TimeoutError:
            return False
        except OSError:  # linger 0 on the broker's side: a reset is a close
            data = b""
        self.received += data
        self.closed = self.closed or not data
        return True

    def reply(self, seconds: float = REPLY_SECONDS) -> Reply | bytes:
        """The next reply, or ``CLOSED``, or ``SILENT`` after that many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            reply, self.received = split_reply(self.received)
            if reply is not None:
                return reply
            if self.closed:
                return CLOSED
            if not self._receive(deadline - time.monotonic()):
                return SILENT

    def rest(self, seconds: float = REPLY_SECONDS) -> bytes:
        """Everything until the broker closes; ``TimeoutError`` when it does not."""
        deadline = time.monotonic() + seconds
        while not self.closed:
            if not self._receive(deadline - time.monotonic()):
                raise TimeoutError(f"the broker keeps the connection open after {self.received!r}")
        return self.received

    def ask(self, request: bytes) -> Reply:
        """Send a request and wait for its reply; anything else is an error."""
        self.send(request)
        reply = self.reply()
        if isinstance(reply, bytes):
            raise AssertionError(f"{request[:80]!r} was answered by {reply!r}")
        return reply

    def close(self) -> None:
        """Close our end."""
        self.socket.close()
