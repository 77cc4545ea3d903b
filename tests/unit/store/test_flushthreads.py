"""
Flushes in threads of C as the reactor sees them: what is told when, and what becomes of the rest.
"""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from metamorphosis.errors import StoreStalled
from metamorphosis.native import compiled
from metamorphosis.store.disk import Disk
from metamorphosis.store.flushing import Sync
from metamorphosis.store.flushthreads import FlushThreads, flush_threads
from metamorphosis.store.lane import STALL_SECONDS, Lane
from metamorphosis.threads import SynchronousThreads, WorkerThreads

CLOSED = 1 << 20
"""A descriptor that this process has not."""


class FakeFlusher:
    """Ends flushes when the test says so, in any order."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.running: dict[int, int] = {}  # token: descriptor
        self.ended: list[tuple[int, int, float]] = []
        self.has_thread = True
        self.is_over = False

    def submit(self, fd: int, token: int, /) -> None:
        """See ``Flusher``."""
        if not self.has_thread:
            raise OSError(errno.EAGAIN, "no thread")
        self.running[token] = fd

    def take(self) -> list[tuple[int, int, float]]:
        """See ``Flusher``."""
        taken, self.ended = self.ended, []
        return taken

    def fileno(self) -> int:
        """See ``Flusher``."""
        return 999

    def end(self) -> None:
        """See ``Flusher``."""
        self.is_over = True

    def finish(self, fd: int, number: int = 0) -> None:
        """The oldest flush of this descriptor has ended."""
        token = next(token for token, each in self.running.items() if each == fd)
        del self.running[token]
        self.ended.append((token, number, 0.25))


class FakeReactor:
    """The descriptors that are watched."""

    def __init__(self) -> None:
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        """See ``IReactorFDSet``."""
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        """See ``IReactorFDSet``."""
        self.readers.remove(reader)


class FlushThreadsCase(SynchronousTestCase):
    """One object, and what happens in its order."""

    def setUp(self) -> None:
        self.events: list[object] = []
        self.flushers: list[FakeFlusher] = []
        self.reactor = FakeReactor()
        self.workers = SynchronousThreads()
        self.threads = self.make()

    def make(self) -> FlushThreads:
        """Threads with a flusher of the test."""

        def make_flusher(threads: int) -> FakeFlusher:
            self.flushers.append(FakeFlusher(threads))
            return self.flushers[-1]

        return FlushThreads(
            self.workers,
            self.reactor,  # type: ignore[arg-type]
            4,
            self,
            make_flusher,
        )

    def begin_stretch(self) -> None:
        """See ``Answers``."""
        self.events.append("begin")

    def end_stretch(self) -> None:
        """See ``Answers``."""
        self.events.append("end")

    def flush(self, fd: int, disk: Disk = Disk()) -> None:
        """Submit one; its outcome is an event."""

        def done(seconds: float | None, error: BaseException | None) -> None:
            self.events.append((fd, seconds if error is None else error.args[0]))

        self.threads.submit(Sync(disk, fd), done)


class TellingTests(FlushThreadsCase):
    """What the reactor is told."""

    def test_order(self) -> None:
        """As they end; all that have ended are told together, and then the turn ends."""
        for fd in (3, 4, 5):
            self.flush(fd)
        (flusher,) = self.flushers
        flusher.finish(5)
        flusher.finish(3, errno.EIO)
        self.threads.doRead()
        self.assertEqual(["begin", (5, 0.25), (3, errno.EIO), "end"], self.events)
        flusher.finish(4)
        self.threads.doRead()
        self.assertEqual(["begin", (4, 0.25), "end"], self.events[4:])

    def test_completion_that_raises(self) -> None:
        """Is logged; the others are told, and the turn ends."""

        def bad(*_: object) -> None:
            raise ZeroDivisionError

        self.threads.submit(Sync(Disk(), 3), bad)
        self.flush(4)
        for fd in (3, 4):
            self.flushers[0].finish(fd)
        self.threads.doRead()
        self.assertEqual(["begin", (4, 0.25), "end"], self.events)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_begun_in_a_completion(self) -> None:
        """The next flush of the same file."""
        self.threads.submit(Sync(Disk(), 3), lambda *_: self.flush(3))
        self.flushers[0].finish(3)
        self.threads.doRead()
        self.flushers[0].finish(3)
        self.threads.doRead()
        self.assertEqual((3, 0.25), self.events[-2])

    def test_woken_for_nothing(self) -> None:
        """Harmless."""
        self.flush(3)
        self.threads.doRead()
        self.assertEqual(["begin", "end"], self.events)

    def test_descriptor(self) -> None:
        """There is one from the first flush to the end; a fork before it takes no thread away."""
        verifyObject(IReadDescriptor, self.threads)
        self.assertEqual(([], [], -1), (self.flushers, self.reactor.readers, self.threads.fileno()))
        self.threads.submit(lambda: None, lambda *_: None)
        self.assertEqual([], self.flushers)
        for fd in (3, 4):
            self.flush(fd)
        self.assertEqual([4], [each.threads for each in self.flushers])
        self.assertEqual(([self.threads], 999), (self.reactor.readers, self.threads.fileno()))


class OtherWorkTests(FlushThreadsCase):
    """What the threads in C do not do."""

    def test_other_disk(self) -> None:
        """A disk that breaks or hangs for a test has its own ``sync``."""

        class Breaking(Disk):
            def sync(self, fd: int) -> None:
                """See ``Disk``."""
                raise OSError(errno.EIO, "Input/output error")

        self.flush(3, Breaking())
        self.assertEqual(([(3, errno.EIO)], []), (self.events, self.flushers))

    def test_no_thread(self) -> None:
        """A system that gives none: the workers flush."""
        self.flush(3)
        self.flushers[0].has_thread = False
        self.flush(CLOSED)
        self.assertEqual([(CLOSED, errno.EBADF)], self.events)
        self.flushers[0].finish(3)
        self.threads.doRead()
        self.assertEqual((3, 0.25), self.events[2])

    def test_no_descriptor(self) -> None:
        """Likewise one that gives no eventfd."""

        def make_flusher(threads: int) -> FakeFlusher:
            raise OSError(errno.EMFILE, "too many")

        reactor = self.reactor
        self.threads = FlushThreads(self.workers, reactor, 4, self, make_flusher)  # type: ignore[arg-type]
        self.flush(CLOSED)
        self.assertEqual(([(CLOSED, errno.EBADF)], []), (self.events, reactor.readers))
        self.successResultOf(self.threads.stop())

    def test_made_where_there_is_c(self) -> None:
        """Only beside real threads; elsewhere those that there are."""
        double = SynchronousThreads()
        self.assertIs(double, flush_threads(double, self.reactor, 1, self))  # type: ignore[arg-type]
        workers = WorkerThreads(self.reactor, 1, "test")  # type: ignore[arg-type]
        made = flush_threads(workers, self.reactor, 1, self)  # type: ignore[arg-type]
        self.assertEqual(hasattr(compiled, "Flusher"), made is not workers)


class StopTests(FlushThreadsCase):
    """The end."""

    def test_waits(self) -> None:
        """Until every flush was told; then the threads end and the descriptor is not watched."""
        for fd in (3, 4):
            self.flush(fd)
        stopped = [self.threads.stop(), self.threads.stop()]
        (flusher,) = self.flushers
        flusher.finish(3)
        self.threads.doRead()
        self.assertNoResult(stopped[0])
        self.assertFalse(flusher.is_over)
        flusher.finish(4)
        self.threads.doRead()
        for each in (*stopped, self.threads.stop()):
            self.successResultOf(each)
        self.assertTrue(flusher.is_over)
        self.assertEqual(([], -1), (self.reactor.readers, self.threads.fileno()))

    def test_without_a_flush(self) -> None:
        """There is nothing to end."""
        self.successResultOf(self.threads.stop())
        self.assertEqual([], self.flushers)

    def test_reactor_ends(self) -> None:
        """Nothing is told any more."""
        self.flush(3)
        self.threads.connectionLost(Failure(ZeroDivisionError()))
        self.assertEqual([], self.events)


class LaneTests(FlushThreadsCase):
    """Devices that hang."""

    def test_one_hangs(self) -> None:
        """The other continues; the one that hangs is told as stalled, and its stop is not waited
        for."""
        clock = Clock()
        lanes = [Lane(self.make(), clock, f"/data{number}") for number in range(2)]
        told: list[StoreStalled | None] = []
        lanes[0].on_stall = told.append
        for lane in lanes:
            lane.submit(Sync(Disk(), 3), lambda *_: self.events.append("done"))
        self.flushers[1].finish(3)
        self.reactor.readers[1].doRead()
        self.assertEqual(["begin", "done", "end"], self.events)
        clock.advance(STALL_SECONDS)
        self.assertEqual([lanes[0].stalled], told)
        self.assertIsNone(lanes[1].stalled)
        self.successResultOf(lanes[1].stop())
        self.flushers[0].finish(3)
        self.reactor.readers[0].doRead()
        self.assertIsNone(lanes[0].stalled)
        self.successResultOf(lanes[0].stop())
