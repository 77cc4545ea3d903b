"""
The second time: flushes after a flush, faults after a fault, ends after the end. The store has to
drop its state of the first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import StoreDamaged
from metamorphosis.store.batch import FAILED, PENDING, STORED
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.flushrounds import FIRST_DELAY
from metamorphosis.store.messagestore import MessageStore
from tests.support.partitions import N0, Partition, put, record

FLUSH_DELAY = 0.025
INTERVAL = 10.0


class AgainTestCase(SynchronousTestCase):
    """One partition, and the lines that are logged."""

    def setUp(self) -> None:
        """Listen."""
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: dict[str, Any]) -> None:
        """Keep the log lines of the store."""
        if event.get("log_namespace", "").startswith("metamorphosis.store"):
            self.lines.append(event["log_format"].format(**event))

    def logged(self, text: str) -> int:
        """The number of lines with this text."""
        return sum(text in line for line in self.lines)

    def make(self, **parameters: Any) -> MessageStore:
        """An empty store, by default with threshold 3."""
        parameters.setdefault("unflush_threshold", 3)
        self.partition = Partition(self.mktemp(), **parameters)
        self.disk = self.partition.disk
        self.threads = self.partition.threads
        self.clock = self.partition.clock
        return self.partition.open()

    def append(self, store: MessageStore, count: int = 1) -> None:
        """Messages of 30 bytes, each acknowledged."""
        for _ in range(count):
            self.assertEqual(store.append([record(30)]).state, STORED)


class FlushTests(AgainTestCase):
    """Every acknowledged message becomes readable without a further put."""

    def test_rounds(self) -> None:
        """One background flush is followed by the next."""
        store = self.make(unflush_threshold=1000, flush_delay=FLUSH_DELAY)
        for end in (30, 60, 90):
            self.append(store)
            self.clock.advance(FLUSH_DELAY)
            self.assertEqual(store.max_offset, end)

    def test_intervals(self) -> None:
        """Without background flushes one interval is followed by the next."""
        store = self.make(unflush_threshold=1000, unflush_interval=INTERVAL * 1000)
        for end in (30, 60, 90):
            self.append(store)
            self.assertEqual(store.max_offset, end - 30)
            self.clock.advance(INTERVAL)
            self.assertEqual(store.max_offset, end)

    def test_interval_begins_with_each_flush(self) -> None:
        """The append after the interval causes a flush, and the next one does not."""
        store = self.make(unflush_threshold=1000, unflush_interval=INTERVAL * 1000)
        self.clock.advance(INTERVAL + 1)
        self.append(store)
        self.assertEqual(store.max_offset, 30)
        self.append(store)
        self.assertEqual(store.max_offset, 30)

    def test_more_than_the_threshold_during_a_flush(self) -> None:
        """They are flushed as soon as that flush is done."""
        store = self.make()
        self.threads.hold()
        self.append(store, 8)
        self.assertEqual(self.threads.held, 1)
        self.threads.release()
        self.assertEqual(store.max_offset, 240)

    def test_few_during_a_flush(self) -> None:
        """They get a flush of their own, although their request came while the disk was busy."""
        for delay, wait in ((FLUSH_DELAY, FLUSH_DELAY), (0.0, INTERVAL)):
            store = self.make(unflush_interval=INTERVAL * 1000, flush_delay=delay)
            self.threads.hold()
            self.append(store, 5)
            self.clock.advance(wait)  # what was asked for comes while the threshold's flush runs
            self.assertEqual(self.threads.held, 1)
            self.threads.release()
            self.assertEqual(store.max_offset, 120)
            self.clock.advance(wait)
            self.assertEqual(store.max_offset, 150)

    def test_asked_for_once(self) -> None:
        """However many messages wait for a flush, it is asked for once."""
        for delay in (FLUSH_DELAY, 0.0):
            self.make(unflush_threshold=1000, flush_delay=delay)
            schedule = CountingSchedule(self.clock)
            self.partition.environment = replace(self.partition.environment, schedule=schedule)
            store = self.partition.open()
            for asked in (1, 2):
                self.append(store, 20)
                self.assertEqual(schedule.asked, asked)
                store.flush()
                schedule.elapse()

    def test_a_reader_comes(self) -> None:
        """A put just before a get begins to wait is not left to the next round."""
        store = self.make(unflush_threshold=1000, flush_delay=FLUSH_DELAY)
        self.append(store)
        self.clock.advance(FIRST_DELAY)
        self.append(store)
        self.clock.advance(FIRST_DELAY)
        self.assertEqual(store.max_offset, 30)
        ends: list[int] = []
        store.await_flush(lambda store: ends.append(store.max_offset))
        self.clock.advance(0)
        self.assertEqual(ends, [60])


class CountingSchedule(FlushSchedule):
    """
    Counts the requests. :ivar asked: flushes.

    :ivar asked: flushes.
    """

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.asked = 0
        self._clock = clock
        self.rounds.join, self._join = self._count_join, self.rounds.join  # type: ignore

    def _count_join(self, *arguments: Any) -> None:
        self.asked += 1
        self._join(*arguments)

    def request(self, flush: Any, delay: float) -> None:
        """See ``FlushSchedule``."""
        self.asked += 1
        super().request(flush, delay)

    def elapse(self) -> None:
        """Run all requested flushes."""
        self._clock.advance(10**10)


class FaultTests(AgainTestCase):
    """A fault is logged when it begins and when it is over; its counts are reset."""

    def test_group_commit_fails_and_works(self) -> None:
        """One line for each change, none for each message."""
        store = self.make(unflush_threshold=0)
        for faults in (1, 2):
            self.disk.broken.add("sync")
            for _ in range(3):
                self.assertEqual(store.append([record(30)]).state, FAILED)
            self.assertEqual(self.logged("could not be flushed"), faults)
            self.assertEqual(self.logged("can be flushed again"), faults - 1)
            self.disk.broken.clear()
            self.append(store, 3)
            self.assertEqual(self.logged("can be flushed again"), faults)
        self.assertEqual(len(self.lines), 4)

    def test_flush_fails_and_works(self) -> None:
        """One line for each change, none for each flush; the file is named."""
        store = self.make()
        for faults in (1, 2):
            self.append(store)
            self.disk.broken.add("sync")
            for _ in range(3):
                store.flush()
            self.assertEqual(self.logged("could not be flushed"), faults)
            self.assertEqual(self.logged("can be flushed again"), faults - 1)
            self.disk.broken.clear()
            for _ in range(3):
                store.flush()
            self.assertEqual(self.logged(f"{store.last.path} can be flushed again"), faults)
        self.assertEqual(len(self.lines), 4)

    def test_flush_fails_twice_before_the_retry(self) -> None:
        """Only one retry is planned."""
        store = self.make()
        self.append(store)
        self.disk.broken.add("sync")
        store.flush()
        store.flush()
        self.disk.calls.clear()
        self.clock.pump([0.5] * 5)
        self.assertEqual(self.disk.calls.count("sync"), 1)

    def test_a_roll_fails_after_a_flush(self) -> None:
        """Messages that were flushed do not count among those that wait."""
        store = self.make(max_segment_size=150)
        self.append(store, 4)
        self.assertEqual(store.max_offset, 120)
        self.disk.broken.add("sync_all")
        self.append(store)
        self.assertEqual(self.logged("1 acknowledged messages wait"), 1)
        self.append(store)

    def test_a_roll_fails_before_any_flush(self) -> None:
        """Just those that wait are counted."""
        store = self.make(max_segment_size=60, unflush_threshold=1000)
        self.disk.broken.add("sync_all")
        self.append(store, 2)
        self.assertEqual(self.logged("2 acknowledged messages wait"), 1)

    def test_threshold_after_a_roll(self) -> None:
        """A roll flushes everything: the threshold counts from there."""
        store = self.make(max_segment_size=90)
        self.append(store, 3)
        self.assertEqual(store.max_offset, 90)
        self.append(store)
        self.assertEqual(store.max_offset, 90)

    def test_rolls_fail_and_work(self) -> None:
        """One line for each time that it begins, one when it is over."""
        store = self.make(max_segment_size=60, unflush_threshold=1000)
        for faults in (1, 2):
            self.disk.broken.add("create")
            self.append(store, 2)
            for _ in range(3):
                self.clock.advance(1)
                self.append(store)
            self.assertEqual(self.logged("Could not roll"), faults)
            self.assertEqual(self.logged("work again"), faults - 1)
            self.disk.broken.clear()
            self.clock.advance(1)
            self.append(store)
            self.assertEqual(self.logged("work again"), faults)

    def test_directories_after_a_roll_that_fails(self) -> None:
        """They are synced once, though the segment stays."""
        store = self.make(max_segment_size=60, unflush_threshold=1000)
        self.disk.broken.add("create")
        self.append(store, 2)
        self.append(store)
        store.flush()
        self.assertEqual(store.max_offset, 90)
        self.assertEqual(self.disk.calls.count("sync_directory"), 2)

    def test_damage_is_said_once(self) -> None:
        """One line, not one for each refused put."""
        store = self.make()
        self.disk.room = 45
        self.disk.broken.add("truncate")
        put(store, record(30), record(30))
        store.commit()
        for _ in range(3):
            self.assertRaises(StoreDamaged, store.open_batch)
        self.assertEqual(self.logged("could not be cut"), 1)


class CloseTests(AgainTestCase):
    """A store ends once, from every state."""

    def test_everybody_who_waits_for_the_end(self) -> None:
        """All callers of ``close`` are called back, later ones at once."""
        store = self.make()
        self.append(store)
        self.threads.hold()
        first, second = store.close(), store.close()
        self.assertNoResult(first)
        self.threads.release()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_twice_with_damage(self) -> None:
        """A closed file is not used."""
        store = self.make()
        self.disk.room = 45
        self.disk.broken.add("truncate")
        put(store, record(30), record(30))
        store.commit()
        self.successResultOf(store.close())
        calls = list(self.disk.calls)
        self.successResultOf(store.close())
        self.assertEqual(self.disk.calls, calls)

    def test_flushes_that_are_due_after_the_end(self) -> None:
        """Neither the interval nor a retry uses closed files."""
        store = self.make(unflush_interval=INTERVAL * 1000)
        self.append(store)
        self.disk.broken.add("sync")
        pending = len(self.clock.getDelayedCalls())
        self.successResultOf(store.close())
        self.assertEqual(len(self.clock.getDelayedCalls()), pending)
        calls, lines = list(self.disk.calls), list(self.lines)
        self.clock.pump([1.0] * 100)
        self.assertEqual((self.disk.calls, self.lines), (calls, lines))

    def close_full(self, room: int | None) -> tuple[Any, int]:
        """Close a store whose segment is full, with a batch that waits for a failing flush; the
        disk has ``room`` left. Returns the batch, and the number of files."""
        store = self.make(max_segment_size=60, unflush_threshold=1000)
        self.threads.hold()
        self.append(store)
        store.flush()
        self.append(store)
        batch = put(store, record(30, 2), record(30, 3))
        store.commit()
        self.assertEqual(batch.state, PENDING)
        closed = store.close()
        self.disk.broken |= {"sync", "truncate"}
        self.disk.room = room
        self.threads.release()
        self.successResultOf(closed)
        return batch, len(self.partition.files())

    def test_full(self) -> None:
        """The waiting records are stored in the segment that cannot be rolled."""
        batch, files = self.close_full(None)
        self.assertEqual((batch.state, files), (STORED, 1))
        self.disk.broken.clear()
        self.assertEqual(self.partition.open().max_offset, 120)

    def test_full_and_damaged(self) -> None:
        """Records that fit are stored, the others are refused; the next start cuts the rest."""
        batch, files = self.close_full(40)
        self.assertEqual((batch.state, batch.stored_end - batch.offset, files), (FAILED, 30, 1))
        self.assertEqual(len(self.partition.read(N0)), 100)
        self.disk.broken.clear()
        self.disk.room = None
        self.assertEqual(self.partition.open().max_offset, 90)
