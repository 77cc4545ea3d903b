"""The thread of an offset store: one call after the other, up to the end."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.offsets import Worker
from metamorphosis.errors import OffsetStoreError
from metamorphosis.testing.runtime import MemoryRuntime
from metamorphosis.threads import SynchronousThreads, ThreadsStopped


class WorkerTests(SynchronousTestCase):
    """Calls that take their time."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.asked: list[tuple[int, str]] = []
        self.threads = SynchronousThreads()
        self.runtime.threads = self.make  # type: ignore[method-assign]
        self.worker = Worker(self.runtime, "offsets-of-a-test")
        self.threads.hold()

    def make(self, count: int, name: str) -> SynchronousThreads:
        """In place of the runtime's."""
        self.asked.append((count, name))
        return self.threads

    def test_one_thread(self) -> None:
        """Two would run a commit beside the one before it. It has the store's name."""
        self.assertEqual([(1, "offsets-of-a-test")], self.asked)

    def test_nobody_waits_any_more(self) -> None:
        """A future that has a result meanwhile is left alone, whatever the call comes to."""

        def fail() -> int:
            raise ZeroDivisionError("on purpose")

        for work in (lambda: 1, fail):
            future: Any = self.worker.run(work)
            future.callback(2)
            self.threads.release_one()
            self.assertEqual(2, self.successResultOf(future))

    def test_close(self) -> None:
        """It waits for the calls that are under way and for the last one, and ends the thread."""
        done: list[str] = []
        first: Any = self.worker.run(lambda: done.append("first"))
        closing: Any = self.runtime.start(self.worker.close(lambda: done.append("last")))
        self.assertNoResult(closing)
        with self.assertRaisesRegex(OffsetStoreError, "offsets-of-a-test: the store is closed"):
            self.runtime.result(self.worker.run(lambda: 1))
        self.threads.release_one()
        self.successResultOf(first)
        self.assertNoResult(closing)
        self.threads.release_one()
        self.successResultOf(closing)
        self.assertEqual(["first", "last"], done)
        self.assertRaises(ThreadsStopped, self.threads.submit, lambda: 1, lambda *_: None)
