"""What the turn in C is told of a store: the short way for the usual state, and the long one."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import StoreStalled
from metamorphosis.store.appender import COLLECTS
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.states import Life, Worker
from tests.support.serving import Broker
from tests.unit.broker.test_hotpath import put


class BeginTests(SynchronousTestCase):
    """``Appender.begin``."""

    def store(self, threshold: int = 1000) -> MessageStore:
        """A store that has a message."""
        broker = Broker(self.mktemp(), unflush_threshold=threshold)
        self.addCleanup(broker.stores.close)
        broker.client().send(put(b"first"))
        broker.clock.advance(1)
        store = broker.stores.get("test", 0)
        assert store is not None
        return store

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
