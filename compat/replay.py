"""
The recorded sessions once more, against the original and against our broker: the same replies,
whatever recorded them.

The test cases are in ``test_replay``, so that trial does not run the class here itself.

Sessions that follow each other in the recording form a chain and share one broker. What the
partitions held before a chain is rebuilt from what its sessions read, or filled up to the size they
report.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping

from twisted.trial.unittest import SynchronousTestCase

from compat.exchange import CLOSED, Connection, Reply, split_replies, split_requests
from compat.normal import Normaliser
from tests.support import peers, zookeeper

SESSIONS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "captures", "sessions")
TOPICS: dict[str, dict[str, object]] = {
    "test": {"numPartitions": 2, "stat": "true"},
    "meta-test": {"stat": "true"},
}
NO_OPAQUE = 2147483647

Contents = Mapping[tuple[str, int], bytes]


def filler(size: int) -> bytes:
    """One whole record of that size; its checksum is that of a body of zeros."""
    body = bytes(size - 20)
    checksum = zlib.crc32(body) & 0x7FFFFFFF
    head = len(body).to_bytes(4, "big") + checksum.to_bytes(4, "big") + bytes(7) + b"\1" + bytes(4)
    return head + body


def connections(session: str) -> list[tuple[str, bytes, bytes]]:
    """Name, client bytes and broker bytes of each recorded connection of a session."""
    (directory,) = (name for name in os.listdir(SESSIONS) if name.startswith(session + "-"))
    found = []
    for name in sorted(os.listdir(os.path.join(SESSIONS, directory))):
        if name.endswith(".jsonl"):
            streams = {"c2s": b"", "s2c": b""}
            with open(os.path.join(SESSIONS, directory, name), encoding="ascii") as file:
                for line in file:
                    chunk = json.loads(line)
                    streams[chunk["dir"]] += bytes.fromhex(chunk.get("hex", ""))
            found.append((f"{directory}/{name}", streams["c2s"], streams["s2c"]))
    return found


def opaque_of(request: bytes) -> int:
    """The opaque a reply to this request carries."""
    tokens = request.partition(b"\r\n")[0].split(b" ")
    try:
        return int(tokens[-1]) if len(tokens) > (2 if tokens[0] == b"stats" else 1) else NO_OPAQUE
    except ValueError:
        return NO_OPAQUE


def exchanges(sent: bytes, received: bytes) -> Iterator[tuple[bytes, Reply | bytes]]:
    """Each request with its recorded reply, or with ``CLOSED`` where none came."""
    by_opaque = defaultdict(list)
    for reply in split_replies(received):
        by_opaque[reply.opaque].append(reply)
    for request in split_requests(sent):
        replies = by_opaque[opaque_of(request)]
        yield request, replies.pop(0) if replies else CLOSED


def contents_read(session: str) -> dict[tuple[str, int], bytes]:
    """What the partitions held according to the gets of a session that start at 0."""
    contents = {}
    for _, sent, received in connections(session):
        for request, reply in exchanges(sent, received):
            verb, topic, *rest = request[:-2].decode("ascii").split(" ")
            if verb == "get" and rest[2] == "0" and isinstance(reply, Reply) and not reply.status:
                contents[topic, int(rest[1])] = reply.body
    return contents


class ReplayBehaviour(SynchronousTestCase):
    """A method for each chain of sessions; the broker is the subclass's."""

    kind: type[peers.Broker]

    def registry(self) -> zookeeper.ZooKeeperServer:
        """What the broker registers with."""
        return zookeeper.shared()

    def start(self, contents: Contents) -> peers.Broker:
        """A broker whose partitions hold that."""
        directory = tempfile.TemporaryDirectory(prefix="metamorphosis-replay-")
        self.addCleanup(directory.cleanup)
        for (topic, partition), data in contents.items():
            path = os.path.join(directory.name, "data", f"{topic}-{partition}")
            os.makedirs(path)
            with open(os.path.join(path, f"{0:020d}.meta"), "wb") as file:
                file.write(data)
        root = f"/replay-{self.id()}"
        broker = self.kind(directory.name, self.registry(), root, TOPICS)
        broker.start()
        self.addCleanup(broker.kill)
        return broker

    def replay(self, *sessions: str, contents: Contents | None = None) -> None:
        """Ask what was asked then, compare with what was answered then."""
        broker = self.start(contents or {})
        then, now = Normaliser(history=False), Normaliser(history=False)
        count = 0
        for session in sessions:
            for name, sent, received in connections(session):
                connection = Connection(broker.port)
                for request, reply in exchanges(sent, received):
                    connection.send(request)
                    expected, got = then(request, reply), now(request, connection.reply())
                    self.assertEqual(got, expected, f"{name}: {request!r}")
                    count += 1
                connection.close()
        self.assertGreater(count, 5)

    def test_producers(self) -> None:
        """Synchronous, attribute and asynchronous sends of the Java client, 01 to 03."""
        self.replay("01", "02", "03")

    def test_consumers(self) -> None:
        """Synchronous gets, a consumer, two consumers that share the partitions, 10 to 12."""
        self.replay("10", "11", "12", contents=contents_read("10"))

    def test_statistics_and_heartbeat(self) -> None:
        """Every item of ``stats``, and the heartbeat, 13 and 14."""
        contents = {("test", 0): filler(188), ("test", 1): filler(330)}
        self.replay("13", "14", contents=contents)

    def test_raw_requests(self) -> None:
        """Hand-made requests, right and wrong, 16 to 22."""
        sessions = ["16", "17", "18", "19", "20", "21", "22"]
        self.replay(*sessions, contents=contents_read("16"))

    def test_other_languages(self) -> None:
        """The producers in Ruby, Python 2 and .NET, 50 to 52."""
        self.replay("50", "51", "52")
