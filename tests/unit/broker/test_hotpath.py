"""The hot path against the slow path, decoder and responders, with the same requests."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from zlib import crc32

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker import connection, hotpath
from metamorphosis.broker.hotpath import native, pure, syncs
from metamorphosis.broker.hotpath.contract import ORDINARY_LINE, VECTORS, Routes, Scan, Vector
from metamorphosis.broker.replies import FileReply, ReplyGroup
from metamorphosis.errors import RemoteProtocolError, StoreError
from metamorphosis.ids import MessageIds
from metamorphosis.message import encode_record
from metamorphosis.native import compiled
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.wire import commands as wire
from metamorphosis.wire.decoding import FrameLimits, NeedMore, decode_frame
from metamorphosis.wire.encoding import result, value_head
from tests.support.serving import Broker

SEED = 20261121


def put(
    body: bytes,
    topic: bytes = b"test",
    partition: bytes = b"0",
    opaque: bytes = b"1",
    **form: bytes,
) -> bytes:
    """A put as the Java client sends it, or with the checksum token replaced."""
    checksum = form.get("checksum", b"%d" % (crc32(body) & 0x7FFFFFFF))
    flag = form.get("flag", b"0")
    return b"put %b %b %d %b %b %b\r\n%b" % (
        topic,
        partition,
        len(body),
        flag,
        checksum,
        opaque,
        body,
    )


def random_request(rng: random.Random) -> bytes:
    """Mostly ordinary puts and gets, mixed with everything that leaves the hot path."""
    body = rng.randbytes(rng.choice((0, 1, 5, 100, 1000)))
    opaque = b"%d" % rng.choice((0, 7, -1, -2147483648, 2147483647, rng.randrange(1 << 31)))
    partition = rng.choice((b"0", b"0", b"1", b"2", b"00", b"+1", b"-1"))
    kind = rng.randrange(14)
    if kind < 5:
        return put(body, partition=partition, opaque=opaque)
    if kind == 5:
        return put(body, checksum=rng.choice((b"-1", b"5", b"007", b"0")), opaque=opaque)
    if kind == 6:
        return b"put test 0 %d 0 %b\r\n%b" % (len(body), opaque, body)
    if kind == 7:
        return put(body, topic=rng.choice((b"nosuch", b"wild7", b"test")), opaque=opaque)
    if kind == 8:
        return put(body, flag=rng.choice((b"1", b"-1", b"007", b"2147483647")), opaque=b"+%d" % 7)
    if kind < 12:
        offset = rng.choice((0, 25, 100, 5000, -1, (1 << 63) - 1))
        size = rng.choice((1, 100, 4096, 0, -1, 1 << 30))
        return b"get test g %b %d %d %b\r\n" % (partition, offset, size, opaque)
    if kind == 12:
        return b"offset test g 0 100 %b\r\n" % opaque
    return b"version %b\r\n" % opaque


def log(broker: Broker) -> dict[tuple[str, int], bytes]:
    """The bytes of every partition."""
    logs = {}
    for store in broker.stores:
        found = store.slice(0, 1 << 30)
        logs[store.topic, store.partition] = (
            b"" if found is None else os.pread(found.segment.fd, found.length, found.position)
        )
    return logs


class HotPathTests(SynchronousTestCase):
    """Requests that ``scan`` takes are answered and stored as by the responders."""

    def brokers(self) -> tuple[Broker, Broker]:
        """One with the hot path, one without."""
        topics: dict[str, dict[str, object]] = {"test": {"num_partitions": 2}, "wild*": {}}
        return (
            Broker(self.mktemp(), topics),
            Broker(self.mktemp(), topics, slow=True),
        )

    def test_same_as_the_long_way(self) -> None:
        """Any sequence of requests, cut anywhere, gets the same replies byte for byte, ids
        included, and leaves the same log with and without the hot path (a wrong reply of the fast
        path would mean lost or misplaced messages for producers)."""
        for seed in range(SEED, SEED + 12):
            rng = random.Random(seed)
            fast, slow = self.brokers()
            self.patch(connection, "TURN_COMMANDS", 1 << 30)  # without routes all are commands
            for broker in (fast, slow):
                broker.responders.rules._randrange = lambda count: 0
            clients = (fast.client(), slow.client())
            stream = b"".join(random_request(rng) for _ in range(200))
            position = 0
            while position < len(stream):
                step = rng.choice((1, 3, 40, 700, 5000, 40000))
                chunk = stream[position : position + step]
                self.assertEqual(clients[0].send(chunk), clients[1].send(chunk), f"seed {seed}")
                position += step
            self.assertFalse(clients[0].closed, f"seed {seed}")
            self.assertEqual(log(fast), log(slow), f"seed {seed}")
            self.assertGreater(len(fast.responders.routes.puts), 0)

    def test_implementation(self) -> None:
        """The part in C is used where it is built, for puts and for records of a pair."""
        built = compiled is not None
        self.assertIs(hotpath.scan, native.scan if built else pure.scan)
        self.assertEqual(built, hotpath.scan_syncs is not syncs.scan)

    def test_every_split_of_a_put(self) -> None:
        """A put cut in two at any byte is stored once and answered once."""
        request = put(b"hello", opaque=b"-2147483648")
        broker = Broker(self.mktemp())
        client = broker.client()
        client.send(request)
        for cut in range(1, len(request)):
            self.assertEqual(client.send(request[:cut]), b"")
            reply = client.send(request[cut:])
            self.assertRegex(reply, rb"^result 200 \d+ -2147483648\r\n-?\d+ 0 %d$" % (25 * cut))

    def test_opaque_out_of_range_closes(self) -> None:
        """An opaque beyond 32 bits is a protocol error on the hot path as well."""
        client = Broker(self.mktemp()).client()
        client.send(put(b"hello"))
        self.assertEqual(client.send(put(b"hello", opaque=b"2147483648")), b"")
        self.assertTrue(client.closed)

    def test_routes_forget_closed_partitions(self) -> None:
        """A partition that the operator closes refuses the very next put although the hot path knew
        it."""
        broker = Broker(self.mktemp())
        client = broker.client()
        client.send(put(b"hello"))
        broker.close_partitions("test", (0, 0))
        self.assertTrue(client.send(put(b"hello")).startswith(b"result 403 "))
        broker.close_partitions("test")
        self.assertTrue(client.send(put(b"hello")).startswith(b"result 200 "))

    def test_opaque_beyond_int32(self) -> None:
        """A number outside of int32 is not a valid opaque: the connection closes without a reply,
        and no record is stored, on both paths."""
        for opaque in (2147483648, -2147483649, 9999999999, -9999999999):
            for request in (
                put(b"hello", opaque=b"%d" % opaque),
                b"get test g 0 0 100 %d\r\n" % opaque,
            ):
                for broker in self.brokers():
                    broker.client().send(put(b"first") + b"get test g 0 0 100 1\r\n")
                    before = log(broker)
                    client = broker.client()
                    self.assertEqual(client.send(request), b"")
                    self.assertTrue(client.closed)
                    self.assertEqual(log(broker), before)
        for opaque in (2147483647, -2147483648):
            for broker in self.brokers():
                broker.client().send(put(b"first") + b"get test g 0 0 100 1\r\n")
                reply = broker.client().send(put(b"x", opaque=b"%d" % opaque))
                self.assertRegex(reply, rb"^result 200 \d+ %d\r\n" % opaque)
                reply = broker.client().send(b"get test g 0 0 9 %d\r\n" % opaque)
                self.assertTrue(reply.startswith(b"value 9 %d\r\n" % opaque))

    def test_ids_increase_and_carry(self) -> None:
        """More than 4096 messages in one millisecond get distinct, increasing ids with this
        broker's worker bits."""
        broker = Broker(self.mktemp())
        client = broker.client()
        replies = client.send(put(b"x") * 9000)
        ids = [int(line.split(b" ")[0]) for line in replies.split(b"\r\n")[1:]]
        self.assertEqual(len(ids), 9000)
        self.assertEqual(ids, sorted(set(ids)))
        self.assertEqual({(i >> 12) & 0x3FF for i in ids}, {0})


