"""A set of sockets: the order of service, ends of connections, isolation of faults, its own end."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import main
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from metamorphosis.sockets import SocketSet
from tests.support.lanes import is_readable


class Reactor:
    """Remembers the watched readers."""

    def __init__(self) -> None:
        self.readers: list[Any] = []
        self.writers: list[Any] = []
        self.later: list[Any] = []

    def callLater(self, delay: float, call: Any) -> None:
        """For transports."""
        self.later.append(call)

    def addReader(self, reader: Any) -> None:
        """Watch it."""
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        """Stop watching it."""
        self.readers.remove(reader)

    def addWriter(self, writer: Any) -> None:
        """Watch it."""
        self.writers.append(writer)

    def removeWriter(self, writer: Any) -> None:
        """No longer."""
        self.writers.remove(writer)

    def getReaders(self) -> list[Any]:
        """The watched ones."""
        return self.readers

    def getWriters(self) -> list[Any]:
        """The watched ones."""
        return self.writers


class Transport:
    """One end of a socket pair that records the calls."""

    connected = True

    def __init__(self, sockets: SocketSet) -> None:
        self.socket, self.peer = socket.socketpair()
        self.socket.setblocking(False)
        self.fileno = self.socket.fileno
        self.sockets = sockets
        self.events: list[Any] = []
        self.fault: Exception | None = None

    def doRead(self) -> Exception | None:
        """Read the present bytes."""
        if self.fault is not None:
            raise self.fault
        data = self.socket.recv(100)
        self.events.append(data)
        return None if data else main.CONNECTION_DONE

    @property
    def reactor(self) -> Any:
        """What watches it."""
        return self.sockets

    @reactor.setter
    def reactor(self, reactor: Any) -> None:
        self.sockets = reactor

    def startReading(self) -> None:
        """As Twisted's do."""
        self.sockets.addReader(self)

    def stopReading(self) -> None:
        """As Twisted's do."""
        self.sockets.removeReader(self)

    def startWriting(self) -> None:
        """As Twisted's do."""
        self.sockets.addWriter(self)

    def doWrite(self) -> None:
        """There is room."""
        self.events.append("write")
        self.sockets.removeWriter(self)

    def readConnectionLost(self, reason: Failure) -> None:
        """The peer has closed its side."""
        self.events.append("half closed")

    def connectionLost(self, reason: Failure) -> None:
        """The end."""
        self.events.append(reason.type)
        self.connected = False
        self.sockets.removeReader(self)
        self.sockets.removeWriter(self)
        self.socket.close()


