"""The hot path of a slave against decoder and responder, with the same frames."""

from __future__ import annotations

import gc
import random
import sys
from typing import Any
from zlib import crc32

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker import connection
from metamorphosis.broker.hotpath import syncs
from metamorphosis.broker.hotpath.contract import SYNC_VECTORS, Scan, Vector
from metamorphosis.broker.replies import ReplyGroup
from metamorphosis.errors import StoreError
from metamorphosis.message import encode_record
from metamorphosis.native import compiled, way
from metamorphosis.replication.pairslave import takeover
from tests.support.serving import NoRoutes
from tests.support.slaves import SlaveBroker, sync
from tests.unit.broker.test_hotpath import log
from tests.unit.native.test_puts import Routes, Store

SEED = 20261130


def random_frame(rng: random.Random) -> bytes:
    """Mostly ordinary records, mixed with all other frames."""
    body = rng.randbytes(rng.choice((0, 1, 5, 100, 1000)))
    form = {
        "partition": rng.choice((b"0", b"0", b"1", b"2", b"00", b"-1")),
        "message_id": b"%d"
        % rng.choice((0, 7, -1, -(1 << 63), (1 << 63) - 1, rng.getrandbits(62))),
        "opaque": b"%d" % rng.choice((0, 7, -1, -2147483648, 2147483647)),
    }
    kind = rng.randrange(10)
    if kind == 0:
        return sync(body, checksum=rng.choice((b"-1", b"5", b"0", b"007")), **form)
    if kind == 1:
        return sync(body, checksum=b"", **form)
    if kind == 2:
        return sync(body, topic=rng.choice((b"nosuch", b"wild7", b"_metaq_slave_status_test")))
    if kind == 3:
        return sync(body, flag=rng.choice((b"1", b"-1", b"007", b"2147483647")), **form)
    if kind == 4:
        return rng.choice((b"version 3\r\n", b"put test 0 1 0 5\r\nx", b"get test g 0 0 100 6\r\n"))
    return sync(body, **form)


WAYS: tuple[Scan, ...] = (syncs.scan,)
if compiled is not None:
    WAYS += (compiled.take_syncs,)
"""Every implementation."""


class SyncScanTests(SynchronousTestCase):
    """``hotpath.scan_syncs``, in Python and in C."""

    def test_same_as_the_long_way(self) -> None:
        """Any frames, cut anywhere: the same replies and the same log, byte for byte."""
        for scan in WAYS:
            self.patch(takeover, "scan_syncs", scan)
            self.compare()

    def compare(self) -> None:
        """One implementation with the long way."""
        self.patch(connection, "TURN_COMMANDS", 1 << 30)
        for seed in range(SEED, SEED + 12):
            rng = random.Random(seed)
            topics: dict[str, dict[str, object]] = {"test": {"num_partitions": 2}, "wild*": {}}
            fast, slow = SlaveBroker(self.mktemp(), topics), SlaveBroker(self.mktemp(), topics)
            slow.responders.routes.syncs = NoRoutes()
            clients = fast.client(), slow.client()
            stream = b"".join(random_frame(rng) for _ in range(200))
            position = 0
            while position < len(stream):
                step = rng.choice((1, 3, 40, 700, 5000, 40000))
                chunk = stream[position : position + step]
                self.assertEqual(clients[0].send(chunk), clients[1].send(chunk), f"seed {seed}")
                position += step
            self.assertFalse(clients[0].closed, f"seed {seed}")
            self.assertEqual(log(fast), log(slow), f"seed {seed}")
            self.assertGreater(len(fast.responders.routes.syncs), 0)
            counted = [each.responders.figures.take().statistics.cmd_put for each in (fast, slow)]
            self.assertEqual(counted[0], counted[1])

    def test_vectors(self) -> None:
        """Ordinary records are taken, with record and reply; others are left without any effect."""
        for scan in WAYS:
            for vector in SYNC_VECTORS:
                self.check(scan, vector)

    def check(self, scan: Scan, vector: Vector) -> None:
        """One of them."""
        broker = SlaveBroker(self.mktemp())
        broker.client().send(sync(b"hello"))
        store = broker.stores.get("test", 0)
        assert store is not None
        routes, data = broker.responders.routes, vector.request
        group, before = ReplyGroup(), broker.ids.next_id
        taken = scan(data, data, 0, len(data), routes, broker.ids, group)
        self.assertEqual(taken, len(data) if vector.ordinary else 0, vector)
        self.assertEqual(before, broker.ids.next_id)
        if not vector.ordinary:
            self.assertEqual((group.replies, store.next_offset), ([], 25), vector)
            return
        number, opaque = vector.reply.split(b" ")
        text = b"%b 0 25" % number
        self.assertEqual(
            [b"result 200 %d %b\r\n%b" % (len(text), opaque, text)], group.replies, vector
        )
        batch = store.batch
        assert batch is not None
        self.assertEqual([(batch, 0, 0, routes.refuse)], group.runs)
        body = data.partition(b"\r\n")[2]
        flag = int(data.split(b" ")[4])
        record = encode_record(int(number), flag, body)
        self.assertEqual(record, b"".join(bytes(piece) for piece in batch.pieces))
        self.assertEqual(25 + len(record), store.next_offset)

    def test_every_split(self) -> None:
        """A frame cut in two at any byte is stored once and answered once."""
        frame = sync(b"hello", opaque=b"-2147483648", message_id=b"-5468920081952014336")
        client = SlaveBroker(self.mktemp()).client()
        client.send(frame)
        for cut in range(1, len(frame)):
            self.assertEqual(client.send(frame[:cut]), b"")
            text = b"-5468920081952014336 0 %d" % (25 * cut)
            reply = b"result 200 %d -2147483648\r\n%b" % (len(text), text)
            self.assertEqual(reply, client.send(frame[cut:]))

    def test_refused_batch_ends_the_scan(self) -> None:
        """A record whose store refuses is left to the slow path, by each implementation."""

        def full() -> None:
            raise StoreError("no room")

        for scan in WAYS:
            self.patch(takeover, "scan_syncs", scan)
            broker = SlaveBroker(self.mktemp())
            client = broker.client()
            client.send(sync(b"hello"))
            store = broker.stores.get("test", 0)
            assert store is not None
            self.patch(store, "open_batch", full)
            reply = client.send(sync(b"hello"))
            self.assertTrue(reply.startswith(b"result 500 "), reply)
            self.assertTrue(reply.endswith(b"failed.Detail:no room"), reply)

    def test_one_batch_a_turn(self) -> None:
        """All records of a partition in a chunk are one write."""
        broker = SlaveBroker(self.mktemp())
        client = broker.client()
        client.send(sync(b"hello"))
        self.assertEqual(25 * 1001, self.end_after(broker, client.send(sync(b"hello") * 1000)))
        checksum = crc32(b"hello") & 0x7FFFFFFF
        self.assertIn(checksum.to_bytes(4, "big"), log(broker)["test", 0])

    def end_after(self, broker: SlaveBroker, replies: bytes) -> int:
        """The end of the log after 1000 answers."""
        self.assertEqual(1000, replies.count(b"result 200 "))
        store = broker.stores.get("test", 0)
        assert store is not None
        return store.max_offset


