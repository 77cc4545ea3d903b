"""The duties of every provider of ``IWorkerThreads``, the doubles included; and flushes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from threading import get_ident
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyClass, verifyObject

from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.native import compiled
from metamorphosis.store.disk import Disk
from metamorphosis.store.flushing import Sync
from metamorphosis.store.flushthreads import FlushThreads, flush_threads
from metamorphosis.threads import SynchronousThreads, ThreadsStopped, WorkerThreads

CLOSED = 1 << 20
"""A descriptor that this process has not."""


class Contract:
    """The tests; a subclass says which provider."""

    threads: Any
    mktemp: Callable[[], str]
    addCleanup: Callable[..., None]

    def call(self, work: Callable[[], Any]) -> Deferred[tuple[Any, Any]]:
        """Submit and wait for the completion."""
        finished: Deferred[tuple[Any, Any]] = Deferred()
        self.threads.submit(work, lambda *outcome: finished.callback(outcome))
        return finished

    def test_provides_the_interface(self) -> None:
        """Class and object are verified."""
        verifyClass(IWorkerThreads, type(self.threads))
        verifyObject(IWorkerThreads, self.threads)

    @inlineCallbacks
    def test_result(self) -> Any:
        """``done`` gets the result and no error."""
        outcome = yield self.call(lambda: 42)
        self.assertEqual(outcome, (42, None))

    @inlineCallbacks
    def test_error(self) -> Any:
        """``done`` gets the exception and no result."""
        failure = OSError("broken")

        def work() -> None:
            raise failure

        outcome = yield self.call(work)
        self.assertEqual(outcome, (None, failure))

    @inlineCallbacks
    def test_done_runs_where_it_was_submitted(self) -> Any:
        """Completions are delivered on the reactor's thread."""
        where = yield self.call(lambda: None).addCallback(lambda _: get_ident())
        self.assertEqual(where, get_ident())

    @inlineCallbacks
    def test_submit_from_done(self) -> Any:
        """A completion may submit the next work."""
        yield self.call(lambda: 1)
        outcome = yield self.call(lambda: 2)
        self.assertEqual(outcome, (2, None))

    @inlineCallbacks
    def test_stop_delivers_everything(self) -> Any:
        """``stop`` fires after every completion, also of work submitted by completions before."""
        outcomes: list[Any] = []
        for number in range(20):
            self.threads.submit(lambda n=number: n, lambda result, _: outcomes.append(result))
        yield self.threads.stop()
        self.assertEqual(sorted(outcomes), list(range(20)))

    @inlineCallbacks
    def test_submit_after_stop(self) -> Any:
        """Work that is submitted after the stop raises an error instead of being lost."""
        yield self.threads.stop()
        self.assertRaises(ThreadsStopped, self.threads.submit, lambda: None, lambda *_: None)

    @inlineCallbacks
    def test_sync(self) -> Any:
        """A flush gives the seconds that it took."""
        fd = self.open_file()
        seconds, error = yield self.call(Sync(Disk(), fd))
        self.assertIsNone(error)
        self.assertIs(float, type(seconds))
        self.assertGreaterEqual(seconds, 0.0)

    @inlineCallbacks
    def test_sync_that_fails(self) -> Any:
        """Its error is the one of ``os.fdatasync``, and the next flush works."""
        pipe = os.pipe()
        self.addCleanup(os.close, pipe[0])
        self.addCleanup(os.close, pipe[1])
        for fd, number in ((pipe[1], errno.EINVAL), (CLOSED, errno.EBADF)):
            result, error = yield self.call(Sync(Disk(), fd))
            self.assertIsNone(result)
            self.assertEqual((OSError, number), (type(error), error.errno))
            self.assertEqual(f"[Errno {number}] {os.strerror(number)}", str(error))
        _, error = yield self.call(Sync(Disk(), self.open_file()))
        self.assertIsNone(error)

    @inlineCallbacks
    def test_sync_of_another_disk(self) -> Any:
        """Its ``sync`` is called: tests make it fail, and delay it."""

        class Counting(Disk):
            calls = 0

            def sync(self, fd: int) -> None:
                """See ``Disk``."""
                self.calls += 1

        disk = Counting()
        _, error = yield self.call(Sync(disk, CLOSED))
        self.assertEqual((None, 1), (error, disk.calls))

    @inlineCallbacks
    def test_stop_waits_for_flushes(self) -> Any:
        """Every completion is delivered, mixed with other work, also after failures."""
        told: list[tuple[int, bool]] = []

        def submit(work: Callable[[], Any], number: int) -> None:
            self.threads.submit(work, lambda _, error: told.append((number, error is None)))

        fd = self.open_file()
        for number in range(0, 60, 3):
            submit(Sync(Disk(), fd), number)
            submit(Sync(Disk(), CLOSED), number + 1)
            submit(lambda: None, number + 2)
        yield self.threads.stop()
        self.assertEqual([(number, number % 3 != 1) for number in range(60)], sorted(told))

    @inlineCallbacks
    def test_sync_after_stop(self) -> Any:
        """A flush after the stop raises, as other work does."""
        yield self.threads.stop()
        sync = Sync(Disk(), CLOSED)
        self.assertRaises(ThreadsStopped, self.threads.submit, sync, lambda *_: None)

    def open_file(self) -> int:
        """A descriptor of a file with a few bytes that are not on the disk."""
        fd = os.open(self.mktemp(), os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, fd)
        os.write(fd, b"a few bytes")
        return fd

    @inlineCallbacks
    def test_stop_twice(self) -> Any:
        """A stop waits for running work."""
        yield self.call(lambda: None)
        yield self.threads.stop()
        yield self.threads.stop()


class WorkerThreadsContractTests(Contract, TestCase):
    """The real thing, with several threads."""

    def setUp(self) -> None:
        """Three threads."""
        from twisted.internet import reactor

        self.threads = WorkerThreads(reactor, 3, "test")  # type: ignore[arg-type]
        self.addCleanup(self.threads.stop)


class Turn:
    """Of a broker: that completions are told within it is another test."""

    def begin_stretch(self) -> None:
        """See ``Answers``."""

    def end_stretch(self) -> None:
        """See ``Answers``."""


class FlushThreadsContractTests(Contract, TestCase):
    """With the threads in C, of which there are fewer than flushes."""

    def setUp(self) -> None:
        """Three of each kind."""
        from twisted.internet import reactor

        if not hasattr(compiled, "Flusher"):
            self.skipTest("there is no part in C, or it has no threads here")
        workers = WorkerThreads(reactor, 3, "test")  # type: ignore[arg-type]
        self.threads = flush_threads(workers, reactor, 3, Turn())  # type: ignore[arg-type]
        self.assertIs(FlushThreads, type(self.threads))
        self.addCleanup(self.threads.stop)


class SynchronousThreadsContractTests(Contract, TestCase):
    """The double of the other tests."""

    def setUp(self) -> None:
        """Nothing held."""
        self.threads = SynchronousThreads()


class HeldThreadsContractTests(Contract, TestCase):
    """The double, with everything held until a moment later."""

    def setUp(self) -> None:
        """Works are released in the next turn, the earliest moment for a real thread."""
        from twisted.internet import reactor

        threads = SynchronousThreads()
        submit = threads.submit

        def submit_and_release(*args: Any) -> None:
            threads.hold()
            submit(*args)
            reactor.callLater(0, threads.release)  # type: ignore[attr-defined]

        self.threads = threads
        self.patch(threads, "submit", submit_and_release)
