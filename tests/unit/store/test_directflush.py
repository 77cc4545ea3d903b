"""The default mode: acknowledged when written, flushed in the background."""

from __future__ import annotations

import os

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import StoreClosed, StoreDamaged
from metamorphosis.store import directflush
from metamorphosis.store.batch import FAILED, PENDING, STORED
from metamorphosis.store.flushrounds import FIRST_DELAY
from tests.support.partitions import HUGE, N0, Partition, put, record, stored


class DirectFlushTests(SynchronousTestCase):
    """One partition with threshold 3 unless a test says otherwise."""

    def partition(self, **parameters: float) -> Partition:
        """An empty partition."""
        parameters.setdefault("unflush_threshold", 3)
        return Partition(self.mktemp(), **parameters)  # type: ignore[arg-type]

    def test_batch_is_announced_once(self) -> None:
        """``on_dirty`` hears of a batch when it is opened, and of its records nothing."""
        partition = self.partition()
        store = partition.open()
        put(store, record(30), record(30))
        put(store, record(30))
        self.assertIs(store.open_batch(), store.batch)
        self.assertEqual(partition.dirty, [store])

    def test_commit_writes_once_and_tells_every_waiter(self) -> None:
        """Any number of records are one write; each waiter is called once, after it."""
        partition = self.partition()
        store = partition.open()
        batch = put(store, record(30), record(40))
        calls: list[int] = []
        batch.waiters += [lambda: calls.append(batch.state)] * 2
        self.assertEqual((batch.state, calls), (PENDING, []))
        store.commit()
        self.assertEqual(partition.disk.calls, ["write"])
        self.assertEqual((calls, batch.stored_end, batch.size), ([STORED, STORED], 70, 70))
        self.assertIsNone(store.batch)

    def test_commit_without_a_batch(self) -> None:
        """Committing when nothing collects does nothing."""
        partition = self.partition()
        partition.open().commit()
        self.assertEqual(partition.disk.calls, [])

    def test_empty_batch(self) -> None:
        """A batch that was opened and not filled is stored, trivially."""
        partition = self.partition()
        store = partition.open()
        batch = store.open_batch()
        store.commit()
        self.assertEqual((batch.state, batch.stored_end), (STORED, 0))
        self.assertEqual(partition.clock.getDelayedCalls(), [])

    def test_views_are_copied(self) -> None:
        """A batch that waits keeps its records when the receive buffer is used again."""
        store = self.partition().open()
        buffer = bytearray(record(30))
        batch = store.open_batch()
        batch.pieces += (bytes(buffer[:20]), memoryview(buffer)[20:])
        store.next_offset += 30
        store.own_pieces()
        buffer[:] = bytes(30)
        store.commit()
        store.flush()
        self.assertEqual(stored(store), record(30))

    def test_counters(self) -> None:
        """Records and bytes are counted; a block of several records counts once."""
        store = self.partition().open()
        put(store, record(30), record(40))
        store.commit()
        store.append([record(30), record(30)])
        self.assertEqual((store.message_count, store.size_bytes), (3, 130))
        self.assertEqual((store.put_count, store.put_bytes), (3, 70))

    def test_block_that_must_wait(self) -> None:
        """While a roll runs a block stands after what collects, at the offset announced before."""
        partition = self.partition(max_segment_size=30)
        store = partition.open()
        partition.threads.hold()
        store.append([record(30)])
        batch = put(store, record(40))
        block = store.append([record(30), record(30)])
        self.assertEqual((batch.offset, block.offset, block.state), (30, 70, PENDING))
        partition.threads.release()
        self.assertEqual((batch.state, block.state, block.stored_end), (STORED, STORED, 130))
        store.flush()
        self.assertEqual(stored(store, 30), record(40))
        self.assertEqual(stored(store, 70), record(30) * 2)

    def test_high_water_mark_is_what_was_written_when_the_flush_began(self) -> None:
        """What is written while a flush runs is not readable when that flush ends."""
        partition = self.partition()
        store = partition.open()
        partition.threads.hold()
        for _ in range(4):
            store.append([record(30)])
        store.append([record(30)])
        self.assertEqual(store.max_offset, 0)
        partition.threads.release_one()
        self.assertEqual(store.max_offset, 120)
        self.assertIsNone(store.slice(120, 100))

    def test_bound_of_unflushed_messages(self) -> None:
        """While a flush runs as many messages as the threshold are taken, the next ones wait."""
        partition = self.partition()
        store = partition.open()
        partition.threads.hold()
        states = [store.append([record(30)]).state for _ in range(8)]
        self.assertEqual(states, [STORED] * 8)
        waiting = store.append([record(30)])
        self.assertEqual((waiting.state, store.max_offset), (PENDING, 0))
        partition.threads.release_one()
        self.assertEqual((waiting.state, store.max_offset), (STORED, 120))

    def test_background_flush(self) -> None:
        """A message becomes readable soon after its write, without a further put."""
        partition = self.partition(unflush_threshold=1000, flush_delay=0.025)
        store = partition.open()
        store.append([record(30)])
        self.assertEqual(store.max_offset, 0)
        partition.clock.advance(FIRST_DELAY)
        self.assertEqual(store.max_offset, 30)
        self.assertEqual(partition.clock.getDelayedCalls(), [])

    def test_background_flush_of_what_came_during_a_flush(self) -> None:
        """What is written during a flush gets its own, and nothing is flushed for nothing."""
        partition = self.partition(unflush_threshold=1000, flush_delay=0.01)
        store = partition.open()
        partition.threads.hold()
        store.append([record(30)])
        partition.clock.advance(0.01)
        store.append([record(30)])
        partition.clock.advance(0.01)
        self.assertEqual(partition.threads.held, 1)
        partition.threads.release()
        self.assertEqual(store.max_offset, 30)
        partition.clock.pump([0.01, 0.01, 0.01])
        self.assertEqual(store.max_offset, 60)
        self.assertEqual(partition.disk.calls.count("sync"), 2)

    def test_interval_without_background_flush(self) -> None:
        """Without a flush delay the interval flushes, counted from the first unflushed write."""
        partition = self.partition(unflush_threshold=1000, unflush_interval=10000)
        store = partition.open()
        partition.clock.advance(5)
        store.append([record(30)])
        partition.clock.advance(9.9)
        self.assertEqual(store.max_offset, 0)
        partition.clock.advance(0.1)
        self.assertEqual(store.max_offset, 30)

    def test_interval_at_an_append(self) -> None:
        """An append that finds the last flush older than the interval asks for one."""
        partition = self.partition(unflush_threshold=1000, unflush_interval=10000)
        store = partition.open()
        partition.clock.advance(10.1)
        store.append([record(30)])
        self.assertEqual(store.max_offset, 30)

    def test_reload_of_the_threshold(self) -> None:
        """A new threshold holds from the next append on; the mode stays."""
        store = self.partition().open()
        store.append([record(30)])
        store.reconfigure(1, HUGE)
        store.append([record(30)])
        self.assertEqual((store.max_offset, store.group_commit), (60, False))
        store.reconfigure(0, HUGE)
        store.append([record(30)])
        self.assertEqual((store.max_offset, store.group_commit), (90, False))

    def test_reload_of_the_interval(self) -> None:
        """A new interval holds from the next append on."""
        partition = self.partition(unflush_threshold=1000, unflush_interval=10000)
        store = partition.open()
        store.reconfigure(1000, 2000)
        store.append([record(30)])
        partition.clock.advance(1.9)
        self.assertEqual(store.max_offset, 0)
        partition.clock.advance(0.1)
        self.assertEqual(store.max_offset, 30)
        partition.clock.advance(2.1)
        store.append([record(30)])
        self.assertEqual(store.max_offset, 60)

    def test_directories_are_synced_with_the_first_flush(self) -> None:
        """A new file's entries in its directories are made durable once."""
        partition = self.partition()
        store = partition.open()
        for _ in range(8):
            store.append([record(30)])
        names = [name for name in partition.disk.calls if name.startswith("sync")]
        self.assertEqual(names, ["sync", "sync_directory", "sync_directory", "sync"])

    def test_close_flushes_and_closes(self) -> None:
        """Closing stores what collects, flushes it and gives the descriptors back."""
        partition = self.partition()
        store = partition.open()
        batch = put(store, record(30))
        partition.threads.hold()
        closed = store.close()
        self.assertEqual(batch.state, STORED)
        self.assertNoResult(closed)
        self.assertRaises(StoreClosed, store.open_batch)
        partition.threads.release()
        self.successResultOf(closed)
        self.assertEqual(store.max_offset, 30)
        self.assertEqual(partition.disk.calls[-1], "close")
        self.successResultOf(store.close())

    def test_close_keeps_descriptors_of_readers(self) -> None:
        """A reader that still sends from a file can continue after the store has been closed."""
        partition = self.partition()
        store = partition.open()
        store.append([record(30)])
        store.reconfigure(0, HUGE)
        store.append([record(30)])
        found = store.slice(0, 60)
        assert found is not None
        found.segment.retain()
        self.successResultOf(store.close())
        self.assertEqual(len(os.pread(found.segment.fd, 60, 0)), 60)
        found.segment.release()
        self.assertEqual(found.segment.fd, -1)


