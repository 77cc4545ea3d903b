"""
The set of sockets with the turn in C: taken, left and refused requests, and closed connections.
"""

from __future__ import annotations

import gc
import os
import re
import resource
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.hotpath.turn import BYTES, EVENT, UNSENT, WAITING, TurnStores
from metamorphosis.broker.lanes import LaneSet
from metamorphosis.config.model import Settings
from metamorphosis.native import turn, way
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.states import Worker
from tests.support.lanes import Peer, Served
from tests.unit.broker.test_hotpath import put


class LaneCase(SynchronousTestCase):
    """A broker with the turn in C."""

    if turn is None:
        skip = f"the turn in C is not used ({way})"

    def serve(self, **options: Any) -> Served:
        """A client whose first put has made both partitions of ``test``."""
        options.setdefault("unflush_threshold", 1000)
        served = Served(self.mktemp(), True, **options)
        self.addCleanup(served.close)
        first = served.connect()
        first.send(put(b"first") + put(b"first", partition=b"1"))
        served.turn()
        self.assertEqual(first.received().count(b"result 200"), 2)
        served.advance(1)
        first.send(b"get test g 0 0 25 1\r\n")
        served.turn()
        self.assertIn(b"value 25 1", first.received())
        return served

    def is_plain(self, served: Served, peer: Peer) -> bool:
        """Whether the turn in C serves the connection."""
        assert isinstance(served.sockets, LaneSet)
        return peer.transport.fileno() in served.sockets.plain

    def plain(self, served: Served) -> Peer:
        """A connection that is plain."""
        peer = served.connect()
        peer.send(put(b"hello"))
        served.turn()
        self.assertIn(b"result 200", peer.received())
        self.assertTrue(self.is_plain(served, peer))
        return peer

    def store(self, served: Served) -> MessageStore:
        """Partition 0."""
        store = served.broker.stores.get("test", 0)
        assert store is not None
        return store

    def fill(self, served: Served) -> int:
        """Fill partition 0, so that ``limit`` concerns no other file; returns its end."""
        peer = served.connect()
        for _ in range(4):
            peer.send(put(bytes(900_000)))
            served.turn()
        return self.store(served).next_offset

    def limit(self, size: int) -> None:
        """No file may be longer until the end of the test; a longer file cannot grow."""
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, most))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))

    def assert_no_growth(self, work: Callable[[], None]) -> None:
        """Assert that ``work``, done again and again, leaves as many blocks as there were. The
        interpreter has tables of its own that grow now and then (370 blocks were seen once), so a
        leak is what grows each time."""
        work()
        grown = []
        while len(grown) < 3:
            gc.collect()
            before = sys.getallocatedblocks()
            for _ in range(5):
                work()
            gc.collect()
            grown.append(sys.getallocatedblocks() - before)
            if grown[-1] < 250:  # a leak would be 500, or more
                return
        self.fail(f"blocks that were left: {grown}")


