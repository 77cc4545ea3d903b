"""
Turns bytes of a broker into (status, body, opaque), all of a chunk in one loop, and a status into
an error. Pure.

Source: ``MetamorphosisWireFormatType``, ``BooleanCommand``, ``DataCommand``.

Differs: the original has no limit on lines and bodies.
"""

from __future__ import annotations

from typing import Final

from metamorphosis.errors import (
    BROKER_ERRORS,
    BrokerError,
    ConnectionLost,
    InternalServerError,
    MetaQError,
    NotConnected,
    RequestTimeout,
)
from metamorphosis.native import compiled
from metamorphosis.wire.numbers import shown

VALUE: Final = 0
"""Status of a ``value``, whose body is a piece of the log."""
NOT_SENT: Final = -1
"""There is no connection, or none of the bytes were written: the broker never saw the request."""
LOST: Final = -2
"""The connection was lost with the request under way."""
TIMED_OUT: Final = -3
"""No answer in time."""

SUCCESS: Final = 200

LONG_BYTES: Final = 32 * 1024
"""Fewer bytes of a body are received together with what follows them."""

Reply = tuple[int, bytes, int]


class Body(bytearray):
    """
    The bytes of a body while they arrive, without the part in C, whose ``Body`` copies nothing. (A
    ``BytesIO`` would save the copy, but its views crash the garbage collector of Python 3.12.)
    """

    def whole(self) -> bytes:
        """All of them; nothing is put in any more."""
        return bytes(self)


class ReplyReader:
    """
    Takes the chunks of one connection.

    The bytes of a long body can be received right where they belong: into ``room``, and then
    ``received`` says how many came. In pieces that are joined a MiB costs 70 us more.

    :ivar fault: bytes that are no reply of a broker; nothing is read after them.
    """

    __slots__ = (
        "_body",
        "_filled",
        "_head",
        "_max_body",
        "_max_line",
        "_rest",
        "_view",
        "fault",
    )

    def __init__(self, max_line_bytes: int, max_body_bytes: int) -> None:
        self.fault: str | None = None
        self._max_line = max_line_bytes
        self._max_body = max_body_bytes
        self._rest = b""  # the start of a line
        self._head: tuple[int, int] | None = None  # status and opaque of the body under way
        self._body: Body | None = None  # has its length already
        self._view = memoryview(b"")  # of it
        self._filled = 0  # bytes of the body that have come

    @property
    def is_between(self) -> bool:
        """Whether the next byte is the first of a reply."""
        return self._head is None and not self._rest

    def receive(self, data: bytes) -> list[Reply]:
        """The replies that are complete now, in order. Look at ``fault`` afterwards."""
        replies: list[Reply] = []
        if self._head is not None:
            missing = len(self._view) - self._filled
            part = data[:missing]
            self._view[self._filled : self._filled + len(part)] = part
            replies = self.received(len(part))
            if not replies:
                return replies
            data = data[missing:]
        elif self._rest:
            data = self._rest + data
            self._rest = b""
        if self.fault is None:
            self._read(data, replies)
        return replies

    def room(self) -> memoryview | None:
        """Where the next bytes belong; None if that is unknown, or the rest of the body is
        short."""
        if self._head is None or len(self._view) - self._filled < LONG_BYTES:
            return None
        return self._view[self._filled :]

    def received(self, count: int) -> list[Reply]:
        """So many bytes were put into ``room``: the reply that is complete now, if it is."""
        self._filled += count
        if self._filled < len(self._view) or self._head is None or self._body is None:
            return []
        status, opaque = self._head
        body = self._body.whole()
        self._head = self._body = None
        self._view = memoryview(b"")
        return [(status, body, opaque)]

    def _begin_body(self, status: int, opaque: int, length: int, start: memoryview) -> None:
        """The body goes on after this chunk."""
        self._head = status, opaque
        self._body = Body(length) if compiled is None else compiled.Body(length)
        self._view = memoryview(self._body)
        self._view[: len(start)] = start
        self._filled = len(start)

    def _read(self, data: bytes, replies: list[Reply]) -> None:
        """
        Frames from the start of ``data`` on; what is incomplete is kept. The part in C, if there is
        one, reads up to the first that is unusual or incomplete.

        One long function, because it makes no call for each reply.
        """
        position = 0
        if compiled is not None:
            position = compiled.split_replies(data, self._max_body, replies)
        end = len(data)
        find = data.find
        append = replies.append
        try:
            while position < end:
                line_end = find(b"\r\n", position)
                if line_end < 0:
                    self._keep_line(data[position:])
                    return
                line = data[position:line_end]
                tokens = line.split(b" ")
                if tokens[0] == b"result":
                    _, code, size, number = tokens
                    status = int(code)
                else:
                    word, size, number = tokens
                    if word != b"value":
                        raise ValueError(word)
                    status = VALUE
                length = int(size)
                body_start = line_end + 2
                position = body_start + length
                if length < 0 or status < 0 or length > self._max_body:
                    raise ValueError(length)
                if position > end:
                    start = memoryview(data)[body_start:]
                    self._begin_body(status, int(number), length, start)
                    return
                append((status, data[body_start:position], int(number)))
        except ValueError:
            self._fail(line)

    def _keep_line(self, rest: bytes) -> None:
        if len(rest) > self._max_line:
            self._fail(rest)
        else:
            self._rest = rest

    def _fail(self, line: bytes) -> None:
        """What a broker sends is ``result <status> <length> <opaque>`` or ``value <length> ...``"""
        self.fault = f"no reply of a broker: {shown(line)}"


def error_of(status: int, body: bytes, request: str) -> MetaQError:
    """
    The exception for a request that did not succeed.

    :param body: of statuses of this side: the reason, or empty.
    :param request: request and broker, as in ``put of topic test at meta://host:8123``.
    """
    reason = f" ({body.decode('utf-8', 'replace')})" if body and status < 0 else ""
    if status == NOT_SENT:
        return NotConnected(f"{request}: not sent, there is no connection{reason}")
    if status == LOST:
        return ConnectionLost(f"{request}: connection lost before the answer{reason}")
    if status == TIMED_OUT:
        return RequestTimeout(f"{request}: no answer in time")
    return broker_error(status, body)


def broker_error(status: int, body: bytes) -> BrokerError:
    """The error with which a broker refused, with its text; an unknown status counts as 500."""
    text = body.decode("utf-8", "replace")
    return BROKER_ERRORS.get(status, InternalServerError)(text or str(status))
