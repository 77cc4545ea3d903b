"""Batches, barriers, and batches that cannot be committed."""

from __future__ import annotations

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis import gathering, lone
from metamorphosis.threads import SynchronousThreads
from metamorphosis.zookeeper import commits
from metamorphosis.zookeeper.acl import OPEN
from metamorphosis.zookeeper.commits import Commits
from metamorphosis.zookeeper.sessions import Sessions
from metamorphosis.zookeeper.tree import Tree
from tests.support.turnclock import TurnClock
from tests.support.zookeeperserved import MemoryStorage


class Waiter:
    """Notes what it was told."""

    def __init__(self) -> None:
        self.durable: list[int] = []

    def release(self, durable: int) -> None:
        """See ``commits.Waiter``."""
        self.durable.append(durable)


class CommitsCase(SynchronousTestCase):
    """One tree, one disk."""

    gather = False

    def setUp(self) -> None:
        self.tree = Tree()
        self.tree.take_changes()
        self.storage = MemoryStorage()
        self.threads = SynchronousThreads()
        self.clock = TurnClock()
        self.failures: list[BaseException] = []
        self.commits = Commits(
            self.tree,
            Sessions(),
            self.storage,  # type: ignore[arg-type]  # its double
            self.threads,
            self.clock,
            self.failures.append,
            self.gather,
        )

    def change(self, path: str) -> Waiter:
        """Create a node; a waiter for its batch."""
        self.tree.begin(0)
        self.tree.create(path, b"", OPEN)
        self.commits.changed()
        return self.wait()

    def wait(self) -> Waiter:
        """A waiter for the present barrier."""
        waiter = Waiter()
        self.commits.wait(waiter)
        return waiter

    def turn(self) -> None:
        """The end of a turn of the reactor."""
        self.clock.advance(0)


