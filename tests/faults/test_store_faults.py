"""
The store on disks that are really full, limited or read-only, with real threads. A test that this
machine cannot run is skipped by name; injected faults are in ``tests.unit.store``.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from metamorphosis.config.model import BrokerConfig, TopicConfig
from metamorphosis.errors import StoreError
from metamorphosis.store.batch import FAILED, PENDING, STORED, Batch
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.messagestores import MessageStores
from metamorphosis.threads import WorkerThreads
from tests.support.partitions import put, record, stored
from tests.support.tinydisk import TinyDisk

MODES = {"direct": 1000, "group": 0}


class Broker:
    """Stores in ``path`` with real threads and the real reactor."""

    def __init__(self, test: TestCase, path: str, max_segment_size: int = 1 << 30) -> None:
        self.threads = WorkerThreads(reactor, 2, "store")  # type: ignore[arg-type]
        environment = StoreEnvironment(
            self.threads,
            reactor,  # type: ignore[arg-type]
            FlushSchedule(reactor),  # type: ignore[arg-type]
            max_segment_size=max_segment_size,
        )
        self.stores = MessageStores(BrokerConfig(0, data_path=path), environment)
        test.addCleanup(self.stop)

    def stop(self) -> Deferred[None]:
        """Close everything."""
        return self.stores.close().addCallback(lambda _: self.threads.stop())

    def store(self, mode: str) -> MessageStore:
        """Partition 0 of a topic in that mode."""
        topic = TopicConfig(mode, unflush_threshold=MODES[mode])
        return self.stores.get_or_create(topic, 0)


def completion(batch: Batch) -> Deferred[Batch]:
    """Fires when the batch is stored or has failed."""
    completed: Deferred[Batch] = Deferred()
    if batch.state is not PENDING:
        completed.callback(batch)
    else:
        batch.waiters.append(lambda: completed.callback(batch))
    return completed


class FullDiskTests(TestCase):
    """A disk of 1 MiB, and its behaviour when it is full."""

    timeout = 60

    def setUp(self) -> None:
        """Mount it."""
        self.disk = TinyDisk(os.path.abspath(self.mktemp()))
        self.addCleanup(self.disk.unmount)
        self.broker = Broker(self, self.disk.path, max_segment_size=300_000)

    @inlineCallbacks
    def fill(self, store: MessageStore) -> Any:
        """Append until it fails; returns the records that were acknowledged."""
        kept: list[bytes] = []
        while True:
            records = [record(700, len(kept) + n) for n in range(10)]
            batch = put(store, *records)
            store.commit()
            yield completion(batch)
            if batch.state == FAILED:
                count = (batch.stored_end - batch.offset) // 700
                self.assertLess(count, 10)
                return kept + records[:count]
            kept += records

    def check(self, store: MessageStore, kept: list[bytes]) -> None:
        """The log is readable up to its flushed end and holds exactly these records."""
        offset, data = store.min_offset, b""
        while offset < store.max_offset:
            piece = stored(store, offset)
            assert piece
            data += piece
            offset += len(piece)
        self.assertEqual(data, b"".join(kept))

    @inlineCallbacks
    def full_and_free_again(self, mode: str) -> Any:
        """Fill the disk, make room, continue, restart."""
        store = self.broker.store(mode)
        kept = yield self.fill(store)
        self.assertGreater(len(kept), 1000)
        batch = put(store, record(9000))
        store.commit()
        yield completion(batch)
        self.assertEqual(batch.state, FAILED)
        assert isinstance(batch.error, OSError)
        self.assertEqual(batch.error.errno, errno.ENOSPC)
        self.disk.remount("size=4m")
        # A roll may have failed for want of room; it is tried again after a second.
        yield deferLater(reactor, 1.1)  # type: ignore[arg-type]
        for number in range(500):
            batch = put(store, record(800, number))
            store.commit()
            yield completion(batch)
            self.assertEqual(batch.state, STORED)
            kept.append(record(800, number))
        yield self.broker.stop()
        broker = Broker(self, self.disk.path)
        yield broker.stores.load()
        again = broker.stores.get(mode, 0)
        assert again is not None
        self.check(again, kept)
        self.assertGreater(len(os.listdir(again.directory)), 3)
        yield broker.stop()

    def test_direct(self) -> Any:
        """Exactly the records without room are refused; with room again the partition works, and
        restarts."""
        return self.full_and_free_again("direct")

    def test_group_commit(self) -> Any:
        """The same in group commit mode."""
        return self.full_and_free_again("group")

    def test_new_partition(self) -> None:
        """A new partition without a free inode is an error that names it, and works later."""
        disk = TinyDisk(os.path.abspath(self.mktemp()), "size=1m,nr_inodes=3")
        self.addCleanup(disk.unmount)
        broker = Broker(self, disk.path)
        broker.store("group")
        error = self.assertRaises(StoreError, broker.store, "direct")
        directory = os.path.join(disk.path, "direct-0")
        self.assertIn(f"Create directory failed:{directory} (No space left", str(error))
        disk.remount("nr_inodes=100")
        self.assertEqual(broker.store("direct").append([record(9000)]).state, STORED)


class ReadOnlyDiskTests(TestCase):
    """A file system that turned read-only, as after a device error."""

    timeout = 60

    def setUp(self) -> None:
        """A disk with one partition."""
        self.disk = TinyDisk(os.path.abspath(self.mktemp()), "size=4m")
        self.addCleanup(self.disk.unmount)
        os.mkdir(os.path.join(self.disk.path, "direct-0"))
        path = os.path.join(self.disk.path, "direct-0", "00000000000000000000.meta")
        self.path = path
        with open(path, "wb") as file:
            file.write(record(100))

    @inlineCallbacks
    def test_start(self) -> Any:
        """The start is refused, and the error names the file."""
        self.disk.remount("ro")
        broker = Broker(self, self.disk.path)
        error = yield self.assertFailure(broker.stores.load(), StoreError)
        self.assertIn(f"{self.path} (Read-only file system)", str(error))

    def test_new_partition(self) -> None:
        """A put that would create a partition is refused; afterwards it works."""
        broker = Broker(self, self.disk.path)
        self.disk.remount("ro")
        error = self.assertRaises(StoreError, broker.store, "group")
        directory = os.path.join(self.disk.path, "group-0")
        self.assertIn(f"Create directory failed:{directory} (Read-only", str(error))
        self.disk.remount("rw")
        self.assertEqual(broker.store("group").next_offset, 0)


LIMITED = """
import os, resource, sys
from metamorphosis.store.batch import FAILED, STORED
from tests.support.partitions import Partition, put, record

