"""
Reads one partition without a group: messages at an offset, the ends of the partition.

Source: ``SimpleMessageConsumer.get`` and ``offset``.

Differs: at a 301 the original returns nothing; ours raises ``Moved`` with the new offset. A message
larger than the fetch size is fetched, too.
"""

from __future__ import annotations

from typing import Final

from metamorphosis.client.fetch.boundaries import ends_early, holds_record
from metamorphosis.client.fetch.passing import Passing
from metamorphosis.client.fetch.records import FetchedRecords
from metamorphosis.client.fetch.resuming import LogPlaces
from metamorphosis.client.fetch.window import in_steps
from metamorphosis.client.model import Partition, PassedOver, ReceivedMessage
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.errors import CorruptRecord, Moved
from metamorphosis.interfaces import IRuntime
from metamorphosis.message import HEADER_BYTES

ALL: Final = 1 << 30
"""Messages of one fetch."""


class PartitionReader:
    """
    One partition at one broker. Thread: the loop's.

    :param max_body: longest accepted body, bytes, unless the size of a fetch is larger.
    :param timeout: seconds of each request.
    """

    def __init__(
        self,
        runtime: IRuntime,
        connection: BrokerConnection,
        group: str,
        topic: str,
        partition: Partition,
        max_body: int,
        timeout: float,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self._runtime = runtime
        self._max_body = max_body
        self._places = LogPlaces(connection, group, topic, partition, timeout)

    async def records(self, offset: int, max_size: int) -> FetchedRecords | None:
        """
        The records at an offset, with at least one whole message if the broker has it. None without
        a message there, without the partition, or if the partition is closed.

        :raises Moved: the log continues at the offset in the text.
        :raises MetaQError: the broker refused otherwise, or did not reply.
        """
        data = b""
        max_body = max(self._max_body, max_size)
        while True:
            body = await self._places.fetch(offset + len(data), max_size)
            if not body:
                return None if not data else await self._cut_off(offset, data, max_body)
            data += body
            records = self._records(offset, data, max_body)
            if len(data) < HEADER_BYTES <= max_size:
                if await self._places.is_segment_end(offset + len(data)):
                    records.cut_off()
                return records
            needed = records.needed or HEADER_BYTES
            if len(data) >= needed or needed > HEADER_BYTES + max_body:
                return records
            # A message that is longer than the request, or than the broker sends at once.
            max_size = needed - len(data)

    async def _cut_off(self, offset: int, data: bytes, max_body: int) -> FetchedRecords:
        """The log ends inside a message: the rest is not there yet, or its length is wrong."""
        records = self._records(offset, data, max_body)
        if len(data) >= HEADER_BYTES:
            early = ends_early(data, max_body)
            if await in_steps(self._runtime, early) or await in_steps(
                self._runtime, holds_record(data, max_body)
            ):
                records.cut_off()
        return records

    def _records(self, offset: int, data: bytes, max_body: int) -> FetchedRecords:
        return FetchedRecords(self.topic, self.partition, offset, data, max_body)

    async def get(self, offset: int, max_size: int) -> list[ReceivedMessage] | None:
        """
        The whole messages of one fetch; None: see ``records``.

        :raises Moved: the group's filter rejects the messages up to the offset in the text.
        :raises CorruptRecord: the first one cannot be read.
        """
        records = await self.records(offset, max_size)
        if records is None:
            return None
        messages = records.read(ALL)
        if not messages and records.jumped:
            raise Moved(str(records.next_offset))
        if not messages and records.damage is not None:
            raise CorruptRecord(
                f"{self.topic} {self.partition}: the message at offset {offset} cannot be read,"
                f" {records.damage.reason}"
            )
        return messages

    async def nearest(self, offset: int) -> int:
        """See ``LogPlaces.nearest``."""
        return await self._places.nearest(offset)

    async def pass_over(self, records: FetchedRecords) -> PassedOver:
        """
        The damaged message at the end of ``records``, and the offset after it.

        :raises MetaQError: the broker refused, or did not answer.
        """
        damage, max_body = records.damage, records.max_body
        assert damage is not None
        passing = Passing(self._runtime, self._places, self.topic, self.partition, max_body, 0)
        passed = await passing.after(damage, records.rest, lambda: True)
        assert passed is not None
        return passed

    async def min_offset(self) -> int:
        """The first readable offset."""
        return await self.nearest(0)

    async def max_offset(self) -> int:
        """The end of the partition, where the next message will begin."""
        return await self._places.end()
