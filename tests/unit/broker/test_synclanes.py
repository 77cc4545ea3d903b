"""
The turn in C on the slave of a pair: the records that it takes, and the connection that it takes
them from.
"""

from __future__ import annotations

import os
import random
import resource
import socket
from typing import Any

from metamorphosis.message import encode_record
from metamorphosis.replication.pairslave import unbroken
from metamorphosis.replication.role import JOINING_GROUP
from metamorphosis.store.states import Worker
from tests.support.lanes import Peer, Served
from tests.support.slaves import SlaveBroker, sync
from tests.unit.broker.test_hotpath import put
from tests.unit.broker.test_lanes import LaneCase
from tests.unit.broker.test_syncscan import random_frame
from tests.unit.broker.test_turntwins import FRAMES, SEED, cut, logs

JOIN = b"offset test %b %%b 0 1\r\n" % JOINING_GROUP.encode()


class SlaveCase(LaneCase):
    """A slave with the turn in C."""

    def slave(self, in_c: bool = True, **options: Any) -> Served:
        """A slave without a master."""
        options.setdefault("unflush_threshold", 1000)
        served = Served(self.mktemp(), in_c, SlaveBroker, **options)
        self.addCleanup(served.close)
        return served

    def master(self, served: Served) -> Peer:
        """A plain connection of the master; both partitions have a record."""
        peer = served.connect()
        for _ in range(3):
            peer.send(sync(b"first") + sync(b"first", partition=b"1"))
            served.turn()
        self.assertEqual(peer.received().count(b"result 200"), 6)
        self.assertTrue(self.is_plain(served, peer))
        return peer


class TakenTests(SlaveCase):
    """Records that do not reach the connection in Python."""

    def taken_only(self, served: Served) -> Peer:
        """A connection of the master that fails if any byte of it is left to Python."""
        peer = self.master(served)
        peer.connection.received = None  # type: ignore[assignment,method-assign]
        return peer

    def test_records(self) -> None:
        """They are stored with their ids and flags, counted and answered; no id is drawn."""
        served = self.slave()
        peer = self.taken_only(served)
        store = self.store(served)
        start, count, drawn = store.next_offset, store.put_count, served.broker.ids.next_id
        record = sync(
            b"hello", message_id=b"-9223372036854775808", flag=b"-7", opaque=b"-2147483648"
        )
        peer.send(record + sync(b"", checksum=b"-1", opaque=b"2") + sync(b"x", checksum=b""))
        served.turn()
        texts = [
            b"-9223372036854775808 0 %d" % start,
            b"7 0 %d" % (start + 25),
            b"7 0 %d" % (start + 45),
        ]
        replies = [
            b"result 200 %d %b\r\n%b" % (len(text), opaque, text)
            for text, opaque in zip(texts, (b"-2147483648", b"2", b"1"))
        ]
        self.assertEqual(peer.received(), b"".join(replies))
        expected = encode_record(-(1 << 63), -7, b"hello")
        expected += encode_record(7, 0, b"") + encode_record(7, 0, b"x")
        self.assertEqual(served.files()["test-0/0"][start:], expected)
        self.assertEqual((store.put_count, served.broker.ids.next_id), (count + 3, drawn))

    def test_record_in_pieces(self) -> None:
        """An incomplete ordinary record is kept until the rest arrives."""
        served = self.slave()
        peer = self.taken_only(served)
        for byte in sync(b"hello"):
            self.assertEqual(peer.received(), b"")
            peer.send(bytes([byte]))
            served.turn()
        self.assertIn(b"result 200", peer.received())

    def test_lost_master(self) -> None:
        """The connection of a master whose machine is gone ends within half a minute."""
        served = self.slave()
        peer = self.master(served)
        taken: socket.socket = peer.connection.transport.socket
        self.assertEqual(30_000, taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
        client = served.connect().connection.transport.socket
        self.assertEqual(0, client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))


