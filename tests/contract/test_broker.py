"""
The behaviour that a client can expect of every broker: the real one, without its network, and the
one in memory of ``metamorphosis.testing``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.message import checksum, encode_record
from metamorphosis.testing import MemoryBroker, MemoryRuntime
from tests.support import serving

TOPICS = {"test": 2, "other": 1}
URL = "meta://localhost:8123"
END_OF_LOG = (1 << 63) - 1
SEED = 20131


class RealSide:
    """The broker that ``twistd metaq`` runs, on stores in a directory."""

    def __init__(self, case: SynchronousTestCase) -> None:
        topics = {topic: {"num_partitions": number} for topic, number in TOPICS.items()}
        self.broker = serving.Broker(case.mktemp(), topics)

    def client(self) -> Any:
        return self.broker.client()

    def advance(self, seconds: float) -> None:
        self.broker.clock.advance(seconds)


class MemoryClient:
    """One connection to the broker in memory, as ``serving.Client``."""

    def __init__(self, side: MemorySide) -> None:
        self._side = side
        self._received: list[bytes] = []
        self._conversation = side.broker.connect(side.runtime, self._received.append)

    def send(self, data: bytes) -> bytes:
        self._conversation.receive(data)
        self._side.runtime.turn()
        return self.received()

    def received(self) -> bytes:
        data = b"".join(self._received)
        self._received.clear()
        return data

    @property
    def closed(self) -> bool:
        return self._conversation.closed


class MemorySide:
    """The broker in memory."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self.runtime = MemoryRuntime()
        self.broker = MemoryBroker(TOPICS, url=URL)

    def client(self) -> Any:
        return MemoryClient(self)

    def advance(self, seconds: float) -> None:
        self.runtime.advance(seconds)


def put(body: bytes, topic: str = "test", partition: int = 0, more: str = "") -> bytes:
    """The bytes of a put with opaque 7."""
    return b"put %b %d %d 0 %b7\r\n%b" % (
        topic.encode(),
        partition,
        len(body),
        more.encode(),
        body,
    )


def get(offset: int, size: int = 1000, topic: str = "test", partition: int = 0) -> bytes:
    """The bytes of a get with opaque 8."""
    return b"get %b g %d %d %d 8\r\n" % (topic.encode(), partition, offset, size)


class BrokerContract:
    """The tests; a subclass names the provider."""

    side: type[RealSide | MemorySide]

    def setUp(self: Any) -> None:
        self.broker = self.side(self)
        self.client = self.broker.client()

    def assertRefused(self: Any, request: bytes, status: int, text: str) -> None:
        """The answer is this status with this text."""
        reply = self.client.send(request)
        head, _, body = reply.partition(b"\r\n")
        self.assertEqual(b"result %d %d" % (status, len(text)), head.rpartition(b" ")[0])
        self.assertEqual(text.encode(), body)

    def stored(self: Any, body: bytes, **where: Any) -> tuple[int, int, int]:
        """Put; message id, partition and offset of the answer."""
        head, _, text = self.client.send(put(body, **where)).partition(b"\r\n")
        self.assertEqual(b"result 200 %d 7" % len(text), head)
        message_id, partition, offset = map(int, text.split(b" "))
        return message_id, partition, offset

    def test_messages_are_read_as_they_were_put(self: Any) -> None:
        """The bytes of the records, one after the other."""
        first, _, start = self.stored(b"hello")
        second, _, end = self.stored(b"world!")
        self.assertEqual((0, 25), (start, end))
        self.assertGreater(second, first)
        records = encode_record(first, 0, b"hello"), encode_record(second, 0, b"world!")
        whole = b"".join(records)
        self.assertEqual(b"value 51 8\r\n" + whole, self.client.send(get(0)))
        self.assertEqual(b"value 26 8\r\n" + records[1], self.client.send(get(25)))
        self.assertEqual(b"value 30 8\r\n" + whole[:30], self.client.send(get(0, 30)))

    def test_the_flag_is_kept(self: Any) -> None:
        """The flag is stored as sent, with the right checksum or without one."""
        for n, more in enumerate(("", f"{checksum(b'hello')} ")):
            reply = self.client.send(b"put test 1 5 9 %b3\r\nhello" % more.encode())
            self.assertTrue(reply.startswith(b"result 200 "), reply)
            found = self.client.send(get(25 * n, partition=1)).partition(b"\r\n")[2]
            self.assertEqual(9, int.from_bytes(found[16:20], "big"))

    def test_the_broker_chooses_a_partition(self: Any) -> None:
        """Every partition is chosen after enough puts."""
        chosen = {self.stored(b"x", partition=-1)[1] for _ in range(60)}
        self.assertEqual({0, 1}, chosen)

    def test_refused_puts(self: Any) -> None:
        """Texts that clients compare."""
        failed = f"Put message to [broker '{URL}'] [partition '"
        self.assertRefused(
            put(b"x", topic="no"),
            500,
            f"{failed}no-0'] failed.Detail:The server do not accept topic no",
        )
        self.assertRefused(
            put(b"x", partition=2), 500, f"{failed}test-2'] failed.Detail:wrong partition 2"
        )
        self.assertRefused(
            put(b"x", more="12345 "),
            500,
            f"{failed}test-0'] failed.Detail:Checksum failure,message may be corrupted when"
            " transfering on networking.",
        )

    def test_gets_of_nothing(self: Any) -> None:
        """Gets before the first put, at the end, after it, and with size 0."""
        missing = "The topic `test` in partition `0` is not exists"
        self.assertRefused(get(0), 404, missing)
        self.stored(b"hello")
        self.assertRefused(get(25), 404, "Could not find message at position 25")
        self.assertRefused(get(99), 404, "Could not find message at position 99")
        self.assertRefused(get(0, 0), 400, "Bad request,invalid max size:0")
        self.assertRefused(get(END_OF_LOG), 301, "25")

    def test_offsets(self: Any) -> None:
        """Where a log begins and ends."""
        self.assertRefused(
            b"offset test g 0 0 8\r\n", 404, "The topic `test` in partition `0` is not exists"
        )
        self.stored(b"hello")
        for asked, found in ((0, "0"), (3, "0"), (25, "25"), (END_OF_LOG, "25")):
            self.assertRefused(b"offset test g 0 %d 8\r\n" % asked, 200, found)

    def test_version(self: Any) -> None:
        """The heartbeat of clients."""
        self.assertRefused(b"version 5\r\n", 200, "1.4.6.2")

    def test_a_get_waits_for_a_message(self: Any) -> None:
        """A put of another client answers it, once."""
        self.stored(b"hello")
        self.assertEqual(b"", self.client.send(b"get test g 0 25 1000 8 5000\r\n"))
        other = self.broker.client()
        other.send(put(b"elsewhere", partition=1))
        self.assertEqual(b"", self.client.received())
        other.send(put(b"here"))
        self.assertEqual(b"value 24 8\r\n", self.client.received()[:12])
        self.broker.advance(10)
        self.assertEqual(b"", self.client.received())

    def test_a_get_waits_no_longer_than_it_says(self: Any) -> None:
        """After its time it is answered 404, also in a partition without any put."""
        self.assertEqual(b"", self.client.send(b"get test g 0 0 1000 8 5000\r\n"))
        self.broker.advance(4.9)
        self.assertEqual(b"", self.client.received())
        self.broker.advance(0.2)
        self.assertTrue(self.client.received().startswith(b"result 404 "))

    def test_requests_in_pieces(self: Any) -> None:
        """One byte at a time; answers in the order of the requests."""
        requests = put(b"hello") + get(0) + b"version 9\r\n"
        found = b"".join(self.client.send(bytes([each])) for each in requests)
        self.assertEqual(
            [b"7", b"8", b"9"], re.findall(rb"(?:result|value)[ \d]* (\d+)\r\n", found)
        )

    def test_the_end(self: Any) -> None:
        """``quit`` and garbage close the connection without an answer, and only that one."""
        for data in (b"quit\r\n", b"hello there\r\n"):
            client = self.broker.client()
            self.assertEqual(b"", client.send(data))
            self.assertTrue(client.closed)
        self.stored(b"hello")
        self.assertFalse(self.client.closed)


