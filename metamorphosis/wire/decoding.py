"""
Bytes in, commands out. Both ends use one grammar: a broker reads requests with it, a client
replies.

A frame is a line that ends with CRLF, and for ``put``, ``sync``, ``value`` and ``result`` a body
after it, of the length that one token of the line gives. Reading happens in two steps: the *head*
(line split, word and length known), then, when the body is there, the command. Only the length
token is checked in the first step: a line with too few tokens waits for its body like any other,
and fails then. The outcome never depends on how the bytes were cut into chunks.

This module raises ``RemoteProtocolError`` and nothing else, for any bytes.

Source: ``MetamorphosisWireFormatType``, ``ByteUtils``.

Differs: the original has no limit on lines and bodies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from metamorphosis.errors import FrameTooLong, RemoteProtocolError
from metamorphosis.wire.commands import Command
from metamorphosis.wire.numbers import parse_int32
from metamorphosis.wire.parsing import Parse, check_count, form_of

CRLF: Final = b"\r\n"

#: bytes of a memoryview that are copied first to find the end of a line; nearly every line is
#: shorter
_FIRST_LOOK = 512

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """
    Limits for the parts of a frame; a longer part is a ``RemoteProtocolError``. The defaults are
    those of the settings file, well above the size of usual messages.
    """

    #: bytes of the line, without its CRLF
    max_line_bytes: int = 64 * 1024
    #: bytes of the body
    max_body_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The buffer ends inside the frame."""

    #: bytes of the whole frame, counted from its start; None while its line is incomplete
    total: int | None


_LINE_INCOMPLETE: Final = NeedMore(None)


class _Head(NamedTuple):
    """A line that was read."""

    parse: Parse
    tokens: list[bytes]
    body_length: int
    #: bytes of the line and its CRLF
    length: int


def decode_frame(
    buffer: Buffer, start: int, end: int, limits: FrameLimits, searched: int = 0
) -> tuple[Command, int] | NeedMore:
    """
    Read one frame out of a buffer that the caller owns and fills.

    :param start: start of the frame
    :param end: end of the received bytes; later bytes are not read
    :param searched: the number of bytes from ``start`` on that an earlier call, which returned
        ``NeedMore(None)``, has searched for a CRLF; a slowly arriving line is not searched again
        from its start
    :returns: the command, which shares no memory with the buffer, and the position after the
        frame; or ``NeedMore``
    :raises RemoteProtocolError: no peer may send this; nothing after ``start`` can be trusted
    """
    head = _read_head(buffer, start, end, limits, searched)
    if head is None:
        return _LINE_INCOMPLETE
    body_start = start + head.length
    if not head.body_length:
        return head.parse(head.tokens, b""), body_start
    body_end = body_start + head.body_length
    if body_end > end:
        return NeedMore(body_end - start)
    body = bytes(memoryview(buffer)[body_start:body_end])
    return head.parse(head.tokens, body), body_end


class CommandDecoder:
    """
    Turns the chunks of one direction of a connection into commands.

    Each byte is read a bounded number of times: the search for the end of a line continues at the
    place where it stopped, and a line is parsed once, however slowly its body arrives.

    Thread: any, one at a time.
    """

    def __init__(self, max_line_bytes: int, max_body_bytes: int) -> None:
        """
        :param max_line_bytes: longest line accepted, without its CRLF
        :param max_body_bytes: longest body accepted
        """
        self._limits = FrameLimits(max_line_bytes, max_body_bytes)
        self._buffer = bytearray()
        self._position = 0  # of the next frame, or of the body that _head waits for
        self._searched = 0  # bytes from _position on that hold no CRLF
        self._head: _Head | None = None  # of a frame whose body is incomplete
        self._error: RemoteProtocolError | None = None

    def receive(self, data: Buffer) -> Iterator[Command]:
        """
        Take a chunk and return the commands that are complete now, one by one.

        The bytes are taken at the call. The commands are read as the iterator advances, so those
        before a bad frame are delivered, and can be handled, before the iterator raises. An
        iterator that is not exhausted leaves its commands to the next one.

        :raises RemoteProtocolError: from the iterator, at a frame that no peer may send. From then
            on the decoder is unusable: every later iterator raises the same error at once.
        """
        if self._error is None:
            self._buffer += data
        return self._commands()

    @property
    def pending(self) -> int:
        """Bytes received that are not part of a delivered command."""
        head_length = self._head.length if self._head is not None else 0
        return head_length + len(self._buffer) - self._position

    def _commands(self) -> Iterator[Command]:
        if self._error is not None:
            raise self._error
        try:
            while (command := self._next()) is not None:
                yield command
        except RemoteProtocolError as error:
            self._error = error
            self._buffer.clear()
            self._position = 0
            raise
        del self._buffer[: self._position]
        self._position = 0

    def _next(self) -> Command | None:
        """The next command, or None while it is incomplete."""
        buffer = self._buffer
        head = self._head
        if head is None:
            head = _read_head(buffer, self._position, len(buffer), self._limits, self._searched)
            if head is None:
                self._searched = len(buffer) - self._position
                return None
            self._searched = 0
            self._position += head.length
            self._head = head
        body_end = self._position + head.body_length
        if body_end > len(buffer):
            return None
        body = bytes(memoryview(buffer)[self._position : body_end])
        self._position = body_end
        self._head = None
        return head.parse(head.tokens, body)


def _read_head(
    buffer: Buffer, start: int, end: int, limits: FrameLimits, searched: int
) -> _Head | None:
    """The line at ``start``, or None while it has no CRLF."""
    line = _read_line(buffer, start, end, limits.max_line_bytes, searched)
    if line is None:
        return None
    # trailing empty tokens do not count: the original's split drops them
    tokens = line.rstrip(b" ").split(b" ")
    form = form_of(tokens[0])
    body_length = 0
    if form.length_token:
        check_count(tokens, form.length_token + 1)
        body_length = _body_length(tokens, form.length_token)
        if body_length > limits.max_body_bytes:
            raise FrameTooLong(
                f"body of {body_length} bytes is longer than max-body-bytes,"
                f" {limits.max_body_bytes}",
                parse_int32(tokens[-1], "opaque") if form.is_request else None,
            )
    return _Head(form.parse, tokens, body_length, len(line) + 2)


def _read_line(
    buffer: Buffer, start: int, end: int, max_line_bytes: int, searched: int
) -> bytes | None:
    """The bytes before the first CRLF, or None while there is none."""
    # the last byte searched may be a CR whose LF has arrived since
    search = start + max(searched - 1, 0)
    limit = min(end, start + max_line_bytes + len(CRLF))
    if isinstance(buffer, memoryview):
        found = _find_in_view(buffer, search, limit)
    else:
        found = buffer.find(CRLF, search, limit)
    if found >= 0:
        return bytes(buffer[start:found])
    if end - start >= max_line_bytes + len(CRLF):
        raise RemoteProtocolError(f"line is longer than max_line_bytes, {max_line_bytes}")
    return None


def _find_in_view(view: memoryview, search: int, limit: int) -> int:
    """``find`` of CRLF for a memoryview, which has no such method."""
    for stop in (min(search + _FIRST_LOOK, limit), limit):
        found = bytes(view[search:stop]).find(CRLF)
        if found >= 0:
            return search + found
    return -1


def _body_length(tokens: list[bytes], index: int) -> int:
    length = parse_int32(tokens[index], "length")
    if length < 0:
        raise RemoteProtocolError(f"length {length} is negative")
    return length