def long_way() -> Scan:
    """A second implementation of the contract, without any speed: it takes the requests that the
    decoder and the responders take and that are ordinary by the contract."""

    def scan(
        data: bytes | bytearray,
        source: bytes | memoryview,
        start: int,
        end: int,
        routes: Routes,
        ids: MessageIds,
        group: ReplyGroup,
    ) -> int:
        position = start
        while position < end:
            try:
                frame = decode_frame(
                    bytes(data), position, end, FrameLimits(ORDINARY_LINE - 2, 1000)
                )
            except RemoteProtocolError:
                break
            if isinstance(frame, NeedMore):
                break
            command, past = frame
            if not _canonical(command, bytes(data[position:past])):
                break
            if isinstance(command, wire.PutCommand):
                store = routes.puts.get((command.topic.encode(), b"%d" % command.partition))
                computed = crc32(command.body) & 0x7FFFFFFF
                if store is None or command.transaction_id is not None:
                    break
                if command.checksum not in (wire.NO_CHECKSUM, computed):
                    break
                if routes.checked_only and command.checksum == wire.NO_CHECKSUM:
                    break
                batch = store.batch or store.open_batch()
                number = ids.start_chunk()
                ids.next_id = number + 1
                offset = store.add(number, command.flag, computed, command.body)
                text = b"%d %d %d" % (number, command.partition, offset)
                reply = result(200, command.opaque, text)
                group.add(reply, batch, batch.count - 1, routes.refuse)
            elif isinstance(command, wire.GetCommand):
                store = routes.reads.get((command.topic.encode(), b"%d" % command.partition))
                if store is None or command.max_size <= 0 or command.offset < 0:
                    break
                found = store.slice(command.offset, command.max_size)
                if found is None:
                    break
                head = value_head(found.length, command.opaque)
                group.add(FileReply(head, found.segment, found.position, found.length))
                store.get_count += 1
            else:
                break
            position = past
        return position

    return scan