class LeftTests(SlaveCase):
    """Other requests, in order."""

    def test_other_requests(self) -> None:
        """They are answered between records, as by any broker; a put is refused."""
        served = self.slave()
        peer = self.master(served)
        others = b"version 2\r\n" + put(b"x", opaque=b"3") + sync(b"x", checksum=b"5", opaque=b"4")
        peer.send(sync(b"a", opaque=b"1") + others + sync(b"b", opaque=b"5"))
        served.turn()
        came = peer.received()
        heads = [part.split()[:3:2] for part in came.split(b"result ")[1:]]
        statuses = [(b"200", b"1"), (b"200", b"2"), (b"403", b"3"), (b"500", b"4"), (b"200", b"5")]
        self.assertEqual([tuple(head) for head in heads], statuses, came)
        for _ in range(5):
            peer.send(sync(b"c"))
            served.turn()
        self.assertTrue(self.is_plain(served, peer))
        self.assertEqual(peer.received().count(b"result 200"), 5)

    def test_clients_of_a_slave(self) -> None:
        """Their gets are answered, and their puts are refused although records of the master go to
        the same partition in the same turn."""
        served = self.slave()
        master, client = self.master(served), served.connect()
        served.advance(1)
        for _ in range(4):
            client.send(b"get test g 0 0 25 4\r\n")
            served.turn()
        self.assertEqual(client.received().count(b"value 25 4"), 4)
        self.assertTrue(self.is_plain(served, client))
        end = self.store(served).next_offset
        master.send(sync(b"record"))
        client.send(put(b"direct"))
        served.turn()
        self.assertIn(b"result 200", master.received())
        self.assertIn(b"result 403", client.received())
        self.assertEqual(served.files()["test-0/0"][end:], encode_record(7, 0, b"record"))

    def test_store_that_cannot_write(self) -> None:
        """While a worker must not be disturbed records collect in a batch, in order."""
        served = self.slave()
        peer = self.master(served)
        store = self.store(served)
        start = store.next_offset
        store.worker = Worker.HOLDING
        peer.send(sync(b"1", partition=b"1") + sync(b"a") + sync(b"2", partition=b"1"))
        served.turn()
        self.assertEqual(peer.received().count(b"result"), 1)
        store.worker = Worker.IDLE
        store.proceed()
        served.turn()
        self.assertEqual(peer.received().count(b"result 200"), 2)
        self.assertEqual(served.files()["test-0/0"][start:], encode_record(7, 0, b"a"))

    def test_group_commit(self) -> None:
        """No record is acknowledged before its flush."""
        served = self.slave(unflush_threshold=0)
        peer = served.connect()
        for _ in range(3):
            peer.send(sync(b"first"))
            served.turn()
        self.assertEqual(peer.received().count(b"result 200"), 3)
        served.broker.threads.hold()
        peer.send(sync(b"second"))
        served.turn()
        self.assertEqual(peer.received(), b"")
        served.broker.threads.release()
        served.turn()
        self.assertIn(b"result 200", peer.received())

    def test_partition_that_is_closed(self) -> None:
        """It refuses records from the next turn on."""
        served = self.slave()
        peer = self.master(served)
        served.broker.close_partitions("test", (0, 0))
        peer.send(sync(b"x"))
        served.turn()
        self.assertIn(b"result 403", peer.received())


class RefusedTests(SlaveCase):
    """No record after a refused one is stored while the master joins."""

    def test_part_of_the_records(self) -> None:
        """A disk that takes only a part: records that are not in the file are refused, and all
        later ones until the master asks for the offset again."""
        served = self.slave()
        peer = self.master(served)
        store = self.store(served)
        for _ in range(4):  # or the limit would hold for the log of the tests
            peer.send(sync(bytes(900_000)))
            served.turn()
        peer.send(JOIN % b"0")
        served.turn()
        for _ in range(64):
            peer.send(sync(b"some"))
            served.turn()
        self.assertTrue(self.is_plain(served, peer))
        peer.received()
        before = store.next_offset
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, (most, most))
        resource.setrlimit(resource.RLIMIT_FSIZE, (before + 2 * 24 + 10, most))
        peer.send(b"".join(sync(b"%04d" % number) for number in range(5)))
        served.turn()
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        came = peer.received()
        self.assertEqual((came.count(b"result 200"), came.count(b"result 500")), (2, 3), came)
        for _ in range(3):
            peer.send(sync(b"late") + sync(b"else", partition=b"1"))
            served.turn()
        came = peer.received()
        self.assertEqual(came.count(unbroken.REASON.encode()), 3, came)
        self.assertEqual(came.count(b"result 200"), 3)  # the other partition
        self.assertEqual(len(served.files()["test-0/0"]), before + 2 * 24)
        peer.send(JOIN % b"0" + sync(b"0002"))
        served.turn()
        self.assertIn(b"7 0 %d" % (before + 2 * 24), peer.received())


