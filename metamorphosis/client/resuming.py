"""
Where a partition can be read, as its broker says: its ends, its segments, and the next message
behind a damaged place.

The broker answers ``offset`` with the start of the segment that holds the given place, or the
nearer end of what is readable, so that segment starts can be felt out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from metamorphosis.client.connection import BrokerConnection
from metamorphosis.client.model import ANY_PARTITION, Partition
from metamorphosis.client.records import Damage, FetchedRecords, find_record
from metamorphosis.client.replies import SUCCESS, VALUE, error_of
from metamorphosis.client.settings import MAX_OFFSET
from metamorphosis.errors import BadReply, Forbidden, NotFound
from metamorphosis.message import HEADER_BYTES
from metamorphosis.wire.commands import GetCommand, OffsetCommand

FIRST_STEP: Final = 1 << 20
"""Bytes in search of the next segment; each further step is twice as long."""
PIECE_BYTES: Final = 1 << 20
"""Fetched at a time in search of the next message."""


class LogPlaces:
    """
    One partition at one broker. Thread: the loop's.

    :param timeout: seconds of each request.

    Every coroutine raises ``MetaQError`` when the broker refuses or does not answer.
    """

    def __init__(
        self,
        connection: BrokerConnection,
        group: str,
        topic: str,
        partition: Partition,
        timeout: float,
    ) -> None:
        self._connection = connection
        self._timeout = timeout
        self._what = f"of {topic} {partition} at {connection.url}"
        self._get = GetCommand(topic, group, partition.number, 0, 1, 0)
        self._offset = OffsetCommand(topic, group, partition.number, 0, 0)

    async def fetch(self, offset: int, max_size: int) -> bytes:
        """
        Bytes of the log; none where there is nothing, or the partition is closed.

        :raises Moved: go on at the offset in the text.
        """
        asked = replace(self._get, offset=offset, max_size=max_size)
        status, body = await self._connection.call(asked, self._timeout)
        if status == VALUE:
            return body
        error = error_of(status, body, f"get {self._what}")
        if isinstance(error, NotFound | Forbidden):
            return b""
        raise error

    async def nearest(self, offset: int) -> int:
        """
        The start of the segment that holds ``offset``, or the nearer end of what is readable.

        :raises NotFound: nothing was ever put there, or the broker has no such partition.
        """
        asked = replace(self._offset, offset=offset)
        status, body = await self._connection.call(asked, self._timeout)
        what = f"offset {offset} {self._what}"
        if status != SUCCESS:
            raise error_of(status, body, what)
        if not body.isdigit():
            raise BadReply(f"{what}: answered {body[:64]!r}, a number expected")
        return int(body)

    async def end(self) -> int:
        """Where the next message will begin. See ``nearest``."""
        return await self.nearest(MAX_OFFSET)

    async def next_segment(self, offset: int) -> int:
        """The start of the segment after the one that holds ``offset``, or the end of the log."""
        step = FIRST_STEP
        found = await self.nearest(offset + step)
        while found <= offset and step < 1 << 62:
            step *= 2
            found = await self.nearest(offset + step)
        # Segments may be shorter than the last step: back from start to start.
        while found > offset + 1:
            before = await self.nearest(found - 1)
            if not offset < before < found:
                break
            found = before
        return max(found, offset)

    async def behind(self, damage: Damage, max_body: int) -> int:
        """
        Where reading can go on: where the damaged record says that it ends if a message, or the end
        of the log, is there; else at the next readable message; or at the next segment if there is
        none in as many bytes as two of the longest messages have.
        """
        if damage.skip_to is not None:
            return damage.skip_to
        claimed, offset = damage.claimed_end, damage.offset
        if claimed is not None and await self._is_boundary(claimed, max_body):
            return claimed
        data = b""
        while len(data) < 2 * max_body + PIECE_BYTES:
            piece = await self.fetch(offset + len(data), PIECE_BYTES)
            if not piece:
                break
            data += piece
            found = find_record(data, 1, max_body)
            if found is not None:
                return offset + found
        return await self.next_segment(offset)

    async def _is_boundary(self, offset: int, max_body: int) -> bool:
        end = await self.end()
        if offset >= end:
            return offset == end
        data = await self.fetch(offset, HEADER_BYTES + max_body)
        return bool(FetchedRecords("", ANY_PARTITION, offset, data, max_body).read(1))