def _canonical(command: wire.Command, data: bytes) -> bool:
    """Whether every number is spelled as we would, and a wait has its form."""
    line = data.partition(b"\r\n")[0]
    words = line.split(b" ")[2:] if line.startswith(b"put ") else line.split(b" ")[3:]
    return all(re.fullmatch(rb"-?[1-9]\d*|0", word) for word in words)


class ContractTests(SynchronousTestCase):
    """``VECTORS``, against the real hot path and a slow one written from the contract."""

    def each(self) -> Iterator[tuple[Broker, Scan]]:
        """A broker with the message ``hello``, and an implementation."""
        ways = (long_way(), pure.scan, *((native.scan,) if compiled is not None else ()))
        for scan in ways:
            broker = Broker(self.mktemp())
            client = broker.client()
            client.send(put(b"hello"))
            client.send(b"get test g 0 0 1000 1\r\n")
            yield broker, scan

    def test_vectors(self) -> None:
        """Ordinary requests are taken, with record and reply; others are left without any
        effect."""
        for vector in VECTORS:
            for broker, scan in self.each():
                store = broker.stores.get("test", 0)
                assert store is not None
                routes, ids, data = broker.responders.routes, broker.ids, vector.request
                group = ReplyGroup()
                taken = scan(data, data, 0, len(data), routes, ids, group)
                self.assertEqual(taken, len(data) if vector.ordinary else 0, vector)
                if not vector.ordinary:
                    self.assertEqual((group.replies, store.next_offset), ([], 25), vector)
                elif data.startswith(b"put"):
                    self.check_put(broker, store, group, vector)
                else:
                    (reply,) = group.replies
                    assert isinstance(reply, FileReply)
                    self.assertEqual((reply.head, group.files), (vector.reply, True))
                    self.assertEqual(group.runs, [])
                group.discard()

    def check_put(
        self, broker: Broker, store: MessageStore, group: ReplyGroup, vector: Vector
    ) -> None:
        """One record, and one reply that waits for it."""
        body = vector.request.partition(b"\r\n")[2]
        batch = store.batch
        assert batch is not None
        number = broker.ids.next_id - 1
        text = b"%d 0 25" % number
        self.assertEqual(
            group.replies, [b"result 200 %d %b\r\n%b" % (len(text), vector.reply, text)]
        )
        self.assertEqual(group.runs, [(batch, 0, 0, broker.responders.routes.refuse)])
        flag = -7 if b" -7 " in vector.request else 0
        record = encode_record(number, flag, body)
        self.assertEqual(batch.pieces, [record[:20], body])
        self.assertEqual(store.next_offset, 25 + len(record))

    def test_runs(self) -> None:
        """Successive puts to one batch are one run, with the number of its first record."""
        for broker, scan in self.each():
            store = broker.stores.get("test", 0)
            assert store is not None
            group = ReplyGroup()
            chunk = put(b"a") + put(b"b") + b"get test g 0 0 9 1\r\n" + put(b"c")
            routes, ids = broker.responders.routes, broker.ids
            self.assertEqual(scan(chunk, chunk, 0, len(chunk), routes, ids, group), len(chunk))
            batch, refuse = store.batch, broker.responders.routes.refuse
            self.assertEqual(
                [run[:3] for run in group.runs], [(batch, 0, 0), (None, 2, 0), (batch, 3, 2)]
            )
            self.assertEqual({run[3] for run in group.runs}, {refuse, None})
            group.discard()

    def test_checked_only(self) -> None:
        """Where records without a checksum have to be marked, their puts are not taken."""
        for broker, scan in self.each():
            for text, taken in ((b" -1 ", False), (b" ", False), (b" 907060870 ", True)):
                group = ReplyGroup()
                routes, ids = broker.responders.routes, broker.ids
                routes.checked_only = True
                chunk = b"put test 0 5 0%b1\r\nhello" % text
                past = scan(chunk, chunk, 0, len(chunk), routes, ids, group)
                self.assertEqual(past, len(chunk) * taken)

    def test_refused_batch_ends_the_scan(self) -> None:
        """A put whose store refuses is left to the slow path."""
        for broker, scan in self.each():
            store = broker.stores.get("test", 0)
            assert store is not None
            store.close()
            group = ReplyGroup()
            chunk = put(b"a")
            routes, ids = broker.responders.routes, broker.ids
            try:
                taken = scan(chunk, chunk, 0, len(chunk), routes, ids, group)
            except StoreError:
                taken = 0  # the slow one need not care
            self.assertEqual((taken, group.replies), (0, []))


class GetTests(SynchronousTestCase):
    """Gets of the hot path."""

    def test_same_bytes_as_the_long_way(self) -> None:
        """Every offset and size answers the same with and without the hot path."""
        answers = []
        for slow in (False, True):
            broker = Broker(self.mktemp(), slow=slow, max_segment_size=100, max_transfer_size=90)
            client = broker.client()
            for size in (5, 50, 100, 0, 30):
                client.send(put(b"b" * size))
            end = broker.stores.get("test", 0).max_offset  # type: ignore[union-attr]
            client.send(b"get test g 0 0 1000 0\r\n")
            answers.append(
                [
                    client.send(b"get test g 0 %d %d %d\r\n" % (offset, size, opaque))
                    for offset in range(-1, end + 2)
                    for size in (1, 20, 1000)
                    for opaque in (-5,)
                ]
            )
        self.assertEqual(answers[0], answers[1])
        self.assertIn(b"value 90 -5\r\n", b"".join(answers[0]))
