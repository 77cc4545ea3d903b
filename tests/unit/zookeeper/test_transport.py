"""The transport over a real loopback socket pair, with a reactor that only remembers the readers
and writers."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import main
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.sockets import SocketSet
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

    def test_received(self) -> None:
        """Bytes go to the protocol; nothing there, the end and an error are told to the caller."""
        received: list[bytes] = []
        self.transport.protocol = Protocol()
        self.transport.protocol.dataReceived = received.append
        self.assertIsNone(self.transport.doRead())
        self.peer.send(b"hello")
        self.assertIsNone(self.transport.doRead())
        self.assertEqual(received, [b"hello"])
        self.peer.shutdown(socket.SHUT_WR)
        self.assertIs(self.transport.doRead(), main.CONNECTION_DONE)
        self.socket.close()
        self.assertIs(self.transport.doRead(), main.CONNECTION_LOST)


class Client(Protocol):
    """One side of a connection; it remembers what comes."""

    transport: Any

    def __init__(self) -> None:
        self.events: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        """Bytes; zeros are too much for it."""
        self.events.append(data)
        if data == b"0":
            raise ZeroDivisionError

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end."""
        self.events.append(reason.type)


class PortTests(SynchronousTestCase):
    """A port with real sockets, and a reactor that only remembers readers and writers."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.clients: list[Client] = []
        self.peers: list[socket.socket] = []
        factory = ServerFactory()
        factory.buildProtocol = self.client
        self.port = ZooKeeperPort(0, factory, 5, "127.0.0.1", self.reactor)
        self.port.startListening()
        self.address = "127.0.0.1", self.port.getHost().port
        self.sockets = self.newest()
        self.addCleanup(self.close)

    def close(self) -> None:
        """The end; once more after a test's own."""
        for client in self.clients:
            client.transport.abortConnection()
        if self.port.connected:
            self.port.stopListening()
        self.reactor.advance(0)

    def client(self, address: object) -> Client:
        """One more."""
        self.clients.append(Client())
        return self.clients[-1]

    def connect(self, count: int) -> None:
        """So many clients come."""
        for _ in range(count):
            peer = socket.create_connection(self.address)
            self.addCleanup(peer.close)
            self.peers.append(peer)
            self.port.doRead()

    def readers(self) -> list[Any]:
        """What the reactor watches for input."""
        found: list[Any] = self.reactor.getReaders()
        return found

    def newest(self) -> SocketSet:
        """The set of the listening port."""
        (found,) = (reader for reader in self.readers() if isinstance(reader, SocketSet))
        return found

    def watchers(self) -> list[Any]:
        """What watches each client."""
        return [client.transport.reactor for client in self.clients]

    def send(self) -> None:
        """Every client sends something."""
        for peer in self.peers:
            peer.send(b"a")

    def test_sent_at_once(self) -> None:
        """Each connection gets such a transport."""
        self.connect(1)
        self.clients[0].transport.write(b"hello")
        self.peers[0].settimeout(10)
        self.assertEqual(self.peers[0].recv(10), b"hello")

    def test_lone(self) -> None:
        """The reactor watches a lone connection, and the next one when it has ended."""
        for number in range(2):
            self.connect(1)
            transport = self.clients[number].transport
            self.assertCountEqual(self.readers(), [self.port, self.sockets, transport])
            self.assertTrue(self.sockets.is_empty)
            transport.abortConnection()
            self.reactor.advance(0)

    def test_crowd(self) -> None:
        """From the second one on, all stand in the set, the first one too."""
        self.connect(1)
        self.assertEqual(self.watchers(), [self.reactor])
        self.connect(7)
        self.assertEqual(self.watchers(), [self.sockets] * 8)
        self.assertCountEqual(self.readers(), [self.port, self.sockets])
        self.send()
        self.sockets.doRead()
        self.assertEqual([client.events for client in self.clients], [[b"a"]] * 8)

    def test_end_of_one(self) -> None:
        """The others stay."""
        self.connect(3)
        self.peers.pop(1).close()
        self.sockets.doRead()
        self.send()
        self.sockets.doRead()
        events = [client.events for client in self.clients]
        self.assertEqual(events, [[b"a"], [ConnectionDone], [b"a"]])

    def test_fault_of_one(self) -> None:
        """It ends with its connection; the others are served."""
        self.connect(3)
        for peer, data in zip(self.peers, (b"a", b"0", b"b")):
            peer.send(data)
        self.sockets.doRead()
        events = [client.events for client in self.clients]
        self.assertEqual(events, [[b"a"], [b"0", ZeroDivisionError], [b"b"]])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_closed_behind_connections(self) -> None:
        """When the port is closed, as in a stop, the reactor serves the connections that remain,
        paused ones when they resume."""
        self.connect(3)
        first, second, third = (client.transport for client in self.clients)
        second.pauseProducing()
        third.write(bytes(LARGE))
        self.port.stopListening()
        self.reactor.advance(0)
        self.assertEqual(self.sockets.fileno(), -1)
        self.assertCountEqual(self.readers(), [first, third])
        self.assertEqual(self.reactor.getWriters(), [third])
        second.resumeProducing()
        self.assertCountEqual(self.readers(), [first, third, second])
        for transport in (first, third, second):
            transport.loseConnection()
        self.assertEqual(self.readers(), [])
        self.assertCountEqual(self.reactor.getWriters(), [third, first, second])

    def test_closed_with_connections(self) -> None:
        """When port and connections end together, as after a failed disk, nothing is left; the next
        port begins anew."""
        self.connect(3)
        self.port.stopListening()
        for client in self.clients:
            client.transport.abortConnection()
        self.reactor.advance(0)
        self.assertEqual([client.events for client in self.clients], [[ConnectionAborted]] * 3)
        self.assertEqual((self.readers(), self.reactor.getWriters()), ([], []))
        self.clients.clear()
        self.peers.clear()
        self.port.startListening()
        self.address = "127.0.0.1", self.port.getHost().port
        self.sockets = self.newest()
        self.connect(2)
        self.send()
        self.sockets.doRead()
        self.assertEqual([client.events for client in self.clients], [[b"a"]] * 2)
