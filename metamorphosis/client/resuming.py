"""
Where a partition can be read again when a stretch of it cannot: at the next segment file.

The broker answers ``offset`` with the start of the segment that holds the given place, or the
nearer end of what is readable, so that segment starts can be felt out.
"""

from __future__ import annotations

from dataclasses import replace

from metamorphosis.client.connection import BrokerConnection
from metamorphosis.client.replies import SUCCESS, error_of
from metamorphosis.errors import BadReply
from metamorphosis.wire.commands import OffsetCommand

FIRST_STEP = 1 << 20
"""Bytes; each further step is twice as long."""


async def nearest(
    connection: BrokerConnection, command: OffsetCommand, offset: int, timeout: float
) -> int:
    """
    What the broker answers to ``offset``.

    :param command: with topic, group and partition.
    :param timeout: seconds.
    :raises MetaQError: it refused, or did not answer.
    """
    asked = replace(command, offset=offset)
    status, body = await connection.call(asked, timeout)
    what = f"offset {offset} of {command.topic} {command.partition} at {connection.url}"
    if status != SUCCESS:
        raise error_of(status, body, what)
    if not body.isdigit():
        raise BadReply(f"{what}: answered {body[:64]!r}, a number expected")
    return int(body)


async def next_segment(
    connection: BrokerConnection, command: OffsetCommand, offset: int, timeout: float
) -> int:
    """
    The start of the segment after the one that holds ``offset``, or the end of the log.

    :raises MetaQError: see ``nearest``.
    """
    step = FIRST_STEP
    found = await nearest(connection, command, offset + step, timeout)
    while found <= offset and step < 1 << 62:
        step *= 2
        found = await nearest(connection, command, offset + step, timeout)
    # Segments may be shorter than the last step: back from start to start.
    while found > offset + 1:
        before = await nearest(connection, command, found - 1, timeout)
        if not offset < before < found:
            break
        found = before
    return max(found, offset)