class CommitsTests(CommitsCase):
    """Batches one after the other."""

    def test_nothing_to_wait_for(self) -> None:
        """Without a change barrier and disk are level, and nothing is written."""
        self.assertEqual(self.commits.barrier, self.commits.durable)
        self.turn()
        self.assertEqual(self.storage.batches, [])

    def test_change_waits_for_the_disk(self) -> None:
        """From the change until its batch is committed the barrier is ahead."""
        waiter = self.change("/a")
        self.assertGreater(self.commits.barrier, self.commits.durable)
        self.threads.hold()
        self.turn()
        self.assertEqual((waiter.durable, self.storage.batches), ([], []))
        self.threads.release()
        self.assertEqual(waiter.durable, [self.commits.barrier])
        self.assertEqual(self.storage.batches, [(["/", "/a"], [], 1)])
        self.assertEqual(self.commits.barrier, self.commits.durable)

    def test_turn_is_one_batch(self) -> None:
        """Everything that changes in a turn is committed together, once."""
        waiters = [self.change(f"/{name}") for name in "abc"]
        self.turn()
        self.assertEqual(self.storage.batches, [(["/", "/a", "/b", "/c"], [], 3)])
        self.assertEqual([waiter.durable for waiter in waiters], [[1]] * 3)

    def test_next_batch_collects(self) -> None:
        """What changes during a commit is the next batch, whose waiters wait for that one."""
        first = self.change("/a")
        self.threads.hold()
        self.turn()
        second, third = self.change("/b"), self.change("/c")
        self.assertEqual((self.clock.calls, self.threads.held), ([], 1), "one commit at a time")
        self.threads.release_one()
        self.assertEqual((first.durable, second.durable), ([1], []))
        self.turn()
        self.threads.release_one()
        self.assertEqual((second.durable, third.durable), ([2], [2]))
        self.assertEqual([batch[0] for batch in self.storage.batches][1], ["/", "/b", "/c"])

    def test_reader_during_a_commit(self) -> None:
        """A read during a commit may see the batch, and so waits for it."""
        self.change("/a")
        self.threads.hold()
        self.turn()
        reader = self.wait()
        self.assertGreater(self.commits.barrier, self.commits.durable)
        self.threads.release()
        self.assertEqual(reader.durable, [1])

    def test_change_by_who_is_released(self) -> None:
        """A change that a release causes is a batch of its own, written once."""
        outer = self

        class Changing(Waiter):
            """Changes something as soon as it is released."""

            def release(self, durable: int) -> None:
                """See ``commits.Waiter``."""
                super().release(durable)
                outer.change("/b")

        self.change("/a")
        self.commits.wait(Changing())
        self.turn()
        self.turn()
        self.assertEqual([batch[2] for batch in self.storage.batches], [1, 2])

    def failed(self, waiter: Waiter) -> None:
        """The failure is reported once, no waiting client is released, nothing more is written."""
        self.assertEqual(len(self.failures), 1)
        self.storage.faults.clear()
        self.change("/later")
        self.turn()
        self.assertEqual((waiter.durable, self.storage.batches), ([], []))

    def test_failed_write(self) -> None:
        """A batch that cannot be written releases no waiting client, and is the last."""
        self.storage.faults["write"] = OSError("full")
        waiter = self.change("/a")
        self.turn()
        self.failed(waiter)

    def test_failed_commit(self) -> None:
        """Nor does one that cannot be committed, or those after it."""
        self.storage.faults["commit"] = OSError("full")
        waiter = self.change("/a")
        self.threads.hold()
        self.turn()
        behind = self.change("/b")
        self.threads.release()
        self.failed(waiter)
        self.assertEqual(behind.durable, [])

    def test_stop(self) -> None:
        """After a stop no client is released and nothing is written."""
        waiter = self.change("/a")
        self.commits.stop()
        self.turn()
        self.assertEqual((waiter.durable, self.storage.batches), ([], []))
        self.assertEqual(self.failures, [])

    # A lock of another process

    def test_lock(self) -> None:
        """A batch waits for its end in the worker, with all that changes meanwhile."""
        self.storage.locked = 0.5
        self.threads.hold()
        first = self.change("/a")
        self.turn()
        self.assertEqual(self.commits.committing, 1, "sessions do not expire meanwhile")
        second = self.change("/b")
        self.turn()
        self.assertEqual((self.threads.held, self.clock.calls), (1, []))
        self.threads.release()
        self.assertEqual((first.durable, second.durable), ([1], [1]))
        self.assertEqual(self.storage.batches, [(["/", "/a", "/b"], [], 2)])
        self.assertEqual(self.failures, [])

    def test_long_lock_is_logged(self) -> None:
        """When it ends, once; a short one is not worth a line."""
        logged: list[str] = []

        def observe(event: LogEvent) -> None:
            logged.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        for seconds in (0.9, 2.5):
            self.storage.locked = seconds
            self.change(f"/{seconds}")
            self.turn()
        self.assertEqual(
            logged, ["Another process had a lock on memory for 2.5 s; changes waited for it"]
        )

    def test_lock_without_end(self) -> None:
        """It counts as a failure of the disk."""
        self.storage.locked = 1.0
        waiter = self.change("/a")
        self.threads.hold()
        self.turn()
        self.storage.faults["begin"] = OSError("locked")
        self.threads.release()
        self.failed(waiter)

    def test_failed_begin(self) -> None:
        """So does a transaction that cannot be opened."""
        self.storage.faults["begin"] = OSError("I/O error")
        waiter = self.change("/a")
        self.turn()
        self.failed(waiter)

    def test_failed_write_behind_a_lock(self) -> None:
        """And a batch that cannot be written when the lock is gone."""
        self.storage.locked = 1.0
        self.storage.faults["write"] = OSError("full")
        waiter = self.change("/a")
        self.turn()
        self.failed(waiter)

    def test_stop_while_locked(self) -> None:
        """Nothing is written when the lock goes."""
        self.storage.locked = 1.0
        self.threads.hold()
        waiter = self.change("/a")
        self.turn()
        self.commits.stop()
        self.threads.release()
        self.assertEqual((waiter.durable, self.storage.batches, self.failures), ([], [], []))

    # Between batches

    def test_tidy(self) -> None:
        """It runs when nothing else does, and only if there is something to do."""
        self.commits.tidy()
        self.assertEqual(self.storage.tidied, 0)
        self.storage.untidy = True
        self.commits.tidy()
        self.assertEqual(self.storage.tidied, 1)

    def test_change_during_tidy(self) -> None:
        """It is written as soon as that is done."""
        self.storage.untidy = True
        self.threads.hold()
        self.commits.tidy()
        waiter = self.change("/a")
        self.turn()
        self.assertEqual((self.threads.held, self.storage.tidied), (1, 0))
        self.threads.release()
        self.assertEqual((self.storage.tidied, waiter.durable), (1, [1]))

    def test_tidy_under_load(self) -> None:
        """What is asked for in the middle of a batch comes before the next one, and once."""
        self.storage.untidy = True
        self.threads.hold()
        self.change("/a")
        self.turn()
        self.commits.tidy()
        self.commits.tidy()
        waiter = self.change("/b")
        self.threads.release_one()
        self.assertEqual((self.storage.tidied, len(self.storage.batches)), (0, 1))
        self.threads.release_one()
        self.assertEqual((self.storage.tidied, len(self.storage.batches)), (1, 1))
        self.threads.release()
        self.assertEqual((self.storage.tidied, waiter.durable), (1, [2]))

    def test_failed_tidy(self) -> None:
        """A disk that fails is one that fails."""
        self.storage.untidy = True
        self.storage.faults["tidy"] = OSError("I/O error")
        self.commits.tidy()
        self.failed(Waiter())

    def test_stop_during_tidy(self) -> None:
        """Nothing is written afterwards."""
        self.storage.untidy = True
        self.threads.hold()
        self.commits.tidy()
        waiter = self.change("/a")
        self.commits.stop()
        self.threads.release()
        self.assertEqual((waiter.durable, self.storage.batches), ([], []))


