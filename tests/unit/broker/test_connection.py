"""Connections: order of replies, held and failed batches, long frames, closing, back-pressure."""

from __future__ import annotations

import gc
import os
import select
import socket
import tracemalloc

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from metamorphosis.broker.connection import TURN_BYTES, TURN_COMMANDS
from metamorphosis.broker.transport import QUEUE_LIMIT, BrokerTransport
from metamorphosis.config.model import Settings
from metamorphosis.message import iterate_records
from metamorphosis.store.batch import Batch
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.segment import Segment
from tests.support.serving import Broker, Client
from tests.unit.broker.test_hotpath import put
from tests.unit.broker.test_responders import OddFilter
from tests.unit.broker.test_transport import Reactor


class OrderTests(SynchronousTestCase):
    """Replies leave in request order, and not before their record is safe."""

    def test_nothing_overtakes_a_put_that_waits_for_its_flush(self) -> None:
        """With group commit a put is answered after its flush, and ``version`` after it waits its
        turn."""
        broker = Broker(self.mktemp())
        client = broker.client()
        client.send(put(b"first"))
        broker.threads.hold()
        self.assertEqual(client.send(put(b"hello", opaque=b"5") + b"version 6\r\n"), b"")
        broker.threads.release()
        broker.clock.advance(0)
        self.assertRegex(
            client.received(), rb"^result 200 \d+ 5\r\n\d+ 0 25result 200 7 6\r\n1.4.6.2$"
        )

    def test_puts_behind_a_flush_are_answered_by_the_next(self) -> None:
        """Puts that arrive while a flush runs collect, are written together and answered after
        their own flush."""
        broker = Broker(self.mktemp())
        client, other = broker.client(), broker.client()
        client.send(put(b"first"))
        broker.threads.hold()
        client.send(put(b"one", opaque=b"1"))
        client.send(put(b"two", opaque=b"2"))
        other.send(put(b"three", opaque=b"3"))
        self.assertEqual(client.received() + other.received(), b"")
        broker.threads.release_one()
        broker.clock.advance(0)
        self.assertRegex(client.received(), rb"^result 200 \d+ 1\r\n\d+ 0 25$")
        broker.threads.release()
        broker.clock.advance(0)
        self.assertRegex(client.received(), rb"^result 200 \d+ 2\r\n\d+ 0 48$")
        self.assertRegex(other.received(), rb"^result 200 \d+ 3\r\n\d+ 0 71$")

    def test_one_write_for_a_turn(self) -> None:
        """All replies of a turn, whatever partitions they come from, leave in one write."""
        broker = Broker(self.mktemp(), unflush_threshold=1000)
        client = broker.client()
        client.send(put(b"a") + put(b"a", partition=b"1"))
        writes: list[bytes] = []
        client.transport.write = writes.append  # type: ignore[method-assign]
        client.send((put(b"a") + put(b"b", partition=b"1")) * 5 + b"version 1\r\n")
        self.assertEqual(len(writes), 1)
        self.assertEqual(writes[0].count(b"result 200"), 11)

    def test_reply_is_one_write_with_head_and_body(self) -> None:
        """The .NET client takes the result of one receive as the whole reply."""
        broker = Broker(self.mktemp())
        client = broker.client()
        writes: list[bytes] = []
        client.transport.write = writes.append  # type: ignore[method-assign]
        client.send(b"put test 0 5 0 1\r\nhello")
        self.assertEqual(len(writes), 1)