class TwinTests(SynchronousTestCase):
    """Python and C on random streams, over several partitions."""

    if compiled is None:
        skip = f"the native part is not used ({way})"

    def test_random_streams(self) -> None:
        """The consumed bytes, records, replies and awaited batches are the same."""
        for seed in range(SEED, SEED + 200):
            rng = random.Random(seed)
            frames = [self.broken(rng, random_frame(rng)) for _ in range(rng.choice((1, 5, 40)))]
            data = b"".join(frames)
            view = memoryview(data) if rng.randrange(2) else data
            found = [self.take(scan, data, view) for scan in WAYS]
            self.assertEqual(found[0], found[1], f"seed {seed}")

    def broken(self, rng: random.Random, frame: bytes) -> bytes:
        """Every tenth frame has a changed byte, or one byte less or more."""
        if rng.randrange(10):
            return frame
        place = rng.randrange(min(len(frame), 80))
        more = rng.choice((b"", b"0", b"9", b"-", b" ", b"\r", b"x"))
        return frame[:place] + more + frame[place + rng.randrange(2) :]

    def take(self, scan: Scan, data: bytes, view: bytes | memoryview) -> tuple[object, ...]:
        """One side, frame after frame; what it leaves is stepped over byte by byte."""
        stores = [Store() for _ in range(3)]
        routes: Any = Routes(*stores)
        routes.syncs = routes.puts
        group: Any = ReplyGroup()
        ids: Any = None
        position, steps = 0, []
        while position < len(data):
            past = scan(data, view, position, len(data), routes, ids, group)
            steps.append(past)
            position = past if past > position else data.find(b"sync", position + 1)
            if position < 0:
                break
        batches = {id(store.batch): number for number, store in enumerate(stores)}
        runs = [(batches[id(run[0])], *run[1:3]) for run in group.runs]
        pieces = [list(map(bytes, store.batch.pieces)) if store.batch else [] for store in stores]
        return steps, group.replies, runs, pieces, [store.next_offset for store in stores]

    def test_every_prefix(self) -> None:
        """Bytes after the end have no effect: each vector, cut at each byte."""
        assert compiled is not None
        for vector in SYNC_VECTORS:
            for length in range(len(vector.request)):
                cut = vector.request[:length]
                found = [self.take(scan, cut, cut) for scan in WAYS]
                self.assertEqual(found[0], found[1], (vector.request, length))

    def test_nothing_leaks(self) -> None:
        """After thousands of taken and refused records the number of allocated blocks is the
        same."""
        data = sync(b"x" * 100) * 3 + sync(b"y" * 5000) + sync(b"z", partition=b"1")
        assert compiled is not None
        take = compiled.take_syncs

        def work() -> None:
            for second in (Store(), Store(StoreError("no")), Store(KeyError("no"))):
                routes: Any = Routes(Store(), second)
                routes.syncs = routes.puts
                try:
                    take(data, data, 0, len(data), routes, None, ReplyGroup())
                except KeyError:
                    pass

        def blocks() -> int:
            gc.collect()
            return sys.getallocatedblocks()

        grown = []
        for _ in range(4):
            before = blocks()
            for _ in range(1000):
                work()
            grown.append(blocks() - before)
        self.assertLess(min(grown), 200)
