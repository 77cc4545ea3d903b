"""The contract of replies: their order, and the effect of the outcome that they wait for."""

from __future__ import annotations

import os
import random

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.replies import FileReply, Reply, ReplyQueue, Slot
from metamorphosis.store.segment import Segment
from tests.unit.broker.awaiting import PROVIDERS, ForcedRecord, Provider


class Peer:
    """The sent bytes."""

    def __init__(self) -> None:
        self.sent = b""
        self.writes = 0
        self.awake = 0
        self.queue = ReplyQueue(self._wake)

    def _wake(self) -> None:
        self.awake += 1

    def write(self, data: bytes) -> None:
        """See ``Transport``."""
        self.sent += data
        self.writes += 1

    def chunk(self, *replies: bytes | tuple[bytes, Provider, int]) -> None:
        """A chunk with these replies; those of a provider have the number of their record."""
        self.queue.begin()
        for reply in replies:
            if isinstance(reply, bytes):
                self.queue.add(reply)
            else:
                text, provider, record = reply
                self.queue.add(text, provider.awaited, record, provider.refuse)
        self.queue.end(10)

    def drained(self) -> bytes:
        """Drain, and return the bytes that were sent since the last call."""
        self.queue.drain(self)
        sent, self.sent = self.sent, b""
        return sent


class AwaitedTests(SynchronousTestCase):
    """The objects that replies wait for: a batch, a forced record, a pair."""

    def each(self) -> list[tuple[Peer, Provider]]:
        """A peer and a provider of each kind."""
        return [(Peer(), provider(self.mktemp())) for provider in PROVIDERS]

    def test_everything_waits_for_what_is_undecided(self) -> None:
        """No reply passes a waiting one; the outcome wakes the queue."""
        for peer, provider in self.each():
            peer.chunk(b"a ", (b"0 ", provider, 0), b"b ")
            peer.chunk(b"c ")
            self.assertEqual(peer.drained(), b"")
            self.assertEqual((peer.awake, peer.queue.size), (0, 28))
            provider.succeed()
            self.assertEqual(peer.awake, 1)
            self.assertEqual(peer.drained(), b"a 0 b c ")
            self.assertEqual((peer.writes, peer.queue.size, bool(peer.queue)), (1, 0, False))

    def test_chunk_without_a_reply(self) -> None:
        """A chunk with only a held get does not wait: its bytes are not counted."""
        peer = Peer()
        peer.queue.begin()
        self.assertFalse(peer.queue.end(10))
        self.assertEqual((peer.queue.size, bool(peer.queue)), (0, False))

    def test_woken_once(self) -> None:
        """The queue is woken once, however often it was drained before."""
        for peer, provider in self.each():
            peer.chunk((b"0 ", provider, 0))
            for _ in range(5):
                self.assertEqual(peer.drained(), b"")
            provider.succeed()
            self.assertEqual((peer.awake, peer.drained()), (1, b"0 "))

    def test_decided_before_it_is_looked_at(self) -> None:
        """A reply to a decided object leaves at once."""
        for peer, provider in self.each():
            peer.chunk((b"0 ", provider, 0))
            provider.succeed()
            self.assertEqual(peer.drained(), b"0 ")

    def test_refusals_of_what_is_not_stored(self) -> None:
        """Exactly the replies to records that are not stored are refused, whatever the runs and the
        replies between them."""
        for peer, provider in self.each():
            peer.chunk((b"0 ", provider, 0), b"x ", (b"2 ", provider, 2))
            peer.chunk((b"1 ", provider, 1), (b"2 ", provider, 2), b"y ")
            peer.chunk((b"0 ", provider, 0), (b"2 ", provider, 2))
            kept = provider.fail()
            self.assertEqual(
                peer.drained(),
                b"".join(
                    text if number is None or number < kept else b"refused "
                    for text, number in (
                        (b"0 ", 0),
                        (b"x ", None),
                        (b"2 ", 2),
                        (b"1 ", 1),
                        (b"2 ", 2),
                        (b"y ", None),
                        (b"0 ", 0),
                        (b"2 ", 2),
                    )
                ),
            )

    def test_connection_is_gone(self) -> None:
        """An outcome after the queue was cleared has no effect."""
        for peer, provider in self.each():
            peer.chunk((b"0 ", provider, 0))
            self.assertEqual((peer.drained(), peer.queue.clear()), (b"", 12))
            provider.succeed()
            self.assertEqual((peer.drained(), len(peer.queue)), (b"", 0))

    def test_replies_that_cannot_be_sent(self) -> None:
        """When a transport fails, the requests count as unanswered until the queue is cleared."""

        class Broken(Peer):
            def write(self, data: bytes) -> None:
                raise OSError("broken")

        peer = Broken()
        peer.chunk(b"a ")
        peer.chunk(b"b ")
        self.assertRaises(OSError, peer.queue.drain, peer)
        self.assertEqual((24, 0), (peer.queue.clear(), peer.queue.size))


