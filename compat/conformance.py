"""The conformance table of ``conformance.txt`` as rows, and its run against a live broker."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from compat.exchange import CLOSED, SILENCE_SECONDS, SILENT, Connection, Reply

TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "conformance.txt")

SYSTEM = {"numPartitions": 1, "unflushThreshold": 0, "unflushInterval": 10000}
TOPICS: dict[str, dict[str, object]] = {
    "test": {"numPartitions": 2},
    "wild*": {},
    "nopub": {"acceptPublish": "false", "acceptSubscribe": "false"},
    "slow": {"unflushThreshold": 1000, "unflushInterval": 10000},
}

_PLACEHOLDERS = {
    b"<id>": rb"-?[0-9]+",
    b"<n>": rb"[0-9]+",
    b"<id8>": rb"(?s:.{8})",
    b"<any>": rb"(?s:.*)",
}


class Row(NamedTuple):
    """
    One row: what is sent on which connection, what comes back, and whether the connection lives on.
    """

    name: str
    connection: str
    stays_open: bool
    send: bytes
    receive: str


def _bytes(text: str) -> bytes:
    """The bytes of a cell."""
    text = text.replace("\\r", "\r").replace("\\n", "\n")
    parts = re.split(r"\\x([0-9a-f]{2})", text)
    return b"".join(
        bytes.fromhex(part) if odd % 2 else part.encode("utf-8") for odd, part in enumerate(parts)
    )


def rows() -> list[Row]:
    """The table, in order."""
    with open(TABLE, encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in file if not line.startswith(";")]
    table = []
    for block in "\n".join(lines).strip().split("\n\n"):
        head, send, *receive = block.split("\n")
        name, connection, after = head.split(" ")
        received = receive[0].removeprefix("< ") if receive else ""
        table.append(Row(name, connection, after == "open", _bytes(send[2:]), received))
    return table


def expected(row: Row, port: int, version: str) -> tuple[re.Pattern[bytes], bool]:
    """A pattern for the whole reply, head and body, and whether there is one at all."""
    text = re.sub(r"^(result \d+|value) (?:\d+|<n>) ", r"\1 <n> ", row.receive)
    text = text.replace("1.4.6.2", version).replace("8123", str(port))
    parts = re.split(rb"(<id>|<n>|<id8>|<any>)", _bytes(text))
    pattern = b"".join(_PLACEHOLDERS.get(part, re.escape(part)) for part in parts)
    return re.compile(pattern + rb"\Z"), bool(row.receive)


def run(port: int, version: str) -> dict[str, str]:
    """Run every row; the fault of each by its name, empty when it held."""
    named: dict[str, Connection] = {}
    faults = {}
    for row in rows():
        connection = named.get(row.connection) or Connection(port)
        try:
            faults[row.name] = _run(row, connection, *expected(row, port, version))
        except (OSError, ValueError) as error:
            faults[row.name] = f"{type(error).__name__}: {error}"
        if row.connection == "-":
            connection.close()
        else:
            named[row.connection] = connection
    for connection in named.values():
        connection.close()
    return faults


def _run(row: Row, connection: Connection, pattern: re.Pattern[bytes], answered: bool) -> str:
    connection.send(row.send)
    if answered:
        reply = connection.reply()
        if isinstance(reply, bytes):
            return f"{reply!r} in place of {row.receive}"
        if not pattern.match(_frame(reply)):
            return f"{_frame(reply)!r} in place of {row.receive}"
    if not row.stays_open:
        rest = connection.rest(2)
        return f"{rest!r} before the close" if rest else ""
    return _still_open(row, connection, answered)


def _still_open(row: Row, connection: Connection, answered: bool) -> str:
    """A broker that waits for more of a body cannot be asked anything; all others can."""
    if not answered:
        silence = connection.reply(SILENCE_SECONDS)
        if silence != SILENT:
            return f"{silence!r} in place of silence"
    if not answered and not row.send.startswith(b"transaction"):
        return ""
    connection.send(b"version 99\r\n")
    reply = connection.reply()
    if reply == CLOSED or not isinstance(reply, Reply) or reply.opaque != 99:
        return f"the connection does not live on: {reply!r}"
    return ""


def _frame(reply: Reply) -> bytes:
    """The bytes of a reply whose length token has been checked."""
    head = b"result %d" % reply.status if reply.status else b"value"
    return b"%b %d %d\r\n%b" % (head, len(reply.body), reply.opaque, reply.body)
