"""
The recorded sessions of replication (``compat/captures``, 30 to 33), replayed: our master under the
recorded slave, and the scripted peers, which other tests rely on, against what the original said.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.message import HEADER, HEADER_BYTES, encode_record
from tests.support.pairing import Pair
from tests.support.scriptedpeers import ScriptedFollower, ScriptedGregor, ScriptedSamsa
from tests.support.serving import Broker
from tests.support.slaves import SlaveBroker
from tests.unit.broker.test_hotpath import log as logs_on_disk

SESSIONS = Path(__file__).parents[3] / "compat" / "captures" / "sessions"

_BODY = re.compile(rb"(?:put|sync) [^ ]* [^ ]* (\d+) |result \d+ (\d+) |value (\d+) ")


class Recorded(NamedTuple):
    """The frames of one connection, in the order in which they came."""

    sent: list[bytes]
    received: list[bytes]


def recorded(session: str, connection: str) -> Recorded:
    """One connection of a session."""
    (path,) = SESSIONS.glob(f"{session}-*/{connection}.jsonl")
    streams = {"c2s": b"", "s2c": b""}
    for line in path.read_text("ascii").splitlines():
        chunk = json.loads(line)
        streams[chunk["dir"]] += bytes.fromhex(chunk.get("hex", ""))
    return Recorded(frames(streams["c2s"]), frames(streams["s2c"]))


def frames(stream: bytes) -> list[bytes]:
    """A stream, cut."""
    found = []
    while stream:
        head, line_end, rest = stream.partition(b"\r\n")
        match = _BODY.match(head)
        length = int(next(filter(None, match.groups()))) if match else 0
        found.append(head + line_end + rest[:length])
        stream = rest[length:]
    return found


def opaque_of(frame: bytes) -> int:
    """The last token of its line."""
    return int(frame.partition(b"\r\n")[0].rpartition(b" ")[2])


def logs_of(session: Recorded) -> dict[tuple[str, int], bytes]:
    """What the partitions held in the end, from the gets and their answers."""
    answers = {opaque_of(frame): frame for frame in session.received}
    logs: dict[tuple[str, int], bytes] = defaultdict(bytes)
    for request in session.sent:
        words = request[:-2].decode().split(" ")
        answer = answers[opaque_of(request)]
        if words[0] == "get" and answer.startswith(b"value"):
            place = words[1], int(words[3])
            logs[place] = logs[place][: int(words[4])] + answer.partition(b"\r\n")[2]
    return dict(logs)


class FollowerSessionTests(SynchronousTestCase):
    """Session 33: an asynchronous slave of the original and its master."""

    def setUp(self) -> None:
        self.session = recorded("33", "slave-to-master-01")
        self.logs = logs_of(self.session)

    def test_logs(self) -> None:
        """The sizes of the data directories that were kept."""
        self.assertEqual(
            {("test", 0): 75, ("test", 1): 100},
            {place: len(log) for place, log in self.logs.items()},
        )

    def test_our_master(self) -> None:
        """Every recorded request is answered as it was then, byte for byte."""
        topics = {"test": {"num_partitions": 2}, "meta-test": {"num_partitions": 1}}
        broker = Broker(self.mktemp(), topics)
        client = broker.client()
        answers = {opaque_of(frame): frame for frame in self.session.received}
        for place in self.logs:
            self._fill(broker, place, 50)
        for request in self.session.sent:
            answer = answers[opaque_of(request)]
            words = request[:-2].decode().split(" ")
            if words[0] == "get" and int(words[4]) and answer.startswith(b"value"):
                self._fill(broker, (words[1], int(words[3])), 1 << 20)
            self.assertEqual(answer, client.send(request), request)

    def _fill(self, broker: Broker, place: tuple[str, int], end: int) -> None:
        """Store what the recorded master had up to there."""
        topic = broker.config.topic(place[0])
        store = broker.stores.get_or_create(topic, place[1])
        log = self.logs[place]
        at = store.next_offset
        while at < min(end, len(log)):
            length, checksum, message_id, flag = HEADER.unpack_from(log, at)
            body = log[at + HEADER_BYTES : at + HEADER_BYTES + length]
            store.add(message_id, flag, checksum, body)
            at = store.next_offset
        broker.clock.advance(1)

    def test_scripted_follower(self) -> None:
        """It asks what the recorded one asked, and copies what that copied."""
        replies: dict[bytes, deque[bytes]] = defaultdict(deque)
        answers = {opaque_of(frame): frame for frame in self.session.received}
        for request in self.session.sent:
            replies[_question(request)].append(answers[opaque_of(request)])
        follower = ScriptedFollower([("test", 0), ("test", 1), ("meta-test", 0)])
        asked: list[bytes] = []
        end = follower.open(asked.append, lambda: None)
        while asked and replies[_question(asked[0])]:
            request = asked.pop(0)
            head, _, body = replies[_question(request)].popleft().partition(b"\r\n")
            number = b"%d" % opaque_of(request)
            end.receive(head.rpartition(b" ")[0] + b" " + number + b"\r\n" + body)
            follower.poll()
        follower.verify()
        for (topic, partition), log in self.logs.items():
            self.assertEqual(log, bytes(follower.log(topic, partition).data))


class PairSessionTests(SynchronousTestCase):
    """Session 30: the master of a pair sends to its slave what producers of 31 and 31b have put."""

    def setUp(self) -> None:
        self.session = recorded("30", "slave-01")

    def test_scripted_gregor(self) -> None:
        """It answers what the original slave did."""
        gregor = ScriptedGregor({"test": 2})
        said: list[bytes] = []
        line = gregor.open(said.append, lambda: None)
        for request in self.session.sent:
            line.receive(request)
        self.assertEqual(b"".join(self.session.received), b"".join(said))
        gregor.verify()

    def test_our_slave(self) -> None:
        """
        It answers what the original did, byte for byte and in order, sent frame by frame, in one
        piece and byte by byte; both partitions are those that the original kept.
        """
        stream, answers = b"".join(self.session.sent), b"".join(self.session.received)
        for pieces in (self.session.sent, [stream], [bytes([each]) for each in stream]):
            slave = SlaveBroker(self.mktemp(), {"test": {"num_partitions": 2}})
            client = slave.client()
            self.assertEqual(answers, b"".join(map(client.send, pieces)))
            logs: dict[int, bytes] = {0: b"", 1: b""}
            for frame in self.session.sent:
                head, _, body = frame.partition(b"\r\n")
                words = head.split(b" ")
                logs[int(words[2])] += encode_record(int(words[5]), int(words[4]), body)
            self.assertEqual(
                {("test", number): data for number, data in logs.items()}, logs_on_disk(slave)
            )

    def test_scripted_samsa(self) -> None:
        """It sends what the original master did, but for the ids, which are times."""
        samsa = ScriptedSamsa()
        said: list[bytes] = []
        line = samsa.open(said.append, lambda: None)
        for request, answer in zip(self.session.sent, self.session.received, strict=True):
            words = request.partition(b"\r\n")[0].decode().split(" ")
            body = request.partition(b"\r\n")[2]
            samsa.put(words[1], int(words[2]), body, int(words[4]), int(words[6]), int(words[5]))
            line.receive(answer)
        self.assertEqual(b"".join(self.session.sent), b"".join(said))
        self.assertEqual([], samsa.parted)
        self.assertEqual({200}, {sent.status for sent in samsa.sent.values()})
        samsa.verify()

    def test_producers(self) -> None:
        """What they have put is what was sent on, in the same order."""
        puts = recorded("31", "broker-01").sent + recorded("31b", "broker-01").sent
        self.assertEqual(
            [_without_id(each) for each in self.session.sent], [_as_sync(each) for each in puts]
        )


class PairMasterSessionTests(SynchronousTestCase):
    """Sessions 31, 31b and 32: producers of the original put to our master of a pair."""

    def test_puts(self) -> None:
        """
        The replies, what is sent to the slave, and both logs are those of the recording, but for
        ids, which are times, and opaques on the connection to the slave.
        """
        pair = Pair(self.mktemp())
        pair.connect()
        answers = []
        for session in ("31", "31b"):
            recording = recorded(session, "broker-01")
            client = pair.client()
            for request, answer in zip(recording.sent, recording.received, strict=True):
                answers.append(answer)
                self.assertEqual(_masked(answer), _masked(pair.send(client, request)))
        slave = recorded("30", "slave-01")
        self.assertEqual([_place(each) for each in slave.received], list(map(_place, answers)))
        for partition in (0, 1):
            self.assertEqual(pair.own(partition), pair.slaves(partition))
        sent = [topic_and_partition for *topic_and_partition, _ in pair.gregor.syncs]
        self.assertEqual([_without_id(each)[:2] for each in slave.sent], _encoded(sent))
        pair.gregor.verify()

    def test_puts_without_a_slave(self) -> None:
        """Refused, byte for byte."""
        pair = Pair(self.mktemp())
        recording = recorded("32", "broker-01")
        client = pair.client()
        for request, answer in zip(recording.sent, recording.received, strict=True):
            self.assertEqual(answer, pair.send(client, request))
        self.assertGreater(len(recording.sent), 5)


def _masked(answer: bytes) -> tuple[bytes, bytes]:
    """Opaque, and partition and offset."""
    return answer.partition(b"\r\n")[0].rpartition(b" ")[2], _place(answer)


def _place(answer: bytes) -> bytes:
    """Partition and offset of an answer."""
    return answer.partition(b"\r\n")[2].partition(b" ")[2]


def _encoded(places: list[list[object]]) -> list[list[bytes]]:
    """As on the wire."""
    return [[str(each).encode() for each in place] for place in places]


def _question(request: bytes) -> bytes:
    """The line without its opaque."""
    return request[:-2].rpartition(b" ")[0]


def _without_id(sync: bytes) -> list[bytes]:
    head, _, body = sync.partition(b"\r\n")
    words = head.split(b" ")
    return [*words[1:5], words[6], body]


def _as_sync(put: bytes) -> list[bytes]:
    head, _, body = put.partition(b"\r\n")
    words = head.split(b" ")
    return [*words[1:6], body]
