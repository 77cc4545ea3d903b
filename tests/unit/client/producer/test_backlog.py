"""What is kept for later: counts and loading while others write."""

from __future__ import annotations

from asyncio import CancelledError
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.localstore import LocalStore
from metamorphosis.client.model import OutgoingMessage, Partition
from metamorphosis.client.network.flow import Event
from metamorphosis.client.producer.backlog import Backlog, pack
from metamorphosis.client.producer.recovering import OrderedReplay
from metamorphosis.errors import LocalStoreError
from metamorphosis.testing.runtime import MemoryRuntime

HERE = Partition(0, 0)
MESSAGE = OutgoingMessage("test", b"x")


class SteppedThread:
    """Work is done, and its end reported, when the test says so."""

    def __init__(self) -> None:
        self._asked: deque[tuple[Callable[[], Any], Any]] = deque()
        self._done: deque[tuple[Any, Any, Any]] = deque()

    def submit(self, work: Callable[[], Any], done: Any) -> None:
        """See ``IWorkerThreads``."""
        self._asked.append((work, done))

    def stop(self) -> Deferred[None]:
        """See ``IWorkerThreads``."""
        return succeed(None)

    def work(self) -> None:
        """Do the oldest."""
        work, done = self._asked.popleft()
        try:
            self._done.append((done, work(), None))
        except Exception as error:
            self._done.append((done, None, error))

    def report(self) -> None:
        """Report the oldest that is done."""
        done, result, error = self._done.popleft()
        done(result, error)

    def finish(self) -> None:
        """All of both."""
        while self._asked or self._done:
            while self._asked:
                self.work()
            self.report()


class BacklogTests(SynchronousTestCase):
    """One message of an earlier process in partition 0-0."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.thread = SteppedThread()
        self.runtime.threads = lambda count, name: self.thread  # type: ignore
        self.path = Path(self.mktemp())
        store = LocalStore.open(self.path, "test@0-0")
        store.append(1, pack(MESSAGE))
        store.close()
        self.backlog = Backlog(self.runtime, self.path, self.runtime.log)
        self.closed = False
        self.addCleanup(self.close)

    def close(self) -> None:
        """Give the files up."""
        if self.closed:
            return
        self.closed = True
        closing = self.runtime.start(self.backlog.close())
        self.runtime.turn()
        self.thread.finish()
        self.runtime.result(closing)

    def test_kept_while_loading(self) -> None:
        """A message that comes while the file is opened counts, before and after it is written."""
        loading = self.runtime.start(self.backlog.load("test"))
        self.thread.work()
        self.thread.report()
        self.thread.work()  # the file is open, which nobody knows yet
        self.backlog.keep(MESSAGE, HERE, lambda error: None)
        self.runtime.turn()
        self.thread.report()
        self.runtime.result(loading)
        self.assertEqual(2, self.backlog.count("test", HERE))
        self.thread.finish()
        self.assertEqual(2, self.backlog.count("test", HERE))

    def test_write_that_fails(self) -> None:
        """Those that could not be written do not count; the others do."""
        self.backlog.keep(MESSAGE, HERE, lambda error: None)
        self.runtime.turn()
        self.thread.finish()
        errors: list[Any] = []
        for value in (b"y", b"z"):
            self.backlog.keep(OutgoingMessage("test", value), HERE, errors.append)
        queue = self.backlog._queues["test", HERE]
        store, queue.store = queue.store, None
        moved = self.path.rename(self.path.with_name("moved"))
        self.path.write_bytes(b"")
        self.assertEqual(4, self.backlog.count("test", HERE))
        self.runtime.turn()
        self.assertEqual(4, self.backlog.count("test", HERE))
        self.thread.finish()
        self.assertEqual([LocalStoreError] * 2, [type(error) for error in errors])
        self.assertEqual(2, self.backlog.count("test", HERE))
        self.path.unlink()
        moved.rename(self.path)
        queue.store = store

    def test_kept_too_late(self) -> None:
        """After the end nothing is kept, and calls get an error."""
        self.close()
        errors: list[Any] = []
        self.backlog.keep(MESSAGE, HERE, errors.append)
        self.runtime.turn()
        self.thread.finish()
        (error,) = errors
        self.assertRegex(str(error), "closed")

    def test_everyone_learns_that_loading_failed(self) -> None:
        """A caller that waited for another attempt does not get success."""
        (self.path / "bad@0-0.sqlite").write_bytes(b"this is no database" * 100)
        loading = [self.runtime.start(self.backlog.load("bad")) for _ in range(2)]
        self.thread.finish()
        for each in loading:
            self.assertRaises(LocalStoreError, self.runtime.result, each)

    def test_cancelled_loading(self) -> None:
        """The next call loads, as after an error: otherwise new messages would overtake those of an
        earlier process."""
        loading: Any = self.backlog.load("test")
        loading.send(None)
        self.assertRaises(CancelledError, loading.throw, CancelledError())
        again = self.runtime.start(self.backlog.load("test"))
        self.thread.finish()
        self.runtime.result(again)
        self.assertEqual(1, self.backlog.count("test", HERE))


class ReplayTests(SynchronousTestCase):
    """Kept messages are sent in order."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.backlog = Backlog(self.runtime, Path(self.mktemp()), self.runtime.log)
        self.closing = Event(self.runtime)
        self.sent: list[Deferred[None]] = []
        self.replay = OrderedReplay(self.runtime, self.backlog, self.closing, self.send)
        self.backlog.keep(MESSAGE, HERE, lambda error: None)
        self.runtime.turn()

    def send(self, message: OutgoingMessage) -> Deferred[None]:
        """To a broker that answers when the test says so."""
        self.sent.append(Deferred())
        return self.sent[-1]

    def test_closing(self) -> None:
        """Nothing is sent any more; what is kept stays for the next process."""
        self.closing.set()
        self.runtime.run(self.replay.all(None))
        self.assertEqual(([], 1), (self.sent, self.backlog.count("test", HERE)))
        self.runtime.run(self.backlog.close())

    def test_end(self) -> None:
        """Who waits for a replay is told when all is sent, not before."""
        done = self.runtime.start(self.replay.all("test"))
        self.assertFalse(done.called)
        self.sent[0].callback(None)
        self.runtime.result(done)
        self.runtime.run(self.backlog.close())

    def test_many_calls(self) -> None:
        """While a partition is replayed nothing more is begun for it: a sender may ask for it with
        each of a million messages."""
        self.replay.soon("test", HERE)
        self.runtime.turn()
        begun: list[object] = []
        self.runtime.start = begun.append  # type: ignore
        self.replay.soon("test", HERE)
        self.assertEqual((1, []), (len(self.sent), begun))
        del self.runtime.start
        self.sent[0].callback(None)
        self.runtime.run(self.backlog.close())
        self.assertEqual(0, self.backlog.count("test", HERE))