class FrameTests(SynchronousTestCase):
    """Received bytes become requests."""

    def test_long_body_in_pieces_of_any_size(self) -> None:
        """A body larger than the common buffer arrives whole, in pieces of any size."""
        body = bytes(range(256)) * 3000
        request = put(body, opaque=b"9")
        for size in (1400, 65536, 300000, len(request)):
            broker = Broker(self.mktemp())
            client = broker.client()
            for start in range(0, len(request), size):
                client.connection.dataReceived(request[start : start + size])
            broker.clock.advance(0)
            self.assertRegex(client.received(), rb"^result 200 \d+ 9\r\n\d+ 0 0$")
            data = client.send(b"get test g 0 20 1000000 1\r\n")
            self.assertEqual(data, b"value %d 1\r\n%b" % (len(body), body))

    def test_long_bodies_behind_each_other_with_flushes_pending(self) -> None:
        """Bodies straight from the receive buffer are copied when the store cannot write yet."""
        broker = Broker(self.mktemp())
        client = broker.client()
        client.send(put(b"first"))
        bodies = [bytes([65 + i]) * 30000 for i in range(20)]
        broker.threads.hold()
        client.connection.dataReceived(b"".join(put(body) for body in bodies))
        client.connection.dataReceived(b"".join(put(body) for body in bodies))
        broker.threads.release()
        broker.clock.advance(0)
        self.assertEqual(client.received().count(b"result 200"), 40)
        store = broker.stores.get("test", 0)
        assert store is not None
        offset = 25
        for body in bodies * 2:
            reply = client.send(b"get test g 0 %d %d 1\r\n" % (offset + 20, len(body)))
            self.assertEqual(reply.split(b"\r\n", 1)[1], body)
            offset += 20 + len(body)
        self.assertEqual(store.max_offset, offset)

    def test_long_bodies_of_many_clients_in_one_turn(self) -> None:
        """Bodies of 8 KiB that collect over a turn are stored as sent, in the order of their
        arrival, although the buffer is used again before the write."""
        broker = Broker(self.mktemp(), unflush_threshold=1000)
        clients = [broker.client() for _ in range(3)]
        sent = [bytes([65 + number]) * 8192 for number in range(9)]
        for number, body in enumerate(sent):
            clients[number % 3].connection.dataReceived(put(body))
        broker.clock.pump([0.1] * 3)
        clients[0].received()
        _, _, log = clients[0].send(b"get test g 0 0 1000000 7\r\n").partition(b"\r\n")
        self.assertEqual(sent, [message.body for message in iterate_records(log)])

    def test_too_long_line_closes(self) -> None:
        """A line without an end closes the connection at the limit, so that it cannot fill the
        memory."""
        broker = Broker(self.mktemp(), settings=Settings(max_line_bytes=1000))
        client = broker.client()
        client.send(b"put " + b"x" * 900)
        self.assertFalse(client.closed)
        client.send(b"x" * 200)
        self.assertTrue(client.closed)

    def test_line_that_is_longer_than_the_common_buffer(self) -> None:
        """It is answered, if the limit allows it."""
        broker = Broker(self.mktemp(), settings=Settings(max_line_bytes=1 << 20))
        size = len(broker.factory.shared.buffer.data)
        for length in (size, size + 1, 1 << 20):
            client = broker.client()
            inbox = client.connection.inbox
            data = b"get test %b 0 0 10 7\r\n" % (b"g" * (length - 18)) + b"version 8\r\n"
            while data:
                room = inbox.room()
                self.assertTrue(room, "the transport would take it for the end of the connection")
                count = min(len(room), len(data), 100_000)
                room[:count] = data[:count]
                data = data[count:]
                client.connection.received(count)
            broker.clock.advance(0)
            self.assertRegex(
                client.received(), rb"^result 404 47 7\r\n.*result 200 7 8\r\n1.4.6.2$", length
            )

    def test_too_long_body_closes_before_it_is_sent(self) -> None:
        """A body above the limit is refused by its announced length."""
        broker = Broker(self.mktemp(), settings=Settings(max_body_bytes=1000))
        client = broker.client()
        client.send(b"put test 0 1001 0 1\r\n")
        self.assertTrue(client.closed)

    def test_too_long_body_that_is_there(self) -> None:
        """The limit also holds for a body that arrives with its line."""
        broker = Broker(self.mktemp(), settings=Settings(max_body_bytes=10))
        client = broker.client()
        self.assertIn(b"result 200", client.send(put(b"x" * 10)))
        client.send(put(b"x" * 11))
        self.assertTrue(client.closed)

    def test_frames_before_garbage_take_effect_and_are_answered(self) -> None:
        """A put before a broken line is stored and answered, then the connection closes."""
        broker = Broker(self.mktemp())
        client = broker.client()
        reply = client.send(put(b"hello") + b"garbage\r\n" + put(b"lost"))
        self.assertEqual(reply.count(b"result 200"), 1)
        self.assertTrue(client.closed)
        self.assertEqual(broker.stores.get("test", 0).max_offset, 25)  # type: ignore[union-attr]

    def test_a_body_that_is_too_long_is_refused_in_words(self) -> None:
        """The reply has the reason before the connection closes; the log names peer, size and
        limit."""
        broker = Broker(self.mktemp(), settings=Settings(max_body_bytes=1000))
        client = broker.client()
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        reply = client.send(put(b"hello") + b"put test 0 1001 0 7 77\r\n" + b"x" * 100)
        self.assertEqual(reply.count(b"result 200"), 1)
        text = b"body of 1001 bytes is longer than max-body-bytes, 1000"
        self.assertTrue(reply.endswith(b"result 400 %d 77\r\n%b" % (len(text), text)), reply)
        self.assertTrue(client.closed)
        [line] = [each for each in lines if text.decode() in each]
        self.assertRegex(line, r"^Closing .*Address")


