"""
Whole turns in C beside whole turns in Python: random streams over several connections and
partitions, cut anywhere, in two brokers with the same clock.

Where one connection sends at a time the files, all replies and the counters are the same, byte for
byte. Where several send at once the order of their records is not given; every reply then names the
record that its request has left, and each record of the files has one.

``TURN_FRAMES`` is the number of requests; ``make fuzz-native`` sets it.
"""

from __future__ import annotations

import os
import random
import re
import sys
from collections import Counter

from metamorphosis.message import iterate_records
from tests.support.lanes import Peer, Served
from tests.unit.broker.test_hotpath import put, random_request
from tests.unit.broker.test_lanes import LaneCase

SEED = 20261130
FRAMES = int(os.environ.get("TURN_FRAMES", "20000"))
CONNECTIONS = 4
FIRST_BYTES = 20_000
"""Of the first message of each partition, beyond which no get reads."""
REPLY = re.compile(rb"result 200 (\d+) (-?\d+)\r\n(\d+) (\d+) (\d+)")


def frame(rng: random.Random) -> bytes:
    """One request, mostly an ordinary one."""
    kind = rng.randrange(16)
    partition = b"%d" % rng.randrange(2)
    if kind == 0:
        # A get at the end may see, or not, what the same piece has put before it.
        request = random_request(rng).replace(b" 1073741824 ", b" 4096 ")
        return request.replace(b" 9223372036854775807 ", b" 0 ")
    if kind == 1:
        offset = rng.choice((0, 0, 25, 1000, 15_000))
        size = rng.choice((1, 100, 4096))
        return b"get test g %b %d %d %d\r\n" % (partition, offset, size, rng.randrange(1 << 31))
    if kind == 2:
        return put(rng.randbytes(rng.choice((9000, 20000, 70000))), partition=partition)
    body = rng.randbytes(rng.choice((0, 1, 5, 60, 100, 1000)))
    opaque = b"%d" % rng.choice((0, -1, rng.randrange(-(1 << 31), 1 << 31)))
    return put(body, partition=partition, opaque=opaque, flag=rng.choice((b"0", b"-7", b"9")))


def cut(rng: random.Random, stream: bytes, most: int = sys.maxsize) -> list[bytes]:
    """Cut into pieces of up to a number of bytes."""
    pieces = []
    while stream:
        size = min(rng.choice((1, 7, 50, 1000, 5000, 30000, len(stream))), most)
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


def logs(served: Served) -> dict[str, bytes]:
    """The bytes of each partition; a segment ends with a write, and the turns write differently."""
    found: dict[str, bytes] = {}
    for name, data in served.files().items():
        partition = name.partition("/")[0]
        found[partition] = found.get(partition, b"") + data
    return found


class TwinCase(LaneCase):
    """Two brokers that get the same bytes."""

    def setUp(self) -> None:
        """Flushes take no time."""
        self.patch(os, "fdatasync", lambda descriptor: None)

    def side(self, in_c: bool, ids: int) -> Served:
        """One of the brokers, with two partitions."""
        served = Served(
            self.mktemp(),
            in_c,
            unflush_threshold=self.unflush_threshold,
            max_segment_size=self.segment_bytes,
        )
        served.broker.ids.next_id |= ids
        chance = random.Random(0)  # where a put to any partition goes
        self.patch(served.broker.responders.rules, "_randrange", chance.randrange)
        first = served.connect()
        first.send(put(bytes(FIRST_BYTES)) + put(bytes(FIRST_BYTES), partition=b"1"))
        served.turn()
        served.advance(1)
        return served

    segment_bytes = 200_000
    unflush_threshold = 1000


