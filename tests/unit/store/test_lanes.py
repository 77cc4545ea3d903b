"""Disks that hang: only their requests wait, and not for ever."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config.model import BrokerConfig, TopicConfig
from metamorphosis.errors import StoreClosed, StoreError, StoreStalled
from metamorphosis.store.batch import FAILED, PENDING, STORED, Batch
from metamorphosis.store.disk import Disk
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.lane import STALL_SECONDS, Lane
from metamorphosis.store.lanes import Lanes, device_of
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.messagestores import MessageStores
from metamorphosis.threads import SynchronousThreads
from tests.support.partitions import put, record, stored


class CountingDisk(Disk):
    """Counts calls of the reactor thread and of workers."""

    def __init__(self) -> None:
        self.in_worker = False
        self.on_reactor: list[str] = []

    def _call(self, name: str) -> None:
        if not self.in_worker:
            self.on_reactor.append(name)

    def write(self, fd: int, data: bytes | memoryview, position: int) -> int:
        """See ``Disk``."""
        self._call("write")
        return super().write(fd, data, position)

    def truncate(self, fd: int, size: int) -> None:
        """See ``Disk``."""
        self._call("truncate")
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        """See ``Disk``."""
        self._call("sync")


class Threads(SynchronousThreads):
    """Workers that tell the disk that they are running."""

    def __init__(self, disk: CountingDisk) -> None:
        super().__init__()
        self._disk = disk

    def submit(self, work: Callable[[], Any], done: Callable[[Any, Any], None]) -> None:
        """See ``IWorkerThreads``."""

        def marked() -> Any:
            self._disk.in_worker = True
            try:
                return work()
            finally:
                self._disk.in_worker = False

        super().submit(marked, done)

    def go_on_with_the_last(self) -> None:
        """Run the call that was held last; those before it hang."""
        assert self._held is not None
        self._run(self._held.pop())


class LanesTestCase(SynchronousTestCase):
    """Topics ``one`` and ``two`` on two devices; the disk of ``one`` hangs when its threads are
    held."""

    def setUp(self) -> None:
        """No disk hangs."""
        self.clock = Clock()
        self.clock.advance(1385000000)
        self.disk = CountingDisk()
        self.made: list[Threads] = []
        self.same_device = self.apart = False

    def make(self) -> Threads:
        """Threads of a lane."""
        self.made.append(Threads(self.disk))
        return self.made[-1]

    def stores(self, threshold: int) -> tuple[MessageStores, MessageStore, MessageStore]:
        """Both stores, open, in new directories."""
        base = os.path.abspath(self.mktemp())
        os.mkdir(base)
        paths = [os.path.join(base, name) for name in ("one", "two")]
        for path in paths:
            os.mkdir(path)
        devices = dict(zip(paths, (1, 1 if self.same_device else 2)))
        topics = {
            os.path.basename(path): TopicConfig(os.path.basename(path), data_path=path)
            for path in paths
        }
        self.config = BrokerConfig(0, data_path=paths[0], topics=topics)
        environment = StoreEnvironment(
            threads=SynchronousThreads(),
            clock=self.clock,
            schedule=FlushSchedule(self.clock),
            disk=self.disk,
        )
        self.made.clear()
        stores = MessageStores(self.config, environment, make_threads=self.make)
        stores._lanes = lanes = Lanes(environment, self.make, devices.__getitem__, self.apart)
        lanes.on_stall = stores._stalled
        self.successResultOf(stores.load())
        opened = []
        for name in ("one", "two"):
            topic = TopicConfig(
                name, data_path=self.config.topics[name].data_path, unflush_threshold=threshold
            )
            opened.append(stores.get_or_create(topic, 0))
        for store in opened:
            self.add(store, record(30))
        self.pass_time(0.1)
        self.disk.on_reactor.clear()
        return stores, opened[0], opened[1]

    def add(self, store: MessageStore, *records: bytes) -> Batch:
        """Records, and the end of the turn."""
        batch = put(store, *records)
        store.commit()
        return batch

    def pass_time(self, seconds: float) -> None:
        """Advance the clock, with all due calls."""
        self.clock.pump([seconds / 10] * 10)


class HungDiskTests(LanesTestCase):
    """In both modes."""

    def test_two_devices_are_said(self) -> None:
        """The start logs the two devices."""
        with capturedLogs() as lines:
            self.stores(0)
        self.assertIn("Data paths on 2 devices", " ".join(map(formatEvent, lines)))

    def test_other_device_is_served(self) -> None:
        """A hanging write, flush or round delays only its own device."""
        for threshold in (0, 1000):
            _, one, two = self.stores(threshold)
            self.made[0].hold()
            waiting = self.add(one, record(30, 2))
            self.assertEqual(waiting.state, PENDING)
            for number in range(20):
                self.assertEqual(self.add(two, record(30, number)).state, STORED)
                self.pass_time(0.1)
            self.assertEqual(two.max_offset, 30 * 21)
            self.assertEqual((waiting.state, stored(one)), (PENDING, record(30)))

    def test_reactor_never_writes(self) -> None:
        """Only workers write and flush."""
        for threshold in (0, 1000):
            _, one, _ = self.stores(threshold)
            for number in range(20):
                self.add(one, record(30, number))
                self.pass_time(0.1)
            self.assertEqual((self.disk.on_reactor, one.max_offset), ([], 30 * 21))

    def test_short_pause_is_waited_for(self) -> None:
        """Puts during a short hang are stored, in order, and none is refused."""
        for threshold in (0, 1000):
            _, one, _ = self.stores(threshold)
            self.made[0].hold()
            batches = [self.add(one, record(30, number)) for number in range(5)]
            self.pass_time(STALL_SECONDS / 2)
            self.assertEqual({batch.state for batch in batches}, {PENDING})
            self.made[0].release()
            self.pass_time(0.1)
            self.assertEqual({batch.state for batch in batches}, {STORED})
            self.assertEqual(one.max_offset, 180)

    def test_long_hang(self) -> None:
        """Puts that wait too long are refused, and new ones at once. When the disk answers, refused
        records are not in the log, acknowledged ones are, and puts are accepted."""
        for threshold in (0, 1000):
            stores, one, _ = self.stores(threshold)
            self.made[0].hold()
            flying, behind = self.add(one, record(30, 2)), self.add(one, record(40, 3))
            self.pass_time(STALL_SECONDS + 2)
            self.assertEqual((flying.state, behind.state), (FAILED, FAILED))
            self.assertIsInstance(flying.error, StoreStalled)
            error = self.assertRaises(StoreStalled, one.open_batch)
            self.assertIn("does not answer", str(error))
            topic = self.config.topics["one"]
            self.assertRaises(StoreStalled, stores.get_or_create, topic, 1)
            self.made[0].release()
            self.assertEqual(os.path.getsize(one.last.path), 30)
            again = self.add(one, record(50, 4))
            self.pass_time(0.1)
            self.assertEqual((again.state, again.offset), (STORED, 30))
            self.assertEqual(stored(one), record(30) + record(50, 4))
            self.assertEqual(os.path.getsize(one.last.path), 80)

    def test_hung_flush_of_acknowledged_messages(self) -> None:
        """In the default mode records that were acknowledged before the hang stay, whatever is
        refused later."""
        _, one, _ = self.stores(1000)
        acknowledged = self.add(one, record(30, 2))
        self.made[0].hold()
        one.flush()
        refused = self.add(one, record(30, 3))
        self.pass_time(STALL_SECONDS + 2)
        self.assertEqual((acknowledged.state, refused.state), (STORED, FAILED))
        self.made[0].release()
        self.pass_time(3)
        self.assertEqual(stored(one), record(30) + record(30, 2))

    def test_hung_flush_in_group_commit(self) -> None:
        """The flush ends later, but its records were refused: they are removed."""
        _, one, _ = self.stores(0)
        self.made[0].hold()
        refused = self.add(one, record(30, 2))
        self.made[0].release_one()  # it is written
        self.assertEqual((os.path.getsize(one.last.path), self.made[0].held), (60, 1))
        self.pass_time(STALL_SECONDS + 2)
        self.assertEqual(refused.state, FAILED)
        self.made[0].release()
        self.assertEqual((stored(one), os.path.getsize(one.last.path)), (record(30), 30))
        self.assertEqual(self.add(one, record(50, 4)).state, STORED)

    def test_stop(self) -> None:
        """A stop does not wait for a hanging disk, and stores the records of the others."""
        for threshold in (0, 1000):
            for before in (True, False):
                stores, one, two = self.stores(threshold)
                self.made[0].hold()
                self.add(one, record(30, 2))
                self.add(two, record(30, 2))
                if before:
                    self.pass_time(STALL_SECONDS + 2)
                closed = stores.close()
                self.pass_time(STALL_SECONDS + 2)
                self.successResultOf(closed)
                self.assertEqual(two.max_offset, 60)

    def test_no_timer_is_left(self) -> None:
        """A stop with messages that were to be flushed later ends the timers of each device."""
        stores, one, two = self.stores(1000)
        for store in (one, two):
            self.add(store, record(30, 2))
        self.assertNotEqual([], self.clock.getDelayedCalls())
        self.successResultOf(stores.close())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_refusal_beside_a_running_write(self) -> None:
        """A flush fails while a write runs, and refuses what collects: the next record begins
        behind the one that is being written."""
        _, one, _ = self.stores(1)
        threads = self.made[0]
        threads.hold()
        for number in range(2):
            self.add(one, record(30, number))
            threads.release_one()
        flying = self.add(one, record(30, 2))
        refused = self.add(one, record(30, 3))
        self.assertEqual(2, threads.held)

        def sync(fd: int) -> None:
            raise OSError("I/O")

        broken = self.patch(self.disk, "sync", sync)
        threads.release_one()
        self.assertEqual((flying.state, refused.state), (PENDING, FAILED))
        self.assertEqual(120, one.next_offset)
        broken.restore()
        threads.release()
        self.pass_time(10)
        behind = self.add(one, record(30, 4))
        self.pass_time(1)
        self.assertEqual((flying.state, behind.state, behind.offset), (STORED, STORED, 120))
        written = (record(30), *(record(30, number) for number in (0, 1, 2, 4)))
        self.assertEqual(stored(one), b"".join(written))

    def create(self, stores: MessageStores, partition: int) -> Deferred[None]:
        """Begin a new partition of ``one``."""
        created = stores.create(self.config.topics["one"], partition)
        assert created is not None
        return created

    def test_new_partition(self) -> None:
        """A worker of its device makes it, once for all waiting puts, in their order."""
        stores, _, _ = self.stores(1000)
        self.made[0].hold()
        order: list[int] = []
        waiting = [self.create(stores, 1) for _ in range(3)]
        for number, each in enumerate(waiting):
            each.addCallback(lambda _, number=number: order.append(number))
        self.assertEqual(1, self.made[0].held)
        self.assertIsNone(stores.get("one", 1))
        self.assertIsNone(stores.create(self.config.topics["two"], 1))  # made at once
        self.assertIsNotNone(stores.get("two", 1))
        self.made[0].release()
        self.assertEqual([0, 1, 2], order)
        store = stores.get("one", 1)
        assert store is not None
        self.assertEqual(STORED, self.add(store, record(30)).state)
        self.assertIsNone(stores.create(self.config.topics["one"], 1))

    def test_new_partition_that_hangs(self) -> None:
        """Waiting puts are refused after a time limit, later ones at once; the partition exists
        later."""
        stores, _, _ = self.stores(1000)
        self.made[0].hold()
        waiting = self.create(stores, 1)
        self.pass_time(STALL_SECONDS + 1)
        self.failureResultOf(waiting, StoreStalled)
        topic = self.config.topics["one"]
        self.assertIsNone(stores.create(topic, 2))
        self.assertRaises(StoreStalled, stores.get_or_create, topic, 2)
        self.made[0].release()
        self.assertIsNotNone(stores.get("one", 1))

    def test_new_partition_fails(self) -> None:
        """The puts are refused with the reason, and the next one tries again."""
        stores, _, _ = self.stores(1000)
        path = os.path.join(self.config.topics["one"].data_path, "one-1")
        with open(path, "wb"):
            pass
        self.made[0].hold()
        waiting = self.create(stores, 1)
        self.made[0].release()
        self.assertIn(path, str(self.failureResultOf(waiting, StoreError).value))
        os.remove(path)
        self.assertIsNone(stores.create(self.config.topics["one"], 1))
        self.assertIsNotNone(stores.get("one", 1))

    def test_new_partition_at_the_end(self) -> None:
        """A close does not wait for it, and leaves no open file."""
        stores, _, _ = self.stores(1000)
        self.made[0].hold()
        waiting = self.create(stores, 1)
        closing = stores.close()
        self.failureResultOf(waiting, StoreClosed)
        self.made[0].release()
        self.successResultOf(closing)
        self.assertIsNone(stores.get("one", 1))

    def test_new_partition_wanted_at_once(self) -> None:
        """A caller that cannot wait uses the partition that the worker makes, not a second one."""
        stores, _, _ = self.stores(1000)
        went, workers = threading.Event(), []

        def submit(work: Callable[[], Any], done: Callable[[Any, Any], None]) -> None:
            worker = threading.Thread(target=lambda: (went.wait(), work()))
            workers.append((worker, done))
            worker.start()

        self.patch(self.made[0], "submit", submit)
        waiting = self.create(stores, 1)
        threading.Timer(0.05, went.set).start()
        store = stores.get_or_create(self.config.topics["one"], 1)
        [(worker, done)] = workers
        worker.join()
        done(None, None)
        self.successResultOf(waiting)
        self.assertIs(store, stores.get("one", 1))

    def test_always_apart(self) -> None:
        """With one device, if it is configured."""
        self.same_device = self.apart = True
        _, one, _ = self.stores(1000)
        self.made[0].hold()
        self.assertEqual(self.add(one, record(30, 2)).state, PENDING)
        self.made[0].release()
        self.assertEqual([], self.disk.on_reactor)

    def test_one_device(self) -> None:
        """Nothing runs apart when all data paths lie on one: a put is written at once."""
        self.same_device = True
        with capturedLogs() as lines:
            _, one, two = self.stores(1000)
        self.assertEqual((len(self.made), lines), (1, []))
        self.made[0].hold()
        self.assertEqual(self.add(one, record(30, 2)).state, STORED)
        self.assertEqual(self.disk.on_reactor, ["write"])


class LaterPathTests(SynchronousTestCase):
    """Data paths that a reload brings."""

    def test_paths_without_a_status(self) -> None:
        """Each counts as a device of its own, so that none waits for another."""
        base = self.mktemp()
        self.assertNotEqual(device_of(f"{base}-1"), device_of(f"{base}-2"))
        self.assertEqual(device_of("."), device_of(os.getcwd()))

    def test_device(self) -> None:
        """One on another device has a lane of its own, whose writes run apart from the first."""
        common = StoreEnvironment(
            threads=SynchronousThreads(),
            clock=Clock(),
            schedule=FlushSchedule(Clock()),
            disk=CountingDisk(),
        )
        devices = {"/one": 1, "/two": 1, "/other": 2}
        lanes = Lanes(common, SynchronousThreads, devices.__getitem__, False)
        first = lanes.environment("/one")
        self.assertIs(first, lanes.environment("/two"))
        other = lanes.environment("/other")
        self.assertIs(other, lanes.environment("/other"))
        self.assertEqual((False, True), (first.apart, other.apart))


class LaneTests(SynchronousTestCase):
    """The condition for a stalled lane."""

    def test_stop_during_a_hang(self) -> None:
        """A stop waits for calls that are not late yet, and no longer when they are."""
        for answers in (True, False):
            clock, threads = Clock(), SynchronousThreads()
            ended: Deferred[None] = Deferred()
            self.patch(threads, "stop", lambda ended=ended: ended)
            lane = Lane(threads, clock, "/data")
            threads.hold()
            lane.submit(lambda: None, lambda *done: None)
            clock.advance(STALL_SECONDS / 2)
            stopped = [lane.stop(), lane.stop()]
            for each in stopped:
                self.assertNoResult(each)
            if answers:
                threads.release()
                ended.callback(None)
            else:
                clock.pump([1.0] * 10)
            for each in stopped:
                self.successResultOf(each)
            self.assertEqual([], clock.getDelayedCalls())

    def test_begin_and_end(self) -> None:
        """One log line at its begin, one at its end, and no timer is left."""
        clock, threads = Clock(), SynchronousThreads()
        lane = Lane(threads, clock, "/data")
        told: list[StoreStalled | None] = []
        lane.on_stall = told.append
        threads.hold()
        results: list[object] = []
        for number in range(3):
            lane.submit(lambda number=number: number, lambda *done: results.append(done))  # type: ignore[misc]
            clock.advance(STALL_SECONDS / 2)
        clock.pump([1.0] * 30)
        self.assertEqual((len(told), lane.stalled), (1, told[0]))
        threads.release_one()
        self.assertIsNotNone(lane.stalled)
        threads.release()
        self.assertEqual((lane.stalled, results), (None, [(0, None), (1, None), (2, None)]))
        self.assertEqual(told[1:], [None])
        clock.pump([1.0] * 30)
        self.assertEqual(clock.getDelayedCalls(), [])
        self.successResultOf(lane.stop())
