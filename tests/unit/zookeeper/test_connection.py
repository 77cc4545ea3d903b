"""Frames in, packets out, and the limits of one connection."""

from __future__ import annotations

import struct

from kazoo.protocol.serialization import Connect
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from metamorphosis.zookeeper import connection, requests, watches
from metamorphosis.zookeeper.server import Client
from tests.support.zookeeperpeer import CHILDREN_CHANGED, DATA_CHANGED, handshake, integers, text
from tests.support.zookeeperserved import CLOSE, EXISTS, PING, Served, Wire, frame

MIB = 1 << 20


@implementer(ITCPTransport)
class TcpTransport(StringTransport):
    """The calls of a socket."""

    no_delay = keep_alive = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See ``ITCPTransport``."""
        self.no_delay = enabled

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """See ``ITCPTransport``."""
        self.keep_alive = enabled


class ConnectionTestCase(SynchronousTestCase):
    """One server."""

    def setUp(self) -> None:
        self.served = Served()
        self.texts: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: dict[str, object]) -> None:
        """Keep what our own code logs."""
        if str(event.get("log_namespace", "")).startswith("metamorphosis"):
            self.texts.append(str(event["log_format"]).format_map(event))

    def aborted(self, wire: Wire) -> bool:
        """The connection was cut; its end is delivered."""
        if wire.transport.disconnected:
            wire.lose()
        return wire.transport.disconnected


class FrameTests(ConnectionTestCase):
    """Bytes in."""

    def test_handshake(self) -> None:
        """kazoo reads the answer to its frame, which waits until the session is on the disk."""
        wire = self.served.wire()
        wire.deliver(frame(bytes(Connect(0, 0, 10000, 0, bytes(16), False).serialize())))
        self.assertEqual(wire.transport.value(), b"")
        self.served.turn()
        (packet,) = wire.packets()
        answer, _ = Connect.deserialize(packet, 0)
        session = wire.protocol.session
        assert session is not None
        self.assertEqual((answer.session_id, answer.passwd), (session.id, session.password))
        self.assertEqual(self.served.storage.batches[0][1], [session.id])

    def test_interfaces(self) -> None:
        """It is what the server and the transport take it for."""
        wire = self.served.client()
        verifyObject(IPushProducer, wire.protocol)
        client: Client = wire.protocol  # mypy holds it to the seam
        self.assertEqual(client.identities, [("ip", "127.0.0.1")])

    def test_peer_that_does_not_read(self) -> None:
        """The transport pauses us when its buffer is full, not at each of its turns."""
        wire = self.served.client()
        self.assertIs(wire.transport.producer, wire.protocol)
        self.assertTrue(wire.transport.streaming)

    def test_socket(self) -> None:
        """A peer whose machine is gone is noticed, and an event waits for no acknowledgement."""
        transport = TcpTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 50000))
        protocol = self.served.factory.buildProtocol(transport.getPeer())
        protocol.makeConnection(transport)
        self.assertEqual((True, True), (transport.no_delay, transport.keep_alive))
        protocol.abort()
        protocol.connectionLost()

    def test_closing_connection_reads_no_more(self) -> None:
        """Also when the peer, which had stopped to read, takes what it is sent."""
        for end in ("close", "abort"):
            wire = self.served.client()
            wire.transport.producer.pauseProducing()
            getattr(wire.protocol, end)()
            wire.protocol.resumeProducing()
            self.assertEqual(wire.transport.producerState, "paused", end)

    def test_longest_handshake(self) -> None:
        """1,024 bytes, the limit, are taken; what stands behind the known fields is left."""
        wire = self.served.wire()
        wire.deliver(frame(handshake().ljust(1024, b"\0")))
        self.served.turn()
        self.assertEqual([37], [len(packet) for packet in wire.packets()])

    def test_byte_by_byte(self) -> None:
        """Frames may come in pieces of any size."""
        wire = self.served.wire()
        for byte in frame(handshake()):
            wire.deliver(bytes([byte]))
        self.served.turn()
        self.assertEqual(len(wire.packets()), 1)
        for byte in wire.get("/") + wire.get("/zookeeper"):
            wire.deliver(bytes([byte]))
        self.assertEqual(wire.xids(), [1, 2])

    def test_every_cut(self) -> None:
        """Two frames cut in two anywhere."""
        wire = self.served.client()
        data = wire.get("/") + wire.get("/zookeeper")
        for cut in range(len(data) + 1):
            wire.deliver(data[:cut])
            wire.deliver(data[cut:])
            self.assertEqual(wire.xids(), [1, 2], cut)

    def test_handshake_and_requests_in_one_chunk(self) -> None:
        """What is pipelined after the handshake is answered after it."""
        wire = self.served.wire()
        wire.deliver(frame(handshake()) + wire.get("/") + wire.create("/a") + wire.get("/a"))
        self.served.turn()
        answer, *replies = wire.packets()
        self.assertEqual(len(answer), 37)
        self.assertEqual([reply[:4] for reply in replies], [integers(n) for n in (1, 2, 3)])

    def test_replies_of_a_chunk_are_one_write(self) -> None:
        """A pipeline costs one system call."""
        wire = self.served.client()
        writes: list[bytes] = []
        self.patch(wire.transport, "write", writes.append)
        wire.deliver(b"".join(wire.get("/") for _ in range(50)))
        self.assertEqual(len(writes), 1)

    def test_turn_ends(self) -> None:
        """After 200 requests the others get their turn; the rest is answered in the next ones, in
        order, and until then nothing is read."""
        wire = self.served.client()
        writes: list[bytes] = []
        self.patch(wire.transport, "write", writes.append)
        wire.deliver(b"".join(wire.get("/") for _ in range(500)) + wire.get("/")[:5])
        self.assertEqual(wire.transport.producerState, "paused")
        self.served.turn()
        wire.transport.io.write(b"".join(writes))
        self.assertEqual(wire.xids(), list(range(1, 501)))
        size = len(writes[0]) // 200
        self.assertEqual([len(data) // size for data in writes], [200, 200, 100])
        self.assertEqual(wire.transport.producerState, "producing")

    def test_chunk_between_turns(self) -> None:
        """What comes although reading is paused stands behind what waits."""
        wire = self.served.client()
        wire.deliver(b"".join(wire.get("/") for _ in range(250)))
        wire.deliver(wire.get("/"))
        self.assertEqual(wire.xids(), list(range(1, 201)))
        self.served.turn()
        self.assertEqual(wire.xids(), list(range(201, 252)))

    def test_longest_frame(self) -> None:
        """1,048,575 bytes are accepted, as in ZooKeeper."""
        wire = self.served.client()
        wire.deliver(wire.create("/a"))
        empty = len(wire.set("/a", b""))
        data = b"x" * (1_048_575 + 4 - empty)
        wire.deliver(wire.set("/a", data))
        self.served.turn()
        self.assertEqual(wire.xids(), [1, 3])
        self.assertEqual(self.served.tree.nodes["/a"].data, data)

    def test_too_long_frame(self) -> None:
        """One byte more closes the connection at its length, before it has come; the session
        lives on."""
        wire = self.served.client()
        wire.deliver(integers(1_048_576))
        self.assertTrue(self.aborted(wire))
        self.assertEqual(len(self.served.sessions.by_id), 1)
        self.assertIn("a frame of 1048576 bytes", self.texts[-1])

    def test_garbage(self) -> None:
        """Whatever it is, it closes its own connection and no other, and keeps nothing."""
        other = self.served.client()
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\xff" * 100,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03",
            integers(1025) + bytes(1025),
            frame(b"short"),
            frame(handshake(zxid=1 << 40)),
        ):
            wire = self.served.wire()
            wire.deliver(garbage)
            transport = wire.transport
            self.assertTrue(transport.disconnected or transport.disconnecting, garbage)
            wire.lose()
        self.assertEqual(list(self.served.members.connections), [other.protocol])
        other.deliver(other.get("/"))
        self.assertEqual(other.xids(), [1])
        self.assertEqual(self.served.clock.getDelayedCalls(), [])

    def test_complaints_about_garbage_thin_out(self) -> None:
        """The log says it ten times, then at every power of two."""
        for _ in range(40):
            wire = self.served.wire()
            wire.deliver(b"garbage!")
            wire.lose()
        said = [text for text in self.texts if text.startswith("Closing")]
        self.assertEqual(len(said), 12)

    def test_silence(self) -> None:
        """Without a handshake within 10 s a connection is closed, also in the middle of it."""
        for start in (b"", frame(handshake())[:20]):
            wire = self.served.wire()
            wire.deliver(start)
            self.served.clock.advance(9.9)
            self.assertFalse(wire.transport.disconnected)
            self.served.clock.advance(0.2)
            self.assertTrue(self.aborted(wire))
        client = self.served.client()
        self.served.clock.advance(20)
        self.assertFalse(client.transport.disconnected, "shook hands")

    def test_failing_server(self) -> None:
        """An error of ours is logged and closes its connection; earlier replies are sent, and other
        connections stay open."""
        wire = self.served.client()
        other = self.served.client()
        self.patch(requests, "_listed", lambda *asked: 1 / 0)
        wire.deliver(wire.get("/") + wire.request(8, text("/") + b"\0") + wire.get("/"))
        self.assertTrue(wire.transport.disconnecting)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(wire.xids(), [1])
        self.assertFalse(other.transport.disconnecting)
        self.assertIn("A request of", self.texts[-1])

    def test_too_many_watches(self) -> None:
        """A connection above the limit is closed with a log line that names it; its session
        stays."""
        self.patch(watches, "LIMIT", 1000)
        wire = self.served.client()
        for number in range(5):
            wire.deliver(wire.request(EXISTS, text(f"/{number}") + b"\1"))
        self.assertTrue(wire.transport.disconnecting)
        self.assertEqual(wire.xids(), [1, 2, 3, 4])
        self.assertEqual(len(self.served.server.sessions.by_id), 1)
        (line,) = self.texts
        self.assertIn("54321", line)
        self.assertIn("more than 1000 bytes of watches", line)


class OrderTests(ConnectionTestCase):
    """Packets out, and what they wait for."""

    def setUp(self) -> None:
        super().setUp()
        self.one = self.served.client()
        self.two = self.served.client()
        self.served.threads.hold()

    def test_read_waits_for_nothing(self) -> None:
        """With an idle disk a reply leaves at once."""
        self.one.deliver(self.one.get("/"))
        self.assertEqual(self.one.xids(), [1])

    def test_change_waits_for_the_disk(self) -> None:
        """The reply to a change leaves when the change is on the disk."""
        self.one.deliver(self.one.create("/a"))
        self.served.turn()
        self.assertEqual(self.one.xids(), [])
        self.served.threads.release_one()
        self.assertEqual(self.one.xids(), [1])

    def test_failed_change_waits_too(self) -> None:
        """It has a zxid, which must not be given again after a restart."""
        self.one.deliver(self.one.create("/no/such"))
        self.served.turn()
        self.assertEqual(self.one.xids(), [])
        self.served.threads.release_one()
        self.assertEqual(self.one.xids(), [1])

    def test_read_behind_a_change(self) -> None:
        """A read after a change keeps its place; one before it does not wait."""
        one = self.one
        one.deliver(one.get("/") + one.create("/a") + one.get("/a") + one.request(PING))
        self.assertEqual(one.xids(), [1])
        self.served.turn()
        self.served.threads.release_one()
        self.assertEqual(one.xids(), [2, 3, 4])

    def test_reader_of_what_is_not_on_disk(self) -> None:
        """Another client's read waits for the change that it may have seen."""
        self.one.deliver(self.one.create("/a"))
        self.two.deliver(self.two.get("/a"))
        self.served.turn()
        self.assertEqual(self.two.xids(), [])
        self.served.threads.release_one()
        self.assertEqual(self.two.xids(), [1])

    def test_batches_in_order(self) -> None:
        """Replies of two batches leave one after the other."""
        self.one.deliver(self.one.create("/a"))
        self.served.turn()
        self.one.deliver(self.one.create("/b"))
        self.assertEqual(self.one.protocol.waiting, 2)
        self.served.threads.release_one()
        self.assertEqual(self.one.xids(), [1])
        self.served.turn()
        self.assertEqual(self.one.xids(), [])
        self.served.threads.release_one()
        self.assertEqual(self.one.xids(), [2])

    def test_event_before_the_new_data(self) -> None:
        """A watcher gets the event, when it is true for good, and then what it reads."""
        self.served.threads.release()
        self.two.deliver(self.two.get("/zookeeper", True))
        self.two.packets()
        self.served.threads.hold()
        self.one.deliver(self.one.set("/zookeeper"))
        self.two.deliver(self.two.get("/zookeeper"))
        self.served.turn()
        self.assertEqual(self.two.packets(), [])
        self.served.threads.release_one()
        event, reply = self.two.packets()
        self.assertEqual(struct.unpack_from(">iqii", event), (-1, -1, 0, DATA_CHANGED))
        self.assertIn(b"new", reply)

    def test_event_before_the_reply(self) -> None:
        """A client that causes a watched event itself gets it first, on the same connection."""
        self.served.threads.release()
        children = self.one.request(8, text("/") + b"\1")
        self.one.deliver(children + self.one.create("/a"))
        self.served.turn()
        first, event, reply = self.one.packets()
        self.assertEqual(struct.unpack_from(">iqii", event), (-1, -1, 0, CHILDREN_CHANGED))
        self.assertEqual(reply[:4], integers(2))

    def test_failed_commit_is_no_reply(self) -> None:
        """Nothing that waits for a failed batch ever leaves."""
        self.served.storage.faults["commit"] = OSError("full")
        self.one.deliver(self.one.create("/a"))
        self.two.deliver(self.two.get("/a"))
        self.served.turn()
        self.served.threads.release()
        self.assertEqual((self.one.xids(), self.two.xids()), ([], []))
        self.assertEqual(len(self.served.failures), 1)


