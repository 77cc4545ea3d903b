"""When a group commit is written after the last flush, and which thread flushes it."""

from __future__ import annotations

import errno
from dataclasses import replace
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis import gathering, lone
from metamorphosis.store import flushing
from metamorphosis.store.batch import FAILED, PENDING, STORED, Batch
from tests.support.partitions import Partition, put, record

QUICK = 100e-6
SLOW = 10e-3


class GatheringCase(SynchronousTestCase):
    """One partition; each flush takes the time that the test says."""

    gather = True

    def setUp(self) -> None:
        """Every flush in a thread is held."""
        self.flush_seconds = QUICK
        self.now = 0.0
        self.patch(flushing, "time", SimpleNamespace(monotonic=self.monotonic))
        self.partition = Partition(self.mktemp(), gather=self.gather, unflush_threshold=0)
        self.store = self.partition.open()
        self.clock = self.partition.clock
        self.threads = self.partition.threads
        self.threads.hold()

    def monotonic(self) -> float:
        """Called before and after each flush."""
        self.now += self.flush_seconds
        return self.now

    def puts(self, count: int) -> Batch:
        """This number of records in one turn."""
        batch = put(self.store, *(record(30, number) for number in range(count)))
        self.store.commit()
        return batch

    def written(self) -> int:
        """Records in the file."""
        return len(self.partition.read()) // 30


class WaitTests(GatheringCase):
    """The next batch waits for the answered clients."""

    def flush(self, count: int) -> None:
        """``count`` puts are flushed and answered, and the replies have left."""
        batch = self.puts(count)
        self.threads.release_one()
        self.assertIs(batch.state, STORED)
        self.clock.advance(0)

    def test_as_many_as_were_answered(self) -> None:
        """Three replies have left: the third put completes the batch."""
        self.flush(3)
        for wanted in (3, 3):
            self.puts(1)
            self.clock.advance(0)
            self.assertEqual((self.written(), self.threads.held), (wanted, 0))
        self.puts(1)
        self.clock.advance(0)
        self.assertEqual((self.written(), self.threads.held), (6, 1))

    def test_with_those_that_came_during_the_flush(self) -> None:
        """They do not count for those that were answered."""
        self.puts(2)
        behind = self.puts(3)
        self.threads.release_one()
        self.clock.advance(0)
        self.assertEqual((self.written(), behind.state), (2, PENDING))
        self.puts(2)
        self.clock.advance(0)
        self.assertEqual((self.written(), self.threads.held), (7, 1))

    def test_quiet(self) -> None:
        """No put for 60 us: what there is, is written; each put begins that time anew."""
        self.flush_seconds = SLOW
        self.flush(10)
        self.puts(1)
        self.clock.advance(gathering.QUIET_SECONDS * 0.9)
        self.puts(1)
        self.clock.advance(gathering.QUIET_SECONDS * 0.9)
        self.assertEqual(self.written(), 10)
        self.clock.advance(gathering.QUIET_SECONDS * 1.1)
        self.assertEqual((self.written(), self.threads.held), (12, 1))

    def test_replies_that_take_their_time(self) -> None:
        """The time until the replies have left, and the sockets are read, does not count."""
        batch = self.puts(3)
        self.threads.release_one()
        self.assertIs(batch.state, STORED)
        self.clock.advance(0.01)
        self.puts(2)
        self.clock.advance(0)
        self.assertEqual((self.written(), self.threads.held), (3, 0))
        self.puts(1)
        self.clock.advance(0)
        self.assertEqual((self.written(), self.threads.held), (6, 1))

    def test_all_come_at_once(self) -> None:
        """They are written by the first look, without another turn."""
        batch = self.puts(3)
        self.threads.release_one()
        self.assertIs(batch.state, STORED)
        self.puts(3)
        self.clock.advance(0)
        self.assertEqual((self.written(), self.threads.held), (6, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_quarter_of_the_flush(self) -> None:
        """However many come: no longer."""
        self.flush_seconds = 4 * QUICK
        self.flush(100)
        for _ in range(2):
            self.puts(1)
            self.clock.advance(QUICK * 0.4)
            self.assertEqual(self.written(), 100)
        self.puts(1)
        self.clock.advance(QUICK * 0.4)
        self.assertEqual(self.written(), 103)

    def test_nothing_comes(self) -> None:
        """Then nothing is written, and the next put is written in its turn."""
        self.flush(3)
        self.clock.advance(0.001)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.puts(1)
        self.assertEqual((self.written(), self.threads.held), (4, 1))

    def test_alone(self) -> None:
        """A single client's batch is written at once."""
        self.flush(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        """A store that is closed meanwhile stores and answers what has gathered."""
        self.flush(3)
        batch = self.puts(1)
        closed = self.store.close()
        self.assertNoResult(closed)
        self.clock.advance(0.001)
        self.threads.release()
        self.successResultOf(closed)
        self.assertIs(batch.state, STORED)


class LoneTests(GatheringCase):
    """A client that is alone, on a disk that is quick."""

    def test_flushed_by_the_reactor(self) -> None:
        """From the second batch of one record on, until there is another."""
        self.puts(1)
        self.assertEqual(self.threads.held, 1)
        self.threads.release_one()
        for _ in range(3):
            batch = self.puts(1)
            self.assertEqual((batch.state, self.threads.held), (STORED, 0))
        self.puts(2)
        self.assertEqual(self.threads.held, 1)
        self.threads.release_one()
        for _ in range(2):
            self.clock.advance(0.001)
        self.puts(1)
        self.assertEqual(self.threads.held, 1)

    def test_slow_disk(self) -> None:
        """The last flush took more than a millisecond: a thread flushes until it is quick."""
        self.flush_seconds = lone.QUICK_SECONDS * 1.01
        for _ in range(3):
            self.puts(1)
            self.assertEqual(self.threads.held, 1)
            self.threads.release_one()
        self.flush_seconds = QUICK
        self.puts(1)
        self.threads.release_one()
        self.assertIs(self.puts(1).state, STORED)

    def test_several_devices(self) -> None:
        """Writes run apart, and so do all flushes: a disk that hangs must not have the reactor."""
        partition = Partition(self.mktemp(), gather=True, unflush_threshold=0)
        partition.environment = replace(partition.environment, apart=True)
        partition.threads.hold()
        store = partition.open()
        for _ in range(3):
            put(store, record(30))
            store.commit()
            for _ in ("write", "sync"):
                self.assertEqual(partition.threads.held, 1)
                partition.threads.release_one()
            self.assertEqual(partition.threads.held, 0)

    def test_failure(self) -> None:
        """The batch is refused and taken back; the next one is tried."""
        self.puts(1)
        self.threads.release_one()
        self.partition.disk.broken.add("sync")
        refused = self.puts(1)
        self.assertEqual((refused.state, self.written()), (FAILED, 1))
        self.assertEqual(getattr(refused.error, "errno", None), errno.EIO)
        self.partition.disk.broken.clear()
        self.assertIs(self.puts(1).state, STORED)
        self.assertEqual(self.written(), 2)


class WithoutTests(GatheringCase):
    """Where it is not asked for, a batch is written at once, and a thread flushes."""

    gather = False

    def test_at_once(self) -> None:
        """As before."""
        for _ in range(3):
            self.puts(1)
            self.assertEqual(self.threads.held, 1)
            self.threads.release_one()
        self.puts(3)
        self.threads.release_one()
        self.puts(1)
        self.assertEqual((self.written(), self.threads.held), (7, 1))
