"""What every provider of ``IWorkerThreads`` has to do, the double included."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyClass, verifyObject

from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.threads import SynchronousThreads, ThreadsStopped, WorkerThreads


class Contract:
    """The tests; a subclass says which provider."""

    threads: Any

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
        """Work that comes too late raises instead of being lost."""
        yield self.threads.stop()
        self.assertRaises(ThreadsStopped, self.threads.submit, lambda: None, lambda *_: None)

    @inlineCallbacks
    def test_stop_twice(self) -> Any:
        """Whoever stops, waits."""
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


class SynchronousThreadsContractTests(Contract, TestCase):
    """The double of the other tests."""

    def setUp(self) -> None:
        """Nothing held."""
        self.threads = SynchronousThreads()


class HeldThreadsContractTests(Contract, TestCase):
    """The double, with everything held until a moment later."""

    def setUp(self) -> None:
        """Let go in the next turn, as a real thread would at the earliest."""
        from twisted.internet import reactor

        threads = SynchronousThreads()
        submit = threads.submit

        def submit_and_release(*args: Any) -> None:
            threads.hold()
            submit(*args)
            reactor.callLater(0, threads.release)  # type: ignore[attr-defined]

        self.threads = threads
        self.patch(threads, "submit", submit_and_release)