class OneAtATimeTests(TwinCase):
    """One connection sends at a time: all results are the same."""

    frames = FRAMES
    holds = 0.0
    """The share of pieces after which flushes are held, or released."""

    def test_random_streams(self) -> None:
        """A failure names the seed of its stream."""
        left, seed = self.frames, SEED
        taken = 0
        while left > 0:
            rng = random.Random(seed)
            frames = rng.choice((20, 100, 400))
            left -= frames
            plan = self.plan(rng, frames)
            seen = []
            for in_c in (True, False):
                served = self.side(in_c, 0xFC0)
                try:
                    seen.append(self.run_plan(served, plan))
                    taken += served.plain
                finally:
                    served.close()
            for one, other in zip(*seen):
                self.assertEqual(one, other, f"seed {seed}")
            seed += 1
        self.assertGreater(taken, 0)  # connections were plain

    def plan(self, rng: random.Random, frames: int) -> list[tuple[int, bytes, float, bool]]:
        """(connection, piece, seconds that pass after it, whether flushes are held or released)."""
        streams = [
            cut(rng, b"".join(frame(rng) for _ in range(frames // CONNECTIONS)))
            for _ in range(CONNECTIONS)
        ]
        plan = []
        while any(streams):
            number = rng.choice([each for each in range(CONNECTIONS) if streams[each]])
            pause = rng.choice((0, 0, 0, 0.001, 0.2))
            toggles = rng.random() < self.holds
            plan.append((number, streams[number].pop(0), pause, toggles))
        return plan

    def run_plan(self, served: Served, plan: list[tuple[int, bytes, float, bool]]) -> list[object]:
        """The results of the plan."""
        peers = [served.connect() for _ in range(CONNECTIONS)]
        came = [bytearray() for _ in peers]
        holding = False
        for number, piece, pause, toggles in plan:
            if toggles:
                holding = not holding
                (served.broker.threads.hold if holding else served.broker.threads.release)()
                served.turn()
            try:
                peers[number].send(piece)
            except OSError:
                continue  # it has broken the protocol
            served.turn()
            if pause:
                served.advance(pause)
            came[number] += peers[number].received()
        served.broker.threads.release()
        served.advance(2)
        served.turn()
        for number, peer in enumerate(peers):
            came[number] += peer.received()
        stores = [
            (store.put_count, store.put_bytes, store.get_count, store.next_offset)
            for store in served.broker.stores
        ]
        ids = served.broker.ids.next_id
        return [*map(bytes, came), logs(served), stores, ids]


class GroupCommitTests(OneAtATimeTests):
    """The same with group commit: flushes end at any later time."""

    frames = FRAMES // 2
    holds = 0.15
    unflush_threshold = 0


class AllAtOnceTests(TwinCase):
    """Several connections are ready at the same time."""

    segment_bytes = 1 << 30

    def test_random_puts(self) -> None:
        """Each reply names its record; each record of the files has a reply."""
        rng = random.Random(SEED)
        served = self.side(True, 0xFF0)
        self.addCleanup(served.close)
        peers = [served.connect() for _ in range(CONNECTIONS)]
        for _ in range(FRAMES // 400):
            self.round(rng, served, peers)
        puts = sum(store.put_count for store in served.broker.stores)
        records = [record for data in served.files().values() for record in iterate_records(data)]
        self.assertEqual(puts, len(records))
        self.assertEqual(Counter(record.id for record in records).most_common(1)[0][1], 1)

    def round(self, rng: random.Random, served: Served, peers: list[Peer]) -> None:
        """A hundred puts of each, all of them sent before the first turn."""
        bodies: list[list[tuple[int, bytes]]] = []
        streams = []
        for _ in peers:
            sent = [
                (rng.randrange(2), rng.randbytes(rng.choice((0, 5, 100, 1000)))) for _ in range(100)
            ]
            bodies.append(sent)
            streams.append(
                cut(
                    rng,
                    b"".join(
                        put(body, partition=b"%d" % partition, opaque=b"%d" % number)
                        for number, (partition, body) in enumerate(sent)
                    ),
                )
            )
        while any(streams):
            for peer, stream in zip(peers, streams):
                if stream:
                    peer.send(stream.pop(0))
            served.turn()
        files = served.files()
        for peer, sent in zip(peers, bodies):
            replies = REPLY.findall(peer.received())
            self.assertEqual([int(reply[1]) for reply in replies], list(range(100)))
            for (partition, body), reply in zip(sent, replies):
                log = files[f"test-{partition}/0"]
                record = next(iterate_records(log[int(reply[4]) :]))
                self.assertEqual(
                    (record.id, bytes(record.body), partition),
                    (int(reply[2]), body, int(reply[3])),
                )