class RealBrokerTests(BrokerContract, SynchronousTestCase):
    """The real one."""

    side = RealSide


class MemoryBrokerTests(BrokerContract, SynchronousTestCase):
    """The one in memory."""

    side = MemorySide


class DifferentialTests(SynchronousTestCase):
    """Both get the same requests."""

    def test_random_requests(self) -> None:
        """All replies are the same except for message ids."""
        random = Random(SEED)
        memory = MemorySide(self)
        sides: list[RealSide | MemorySide] = [RealSide(self), memory]
        clients = [side.client() for side in sides]
        kinds = set()
        for _ in range(1500):
            request = self.request(random)
            replies = [masked(request, client.send(request), memory) for client in clients]
            self.assertEqual(replies[0], replies[1], repr(request))
            kinds.add((request[:3], replies[0][:10]))
        self.assertGreater(len(kinds), 9, kinds)

    def request(self, random: Random) -> bytes:
        """A put, get or offset, often of something that is not there."""
        topic = random.choice(("test", "test", "other", "no"))
        partition = random.randrange(3)
        offset = random.choice((0, 25, 50, random.randrange(5000), END_OF_LOG))
        size = random.choice((-1, 0, 10, 30, 1000, 1 << 30))
        return random.choice(
            (
                put(random.randbytes(random.randrange(50)), topic, partition),
                put(b"x", topic, partition, "5 "),
                get(offset, size, topic, partition),
                b"offset %b g %d %d 3\r\n" % (topic.encode(), partition, offset),
            )
        )


def masked(request: bytes, reply: bytes, memory: MemorySide) -> bytes:
    """A reply with its message ids blanked: that of a put, and those in the records of a get."""
    head, _, body = reply.partition(b"\r\n")
    if request.startswith(b"put ") and head.startswith(b"result 200 "):
        return b"result 200 put " + body.partition(b" ")[2]
    if not head.startswith(b"value "):
        return reply
    words = request.split(b" ")
    data = memory.broker.partitions[words[1].decode(), int(words[3])].data
    found, offset = bytearray(body), int(words[4])
    for n in ids_within(data, offset, len(body)):
        found[n - offset] = 0
    return head + bytes(found)


def ids_within(data: bytes, offset: int, length: int) -> Iterator[int]:
    """The places of message ids in this part of a log."""
    place = 0
    while place < len(data):
        yield from (n for n in range(place + 8, place + 16) if offset <= n < offset + length)
        place += 20 + int.from_bytes(data[place : place + 4], "big")