class DirectFlushFaultTests(SynchronousTestCase):
    """What is written is acknowledged and stays; what cannot be written is refused."""

    def setUp(self) -> None:
        """A partition with threshold 3."""
        self.partition = Partition(self.mktemp(), unflush_threshold=3)
        self.store = self.partition.open()
        self.disk = self.partition.disk

    def test_short_write_keeps_whole_records(self) -> None:
        """A full disk refuses exactly the records that are not whole in the file."""
        self.disk.room = 75
        batch = put(self.store, record(30), record(30), record(30))
        calls: list[int] = []
        batch.waiters.append(lambda: calls.append(batch.stored_end))
        self.store.commit()
        self.assertEqual((batch.state, batch.stored_end, calls), (FAILED, 60, [60]))
        self.assertIsInstance(batch.error, OSError)
        self.assertEqual(self.partition.read(), record(30) * 2)
        self.assertEqual((self.store.next_offset, self.store.message_count), (60, 2))

    def test_works_again_when_there_is_room(self) -> None:
        """The next append goes where the failed one would have gone."""
        self.disk.room = 10
        self.assertEqual(self.store.append([record(30)]).state, FAILED)
        self.disk.room = None
        batch = self.store.append([record(30)])
        self.assertEqual((batch.state, batch.offset), (STORED, 0))
        self.assertEqual(self.partition.read(), record(30))

    def test_block_is_all_or_nothing(self) -> None:
        """Of a block that does not fit nothing is kept."""
        self.disk.room = 45
        batch = self.store.append([record(30), record(30)])
        self.assertEqual((batch.state, batch.stored_end), (FAILED, 0))
        self.assertEqual(self.partition.read(), b"")

    def test_many_pieces(self) -> None:
        """A big batch that ends in the middle of its second write keeps whole records."""
        self.disk.room = 700_010
        batch = put(self.store, *[record(1000, n) for n in range(1000)])
        self.store.commit()
        self.assertEqual((batch.state, batch.stored_end), (FAILED, 700_000))
        self.assertEqual(self.partition.read(), b"".join(record(1000, n) for n in range(700)))
        self.disk.room = None
        batch = put(self.store, *[record(1000, n) for n in range(1000)])
        self.store.commit()
        self.assertEqual((batch.state, batch.stored_end), (STORED, 1_700_000))

    def test_damaged_until_it_can_be_cut(self) -> None:
        """When the rest cannot be cut off appends are refused, and accepted when it can."""
        self.disk.room = 45
        self.disk.broken.add("truncate")
        put(self.store, record(30), record(30))
        self.store.commit()
        self.disk.room = None
        error = self.assertRaises(StoreDamaged, self.store.open_batch)
        self.assertIn(os.path.join(self.partition.directory, N0), str(error))
        self.assertIsNone(self.store.batch)
        self.disk.broken.clear()
        self.store.append([record(30, 7)])
        self.assertEqual(self.partition.read(), record(30) + record(30, 7))

    def test_damaged_store_does_not_roll(self) -> None:
        """A file that is longer than its records must not get a successor."""
        partition = Partition(self.mktemp(), unflush_threshold=3, max_segment_size=30)
        store = partition.open()
        partition.disk.room = 45
        partition.disk.broken.add("truncate")
        put(store, record(30), record(30))
        store.commit()
        self.assertEqual(list(partition.files()), [N0])
        partition.disk.room = None
        partition.disk.broken.clear()
        store.append([record(30)])
        self.successResultOf(store.close())
        self.assertEqual(partition.open().max_offset, 60)

    def fail_a_flush(self) -> None:
        """Four messages are written, their flush fails."""
        self.disk.broken.add("sync")
        for number in range(4):
            self.assertEqual(self.store.append([record(30, number)]).state, STORED)

    def test_flush_failure_keeps_what_is_acknowledged(self) -> None:
        """It stays in the file, is not readable, and is written again before the next flush."""
        self.fail_a_flush()
        self.assertEqual((self.store.max_offset, self.partition.read()[:30]), (0, record(30, 0)))
        self.disk.broken.clear()
        self.disk.calls.clear()
        self.partition.clock.advance(1)
        self.assertEqual(self.disk.calls[:5], ["write"] * 4 + ["sync"])
        self.assertEqual(self.store.max_offset, 120)
        self.assertEqual(stored(self.store), b"".join(record(30, n) for n in range(4)))

    def test_pages_that_the_kernel_drops(self) -> None:
        """Acknowledged records that could not be flushed are written again although the file has
        lost them, and until then no reader gets the zeros in their place."""
        self.store.append([record(30, 9)])
        self.store.flush()
        self.fail_a_flush()
        with open(os.path.join(self.partition.directory, N0), "r+b") as file:
            file.seek(30)
            file.write(bytes(120))
        self.assertEqual(stored(self.store), record(30, 9))
        self.disk.broken.clear()
        self.partition.clock.advance(1)
        expected = record(30, 9) + b"".join(record(30, n) for n in range(4))
        self.assertEqual((stored(self.store), self.partition.read()), (expected, expected))

    def test_every_put_tries(self) -> None:
        """After an outage of any length the first put is taken, without any time passing, also
        beyond the bound; while it lasts a put waits for the attempt that it has caused."""
        self.fail_a_flush()
        self.partition.clock.pump([10.0] * 10)
        self.disk.calls.clear()
        self.assertRaises(StoreDamaged, self.store.open_batch)
        self.assertIn("sync", self.disk.calls)
        self.partition.threads.hold()
        refused = put(self.store, record(30, 5))
        self.store.commit()
        self.assertEqual(refused.state, PENDING)
        self.partition.threads.release_one()
        self.assertEqual((refused.state, refused.stored_end), (FAILED, 120))
        self.disk.broken.clear()
        taken = put(self.store, record(30, 6))
        self.store.commit()
        self.partition.threads.release()
        self.assertEqual((taken.state, taken.offset, taken.stored_count), (STORED, 120, 1))

    def test_bound_of_bytes(self) -> None:
        """However high the threshold, memory for what is unflushed is bounded: beyond the bound
        batches collect while a flush runs, and are refused while flushes fail."""
        for name in ("MOST", "MOST_IN_ALL"):
            partition = Partition(self.mktemp(), unflush_threshold=10**6)
            store = partition.open()
            patcher = self.patch(directflush, name, 1000)
            partition.threads.hold()
            states = [store.append([record(300)]).state for _ in range(10)]
            self.assertIn(PENDING, states)
            self.assertLess(partition.environment.schedule.unflushed, 2 * 1000 + 2 * 300)
            partition.disk.broken.add("sync")
            partition.threads.release()
            self.assertRaises(StoreDamaged, store.open_batch)
            partition.disk.broken.clear()
            store.append([record(300)])
            store.flush()
            self.assertEqual(partition.environment.schedule.unflushed, 0)
            for _ in range(5):  # what is flushed counts no more
                self.assertEqual(store.append([record(300)]).state, STORED)
                store.flush()
            partition.disk.calls.clear()
            store.append([record(300)])
            self.assertNotIn("sync", partition.disk.calls)
            patcher.restore()

    def test_flush_failure_backs_off(self) -> None:
        """Retries come after 1, 2, 4 ... seconds, not with every append."""
        self.fail_a_flush()
        self.disk.calls.clear()
        self.partition.clock.pump([0.5] * 14)
        self.assertEqual(self.disk.calls.count("sync"), 3)
        self.disk.broken.clear()
        self.partition.clock.advance(8)
        self.disk.calls.clear()
        self.fail_a_flush()
        self.partition.clock.advance(1)
        self.assertEqual(self.disk.calls.count("sync"), 2)

    def test_flush_failure_bounds_what_is_unflushed(self) -> None:
        """Beyond the threshold puts are refused while flushes fail, then accepted again."""
        self.fail_a_flush()
        error = self.assertRaises(StoreDamaged, self.store.open_batch)
        self.assertIn("4 messages wait", str(error))
        self.disk.broken.clear()
        self.partition.clock.advance(1)
        self.assertEqual(self.store.append([record(30)]).state, STORED)

    def test_batch_held_by_a_flush_that_fails(self) -> None:
        """Records that collected above the bound were not written and are refused."""
        self.partition.threads.hold()
        for number in range(8):
            self.store.append([record(30, number)])
        held = self.store.append([record(30)])
        self.disk.broken.add("sync")
        self.partition.threads.release()
        self.assertEqual((held.state, held.stored_end, self.store.next_offset), (FAILED, 240, 240))

    def test_fault_is_logged_once(self) -> None:
        """A failing disk logs when it begins and when it is over, naming the file."""
        lines: list[str] = []

        def observe(event: dict) -> None:
            if event.get("log_namespace", "").startswith("metamorphosis.store"):
                lines.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.disk.room = 0
        for _ in range(3):
            self.store.append([record(30)])
        self.disk.room = None
        self.store.append([record(30)])
        path = os.path.join(self.partition.directory, N0)
        self.assertEqual(len(lines), 2)
        self.assertTrue(lines[0].startswith(f"Append to {path} failed at 0"))
        self.assertEqual(lines[1], f"Append to {path} works again")

    def test_close_with_a_broken_disk(self) -> None:
        """Closing ends although the last flush fails."""
        self.disk.broken.add("sync")
        self.store.append([record(30)])
        self.successResultOf(self.store.close())

    def test_memory_after_a_close_with_a_broken_disk(self) -> None:
        """What could not be flushed does not count any longer for the other partitions, whose bound
        would be reached for ever."""
        self.fail_a_flush()
        self.successResultOf(self.store.close())
        self.assertEqual(self.partition.environment.schedule.unflushed, 0)