class GatheringTests(CommitsCase):
    """The batch after a commit waits for the clients that were answered."""

    gather = True

    def setUp(self) -> None:
        """Three clients were answered, after a commit that took as long as the test says."""
        super().setUp()
        self.threads.hold()

    def answer(self, count: int, seconds: float = 2e-3) -> None:
        """``count`` changes are committed and answered, and the replies have left."""
        self.storage.seconds = seconds
        waiters = [self.change(f"/first{number}") for number in range(count)]
        self.turn()
        self.threads.release_one()
        self.assertEqual([waiter.durable for waiter in waiters], [[1]] * count)
        self.turn()

    def test_as_many_as_were_answered(self) -> None:
        """The third change completes the batch, before any time has passed."""
        self.answer(3)
        for name in "ab":
            self.change(f"/{name}")
            self.turn()
            self.assertEqual(self.threads.held, 0)
        self.change("/c")
        self.turn()
        self.threads.release_one()
        self.assertEqual(self.storage.batches[1][0], ["/", "/a", "/b", "/c"])

    def test_with_those_that_came_during_the_commit(self) -> None:
        """They do not count for those that were answered."""
        self.storage.seconds = 2e-3
        first = self.change("/a"), self.change("/b")
        self.turn()
        self.change("/c")
        self.threads.release_one()
        self.assertEqual([waiter.durable for waiter in first], [[1], [1]])
        self.change("/d")
        self.turn()
        self.assertEqual(self.threads.held, 0)
        self.change("/e")
        self.turn()
        self.assertEqual(self.threads.held, 1)

    def test_quiet(self) -> None:
        """No change for 60 us: what there is, is written."""
        self.answer(3, seconds=1.0)
        self.change("/a")
        self.turn()
        self.assertEqual(self.threads.held, 0)
        self.clock.advance(gathering.QUIET_SECONDS * 1.1)
        self.assertEqual(self.threads.held, 1)

    def test_nothing_comes(self) -> None:
        """Nothing is written, and the next change is committed in its turn."""
        self.answer(3)
        self.clock.advance(0.001)
        self.assertEqual(self.clock.calls, [])
        self.change("/a")
        self.turn()
        self.assertEqual(self.threads.held, 1)

    def test_tidy_meanwhile(self) -> None:
        """It comes between the two batches."""
        self.answer(3)
        self.storage.untidy = True
        self.commits.tidy()
        self.change("/a")
        self.clock.advance(0.001)
        self.threads.release_one()
        self.assertEqual((self.storage.tidied, len(self.storage.batches)), (1, 1))
        self.threads.release_one()
        self.assertEqual(len(self.storage.batches), 2)

    def test_stop_meanwhile(self) -> None:
        """Nothing is written any more."""
        self.answer(3)
        waiter = self.change("/a")
        self.commits.stop()
        self.clock.advance(0.001)
        self.assertEqual((self.threads.held, waiter.durable), (0, []))

    # Clients that all wait

    def test_alone(self) -> None:
        """From the second batch of a single client on the reactor commits."""
        self.answer(1, seconds=100e-6)
        for number in range(3):
            waiter = self.change(f"/{number}")
            self.turn()
            self.assertEqual((len(waiter.durable), self.threads.held), (1, 0))

    def batch(self, count: int) -> int:
        """The next batch has ``count`` changes; returns how many the worker commits."""
        for _ in range(count):
            self.change(f"/after{self.tree.zxid}")
        while self.clock.calls:
            self.clock.advance(0.001)
        held = self.threads.held
        if held:
            self.threads.release_one()
        return held

    def test_everyone_waits(self) -> None:
        """A batch that has as many changes as the one before is the reactor's; with fewer the
        worker commits, because those who are missing may come meanwhile."""
        self.answer(4, seconds=100e-6)
        found = [self.batch(count) for count in (4, 5, 4, 4, 1, 1)]
        self.assertEqual(found, [0, 0, 1, 0, 1, 0])

    def test_many_changes(self) -> None:
        """A large batch, which takes long to write, is the worker's."""
        self.answer(4, seconds=100e-6)
        most = commits.REACTOR_CHANGES
        self.assertEqual([self.batch(count) for count in (most, most + 1, most)], [0, 1, 1])

    def test_alone_on_a_disk_that_is_quick_enough(self) -> None:
        """The reactor commits."""
        self.answer(1, seconds=lone.QUICK_SECONDS * 0.99)
        waiter = self.change("/a")
        self.turn()
        self.assertEqual((len(waiter.durable), self.threads.held), (1, 0))

    def test_alone_on_a_slow_disk(self) -> None:
        """The worker commits, so that a disk that is slow never has the reactor."""
        self.answer(1, seconds=lone.QUICK_SECONDS * 1.01)
        for number in range(2):
            waiter = self.change(f"/{number}")
            self.turn()
            self.assertEqual((waiter.durable, self.threads.held), ([], 1))
            self.threads.release_one()

    def test_failure_of_the_reactors_commit(self) -> None:
        """It is reported like one of the worker, and nothing more is written."""
        self.answer(1, seconds=100e-6)
        error = self.storage.faults["commit"] = OSError("full")
        waiter = self.change("/a")
        self.turn()
        self.assertEqual((self.failures, waiter.durable, self.threads.held), ([error], [], 0))
        self.storage.faults.clear()
        self.change("/b")
        self.turn()
        self.assertEqual(len(self.storage.batches), 1)