class PlaceTests(SynchronousTestCase):
    """Places that are filled later, and replies outside of a chunk."""

    def test_slot_keeps_its_place(self) -> None:
        """A slot in a chunk holds back later replies until it is filled."""
        peer = Peer()
        peer.queue.begin()
        peer.queue.add(b"a ")
        slot = peer.queue.reserve()
        peer.queue.add(b"b ")
        peer.queue.end(10)
        self.assertEqual(peer.drained(), b"")
        slot.fill(b"s ")
        self.assertEqual((peer.awake, peer.drained()), (1, b"a s b "))
        self.assertRaises(RuntimeError, slot.fill, b"again")

    def test_outside_of_a_chunk(self) -> None:
        """A reply, or a slot, outside of a chunk comes after all others."""
        peer = Peer()
        provider = ForcedRecord("")
        peer.chunk((b"0 ", provider, 0))
        slot = peer.queue.reserve()
        peer.queue.add(b"z ")
        peer.chunk(b"c ")
        self.assertEqual((peer.drained(), peer.awake), (b"", 2))
        slot.fill(b"s ")
        self.assertEqual(peer.drained(), b"")
        provider.succeed()
        self.assertEqual(peer.drained(), b"0 s z c ")

    def test_slot_of_a_lost_connection(self) -> None:
        """Filling it has no effect, and a file range is released."""
        peer = Peer()
        slot = peer.queue.reserve()
        peer.queue.clear()
        segment = Segment(0, "nowhere", 10)
        slot.fill(FileReply(b"value", segment, 0, 1))
        self.assertEqual((segment._readers, peer.drained()), (0, b""))

    def test_slot_that_gets_a_file(self) -> None:
        """The range leaves as one, between the bytes around it."""
        peer = Peer()
        peer.queue.begin()
        peer.queue.add(b"a ")
        slot = peer.queue.reserve()
        peer.queue.add(b" b")
        peer.queue.end(10)
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"0123456789")
        segment = Segment(0, path, 10, fd=os.open(path, os.O_RDONLY))
        self.addCleanup(segment.close)
        slot.fill(FileReply(b"value ", segment, 3, 4))
        self.assertEqual(peer.drained(), b"a value 3456 b")

    def test_late_reply_keeps_its_order(self) -> None:
        """The reply to a held request leaves after earlier ones and holds back none."""
        peer = Peer()
        first, second = ForcedRecord(""), ForcedRecord("")
        peer.chunk((b"0 ", first, 0))
        peer.queue.begin()
        place = peer.queue.place
        peer.queue.add(b"a ")
        peer.queue.end(10)
        peer.chunk((b"1 ", second, 0))
        self.assertEqual(peer.drained(), b"")
        peer.queue.add_late(b"late ", place)
        self.assertEqual(peer.drained(), b"")
        first.succeed()
        self.assertEqual(peer.drained(), b"0 a late ")
        peer.queue.add_late(b"later ", place)
        self.assertEqual(peer.drained(), b"later ")
        second.succeed()
        self.assertEqual(peer.drained(), b"1 ")

    def test_late_reply_within_its_own_chunk(self) -> None:
        """A request that was held and answered while its chunk is taken in."""
        peer = Peer()
        provider = ForcedRecord("")
        peer.queue.begin()
        peer.queue.add(b"0 ", provider, 0, provider.refuse)
        peer.queue.add_late(b"late ", peer.queue.place)
        peer.queue.end(10)
        self.assertEqual(peer.drained(), b"")
        provider.succeed()
        self.assertEqual(peer.drained(), b"0 late ")

    def test_any_order_of_decisions(self) -> None:
        """Chunks, slots and outcomes in random order: each reply leaves once, in the order of the
        requests."""
        for seed in range(200):
            rng = random.Random(seed)
            peer = Peer()
            open_ones: list[Provider | tuple[Slot, Reply]] = []
            expected: list[bytes] = []
            sent = b""
            for _ in range(30):
                inside = rng.random() < 0.7
                if inside:
                    peer.queue.begin()
                for _ in range(rng.randrange(1, 4)):
                    text = b"%d " % len(expected)
                    expected.append(text)
                    kind = rng.randrange(3)
                    if kind == 0:
                        peer.queue.add(text)
                    elif kind == 1:
                        open_ones.append((peer.queue.reserve(), text))
                    else:
                        provider = ForcedRecord("")
                        peer.queue.add(text, provider, 0, provider.refuse)
                        open_ones.append(provider)
                if inside:
                    peer.queue.end(5)
                if open_ones and rng.random() < 0.7:
                    chosen = open_ones.pop(rng.randrange(len(open_ones)))
                    self.decide(chosen)
                sent += peer.drained()
                self.assertTrue(b"".join(expected).startswith(sent), f"seed {seed}")
            for each in open_ones:
                self.decide(each)
            self.assertEqual(sent + peer.drained(), b"".join(expected), f"seed {seed}")
            self.assertEqual(peer.queue.size, 0)

    def decide(self, chosen: Provider | tuple[Slot, Reply]) -> None:
        """Fill or decide it."""
        if isinstance(chosen, tuple):
            chosen[0].fill(chosen[1])
        else:
            chosen.succeed()
