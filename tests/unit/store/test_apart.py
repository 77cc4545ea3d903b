"""Writes in a worker that meet a roll, a hang, or a cut that fails."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import StoreDamaged, StoreStalled
from metamorphosis.store.batch import FAILED, PENDING, STORED
from metamorphosis.store.lane import STALL_SECONDS
from tests.support.partitions import Partition, put, record, stored
from tests.unit.store.test_lanes import LanesTestCase


class ApartGroupCommitTests(SynchronousTestCase):
    """A batch that is written and not flushed while a block after it is being written."""

    def setUp(self) -> None:
        """Both are taken; the test lets workers go on one by one."""
        self.partition = Partition(self.mktemp(), max_segment_size=60, unflush_threshold=0)
        self.partition.environment = replace(self.partition.environment, apart=True)
        self.disk = self.partition.disk
        self.threads = self.partition.threads
        self.store = self.partition.open()
        self.threads.hold()
        self.first = put(self.store, record(60))
        self.store.commit()
        self.block = self.store.append([record(30, 2)])
        self.threads.release_one()
        self.assertEqual((60, 1), (len(self.partition.read()), self.threads.held))

    def test_roll_comes_after_the_flush(self) -> None:
        """The written batch has filled the segment. A roll that fails to flush it would not refuse
        it, and a later flush would acknowledge what the kernel has dropped."""
        self.disk.broken.add("sync_all")
        self.threads.release()
        self.assertEqual((STORED, STORED), (self.first.state, self.block.state))
        self.assertLess(self.disk.calls.index("sync"), self.disk.calls.index("sync_all"))

    def test_hang(self) -> None:
        """Both are refused, so both leave the file as soon as the disk answers, without a put; the
        next put is stored."""
        self.store.stall(StoreStalled("it hangs"))
        self.assertEqual((FAILED, FAILED), (self.first.state, self.block.state))
        self.store.stall(None)
        self.threads.release()
        self.assertEqual(b"", self.partition.read())
        batch = self.store.append([record(30, 3)])
        self.assertEqual((STORED, 0), (batch.state, batch.offset))


class ApartDirectTests(LanesTestCase):
    """Two partitions on the disk that hangs."""

    def test_cut_that_fails(self) -> None:
        """A refused write ends after the disk answers, and cannot be cut off. A batch that has
        collected meanwhile is refused: the cut at the next put would take it out of the file while
        it is being written."""
        stores, one, _ = self.stores(1000)
        other = stores.get_or_create(self.config.topics["one"], 1)
        threads = self.made[0]
        threads.hold()
        self.add(other, record(30, 2))
        self.pass_time(STALL_SECONDS / 2)
        refused = self.add(one, record(30, 3))
        self.pass_time(STALL_SECONDS / 2 + 1)
        threads.release_one()  # the first write has hung, the second is not late
        behind = self.add(one, record(30, 4))
        self.assertEqual((FAILED, PENDING), (refused.state, behind.state))

        def truncate(fd: int, size: int) -> None:
            raise OSError("I/O")

        broken = self.patch(self.disk, "truncate", truncate)
        threads.release_one()
        self.assertEqual(FAILED, behind.state)
        self.assertRaises(StoreDamaged, one.open_batch)
        broken.restore()
        later = self.add(one, record(30, 5))
        threads.release()
        self.pass_time(1)
        self.assertEqual((STORED, 30), (later.state, later.offset))
        self.assertEqual(record(30) + record(30, 5), stored(one))

    def test_partition_that_appears_during_a_hang(self) -> None:
        """It refuses puts as the others do, although it did not exist when they were told."""
        stores, one, _ = self.stores(1000)
        threads = self.made[0]
        threads.hold()
        self.add(one, record(30, 2))
        created = stores.create(self.config.topics["one"], 1)
        assert created is not None
        self.pass_time(STALL_SECONDS + 1)
        self.failureResultOf(created, StoreStalled)
        threads.go_on_with_the_last()
        store = stores.get("one", 1)
        assert store is not None
        self.assertRaises(StoreStalled, store.open_batch)
        threads.release()
        self.assertEqual(STORED, self.add(store, record(30)).state)
