"""
All stores of a broker: found at start in every data path, or created by the first put.

Differs: the original loads only some of the directories at start, depending on their number and
order; ours loads all of them, in sorted order (D-1).

Source: ``MessageStoreManager``.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from metamorphosis.config.model import BrokerConfig, TopicConfig
from metamorphosis.errors import SegmentsInvalid, StoreClosed, StoreError
from metamorphosis.store.directstore import DirectStore
from metamorphosis.store.disk import Disk
from metamorphosis.store.flushing import StoreEnvironment
from metamorphosis.store.groupcommit import GroupCommitStore
from metamorphosis.store.layout import (
    ensure_directory,
    find_segments,
    partition_directory,
    segment_name,
    split_directory_name,
)
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.segment import Segment, open_last

IDLE_SECONDS = 60.0
"""Descriptors of older segments that nobody read from for this long are closed."""

_log = Logger()


class Found(NamedTuple):
    """A partition directory that was found at start."""

    topic: str
    partition: int


def open_segments(
    data_path: str,
    topic: str,
    partition: int,
    fast_boot: bool = False,
    disk: Disk = Disk(),
    create_at: int = 0,
) -> list[Segment]:
    """
    The segments of a partition, the last one recovered and open; directory and first segment are
    made if there are none.

    Thread: any; blocks.

    :param create_at: start offset of a first segment.
    :raises StoreError: naming the file or directory.
    """
    ensure_directory(data_path)
    directory = partition_directory(data_path, topic, partition)
    new_directory = ensure_directory(directory)
    files = find_segments(directory)
    if files:
        segments = [Segment(start, path, size) for start, path, size in files[:-1]]
        return [*segments, open_last(disk, files[-1].start, files[-1].path, fast_boot)]
    path = os.path.join(directory, segment_name(create_at))
    try:
        segment = Segment(create_at, path, 0, 0, disk.create(path))
    except OSError as error:
        raise StoreError(f"Could not create file {path} ({error.strerror})") from error
    parent = (os.path.dirname(directory),) if new_directory else ()
    segment.unsynced_directories = (directory, *parent)
    return [segment]


def make_store(
    topic: TopicConfig, partition: int, segments: list[Segment], environment: StoreEnvironment
) -> MessageStore:
    """A store in the mode that the topic's ``unflush_threshold`` asks for. Thread: reactor."""
    kind = GroupCommitStore if topic.unflush_threshold <= 0 else DirectStore
    return kind(
        topic.name,
        partition,
        segments,
        environment,
        topic.unflush_threshold,
        topic.unflush_interval,
    )


def find_partitions(data_path: str) -> list[Found]:
    """
    The partition directories in a data path, sorted; the data path is created if it is missing.
    Thread: any; blocks.

    :raises StoreError: the path is not usable.
    :raises SegmentsInvalid: what stands behind the last ``-`` of a directory's name is no number.
    """
    path = os.path.abspath(data_path)
    try:
        if not os.path.exists(path):
            os.mkdir(path)
    except OSError as error:
        raise StoreError(f"Could not make data directory {path} ({error.strerror})") from error
    if not os.path.isdir(path) or not os.access(path, os.R_OK | os.X_OK):
        raise StoreError(f"Data path {path} is not a readable directory")
    found = []
    for name in sorted(os.listdir(path)):
        if name.startswith(".metamorphosis"):
            continue
        entry = os.path.join(path, name)
        if not os.path.isdir(entry):
            _log.warn("Ignore not directory path:{path}", path=entry)
            continue
        try:
            split = split_directory_name(name)
        except SegmentsInvalid as error:
            raise SegmentsInvalid(
                f"{error} ({entry}: a directory is named <topic>-<partition>)"
            ) from None
        if split is None:
            _log.warn("Ignore invlaid directory:{path}", path=entry)
        else:
            found.append(Found(*split))
    return sorted(set(found))


