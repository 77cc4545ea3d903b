"""
The partitions of a topic for reading without a group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metamorphosis.client.consumer.direct import known_partitions
from metamorphosis.client.fetch.reader import PartitionReader
from metamorphosis.client.fetch.resuming import UNFILTERED_GROUP
from metamorphosis.client.fetch.timesearch import TimeSearch
from metamorphosis.client.model import Partition
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.errors import NotConnected

if TYPE_CHECKING:
    from metamorphosis.client.session import Session

GROUP = UNFILTERED_GROUP
"""The group in requests without a group; the original's."""


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

        :param timeout: seconds to wait for the connection, and for each reply.
        :raises NoPartition: no master has the partition.
        :raises NotConnected: no connection in time.
        """
        return PartitionReader(
            self._session.runtime,
            await self._connection(partition, timeout),
            self._group,
            self.topic,
            partition,
            self._session.config.max_body_bytes,
            timeout,
        )

    async def time_search(self, partition: Partition, timeout: float) -> TimeSearch:
        """The search for a place by time; errors as of ``partition``."""
        return TimeSearch(
            self._session.runtime,
            await self._connection(partition, timeout),
            self.topic,
            partition,
            self._session.config.max_body_bytes,
            timeout,
        )

    async def _connection(self, partition: Partition, timeout: float) -> BrokerConnection:
        await self.open()
        connection = self._direct
        if connection is None:
            connection = self._session.directory.broker_of(self.topic, partition)
        if not await connection.ready(timeout):
            raise NotConnected(f"{connection.url} cannot be reached within {timeout:g} s")
        return connection

    async def partitions(self) -> list[Partition]:
        """Sorted by number; in direct mode those with messages, as partitions of broker 0."""
        await self.open()
        if self._direct is None:
            return await self._session.directory.partitions_of(self.topic)
        timeout = self._session.config.stats_timeout_ms / 1000
        return (await known_partitions(self._direct, timeout)).get(self.topic, [])
