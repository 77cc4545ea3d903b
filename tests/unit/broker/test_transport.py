"""The transport over a real loopback socket pair, with a reactor that only remembers the readers
and writers."""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import Any

from twisted.internet import main
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.congestion import CongestionControl
from metamorphosis.broker.transport import QUEUE_LIMIT, BrokerPort, BrokerTransport


class Reactor:
    """Remembers the watched transports; the test makes the events."""

    def __init__(self) -> None:
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        """Watch for input."""
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        """Stop watching for input."""
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        """Watch for room."""
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        """Stop watching for room."""
        self.writers.discard(writer)


class Peer:
    """The protocol: offers room, records the calls."""

    def __init__(self) -> None:
        self.inbox = self
        self.buffer = bytearray(10)
        self.chunks: list[bytes] = []
        self.events: list[str] = []

    def room(self) -> memoryview:
        """Ten bytes."""
        return memoryview(self.buffer)

    def received(self, count: int) -> None:
        """That number of bytes arrived."""
        self.chunks.append(bytes(self.buffer[:count]))

    def pauseProducing(self) -> None:
        """The queue is long."""
        self.events.append("pause")

    def resumeProducing(self) -> None:
        """The queue is short again."""
        self.events.append("resume")

    def stopProducing(self) -> None:
        """The connection is gone."""
        self.events.append("stop")

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""
        self.events.append("lost")


class Segment:
    """A file that counts its users."""

    def __init__(self, path: str, data: bytes) -> None:
        with open(path, "wb") as file:
            file.write(data)
        self.path = path
        self.fd = os.open(path, os.O_RDONLY)
        self.readers = 0

    def retain(self) -> None:
        """Count one more user."""
        self.readers += 1

    def release(self) -> None:
        """Count one less."""
        self.readers -= 1