class SocketSetTests(SynchronousTestCase):
    """Real sockets, and a reactor that only remembers readers."""

    def setUp(self) -> None:
        """An open set."""
        self.reactor = Reactor()
        self.sockets = SocketSet(self.reactor)
        self.sockets.open()
        self.addCleanup(self.sockets.close)

    def transport(self) -> Transport:
        """A connection that wants to read."""
        transport = Transport(self.sockets)
        self.addCleanup(transport.peer.close)
        self.addCleanup(transport.socket.close)
        self.sockets.addReader(transport)
        return transport

    def ready(self) -> bool:
        """Whether the reactor would see the set as readable."""
        return is_readable(self.sockets)

    def test_calls_of_transports(self) -> None:
        """The calls with which Twisted's transports end, which take the set for the reactor."""
        self.sockets.callLater(0, self.setUp)
        self.assertEqual(self.reactor.later, [self.setUp])

    def test_one_descriptor_for_all(self) -> None:
        """The reactor watches one descriptor, readable exactly when a socket is ready."""
        verifyObject(IReadDescriptor, self.sockets)
        self.assertEqual(self.reactor.readers, [self.sockets])
        one, two = self.transport(), self.transport()
        self.assertFalse(self.ready())
        one.peer.send(b"a")
        two.peer.send(b"b")
        self.assertTrue(self.ready())
        self.sockets.doRead()
        self.assertEqual((one.events, two.events), ([b"a"], [b"b"]))
        self.assertFalse(self.ready())

    def test_paused_socket_is_left_alone(self) -> None:
        """A paused connection is not served, not even when its peer has closed."""
        transport = self.transport()
        self.sockets.removeReader(transport)
        transport.peer.send(b"a")
        transport.peer.close()
        self.assertFalse(self.ready())
        self.sockets.addReader(transport)
        self.sockets.doRead()
        self.assertEqual(transport.events, [b"a"])

    def watched(self) -> Transport:
        """A connection that the reactor watches for input."""
        transport = Transport(self.reactor)  # type: ignore[arg-type]
        self.addCleanup(transport.peer.close)
        self.addCleanup(transport.socket.close)
        transport.startReading()
        return transport

    def test_taken_over(self) -> None:
        """A socket of the reactor is served by the set, for the same events."""
        transport = self.watched()
        transport.startWriting()
        self.sockets.take_over(transport)
        self.assertEqual((self.reactor.readers, self.reactor.writers), ([self.sockets], []))
        self.assertIs(transport.reactor, self.sockets)
        transport.peer.send(b"hello")
        self.sockets.doRead()
        self.assertEqual(transport.events, [b"hello", "write"])

    def test_taken_over_while_paused(self) -> None:
        """It is watched when it resumes."""
        transport = self.watched()
        transport.stopReading()
        self.sockets.take_over(transport)
        transport.peer.send(b"hello")
        self.assertFalse(self.ready())
        self.assertTrue(self.sockets.is_empty)
        transport.startReading()
        self.assertTrue(self.ready())
        self.assertFalse(self.sockets.is_empty)

    def test_closed(self) -> None:
        """The reactor watches what the set has watched, for the same events."""
        one, two = self.transport(), self.transport()
        self.sockets.addWriter(two)
        self.sockets.close()
        self.assertEqual(self.reactor.readers, [one, two])
        self.assertEqual(self.reactor.writers, [two])
        self.assertIs(one.reactor, self.reactor)

    def test_closed_while_one_is_paused(self) -> None:
        """Its calls still go to the set, which passes them on to the reactor."""
        transport = self.transport()
        transport.stopReading()
        self.sockets.close()
        transport.startReading()
        transport.startWriting()
        self.assertEqual((self.reactor.readers, self.reactor.writers), ([transport], [transport]))
        transport.stopReading()
        transport.doWrite()
        self.assertEqual((self.reactor.readers, self.reactor.writers), ([], []))

    def test_closed_while_it_serves(self) -> None:
        """The sockets that are left of the round are the reactor's."""
        one, two = self.transport(), self.transport()
        for transport in (one, two):
            transport.peer.send(b"a")
            transport.doRead = self.sockets.close  # type: ignore[method-assign]
        self.sockets.doRead()
        self.assertEqual(self.reactor.readers, [one, two])

    def test_writer(self) -> None:
        """A socket with room is written to, once it asks for it."""
        transport = self.transport()
        self.sockets.addWriter(transport)
        self.sockets.doRead()
        self.sockets.doRead()
        self.assertEqual(transport.events, ["write"])

    def test_half_close_is_no_end(self) -> None:
        """The end of the peer's input is passed on as a half close, and the socket is not read
        again."""
        transport = self.transport()
        transport.peer.shutdown(socket.SHUT_WR)
        self.sockets.doRead()
        self.assertEqual(transport.events, [b"", "half closed"])
        self.assertFalse(self.ready())

    def test_reset_while_paused_writer(self) -> None:
        """A peer that is gone while only a writer waits ends the connection."""
        transport = self.transport()
        self.sockets.removeReader(transport)
        while True:
            try:
                transport.socket.send(b"x" * 65536)
            except BlockingIOError:
                break
        self.sockets.addWriter(transport)
        transport.peer.close()
        self.sockets.doRead()
        self.assertEqual(transport.events[-1], ConnectionLost)

    def test_fault_of_one(self) -> None:
        """An error while one connection is served ends it; the others continue."""
        one, two = self.transport(), self.transport()
        one.fault = ZeroDivisionError("bug")
        one.peer.send(b"a")
        two.peer.send(b"b")
        self.sockets.doRead()
        self.assertEqual(one.events, [ZeroDivisionError])
        self.assertEqual(two.events, [b"b"])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_what_ends_is_watched_no_more(self) -> None:
        """An ended connection is watched neither for input nor for room, even if its transport does
        not remove itself."""
        transport = self.transport()
        self.sockets.addWriter(transport)
        self.patch(transport, "connectionLost", lambda reason: transport.events.append(reason.type))
        transport.fault = ZeroDivisionError("bug")
        transport.peer.send(b"a")
        self.sockets.doRead()
        self.assertEqual(transport.events, [ZeroDivisionError])
        self.assertFalse(self.ready())
        self.flushLoggedErrors(ZeroDivisionError)

    def test_closed_by_another_in_the_same_round(self) -> None:
        """A socket that an earlier one of the round has closed is not touched."""
        one, two = self.transport(), self.transport()
        for transport in (one, two):
            transport.peer.send(b"a")
        one.doRead = lambda: two.connectionLost(Failure(ConnectionDone()))  # type: ignore
        two.doRead = lambda: one.connectionLost(Failure(ConnectionDone()))  # type: ignore
        self.sockets.doRead()
        self.assertEqual(sorted([one.connected, two.connected]), [False, True])

    def test_end_of_the_reactor(self) -> None:
        """Open connections end, and the descriptor is closed."""
        transport = self.transport()
        self.sockets.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(transport.events, [ConnectionDone])
        self.assertEqual((self.sockets.fileno(), self.reactor.readers), (-1, []))
