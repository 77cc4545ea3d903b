"""
One life of a partition on a ``ShadowDisk``: random work, a fault at the n-th call of the disk,
repair, more work, an end; with a look at what is promised after each step.
"""

from __future__ import annotations

import os
import random

from twisted.internet.task import Clock

from metamorphosis.config.model import TopicConfig
from metamorphosis.errors import StoreError
from metamorphosis.store.batch import PENDING, Batch, Block
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.messagestores import make_store
from metamorphosis.store.opening import open_segments
from tests.support.partitions import put, record, stored
from tests.unit.store.shadowdisk import HangingThreads, ShadowDisk

STEPS = 30


class Broken(AssertionError):
    """A promise was not kept."""


class Life:
    """
    One run; everything in it follows from the seed.

    :param threshold: 0: group commit.
    :param fault_at: number of the call that goes wrong, 0: none.
    """

    def __init__(
        self, path: str, seed: int, threshold: int, fault_at: int = 0, kind: str = ""
    ) -> None:
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.clock.advance(1385000000)
        self.threads = HangingThreads()
        self.disk = ShadowDisk(lambda: self.threads.inside, random.Random(seed))
        self.environment = StoreEnvironment(
            threads=self.threads,
            clock=self.clock,
            schedule=FlushSchedule(self.clock),
            max_segment_size=400,
            flush_delay=0.01,
            disk=self.disk,
            apart=seed % 2 == 1,
        )
        self.path = os.path.abspath(path)
        self.topic = TopicConfig("t", unflush_threshold=threshold, unflush_interval=10**9)
        self.store = self._open()
        self.opened = len(self.disk.calls)
        self.disk.fault_at = fault_at and fault_at + self.opened
        self.disk.fault_count = self.rng.choice((1, 1, 2, 5, 30))
        self.disk.kind = kind
        self.number = 0
        self.waiting: list[tuple[Batch, int, bytes]] = []
        self.acknowledged: dict[int, bytes] = {}

    def _open(self) -> MessageStore:
        segments = open_segments(self.path, "t", 0, disk=self.disk)
        return make_store(self.topic, 0, segments, self.environment)

    def run(self) -> int:
        """
        :returns: how many calls the disk has got since it was opened.
        :raises Broken: a promise was not kept.
        """
        healed = self.rng.randrange(STEPS // 2, STEPS)
        for step in range(STEPS):
            if step == healed:
                self.disk.heal()
                self.threads.thaw()
                self.clock.pump([1.0] * 3)
                self.works_again()
            self.step()
            self.check()
        self.disk.heal()
        self.threads.thaw()
        self.check_power_cut()
        self.end()
        return len(self.disk.calls) - self.opened

    def step(self) -> None:
        """Something that a broker does."""
        action = self.rng.randrange(7)
        try:
            if action < 4:
                for _ in range(self.rng.randrange(1, 4)):
                    one = self.new_record()
                    self.store.open_batch()
                    offset = self.store.next_offset
                    self.waiting.append((put(self.store, one), offset, one))
                self.store.commit()
            elif action == 4:
                self.decide(self.store.reserve([self.new_record(), self.new_record()]))
        except StoreError:
            pass
        if action > 4:
            self.clock.pump([0.01, self.rng.choice((0, 0.5, 2))])
        self.settle()

    def decide(self, block: Block) -> None:
        """Commit a block, or cancel it."""
        data = bytes(block.pieces[0])
        if self.rng.random() < 0.8:
            self.waiting.append((block, block.offset, data))
            self.store.commit_block(block)
        else:
            self.store.cancel_block(block, StoreError("no"))

    def new_record(self) -> bytes:
        """A record that differs from all others."""
        self.number += 1
        return record(self.rng.randrange(21, 90), self.number)

    def settle(self) -> None:
        """What is acknowledged, what refused."""
        still = []
        for batch, offset, data in self.waiting:
            if batch.state is PENDING:
                still.append((batch, offset, data))
            elif offset + len(data) <= batch.stored_end:
                self.promise(offset not in self.acknowledged, f"two messages at {offset}")
                self.acknowledged[offset] = data
        self.waiting = still

    def promise(self, kept: bool, what: str) -> None:
        """Complain if it is not."""
        if not kept:
            raise Broken(f"{what}; calls {self.disk.calls[self.opened :]}")

    def log(self) -> bytes:
        """All that was acknowledged, which has to be without a gap."""
        found = b""
        for offset in sorted(self.acknowledged):
            self.promise(offset == len(found), f"a gap before {offset}")
            found += self.acknowledged[offset]
        return found

    def check(self) -> None:
        """What can be read was acknowledged, byte for byte; nothing else, and no zeros."""
        log = self.log()
        offset = 0
        while (piece := stored(self.store, offset)) is not None:
            self.promise(log[offset : offset + len(piece)] == piece, f"wrong bytes at {offset}")
            offset += len(piece)
        self.promise(offset >= self.store.max_offset, f"unreadable from {offset} on")

    def works_again(self) -> None:
        """The first put after the repair is taken, and everything acknowledged is readable soon."""
        self.settle()
        self.promise(not self.waiting, "replies are held although the disk works")
        try:
            one = self.new_record()
            self.store.open_batch()
            offset = self.store.next_offset
            self.waiting.append((put(self.store, one), offset, one))
            self.store.commit()
        except StoreError as error:
            raise Broken(f"refused although the disk works: {error}") from error
        self.clock.pump([0.01, 1.0, 1.0])
        self.settle()
        self.promise(offset in self.acknowledged, "not stored although the disk works")
        self.check()
        self.promise(self.store.max_offset == len(self.log()), "not readable after the repair")

    def check_power_cut(self) -> None:
        """What was flushed is on the disk, with group commit all that was acknowledged."""
        self.settle()
        found = self.disk.after_power_cut()
        flushed = b"".join(data for _, data in sorted(found.items()))[: self.store.max_offset]
        self.promise(flushed == self.log()[: self.store.max_offset], "flushed messages are gone")
        if self.store.group_commit:
            self.promise(self.store.max_offset >= len(self.log()), "acknowledged and not flushed")

    def end(self) -> None:
        """An orderly end, and a start: exactly what was acknowledged is there."""
        closed: list[object] = []
        self.store.close().addCallback(closed.append)
        self.promise(bool(closed), "close does not end")
        self.settle()
        self.promise(not self.waiting, "replies are held for ever")
        self.promise(self.environment.schedule.unflushed == 0, "memory is kept for ever")
        self.store = self._open()
        self.check()
        self.promise(self.store.max_offset == len(self.log()), "messages are gone after a restart")
        self.store.close()