class Slow:
    """A socket that takes four bytes at a time."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real

    def send(self, data: bytes, flags: int = 0) -> int:
        """See ``socket``."""
        return self._real.send(data[:4], flags)

    def fileno(self) -> int:
        """See ``socket``."""
        return self._real.fileno()


class TransportTests(SynchronousTestCase):
    """Bytes in, bytes and file ranges out."""

    def setUp(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.peer = socket.create_connection(listener.getsockname())
        accepted, address = listener.accept()
        listener.close()
        self.reactor = Reactor()
        self.protocol = Peer()
        self.transport = BrokerTransport(
            accepted,
            self.protocol,
            address,
            None,
            1,
            self.reactor,  # type: ignore[arg-type]
        )
        self.transport.registerProducer(self.protocol, True)
        self.addCleanup(self.peer.close)
        self.addCleanup(accepted.close)
        self.peer.settimeout(10)

    def segment(self, data: bytes) -> Segment:
        """A file with this content."""
        segment = Segment(self.mktemp(), data)
        self.addCleanup(os.close, segment.fd)
        return segment

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes at the peer, playing the reactor meanwhile."""
        received = bytearray()
        while len(received) < count:
            if self.transport in self.reactor.writers:
                self.assertIsNone(self.transport.doWrite())
            self.peer.setblocking(self.transport not in self.reactor.writers)
            try:
                received += self.peer.recv(count - len(received))
            except BlockingIOError:
                pass
        return bytes(received)

    def fill(self) -> int:
        """Write until the socket is full and bytes are queued; returns the number of written
        bytes."""
        written = 0
        while not self.transport.queued_bytes:
            self.transport.write(b"x" * 65536)
            written += 65536
        return written

    def test_receives_into_the_protocols_room(self) -> None:
        """Bytes arrive in the protocol's room, in pieces no larger than it."""
        self.peer.sendall(b"0123456789abc")
        self.assertIsNone(self.transport.doRead())
        self.assertIsNone(self.transport.doRead())
        self.assertEqual(self.protocol.chunks, [b"0123456789", b"abc"])
        self.assertIsNone(self.transport.doRead())

    def test_end_of_input(self) -> None:
        """A peer that closes is reported as the reactor expects it."""
        self.peer.shutdown(socket.SHUT_WR)
        self.assertIs(self.transport.doRead(), main.CONNECTION_DONE)

    def test_write_sends_at_once(self) -> None:
        """A reply is sent when ``write`` returns, without a turn of the reactor."""
        self.transport.write(b"reply")
        self.assertEqual(self.peer.recv(10), b"reply")
        self.assertEqual(self.reactor.writers, set())

    def test_order_of_bytes_and_files(self) -> None:
        """Bytes and ranges queued behind a full socket leave complete and in order."""
        data = os.urandom(3_000_000)
        segment = self.segment(data)
        first = self.fill()
        self.transport.write(b"one")
        self.transport.write_file(b"head1", segment, 10, 2_000_000)  # type: ignore[arg-type]
        self.transport.write(b"two")
        self.transport.write_file(b"head2", segment, 2_999_999, 1)  # type: ignore[arg-type]
        self.assertEqual(segment.readers, 2)
        expected = b"one" + b"head1" + data[10:2_000_010] + b"two" + b"head2" + data[-1:]
        self.read(first)
        self.assertEqual(self.read(len(expected)), expected)
        self.assertEqual(segment.readers, 0)
        self.assertEqual(self.transport.queued_bytes, 0)
        self.assertEqual(self.reactor.writers, set())

    def test_file_sent_in_part(self) -> None:
        """A range of which the socket takes the beginning goes on behind it."""
        data = os.urandom(3_000_000)
        segment = self.segment(data)
        self.transport.write_file(b"head", segment, 0, len(data))  # type: ignore[arg-type]
        self.assertGreater(len(data), self.transport.queued_bytes)
        self.assertEqual(b"head" + data, self.read(4 + len(data)))

    def test_file_at_once(self) -> None:
        """A range that the socket takes completely needs no queue and no reference."""
        segment = self.segment(b"0123456789")
        self.transport.write_file(b"value 4 1\r\n", segment, 3, 4)  # type: ignore[arg-type]
        self.assertEqual(self.read(15), b"value 4 1\r\n3456")
        self.assertEqual((segment.readers, self.reactor.writers), (0, set()))

    def test_head_in_pieces(self) -> None:
        """A socket that takes a part of the head gets the rest of it before the range."""
        segment = self.segment(b"0123456789")
        taking = self.transport.socket
        self.transport.socket = Slow(taking)
        self.transport.write_file(b"value 4 1\r\n", segment, 3, 4)  # type: ignore[arg-type]
        self.transport.socket = taking
        self.assertEqual((self.transport.queued_bytes, segment.readers), (11, 1))
        self.assertEqual(self.read(15), b"value 4 1\r\n3456")
        self.assertEqual((segment.readers, self.reactor.writers), (0, set()))

    def test_file_shorter_than_promised_closes(self) -> None:
        """If the file is shorter than the announced length the connection ends."""
        segment = self.segment(b"0123")
        self.transport.write_file(b"value 9 1\r\n", segment, 0, 9)  # type: ignore[arg-type]
        self.assertIs(self.transport.doWrite(), main.CONNECTION_LOST)

    def test_long_queue_pauses_the_producer(self) -> None:
        """Bytes of files count: a client that pipelines gets and does not read is not read from."""
        segment = self.segment(b"x" * QUEUE_LIMIT)
        self.fill()
        self.assertEqual(self.protocol.events, [])
        self.transport.write_file(b"h", segment, 0, QUEUE_LIMIT)  # type: ignore[arg-type]
        self.assertEqual(self.protocol.events, ["pause"])
        self.read(self.transport.queued_bytes)
        self.assertEqual(self.protocol.events, ["pause", "resume"])

    def test_close_waits_for_the_queue(self) -> None:
        """``loseConnection`` sends what is queued first."""
        written = self.fill()
        self.transport.loseConnection()
        received = 0
        result = None
        while result is None:
            received += len(self.peer.recv(1 << 20))
            result = self.transport.doWrite()
        self.assertIs(result, main.CONNECTION_DONE)
        while received < written:
            received += len(self.peer.recv(1 << 20))
        self.assertEqual(received, written)

    def test_lost_connection_lets_go_of_files(self) -> None:
        """Unsent ranges of a lost connection do not keep deleted segments on the disk."""
        segment = self.segment(b"x" * 100)
        self.fill()
        self.transport.write_file(b"h", segment, 0, 100)  # type: ignore[arg-type]
        self.assertEqual(segment.readers, 1)
        self.transport.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(segment.readers, 0)
        self.assertEqual(self.protocol.events[-1], "lost")

    def test_lost_machine(self) -> None:
        """A peer that stops to answer is noticed in the given time, at least 5 s: on a quiet
        connection by probes, on one with unsent bytes because nobody takes them."""

        def option(name: int) -> int:
            return self.transport.socket.getsockopt(socket.IPPROTO_TCP, name)

        for seconds in (1, 6, 30, 60):
            self.transport.notice_loss(seconds)
            probes = option(socket.TCP_KEEPCNT) * option(socket.TCP_KEEPINTVL)
            idle = option(socket.TCP_KEEPIDLE)
            self.assertEqual(option(socket.TCP_USER_TIMEOUT), seconds * 1000)
            self.assertEqual(idle + probes, max(seconds, 5))

    def test_write_after_reset_is_left_to_the_reactor(self) -> None:
        """An error of a send is not raised by ``write``, but reported as a lost connection."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.peer.close()
        self.transport.write(b"a")
        self.transport.write(b"b")
        self.transport.write(b"c")
        self.assertIs(self.transport.doWrite(), main.CONNECTION_LOST)


class Places:
    """A factory with four places."""

    max_connections = 4

    def __init__(self) -> None:
        self.connections: list[int] = []


class PortTests(SynchronousTestCase):
    """A port whose places are taken."""

    def setUp(self) -> None:
        """A port with four places, whose reading is noted."""
        self.clock, self.places = Clock(), Places()
        self.port = BrokerPort(0, self.places, reactor=self.clock)
        self.port.connected = True
        self.calls: list[str] = []
        for name in ("startReading", "stopReading"):
            self.patch(self.port, name, partial(self.calls.append, name))

    def taken(self, count: int) -> None:
        """A client has connected or left; ``count`` places are taken now."""
        self.places.connections = [0] * count
        if count == 4:
            self.port.doRead()
        else:
            self.port.connection_ended()

    def test_watchers(self) -> None:
        """The first few connections are watched by the reactor, unless the set of sockets looks
        first; all others by the set."""
        for looks_first, expected in ((False, ["reactor"] * 4 + ["set"] * 2), (True, ["set"] * 6)):
            places: Any = Places()
            places.congestion = CongestionControl()
            reactor, sockets = Reactor(), Reactor()
            port = BrokerPort(0, places, reactor=Clock())
            port.sockets = sockets  # type: ignore[assignment]
            sockets.looks_first = looks_first  # type: ignore[attr-defined]
            found = []
            for number in range(6):
                ours, peer = socket.socketpair(socket.AF_UNIX)
                self.addCleanup(ours.close)
                self.addCleanup(peer.close)
                self.patch(BrokerTransport, "setTcpNoDelay", lambda *_: None)
                self.patch(BrokerTransport, "setTcpKeepAlive", lambda *_: None)
                transport = port.transport(ours, Peer(), ("h", 1), port, number, reactor)
                found.append("set" if transport.reactor is sockets else "reactor")
                places.connections.append(number)
            self.assertEqual(expected, found)

    def test_lines(self) -> None:
        """One log line when all are taken, one when enough have been free for a while."""
        with capturedLogs() as lines:
            for count, pause in ((4, 0), (3, 60), (4, 0), (0, 0), (4, 60), (0, 60)):
                self.taken(count)
                self.assertLess(len(lines), 2, (count, pause))
                self.clock.advance(pause)
        texts = [line["log_format"].partition(" ")[0] for line in lines]
        self.assertEqual(["All", "There"], texts)

    def test_reading(self) -> None:
        """The port stops when no place is free, and starts once when one is free again."""
        for count in (4, 3, 2, 0, 4, 3):
            self.taken(count)
        self.assertEqual(["stopReading", "startReading"] * 2, self.calls)

    def test_time_begins_anew(self) -> None:
        """Places that are taken during the time of easing end it; the next time is a whole one."""
        self.taken(4)
        self.taken(0)
        self.clock.advance(9)
        self.taken(4)
        self.assertEqual([], self.clock.getDelayedCalls())
        self.taken(0)
        with capturedLogs() as lines:
            self.clock.advance(9)
            self.assertEqual([], lines)
            self.clock.advance(1)
        self.assertEqual(1, len(lines))

    def test_closed(self) -> None:
        """Connections that end after the port was closed start no timer."""
        self.taken(4)
        self.port.connected = False
        self.taken(0)
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual(["stopReading"], self.calls)