class CutBackTests(SynchronousTestCase):
    """What a crash has left of a block is removed before the store takes a message."""

    def test_cut_back(self) -> None:
        """The file ends where the block began; a file that cannot be cut is an error."""
        partition = Partition(self.mktemp(), unflush_threshold=3).fill(N0=record(30) * 3)
        store = partition.open()
        store.cut_back(60)
        self.assertEqual((partition.read(), store.next_offset), (record(30) * 2, 60))
        partition.disk.broken.add("truncate")
        self.assertIn(store.last.path, str(self.assertRaises(StoreDamaged, store.cut_back, 30)))


class RollTests(SynchronousTestCase):
    """A full segment gets a successor once it is flushed."""

    def setUp(self) -> None:
        """Segments of 60 bytes."""
        self.partition = Partition(self.mktemp(), max_segment_size=60, unflush_threshold=1000)
        self.store = self.partition.open()
        self.disk = self.partition.disk

    def test_appends_collect_during_a_roll(self) -> None:
        """Nothing goes to the old file any more, nothing is refused."""
        self.partition.threads.hold()
        put(self.store, record(30), record(30))
        self.store.commit()
        batch = put(self.store, record(30, 3))
        self.store.commit()
        self.assertEqual((batch.state, self.store.max_offset), (PENDING, 0))
        self.partition.threads.release()
        self.assertEqual((batch.state, self.store.max_offset), (STORED, 60))
        self.assertEqual(sorted(self.partition.files()), [N0, "00000000000000000060.meta"])
        self.assertEqual(self.partition.read("00000000000000000060.meta"), record(30, 3))

    def test_roll_waits_for_a_running_flush(self) -> None:
        """One worker at a time has the file."""
        self.store.reconfigure(0, HUGE)
        self.partition.threads.hold()
        self.store.append([record(30)])
        self.store.append([record(30)])
        self.assertEqual(self.partition.threads.held, 1)
        self.partition.threads.release()
        self.assertEqual(len(self.partition.files()), 2)
        self.assertEqual(self.store.max_offset, 60)

    def test_directories_are_synced_at_the_first_roll(self) -> None:
        """A first segment that is full before its first flush needs its directories, too."""
        put(self.store, record(30), record(30))
        self.store.commit()
        directories = ["sync_directory", "sync_directory"]
        self.assertEqual(self.disk.calls, ["write", "sync_all", *directories, "create"])

    def test_new_file_cannot_be_created(self) -> None:
        """
        The message stays stored, the old file grows, and the roll is tried again a second later.
        """
        self.disk.broken.add("create")
        put(self.store, record(30), record(30))
        batch = self.store.batch
        self.store.commit()
        assert batch is not None
        self.assertEqual((batch.state, self.store.max_offset), (STORED, 60))
        self.assertEqual(self.store.append([record(30)]).state, STORED)
        self.assertEqual(self.disk.calls.count("create"), 1)
        self.disk.broken.clear()
        self.partition.clock.advance(1)
        self.store.append([record(30)])
        files = {name: len(data) for name, data in self.partition.files().items()}
        self.assertEqual(files, {N0: 120, "00000000000000000120.meta": 0})
        self.successResultOf(self.store.close())
        self.assertEqual(self.partition.open().max_offset, 120)

    def test_flush_fails_at_a_roll(self) -> None:
        """No roll without a flush: the old file continues, what is acknowledged stays."""
        self.disk.broken |= {"sync", "sync_all"}
        put(self.store, record(30), record(30))
        self.store.commit()
        self.assertEqual((list(self.partition.files()), self.store.max_offset), ([N0], 0))
        self.assertEqual(self.store.append([record(30)]).state, STORED)
        self.disk.broken.clear()
        self.partition.clock.advance(1)
        self.assertEqual(sorted(self.partition.files()), [N0, "00000000000000000090.meta"])
        self.assertEqual(self.store.max_offset, 90)

    def test_flush_fails_at_a_roll_after_the_last_flush(self) -> None:
        """With nothing left to flush the roll is tried again all the same, without a put."""
        self.store.reconfigure(0, HUGE)
        self.partition.threads.hold()
        self.store.append([record(30)])
        self.store.append([record(30)])
        self.disk.broken.add("sync_all")
        self.partition.threads.release()
        self.assertEqual((list(self.partition.files()), self.store.max_offset), ([N0], 60))
        self.disk.broken.clear()
        self.partition.clock.advance(1)
        self.assertEqual(len(self.partition.files()), 2)

    def test_no_roll_when_the_end_is_not_known(self) -> None:
        """The next segment would begin before the end of this one, and the next start fail."""
        self.disk.broken.add("create")
        put(self.store, record(30), record(30))
        self.store.commit()
        self.store.append([record(30)])
        self.store.appender.withdraw()
        self.disk.broken.clear()
        self.partition.clock.advance(1)
        self.store.flush()
        self.assertEqual((list(self.partition.files()), self.store.max_offset), ([N0], 90))

    def test_read_while_rolling(self) -> None:
        """Old segments stay readable through the roll, and a slice ends with its segment."""
        for number in range(5):
            self.store.append([record(30, number)])
        self.store.flush()
        self.assertEqual(stored(self.store, 0), record(30, 0) + record(30, 1))
        self.assertEqual(stored(self.store, 90), record(30, 3))
        self.assertEqual(stored(self.store, 120), record(30, 4))

    def test_segment_size_of_zero(self) -> None:
        """A size that wrapped to 0 rolls after every append and never endlessly."""
        partition = Partition(self.mktemp(), max_segment_size=0, unflush_threshold=1000)
        store = partition.open()
        for _ in range(3):
            store.append([record(30)])
        self.assertEqual(len(partition.files()), 4)

    def test_stray_file_where_the_next_segment_goes(self) -> None:
        """A file with data that is not ours is never overwritten."""
        self.partition.put("00000000000000000060.meta", b"foreign")
        put(self.store, record(30), record(30))
        self.store.commit()
        self.assertEqual(self.partition.read("00000000000000000060.meta"), b"foreign")
        self.assertEqual(self.store.append([record(30)]).state, STORED)