class TakenTests(LaneCase):
    """Ordinary requests, which do not reach the connection in Python."""

    def taken_only(self, served: Served) -> Peer:
        """A connection that fails if any byte of it is left to Python."""
        peer = self.plain(served)
        peer.connection.received = None  # type: ignore[assignment,method-assign]
        return peer

    def test_puts(self) -> None:
        """They are stored, counted and answered."""
        served = self.serve()
        peer = self.taken_only(served)
        store = self.store(served)
        before = store.put_count, store.put_bytes, store.next_offset, store.message_count
        peer.send(put(b"four") * 3)
        served.turn()
        self.assertEqual(peer.received().count(b"result 200"), 3)
        after = store.put_count, store.put_bytes, store.next_offset, store.message_count
        self.assertEqual(after, (before[0] + 3, before[1] + 12, before[2] + 72, before[3] + 3))
        self.assertEqual(len(served.files()["test-0/0"]), store.next_offset)
        self.assertEqual(store.writer.unflushed.size if store.writer.unflushed else 0, 97)

    def test_first_request(self) -> None:
        """It is answered in the turn of the reactor in which its socket is ready."""
        served = self.serve()
        peer = served.connect()
        peer.send(put(b"hello"))
        served.sockets.doRead()
        self.assertIn(b"result 200", peer.received())

    def test_request_in_pieces(self) -> None:
        """An incomplete ordinary request is kept until the rest arrives."""
        served = self.serve()
        peer = self.taken_only(served)
        for byte in put(b"hello"):
            self.assertEqual(peer.received(), b"")
            peer.send(bytes([byte]))
            served.turn()
        self.assertIn(b"result 200", peer.received())

    def test_gets(self) -> None:
        """The range is sent from the file, and counted; the file is released."""
        served = self.serve()
        peer = self.taken_only(served)
        store = self.store(served)
        peer.send(b"get test g 0 0 1000 4\r\n" + put(b"x") + b"get test g 0 5 3 5\r\n")
        served.turn()
        log = served.files()["test-0/0"]
        came = peer.received()
        head = b"value %d 4\r\n" % (store.next_offset - 21)
        self.assertTrue(came.startswith(head + log[: store.next_offset - 21]), came)
        self.assertTrue(came.endswith(b"value 3 5\r\n" + log[5:8]), came)
        self.assertEqual(store.get_count, 2)
        self.assertFalse(store.last.in_use)

    def test_idle_sweep_sees_it(self) -> None:
        """A connection whose bytes only C has received is not closed as idle."""
        served = self.serve()
        peer = self.taken_only(served)
        peer.connection.session.active = False
        served.sockets.note_active()
        served.turn()
        peer.connection.session.active = False
        peer.send(put(b"x"))
        served.turn()
        self.assertFalse(peer.connection.session.active)
        served.broker.factory._close_idle()
        self.assertTrue(peer.transport.connected and not peer.transport.disconnecting)

    def test_idle_sweep_after_a_change_to_python(self) -> None:
        """What C had received before counts, too."""
        served = self.serve()
        peer = self.taken_only(served)
        served.sockets.note_active()
        peer.send(put(b"x"))
        served.turn()
        peer.connection.session.active = False
        served.sockets.keep_slow(peer.transport)
        self.assertTrue(peer.connection.session.active)

    def test_no_reference_is_kept(self) -> None:
        """After thousands of rounds the number of allocated blocks is the same."""
        served = self.serve(unflush_threshold=1 << 30)
        peer = self.taken_only(served)
        self.patch(os, "fdatasync", lambda descriptor: None)

        def work() -> None:
            for _ in range(50):
                peer.send(put(b"x" * 50) * 3 + b"get test g 0 0 10 4\r\n" + put(b"y")[:20])
                served.turn()
                peer.send(put(b"y")[20:])
                served.turn()
                peer.received()
            served.advance(1)  # what is unflushed is kept

        self.assert_no_growth(work)


class LeftTests(LaneCase):
    """Requests that are served in Python, in order."""

    def test_other_commands(self) -> None:
        """They are answered between their neighbours, and the connection becomes plain again."""
        served = self.serve()
        peer = self.plain(served)
        peer.send(put(b"a", opaque=b"1") + b"version 2\r\n" + put(b"b", opaque=b"3"))
        served.turn()
        came = peer.received()
        words = [line.split()[3] for line in came.split(b"result")[1:] for line in [b"r" + line]]
        self.assertEqual(words, [b"1", b"2", b"3"], came)
        for _ in range(3):
            peer.send(put(b"c"))
            served.turn()
        self.assertTrue(self.is_plain(served, peer))
        self.assertEqual(peer.received().count(b"result 200"), 3)

    def test_long_line(self) -> None:
        """A line longer than the limit closes the connection, also when it comes in one piece."""
        served = self.serve(settings=Settings(max_line_bytes=1024))
        peer = self.plain(served)
        peer.send(b"get test %b 0 0 1000 1\r\n" % (b"g" * 1024))
        served.turn()
        self.assertEqual(peer.received(), b"")
        self.assertFalse(peer.transport.connected)

    def test_mostly_other_commands(self) -> None:
        """Such a connection stays slow, for more and more events."""
        served = self.serve()
        peer = self.plain(served)
        tries = 0
        plain_lane = LaneSet._begin_plain

        def begin(sockets: LaneSet, transport: Any) -> bool:
            nonlocal tries
            tried = plain_lane(sockets, transport)
            tries += tried
            return tried

        self.patch(LaneSet, "_begin_plain", begin)
        for _ in range(100):
            peer.send(b"version 2\r\n" + put(b"x"))
            served.turn()
            peer.send(put(b"x"))
            served.turn()
        self.assertEqual(peer.received().count(b"result 200"), 300)
        self.assertLess(tries, 20)

    def test_store_that_cannot_write(self) -> None:
        """While a worker must not be disturbed puts collect in a batch, in order."""
        served = self.serve()
        one, two = self.plain(served), self.plain(served)
        store = self.store(served)
        store.worker = Worker.HOLDING
        one.send(put(b"1", partition=b"1") + put(b"a"))
        served.turn()
        two.send(put(b"b"))
        served.turn()
        self.assertEqual(one.received().count(b"result"), 1)  # a partition of its own
        self.assertEqual(two.received(), b"")
        store.worker = Worker.IDLE
        store.proceed()
        served.turn()
        self.assertEqual((one.received() + two.received()).count(b"result 200"), 2)
        self.assertIn(b"a", served.files()["test-0/0"][-22:-20])
        for _ in range(3):
            one.send(put(b"c"))
            served.turn()
        self.assertTrue(self.is_plain(served, one))

    def test_routes_are_asked_each_time(self) -> None:
        """A partition that is closed refuses puts from the next turn on."""
        served = self.serve()
        peer = self.plain(served)
        served.broker.close_partitions("test", (0, 0))
        peer.send(put(b"x"))
        served.turn()
        self.assertIn(b"result 403", peer.received())

    def test_group_commit(self) -> None:
        """The turn does not write such stores: no put is acknowledged before its flush."""
        served = Served(self.mktemp(), True, unflush_threshold=0)
        self.addCleanup(served.close)
        peer = served.connect()
        peer.send(put(b"first"))
        served.turn()
        peer.received()
        served.broker.threads.hold()
        peer.send(put(b"second"))
        served.turn()
        self.assertEqual(peer.received(), b"")
        served.broker.threads.release()
        served.turn()
        self.assertIn(b"result 200", peer.received())


