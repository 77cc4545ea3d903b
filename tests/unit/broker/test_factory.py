"""The port and what all connections share."""

from __future__ import annotations

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.serving import Broker
from tests.unit.broker.test_hotpath import put


class ClosingTests(SynchronousTestCase):
    """The end of the broker."""

    def test_connections_are_answered_before_they_close(self) -> None:
        """A put in flight at the shutdown is answered; then every connection is told to close."""
        broker = Broker(self.mktemp())
        client, idle = broker.client(), broker.client()
        client.send(put(b"first"))
        broker.threads.hold()
        client.send(put(b"hello"))
        done = broker.factory.close_connections()
        self.assertTrue(idle.closed)
        self.assertFalse(client.closed)
        self.assertNoResult(done)
        broker.threads.release()
        broker.clock.advance(0)
        self.assertIn(b"result 200", client.received())
        self.assertTrue(client.closed)

    def test_a_connection_that_does_not_close_is_cut(self) -> None:
        """A peer that reads nothing cannot keep the broker from ending."""
        broker = Broker(self.mktemp())
        client = broker.client()
        done = broker.factory.close_connections()
        broker.clock.pump([0.05] * 120)
        self.successResultOf(done)
        self.assertTrue(client.transport.disconnected)


class ReportTests(SynchronousTestCase):
    """What the factory says of its connections."""

    def test_stats_counts_connections(self) -> None:
        """``curr_connections`` includes the asking one."""
        broker = Broker(self.mktemp())
        client, _ = broker.client(), broker.client()
        self.assertIn(b"curr_connections 2\r\n", client.send(b"stats\r\n"))

    def test_garbage_does_not_flood_the_log(self) -> None:
        """The first few protocol errors are logged one by one, later ones at powers of two."""
        broker = Broker(self.mktemp())
        with capturedLogs() as events:
            for _ in range(100):
                broker.client().send(b"garbage\r\n")
        counts = [event["count"] for event in events if "count" in event]
        self.assertEqual(counts, [*range(1, 11), 16, 32, 64])
