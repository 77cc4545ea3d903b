"""
Reads by hand, without a group: messages at an offset, the ends of a partition, the offset of a
point in time.

Source: ``SimpleMessageConsumer.get`` and ``offset``.

Differs: at a 301 the original returns nothing; ours raises ``Moved`` with the new offset. A message
larger than the fetch size is fetched, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from metamorphosis.client.consumer.direct import known_partitions
from metamorphosis.client.fetch.boundaries import ends_early, holds_record
from metamorphosis.client.fetch.passing import Passing
from metamorphosis.client.fetch.records import FetchedRecords
from metamorphosis.client.fetch.resuming import UNFILTERED_GROUP, LogPlaces
from metamorphosis.client.fetch.window import in_steps
from metamorphosis.client.model import Partition, PassedOver, ReceivedMessage
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.errors import CorruptRecord, InvalidArgument, Moved, NotConnected
from metamorphosis.ids import EPOCH_MS
from metamorphosis.interfaces import IRuntime
from metamorphosis.message import HEADER_BYTES

if TYPE_CHECKING:
    from metamorphosis.client.session import Session

GROUP = UNFILTERED_GROUP
"""The group in requests without a group; the original's."""
NO_LIMIT = 1 << 30
"""Messages of one fetch: all."""
FIRST_SIZE = 64 << 10
"""Bytes fetched to find the time of a segment's first message."""


def milliseconds_of(message_id: int) -> int | None:
    """
    The time at which a message was stored, by its id: ms since 1970. None for the ids of Java
    brokers from 1.4.5 on, which count from the start of their machine.
    """
    return (message_id >> 22) + EPOCH_MS if message_id > 0 else None


class PartitionReader:
    """
    One partition at one broker. Thread: the loop's.

    :param max_body: longest body accepted, bytes, where the size of a fetch is not larger.
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
        The records at an offset, with at least one whole message if the broker has it. None: there
        is no message or no such partition, or the partition is closed.

        :raises Moved: the log goes on at the offset in the text.
        :raises MetaQError: the broker refused otherwise, or did not answer.
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
        messages = records.read(NO_LIMIT)
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

    async def offset_at(self, milliseconds: int) -> int:
        """
        The offset of the first message stored at this time or later; without one, the end.

        The ids of our brokers hold the times. The search goes over the segments, then over the
        messages of one.

        :param milliseconds: since 1970.
        :raises InvalidArgument: the ids are a Java broker's, without the time.
        :raises NotFound: see ``nearest``.
        """
        start = await self._segment_before(milliseconds)
        async for message in self.messages(start, 1 << 20):
            if self._time_of(message) >= milliseconds:
                return message.offset
        return await self.max_offset()

    async def messages(self, offset: int, max_size: int) -> AsyncIterator[ReceivedMessage]:
        """
        Every message from ``offset`` to the end, following the broker's 301.

        :raises CorruptRecord: one cannot be read.
        """
        while True:
            try:
                messages = await self.get(offset, max_size)
            except Moved as moved:
                target = int(str(moved))
                if target <= offset:
                    return
                offset = target
                continue
            if not messages:
                return
            for message in messages:
                yield message
            offset = messages[-1].next_offset

    async def _segment_before(self, milliseconds: int) -> int:
        """The start of the last segment whose first message is older, else of the first one."""
        found = low = await self.min_offset()
        high = await self.max_offset()
        while high - low > 1:
            middle = (low + high) // 2
            start = await self.nearest(middle)
            if start > found:
                first = await self.get(start, FIRST_SIZE)
                if not first or self._time_of(first[0]) >= milliseconds:
                    high = start
                    continue
                found = start
            low = middle
        return found

    def _time_of(self, message: ReceivedMessage) -> int:
        found = milliseconds_of(message.id)
        if found is None:
            raise InvalidArgument(
                f"{message.topic} {message.partition} offset {message.offset}: the id {message.id}"
                " says nothing about the time; it is a Java broker's"
            )
        return found


class TopicReader:
    """
    The partitions of a topic, at their masters. Thread: the loop's.

    :param group: its name is in the requests; a broker may filter by it.
    """

    def __init__(self, session: Session, topic: str, group: str = GROUP) -> None:
        self.topic = topic
        self._session = session
        self._group = group
        self._direct: BrokerConnection | None = None
        self._opened = False

    async def open(self) -> None:
        """
        Find the brokers and connect to them.

        :raises NotConnected: no connection to ZooKeeper or the broker.
        """
        session = self._session
        await session.started()
        if self._opened:
            return
        self._opened = True
        if session.config.broker is not None:
            self._direct = session.connections.acquire(session.config.broker, self)
        else:
            await session.directory.publish(self.topic, self)

    def close(self) -> None:
        """Release the connections."""
        if not self._opened:
            return
        self._opened = False
        if self._direct is not None:
            self._session.connections.release(self._direct.url, self)
            self._direct = None
        else:
            self._session.directory.release(self.topic, self)

    async def partition(self, partition: Partition, timeout: float) -> PartitionReader:
        """
        The reader of a partition.

        :param timeout: seconds to wait for the connection, and for each answer.
        :raises NoPartition: no master has the partition.
        :raises NotConnected: the connection is not there in time.
        """
        await self.open()
        connection = self._direct
        if connection is None:
            connection = self._session.directory.broker_of(self.topic, partition)
        if not await connection.ready(timeout):
            raise NotConnected(f"{connection.url} cannot be reached within {timeout:g} s")
        limit = self._session.config.max_body_bytes
        return PartitionReader(
            self._session.runtime,
            connection,
            self._group,
            self.topic,
            partition,
            limit,
            timeout,
        )

    async def partitions(self) -> list[Partition]:
        """Sorted by number; in direct mode those with messages, as partitions of broker 0."""
        await self.open()
        if self._direct is None:
            return await self._session.directory.partitions_of(self.topic)
        timeout = self._session.config.stats_timeout_ms / 1000
        return (await known_partitions(self._direct, timeout)).get(self.topic, [])
