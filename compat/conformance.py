"""A run of the conformance table against a live broker."""

from __future__ import annotations

import re
import time

from compat.exchange import CLOSED, SILENCE_SECONDS, SILENT, Connection, Reply
from tests.support.conformancetable import Row, expected, rows

SYSTEM = {"numPartitions": 1, "unflushThreshold": 0, "unflushInterval": 10000}
TOPICS: dict[str, dict[str, object]] = {
    "test": {"numPartitions": 2},
    "wild*": {},
    "nopub": {"acceptPublish": "false", "acceptSubscribe": "false"},
    "slow": {"unflushThreshold": 1000, "unflushInterval": 10000},
}


LOOK_SECONDS = 0.05  # between two gets of a message that the broker does not show yet


def run(port: int, version: str, patience: float = 0.0) -> dict[str, str]:
    """
    Run every row; the fault of each by its name, empty when it held.

    :param patience: seconds from the answer to a commit until its messages can be read: the
        original answers before it has moved the end of what is read.
    """
    named: dict[str, Connection] = {}
    faults = {}
    for row in rows():
        connection = named.get(row.connection) or Connection(port)
        try:
            faults[row.name] = _run(row, connection, patience, *expected(row, port, version))
        except (OSError, ValueError) as error:
            faults[row.name] = f"{type(error).__name__}: {error}"
        if row.connection == "-":
            connection.close()
        else:
            named[row.connection] = connection
    for connection in named.values():
        connection.close()
    return faults


def _run(
    row: Row, connection: Connection, patience: float, pattern: re.Pattern[bytes], answered: bool
) -> str:
    connection.send(row.send)
    if answered:
        reply = connection.reply()
        end = time.monotonic() + patience
        while row.receive.startswith("value") and _is_missing(reply) and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
            connection.send(row.send)
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


def _is_missing(reply: Reply | bytes) -> bool:
    return isinstance(reply, Reply) and reply.status == 404


def _frame(reply: Reply) -> bytes:
    """The bytes of a reply whose length token has been checked."""
    head = b"result %d" % reply.status if reply.status else b"value"
    return b"%b %d %d\r\n%b" % (head, len(reply.body), reply.opaque, reply.body)
