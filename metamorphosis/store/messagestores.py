"""
All stores of a broker, found in the data paths at the start, or created by the first put.

Differs: the original loads only some of the directories at start, depending on their number and
order; here all are loaded, in sorted order (D-1).

Source: ``MessageStoreManager``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall

from metamorphosis.config.model import BrokerConfig, TopicConfig
from metamorphosis.errors import StoreClosed, StoreStalled
from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.store.creating import Creation, Creations, OpenFiles
from metamorphosis.store.directflush import DirectFlush
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.groupcommit import GroupCommit
from metamorphosis.store.lanes import Lanes
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.opening import Found, Loading, open_segments
from metamorphosis.store.policy import FlushPolicy
from metamorphosis.store.segment import Segment
from metamorphosis.store.writablelog import WritableLog

IDLE_SECONDS = 60.0
"""Descriptors of older segments that were not read for this time are closed."""


def make_store(
    topic: TopicConfig, partition: int, segments: list[Segment], environment: StoreEnvironment
) -> MessageStore:
    """A store in the mode that the topic's ``unflush_threshold`` asks for. Thread: reactor."""
    make_policy: Callable[[WritableLog], FlushPolicy] = GroupCommit
    if topic.unflush_threshold > 0:
        make_policy = partial(
            DirectFlush, threshold=topic.unflush_threshold, interval=topic.unflush_interval / 1000
        )
    return MessageStore(topic.name, partition, segments, environment, make_policy)


