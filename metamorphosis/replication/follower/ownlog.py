"""The slave's own log of one partition: its range, and appends to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred

from metamorphosis.broker.responders import Responders
from metamorphosis.errors import StoreError
from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.replication.follower.aside import move_aside
from metamorphosis.replication.logs import LogEnds, StoreLog
from metamorphosis.store.batch import Copy
from metamorphosis.store.messagestore import MessageStore


class OwnLog:
    """
    The log of one partition. Thread: reactor.

    The directory is created with the first record, so that a partition without a message has none.
    There is one object for a partition as long as the slave runs: the next ``PartitionCopy`` must
    not create a directory that is still being moved.

    :ivar topic: its topic.
    :ivar partition: its number.
    :ivar begin: the first offset of a log that does not exist yet.
    :ivar is_moving: a ``set_aside`` runs, possibly of an earlier ``PartitionCopy``.
    """

    def __init__(self, responders: Responders, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.begin = 0
        self.is_moving = False
        self._responders = responders
        self._leaving: MessageStore | None = None  # its directory has to be moved aside

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"

    @property
    def store(self) -> MessageStore | None:
        """None before the first record."""
        return self._responders.stores.get(self.topic, self.partition)

    @property
    def end(self) -> int:
        """The offset of the next record, after all pending writes."""
        store = self.store
        return self.begin if store is None else store.next_offset

    @property
    def ends(self) -> LogEnds:
        """The present range."""
        store = self.store
        if store is None:
            return LogEnds(self.begin, self.begin)
        return LogEnds(store.min_offset, store.next_offset)

    @property
    def is_leaving(self) -> bool:
        """Whether the directory has to be moved aside before another step."""
        return self._leaving is not None

    @property
    def reader(self) -> StoreLog | None:
        """For comparisons; None before the first record."""
        store = self.store
        return None if store is None else StoreLog(store)

    @property
    def waits_for_flushes(self) -> bool:
        """Whether each ``append`` waits for a flush, so that fewer are better."""
        store = self.store
        return store is not None and store.group_commit

    def append(self, data: bytes | memoryview, records: int) -> Copy:
        """
        Store whole records at the end.

        :raises StoreError: none of them is stored.
        """
        store = self.store
        if store is None:
            config = self._responders.config.topic(self.topic)
            store = self._responders.stores.get_or_create(config, self.partition, self.begin)
            self._responders.long_polls.store_made(store)
            self._responders.topic_used(config)
            if store.next_offset != self.begin:  # the directory was not made by the broker
                raise StoreError(f"{store.directory} ends at {store.next_offset}, not {self.begin}")
        return store.append_copy(data, records)

    async def set_aside(self) -> str | None:
        """
        Move the directory out of the data path; it can no longer be read. To another file system
        this takes minutes, in which nothing else may be done with the partition.

        :returns: the new path; None without a directory.
        :raises StoreError: it was not moved, and the partition stays out of the broker: see
            ``is_leaving``.
        """
        self.is_moving = True
        try:
            return await self._set_aside()
        finally:
            self.is_moving = False

    async def _set_aside(self) -> str | None:
        """See ``set_aside``."""
        store = self.store
        if store is not None:
            self._leaving = store
            self._responders.routes.clear()
            await self._responders.stores.withdraw(store)
            self._responders.long_polls.release_all()
        if self._leaving is None:
            return None
        threads = self._leaving.environment.threads
        moved = await _in_worker(threads, partial(move_aside, self._leaving.directory))
        self._leaving = None
        return moved


def _in_worker(threads: IWorkerThreads, work: Callable[[], str]) -> Deferred[str]:
    result: Deferred[str] = Deferred()

    def done(found: str | None, error: BaseException | None) -> None:
        if error is not None or found is None:
            result.errback(error or StoreError("no result"))
        else:
            result.callback(found)

    threads.submit(work, done)
    return result
