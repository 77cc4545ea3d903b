"""
The place of a time in a partition, found by the ids of its messages, which contain the time of the
broker's clock at the store. Read by ``get`` requests; no message is kept.

A bisection. If the middle is in another segment the broker returns the segment's start, which is
the offset of a record; otherwise bytes are fetched from any offset and searched for records
(``sample``). When the rest is short, its messages are read in order.

* Exact, if the ids ascend: no message of the time or later is before the place, and the message at
  the place is of that time or later. They ascend in the log of one broker of ours, over restarts
  and steps of its clock too (``metamorphosis.ids``).
* Approximate if they do not: after a promotion to a broker whose clock is behind. The message
  before the place is then older, and the one at the place is not.
* Approximate at damage: unreadable bytes directly before the place count as of that time.
* Unknown: Java brokers' ids from 1.4.5 on count from the start of their machine. They count as
  older than ours; if one of them is directly before the place, an error reports this.

Source: none.
"""

from __future__ import annotations

from typing import Final

from metamorphosis.client.fetch.boundaries import find_record
from metamorphosis.client.fetch.reader import ALL, PartitionReader
from metamorphosis.client.fetch.records import FetchedRecords
from metamorphosis.client.fetch.resuming import UNFILTERED_GROUP, LogPlaces
from metamorphosis.client.fetch.window import PIECE_BYTES, in_steps
from metamorphosis.client.model import Partition
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.errors import TimeNotKnown
from metamorphosis.ids import EPOCH_MS
from metamorphosis.interfaces import IRuntime
from metamorphosis.message import HEADER, HEADER_BYTES

ID_SHIFT: Final = 22
RECORDS_READ: Final = 4
"""The rest is short when it cannot have more than this number of the longest messages."""


def milliseconds_of(message_id: int) -> int | None:
    """
    The time at which a message was stored, by its id: ms since 1970. None for the ids of Java
    brokers from 1.4.5 on, which count from the start of their machine.
    """
    return (message_id >> ID_SHIFT) + EPOCH_MS if message_id > 0 else None


class TimeSearch:
    """
    A search in one partition at one broker. Thread: the loop's.

    :param max_body: longest body of a message, bytes; the records inside a longer one may be
        mistaken for messages.
    :param timeout: seconds of each request.
    """

    def __init__(
        self,
        runtime: IRuntime,
        connection: BrokerConnection,
        topic: str,
        partition: Partition,
        max_body: int,
        timeout: float,
    ) -> None:
        self._runtime = runtime
        self._topic = topic
        self._partition = partition
        self._max_body = max_body
        self._longest = HEADER_BYTES + max_body
        where = UNFILTERED_GROUP, topic, partition
        self._places = LogPlaces(connection, *where, timeout)
        self._reader = PartitionReader(runtime, connection, *where, max_body, timeout)

    async def find(self, milliseconds: int) -> int:
        """
        The offset of the first message stored at this time or later; without one, the end.

        :param milliseconds: since 1970.
        :raises TimeNotKnown: the message before it is a Java broker's.
        :raises NotFound: the partition has no message yet, or does not exist.
        :raises MetaQError: the broker refused, or did not reply.
        """
        wanted = (milliseconds - EPOCH_MS) << ID_SHIFT
        low = await self._places.nearest(0)
        if wanted <= 0:
            return low
        high = await self._places.end()
        while high - low > RECORDS_READ * self._longest:
            middle = (low + high) // 2
            found = await self._record_near(middle, low, high)
            if found is not None and found[1] < wanted:
                low = found[0]
            else:  # a bound for the halves only: ``_first`` reads on over it
                high = middle if found is None else min(middle, found[0])
        return await self._first(low, wanted)

    async def _record_near(self, middle: int, low: int, high: int) -> tuple[int, int] | None:
        """Offset, above ``low`` and below ``high``, and id of a record near the middle."""
        start = await self._places.nearest(middle)
        if start > low:
            header = await self._places.raw(start, HEADER_BYTES)
            if len(header) == HEADER_BYTES:
                return start, HEADER.unpack(header)[2]
        return await self._sample(middle, high)

    async def _sample(self, origin: int, high: int) -> tuple[int, int] | None:
        """
        Offset and id of a record between these two offsets; none begins at ``origin``, unless by
        chance.

        A message may hold records. Those lead to its end, or to something that is no record. So
        records that follow each other for longer than a message can be have reached its end, and
        from there on they are messages.
        """
        data, start = bytearray(), 0
        while origin + len(data) < high and len(data) < RECORDS_READ * self._longest:
            piece = await self._places.raw(origin + len(data), PIECE_BYTES)
            if not piece:
                return None
            data += piece
            while True:
                search = find_record(data, start, len(data), self._max_body)
                place = await in_steps(self._runtime, search)
                if place is None:
                    start = max(start, len(data) - self._longest)
                    break
                row = self._records(origin + place, bytes(data[place:]))
                messages = row.read(ALL)
                last = messages[-1]
                if last.offset - origin - place >= self._longest:
                    return (last.offset, last.id) if last.offset < high else None
                start = place
                if row.damage is None:
                    break  # it may go on in the next piece
                start = row.next_offset - origin
        return None

    async def _first(self, low: int, wanted: int) -> int:
        """The first message from ``low`` on whose id is not smaller."""
        offset, before = low, 0
        doubt: int | None = None  # where the damage behind the last older message begins
        while True:
            records = await self._reader.records(offset, PIECE_BYTES)
            if records is None:
                return self._known(offset if doubt is None else doubt, before)
            for message in records.read(ALL):
                if message.id >= wanted:
                    return self._known(message.offset if doubt is None else doubt, before)
                before, doubt = message.id, None
            target = records.next_offset
            if records.damage is not None:
                doubt = records.damage.offset if doubt is None else doubt
                target = (await self._reader.pass_over(records)).next_offset
            if target <= offset:
                return self._known(offset if doubt is None else doubt, before)
            offset = target

    def _known(self, offset: int, before: int) -> int:
        """:raises TimeNotKnown: the id before the offset does not tell the time."""
        if before < 0:
            raise TimeNotKnown(
                f"{self._topic} {self._partition}: the id {before} of the message before offset"
                f" {offset} says nothing about the time; it is a Java broker's"
            )
        return offset

    def _records(self, offset: int, data: bytes) -> FetchedRecords:
        return FetchedRecords(self._topic, self._partition, offset, data, self._max_body)
