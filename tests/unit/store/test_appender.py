"""What the turn in C is told of a store: the short way for the usual state, and the long one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import StoreStalled
from metamorphosis.store.appender import COLLECTS, UNKNOWN_END
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.states import Life, Worker
from tests.support.serving import Broker
from tests.unit.broker.test_hotpath import put


class StoreCase(SynchronousTestCase):
    """Tests of one store."""

    def store(self, threshold: int = 1000) -> MessageStore:
        """A store that has a message."""
        broker = Broker(self.mktemp(), unflush_threshold=threshold)
        self.addCleanup(broker.stores.close)
        broker.client().send(put(b"first"))
        broker.clock.advance(1)
        store = broker.stores.get("test", 0)
        assert store is not None
        return store


class BeginTests(StoreCase):
    """``Appender.begin``."""

    def test_usual_state(self) -> None:
        """The place is the end of the last segment."""
        store = self.store()
        place = (store.appender, store.last.fd, 25, 25, False)
        self.assertEqual(store.appender.begin(), place)
        self.assertEqual(store.appender._begin(), place)

    def test_collects(self) -> None:
        """No descriptor while a batch is open, a worker must not be disturbed, or with group
        commit: the records are to join a batch."""

        def holds(store: MessageStore) -> None:
            store.worker = Worker.HOLDING

        changes: dict[str, Callable[[MessageStore], object]] = {
            "batch": MessageStore.open_batch,
            "worker": holds,
        }
        for name, change in changes.items():
            store = self.store()
            change(store)
            expected = (store.appender, COLLECTS, 0, 25, False)
            self.assertEqual(store.appender.begin(), expected, name)
            store.worker = Worker.IDLE
        store = self.store(threshold=0)
        self.assertEqual(store.appender.begin(), (store.appender, COLLECTS, 0, 25, False))

    def test_takes_nothing(self) -> None:
        """A store that is closing, or whose disk does not answer, takes no record: Python knows the
        text of the refusal."""
        store = self.store()
        store.stalled = StoreStalled("the disk does not answer")
        self.assertIsNone(store.appender.begin())
        store.stalled = None
        store.life = Life.CLOSING
        self.assertIsNone(store.appender.begin())
        store.life = Life.OPEN

    def test_after_faults(self) -> None:
        """No file is opened: a damaged one takes nothing, for a batch repairs it, and with a closed
        segment the records collect."""
        store = self.store()
        store.writer.damage = OSError("cut failed")
        self.assertIsNone(store.appender.begin())
        store.writer.damage = None
        store.last.close()
        expected = (store.appender, COLLECTS, 0, 25, False)
        self.assertEqual((store.appender.begin(), store.last.fd), (expected, -1))


class WithdrawnTests(StoreCase):
    """A store that takes no more messages until the next start."""

    def test_disk_that_answers_again(self) -> None:
        """It takes none after a disk that did not answer for a while, either."""
        store = self.store()
        store.appender.withdraw()
        for error in (StoreStalled("the disk does not answer"), None):
            store.stall(error)
            self.assertIs(store.stalled, UNKNOWN_END)
            self.assertIsNone(store.appender.begin())
            with self.assertRaisesRegex(StoreStalled, "not known"):
                store.open_batch()

    def test_close(self) -> None:
        """The end waits for the last flush of what was acknowledged, unless the disk does not
        answer."""
        for disk_error in (None, StoreStalled("the disk does not answer")):
            broker = Broker(self.mktemp())
            client = broker.client()
            client.send(put(b"first"))
            store = broker.stores.get("test", 0)
            assert store is not None
            work: list[Callable[[], object]] = []
            self.patch(
                store.environment.threads,
                "submit",
                lambda call, done, work=work: work.append(lambda: done(call(), None)),
            )
            store.environment = replace(store.environment, stalled=lambda error=disk_error: error)
            client.send(put(b"second"))
            store.appender.withdraw()
            closed = store.close()
            self.assertEqual(len(work), 1)
            if disk_error is None:
                self.assertNoResult(closed)
                work.pop()()
            self.successResultOf(closed)
