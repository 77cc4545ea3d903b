"""
Bytes of a broker -> (status, body, opaque), all of a chunk in one loop, and a status as an error.
Pure.

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
from metamorphosis.wire.numbers import shown

VALUE: Final = 0
"""Status of a ``value``, whose body is a piece of the log."""
NOT_SENT: Final = -1
"""There is no connection, or it took nothing: the broker never saw the request."""
LOST: Final = -2
"""The connection was lost with the request under way."""
TIMED_OUT: Final = -3
"""No answer in time."""

SUCCESS: Final = 200

Reply = tuple[int, bytes, int]


class ReplyReader:
    """
    Takes the chunks of one connection.

    A body that arrives in pieces is joined once.

    :ivar fault: what the broker sent that no broker may send; nothing is read after it.
    """

    __slots__ = ("fault", "_max_line", "_max_body", "_rest", "_head", "_pieces", "_missing")

    def __init__(self, max_line_bytes: int, max_body_bytes: int) -> None:
        self.fault: str | None = None
        self._max_line = max_line_bytes
        self._max_body = max_body_bytes
        self._rest = b""  # the start of a line, or of a short frame
        self._head: tuple[int, int] | None = None  # status and opaque of the body under way
        self._pieces: list[bytes] = []
        self._missing = 0  # bytes of that body

    def receive(self, data: bytes) -> list[Reply]:
        """The replies that are complete now, in order. Look at ``fault`` afterwards."""
        replies: list[Reply] = []
        if self._head is not None:
            data = self._continue_body(data, replies)
            if self._head is not None:
                return replies
        elif self._rest:
            data = self._rest + data
            self._rest = b""
        if self.fault is None:
            self._read(data, replies)
        return replies

    def _continue_body(self, data: bytes, replies: list[Reply]) -> bytes:
        """Bytes behind the body that was under way, which is complete if ``_head`` is None."""
        missing = self._missing
        if len(data) < missing:
            self._pieces.append(data)
            self._missing = missing - len(data)
            return b""
        assert self._head is not None
        status, opaque = self._head
        self._pieces.append(data[:missing])
        replies.append((status, b"".join(self._pieces), opaque))
        self._head = None
        self._pieces = []
        return data[missing:]

    def _read(self, data: bytes, replies: list[Reply]) -> None:
        """Frames from the start of ``data`` on; what is incomplete is kept."""
        position = 0
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
                    self._head = status, int(number)
                    self._pieces = [data[body_start:]]
                    self._missing = position - end
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
    The exception for the outcome of a request that is no success.

    :param request: what was asked of whom, as in ``put of topic test at meta://host:8123``.
    """
    if status == NOT_SENT:
        return NotConnected(f"{request}: not sent, there is no connection")
    if status == LOST:
        return ConnectionLost(f"{request}: connection lost before the answer")
    if status == TIMED_OUT:
        return RequestTimeout(f"{request}: no answer in time")
    return broker_error(status, body)


def broker_error(status: int, body: bytes) -> BrokerError:
    """The error with which a broker refused, with its text; an unknown status counts as 500."""
    text = body.decode("utf-8", "replace")
    return BROKER_ERRORS.get(status, InternalServerError)(text or str(status))
