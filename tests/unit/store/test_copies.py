"""Records of another broker's log, appended as they are; partitions that leave the broker."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config.model import BrokerConfig, TopicConfig
from metamorphosis.errors import StoreClosed
from metamorphosis.store.batch import FAILED, PENDING, STORED
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.messagestores import MessageStores
from metamorphosis.threads import SynchronousThreads
from tests.support.partitions import M1, M2, M3, BreakableDisk

MODES = (1000, 0)


class CopyTests(SynchronousTestCase):
    """One topic in either mode; a partition begins at 1000."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.threads = SynchronousThreads()
        self.disk = BreakableDisk()
        self.environment = StoreEnvironment(
            self.threads, self.clock, FlushSchedule(self.clock), disk=self.disk
        )
        self.path = os.path.abspath(self.mktemp())
        self.stores = MessageStores(
            BrokerConfig(0, data_path=self.path, topics={}), self.environment
        )
        self.addCleanup(self.stores.close)

    def store(self, threshold: int = 1000, partition: int = 0) -> MessageStore:
        """One whose log begins at 1000."""
        topic = TopicConfig("t", unflush_threshold=threshold)
        return self.stores.get_or_create(topic, partition, 1000)

    def content(self, store: MessageStore) -> bytes:
        """Of its only file."""
        with open(store.last.path, "rb") as file:
            return file.read()

    def test_begins_where_the_master_does(self) -> None:
        """The first segment is named by the offset, and the ends are there."""
        store = self.store()
        self.assertEqual(["00000000000000001000.meta"], os.listdir(f"{self.path}/t-0"))
        self.assertEqual(
            (1000, 1000, 1000), (store.min_offset, store.max_offset, store.next_offset)
        )

    def test_copy_counts_as_its_messages_and_as_no_put(self) -> None:
        """In both modes, one copy after the other."""
        for partition, threshold in enumerate(MODES):
            store = self.store(threshold, partition)
            first = store.append_copy(M1 + M2, 2)
            second = store.append_copy(M3, 1)
            self.assertEqual((1000, 1000 + len(M1 + M2)), (first.offset, second.offset))
            self.clock.advance(1)
            self.assertEqual((STORED, STORED), (first.state, second.state))
            self.assertEqual(M1 + M2 + M3, self.content(store))
            self.assertEqual((3, 0, 0), (store.message_count, store.put_count, store.put_bytes))
            self.assertEqual(store.next_offset, store.max_offset)

    def test_copy_waits_for_a_flush_that_holds(self) -> None:
        """With group commit a copy is stored when it is flushed, and the next one after it."""
        store = self.store(0)
        self.threads.hold()
        first, second = store.append_copy(M1, 1), store.append_copy(M2, 1)
        self.assertEqual((PENDING, PENDING), (first.state, second.state))
        self.threads.release()
        self.assertEqual((STORED, STORED), (first.state, second.state))
        self.assertEqual(M1 + M2, self.content(store))

    def test_full_disk(self) -> None:
        """Nothing of a copy stays, however much was written, and the next try begins there."""
        for partition, threshold in enumerate(MODES):
            store = self.store(threshold, partition)
            store.append_copy(M1, 1)
            self.clock.advance(1)
            self.disk.room = len(M2) + 3
            copy = store.append_copy(M2 + M3, 2)
            self.assertEqual(FAILED, copy.state)
            self.assertEqual((M1, 1000 + len(M1)), (self.content(store), store.next_offset))
            self.disk.room = None
            self.assertEqual(STORED, self.flushed(store.append_copy(M2 + M3, 2)))
            self.assertEqual(M1 + M2 + M3, self.content(store))
            self.assertEqual(3, store.message_count)

    def flushed(self, copy: object) -> object:
        """What has become of it after a while."""
        self.clock.advance(1)
        return copy.state  # type: ignore[attr-defined]

    def test_partition_leaves(self) -> None:
        """Nothing can be read, or appended, any more, and the files stay."""
        store = self.store()
        store.append_copy(M1, 1)
        self.successResultOf(self.stores.withdraw(store))
        self.assertIsNone(self.stores.get("t", 0))
        self.assertRaises(StoreClosed, store.append_copy, M2, 1)
        self.assertEqual(M1, self.content(store))
        self.assertEqual([], list(self.stores))

    def test_partition_comes_back(self) -> None:
        """It begins at another offset after its directory is gone."""
        self.successResultOf(self.stores.withdraw(self.store()))
        os.rename(f"{self.path}/t-0", f"{self.path}.aside")
        store = self.stores.get_or_create(TopicConfig("t"), 0, 5000)
        self.assertEqual(5000, store.next_offset)
