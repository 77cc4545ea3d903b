"""Puts to a pair by the turn in C: they are sent, stored and answered as by the path in Python."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.lanes import LaneSet
from metamorphosis.native import turn, way
from metamorphosis.replication.pairmaster.pairedlog import Standing
from tests.support.lanes import Peer, Reactor
from tests.support.pairing import DISCONNECTED, SLAVE_FAILED, Pair, put, result
from tests.support.scriptedpeers import Fault
from tests.unit.replication.pairmaster.test_puts import PairCase


class LanePair(Pair):
    """
    A pair master whose producers come over real sockets.

    :ivar sockets: their set.
    """

    def start(self) -> None:
        """See ``Pair``."""
        super().start()
        self.sockets = LaneSet(Reactor(self.broker.clock), self.broker.factory.shared)  # type: ignore[arg-type]
        self.sockets.open()

    def serve(self) -> None:
        """Serve the sockets that are ready, once, and what follows from it."""
        self.sockets.doRead()
        self.runtime.advance(0)

    def end(self, peers: list[Peer]) -> None:
        """The end of all connections."""
        for peer in peers:
            peer.socket.close()
            if peer.transport.connected:
                peer.transport.abortConnection()
        self.runtime.advance(0)
        self.sockets.close()


class LaneCase(PairCase):
    """A connected pair whose two partitions have a message each."""

    if turn is None:
        skip = f"the turn in C is not used ({way})"

    pair: LanePair
    threshold = 1000

    def setUp(self) -> None:
        """Connect."""
        super().setUp()
        self.peers: list[Peer] = []
        self.addCleanup(lambda: self.pair.end(self.peers))
        self.pair.send(self.client, put(b"first") + put(b"first", partition=1))

    def new_pair(self) -> Pair:
        """See ``PairCase``."""
        return LanePair(self.mktemp(), unflush_threshold=self.threshold)

    def peer(self) -> Peer:
        """A plain connection that fails if a byte of it is left to Python."""
        peer = self.any_peer()
        peer.send(put(b"plain"))
        self.pair.serve()
        self.pair.settle()
        self.assertEqual(self.statuses(peer.received()), [b"200"])
        self.assertTrue(self.is_plain(peer))
        peer.connection.received = None  # type: ignore[assignment,method-assign]
        return peer

    def any_peer(self) -> Peer:
        """A connection."""
        peer = Peer(self.pair)
        self.peers.append(peer)
        return peer

    def is_plain(self, peer: Peer) -> bool:
        """Whether C serves it."""
        return peer.transport.fileno() in self.pair.sockets.plain

    def assert_nothing_waits(self) -> None:
        """Nowhere."""
        self.assertEqual(self.pair.sockets._lanes.held(), 0)
        self.assertEqual(self.pair.broker.factory.shared.waiting, 0)
        self.assertEqual(self.pair.role.syncs.waiting, 0)
        self.assertEqual(self.pair.role.syncs.under_way, 0)


class TakenTests(LaneCase):
    """What stays in C."""

    def test_one_write(self) -> None:
        """What a turn has received, of all connections and partitions, is sent with one write, and
        is answered when both brokers have it."""
        peers = [self.peer() for _ in range(3)]
        writes = self.pair.link.writes
        for number, peer in enumerate(peers):
            peer.send(put(b"x" * number, 5) + put(b"y", 6, 1) + put(b"z", 7))
        self.pair.serve()
        self.assertEqual(self.pair.link.writes, writes + 1)
        self.assertEqual([peer.received() for peer in peers], [b""] * 3)
        before = self.pair.own()
        self.pair.settle()
        for peer in peers:
            replies = peer.received()
            opaques = [int(part.split()[2]) for part in replies.split(b"result ")[1:]]
            self.assertEqual(opaques, [5, 6, 7])
            self.assertEqual(self.statuses(replies), [b"200"] * 3)
            self.assertTrue(self.is_plain(peer))
        self.assertGreater(len(self.pair.own()), len(before))
        self.assert_identical()
        self.assert_nothing_waits()

    def test_no_store_batch(self) -> None:
        """Neither the store nor the pair opens a batch for it."""
        peer = self.peer()
        if self.threshold:
            self.patch(self.pair.log().store, "open_batch", None)
        self.patch(self.pair.log(), "open_batch", None)
        peer.send(b"".join(put(b"x" * n, n) for n in range(40)))
        self.pair.serve()
        self.pair.settle()
        self.assertEqual(self.statuses(peer.received()), [b"200"] * 40)
        self.assert_identical()
        self.assert_counted(43, 0)

    def test_replies_in_pieces(self) -> None:
        """A put is answered when the reply of its own batch has come whole."""
        peer = self.peer()
        peer.send(put(b"a", 5) + put(b"b", 6))
        self.pair.serve()
        wire = self.pair.wire
        assert wire is not None
        wire.line.receive(wire.take())
        coming = b"".join(wire.coming)
        wire.coming.clear()
        for byte in coming:
            self.assertEqual(peer.received(), b"")
            wire.link.receive(bytes([byte]))
        self.assertEqual(self.statuses(peer.received()), [b"200"] * 2)
        self.assert_identical()


class GroupCommitTests(TakenTests):
    """The same with a log that is flushed before the reply."""

    threshold = 0


class WaitTests(LaneCase):
    """Whether the turn waits for the slave before it returns to the reactor."""

    threshold = 0

    def test_slave_or_flush(self) -> None:
        """It does while puts wait for the slave only; the end of a flush comes by the reactor."""
        peer = self.peer()
        syncs = self.pair.role.syncs
        self.assertFalse(syncs.waits_only_for_slave())
        self.pair.broker.threads.hold()
        peer.send(put(b"a", 5))
        self.pair.serve()
        self.assertTrue(syncs.waits_only_for_slave())
        self.pair.settle()
        peer.send(put(b"b", 6))
        self.pair.serve()
        self.assertFalse(syncs.waits_only_for_slave())
        self.pair.settle()
        self.pair.broker.threads.release()
        self.pair.settle()
        self.assertEqual(self.statuses(peer.received()), [b"200"] * 2)
        self.assertFalse(syncs.waits_only_for_slave())
        self.assertEqual(syncs.landing, 0)


class RefusedTests(LaneCase):
    """What ends otherwise."""

    def test_refused_by_the_slave(self) -> None:
        """Its put is refused, the others are stored at lower offsets, and the order stays."""
        peer = self.peer()
        self.pair.gregor.faults[len(self.pair.gregor.syncs) + 2] = Fault.REFUSE
        peer.send(b"".join(put(b"x", n) for n in range(4)))
        self.pair.serve()
        self.pair.settle()
        replies = peer.received()
        self.assertEqual(self.statuses(replies), [b"200", b"500", b"200", b"200"])
        self.assertIn(result(500, SLAVE_FAILED % 0, 1), replies)
        self.assert_identical()
        self.assert_counted(7, 1)
        self.assert_nothing_waits()

    def test_offsets_after_a_refusal(self) -> None:
        """The replies to later puts have the true offsets."""
        peer = self.peer()
        self.pair.gregor.faults[len(self.pair.gregor.syncs) + 1] = Fault.REFUSE
        peer.send(put(b"long" * 100, 1))
        self.pair.serve()
        peer.send(put(b"x", 2))
        self.pair.serve()
        end = len(self.pair.own())
        self.pair.settle()
        replies = peer.received()
        self.assertEqual(self.statuses(replies), [b"500", b"200"])
        self.assertTrue(replies.endswith(b" 0 %d" % end), replies)
        self.assert_identical()

    def test_lost(self) -> None:
        """Puts that are pending when the connection is lost are refused; afterwards the logs are
        the same."""
        peer = self.peer()
        peer.send(put(b"a", 5) + put(b"b", 6))
        self.pair.serve()
        self.pair.lose()
        failed = SLAVE_FAILED % 0
        self.assertEqual(peer.received(), result(500, failed, 5) + result(500, failed, 6))
        peer.connection.received = type(peer.connection).received.__get__(peer.connection)  # type: ignore[method-assign]
        peer.send(put(b"c", 7))
        self.pair.serve()
        self.assertEqual(peer.received(), result(500, DISCONNECTED, 7))
        self.pair.connect()
        self.pair.advance(3, 0.5)
        self.assertEqual(self.pair.log().standing, Standing.JOINED)
        self.assert_identical()
        self.assert_nothing_waits()

    def test_late(self) -> None:
        """A put is refused after the time limit; a late answer stores its record."""
        peer = self.peer()
        self.pair.gregor.freeze()
        peer.send(put(b"a", 5))
        self.pair.serve()
        self.pair.advance(2.2)
        self.assertEqual(peer.received(), result(500, SLAVE_FAILED % 0, 5))
        self.pair.gregor.thaw()
        self.pair.settle()
        self.assert_identical()
        self.assert_nothing_waits()

    def test_other_puts_between(self) -> None:
        """A put without a checksum is left to Python; all keep their order in the log."""
        peer = self.any_peer()
        chunk = put(b"a", 1) + b"put test 0 1 0 2\r\nb" + put(b"c", 3)
        for _ in range(3):
            peer.send(chunk)
            self.pair.serve()
        self.pair.settle()
        replies = peer.received()
        self.assertEqual(self.statuses(replies), [b"200"] * 9)
        log = self.pair.own()[25:]
        self.assertEqual(log[20::21], b"abc" * 3)
        self.assert_identical()

    def test_memory(self) -> None:
        """Beyond the limit of what waits for the slave puts are refused."""
        peer = self.peer()
        self.pair.gregor.freeze()
        syncs = self.pair.role.syncs
        syncs.limit = 2000
        peer.send(put(b"x" * 1000, 1))
        self.pair.serve()
        peer.send(put(b"x" * 1000, 2))
        self.pair.serve()
        other = self.any_peer()
        other.send(put(b"x", 3))
        self.pair.serve()
        self.assertEqual(other.received(), result(500, SLAVE_FAILED % 0, 3))
        self.pair.gregor.thaw()
        self.pair.settle()
        self.assertEqual(self.statuses(peer.received()), [b"200"] * 2)
        self.assert_identical()
        self.assert_nothing_waits()


class RandomTests(SynchronousTestCase):
    """Many connections, any cut of their bytes, a slave that refuses, is slow, or goes."""

    if turn is None:
        skip = f"the turn in C is not used ({way})"

    seeds = 12

    def test_random(self) -> None:
        """Each put has one reply, in order; what was acknowledged is on both where it says."""
        for seed in range(self.seeds):
            self.run_one(random.Random(seed), 1000 if seed % 2 else 0)

    def new_pair(self, threshold: int) -> LanePair:
        """One that is not connected."""
        return LanePair(self.mktemp(), unflush_threshold=threshold, max_segment_size=5000)

    def disturb(self, pair: LanePair, rng: random.Random) -> None:
        """Do something else to it."""

    def run_one(self, rng: random.Random, threshold: int) -> None:
        """One pair."""
        pair = self.new_pair(threshold)
        pair.connect()
        peers = [Peer(pair) for _ in range(4)]
        sent = [0] * 4
        received = [b""] * 4
        rest = [b""] * 4
        for _ in range(60):
            for number, peer in enumerate(peers):
                chunk = rest[number]
                for _ in range(rng.randrange(4)):
                    chunk += put(rng.randbytes(rng.randrange(300)), sent[number], rng.randrange(2))
                    sent[number] += 1
                cut = rng.randrange(len(chunk) + 1) if rng.random() < 0.3 else len(chunk)
                peer.send(chunk[:cut])
                rest[number] = chunk[cut:]
            pair.serve()
            self.disturb(pair, rng)
            if rng.random() < 0.1:
                pair.gregor.faults[len(pair.gregor.syncs) + rng.randrange(1, 9)] = Fault.REFUSE
            if rng.random() < 0.05:
                pair.lose()
                pair.connect()
                pair.advance(1.5, 0.5)
            if rng.random() < 0.6:
                pair.settle()
            for number, peer in enumerate(peers):
                received[number] += peer.received()
        for number, peer in enumerate(peers):
            peer.send(rest[number])
        pair.serve()
        pair.advance(3, 0.5)
        for number, peer in enumerate(peers):
            received[number] += peer.received()
        for partition in (0, 1):
            self.assertEqual(pair.own(partition), pair.slaves(partition))
        for number in range(4):
            self.check(pair, sent[number], received[number])
        pair.gregor.verify()
        pair.end(peers)

    def check(self, pair: LanePair, sent: int, received: bytes) -> None:
        """The replies of one connection."""
        parts = received.split(b"result ")[1:]
        self.assertEqual([int(part.split()[2]) for part in parts], list(range(sent)))
        for part in parts:
            if part.startswith(b"200"):
                message_id, partition, offset = map(int, part.partition(b"\r\n")[2].split())
                found = pair.own(partition)[offset + 8 : offset + 16]
                self.assertEqual(found, message_id.to_bytes(8, "big", signed=True))