class TakeoverTests(SlaveCase):
    """A newer connection of the master."""

    def test_nothing_of_the_older_is_taken_any_more(self) -> None:
        """Neither its incomplete record nor later ones; it becomes slow at once, and is closed."""
        served = self.slave()
        older = self.master(served)
        older.send(sync(b"begun")[:20])
        served.turn()
        self.assertTrue(self.is_plain(served, older))
        newer = served.connect()
        newer.send(sync(b"newer"))
        served.turn()
        self.assertIn(b"result 200", newer.received())
        self.assertNotIn(older.transport.fileno(), served.sockets.plain)  # type: ignore[attr-defined]
        self.assertIsNone(older.connection.session.scan)
        end = self.store(served).next_offset
        try:
            older.send(sync(b"begun")[20:] + sync(b"late"))
        except OSError:
            pass  # it was cut off
        served.turn()
        self.assertFalse(older.transport.connected)
        self.assertEqual((older.received(), self.store(served).next_offset), (b"", end))

    def test_both_ready_in_one_turn(self) -> None:
        """Records of the older connection are stored before those of the newer, or not at all."""
        served = self.slave()
        older = self.master(served)
        for _ in range(2):  # more than one round
            newer = served.connect()
            store = self.store(served)
            for _ in range(6):
                older.send(sync(bytes(60_000), opaque=b"3"))
            newer.send(sync(b"newer", opaque=b"5"))
            served.turn()
            reply = newer.received()
            offset = int(reply.split()[-1])
            self.assertEqual(store.next_offset, offset + 25, reply)
            newer.send(sync(b"again"))
            served.turn()
            self.assertIn(b"7 0 %d" % (offset + 25), newer.received())
            older = newer


class TwinTests(SlaveCase):
    """
    Whole turns in C beside whole turns in Python.

    :ivar pieces: how many left the connection of the master plain.
    """

    pieces = 0

    def test_random_streams(self) -> None:
        """Random requests of a master, cut anywhere, with takeovers and clients: the same replies,
        logs and counters. A failure names the seed of its stream."""
        self.patch(os, "fdatasync", lambda descriptor: None)
        self.pieces = 0
        for seed in range(SEED, SEED + max(1, FRAMES // 5000)):
            rng = random.Random(seed)
            plan = self.plan(rng)
            seen = []
            for in_c in (True, False):
                served = self.slave(in_c, max_segment_size=50_000)
                seen.append(self.run_plan(served, plan))
                served.close()
            for one, other in zip(*seen):
                self.assertEqual(one, other, f"seed {seed}")
        self.assertGreater(self.pieces, 20)

    def plan(self, rng: random.Random) -> list[tuple[int, bytes, float]]:
        """(connection, piece, seconds that pass after it): masters after each other, with a client
        beside them."""
        plan = []
        for number in range(1, 4):
            frames = [sync(b"first"), sync(b"first", partition=b"1")]
            odd = rng.choice((0, 0.01, 0.2))
            for _ in range(rng.choice((50, 200, 500))):
                ordinary = rng.random() >= odd
                body = rng.randbytes(rng.choice((0, 5, 100, 1000, 5000)))
                frame = sync(body, message_id=b"%d" % rng.getrandbits(62))
                frames.append(frame if ordinary else random_frame(rng))
                if rng.random() < odd / 10:
                    frames.append(JOIN % rng.choice((b"0", b"1")))
            for piece in cut(rng, b"".join(frames), 5000):
                plan.append((number, piece, rng.choice((0, 0, 0, 0.001, 0.2))))
                if rng.random() < 0.1:
                    client = rng.choice((put(b"x"), b"get test g 0 0 100 6\r\n", b"version 3\r\n"))
                    plan.append((0, client, 0))
        return plan

    def run_plan(self, served: Served, plan: list[tuple[int, bytes, float]]) -> list[object]:
        """The results of the plan."""
        peers = [served.connect() for _ in range(4)]
        for peer in peers:
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        came = [bytearray() for _ in peers]
        for number, piece, pause in plan:
            peers[number].send(piece)
            served.turn()
            self.pieces += served.in_c and self.is_plain_master(served, peers[number])
            if pause:
                served.advance(pause)
            came[number] += peers[number].received()
        served.advance(2)
        for number, peer in enumerate(peers):
            came[number] += peer.received()
        stores = [
            (store.put_count, store.put_bytes, store.get_count, store.next_offset)
            for store in served.broker.stores
        ]
        figures = served.broker.responders.figures.take().statistics.cmd_put
        return [*map(bytes, came), logs(served), stores, figures]

    def is_plain_master(self, served: Served, peer: Peer) -> bool:
        """Whether the turn in C takes its records."""
        return peer.connection.session.scan is not None and self.is_plain(served, peer)