class ClosingTests(SynchronousTestCase):
    """Requests are answered before the connection is closed."""

    def test_quit_waits_for_the_put_before_it(self) -> None:
        """``put`` and ``quit`` in one piece: the reply arrives, then the close."""
        broker = Broker(self.mktemp())
        client = broker.client()
        client.send(put(b"first"))
        broker.threads.hold()
        client.send(put(b"hello") + b"quit\r\n")
        self.assertFalse(client.closed)
        broker.threads.release()
        broker.clock.advance(0)
        self.assertIn(b"result 200", client.received())
        self.assertTrue(client.closed)

    def test_half_close_is_answered(self) -> None:
        """A peer that closes its sending side still gets the replies to what it sent."""
        broker = Broker(self.mktemp())
        client = broker.client()
        client.connection.dataReceived(put(b"hello"))
        client.connection.readConnectionLost()
        broker.clock.advance(0)
        self.assertIn(b"result 200", client.received())
        self.assertTrue(client.closed)

    def test_client_vanishes_with_a_put_pending(self) -> None:
        """The record of a disconnected client is stored."""
        broker = Broker(self.mktemp())
        client = broker.client()
        client.send(put(b"first"))
        broker.threads.hold()
        client.send(put(b"hello"))
        client.connection.connectionLost(Failure(ConnectionDone()))
        broker.threads.release()
        broker.clock.advance(0)
        self.assertEqual(broker.stores.get("test", 0).max_offset, 50)  # type: ignore[union-attr]
        self.assertEqual(broker.factory.connections, {})
        self.assertEqual(broker.factory.shared.waiting, 0)


class FileTests(SynchronousTestCase):
    """Replies from files."""

    def waiting_get(self) -> tuple[Broker, Client, Segment]:
        """A get from a removed segment that waits after a put."""
        broker = Broker(self.mktemp(), max_segment_size=25)
        client = broker.client()
        client.send(put(b"first"))
        client.send(put(b"other"))
        store = broker.stores.get("test", 0)
        assert store is not None
        segment = store.immutable_segments()[0]
        broker.threads.hold()
        client.send(put(b"hello") + b"get test g 0 20 5 1\r\n")
        store.remove_segment(segment)
        os.unlink(segment.path)
        return broker, client, segment

    def test_range_outlives_its_segment(self) -> None:
        """The get is answered although retention has deleted its segment meanwhile."""
        broker, client, segment = self.waiting_get()
        broker.threads.release()
        broker.clock.advance(0)
        self.assertTrue(client.received().endswith(b"value 5 1\r\nfirst"))
        self.assertEqual(segment.fd, -1)

    def test_lost_connection_lets_go_of_its_ranges(self) -> None:
        """A lost connection does not keep a deleted segment on the disk."""
        broker, client, segment = self.waiting_get()
        client.connection.connectionLost(Failure(ConnectionDone()))
        broker.threads.release()
        self.assertEqual(segment.fd, -1)

    def test_deleted_segment_file(self) -> None:
        """A get from a segment file that was deleted by hand is answered 500 with its name, and the
        connection stays open."""
        broker = Broker(self.mktemp(), max_segment_size=25)
        client = broker.client()
        client.send(put(b"first"))
        client.send(put(b"other"))
        store = broker.stores.get("test", 0)
        assert store is not None
        segment = store.immutable_segments()[0]
        get = b"get test g 0 0 100 1\r\n"
        self.assertTrue(client.send(get).startswith(b"value 25 "))
        store.close_idle_segments()
        store.close_idle_segments()
        os.unlink(segment.path)
        reply = client.send(get)
        self.assertTrue(reply.startswith(b"result 500 "), reply)
        self.assertIn(segment.path.encode(), reply)
        self.assertTrue(client.send(b"version 1\r\n").startswith(b"result 200"))