class EndTests(ConnectionTestCase):
    """How a connection ends."""

    def test_close_session(self) -> None:
        """The reply to a closeSession leaves when that is on the disk, then the connection ends."""
        self.served.threads.hold()
        wire = self.served.wire()
        wire.deliver(frame(handshake()) + wire.request(CLOSE) + wire.get("/"))
        self.served.turn()
        self.assertFalse(wire.transport.disconnecting)
        self.served.threads.release()
        self.assertEqual([len(packet) for packet in wire.packets()], [37, 16])
        self.assertTrue(wire.transport.disconnecting)
        self.assertIsNone(wire.transport.producer, "a paused one would delay the end")
        wire.lose()
        self.assertEqual(self.served.clock.getDelayedCalls(), [])

    def test_nothing_is_taken_while_it_closes(self) -> None:
        """What comes after a closeSession, while its reply waits for the disk, has no effect."""
        wire = self.served.wire()
        wire.deliver(frame(handshake()))
        self.served.threads.hold()
        wire.deliver(wire.request(CLOSE))
        received = wire.protocol.traffic.received
        wire.deliver(wire.get("/") * 3)
        self.served.turn()
        self.served.threads.release()
        self.assertEqual(received, wire.protocol.traffic.received)
        self.assertEqual([len(packet) for packet in wire.packets()], [37, 16])

    def test_close_before_the_first_byte(self) -> None:
        """The end of the server does not wait for a peer that has said nothing."""
        wire = self.served.wire()
        self.served.members.close()
        self.assertTrue(wire.transport.disconnecting)

    def test_refused_session(self) -> None:
        """A session that there is not is answered, and the connection closed."""
        wire = self.served.wire()
        wire.deliver(frame(handshake(session_id=4711)))
        (packet,) = wire.packets()
        self.assertEqual(struct.unpack_from(">iiq", packet), (0, 0, 0))
        self.assertTrue(wire.transport.disconnecting)

    def test_peer_does_not_read_the_end(self) -> None:
        """A connection that cannot be closed in order within 10 s is cut."""
        wire = self.served.wire()
        wire.deliver(frame(handshake(session_id=4711)))
        self.served.clock.advance(9)
        self.assertFalse(wire.transport.disconnected)
        wire.protocol.close()  # the time counts from the first
        self.served.clock.advance(1)
        self.assertTrue(wire.transport.disconnected)

    def test_session_taken_over(self) -> None:
        """A new connection of the session closes the old one."""
        old = self.served.client()
        session = old.protocol.session
        assert session is not None
        new = self.served.wire()
        new.deliver(frame(handshake(session_id=session.id, password=session.password)))
        self.served.turn()
        self.assertTrue(old.transport.disconnecting)
        self.assertEqual(len(new.packets()), 1)

    def test_lost_connection(self) -> None:
        """Its watches are gone, its session is not; what it had changed is committed."""
        wire = self.served.client()
        self.served.threads.hold()
        wire.deliver(wire.get("/", True) + wire.create("/a"))
        self.served.turn()
        wire.lose()
        self.served.threads.release()
        self.assertEqual(len(self.served.server.watches.watched), 0)
        self.assertEqual(len(self.served.sessions.by_id), 1)
        self.assertEqual(wire.xids(), [1])
        self.assertIn("/a", self.served.storage.batches[-1][0])

    def test_too_many(self) -> None:
        """Further connections are cut; when one has gone there is room again."""
        self.served = Served(max_connections=2)
        first, second = self.served.client(), self.served.client()
        third = self.served.wire()
        self.assertIsNone(third.transport.producer)
        self.assertTrue(self.aborted(third))
        self.assertIn("--max-connections", self.texts[-1])
        self.assertTrue(all(self.aborted(self.served.wire()) for _ in range(20)))
        self.assertEqual(1, len(self.texts), self.texts)
        self.assertEqual(len(self.served.members.connections), 2)
        first.lose()
        self.assertEqual("There is room for connections again; 21 were closed", self.texts[-1])
        self.served.client()
        self.assertTrue(self.aborted(self.served.wire()))
        self.assertEqual(3, len(self.texts), self.texts)
        self.assertFalse(second.transport.disconnected)
        self.assertEqual(self.served.clock.getDelayedCalls(), [])

    def test_words_need_no_handshake(self) -> None:
        """A four-letter word is answered, and the connection closed."""
        for pieces in ((b"ruok",), (b"ruok\n",), (b"ru", b"ok"), (b"r", b"u", b"o", b"k")):
            wire = self.served.wire()
            for piece in pieces:
                self.assertEqual(wire.transport.value(), b"")
                wire.deliver(piece)
            self.assertEqual(wire.transport.value(), b"imok")
            self.assertTrue(wire.transport.disconnecting)

    def test_word_behind_a_handshake(self) -> None:
        """There it is the length of a frame that is too long."""
        wire = self.served.client()
        wire.deliver(b"ruok")
        self.assertTrue(wire.transport.disconnected)
        self.assertEqual(wire.transport.value(), b"")