class MessageStores:
    """
    (topic, partition) -> ``MessageStore``. Thread: reactor.

    :param config: data paths and topics.
    :param fast_boot: do not check the last segments.
    """

    def __init__(
        self, config: BrokerConfig, environment: StoreEnvironment, fast_boot: bool = False
    ) -> None:
        self._config = config
        self._environment = environment
        self._fast_boot = fast_boot
        self._stores: dict[tuple[str, int], MessageStore] = {}
        self._closed = False
        self._sweep = environment.clock.callLater(IDLE_SECONDS, self._close_idle)

    def load(self) -> Deferred[None]:
        """
        Open every partition of every data path in workers: one after the other, or all at once if
        ``load_message_stores_in_parallel``. Called once, before anything else.

        A partition is opened in the data path of its topic, wherever its directory was found, as in
        the original.

        :raises StoreError: (by the Deferred) a data path or a partition that cannot be opened;
            nothing is left open.
        """
        loaded: Deferred[None] = Deferred()
        config = self._config
        paths = {config.data_path: None}
        paths.update((topic.data_path, None) for topic in config.topics.values() if topic.data_path)
        loading = _Loading(self._open, self._environment, config.load_message_stores_in_parallel)
        loading.start(list(paths), partial(self._loaded, loaded))
        return loaded

    def _open(self, found: Found) -> list[Segment]:
        """Thread: worker."""
        path = self._data_path(self._config.topic(found.topic))
        return open_segments(path, *found, self._fast_boot, self._environment.disk)

    def _loaded(
        self,
        loaded: Deferred[None],
        opened: dict[Found, list[Segment]],
        error: BaseException | None,
    ) -> None:
        if error is not None:
            for segments in opened.values():
                segments[-1].discard(os.close)
            loaded.errback(error)
            return
        for found in sorted(opened):
            topic = self._config.topic(found.topic)
            self._stores[found] = make_store(
                topic, found.partition, opened[found], self._environment
            )
        loaded.callback(None)

    def _data_path(self, topic: TopicConfig) -> str:
        return topic.data_path or self._config.data_path

    def __iter__(self) -> Iterator[MessageStore]:
        return iter(tuple(self._stores.values()))

    def __len__(self) -> int:
        return len(self._stores)

    def get(self, topic: str, partition: int) -> MessageStore | None:
        """The store, None if the partition does not exist here."""
        return self._stores.get((topic, partition))

    def get_or_create(self, topic: TopicConfig, partition: int) -> MessageStore:
        """
        The store; directory and first segment are created if the partition is new.

        :raises StoreClosed: after ``close``.
        :raises StoreError: naming the directory or file that cannot be created.
        """
        store = self._stores.get((topic.name, partition))
        if store is None:
            if self._closed:
                raise StoreClosed()
            segments = open_segments(
                self._data_path(topic),
                topic.name,
                partition,
                self._fast_boot,
                self._environment.disk,
            )
            store = make_store(topic, partition, segments, self._environment)
            self._stores[topic.name, partition] = store
        return store

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
        """Of all stores."""
        return sum(store.message_count for store in self._stores.values())

    @property
    def size_bytes(self) -> int:
        """Of all stores."""
        return sum(store.size_bytes for store in self._stores.values())

    def close(self) -> Deferred[None]:
        """
        Close every store, see ``MessageStore.close``. No store can be created any more. Never
        fails.
        """
        if not self._closed:
            self._closed = True
            self._sweep.cancel()
        closing = DeferredList([store.close() for store in self])
        return closing.addCallback(lambda _: self._environment.schedule.stop())

    def _close_idle(self) -> None:
        self._sweep = self._environment.clock.callLater(IDLE_SECONDS, self._close_idle)
        for store in self:
            store.close_idle_segments()


class _Loading:
    """
    One run over the data paths. Thread: reactor; ``open_one`` runs in workers.
    """

    def __init__(
        self,
        open_one: Callable[[Found], list[Segment]],
        environment: StoreEnvironment,
        parallel: bool,
    ) -> None:
        self._open_one = open_one
        self._threads = environment.threads
        self._parallel = parallel
        self._waiting: deque[Found] = deque()
        self._running = 0
        self._opened: dict[Found, list[Segment]] = {}
        self._error: BaseException | None = None

    def start(
        self,
        paths: list[str],
        done: Callable[[dict[Found, list[Segment]], BaseException | None], None],
    ) -> None:
        """Call ``done`` with what was opened, and the first error."""
        self._done = done
        self._running = 1
        self._threads.submit(partial(_find_in_all, paths), self._found)

    def _found(self, found: list[Found] | None, error: BaseException | None) -> None:
        self._running -= 1
        self._error = error
        self._waiting.extend(found or ())
        self._next()

    def _next(self) -> None:
        while self._waiting and self._error is None and (self._parallel or not self._running):
            found = self._waiting.popleft()
            self._running += 1
            self._threads.submit(partial(self._open_one, found), partial(self._one_opened, found))
        if not self._running:
            self._running = -1
            self._done(self._opened, self._error)

    def _one_opened(
        self, found: Found, segments: list[Segment] | None, error: BaseException | None
    ) -> None:
        self._running -= 1
        if segments is not None:
            self._opened[found] = segments
        elif self._error is None:
            self._error = error
        self._next()


def _find_in_all(paths: list[str]) -> list[Found]:
    """Thread: worker."""
    return sorted({found for path in paths for found in find_partitions(path)})
