"""
The readable places of a partition, as its broker tells them: the ends and the segments.

The broker answers ``offset`` with the start of the segment that holds the given place, or with the
nearer end of the log, so that a search finds the segments.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from metamorphosis.client.model import Partition
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.replies import SUCCESS, VALUE, error_of
from metamorphosis.client.settings import MAX_OFFSET
from metamorphosis.errors import BadReply, Forbidden, NotFound
from metamorphosis.wire.commands import GetCommand, OffsetCommand

FIRST_STEP: Final = 1 << 20
"""First step of the search for the next segment; each further step is twice as long."""
UNFILTERED_GROUP: Final = "Just_for_Browser"
"""The group of requests for bytes that need not begin with a message, so that the filter of the
reading group does not apply; the name of the original's browser."""


class LogPlaces:
    """
    One partition at one broker. Thread: the loop's.

    :param timeout: seconds of each request.
    :ivar what: partition and broker, for errors.

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
        self.what = f"of {topic} {partition} at {connection.url}"
        self._get = GetCommand(topic, group, partition.number, 0, 1, 0)
        self._unfiltered = replace(self._get, group=UNFILTERED_GROUP)
        self._offset = OffsetCommand(topic, UNFILTERED_GROUP, partition.number, 0, 0)

    async def fetch(self, offset: int, max_size: int) -> bytes:
        """
        Bytes of the log; none at its end, or when the partition is closed.

        :raises Moved: the log goes on at the offset in the text.
        """
        return await self._fetch(replace(self._get, offset=offset, max_size=max_size))

    async def raw(self, offset: int, max_size: int) -> bytes:
        """The same of any place, whether or not a filter of the broker accepts the messages
        there."""
        return await self._fetch(replace(self._unfiltered, offset=offset, max_size=max_size))

    async def _fetch(self, asked: GetCommand) -> bytes:
        status, body = await self._connection.call(asked, self._timeout)
        if status == VALUE:
            return body
        error = error_of(status, body, f"get {self.what}")
        if isinstance(error, NotFound | Forbidden):
            return b""
        raise error

    async def nearest(self, offset: int) -> int:
        """
        The start of the segment that holds ``offset``, or the nearer end of the log.

        :raises NotFound: the partition never had a message, or the broker has no such partition.
        """
        asked = replace(self._offset, offset=offset)
        status, body = await self._connection.call(asked, self._timeout)
        what = f"offset {offset} {self.what}"
        if status != SUCCESS:
            raise error_of(status, body, what)
        if not body.isdigit():
            raise BadReply(f"{what}: answered {body[:64]!r}, a number expected")
        return int(body)

    async def end(self) -> int:
        """Where the next message will begin. See ``nearest``."""
        return await self.nearest(MAX_OFFSET)

    async def is_segment_end(self, offset: int) -> bool:
        """Whether a segment ends there, and it is not the last one."""
        return await self.nearest(offset) == offset < await self.end()

    async def next_segment(self, offset: int) -> int:
        """The start of the segment after the one that holds ``offset``, or the end of the log."""
        step = FIRST_STEP
        below, found = offset, await self.nearest(offset + step)
        while found <= offset and step < 1 << 62:
            below = offset + step
            step *= 2
            found = await self.nearest(offset + step)
        # It begins after ``below`` and not after ``found``: segments may be short.
        while found - below > 1:
            start = await self.nearest(found - 1)
            if start <= offset:
                break
            found = start
            middle = (below + found) // 2
            start = await self.nearest(middle)
            if start > offset:
                found = start
            else:
                below = middle
        return max(found, offset)
