"""
The contract of appending: single records, blocks, and blocks that are decided later; with both
policies, and with one of the test that never flushes by itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import StoreClosed, StoreError
from metamorphosis.store.batch import FAILED, PENDING, STORED, Batch, Block
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.messagestores import make_store
from metamorphosis.store.opening import open_segments
from metamorphosis.store.policy import FlushPolicy
from tests.support.partitions import Partition, put, record, stored


class PretendingPolicy(FlushPolicy):
    """A fake: everything written counts as flushed."""

    group_commit = False

    def reconfigure(self, threshold: int, interval: float) -> None:
        """See ``FlushPolicy``."""

    def check_writable(self) -> None:
        """See ``FlushPolicy``."""

    def written(self, batch: Batch, count: int, more: bool) -> None:
        """See ``FlushPolicy``."""
        batch.complete(batch.offset + batch.size, count, batch.error)
        self.flushed(self.store.last.end)

    def flush(self) -> None:
        """See ``FlushPolicy``."""

    def hurry(self) -> None:
        """See ``FlushPolicy``."""

    def flushed(self, end: int) -> None:
        """See ``FlushPolicy``."""
        self.store.read_end = end
        self.store.readable(end)

    def stalled(self, error: BaseException) -> None:
        """See ``FlushPolicy``."""

    def roll_unflushed(self, error: BaseException) -> None:
        """See ``FlushPolicy``."""
        raise AssertionError(error)


def open_pretending(partition: Partition) -> MessageStore:
    """A store with the fake."""
    segments = open_segments(partition.path, "t", 0, disk=partition.disk)
    return MessageStore("t", 0, segments, partition.environment, PretendingPolicy)


def open_real(partition: Partition) -> MessageStore:
    """A store with the policy of its topic."""
    segments = open_segments(partition.path, "t", 0, disk=partition.disk)
    return make_store(partition.topic, 0, segments, partition.environment)


PROVIDERS: tuple[tuple[int, Callable[[Partition], MessageStore]], ...] = (
    (0, open_real),
    (1000, open_real),
    (1000, open_pretending),
)


class ReservingTests(SynchronousTestCase):
    """Each provider in turn."""

    def each(self) -> list[tuple[Partition, MessageStore]]:
        """A partition with one record of 30 bytes, flushed."""
        found = []
        for threshold, make in PROVIDERS:
            partition = Partition(self.mktemp(), unflush_threshold=threshold)
            store = make(partition)
            store.append([record(30)])
            store.flush()
            self.assertEqual(store.max_offset, 30)
            found.append((partition, store))
        return found

    def add(self, store: MessageStore, *records: bytes) -> Batch:
        """Records, and the end of the turn."""
        batch = put(store, *records)
        store.commit()
        return batch

    def test_add(self) -> None:
        """A record gets the next offset, and is stored as it was given."""
        for _, store in self.each():
            offset = store.add(7, 3, 907060870, b"hello")
            batch = store.batch
            assert batch is not None
            self.assertEqual((offset, batch.count, store.next_offset), (30, 1, 55))
            self.assertEqual(store.add(8, 3, 0, b""), 55)
            store.commit()
            store.flush()
            self.assertEqual((batch.state, batch.stored_count), (STORED, 2))
            data = stored(store, 30)
            self.assertEqual(
                data,
                bytes.fromhex("000000053610a686000000000000000700000003")
                + b"hello"
                + bytes(8)
                + b"\x00" * 7
                + b"\x08\x00\x00\x00\x03",
            )

    def test_nothing_passes_an_undecided_block(self) -> None:
        """The offset of the block is known; later records are neither written nor readable before
        its decision."""
        for partition, store in self.each():
            block = store.reserve([record(40, 2), record(40, 3)])
            self.assertEqual((block.offset, block.size, block.state), (30, 80, PENDING))
            after = self.add(store, record(50, 4))
            self.assertEqual((after.offset, after.state), (110, PENDING))
            store.flush()
            self.assertEqual((partition.read(), store.max_offset), (record(30), 30))
            self.assertIsNone(store.slice(30, 1000))
            store.commit_block(block)
            store.flush()
            self.assertEqual((block.state, block.stored_count, after.state), (STORED, 1, STORED))
            expected = record(40, 2) + record(40, 3) + record(50, 4)
            self.assertEqual((stored(store, 30), store.max_offset), (expected, 160))

    def test_what_collected_before_a_block(self) -> None:
        """Earlier records are written at once, and their views are copied."""
        for _, store in self.each():
            buffer = bytearray(b"hello")
            store.open_batch().pieces += (record(25)[:20], memoryview(buffer))
            store.next_offset += 25
            before = store.batch
            assert before is not None
            block = store.reserve([record(40, 2)])
            buffer[:] = bytes(5)
            self.assertEqual((before.state, block.offset), (STORED, 55))
            store.cancel_block(block, StoreError("no"))
            store.flush()
            self.assertEqual((stored(store, 50), store.next_offset), (b"hello", 55))

    def test_cancelled(self) -> None:
        """No record of the block is in the log; records that collected after it are refused, later
        ones take its place."""
        for partition, store in self.each():
            error = StoreError("the journal is full")
            block = store.reserve([record(40, 2)])
            after = self.add(store, record(50, 3))
            other = store.reserve([record(60, 4)])
            told: list[Batch] = []
            after.waiters.append(lambda told=told, after=after: told.append(after))  # type: ignore[misc]
            store.cancel_block(block, error)
            self.assertEqual((block.state, after.state, other.state), (FAILED,) * 3)
            self.assertEqual((block.error, told, after.stored_count), (error, [after], 0))
            self.assertRaises(StoreError, store.commit_block, other)
            self.assertRaises(StoreError, store.cancel_block, block, error)
            again = self.add(store, record(50, 5))
            store.flush()
            self.assertEqual((again.offset, again.state), (30, STORED))
            self.assertEqual(partition.read(), record(30) + record(50, 5))

    def test_several_blocks(self) -> None:
        """They are written in the order of their offsets, in whatever order they are decided."""
        for partition, store in self.each():
            blocks = [store.reserve([record(40, number)]) for number in range(2, 5)]
            self.assertEqual([block.offset for block in blocks], [30, 70, 110])
            store.commit_block(blocks[1])
            self.assertEqual((blocks[1].state, len(partition.read())), (PENDING, 30))
            store.commit_block(blocks[0])
            store.flush()
            self.assertEqual([block.state for block in blocks], [STORED, STORED, PENDING])
            store.cancel_block(blocks[2], StoreError("no"))
            store.flush()
            self.assertEqual(stored(store, 30), record(40, 2) + record(40, 3))

    def test_one_flush_for_all_that_waited(self) -> None:
        """With group commit blocks that wait for the same flush get one for all."""
        partition, store = self.each()[0]
        partition.threads.hold()
        first = store.append([record(40, 2)])
        others = [store.append([record(40, number)]) for number in range(3, 9)]
        partition.threads.release_one()
        self.assertEqual((first.state, partition.threads.held), (STORED, 1))
        partition.threads.release_one()
        self.assertEqual({block.state for block in others}, {STORED})

    def test_full_disk(self) -> None:
        """A block that does not fit is not stored at all, and later records are refused."""
        for partition, store in self.each():
            block = store.reserve([record(40, 2), record(40, 3)])
            after = self.add(store, record(50, 4))
            partition.disk.room = 50
            store.commit_block(block)
            self.assertEqual((block.state, after.state, store.next_offset), (FAILED, FAILED, 30))
            partition.disk.room = None
            self.assertEqual(self.add(store, record(50, 5)).offset, 30)
            self.assertEqual(partition.read(), record(30) + record(50, 5))

    def test_put_from_a_waiter_does_not_pass_a_roll(self) -> None:
        """A put from within a waiter does not keep a full segment growing."""
        partition = Partition(self.mktemp(), unflush_threshold=0, max_segment_size=60)
        store = partition.open()
        partition.threads.hold()
        left = 6

        def again() -> None:
            nonlocal left
            left -= 1
            if left:
                batch = put(store, record(60, left))
                batch.waiters.append(again)
                store.commit()

        again()
        partition.threads.release()
        self.assertEqual([len(data) for data in partition.files().values()], [60] * 5 + [0])

    def test_close_waits_for_the_decision(self) -> None:
        """A closing store accepts no record, and stores a block that is committed then."""
        for partition, store in self.each():
            kept, dropped = store.reserve([record(40, 2)]), store.reserve([record(40, 3)])
            closed = store.close()
            self.assertNoResult(closed)
            self.assertRaises(StoreClosed, store.reserve, [record(40)])
            store.commit_block(kept)
            self.assertNoResult(closed)
            store.cancel_block(dropped, StoreError("no"))
            self.successResultOf(closed)
            self.assertEqual(partition.read(), record(30) + record(40, 2))

    def test_any_order(self) -> None:
        """Records, reservations, decisions, refusals and flushes in random order: the log has the
        stored records, in order, and no undecided one."""
        for seed in range(100):
            rng = random.Random(seed)
            threshold, make = rng.choice(PROVIDERS)
            partition = Partition(
                self.mktemp(), max_segment_size=300, unflush_threshold=min(threshold, 4)
            )
            store = make(partition)
            number = 0
            undecided: list[Block] = []
            records: list[tuple[Batch, int, bytes]] = []
            for _ in range(60):
                action = rng.randrange(6)
                number += 1
                one = record(rng.randrange(20, 90), number)
                try:
                    if action < 2:
                        offset = store.next_offset
                        batch = put(store, one)
                        records.append(
                            (batch, offset if batch.offset <= offset else batch.offset, one)
                        )
                    elif action == 2:
                        undecided.append(store.reserve([one]))
                        records.append((undecided[-1], undecided[-1].offset, one))
                except StoreError:
                    continue
                if action == 3:
                    store.commit()
                elif action == 4 and undecided:
                    block = undecided.pop(rng.randrange(len(undecided)))
                    if block.state is PENDING:
                        if rng.random() < 0.7:
                            store.commit_block(block)
                        else:
                            store.cancel_block(block, StoreError("no"))
                elif action == 5:
                    if partition.threads.held:
                        partition.threads.release()
                    elif rng.random() < 0.5:
                        partition.threads.hold()
                    partition.disk.room = rng.choice((None, None, 200))
            partition.disk.room = None
            partition.threads.release()
            for block in undecided:
                if block.state is PENDING:
                    store.commit_block(block)
            self.successResultOf(store.close())
            expected = b""
            for batch, offset, one in sorted(records, key=lambda entry: entry[1]):
                self.assertIsNot(batch.state, PENDING, f"seed {seed}")
                if offset + len(one) <= batch.stored_end:
                    self.assertEqual(offset, len(expected), f"seed {seed}")
                    expected += one
            log = b"".join(data for _, data in sorted(partition.files().items()))
            self.assertEqual(log, expected, f"seed {seed}")