class FailedWriteTests(LaneCase):
    """A disk that takes only a part."""

    def test_part_of_the_records(self) -> None:
        """Exactly the puts whose records are not in the file are refused; later ones are
        accepted."""
        served = self.serve()
        one, two = self.plain(served), self.plain(served)
        store = self.store(served)
        before = self.fill(served)
        self.limit(before + 3 * 24 + 10)
        puts = [put(b"%04d" % number, opaque=b"%d" % number) for number in range(6)]
        one.send(b"".join(puts[:2]) + b"get test g 0 0 5 9\r\n" + puts[2])
        two.send(b"".join(puts[3:]) + put(b"else", partition=b"1", opaque=b"8"))
        served.turn()
        self.limit(resource.RLIM_INFINITY)
        first, second = one.received(), two.received()
        self.assertEqual((first.count(b"result 200"), first.count(b"result 500")), (3, 0), first)
        self.assertIn(b"value 5 9", first)
        self.assertEqual((second.count(b"result 500"), second.count(b"result 200")), (3, 1), second)
        data = served.files()["test-0/0"]
        self.assertEqual(len(data), before + 3 * 24)
        self.assertEqual(store.next_offset, len(data))
        self.assertEqual(served.broker.factory.shared.waiting, 0, "no request waits any more")
        one.send(put(b"0007"))
        served.turn()
        self.assertIn(b" 0 %d" % len(data), one.received())


