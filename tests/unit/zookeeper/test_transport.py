"""The transport over a real loopback socket pair, with a reactor that only remembers the readers
and writers."""

from __future__ import annotations

import socket

from twisted.internet import main
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.transport import ZooKeeperPort, ZooKeeperTransport

LARGE = 8 << 20


class Producer:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def pauseProducing(self) -> None:
        """The queue is long."""
        self.events.append("pause")

    def resumeProducing(self) -> None:
        """The queue is empty again."""
        self.events.append("resume")

    def stopProducing(self) -> None:
        """The connection is gone."""
        self.events.append("stop")


class TransportTests(SynchronousTestCase):
    """Bytes out."""

    def setUp(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.peer = socket.create_connection(listener.getsockname())
        self.socket, address = listener.accept()
        listener.close()
        self.socket.setblocking(False)
        self.reactor = MemoryReactorClock()
        self.producer = Producer()
        self.transport = ZooKeeperTransport(
            self.socket,
            None,
            address,
            None,
            1,
            self.reactor,  # type: ignore[arg-type]
        )
        self.transport.registerProducer(self.producer, True)
        self.addCleanup(self.peer.close)
        self.addCleanup(self.socket.close)
        self.peer.settimeout(10)

    def received(self, count: int) -> bytes:
        """This number of bytes at the other end; queued ones are sent meanwhile."""
        data = b""
        while len(data) < count:
            if self.waits():
                self.assertIsNone(self.transport.doWrite())
            data += self.peer.recv(count - len(data))
        return data

    def waits(self) -> bool:
        """Whether the reactor is to say when the socket takes more."""
        return self.transport in self.reactor.getWriters()

    def test_sent_at_once(self) -> None:
        """What the socket takes leaves without the reactor."""
        self.transport.write(b"one")
        self.transport.write(b"two")
        self.assertFalse(self.waits())
        self.assertEqual(self.received(6), b"onetwo")

    def test_peer_does_not_read(self) -> None:
        """The rest is queued, and what comes later goes after it; then the direct way is free."""
        large = bytes(range(256)) * (LARGE // 256)
        self.transport.write(large)
        self.assertTrue(self.waits())
        self.assertEqual(self.producer.events, ["pause"])
        self.transport.write(b"behind")
        self.assertEqual(self.received(LARGE + 6), large + b"behind")
        self.assertIsNone(self.transport.doWrite())
        self.assertFalse(self.waits())
        self.assertEqual(self.producer.events[1:], ["pause", "resume"])
        self.transport.write(b"again")
        self.assertFalse(self.waits())
        self.assertEqual(self.received(5), b"again")

    def test_lost_peer(self) -> None:
        """An error of the socket raises no exception in ``write``; the reactor finds it."""
        self.socket.shutdown(socket.SHUT_WR)
        self.transport.write(b"nobody reads this")
        self.assertTrue(self.waits())
        self.assertIs(self.transport.doWrite(), main.CONNECTION_LOST)

    def test_closed_behind_what_was_written(self) -> None:
        """Nothing is lost at the end."""
        self.transport.write(b"bye")
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self.assertIs(self.transport.doWrite(), main.CONNECTION_DONE)
        self.assertEqual(self.received(3), b"bye")

    def test_gone(self) -> None:
        """What is written to a connection that is gone is dropped."""
        self.transport.connected = False
        self.transport.write(b"late")
        self.peer.setblocking(False)
        self.assertRaises(BlockingIOError, self.peer.recv, 10)

    def test_port(self) -> None:
        """Each connection to the port gets such a transport."""
        accepted: list[Protocol] = []
        factory = ServerFactory()
        factory.buildProtocol = lambda addr: accepted.append(Protocol()) or accepted[-1]
        port = ZooKeeperPort(0, factory, 5, "127.0.0.1", self.reactor)
        port.startListening()
        peer = socket.create_connection(("127.0.0.1", port.getHost().port))
        self.addCleanup(peer.close)
        port.doRead()
        (protocol,) = accepted
        protocol.transport.write(b"hello")
        peer.settimeout(10)
        self.assertEqual(peer.recv(10), b"hello")
        protocol.transport.abortConnection()
        port.stopListening()
        self.reactor.advance(0)
