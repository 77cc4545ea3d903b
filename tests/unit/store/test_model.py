"""Random operations on a store, compared with a plain list of what was acknowledged."""

from __future__ import annotations

import os
import random
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import StoreError, StoreStalled
from metamorphosis.store.batch import PENDING, STORED, Batch, Block
from metamorphosis.store.messagestore import MessageStore
from tests.support.partitions import Partition, put, record, stored
from tests.support.seeds import seeds

FAULTS = ("sync", "sync_all", "create", "truncate", "sync_directory")


class Run:
    """
    One partition under random appends, faults, rolls, retention and restarts.

    :ivar acknowledged: record by offset: all of it has to be there, as long as it is not removed.
    """

    def __init__(self, test: SynchronousTestCase, path: str, seed: int) -> None:
        self.test = test
        self.random = random.Random(seed)
        self.partition = Partition(
            path,
            max_segment_size=self.random.choice((60, 300, 1 << 20)),
            flush_delay=self.random.choice((0, 0.01)),
            unflush_threshold=self.random.choice((0, 0, 3, 1000)),
        )
        self.store: MessageStore = self.partition.open()
        self.acknowledged: dict[int, bytes] = {}
        self.number = 0
        self.open: list[tuple[Batch, int, bytes]] = []

    def step(self) -> None:
        """One random operation, and a look at whatever has been completed."""
        actions = (
            [self.append] * 8
            + [self.collect] * 4
            + [self.commit] * 3
            + [self.threads, self.fault, self.repair, self.repair, self.tick, self.remove]
        )
        self.random.choice(actions)()
        if self.random.random() < 0.02:
            self.restart()
        self.settle()

    def new_record(self) -> bytes:
        """A record that differs from all others."""
        self.number += 1
        return record(20 + self.random.randrange(60), self.number)

    def append(self) -> None:
        """A block of one to three records."""
        block = b"".join(self.new_record() for _ in range(self.random.randrange(1, 4)))
        try:
            batch = self.store.append([block])
        except StoreError:
            return
        self.open.append((batch, self.store.next_offset - len(block), block))

    def collect(self) -> None:
        """A record into the batch that collects, which is not committed."""
        one = self.new_record()
        try:
            self.store.open_batch()
        except StoreError:
            return
        offset = self.store.next_offset
        self.open.append((put(self.store, one), offset, one))

    def commit(self) -> None:
        """The end of a turn."""
        self.store.commit()

    def threads(self) -> None:
        """Workers get slow, or done."""
        if self.partition.threads.held:
            self.partition.threads.release()
        else:
            self.partition.threads.hold()

    def fault(self) -> None:
        """Something breaks."""
        if self.random.random() < 0.5:
            self.partition.disk.room = self.random.randrange(100)
        else:
            self.partition.disk.broken.add(self.random.choice(FAULTS))

    def repair(self) -> None:
        """Everything works again."""
        self.partition.disk.room = None
        self.partition.disk.broken.clear()

    def tick(self) -> None:
        """Time passes."""
        self.partition.clock.advance(self.random.choice((0.01, 1, 3)))

    def remove(self) -> None:
        """Retention takes the oldest segment."""
        if self.store.immutable_segments():
            oldest = self.store.immutable_segments()[0]
            self.store.remove_segment(oldest)
            os.unlink(oldest.path)
            for offset in list(self.acknowledged):
                if offset < oldest.end:
                    del self.acknowledged[offset]

    def settle(self) -> None:
        """Sort what is completed into acknowledged or refused; nothing else may be readable."""
        still = []
        for batch, offset, data in self.open:
            if batch.state == PENDING:
                still.append((batch, offset, data))
            elif offset + len(data) <= batch.stored_end and offset >= batch.offset:
                self.acknowledged[offset] = data
        self.open = still
        self.test.assertLessEqual(self.store.max_offset, self.store.next_offset)

    def restart(self) -> None:
        """An orderly end, and a start."""
        self.repair()
        self.partition.threads.release()
        self.test.assertIsNotNone(self.store.close())
        self.settle()
        self.test.assertEqual(self.open, [])
        self.store = self.partition.open()
        self.check()

    def check(self) -> None:
        """The log holds exactly what was acknowledged, in order and without a gap."""
        data = b""
        offset = self.store.min_offset
        while offset < self.store.max_offset:
            piece = stored(self.store, offset)
            assert piece
            data += piece
            offset += len(piece)
        expected = b"".join(self.acknowledged[offset] for offset in sorted(self.acknowledged))
        self.test.assertEqual(data, expected)
        self.test.assertEqual(sum(map(len, self.partition.files().values())), len(data))
        position = self.store.min_offset
        for offset in sorted(self.acknowledged):
            self.test.assertEqual(offset, position)
            position += len(self.acknowledged[offset])


class HangingRun(Run):
    """The same with blocks that wait for a decision, writes in workers that go on one by one, and a
    disk that hangs and answers again."""

    def __init__(self, test: SynchronousTestCase, path: str, seed: int) -> None:
        super().__init__(test, path, seed)
        self.store.close()
        environment = replace(self.partition.environment, apart=seed % 4 > 0)
        self.partition.environment = environment
        self.store = self.partition.open()
        self.blocks: list[Block] = []

    def step(self) -> None:
        """See ``Run``."""
        if self.random.random() < 0.4:
            one, many = [self.stall, self.answer, self.answer], [self.reserve] * 2
            self.random.choice(one + many + [self.decide] * 3 + [self.go_on] * 6)()
            self.settle()
        else:
            super().step()

    def go_on(self) -> None:
        """One worker ends."""
        self.partition.threads.hold()
        self.partition.threads.release_one()

    def stall(self) -> None:
        """The disk does not answer."""
        self.store.stall(StoreStalled("it hangs"))

    def answer(self) -> None:
        """It does again."""
        self.store.stall(None)

    def reserve(self) -> None:
        """A block of two records."""
        data = self.new_record() + self.new_record()
        try:
            block = self.store.reserve([data])
        except StoreError:
            return
        self.blocks.append(block)
        self.open.append((block, block.offset, data))

    def decide(self) -> None:
        """Commit the oldest block, or cancel it."""
        block = self.blocks.pop(0) if self.blocks else None
        if block is None or block.state != PENDING:
            return
        if self.random.random() < 0.7:
            self.store.commit_block(block)
        else:
            self.store.cancel_block(block, StoreError("no"))

    def restart(self) -> None:
        """See ``Run``. Before it a put is stored: nothing stays refused on a disk that works."""
        self.answer()
        self.repair()
        while self.blocks:
            self.decide()
        self.partition.threads.release()
        self.store.commit()
        one = self.new_record()
        batch = self.store.append([one])
        self.open.append((batch, batch.offset, one))
        self.test.assertEqual(batch.state, STORED)
        super().restart()


class ModelTests(SynchronousTestCase):
    """Seeded, so that a failure repeats."""

    def test_random_operations(self) -> None:
        """Whatever breaks and whenever, the log is exactly what was acknowledged."""
        self.check_runs(Run)

    def test_random_hangs(self) -> None:
        """Also if the disk hangs meanwhile."""
        self.check_runs(HangingRun)

    def check_runs(self, make_run: type[Run]) -> None:
        """Runs of one kind."""
        for seed in seeds(150):
            run = make_run(self, self.mktemp(), seed)
            try:
                for _ in range(150):
                    run.step()
                run.restart()
                run.store.close()
            except Exception as error:
                raise AssertionError(f"seed {seed}") from error