class MessageStores:
    """
    (topic, partition) -> ``MessageStore``. Thread: reactor.

    :param config: data paths and topics.
    :param environment: the parts that all stores share.
    :param fast_boot: do not check the last segments.
    :param make_threads: makes the threads of a device with data paths; None: all stores use those
        of ``environment``.
    :param apart: writes run in those threads even with one device.
    """

    def __init__(
        self,
        config: BrokerConfig,
        environment: StoreEnvironment,
        fast_boot: bool = False,
        make_threads: Callable[[], IWorkerThreads] | None = None,
        apart: bool = False,
    ) -> None:
        self._config = config
        self._environment = environment
        self._fast_boot = fast_boot
        self._lanes: Lanes | None = None
        if make_threads is not None:
            self._lanes = Lanes(environment, make_threads, always_apart=apart)
            self._lanes.on_stall = self._stalled
        self._creations = Creations(self._install)
        self._stores: dict[tuple[str, int], MessageStore] = {}
        self._closed = False
        self._loading: Loading | None = None
        self._sweep: IDelayedCall | None = None

    def load(self) -> Deferred[None]:
        """
        Open every partition of every data path in workers: one after the other, or all at once if
        ``load_message_stores_in_parallel``. Called once, before any other method.

        A partition is opened in the data path of its topic, wherever its directory was found, as in
        the original.

        :raises StoreError: (by the Deferred) a data path or a partition that cannot be opened;
            nothing is left open.
        """
        loaded: Deferred[None] = Deferred()
        config = self._config
        paths = {config.data_path: None}
        paths.update((topic.data_path, None) for topic in config.topics.values() if topic.data_path)
        if self._lanes is not None:
            self._lanes.open(paths)
        self._loading = Loading(
            self._open, self._environment.threads, config.load_message_stores_in_parallel
        )
        self._loading.start(list(paths), partial(self._loaded, loaded))
        return loaded

    def cancel_load(self) -> None:
        """
        Let a running load fail with ``StoreClosed`` after the partitions that are being opened now,
        because checking many big segments takes minutes.
        """
        if self._loading is not None:
            self._loading.cancel()

    def _open(self, found: Found) -> list[Segment]:
        """Open the segments of a partition, and close their descriptors until they are needed.
        Thread: worker."""
        path = self._data_path(self._config.topic(found.topic))
        segments = open_segments(path, *found, self._fast_boot, self._environment.disk)
        for segment in segments:
            segment.close()
        return segments

    def _loaded(
        self,
        loaded: Deferred[None],
        opened: dict[Found, list[Segment]],
        error: BaseException | None,
    ) -> None:
        self._loading = None
        if error is not None:
            loaded.errback(error)
            return
        for found in sorted(opened):
            topic = self._config.topic(found.topic)
            self._stores[found] = make_store(
                topic, found.partition, opened[found], self._environment_of(topic)
            )
        self._close_idle_later()
        loaded.callback(None)

    def _environment_of(self, topic: TopicConfig) -> StoreEnvironment:
        if self._lanes is None:
            return self._environment
        return self._lanes.environment(self._data_path(topic))

    def _stalled(self, environment: StoreEnvironment, error: StoreStalled | None) -> None:
        """A disk has stopped answering, so that nothing may wait for it; or it answers again
        (None)."""
        for store in self:
            if store.environment is environment:
                store.stall(error)
        if error is not None:
            self._creations.fail(environment, error)

    def _data_path(self, topic: TopicConfig) -> str:
        return topic.data_path or self._config.data_path

    def __iter__(self) -> Iterator[MessageStore]:
        return iter(tuple(self._stores.values()))

    def __len__(self) -> int:
        return len(self._stores)

    def get(self, topic: str, partition: int) -> MessageStore | None:
        """The store, None if the partition does not exist here."""
        return self._stores.get((topic, partition))

    def get_or_create(self, topic: TopicConfig, partition: int, start: int = 0) -> MessageStore:
        """
        The store; directory and first segment are created if the partition is new.

        :param start: offset of a first segment: a copy begins at the start of its master's log.
        :raises StoreClosed: after ``close``.
        :raises StoreStalled: the disk of its data path does not answer.
        :raises StoreError: naming the directory or file that cannot be created.
        """
        store = self._stores.get((topic.name, partition))
        if store is None:
            if self._closed:
                raise StoreClosed()
            self._environment.descriptors.make_room()
            environment = self._environment_of(topic)
            stalled = environment.stalled()
            if stalled is not None:
                raise StoreStalled(str(stalled)) from stalled
            creation = self._creations.find(topic.name, partition)
            open_files = self._open_files(topic, partition, start)
            if creation is None:
                creation = Creation(topic, partition, environment, open_files)
                creation.run()
            creation.block()
            if creation.error is not None:
                raise creation.error
            self._install(creation)
            store = self._stores[topic.name, partition]
        return store

    def create(self, topic: TopicConfig, partition: int) -> Deferred[None] | None:
        """
        Create a partition without blocking on its disk, which may hang while others work.

        :returns: None: ``get_or_create`` has the partition, or can make or refuse it at once.
            Otherwise a Deferred that fires when the partition exists, and fails as
            ``get_or_create`` raises.
        """
        if self._closed or (topic.name, partition) in self._stores:
            return None
        environment = self._environment_of(topic)
        if not environment.apart or environment.stalled() is not None:
            return None
        creation = self._creations.find(topic.name, partition)
        if creation is None:
            self._environment.descriptors.make_room()
            open_files = self._open_files(topic, partition, 0)
            creation = self._creations.begin(topic, partition, environment, open_files)
            if (topic.name, partition) in self._stores:
                return None
        return creation.ended()

    def _open_files(self, topic: TopicConfig, partition: int, start: int) -> OpenFiles:
        path, disk = self._data_path(topic), self._environment.disk
        return partial(open_segments, path, topic.name, partition, self._fast_boot, disk, start)

    def _install(self, creation: Creation) -> None:
        """Make the store of a new partition from its open files."""
        key = creation.topic.name, creation.partition
        segments = creation.segments
        if key in self._stores or segments is None:
            return
        if self._closed:
            for segment in segments:
                segment.close()
            return
        store = make_store(creation.topic, creation.partition, segments, creation.environment)
        self._environment.descriptors.opened(store, store.last)
        self._stores[key] = store
        stalled = creation.environment.stalled()
        if stalled is not None:  # the other stores were told before this one existed
            store.stall(stalled)

    def withdraw(self, store: MessageStore) -> Deferred[None]:
        """
        Remove a partition, as if it did not exist here: it can no longer be read. Its files stay.
        Fires when they are closed; until then the partition must not be created again. Never fails.
        """
        del self._stores[store.topic, store.partition]
        return store.close()

    def reconfigure(self, config: BrokerConfig) -> None:
        """
        Apply a reload: thresholds and intervals to all stores, modes and data paths to new ones.
        """
        self._config = config
        for store in self:
            topic = config.topic(store.topic)
            store.reconfigure(topic.unflush_threshold, topic.unflush_interval)

    @property
    def message_count(self) -> int:
        """Messages of all stores."""
        return sum(store.message_count for store in self._stores.values())

    @property
    def size_bytes(self) -> int:
        """Bytes of all stores."""
        return sum(store.size_bytes for store in self._stores.values())

    def close(self) -> Deferred[None]:
        """
        Close every store, see ``MessageStore.close``. No store can be created afterwards. Never
        fails.
        """
        self._closed = True
        self._creations.fail(None, StoreClosed())
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        closing = DeferredList([store.close() for store in self])
        return closing.addCallback(lambda _: self._end())

    def _end(self) -> Deferred[None]:
        self._environment.schedule.stop()
        return succeed(None) if self._lanes is None else self._lanes.stop()

    def _close_idle_later(self) -> None:
        self._sweep = self._environment.clock.callLater(IDLE_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        self._close_idle_later()
        for store in self:
            store.close_idle_segments()
