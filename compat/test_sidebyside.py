"""
The same request bytes to the original broker and to ours, one after the other, and the replies
compared.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from compat import generator
from compat.clientcase import wait_until
from compat.exchange import REPLY_SECONDS, SILENCE_SECONDS, SILENT, Connection, Reply
from compat.normal import Normaliser
from compat.segments import files, logs, segments, without_ids
from tests.support import peers, zookeeper

REQUESTS = 2000
SEED = 20130719


def lacks_body(request: bytes) -> bool:
    """Whether a broker would wait for more: the announced body is longer than the present bytes."""
    line, _, body = request.partition(b"\r\n")
    announced = re.match(rb"(?:put|sync) [^ ]* [^ ]* \+?(\d+)(?: |$)", line)
    return announced is not None and int(announced.group(1)) > len(body)


class Side:
    """One of the two brokers, and the connection in use."""

    def __init__(self, broker: peers.Broker) -> None:
        self.broker = broker
        self.normalise = Normaliser()
        self.connection = Connection(broker.port)

    def ask_many(
        self, stream: bytes, requests: Mapping[int, bytes], size: int
    ) -> dict[int, tuple[object, ...]]:
        """Send the stream in pieces of this size; the replies by opaque, in any order."""
        for start in range(0, len(stream), size):
            self.connection.send(stream[start : start + size])
        answers = {}
        for _ in requests:
            reply = self.connection.reply()
            assert isinstance(reply, Reply), reply
            answers[reply.opaque] = self.normalise(requests[reply.opaque], reply)
        return answers

    def moved(self, get: bytes) -> bytes:
        """The reply to a get while segments are deleted. The original closes the connection when it
        is reading from a deleted one; ours answers."""
        self.connection.send(get)
        reply = self.connection.reply()
        if isinstance(reply, Reply):
            return reply.body
        assert isinstance(self.broker, peers.JavaBroker), reply
        self.reconnect()
        return b""

    def reconnect(self) -> None:
        """Connect again, as a client does after the broker has closed."""
        self.connection.close()
        self.connection = Connection(self.broker.port)


class Pair:
    """Two brokers that get the same bytes."""

    def __init__(self, first: peers.Broker, second: peers.Broker) -> None:
        self.sides = (Side(first), Side(second))
        self.closed = 0
        self.silent = 0
        self.answered = 0

    def ask(self, request: bytes) -> tuple[tuple[object, ...], ...]:
        """The result of the request on each side; an unusable connection is replaced on both
        sides."""
        for side in self.sides:
            side.connection.send(request)
        patience = SILENCE_SECONDS if lacks_body(request) else REPLY_SECONDS
        replies = [side.connection.reply(patience) for side in self.sides]
        if replies.count(SILENT) == 1:  # it may only be slow
            late = replies.index(SILENT)
            replies[late] = self.sides[late].connection.reply()
        if any(isinstance(reply, bytes) for reply in replies):
            self.silent += replies.count(SILENT) == 2
            self.closed += replies.count(SILENT) == 0
            for side in self.sides:
                side.reconnect()
        else:
            self.answered += 1
        return tuple(side.normalise(request, reply) for side, reply in zip(self.sides, replies))

    def extra(self) -> list[Reply | bytes]:
        """Received bytes that belong to no request."""
        replies = [side.connection.reply(SILENCE_SECONDS) for side in self.sides]
        return [reply for reply in replies if reply != SILENT]


class SideBySideTests(SynchronousTestCase):
    """Two brokers, empty at first, get the same requests and behave in the same way."""

    skip = peers.missing()

    kinds: tuple[type[peers.Broker], type[peers.Broker]] = (peers.JavaBroker, peers.OurBroker)

    def pair(self, topics: peers.Topics = generator.TOPICS, **system: object) -> Pair:
        """Fresh brokers."""
        brokers = []
        for number, kind in enumerate(self.kinds):
            root, zk = f"/{self.id()}-{number}", zookeeper.shared()
            broker = kind(self.mktemp(), zk, root, topics, system=system)
            broker.start()
            self.addCleanup(broker.kill)
            brokers.append(broker)
        return Pair(*brokers)

    def ask_both(self, pair: Pair, seed: int, count: int, **options: Any) -> generator.Requests:
        """Send this number of requests: equal replies, equal closes, equal silences."""
        requests = generator.Requests(seed, **options)
        for number, request in enumerate(itertools.islice(requests, count)):
            first, second = pair.ask(request)
            self.assertEqual(second, first, f"seed {seed}, request {number}: {request[:200]!r}")
        self.assertEqual(pair.extra(), [])
        # the mixture is what it is meant to be
        self.assertGreater(pair.answered, count * 0.85)
        self.assertGreater(pair.closed, count * 0.01)
        return requests

    def assertSameFiles(self, pair: Pair) -> None:
        """The brokers stop; their files differ only in the ids."""
        found = []
        for side in pair.sides:
            side.broker.stop()
            data = side.broker.data
            masked = {place: without_ids(log) for place, log in logs(data).items()}
            found.append((sorted(segments(data)), masked))
        self.assertEqual(found[1], found[0])

    def test_random_requests(self) -> None:
        """One segment a partition; two thousand requests, some of them wrong."""
        pair = self.pair()
        self.ask_both(pair, SEED, REQUESTS)
        self.assertSameFiles(pair)

    def test_many_segments(self) -> None:
        """Segments of a few records, and a broker that tells consumers where the end is."""
        pair = self.pair(maxSegmentSize=200, updateConsumerOffsets="true")
        self.ask_both(pair, SEED + 1, REQUESTS // 2, sizes=(0, 5, 5, 20, 100))
        self.assertSameFiles(pair)

    def test_direct_mode(self) -> None:
        """Without group commit, as in most clusters. The time at which a message becomes readable
        is not compared: ours is earlier."""
        pair = self.pair(unflushThreshold=1000, maxSegmentSize=5000)
        self.ask_both(pair, SEED + 3, REQUESTS // 3, reads=False)
        self.assertSameFiles(pair)

    def test_pipelined_reads(self) -> None:
        """Reads sent in one piece, in odd pieces: a reply for each opaque, equal on both sides."""
        pair = self.pair()
        requests = self.ask_both(pair, SEED + 2, 200)
        reads = {}
        for _ in range(300):
            requests.opaque += 1
            reads[requests.opaque] = requests.random.choice(
                [requests.get, requests.get, requests.offset, requests.version]
            )()
        stream = b"".join(reads.values())
        for size in (len(stream), 1000, 7):
            answers = [side.ask_many(stream, reads, size) for side in pair.sides]
            self.assertEqual(answers[1], answers[0])

    def test_retention(self) -> None:
        """Old segments are deleted, renamed or packed on schedule; the last one stays."""
        when = {"deleteWhen": "* * * * * ?"}
        policies = {"gone": "delete,1s", "renamed": "archive,1s", "packed": "archive,1s,true"}
        topics = {name: {**when, "deletePolicy": policy} for name, policy in policies.items()}
        pair = self.pair(topics, maxSegmentSize=100)
        for number in range(30):
            topic = b"gone renamed packed".split()[number % 3]
            first, second = pair.ask(b"put %b 0 90 0 %d\r\n" % (topic, number) + bytes(90))
            self.assertEqual(second, first)
        last = 10 * 110  # the segment that follows the last message, still empty
        for side, name in itertools.product(pair.sides, policies):
            get = f"get {name} g 0 {last - 1} 10 1\r\n".encode()
            wait_until(lambda: side.moved(get) == b"%d" % last, f"{name} shrinks")
        for request in ("get {} g 0 0 10 1", "offset {} g 0 300 2", "get {} g 0 1100 20 3"):
            for name in policies:
                first, second = pair.ask(f"{request.format(name)}\r\n".encode())
                self.assertEqual(second, first)
        first, second = pair.ask(b"stats offsets 4\r\n")
        self.assertEqual(second, first)
        names = [sorted(files(side.broker.data)) for side in pair.sides]
        self.assertEqual(names[1], names[0])
        self.assertEqual(len(names[0]), 1 + 11 + 11)