class PressureTests(ConnectionTestCase):
    """Clients that do not read, or wait for the disk, take bounded memory."""

    def setUp(self) -> None:
        super().setUp()
        self.told = 0
        self.wire = self.served.client()
        self.wire.deliver(self.wire.create("/big", b"x" * 500_000))
        self.served.turn()
        self.wire.packets()

    def test_held_replies(self) -> None:
        """With 1 MiB of replies waiting for the disk nothing is read; then it continues."""
        wire = self.wire
        self.served.threads.hold()
        wire.deliver(wire.create("/a") + b"".join(wire.get("/big") for _ in range(10)))
        self.served.turn()
        self.assertEqual(wire.transport.producerState, "paused")
        self.assertEqual(wire.protocol.waiting, 4, "the last one went beyond")
        self.served.threads.release()
        self.served.turn()
        self.assertEqual(wire.xids(), list(range(2, 13)))
        self.assertEqual(wire.transport.producerState, "producing")

    def test_limit_of_held_replies(self) -> None:
        """Exactly that much may wait; with one byte more nothing is read until some have left."""
        wire, release = self.wire, self.served.threads.release_one
        self.patch(connection, "HOLD_LIMIT", 4 + 16 + 4 + len("/a"))
        self.served.threads.hold()
        wire.deliver(wire.create("/a"))
        self.served.turn()
        self.assertEqual(wire.transport.producerState, "producing")
        wire.deliver(wire.create("/b"))
        self.assertEqual(wire.transport.producerState, "paused")
        wire.deliver(wire.create("/c"))
        self.assertEqual(wire.protocol.waiting, 2)
        release()  # what is left is at the limit
        self.assertEqual(wire.transport.producerState, "paused", "a request is left")
        self.served.turn()
        self.assertEqual(wire.xids(), [2])
        self.assertEqual(wire.protocol.waiting, 2)
        self.served.turn()
        release()
        self.served.turn()
        self.assertEqual((wire.xids(), wire.protocol.waiting), ([3], 1))
        self.assertEqual(wire.transport.producerState, "producing")

    def test_peer_does_not_read(self) -> None:
        """A chunk of many large gets is answered as far as the peer reads."""
        wire = self.wire
        self.patch(wire.transport, "write", self.full(wire, 1_000_000))
        wire.deliver(b"".join(wire.get("/big") for _ in range(10)))
        self.served.turn()
        self.assertEqual(wire.xids(), [2, 3])
        self.assertEqual(wire.transport.producerState, "paused")
        wire.protocol.resumeProducing()
        self.served.turn()
        self.assertEqual(wire.xids(), [4, 5])

    def full(self, wire: Wire, size: int) -> object:
        """A ``write`` that pauses its producer whenever more than ``size`` bytes were written."""

        def write(data: bytes) -> None:
            wire.transport.io.write(data)
            if len(wire.transport.value()) > size:
                wire.protocol.pauseProducing()

        return write

    def flood(self, wire: Wire, count: int) -> None:
        """Events for ``wire``, 100,000 bytes each."""
        path = "/" + "x" * 100_000
        for _ in range(count):
            wire.deliver(wire.request(EXISTS, text(path) + b"\1"))
            wire.packets()
            self.wire.deliver(self.wire.create(path))
            self.served.turn()
            self.wire.deliver(self.wire.request(2, text(path) + integers(-1)))
            self.served.turn()

    def tell(self, watcher: Wire, count: int, release: bool = True) -> int:
        """So many events for ``watcher``, of the same size; returns that."""
        for _ in range(count):
            self.told += 1
            path = f"/{self.told:05d}"
            self.served.server.watches.add(False, path, watcher.protocol)
            self.wire.deliver(self.wire.create(path))
            if release:
                self.served.turn()
        self.wire.packets()
        return 4 + len(watches.pack_event(1, path))

    def test_unread_events(self) -> None:
        """A client with more unread events than the limit is cut, and that is said once, also
        when more happens before its connection is gone. Their bytes count; those that it has read
        do not."""
        watcher = self.served.client()
        size = self.tell(watcher, 5)
        self.patch(connection, "EVENTS_LIMIT", 5 * size)
        for _ in range(3):
            watcher.protocol.pauseProducing()
            self.tell(watcher, 5)
            watcher.protocol.resumeProducing()
            self.assertEqual(watcher.transport.producerState, "producing")
        watcher.protocol.pauseProducing()
        self.tell(watcher, 5)
        self.assertFalse(watcher.transport.disconnected)
        watcher.packets()
        self.tell(watcher, 3)
        self.assertTrue(watcher.transport.disconnected)
        self.assertEqual([], watcher.packets())
        self.assertEqual(1, len(self.texts), self.texts)
        self.assertIn(f"{6 * size} bytes of events wait for it", self.texts[0])

    def test_events_that_wait_for_the_disk(self) -> None:
        """They count too, and replies that wait do not."""
        watcher = self.served.client()
        size = self.tell(watcher, 1)
        self.patch(connection, "EVENTS_LIMIT", 5 * size)
        self.served.threads.hold()
        self.wire.deliver(self.wire.create("/a"))
        self.served.turn()
        watcher.deliver(watcher.get("/big"))
        self.tell(watcher, 5, release=False)
        self.assertFalse(watcher.transport.disconnected)
        self.tell(watcher, 1, release=False)
        self.assertTrue(watcher.transport.disconnected)

    def test_many_events_that_are_read(self) -> None:
        """Events that leave do not add up, also while the disk is never idle."""
        self.patch(connection, "EVENTS_LIMIT", 500_000)
        watcher = self.served.client()
        self.served.threads.hold()
        for number in range(30):
            path = f"/{number}" + "x" * 100_000
            self.served.server.watches.add(False, path, watcher.protocol)
            self.wire.deliver(self.wire.create(path))
            self.served.turn()
            if self.served.threads.held and number % 2:
                self.served.threads.release_one()
                self.served.turn()
        self.assertFalse(watcher.transport.disconnected)