class PressureTests(SynchronousTestCase):
    """A peer can use only bounded memory of the broker; no connection is closed for being fast."""

    def test_interfaces(self) -> None:
        """The connection provides the interfaces that the transport uses."""
        connection = Broker(self.mktemp()).client().connection
        verifyObject(IPushProducer, connection)
        verifyObject(IHalfCloseableProtocol, connection)

    def test_flood_behind_a_flush_is_paused_and_resumes(self) -> None:
        """A client that sends faster than the disk flushes is not read for a while, then
        continues."""
        broker = Broker(self.mktemp(), settings=Settings(max_connection_bytes=10_000))
        client = broker.client()
        client.send(put(b"first"))
        broker.threads.hold()
        client.send(put(b"x" * 6000))
        self.assertEqual(client.transport.producerState, "producing")
        client.send(put(b"x" * 6000))
        self.assertEqual(client.transport.producerState, "paused")
        broker.threads.release()
        broker.clock.advance(0)
        self.assertEqual(client.transport.producerState, "producing")
        self.assertEqual(client.received().count(b"result 200"), 2)

    def test_flood_that_the_turn_in_c_hands_over(self) -> None:
        """A connection that comes to Python with replies that wait is paused as well."""
        broker = Broker(self.mktemp(), settings=Settings(max_connection_bytes=10_000))
        broker.threads.hold()
        for size, state in ((10_000, "producing"), (10_001, "paused")):
            client = broker.client()
            batch = Batch(broker.stores.get_or_create(broker.config.topic("test"), 0), 0)
            client.connection.answer(size, [(batch, 0, b"result 200 0 1\r\n")])
            self.assertEqual(client.transport.producerState, state)
            batch.complete(0, 1, None)
            broker.clock.advance(0)
            self.assertEqual(client.received(), b"result 200 0 1\r\n")
            self.assertEqual(client.transport.producerState, "producing")

    def test_pieces_of_a_long_chunk(self) -> None:
        """Many bytes of a partition are written from the receive buffer, few are copied."""
        broker = Broker(self.mktemp(), {"test": {"num_partitions": 2}})
        client = broker.client()
        for body in (b"first", b"x" * 40_000):  # a chunk that follows a long one
            client.send(put(body) + put(b"x", partition=b"1"))
        copied: list[int] = []
        real = MessageStore.own_pieces

        def own(store: MessageStore) -> None:
            copied.append(store.partition)
            real(store)

        self.patch(MessageStore, "own_pieces", own)
        client.send(put(b"x" * 40_000) + put(b"x", partition=b"1"))
        self.assertEqual([1], copied)

    def test_flood_of_commands_gives_way_to_others(self) -> None:
        """In one turn a bounded number of commands of a chunk is answered; meanwhile the connection
        is not read from, and finally all are answered in order."""
        broker = Broker(self.mktemp())
        flooder = broker.client()
        count = 10 * TURN_COMMANDS + 1
        chunk = b"".join(b"version %d\r\n" % number for number in range(count))
        flooder.connection.inbox.room()[: len(chunk)] = chunk
        flooder.connection.received(len(chunk))
        taken = len(flooder.connection._replies)
        self.assertEqual(taken, TURN_COMMANDS)
        self.assertEqual(flooder.transport.producerState, "paused")
        broker.clock.advance(0)
        self.assertEqual(
            flooder.received(),
            b"".join(b"result 200 7 %d\r\n1.4.6.2" % number for number in range(count)),
        )
        self.assertEqual(flooder.transport.producerState, "producing")
        self.assertEqual(
            flooder.send(b"version 7\r\n"), b"result 200 7 7\r\n1.4.6.2", "none is left"
        )

    def test_flood_of_commands_whose_replies_nobody_reads(self) -> None:
        """The rest of the chunk waits until the peer reads again; then a turn takes no more of it
        than before."""
        broker = Broker(self.mktemp())
        client = broker.client()
        connection = client.connection
        chunk = b"version 1\r\n" * (3 * TURN_COMMANDS)
        connection.inbox.room()[: len(chunk)] = chunk
        connection.received(len(chunk))
        for _ in range(3):
            connection.pauseProducing()
            connection.resumeProducing()
        calls = [call.func for call in broker.clock.getDelayedCalls()]
        self.assertEqual(calls.count(connection._go_on), 1)
        connection.pauseProducing()
        broker.clock.advance(0)
        self.assertEqual(client.received().count(b"result 200"), TURN_COMMANDS)
        connection.resumeProducing()
        self.assertEqual(client.transport.producerState, "paused")
        broker.clock.advance(0)
        self.assertEqual(client.received().count(b"result 200"), 2 * TURN_COMMANDS)
        self.assertEqual(client.transport.producerState, "producing")

    def test_flood_of_commands_behind_a_flush(self) -> None:
        """The rest of the chunk waits while the limit of one connection, or of all, is exceeded."""
        limits = (Settings(max_connection_bytes=1000), Settings(max_total_bytes=1000))
        for settings in limits:
            broker = Broker(self.mktemp(), settings=settings)
            client = broker.client()
            client.send(put(b"first"))
            broker.threads.hold()
            chunk = put(b"hello") + b"version 1\r\n" * (3 * TURN_COMMANDS)
            client.connection.inbox.room()[: len(chunk)] = chunk
            client.connection.received(len(chunk))
            broker.clock.advance(0)
            self.assertEqual(len(client.connection._replies), 1 + TURN_COMMANDS)
            broker.threads.release()
            broker.clock.advance(0)
            self.assertEqual(client.received().count(b"result 200"), 1 + 3 * TURN_COMMANDS)
            self.assertEqual(client.transport.producerState, "producing")
            self.assertEqual(broker.factory.shared.waiting, 0)

    def test_replies_in_memory(self) -> None:
        """The replies to a group with a filter count in the limit while they wait, and end the
        turn."""
        name = f"{OddFilter.__module__}:{OddFilter.__name__}"
        settings = Settings(max_connection_bytes=3 * TURN_BYTES)
        topics = {"test": {"num_partitions": 2, "filters": {"g": name}}}
        broker = Broker(self.mktemp(), topics, settings=settings)
        client = broker.client()
        client.send(put(b"1" * 100_000) + put(b"first", partition=b"1"))
        broker.threads.hold()
        chunk = put(b"hello", partition=b"1") + b"get test g 0 0 200000 1\r\n" * 50
        client.connection.inbox.room()[: len(chunk)] = chunk
        client.connection.received(len(chunk))
        waiting = broker.factory.shared.waiting
        self.assertTrue(TURN_BYTES < waiting < TURN_BYTES + 110_000, waiting)
        broker.clock.advance(0)
        waiting = broker.factory.shared.waiting
        self.assertTrue(3 * TURN_BYTES < waiting < 4 * TURN_BYTES + 110_000, waiting)
        broker.threads.release()
        broker.clock.advance(0)
        self.assertEqual(client.received().count(b"value 100020 1\r\n"), 50)
        self.assertEqual(client.transport.producerState, "producing")
        self.assertEqual(broker.factory.shared.waiting, 0)

    def test_flood_of_gets_that_a_filter_answers(self) -> None:
        """What a filter looks through ends the turn, even if it rejects everything."""
        name = f"{OddFilter.__module__}:{OddFilter.__name__}"
        broker = Broker(self.mktemp(), {"test": {"filters": {"g": name}}})
        client = broker.client()
        client.send(put(b"2" * (TURN_BYTES // 3)))
        chunk = b"get test g 0 0 1000000 1\r\n" * 10
        client.connection.inbox.room()[: len(chunk)] = chunk
        client.connection.received(len(chunk))
        self.assertEqual(client.received().count(b"value 20 1\r\n"), 3)
        broker.clock.advance(0)
        self.assertEqual(client.received().count(b"value 20 1\r\n"), 7)

    def test_flooding_client_vanishes(self) -> None:
        """A connection that is lost between two such turns is dropped."""
        broker = Broker(self.mktemp())
        flooder = broker.client()
        chunk = b"version 1\r\n" * (3 * TURN_COMMANDS)
        flooder.connection.inbox.room()[: len(chunk)] = chunk
        flooder.connection.received(len(chunk))
        flooder.connection.connectionLost(Failure(ConnectionDone()))
        broker.clock.advance(0)
        self.assertEqual(len(broker.factory.connections), 0)
        self.assertEqual(broker.factory.shared.waiting, 0)

    def test_reader_that_does_not_read_is_paused(self) -> None:
        """While the peer leaves its replies unread its requests are left unread."""
        broker = Broker(self.mktemp())
        client = broker.client()
        producer = client.transport.producer
        self.assertTrue(client.transport.streaming)
        producer.pauseProducing()
        self.assertEqual(client.transport.producerState, "paused")
        producer.resumeProducing()
        self.assertEqual(client.transport.producerState, "producing")

    def test_peer_that_never_reads(self) -> None:
        """Over a real socket: a peer that requests much and reads nothing is not read from, with
        few bytes waiting for it, until it reads."""
        broker = Broker(self.mktemp())
        broker.client().send(put(b"x" * 100_000))
        listener = socket.create_server(("127.0.0.1", 0))
        peer = socket.create_connection(listener.getsockname(), 10)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted, address = listener.accept()
        for each in (listener, peer, accepted):
            self.addCleanup(each.close)
        reactor = Reactor()
        connection = broker.factory.buildProtocol(None)
        transport = BrokerTransport(accepted, connection, address, None, 1, reactor)  # type: ignore[arg-type]
        connection.makeConnection(transport)
        transport.startReading()
        get = b"get test g 0 0 100020 1\r\n"
        asked = 0
        while transport in reactor.readers and asked < 2000:
            peer.sendall(get)
            asked += 1
            select.select([accepted], [], [], 10)
            transport.doRead()
            broker.clock.advance(0)
        self.assertLess(asked, 2000)
        self.assertLess(transport.queued_bytes, QUEUE_LIMIT + 200_000)
        received = 0
        while received < asked * (len(b"value 100020 1\r\n") + 100_020):
            received += len(peer.recv(1 << 20))
            if transport in reactor.writers:
                transport.doWrite()
            if transport in reactor.readers:
                transport.doRead()
            broker.clock.advance(0)
        self.assertIn(transport, reactor.readers)

    def test_all_connections_together_are_bounded(self) -> None:
        """Above the total limit connections pause, although each is within its own limit."""
        broker = Broker(self.mktemp(), settings=Settings(max_total_bytes=10_000))
        clients = [broker.client() for _ in range(4)]
        clients[0].send(put(b"first"))
        broker.threads.hold()
        for client in clients:
            client.send(put(b"x" * 4000))
        self.assertEqual(
            [c.transport.producerState for c in clients], ["producing"] * 2 + ["paused"] * 2
        )
        broker.threads.release()
        broker.clock.advance(0)
        self.assertEqual([c.transport.producerState for c in clients], ["producing"] * 4)
        self.assertEqual(broker.factory.shared.waiting, 0)

    def test_the_limits_of_all_together(self) -> None:
        """Pausing begins above the limit and ends below half of it."""
        shared = Broker(self.mktemp(), settings=Settings(max_total_bytes=10_000)).factory.shared
        seen = []
        for waiting in (10_000, 10_001, 5_000, 4_999, 10_000):
            shared.waiting_changed(waiting - shared.waiting)
            seen.append(shared.overloaded)
        self.assertEqual(seen, [False, True, True, False, False])


class IdleTests(SynchronousTestCase):
    """Connections without traffic."""

    def test_only_silent_connections_are_swept(self) -> None:
        """A silent connection stays open for at least one sweep period, an active one for ever."""
        broker = Broker(self.mktemp())
        silent, active = broker.client(), broker.client()
        broker.factory._close_idle()
        self.assertFalse(silent.transport.disconnected)
        active.send(b"version 1\r\n")
        broker.factory._close_idle()
        self.assertTrue(silent.transport.disconnected)
        self.assertFalse(active.transport.disconnected)

    def test_a_connection_costs_little(self) -> None:
        """At rest it has nothing to queue into, after a request as before it: 1,200 bytes without
        its socket. An empty deque has 760."""
        broker = Broker(self.mktemp())
        broker.client().send(b"version 1\r\n")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peers = [socket.create_connection(listener.getsockname(), 10) for _ in range(20)]
            accepted = [listener.accept() for _ in peers]
        for each in (*peers, *(end for end, _ in accepted)):
            self.addCleanup(each.close)
        reactor, transports = Reactor(), []
        tracemalloc.start()
        try:
            for end, address in accepted:
                connection = broker.factory.buildProtocol(None)
                transport = BrokerTransport(end, connection, address, None, 1, reactor)  # type: ignore[arg-type]
                connection.makeConnection(transport)
                transports.append(transport)
            gc.collect()
            fresh = tracemalloc.get_traced_memory()[0]
            for peer, transport in zip(peers, transports):
                peer.sendall(b"version 1\r\n")
                transport.doRead()
                broker.clock.advance(0)
                self.assertIn(b"1.4.6.2", peer.recv(100))
            gc.collect()
            used = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        self.assertLess(fresh / len(peers), 1700)
        self.assertLess(used / len(peers), 1700)
