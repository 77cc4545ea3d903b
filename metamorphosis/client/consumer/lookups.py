"""
Reads by hand at a consumer: messages and offsets of any partition, independent of the group's
position.

Source: ``SimpleMessageConsumer.get``.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from metamorphosis.client.checked import as_future, checked
from metamorphosis.client.consumer.reading import PartitionReader, TopicReader
from metamorphosis.client.model import Partition, ReceivedMessage

if TYPE_CHECKING:
    from metamorphosis.client.session import Session


class Lookups:
    """
    A part of ``Consumer``. Methods that take time give futures of the runtime. Thread: the loop's.

    :ivar group: its name is in the requests; a broker may filter by it.
    """

    def __init__(self, session: Session, group: str) -> None:
        self.group = group
        self._session = session
        self._runtime = session.runtime
        self._readers: dict[str, TopicReader] = {}

    @checked(as_future)
    def get(
        self,
        topic: str,
        partition: Partition,
        offset: int,
        max_size: int = 1 << 20,
        timeout: float = 10.0,
    ) -> Awaitable[list[ReceivedMessage] | None]:
        """
        A future of the messages at an offset; None: there is no message, or no such partition.
        No position is moved.

        :param timeout: seconds, for the connection and for the answer.
        :raises InvalidArgument: ``max_size`` or ``timeout`` is not positive.
        :raises Moved: the log goes on at another offset, which is the text.
        :raises MetaQError: the broker refused, or there was no answer.
        """
        return self._runtime.start(self._get(topic, partition, offset, max_size, timeout))

    async def _get(
        self, topic: str, partition: Partition, offset: int, max_size: int, timeout: float
    ) -> list[ReceivedMessage] | None:
        reader = await self._reader(topic, partition, timeout)
        return await reader.get(offset, max_size)

    @checked(as_future)
    def offset(
        self, topic: str, partition: Partition, offset: int, timeout: float = 10.0
    ) -> Awaitable[int]:
        """
        A future of a readable offset near the given one: the start of its segment. 0 gives the
        smallest, ``MAX_OFFSET`` the end.

        :raises NotFound: there is no such partition, or it never had a message.
        """
        return self._runtime.start(self._offset(topic, partition, offset, timeout))

    async def _offset(self, topic: str, partition: Partition, offset: int, timeout: float) -> int:
        return await (await self._reader(topic, partition, timeout)).nearest(offset)

    @checked(as_future)
    def offset_at(
        self, topic: str, partition: Partition, milliseconds: int, timeout: float = 10.0
    ) -> Awaitable[int]:
        """
        A future of the offset of the first message that was stored at this time, ms since 1970, or
        later. Only the message ids of our brokers hold the time.

        :raises InvalidArgument: the messages are a Java broker's.
        """
        return self._runtime.start(self._offset_at(topic, partition, milliseconds, timeout))

    async def _offset_at(
        self, topic: str, partition: Partition, milliseconds: int, timeout: float
    ) -> int:
        return await (await self._reader(topic, partition, timeout)).offset_at(milliseconds)

    async def _reader(self, topic: str, partition: Partition, timeout: float) -> PartitionReader:
        self._check_open()
        if topic not in self._readers:
            self._readers[topic] = TopicReader(self._session, topic, self.group)
        return await self._readers[topic].partition(partition, timeout)

    def _close_readers(self) -> None:
        readers, self._readers = self._readers, {}
        for reader in readers.values():
            reader.close()

    def _check_open(self) -> None:
        """
        :raises ClientClosed: after the end.
        """