os.chdir(sys.argv[1])
for threshold in (0, 1000):
    store = Partition(str(threshold), unflush_threshold=threshold).open()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    batch = put(store, *[record(300, number) for number in range(5)])
    store.commit()
    assert (batch.state, batch.stored_end) == (FAILED, 900), batch.stored_end
    print(batch.error.strerror)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    batch = store.append([record(300, 9)])
    assert (batch.state, batch.offset) == (STORED, 900), batch.offset
"""


class FileSizeLimitTests(TestCase):
    """A limit of the process instead of the disk: it needs no root rights, but a process of its
    own."""

    timeout = 60

    def test_both_modes(self) -> None:
        """Whole records up to the limit are stored, the rest is refused, and later accepted."""
        path = self.mktemp()
        os.mkdir(path)
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, os.path.abspath(path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        self.assertEqual((done.stdout, done.stderr), (2 * "File too large\n", ""))


class BadFileTests(TestCase):
    """Files that were damaged while the broker was down."""

    def setUp(self) -> None:
        """Partitions ``t-0`` with two segments and ``t-1`` with one."""
        self.path = os.path.abspath(self.mktemp())
        os.mkdir(self.path)
        self.write("t-0", 0, record(50) + record(50))
        self.write("t-0", 100, record(40))
        self.write("t-1", 0, record(60))

    def write(self, partition: str, start: int, data: bytes) -> str:
        """One segment file; returns its path."""
        directory = os.path.join(self.path, partition)
        os.makedirs(directory, exist_ok=True)
        path = os.path.join(directory, f"{start:020d}.meta")
        with open(path, "wb") as file:
            file.write(data)
        return path

    @inlineCallbacks
    def refused(self, *texts: str) -> Any:
        """The start fails, and says these texts."""
        broker = Broker(self, self.path)
        error = yield self.assertFailure(broker.stores.load(), StoreError)
        for text in texts:
            self.assertIn(text, str(error))

    @inlineCallbacks
    def test_intact(self) -> Any:
        """The unchanged files are accepted."""
        broker = Broker(self, self.path)
        yield broker.stores.load()
        self.assertEqual([store.max_offset for store in broker.stores], [140, 60])

    def test_truncated_older_segment(self) -> Any:
        """The error names both neighbours of the gap."""
        path = self.write("t-0", 0, record(50))
        return self.refused("don't validate", path, path.replace("000.meta", "100.meta"))

    def test_overlapping_segments(self) -> Any:
        """The error names both segments."""
        path = self.write("t-0", 0, record(50) * 3)
        return self.refused("don't validate", path)

    def test_unreadable_segment(self) -> Any:
        """The error names the file."""
        if os.getuid() == 0:
            raise SkipTest("root can read every file")
        path = self.write("t-1", 0, record(60))
        os.chmod(path, 0)
        return self.refused(f"Could not read file {path}")

    def test_segment_that_is_a_broken_link(self) -> Any:
        """The error names a broken link, as of a disk that is not mounted."""
        os.unlink(os.path.join(self.path, "t-1", "00000000000000000000.meta"))
        os.symlink("/nowhere/at/all", os.path.join(self.path, "t-1", "00000000000000000000.meta"))
        return self.refused(os.path.join(self.path, "t-1", "00000000000000000000.meta"))

    @inlineCallbacks
    def test_garbage_in_the_last_segment(self) -> Any:
        """The garbage is cut off, and the partition continues there."""
        self.write("t-1", 0, record(60) + os.urandom(1000))
        broker = Broker(self, self.path)
        yield broker.stores.load()
        store = broker.stores.get("t", 1)
        assert store is not None
        batch = store.append([record(30)])
        self.assertEqual((batch.offset, batch.state), (60, STORED))
