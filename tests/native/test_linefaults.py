"""
The master of a pair while a system call of its turn in C fails, see ``test_turnfaults``: no reply
is lost, and what was acknowledged is on both brokers. Afterwards both logs are the same.
"""

from __future__ import annotations

import contextlib
import os

from metamorphosis.native import compiled
from metamorphosis.replication.pairmaster.pairedlog import Standing
from tests.native.test_turnfaults import CALLS, REPLY, DoubleCase
from tests.support.lanes import Peer, no_calls
from tests.support.pairing import Pair, put
from tests.unit.replication.pairmaster.test_lines import LinePair

ROUNDS, PUTS = 4, 3


class FaultTests(DoubleCase):
    """Logs that are written at once."""

    threshold = 1000
    calls = CALLS
    scenes = 60

    def test_each_call(self) -> None:
        """Each call of the scene fails once."""
        self.play(self.scene)

    def scene(self, name: str, nth: int, error: int) -> bool:
        """Producers put; whether the planned call came."""
        what = f"{name} {nth} {error}"
        pair = LinePair(self.mktemp(), unflush_threshold=self.threshold)
        # It would wait in real time.
        pair.sockets.lingering = compiled.Lingering(0, no_calls, lambda *_: 0)
        pair.connect()
        client = pair.client()
        pair.send(client, put(b"first") + put(b"first", partition=1))
        peers = [Peer(pair) for _ in range(2)]  # type: ignore[arg-type]
        came = [b"" for _ in peers]
        for peer in peers:
            peer.send(put(b"plain"))
        self.rounds(pair, peers, came)
        self.plan(name.encode(), nth, error)
        for number in range(ROUNDS):
            for who, peer in enumerate(peers):
                self.send(peer, who, number)
            self.rounds(pair, peers, came)
        failed: bool = self.left() == 0
        self.plan(b"none", 0, 0)
        self.rounds(pair, peers, came)
        if pair.wire is None:
            pair.connect()
        for _ in range(8):
            pair.advance(0.5, 0.5)
            self.rounds(pair, peers, came)
        for partition in (0, 1):
            self.assertEqual(pair.log(partition).standing, Standing.JOINED, what)
            self.assertEqual(pair.own(partition), pair.slaves(partition), what)
        for peer, replies in zip(peers, came):
            self.check(pair, peer, replies, what)
        pair.gregor.verify()
        pair.end(peers)
        pair.broker.stores.close()
        return failed

    def rounds(self, pair: LinePair, peers: list[Peer], came: list[bytes]) -> None:
        """Serve until nothing moves."""
        for _ in range(4):
            pair.serve()
            if pair.wire is not None and not pair.wire.transport.connected:
                pair.wire.lose()
                pair.wire = None
            pair.settle()
        for who, peer in enumerate(peers):
            came[who] += peer.received()

    def send(self, peer: Peer, who: int, number: int) -> None:
        """Puts to both partitions."""
        with contextlib.suppress(OSError):  # it was cut off
            for each in range(PUTS):
                body = b"%d-%d-%d" % (who, number, each)
                peer.send(put(body, number * PUTS + each, partition=each % 2))

    def check(self, pair: Pair, peer: Peer, came: bytes, what: str) -> None:
        """All replies arrive, unless the connection has ended; every acknowledged record is in
        the log."""
        replies = REPLY.findall(came)
        if peer.transport.connected:
            self.assertEqual([int(each[1]) for each in replies], [1, *range(ROUNDS * PUTS)], what)
        for status, _, number, partition, offset in replies:
            if status == b"200":
                found = pair.own(int(partition))[int(offset) + 8 : int(offset) + 16]
                self.assertEqual(found, int(number).to_bytes(8, "big", signed=True), what)
            else:
                self.assertEqual(status, b"500", what)


class GroupCommitFaultTests(FaultTests):
    """Logs that are flushed before the reply."""

    threshold = 0
    calls = {name: CALLS[name] for name in ("recv", "send", "realloc")}
    scenes = 20

    def setUp(self) -> None:
        """See ``FaultTests``."""
        super().setUp()
        self.patch(os, "fdatasync", lambda descriptor: None)
