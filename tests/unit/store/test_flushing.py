"""The shared timers, and the parts of a flush that run in a worker."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.store.disk import Disk
from metamorphosis.store.flushing import FlushSchedule, sync_segment
from tests.support.partitions import BreakableDisk


class FlushScheduleTests(SynchronousTestCase):
    """One timer for all that ask for the same delay."""

    def setUp(self) -> None:
        """Nothing scheduled."""
        self.clock = Clock()
        self.schedule = FlushSchedule(self.clock)
        self.log: list[str] = []

    def ask(self, name: str, delay: float) -> None:
        """Ask for a flush that notes its name."""
        self.schedule.request(lambda: self.log.append(name), delay)

    def test_shared_timer(self) -> None:
        """Requests within the delay share the first timer, so none is late."""
        self.ask("a", 0.01)
        self.clock.advance(0.006)
        self.ask("b", 0.01)
        self.ask("c", 5)
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)
        self.clock.advance(0.004)
        self.assertEqual(self.log, ["a", "b"])
        self.clock.advance(5)
        self.assertEqual(self.log, ["a", "b", "c"])

    def test_stop_after_a_flush(self) -> None:
        """What was called is not planned any more."""
        clock, calls = Clock(), []
        schedule = FlushSchedule(clock)
        schedule.request(lambda: calls.append(1), 1.0)
        clock.advance(1)
        schedule.request(lambda: calls.append(2), 1.0)
        schedule.stop()
        clock.advance(2)
        self.assertEqual(([1], []), (calls, clock.getDelayedCalls()))
        other = FlushSchedule(clock)
        other.request(lambda: calls.append(3), 1.0)
        clock.advance(1)
        other.stop()
        self.assertEqual([1, 3], calls)

    def test_asking_again_from_a_flush(self) -> None:
        """A flush that asks for the next one gets a new timer."""
        self.schedule.request(lambda: self.ask("again", 0.01), 0.01)
        self.clock.advance(0.01)
        self.assertEqual(self.log, [])
        self.clock.advance(0.01)
        self.assertEqual(self.log, ["again"])

    def test_stop(self) -> None:
        """Nothing is left in the reactor."""
        self.ask("a", 1)
        self.schedule.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WorkTests(SynchronousTestCase):
    """What runs in a worker."""

    def test_written_again(self) -> None:
        """What a failed flush has left is written again from memory, whatever the file holds, and
        however little the disk takes at once."""
        data = os.urandom(10_000)
        disk = BreakableDisk()
        with open(self.mktemp(), "w+b") as file:
            file.write(bytes(10_100))
            file.flush()
            again = ((100, data[:4000]), (4100, data[4000:]))
            sync_segment(disk, file.fileno(), "", ["a", "b"], again)
            file.seek(0)
            self.assertEqual(file.read(), bytes(100) + data)
        syncs = ["sync", "sync_directory", "sync_directory"]
        self.assertEqual(disk.calls, ["write"] * 2 + syncs)

    def test_disk_that_takes_nothing(self) -> None:
        """A write that does not get on is an error, not an endless loop."""

        class Stuck(Disk):
            def write(self, fd: int, data: bytes | memoryview, position: int) -> int:
                return 0

        self.assertRaises(OSError, sync_segment, Stuck(), 0, "", [], ((0, b"hello"),))

    def test_descriptor_of_the_workers_own(self) -> None:
        """It can write again what was lost, and is closed, also after an error."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(bytes(10))
        open_before = len(os.listdir("/proc/self/fd"))
        sync_segment(Disk(), -1, path, [], ((3, b"abc"),))
        with open(path, "rb") as file:
            self.assertEqual(file.read(), bytes(3) + b"abc" + bytes(4))
        disk = BreakableDisk()
        disk.broken.add("sync")
        self.assertRaises(OSError, sync_segment, disk, -1, path, [])
        self.assertEqual(open_before, len(os.listdir("/proc/self/fd")))

    def test_real_disk(self) -> None:
        """The calls that the doubles leave out work on a real file."""
        path = self.mktemp()
        disk = Disk()
        fd = disk.create(path)
        disk.write(fd, b"abc", 0)
        disk.sync(fd)
        disk.sync_all(fd)
        disk.sync_directory(os.path.dirname(os.path.abspath(path)))
        disk.close(fd)
        self.assertRaises(FileExistsError, disk.create, path)
