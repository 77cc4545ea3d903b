"""
Messages as bytes for the output of ``metaq consume``: bodies as lines, exact bodies, JSON, or the
user's format.
"""

from __future__ import annotations

import argparse
import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

from metamorphosis.cli.console import json_text
from metamorphosis.client.fetch.timesearch import milliseconds_of
from metamorphosis.client.model import ReceivedMessage

Format: TypeAlias = Callable[[ReceivedMessage], bytes]


def body_line(message: ReceivedMessage) -> bytes:
    """The data of the message, and a line end."""
    return message.data + b"\n"


def raw_body(message: ReceivedMessage) -> bytes:
    """The data of the message only."""
    return message.data


def json_line(message: ReceivedMessage) -> bytes:
    """
    The message as a JSON object; for a body that is not UTF-8 ``body`` is null, and ``body_base64``
    has the bytes.
    """
    data = message.data
    value: dict[str, object] = {
        "topic": message.topic,
        "partition": str(message.partition),
        "offset": message.offset,
        "id": message.id,
        "attribute": message.attribute,
    }
    try:
        value["body"] = data.decode("utf-8")
    except UnicodeDecodeError:
        value["body"] = None
        value["body_base64"] = base64.b64encode(data).decode("ascii")
    return json_text(value).encode() + b"\n"


def time_text(message_id: int) -> str:
    """The time at which a message was stored, in UTC; a hyphen for ids of Java brokers."""
    milliseconds = milliseconds_of(message_id)
    if milliseconds is None:
        return "-"
    when = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03}Z"


FIELDS: dict[str, Format] = {
    "topic": lambda message: message.topic.encode(),
    "partition": lambda message: str(message.partition).encode(),
    "offset": lambda message: b"%d" % message.offset,
    "next": lambda message: b"%d" % message.next_offset,
    "id": lambda message: b"%d" % message.id,
    "time": lambda message: time_text(message.id).encode(),
    "attribute": lambda message: (message.attribute or "").encode("utf-8", "surrogateescape"),
    "size": lambda message: b"%d" % len(message.data),
    "body": raw_body,
}
"""The fields that a format may name in braces. ``next`` is the offset after the message."""

ESCAPES = {"n": b"\n", "t": b"\t", "r": b"\r", "0": b"\0", "\\": b"\\"}

_PART = re.compile(
    r"\{\{|\}\}|\{(?P<field>[^{}]*)\}|\\x(?P<byte>[0-9A-Fa-f]{2})|\\(?P<escape>.?)|(?P<brace>[{}])",
    re.DOTALL,
)


def format_of(text: str) -> Format:
    """
    The value of ``--format``: fields in braces, ``{{`` and ``}}`` for braces, and the escapes
    ``\\n``, ``\\t``, ``\\r``, ``\\0``, ``\\\\`` and ``\\xHH``.

    :raises argparse.ArgumentTypeError: a field or an escape is unknown, or a brace has no partner.
    """
    pieces: list[bytes | Format] = []
    end = 0
    for part in _PART.finditer(text):
        pieces.append(text[end : part.start()].encode("utf-8", "surrogateescape"))
        pieces.append(_piece(text, part))
        end = part.end()
    pieces.append(text[end:].encode("utf-8", "surrogateescape"))

    def line(message: ReceivedMessage) -> bytes:
        return b"".join(each if isinstance(each, bytes) else each(message) for each in pieces)

    return line


def _piece(text: str, part: re.Match[str]) -> bytes | Format:
    if part[0] in ("{{", "}}"):
        return part[0][:1].encode()
    if part["byte"] is not None:
        return bytes([int(part["byte"], 16)])
    if part["brace"] is not None:
        where = part.start()
        raise argparse.ArgumentTypeError(
            f"{text!r}: the {part[0]} at character {where + 1} has no partner; write {part[0] * 2}"
            " for the character itself"
        )
    if part["field"] is not None:
        if part["field"] not in FIELDS:
            names = ", ".join(FIELDS)
            raise argparse.ArgumentTypeError(f"{text!r}: {part[0]} is unknown; fields: {names}")
        return FIELDS[part["field"]]
    if part["escape"] not in ESCAPES:
        raise argparse.ArgumentTypeError(
            rf"{text!r}: {part[0]} is unknown; escapes: \n \t \r \0 \\ \xHH"
        )
    return ESCAPES[part["escape"]]
