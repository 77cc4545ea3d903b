"""What ``WorkerThreads`` and its double do beyond their common contract."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.python.monkey import MonkeyPatcher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.threads import SynchronousThreads, WorkerThreads
from tests.support.leftovers import new_threads


class FakeReactor:
    """Keeps what threads ask for until the test runs it."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.called = threading.Semaphore(0)

    def callFromThread(self, call: Callable[[], None]) -> None:
        """See ``IReactorFromThreads``."""
        self.calls.append(call)
        self.called.release()

    def turn(self) -> None:
        """Run what has been asked for."""
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class WorkerThreadsTests(SynchronousTestCase):
    """Here the threads are the subject; the test waits for them on locks, not on time."""

    def setUp(self) -> None:
        """One thread, so that the order is known."""
        self.reactor = FakeReactor()
        self.threads = WorkerThreads(self.reactor, 1, "store")  # type: ignore[arg-type]
        self.outcomes: list[Any] = []

    def done(self, result: Any, error: Any) -> None:
        """A completion."""
        self.outcomes.append(result if error is None else error)

    def settle(self) -> None:
        """Wait until everything submitted has been worked on and asked for delivery."""
        self.reactor.called.acquire()
        barrier = threading.Event()
        self.threads.submit(barrier.set, lambda *_: None)
        barrier.wait()
        # The barrier's own completion may not be delivered yet; when the second runs it is.
        second = threading.Event()
        self.threads.submit(second.set, lambda *_: None)
        second.wait()

    def stop(self) -> None:
        """End the thread."""
        stopped = self.threads.stop()
        while not stopped.called:
            self.reactor.called.acquire(timeout=30)
            self.reactor.turn()
        self.successResultOf(stopped)

    def test_one_wake_up_for_a_burst(self) -> None:
        """Completions that arrive before the reactor has woken up share its wake-up."""
        for number in range(50):
            self.threads.submit(lambda n=number: n, self.done)
        self.settle()
        self.assertEqual(len(self.reactor.calls), 1)
        self.reactor.turn()
        self.assertEqual(self.outcomes, list(range(50)))
        self.stop()

    def test_wakes_up_again_after_a_burst(self) -> None:
        """The next completion asks again."""
        self.threads.submit(lambda: 1, self.done)
        self.reactor.called.acquire()
        self.reactor.turn()
        self.threads.submit(lambda: 2, self.done)
        self.reactor.called.acquire()
        self.reactor.turn()
        self.assertEqual(self.outcomes, [1, 2])
        self.stop()

    def test_completion_that_raises(self) -> None:
        """A failing completion is logged, and the next one is delivered."""

        def bad(*_: Any) -> None:
            raise ZeroDivisionError

        self.threads.submit(lambda: 1, bad)
        self.threads.submit(lambda: 2, self.done)
        self.stop()
        self.assertEqual(self.outcomes, [2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stop_waits_for_what_runs(self) -> None:
        """Work that is still running when others are delivered is waited for."""
        gate = threading.Event()
        self.threads.submit(lambda: 1, self.done)
        self.threads.submit(lambda: gate.wait() and 2, self.done)
        stopped = self.threads.stop()
        self.reactor.called.acquire()
        self.reactor.turn()
        self.assertNoResult(stopped)
        gate.set()
        self.stop()
        self.assertEqual(self.outcomes, [1, 2])

    def test_name_and_kind(self) -> None:
        """Threads have names, which a debugger shows, and do not keep a process alive."""
        self.threads.submit(threading.current_thread, self.done)
        self.stop()
        self.assertEqual((self.outcomes[0].name, self.outcomes[0].daemon), ("store-0", True))
        self.assertFalse(self.outcomes[0].is_alive())

    def refuse_threads(self, first: int) -> MonkeyPatcher:
        """Let the system refuse this thread and all later ones."""
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if int(thread.name.rpartition("-")[2]) >= first:
                raise RuntimeError("can't start new thread")
            start(thread)

        return self.patch(threading.Thread, "start", refuse)

    def test_no_thread_can_be_started(self) -> None:
        """Work fails, so that nobody waits for ever; later work starts the thread."""
        broken = self.refuse_threads(0)
        self.threads.submit(lambda: 1, self.done)
        self.assertEqual(self.outcomes, [])
        self.reactor.turn()
        [error] = self.outcomes
        self.assertIsInstance(error, OSError)
        self.assertIn("can't start new thread", str(error))
        broken.restore()
        self.threads.submit(lambda: 2, self.done)
        self.stop()
        self.assertEqual(self.outcomes[1:], [2])

    def test_fewer_threads(self) -> None:
        """Those that can be started do the work; the others follow with later work."""
        self.threads = WorkerThreads(self.reactor, 2, "store")  # type: ignore[arg-type]
        broken = self.refuse_threads(1)
        self.threads.submit(threading.current_thread, self.done)
        broken.restore()
        gate = threading.Event()
        self.threads.submit(lambda: gate.wait(30), self.done)
        self.threads.submit(gate.set, self.done)  # by the second thread
        self.stop()
        self.assertIn(True, self.outcomes)

    def test_no_thread_before_there_is_work(self) -> None:
        """Threads that are never needed are never started."""
        before = threading.enumerate()
        threads = WorkerThreads(self.reactor, 3, "idle")  # type: ignore[arg-type]
        self.assertEqual(new_threads(before), set())
        self.successResultOf(threads.stop())
        self.stop()


class SynchronousThreadsTests(SynchronousTestCase):
    """The controls of the double."""

    def setUp(self) -> None:
        """Nothing held."""
        self.threads = SynchronousThreads()
        self.log: list[str] = []

    def submit(self, name: str) -> None:
        """Work that notes when it runs and when it is completed."""
        self.threads.submit(
            lambda: self.log.append(f"{name} runs"), lambda *_: self.log.append(f"{name} done")
        )

    def test_at_once(self) -> None:
        """Without ``hold`` work and completion happen within ``submit``."""
        self.submit("a")
        self.assertEqual(self.log, ["a runs", "a done"])

    def test_hold_and_release(self) -> None:
        """Held work runs in order, one by one or all together."""
        self.threads.hold()
        for name in "abc":
            self.submit(name)
        self.assertEqual((self.log, self.threads.held), ([], 3))
        self.threads.release_one()
        self.assertEqual((self.log, self.threads.held), (["a runs", "a done"], 2))
        self.threads.release()
        self.assertEqual(self.log[2:], ["b runs", "b done", "c runs", "c done"])
        self.submit("d")
        self.assertEqual(self.log[-1], "d done")

    def test_release_of_nothing(self) -> None:
        """Releasing when nothing is held does nothing."""
        self.threads.release_one()
        self.threads.hold()
        self.threads.hold()
        self.threads.release_one()
        self.assertEqual(self.threads.held, 0)
