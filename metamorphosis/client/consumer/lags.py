"""
The lag of a group: its stored positions, the ends of the partitions, and the bytes in between. For
every partition of a topic, independent of the member that reads it, and without joining the group.

Source: none; the original has the statistics of its brokers only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from metamorphosis.client.checked import as_future, checked
from metamorphosis.client.consumer.direct import known_partitions
from metamorphosis.client.consumer.offered import Offers
from metamorphosis.client.fetch.resuming import LogPlaces
from metamorphosis.client.model import Lag, Partition, StoredOffset
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.flow import settle, within
from metamorphosis.errors import (
    ClientClosed,
    MetaQError,
    NoPartition,
    NotConnected,
    NotFound,
    OffsetStoreError,
)
from metamorphosis.interfaces import OffsetStore

if TYPE_CHECKING:
    from metamorphosis.client.session import Session

Ends = tuple[int, int]
"""The first readable offset of a partition, and the offset of the next message."""


class Lags:
    """
    A part of ``Consumer``. Slow methods return futures of the runtime. Thread: the loop's.

    :param store: returns the store of the group's positions; called when the session has started.
    """

    def __init__(self, session: Session, group: str, store: Callable[[], OffsetStore]) -> None:
        self._asking = Asking(session, group, store)
        self._start = session.runtime.start

    @checked(as_future)
    def committed(
        self, topic: str, partition: Partition, timeout: float = 10.0
    ) -> Awaitable[StoredOffset | None]:
        """
        The stored position of the group in a partition, of any member; ``assignment`` has this
        consumer's positions since its last commit.

        Costs one read of the offset store.

        :param timeout: seconds for the store.
        :returns: ``offset`` of the group's next message, in bytes; ``message_id`` of the last
            message before it. None without a stored position.
        :raises OffsetStoreError: the store did not reply, or its value is invalid.
        :raises NotConnected: no connection to ZooKeeper.
        :raises ClientClosed: after ``close``.
        """
        return self._start(self._asking.committed(topic, partition, timeout))

    @checked(as_future)
    def end(self, topic: str, partition: Partition, timeout: float = 10.0) -> Awaitable[int]:
        """
        The offset of the next message of a partition: the bytes ever stored in it.

        Costs one request to the broker and, with ZooKeeper, a few reads there.

        :param timeout: seconds, for the connection and for the reply.
        :returns: bytes; 0 before the first message.
        :raises NoPartition: ZooKeeper lists no such partition, or none of its brokers.
        :raises MetaQError: the broker cannot be reached, refused, or did not reply.
        :raises ClientClosed: after ``close``.
        """
        return self._start(self._asking.end(topic, partition, timeout))

    @checked(as_future)
    def lag(self, topic: str, timeout: float = 10.0) -> Awaitable[dict[Partition, Lag]]:
        """
        The lag of the group in every partition of a topic, by the stored positions: members may
        have processed more since their last commit (``commit_offset_period_ms``).

        Costs a read of the offset store and two requests to the broker for each partition, all at
        the same time; with ZooKeeper a few reads there. The connections stay open until ``close``.

        :param timeout: seconds for each broker, and for the store.
        :returns: partition -> ``Lag``, sorted; ``Lag.bytes`` is the lag. A broker that does not
            answer fails none of the others; its partitions have a ``Lag.fault``. Empty: no
            broker has the topic.
        :raises OffsetStoreError: the store did not answer, or what it has cannot be understood.
        :raises NotConnected: there is no ZooKeeper or, in direct mode, no broker.
        :raises ClientClosed: after ``close``.
        """
        return self._start(self._asking.lag(topic, timeout))

    def _close_lags(self) -> None:
        self._asking.close()


class Asking:
    """The requests to the store and the brokers. Thread: the loop's."""

    def __init__(self, session: Session, group: str, store: Callable[[], OffsetStore]) -> None:
        self._session = session
        self._runtime = session.runtime
        self._group = group
        self._store = store
        self._urls: set[str] = set()
        self._closed = False

    async def committed(
        self, topic: str, partition: Partition, timeout: float
    ) -> StoredOffset | None:
        """See ``Lags``."""
        await self._ready()
        return await self._stored(topic, partition, timeout)

    async def end(self, topic: str, partition: Partition, timeout: float) -> int:
        """See ``Lags``."""
        await self._ready()
        url = self._session.config.broker
        if url is None:
            url = (await self._offers().partitions(topic)).get(partition)
        return (await self._ends(topic, partition, url, timeout))[1]

    async def lag(self, topic: str, timeout: float) -> dict[Partition, Lag]:
        """See ``Lags``."""
        await self._ready()
        start = self._runtime.start
        urls = await self._urls_of(topic, timeout)
        ends = [start(self._ends(topic, each, url, timeout)) for each, url in urls.items()]
        stored = [start(self._stored(topic, each, timeout)) for each in urls]
        found = await settle(ends)
        positions = await settle(stored)
        return {
            partition: _lag(position, places)
            for partition, position, places in zip(urls, positions, found, strict=True)
        }

    def close(self) -> None:
        """Release the connections."""
        self._closed = True
        urls, self._urls = self._urls, set()
        for url in urls:
            self._session.connections.release(url, self)

    async def _ready(self) -> None:
        if self._closed:
            raise ClientClosed("Consumer has been shutdown")
        await self._session.started()

    async def _stored(
        self, topic: str, partition: Partition, timeout: float
    ) -> StoredOffset | None:
        what = f"offset of {topic} {partition}, group {self._group}"
        try:
            loaded = self._runtime.adopt(self._store().load(topic, self._group, partition))
            stored: StoredOffset | None = await within(self._runtime, loaded, timeout, what)
            return stored
        except OffsetStoreError:
            raise
        except Exception as error:
            raise OffsetStoreError(f"{what}: {type(error).__name__}: {error}") from error

    async def _urls_of(self, topic: str, timeout: float) -> dict[Partition, str | None]:
        """The partitions of a topic, sorted, and the address of each."""
        url = self._session.config.broker
        if url is None:
            return await self._offers().partitions(topic)
        known = await known_partitions(await self._connection(url, timeout), timeout)
        return dict.fromkeys(known.get(topic, []), url)

    def _offers(self) -> Offers:
        assert self._session.registry is not None  # this is not direct mode
        return Offers(self._session.registry, self._session.paths)

    async def _ends(
        self, topic: str, partition: Partition, url: str | None, timeout: float
    ) -> Ends:
        if url is None:
            raise NoPartition(f"{topic} {partition}: ZooKeeper lists no broker that has it")
        connection = await self._connection(url, timeout)
        places = LogPlaces(connection, self._group, topic, partition, timeout)
        try:
            begin = await places.nearest(0)
            return begin, await places.end()
        except NotFound:
            return 0, 0  # it has no message yet

    async def _connection(self, url: str, timeout: float) -> BrokerConnection:
        self._urls.add(url)
        connection = self._session.connections.acquire(url, self)
        patience = self._session.config.refused_timeout_ms / 1000
        if not await connection.reached(timeout, patience):
            reason = "" if connection.fault is None else f" ({connection.fault.reason})"
            raise NotConnected(f"{url} cannot be reached within {timeout:g} s{reason}")
        return connection


def _lag(stored: StoredOffset | None | Exception, ends: Ends | Exception) -> Lag:
    """:raises Exception: the store's, or an unexpected one."""
    if isinstance(stored, Exception):
        raise stored
    committed, message_id = (None, -1) if stored is None else (stored.offset, stored.message_id)
    if isinstance(ends, MetaQError):
        return Lag(committed, message_id, None, None, ends)
    if isinstance(ends, Exception):
        raise ends
    return Lag(committed, message_id, *ends)
