"""All stores of a broker: found at start, created on demand, reconfigured and closed together."""

from __future__ import annotations

import errno
import os
import sys
import tracemalloc
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config.model import BrokerConfig, TopicConfig
from metamorphosis.errors import SegmentsInvalid, StoreClosed, StoreError
from metamorphosis.store import opening
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.messagestores import IDLE_SECONDS, MessageStores, open_segments
from metamorphosis.threads import SynchronousThreads
from tests.support.leftovers import open_files
from tests.support.partitions import M1, M2, M3, N0, BreakableDisk, record, stored


class MessageStoresTests(SynchronousTestCase):
    """Stores in two data paths."""

    def setUp(self) -> None:
        """Two empty data paths; topic ``own`` lives in the second."""
        self.clock = Clock()
        self.threads = SynchronousThreads()
        self.disk = BreakableDisk()
        self.environment = StoreEnvironment(
            self.threads, self.clock, FlushSchedule(self.clock), disk=self.disk
        )
        self.path, self.second = os.path.abspath(self.mktemp()), os.path.abspath(self.mktemp())
        os.mkdir(self.path)
        os.mkdir(self.second)
        self.own = TopicConfig("own", data_path=self.second)
        self.topic = TopicConfig("t", unflush_threshold=3)

    def config(self, **system: Any) -> BrokerConfig:
        """Both topics."""
        topics = {"own": self.own, "t": self.topic}
        return BrokerConfig(0, data_path=self.path, topics=topics, **system)

    def stores(self, **system: Any) -> MessageStores:
        """Not loaded yet."""
        stores = MessageStores(self.config(**system), self.environment)
        self.addCleanup(stores.close)
        return stores

    def fill(self, path: str, *names: str) -> None:
        """Partition directories with one message each."""
        for name in names:
            os.mkdir(os.path.join(path, name))
            with open(os.path.join(path, name, N0), "wb") as file:
                file.write(M1)

    def test_size_of_segments(self) -> None:
        """Told nothing, that of a configuration that says nothing."""
        self.assertEqual(BrokerConfig(0).max_segment_size, self.environment.max_segment_size)

    def test_start_checks_unless_told_otherwise(self) -> None:
        """A torn end is cut off."""
        self.fill(self.path, "t-0")
        with open(os.path.join(self.path, "t-0", N0), "ab") as file:
            file.write(M2[:-1])
        (segment,) = open_segments(self.path, "t", 0)
        self.assertEqual((segment.size, segment.message_count), (len(M1), 1))
        os.close(segment.fd)

    def test_directory_that_cannot_be_read(self) -> None:
        """The error names it and says why."""
        path = os.path.join(self.path, "t-0")

        def fail(directory: str) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(opening, "find_segments", fail)
        error = self.assertRaises(StoreError, open_segments, self.path, "t", 0)
        self.assertIn(f"Could not read directory {path} (Input/output error)", str(error))

    def test_both_data_paths(self) -> None:
        """Every data path of the configuration is scanned, in sorted order."""
        self.fill(self.path, "t-10", "t-2", "a-0")
        self.fill(self.second, "own-1", "own-0")
        for parallel in (False, True):
            stores = self.stores(load_message_stores_in_parallel=parallel)
            self.successResultOf(stores.load())
            names = [(store.topic, store.partition) for store in stores]
            expected = [("a", 0), ("own", 0), ("own", 1), ("t", 2), ("t", 10)]
            self.assertEqual((names, len(stores)), (expected, 5))
            self.assertEqual((stores.message_count, stores.size_bytes), (5, 125))
            self.successResultOf(stores.close())

    def test_topics_that_begin_like_our_files(self) -> None:
        """They are found again; our files are passed over in silence."""
        self.fill(self.path, ".metamorphosis.ids-0", ".metamorphosis-1")
        for name in (".metamorphosis.lock", ".metamorphosis.ids", ".metamorphosis.ids.new"):
            with open(os.path.join(self.path, name), "w", encoding="ascii"):
                pass
        stores = self.stores()
        with capturedLogs() as events:
            self.successResultOf(stores.load())
        self.assertEqual(events, [])
        names = [(store.topic, store.partition) for store in stores]
        self.assertEqual(names, [(".metamorphosis", 1), (".metamorphosis.ids", 0)])

    def test_missing_data_path_is_created(self) -> None:
        """One level, as the original."""
        os.rmdir(self.second)
        self.successResultOf(self.stores().load())
        self.assertTrue(os.path.isdir(self.second))

    def test_data_path_that_cannot_be_created(self) -> None:
        """The original's words, and the path."""
        self.path = os.path.join(self.path, "a", "b")
        error = self.failureResultOf(self.stores().load(), StoreError).value
        self.assertIn(f"Could not make data directory {self.path}", str(error))

    def test_data_path_that_is_a_file(self) -> None:
        """Likewise."""
        self.path = os.path.join(self.path, "file")
        with open(self.path, "wb"):
            pass
        error = self.failureResultOf(self.stores().load(), StoreError).value
        self.assertEqual(str(error), f"Data path {self.path} is not a readable directory")

    def test_topic_with_a_directory_in_the_wrong_data_path(self) -> None:
        """A partition is opened where its topic lives now, as in the original."""
        self.fill(self.path, "own-0")
        stores = self.stores()
        self.successResultOf(stores.load())
        store = stores.get("own", 0)
        assert store is not None
        self.assertEqual((store.max_offset, store.directory), (0, self.second + "/own-0"))

    def test_same_partition_in_both_data_paths(self) -> None:
        """Only one store, that of its topic's data path (O-5)."""
        self.fill(self.path, "own-0")
        self.fill(self.second, "own-0")
        stores = self.stores()
        self.successResultOf(stores.load())
        self.assertEqual([store.directory for store in stores], [self.second + "/own-0"])

    def test_failure_closes_what_was_opened(self) -> None:
        """The first bad partition fails the load; the descriptors of the good ones are closed."""
        self.fill(self.path, "t-0", "t-1", "t-3")
        with open(os.path.join(self.path, "t-1", "00000000000000000099.meta"), "wb"):
            pass
        for parallel in (False, True):
            stores = self.stores(load_message_stores_in_parallel=parallel)
            self.failureResultOf(stores.load(), SegmentsInvalid)
            self.assertEqual(len(stores), 0)
            self.assertEqual(open_files(self.path), [])

    def test_serial_and_parallel(self) -> None:
        """One partition at a time in workers, or all of them."""
        self.fill(self.path, "t-0", "t-1", "t-2")
        for parallel, running in ((False, 1), (True, 3)):
            stores = self.stores(load_message_stores_in_parallel=parallel)
            self.threads.hold()
            loaded = stores.load()
            self.threads.release_one()
            self.assertEqual(self.threads.held, running)
            self.assertNoResult(loaded)
            self.threads.release()
            self.successResultOf(loaded)

    def test_cancelled_load(self) -> None:
        """A load that is cancelled opens nothing more, closes what it opened, and fails."""
        self.fill(self.path, "t-0", "t-1", "t-2")
        stores = self.stores()
        stores.cancel_load()
        self.threads.hold()
        loaded = stores.load()
        self.threads.release_one()
        self.threads.release_one()
        stores.cancel_load()
        self.threads.release()
        self.failureResultOf(loaded, StoreClosed)
        self.assertEqual((len(stores), open_files(self.path)), (0, []))
        self.assertEqual(self.disk.calls.count("open"), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_create(self) -> None:
        """
        The first put creates directory and file in the topic's data path, the second finds it.
        """
        stores = self.stores()
        self.successResultOf(stores.load())
        self.assertIsNone(stores.get("own", 5))
        store = stores.get_or_create(self.own, 5)
        self.assertIs(stores.get_or_create(self.own, 5), store)
        self.assertIs(stores.get("own", 5), store)
        self.assertEqual(os.listdir(os.path.join(self.second, "own-5")), [N0])

    def test_create_on_a_broken_disk(self) -> None:
        """An error that names the file, and nothing that stands in the way of the next try."""
        stores = self.stores()
        self.disk.broken.add("create")
        error = self.assertRaises(StoreError, stores.get_or_create, self.topic, 0)
        self.assertIn(os.path.join(self.path, "t-0", N0), str(error))
        self.assertIsNone(stores.get("t", 0))
        self.disk.broken.clear()
        self.assertEqual(stores.get_or_create(self.topic, 0).append([M2]).offset, 0)

    def test_mode_of_a_store(self) -> None:
        """A threshold of 0 or less makes a store with group commit, for as long as it lives."""
        stores = self.stores()
        modes = {
            threshold: stores.get_or_create(
                TopicConfig(f"g{threshold}", unflush_threshold=threshold), 0
            ).group_commit
            for threshold in (-1, 0, 1)
        }
        self.assertEqual(modes, {-1: True, 0: True, 1: False})

    def test_reload(self) -> None:
        """Thresholds of existing stores change, also those of topics that have no section."""
        stores = self.stores()
        store = stores.get_or_create(self.topic, 0)
        other = stores.get_or_create(TopicConfig("other", unflush_interval=10**9), 0)
        self.topic = TopicConfig("t", unflush_threshold=1, unflush_interval=10**9)
        stores.reconfigure(self.config(unflush_threshold=1))
        for one in (store, other):
            one.append([record(30)])
            one.append([record(30)])
            self.assertEqual(one.max_offset, 60)

    def test_close(self) -> None:
        """Everything is flushed and closed; then nothing can be created, and no timer is left."""
        stores = self.stores()
        one = stores.get_or_create(self.topic, 0)
        two = stores.get_or_create(TopicConfig("g", unflush_threshold=0), 0)
        one.append([M1])
        self.threads.hold()
        two.append([M2])
        closed = stores.close()
        self.assertNoResult(closed)
        self.threads.release()
        self.successResultOf(closed)
        self.assertEqual((one.max_offset, two.max_offset), (25, 25))
        self.assertRaises(StoreClosed, stores.get_or_create, self.topic, 7)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(stores.close())

    def test_sweep_of_idle_descriptors(self) -> None:
        """
        Old segments that are no longer read give their descriptors back after a minute or two.
        """
        self.fill(self.path, "t-0")
        with open(os.path.join(self.path, "t-0", "00000000000000000025.meta"), "wb") as file:
            file.write(M3)
        stores = self.stores()
        self.successResultOf(stores.load())
        store = stores.get("t", 0)
        assert store is not None
        self.assertEqual(stored(store, 0), M1)
        segment = store.immutable_segments()[0]
        self.clock.advance(IDLE_SECONDS)
        self.assertNotEqual(segment.fd, -1)
        self.clock.advance(IDLE_SECONDS)
        self.assertEqual(segment.fd, -1)

    def test_a_thousand_partitions(self) -> None:
        """Each costs one descriptor and 2,000 bytes; an empty deque has 760."""
        stores = self.stores()
        self.disk.calls = []
        tracemalloc.start()
        try:
            for partition in range(1000):
                stores.get_or_create(self.topic, partition)
            used = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        self.assertEqual(len(open_files(self.path)), 1000)
        self.assertLess(used / 1000, 2500 if sys.version_info < (3, 13) else 2900)
