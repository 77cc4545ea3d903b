"""Group commit: acknowledged when flushed; one flush runs while the next batch collects."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import StoreClosed, StoreDamaged
from metamorphosis.store.batch import FAILED, PENDING, STORED, Batch
from metamorphosis.store.disk import Disk
from tests.support.partitions import N0, Partition, put, record, stored


class GroupCommitTests(SynchronousTestCase):
    """One partition whose flushes the test lets through one by one."""

    def setUp(self) -> None:
        """Every flush is held."""
        self.partition = Partition(self.mktemp(), unflush_threshold=0)
        self.store = self.partition.open()
        self.disk = self.partition.disk
        self.threads = self.partition.threads
        self.threads.hold()

    def test_next_batch_collects_while_one_is_flushed(self) -> None:
        """Nothing is written during a flush; what has collected goes at once when it ends."""
        first = self.store.append([record(30)])
        second = put(self.store, record(40))
        self.store.commit()
        put(self.store, record(50))
        self.assertEqual((first.state, second.state), (PENDING, PENDING))
        self.assertEqual((len(self.partition.read()), self.threads.held), (30, 1))
        self.threads.release_one()
        self.assertEqual((first.state, second.state), (STORED, PENDING))
        self.assertEqual((len(self.partition.read()), self.threads.held), (120, 1))
        self.threads.release_one()
        self.assertEqual((second.state, second.stored_end), (STORED, 120))

    def test_batch_of_several_writes(self) -> None:
        """Too long for one call; each is cut short."""
        for most in (1 << 20, 100_000):
            partition = Partition(self.mktemp(), unflush_threshold=0)
            store = partition.open()
            store.append([record(30)])
            write = partition.disk.write

            def short(fd: int, data: bytes | memoryview, position: int, most: int = most) -> int:
                return write(fd, data[:most], position)

            self.patch(partition.disk, "write", short)
            records = [record(2000, number) for number in range(1, 1300)]
            batch = put(store, *records)
            store.commit()
            self.assertEqual(batch.state, STORED)
            self.assertEqual(partition.read(), record(30) + b"".join(records))

    def test_acknowledged_when_the_disk_has_it(self) -> None:
        """By the system call, which nothing takes the place of."""
        synced: list[int] = []
        self.patch(os, "fdatasync", synced.append)
        with open(os.path.join(self.partition.directory, "file"), "wb") as file:
            Disk().sync(file.fileno())
            self.assertEqual(synced, [file.fileno()])

    def test_nothing_is_read_before_it_is_flushed(self) -> None:
        """A slice ends at the flushed end, because the rest may be taken back."""
        self.store.append([record(30)])
        self.assertIsNone(self.store.slice(0, 100))
        self.threads.release_one()
        self.store.append([record(30)])
        self.assertEqual(stored(self.store), record(30))
        self.assertIsNone(self.store.slice(30, 100))

    def test_records_added_to_a_batch_that_waits(self) -> None:
        """The batch that collects during a flush is the same for every turn until then."""
        self.store.append([record(30)])
        batch = put(self.store, record(30))
        self.store.commit()
        self.assertIs(put(self.store, record(30)), batch)
        self.assertEqual(self.partition.dirty, [self.store])

    def test_roll_between_batches(self) -> None:
        """A full segment is flushed for good and left; the batch that waited goes to the next."""
        partition = Partition(self.mktemp(), unflush_threshold=0, max_segment_size=60)
        store = partition.open()
        partition.threads.hold()
        store.append([record(60)])
        waiting = put(store, record(30, 2))
        partition.threads.release_one()
        self.assertEqual((waiting.state, partition.read()), (PENDING, record(60)))
        partition.threads.release()
        self.assertEqual(waiting.state, STORED)
        self.assertEqual(partition.files(), {N0: record(60), "0" * 18 + "60.meta": record(30, 2)})
        expected = ["write", "sync", "sync_directory", "sync_directory", "sync_all", "create"]
        self.assertEqual(partition.disk.calls, [*expected, "write", "sync", "sync_directory"])

    def test_close_flushes_and_answers(self) -> None:
        """What was written, and what had collected, is stored and answered before the end (D-5)."""
        first = self.store.append([record(30)])
        second = put(self.store, record(30))
        closed = self.store.close()
        self.assertRaises(StoreClosed, self.store.append, [record(30)])
        self.threads.release_one()
        self.assertNoResult(closed)
        self.threads.release()
        self.successResultOf(closed)
        self.assertEqual((first.state, second.state), (STORED, STORED))

    def test_no_timer(self) -> None:
        """Nothing is scheduled: every write is followed by its flush."""
        self.store.append([record(30)])
        self.store.flush()
        self.assertEqual(self.partition.clock.getDelayedCalls(), [])


class GroupCommitFaultTests(SynchronousTestCase):
    """Everything that is not flushed is refused and taken out of the file again."""

    def setUp(self) -> None:
        """Every flush is held."""
        self.partition = Partition(self.mktemp(), unflush_threshold=0)
        self.store = self.partition.open()
        self.disk = self.partition.disk
        self.threads = self.partition.threads
        self.store.append([record(30)])
        self.threads.hold()

    def test_flush_failure_fails_what_collected_behind(self) -> None:
        """
        Both batches are refused, the file ends where it was flushed, the next append goes there.
        """
        first = self.store.append([record(30, 2)])
        behind = put(self.store, record(30, 3))
        answered: list[int] = []
        first.waiters.append(lambda: answered.append(1))
        behind.waiters.append(lambda: answered.append(2))
        self.disk.broken.add("sync")
        self.threads.release()
        self.assertEqual((first.state, behind.state, answered), (FAILED, FAILED, [1, 2]))
        self.assertEqual((first.stored_end, behind.stored_end), (30, 30))
        self.assertEqual((self.store.batch, self.disk.calls.count("truncate")), (None, 1))
        self.assertEqual((self.partition.read(), self.store.max_offset), (record(30), 30))
        self.assertEqual((self.store.message_count, self.store.size_bytes), (1, 30))
        self.disk.broken.clear()
        batch = self.store.append([record(30, 4)])
        self.assertEqual((batch.state, batch.offset), (STORED, 30))

    def test_short_write(self) -> None:
        """Of a batch that was partly written the whole records are flushed, the rest is refused."""
        self.disk.room = 75
        batch = put(self.store, record(30, 2), record(30, 3), record(30, 4))
        self.store.commit()
        self.assertEqual(batch.state, PENDING)
        following = put(self.store, record(40, 5))
        self.disk.room = None
        self.threads.release()
        self.assertEqual((batch.state, batch.stored_end), (FAILED, 90))
        self.assertEqual((following.state, following.offset), (STORED, 90))
        expected = record(30) + record(30, 2) + record(30, 3) + record(40, 5)
        self.assertEqual(self.partition.read(), expected)

    def test_full_disk_answers_at_once(self) -> None:
        """A batch of which nothing could be written needs no flush to be refused."""
        self.disk.room = 5
        batch = put(self.store, record(30, 2))
        self.store.commit()
        self.assertEqual((batch.state, batch.stored_end, self.threads.held), (FAILED, 30, 0))
        self.assertEqual(self.partition.read(), record(30))

    def test_partial_write_whose_flush_fails(self) -> None:
        """Nothing of the batch is stored then."""
        self.disk.room = 45
        batch = put(self.store, record(30, 2), record(30, 3))
        self.store.commit()
        self.disk.room = None
        self.disk.broken.add("sync")
        self.threads.release()
        self.assertEqual((batch.state, batch.stored_end), (FAILED, 30))
        self.assertEqual((self.partition.read(), self.store.message_count), (record(30), 1))

    def test_put_by_a_waiter_of_a_refused_batch(self) -> None:
        """It is not written before the flush of the batch that was written before the refused one:
        with a second flush at the same time, the end of one would acknowledge what the other has
        not flushed yet."""
        first = self.store.append([record(30, 2)])
        written, refused = self.store.append([record(30, 3)]), self.store.append([record(30, 4)])
        again: list[Batch] = []

        def put_again() -> None:
            self.disk.room = None
            again.append(self.store.append([record(30, 5)]))

        refused.waiters.append(put_again)
        self.disk.room = 40
        self.threads.release_one()
        self.assertEqual([STORED, PENDING, FAILED], [b.state for b in (first, written, refused)])
        self.assertEqual((PENDING, 1), (again[0].state, self.threads.held))
        self.threads.release()
        self.assertEqual([STORED, STORED], [batch.state for batch in (written, *again)])
        expected = b"".join(record(30, number) for number in (1, 2, 3, 5))
        self.assertEqual(expected, self.partition.read())

    def test_what_cannot_be_taken_back(self) -> None:
        """Appends are refused until the file could be cut; nothing of it was ever readable."""
        self.disk.broken |= {"sync", "truncate"}
        self.store.append([record(30, 2)])
        self.threads.release()
        self.assertRaises(StoreDamaged, self.store.open_batch)
        self.assertIsNone(self.store.slice(30, 100))
        self.disk.broken.clear()
        self.assertEqual(self.store.append([record(40, 3)]).state, STORED)
        self.assertEqual(self.partition.read(), record(30) + record(40, 3))

    def test_file_that_is_closed_when_its_flush_fails(self) -> None:
        """The file is closed because too many are open: its records are cut off nevertheless, at
        once."""
        self.disk.broken.add("sync")
        batch = self.store.append([record(30, 2)])
        self.store.last.close()
        self.threads.release()
        self.assertEqual((batch.state, self.partition.read()), (FAILED, record(30)))

    def test_directory_that_cannot_be_synced(self) -> None:
        """A message in a file that a crash could lose is not acknowledged."""
        partition = Partition(self.mktemp(), unflush_threshold=0)
        store = partition.open()
        partition.disk.broken.add("sync_directory")
        self.assertEqual(store.append([record(30)]).state, FAILED)
        partition.disk.broken.clear()
        self.assertEqual(store.append([record(30)]).state, STORED)

    def test_roll_failures(self) -> None:
        """
        Whatever fails at a roll, messages are stored in the old file and the roll comes later.
        """
        for broken in ("sync_all", "create"):
            partition = Partition(self.mktemp(), unflush_threshold=0, max_segment_size=60)
            store = partition.open()
            partition.disk.broken.add(broken)
            for number in range(3):
                self.assertEqual(store.append([record(30, number)]).state, STORED)
            self.assertEqual(list(partition.files()), [N0])
            self.assertEqual(store.max_offset, 90)
            partition.disk.broken.clear()
            partition.clock.advance(1)
            store.append([record(30)])
            self.assertEqual(sorted(partition.files()), [N0, "0" * 17 + "120.meta"])

    def test_close_with_a_broken_disk(self) -> None:
        """Closing refuses what it cannot flush, and ends."""
        batch = self.store.append([record(30, 2)])
        closed = self.store.close()
        self.disk.broken.add("sync")
        self.threads.release()
        self.successResultOf(closed)
        self.assertEqual(batch.state, FAILED)
        self.assertEqual(os.listdir(self.partition.directory), [N0])
        self.assertEqual(self.partition.read(), record(30))
