"""
Direct reads of a consumer: messages and offsets of any partition, independent of the group's
position.

Source: ``SimpleMessageConsumer.get``.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from metamorphosis.client.checked import as_future, checked
from metamorphosis.client.consumer.reading import TopicReader
from metamorphosis.client.fetch.reader import PartitionReader
from metamorphosis.client.model import Partition, ReceivedMessage

if TYPE_CHECKING:
    from metamorphosis.client.session import Session


class Lookups:
    """
    A part of ``Consumer``. Slow methods return futures of the runtime. Thread: the loop's.

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
        Messages at an offset, of any partition. No position is moved.

        Costs one request, more for a message longer than ``max_size``, and a connection if there is
        none.

        :param max_size: bytes of the fetch.
        :param timeout: seconds, for the connection and for the answer.
        :returns: the whole messages that came; None: there is no message, or no such partition.
        :raises InvalidArgument: ``max_size`` or ``timeout`` is not positive.
        :raises Moved: the log goes on at another offset, which is the text.
        :raises CorruptRecord: the first message cannot be read.
        :raises MetaQError: the broker refused, or there was no answer.
        :raises ClientClosed: after ``close``.
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
        A readable offset near the given one: the start of its segment. 0 gives the smallest,
        ``MAX_OFFSET`` the end.

        Costs one request, and a connection if there is none.

        :param timeout: seconds, for the connection and for the answer.
        :returns: bytes.
        :raises NotFound: there is no such partition, or it never had a message.
        :raises MetaQError: the broker refused, or there was no answer.
        :raises ClientClosed: after ``close``.
        """
        return self._runtime.start(self._offset(topic, partition, offset, timeout))

    async def _offset(self, topic: str, partition: Partition, offset: int, timeout: float) -> int:
        return await (await self._reader(topic, partition, timeout)).nearest(offset)

    @checked(as_future)
    def offset_at(
        self, topic: str, partition: Partition, milliseconds: int, timeout: float = 10.0
    ) -> Awaitable[int]:
        """
        The offset of the first message stored at or after a time, by the broker's clock.

        Exact if the ids of the messages ascend, as in the log of one broker of ours. After damage,
        and after a promotion to a broker whose clock is behind, the nearest place before which the
        last readable message is older. ``seek`` continues there; a group begins there with the
        setting ``offset_at_ms``.

        Costs some twenty requests, and up to 4 times ``max_body_bytes`` for each of the last ten.

        :param milliseconds: since 1970.
        :param timeout: seconds, for the connection and for each reply.
        :returns: bytes; without such a message, the end of the partition.
        :raises TimeNotKnown: the message before is a Java broker's, whose ids have no time.
        :raises NotFound: the partition does not exist, or has no message yet.
        :raises MetaQError: the broker refused, or did not reply.
        :raises ClientClosed: after ``close``.
        """
        return self._runtime.start(self._offset_at(topic, partition, milliseconds, timeout))

    async def _offset_at(
        self, topic: str, partition: Partition, milliseconds: int, timeout: float
    ) -> int:
        search = await self._topic_reader(topic).time_search(partition, timeout)
        return await search.find(milliseconds)

    async def _reader(self, topic: str, partition: Partition, timeout: float) -> PartitionReader:
        return await self._topic_reader(topic).partition(partition, timeout)

    def _topic_reader(self, topic: str) -> TopicReader:
        self._check_open()
        if topic not in self._readers:
            self._readers[topic] = TopicReader(self._session, topic, self.group)
        return self._readers[topic]

    def _close_readers(self) -> None:
        readers, self._readers = self._readers, {}
        for reader in readers.values():
            reader.close()

    def _check_open(self) -> None:
        """
        Check that the consumer is open.

        :raises ClientClosed: after ``close``.
        """