class EndTests(LaneCase):
    """Peers that do not read, and ends of connections."""

    def test_peer_that_does_not_read(self) -> None:
        """Bytes that the socket does not take are queued; the connection becomes slow, pauses, and
        continues."""
        served = self.serve()
        writer = self.plain(served)
        writer.send(put(bytes(200_000)))
        served.turn()
        served.advance(1)
        peer = self.plain(served)
        wanted = 200
        for number in range(wanted):
            peer.send(b"get test g 0 0 200000 %d\r\n" % number)
        served.turn()
        self.assertFalse(self.is_plain(served, peer))
        self.assertTrue(peer.transport.queued_bytes)
        self.assertTrue(self.store(served).last.in_use)
        came = bytearray()
        while piece := peer.received() or peer.transport.queued_bytes:
            came += piece if isinstance(piece, bytes) else b""
            served.turn()
        heads = [b"value 200000 %d\r\n" % number for number in range(wanted)]
        self.assertEqual(len(came), sum(map(len, heads)) + wanted * 200_000)
        for number, head in enumerate(heads):
            at = sum(map(len, heads[:number])) + number * 200_000
            self.assertEqual(came[at : at + len(head)], head)
        self.assertFalse(self.store(served).last.in_use)

    def test_bytes_behind_too_many_waiting_ones(self) -> None:
        """The connection pauses for the replies that wait; what was received behind their requests
        is not lost."""
        settings = Settings(max_connection_bytes=1000)
        served = self.serve(unflush_threshold=0, settings=settings)
        peer = self.plain(served)
        served.broker.threads.hold()
        peer.send(put(bytes(900)) * 2 + b"version 3\r\n" + put(b"x", opaque=b"4")[:9])
        served.turn()
        self.assertNotIn(peer.transport.fileno(), served.sockets._masks)  # it pauses
        served.broker.threads.release()
        served.turn()
        peer.send(put(b"x", opaque=b"4")[9:])
        served.turn()
        served.turn()
        opaques = re.findall(rb"result 200 \d+ (\d+)\r\n", peer.received())
        self.assertEqual(opaques, [b"1", b"1", b"3", b"4"])

    def test_request_behind_queued_bytes(self) -> None:
        """Python serves the connection until the socket has taken them: the reply to a request that
        comes meanwhile does not overtake them."""
        served = self.serve()
        self.fill(served)
        peer = self.plain(served)
        asked = 0
        while not peer.transport.queued_bytes:
            peer.send(b"get test g 0 0 200000 %d\r\n" % asked)
            served.turn()
            asked += 1
        request = put(b"x", opaque=b"99")
        peer.send(request[:9])
        served.sockets.doRead()
        came = peer.received()
        peer.send(request[9:])
        while piece := peer.received() or peer.transport.queued_bytes:
            came += piece if isinstance(piece, bytes) else b""
            served.turn()
        came += peer.received()
        self.assertEqual(came.count(b"value 200000 "), asked)
        self.assertIn(b"result 200", came[-100:])

    def test_half_closed_peer(self) -> None:
        """Its requests are answered; then the connection ends."""
        served = self.serve()
        peer = self.plain(served)
        peer.send(put(b"x") * 2 + put(b"half")[:10])
        peer.socket.shutdown(socket.SHUT_WR)
        served.turn()
        self.assertEqual(peer.received().count(b"result 200"), 2)
        self.assertFalse(peer.transport.connected)

    def test_reset(self) -> None:
        """After a reset no object of the connection is left."""
        served = self.serve()
        peer = self.plain(served)
        descriptor = peer.transport.fileno()
        peer.send(put(b"half")[:10])
        served.turn()
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.socket.close()
        served.turn()
        self.assertFalse(peer.transport.connected)
        assert isinstance(served.sockets, LaneSet)
        self.assertNotIn(descriptor, served.sockets.plain)

    def test_reset_behind_a_message(self) -> None:
        """What came before it is taken, also if C has the beginning."""
        served = self.serve()
        peer = self.plain(served)
        before = self.store(served).next_offset
        request = put(b"whole")
        peer.send(request[:10])
        served.turn()
        peer.send(request[10:])
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.socket.close()
        served.turn()
        self.assertEqual(self.store(served).next_offset, before + 20 + len(b"whole"))
        self.assertFalse(peer.transport.connected)

    def test_broker_stops(self) -> None:
        """No further request is taken, and the connection closes."""
        served = self.serve()
        peer = self.plain(served)
        store = self.store(served)
        before = store.next_offset
        done = served.broker.factory.close_connections()
        peer.send(put(b"late"))
        served.turn()
        served.advance(0.1)
        self.assertEqual((peer.received(), store.next_offset), (b"", before))
        self.assertFalse(peer.transport.connected)
        served.advance(5)
        self.successResultOf(done)

    def test_closed_by_what_was_left_before(self) -> None:
        """Unsent replies are released when their connection has ended meanwhile."""
        served = self.serve()
        store = self.store(served)
        unsent = TurnStores.keep(b"", store.last, 0, 5)
        refused = TurnStores.keep(b"value 5 1\r\n", store.last, 0, 5)
        assert isinstance(served.sockets, LaneSet)
        gone = [(UNSENT, 1 << 20, [b"x", unsent]), (WAITING, 1 << 20, 9, [(None, 0, refused)])]
        self.assertTrue(store.last.in_use)
        served.sockets._serve_left([*gone, (BYTES, 1 << 20, b"x", 0), (EVENT, 1 << 20, 1)])
        self.assertFalse(store.last.in_use)

    def test_held_get(self) -> None:
        """A held get of a plain connection is answered, and puts of the same connection are
        answered at once."""
        served = self.serve()
        peer, writer = self.plain(served), self.plain(served)
        end = self.store(served).max_offset
        served.advance(1)
        end = self.store(served).max_offset
        peer.send(b"get test g 0 %d 1000 5 60000\r\n" % end)
        served.turn()
        for _ in range(3):
            peer.send(put(b"mine", partition=b"1"))
            served.turn()
        self.assertEqual(peer.received().count(b"result 200"), 3)
        writer.send(put(b"news"))
        served.turn()
        served.advance(1)
        served.turn()
        self.assertIn(b"value 24 5\r\n", peer.received())


class LanesTests(LaneCase):
    """The object itself, with invalid arguments."""

    def test_odd_arguments(self) -> None:
        """They raise an error, and do not crash."""
        served = self.serve()
        assert isinstance(served.sockets, LaneSet) and turn is not None
        lanes = served.sockets._lanes
        for arguments in (
            (-1, b"", 0),
            (5, bytes(1 << 20), 0),
            ("5", b"", 0),
            (1 << 40, b"", 0),
            (5, b""),
        ):
            with self.assertRaises((ValueError, TypeError, OverflowError)):
                lanes.plain(*arguments)
        with self.assertRaises(TypeError):
            lanes.slow("5")
        self.assertEqual(lanes.slow(1 << 20), (b"", 0, []))
        self.assertFalse(lanes.active(1 << 20))
        for odd in ((), (1, object(), object(), 5, 5), (1, object(), object(), -5, 5)):
            with self.assertRaises((TypeError, AttributeError, ValueError)):
                turn(*odd)
        with self.assertRaises((ValueError, RuntimeError)):
            lanes.__init__(1, served.sockets._stores, served.broker.ids, 5, 5)
