"""The sockets of the broker: those that it adopts."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.sockets import BrokerSockets
from tests.unit.test_sockets import Reactor, Transport


class AdoptedTests(SynchronousTestCase):
    """Real sockets, and a reactor that only remembers readers."""

    def setUp(self) -> None:
        """An open set."""
        self.reactor: Any = Reactor()
        self.sockets = BrokerSockets(self.reactor)
        self.sockets.open()
        self.addCleanup(self.sockets.close)

    def adopted(self) -> Transport:
        """A connection that the reactor has watched."""
        transport = Transport(self.reactor)
        self.addCleanup(transport.peer.close)
        self.addCleanup(transport.socket.close)
        transport.startReading()
        self.sockets.adopt(transport, lambda data: True, lambda: False)
        return transport

    def test_adopted(self) -> None:
        """A socket of the reactor is served by the set."""
        transport = self.adopted()
        self.assertEqual(self.reactor.readers, [self.sockets])
        self.assertIs(transport.reactor, self.sockets)
        transport.peer.send(b"hello")
        self.sockets.doRead()
        self.assertEqual(transport.events, [b"hello"])

    def test_returned(self) -> None:
        """The reactor watches it again when the set closes."""
        transport = self.adopted()
        transport.startWriting()
        self.sockets.close()
        self.assertEqual(self.reactor.readers, [transport])
        self.assertEqual(self.reactor.writers, [transport])
        self.assertIs(transport.reactor, self.reactor)

    def test_next_one(self) -> None:
        """An ended one is forgotten when the next one comes."""
        first = self.adopted()
        first.connectionLost(Failure(ConnectionDone()))
        second = self.adopted()
        self.assertEqual(list(self.sockets.adopted), [second])
