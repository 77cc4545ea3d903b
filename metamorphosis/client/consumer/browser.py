"""
All messages of a topic, partition by partition, without a group.

Source: ``MetaTopicBrowser``.

Differs: the original treats a partition whose oldest messages were deleted as empty, and ends a
partition at a message larger than its buffer. Ours follows the broker's 301 and fetches the
message; a message that cannot be read is skipped with a log line.

Differs: works in direct mode, too, for the partitions that have messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Self

from metamorphosis.client.consumer.reading import TopicReader
from metamorphosis.client.fetch.passing import PassesOver
from metamorphosis.client.fetch.reader import PartitionReader
from metamorphosis.client.model import Partition, ReceivedMessage
from metamorphosis.errors import ClientClosed, Moved

if TYPE_CHECKING:
    from metamorphosis.client.session import Session

STRETCH = 1024
"""Messages decoded at a time."""


class TopicBrowser(PassesOver):
    """
    ``async for message in browser``: each iteration begins at the start of the first
    partition and ends at the end of the last. Thread: the loop's.

    :param max_size: bytes of one fetch, and of the longest message if that is more than
        ``max_body_bytes``.
    :param timeout: seconds of one fetch.
    :raises InvalidArgument: blank topic, or a number that is not positive.
    """

    def __init__(
        self, session: Session, topic: str, max_size: int = 1 << 20, timeout: float = 5.0
    ) -> None:
        super().__init__(session.runtime, session.log)
        self.topic = topic
        self._reader = TopicReader(session, topic)
        self._session = session
        self._max_size = max_size
        self._timeout = timeout
        self._closed = False
        session.add_child(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self.close()

    def partitions(self) -> Awaitable[list[Partition]]:
        """
        The topic's present partitions.

        Costs a read of ZooKeeper for each broker; in direct mode a request to it.

        :returns: sorted by number.
        :raises NotConnected: no connection to ZooKeeper or the broker.
        :raises ClientClosed: after ``close``.
        """
        return self._session.runtime.start(self._partitions())

    async def _partitions(self) -> list[Partition]:
        self._check_open()
        return await self._reader.partitions()

    async def __aiter__(self) -> AsyncIterator[ReceivedMessage]:
        for partition in await self._partitions():
            self._check_open()
            reader = await self._reader.partition(partition, self._timeout)
            async for message in self._messages(reader):
                yield message
                self._check_open()

    async def _messages(self, reader: PartitionReader) -> AsyncIterator[ReceivedMessage]:
        """The messages up to the end of the partition at the time when it is reached."""
        offset = 0
        while True:
            try:
                records = await reader.records(offset, self._max_size)
            except Moved as moved:
                target = int(str(moved))
                if target <= offset:
                    return
                offset = target
                continue
            if records is None:
                return
            while messages := records.read(STRETCH):
                for message in messages:
                    yield message
            target = records.next_offset
            if records.damage is not None:
                passed = await reader.pass_over(records)
                target = passed.next_offset  # may lie before, in what looked like an empty record
                self.passed_over(passed)
            if target == offset:
                return
            offset = target

    def close(self) -> Awaitable[None]:
        """
        Release the connections; it may be called again. Loops raise ``ClientClosed`` from now on.

        Costs nothing, and raises nothing.
        """
        return self._session.runtime.start(self._close())

    async def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.passed_over.close()
        self._reader.close()
        self._session.remove_child(self)

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed(f"the browser of {self.topic} has been closed")
