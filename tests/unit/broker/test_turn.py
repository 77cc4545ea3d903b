"""The end of a turn when something fails that nobody foresaw."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.serving import Broker
from tests.unit.broker.test_hotpath import put


class FaultTests(SynchronousTestCase):
    """One fault stays one client's, or one partition's."""

    def test_fault_while_answering_one(self) -> None:
        """The connection that cannot be answered is cut, the others of the turn are answered."""
        broker = Broker(self.mktemp())
        bad, good = broker.client(), broker.client()
        for client in (bad, good):
            client.send(put(b"hello"))

        def fail(data: bytes) -> None:
            raise ZeroDivisionError("bug")

        bad.transport.write = fail  # type: ignore[method-assign]
        bad.connection.dataReceived(put(b"one"))
        good.connection.dataReceived(put(b"two"))
        broker.clock.advance(0)
        self.assertIn(b"result 200", good.received())
        self.assertTrue(bad.transport.disconnected)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_fault_while_committing_one(self) -> None:
        """The other partitions of the turn are written and answered, and the broker goes on."""
        broker = Broker(self.mktemp())
        one, two = broker.client(), broker.client()
        one.send(put(b"hello"))
        two.send(put(b"hello", partition=b"1"))
        store = broker.stores.get("test", 0)
        assert store is not None

        def fail() -> None:
            raise ZeroDivisionError("bug")

        store.commit = fail  # type: ignore[method-assign]
        one.connection.dataReceived(put(b"lost"))
        two.connection.dataReceived(put(b"kept", partition=b"1"))
        broker.clock.advance(0)
        self.assertEqual(one.received(), b"")
        self.assertIn(b"result 200", two.received())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
