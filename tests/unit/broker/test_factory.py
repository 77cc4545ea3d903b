"""The port and the shared parts of all connections."""

from __future__ import annotations

import select
import socket
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.factory import TALLY_SECONDS
from metamorphosis.config.model import Settings
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


class ListeningTests(SynchronousTestCase):
    """The parts that run while the port is open, and no longer."""

    def setUp(self) -> None:
        """A reactor that only notes its readers, and a port without connections."""
        self.broker = Broker(self.mktemp(), settings=Settings(idle_seconds=100))
        self.watched: list[Any] = []
        clock: Any = self.broker.clock
        clock.addReader = self.watched.append
        clock.removeReader = clock.removeWriter = self.forget
        self.port = self.broker.factory.listen(0, "127.0.0.1")

    def forget(self, reader: object) -> None:
        """``removeReader`` and ``removeWriter`` of a reactor, also for unknown readers."""
        if reader in self.watched:
            self.watched.remove(reader)

    def test_port(self) -> None:
        """The figures show the bound port."""
        self.assertGreater(self.port, 0)
        self.assertEqual(self.port, self.broker.responders.figures.port)
        self.assertEqual(2, len(self.watched))

    def test_client(self) -> None:
        """A client is served, and there are very many further places."""
        with socket.create_connection(("127.0.0.1", self.port)) as peer:
            self.watched[0].doRead()
            (connection,) = self.broker.factory.connections
            self.addCleanup(connection.transport.connectionLost, Failure(ConnectionDone()))
            peer.sendall(put(b"hello"))
            self.assertTrue(select.select([connection.transport], [], [], 10)[0])
            connection.transport.doRead()
            self.broker.clock.advance(0)
            peer.settimeout(10)
            self.assertIn(b"result 200", peer.recv(1000))

    def test_counters_catch_up(self) -> None:
        """The counts of the hot path are included, even if the figures are not read."""
        statistics = self.broker.responders.statistics
        client = self.broker.client()
        client.send(put(b"first"))
        client.send(put(b"hello"))
        for count in (2, 3):
            self.broker.clock.advance(TALLY_SECONDS - 1)
            self.assertLess(statistics.cmd_put, count)
            self.broker.clock.advance(1)
            self.assertEqual(count, statistics.cmd_put)
            client.send(put(b"again"))

    def test_idle_connections_are_closed(self) -> None:
        """After one whole interval without a byte."""
        idle, busy = self.broker.client(), self.broker.client()
        for closed in (False, True):
            busy.send(put(b"hello"))
            self.broker.clock.advance(100)
            lost = idle.transport.disconnected, busy.transport.disconnected
            self.assertEqual((closed, False), lost)

    def test_end(self) -> None:
        """The reactor has no reader and no timer of the port."""
        stopped = self.broker.factory.stop_accepting()
        self.broker.clock.advance(0)
        self.successResultOf(stopped)
        done = self.broker.factory.close_connections()
        self.broker.clock.pump([0, 0])
        self.successResultOf(done)
        self.assertEqual(([], []), (self.watched, self.broker.clock.getDelayedCalls()))


class ReportTests(SynchronousTestCase):
    """Log lines and figures about connections."""

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
