"""The conformance table of ``tests/conformance/conformance.txt`` as rows."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from tests.support.broker import CHECKOUT

TABLE = os.path.join(CHECKOUT, "tests", "conformance", "conformance.txt")

_PLACEHOLDERS = {
    b"<id>": rb"-?[0-9]+",
    b"<n>": rb"[0-9]+",
    b"<id8>": rb"(?s:.{8})",
    b"<any>": rb"(?s:.*)",
    b"<ours>": rb"(?:metamorphosis \S+\r\n)?",  # not the original's
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
    parts = re.split(rb"(<id>|<n>|<id8>|<any>|<ours>)", _bytes(text))
    pattern = b"".join(_PLACEHOLDERS.get(part, re.escape(part)) for part in parts)
    return re.compile(pattern + rb"\Z"), bool(row.receive)
