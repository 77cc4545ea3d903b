"""
One data directory, served in turn by the original and by ours: a cluster can move in both
directions.
"""

from __future__ import annotations

import os
import random
import zlib
from typing import Any

from compat.clientcase import ClientCase, name
from compat.exchange import Connection
from compat.samples import samples, send
from compat.segments import logs, segments
from tests.support import peers, zookeeper

TOPICS = {"t": {"numPartitions": 2}, "a-b": {}}
PARTITIONS = [("t", 0), ("t", 1), ("a-b", 0)]
SEGMENT = 4000  # bytes; a partition of this test has a dozen files
END = 2**63 - 1


class DataDirectoryTests(ClientCase):
    """Java, ours, Java; and ours, Java, ours."""

    skip = peers.missing()

    def setUp(self) -> None:
        """The parts that both brokers share: data, port, ZooKeeper root, configuration."""
        self.directory = os.path.abspath(self.mktemp())
        self.port = zookeeper.free_port()
        self.root = f"/{name('data')}"
        self.random = random.Random(8123)

    def broker(self, kind: type[peers.Broker]) -> peers.Broker:
        """The next broker of the directory."""
        # as on most machines, the transactions of the original lie among the partitions
        system = {"maxSegmentSize": SEGMENT, "dataLogPath": f"{self.directory}/data"}
        zk = zookeeper.shared()
        broker = kind(self.directory, zk, self.root, TOPICS, system=system, port=self.port)
        broker.start()
        self.addCleanup(broker.kill)
        return broker

    def write(self, broker: peers.Broker, count: int) -> None:
        """Messages of all sizes into every partition."""
        connection = Connection(broker.port)
        for number in range(count):
            topic, partition = PARTITIONS[number % len(PARTITIONS)]
            body = self.random.randbytes(self.random.choice([0, 1, 100, 1000, 5000]))
            checksum = zlib.crc32(body) & 0x7FFFFFFF
            head = f"put {topic} {partition} {len(body)} 0 {checksum} {number}\r\n".encode()
            reply = connection.ask(head + body)
            self.assertEqual(reply.status, 200, reply)
        connection.close()

    def read(self, broker: peers.Broker) -> dict[str, bytes]:
        """
        Every partition as a consumer with a plain socket sees it, from the smallest offset to the
        end.
        """
        connection, found = Connection(broker.port), {}
        for topic, partition in PARTITIONS:
            place = f"{topic} g {partition}"
            first = connection.ask(f"offset {place} -1 1\r\n".encode())
            end = connection.ask(f"get {place} {END} 1 1\r\n".encode())
            self.assertEqual((first.status, first.body, end.status), (200, b"0", 301))
            log = b""
            while len(log) < int(end.body):
                reply = connection.ask(f"get {place} {len(log)} 3000 1\r\n".encode())
                self.assertEqual(reply.status, 0, reply)
                log += reply.body
            reply = connection.ask(f"get {place} {len(log)} 3000 1\r\n".encode())
            self.assertEqual(reply.status, 404)
            found[f"{topic}-{partition}"] = log
        connection.close()
        return found

    def take_turns(self, *kinds: type[peers.Broker]) -> None:
        """Each broker serves the messages of the earlier ones, and adds its own."""
        before: dict[str, bytes] = {}
        for kind in kinds:
            broker = self.broker(kind)
            # the original opens a partition at its first put when anything but partitions is beside
            # it
            self.write(broker, 60)
            served = self.read(broker)
            self.assertEqual(served, logs(broker.data))
            for partition, log in before.items():
                self.assertTrue(served[partition].startswith(log), (kind.kind, partition))
                self.assertGreater(len(served[partition]), len(log))
            broker.stop()
            before = logs(broker.data)
            self.assertEqual(before, served)
            self.assertGreater(len(segments(broker.data)), 20)

    def test_java_ours_java(self) -> None:
        """The original, ours, the original."""
        self.take_turns(*JAVA_OURS_JAVA)

    def test_ours_java_ours(self) -> None:
        """Ours, the original, ours."""
        self.take_turns(*OURS_JAVA_OURS)

    def torn(self, first: type[peers.Broker], second: type[peers.Broker]) -> None:
        """A tail that a crash of one broker left incomplete is cut off by the other."""
        broker = self.broker(first)
        self.write(broker, 30)
        broker.stop()
        whole = logs(broker.data)
        last = max(file for directory, file in segments(broker.data) if directory == "t-1")
        with open(os.path.join(broker.data, "t-1", last), "ab") as file:
            file.write(bytes.fromhex("00000064 00000000 0000"))
        broker = self.broker(second)
        connection = Connection(broker.port)
        reply = connection.ask(b"put t 1 5 0 1\r\nhello")
        connection.close()
        self.assertEqual(reply.body.split()[1:], [b"1", b"%d" % len(whole["t-1"])])
        broker.stop()
        self.assertTrue(logs(broker.data)["t-1"].startswith(whole["t-1"]))
        self.assertEqual(len(logs(broker.data)["t-1"]), len(whole["t-1"]) + 25)

    def test_torn_by_java(self) -> None:
        """A torn tail under the original, then ours."""
        self.torn(*JAVA_OURS_JAVA[:2])

    def test_torn_by_ours(self) -> None:
        """A torn tail under ours, then the original."""
        self.torn(*OURS_JAVA_OURS[:2])

    def damage(self) -> tuple[str, int, int]:
        """
        A byte in the second of twenty messages of a last segment is changed, while no broker runs;
        returns the file, where the bad message is, and the end of the log.
        """
        broker = self.broker(peers.OurBroker)
        connection = Connection(broker.port)
        for number in range(20):
            body = b"message %02d" % number
            self.assertEqual(connection.ask(b"put t 1 10 0 1\r\n" + body).status, 200)
        connection.close()
        broker.stop()
        (file,) = (file for directory, file in segments(broker.data) if directory == "t-1")
        path = os.path.join(broker.data, "t-1", file)
        with open(path, "r+b") as segment:
            segment.seek(30 + 25)
            segment.write(b"?")
        return path, 30, 600

    def end(self, broker: peers.Broker) -> int:
        """The end of the damaged partition, by a broker that has taken a message for it."""
        connection = Connection(broker.port)
        reply = connection.ask(b"put t 1 5 0 1\r\nhello")
        connection.close()
        self.assertEqual(reply.status, 200, reply)
        return int(reply.body.split()[2])

    def test_java_cuts_off_what_follows_damage(self) -> None:
        """The original truncates a damaged directory at its start, with the good messages after the
        damage."""
        path, bad, _ = self.damage()
        broker = self.broker(peers.JavaBroker)
        self.assertEqual(self.end(broker), bad)
        broker.stop()
        self.assertEqual(os.path.getsize(path), bad + 25)

    def test_java_keeps_what_ours_has_kept(self) -> None:
        """After a start of ours the original serves the damaged file unchanged."""
        path, _, end = self.damage()
        with open(path, "rb") as segment:
            damaged = segment.read()
        for kind, expected in zip(OURS_JAVA_OURS, (end, end + 25, end + 50), strict=True):
            broker = self.broker(kind)
            self.assertEqual(self.end(broker), expected)
            connection = Connection(broker.port)
            self.assertEqual(connection.ask(b"get t g 1 0 4000 1\r\n").body, damaged)
            connection.close()
            broker.stop()
        self.assertEqual(os.path.getsize(path), end)

    def test_clients_stay(self) -> None:
        """The brokers are exchanged while a producer and a consumer are running: neither fails."""
        broker = self.broker(JAVA_OURS_JAVA[0])
        factory, received = self.factory(broker), samples("start", 20)
        producer = self.producer(factory, "t")
        self.assertSent(send(peers.driver(), producer, "t", received), 20)
        _, call = self.consume(factory, "t", "g")
        self.assertReceived(call, received)
        for number, kind in enumerate(JAVA_OURS_JAVA[1:]):
            broker.stop()
            broker = self.broker(kind)
            more = samples(f"turn-{number}", 20)
            self.assertSent(self.send_until_accepted(producer, "t", more), 20)
            received += more
            self.assertReceived(call, received)


JAVA_OURS_JAVA: tuple[Any, ...] = (peers.JavaBroker, peers.OurBroker, peers.JavaBroker)
OURS_JAVA_OURS: tuple[Any, ...] = (peers.OurBroker, peers.JavaBroker, peers.OurBroker)
