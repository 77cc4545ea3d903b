"""Our master under a Java slave: section 3.13 of the specification, point by point."""

from __future__ import annotations

import os
import zlib

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cluster.model import Broker as Member
from metamorphosis.cluster.presence import Presence
from metamorphosis.config import serverini
from metamorphosis.message import encode_record, iterate_records
from metamorphosis.testing.registry import MemoryRegistry, MemoryTree
from metamorphosis.wire.commands import MISSING_OPAQUE
from tests.support.scriptedpeers import ScriptedFollower
from tests.support.scriptedwire import MemoryWire
from tests.support.serving import Broker

JAVA_BODY = 2097152
"""The longest body that the original's slave takes."""


class JavaSlaveCase(SynchronousTestCase):
    """A master in memory."""

    def setUp(self) -> None:
        self.broker = self.master()

    def master(self, **system: int) -> Broker:
        """One with two topics."""
        topics = {"t1": {"num_partitions": 2}, "t2": {}}
        return Broker(self.mktemp(), topics, unflush_threshold=1000, **system)

    def follow(self, *places: tuple[str, int], config: bool = False) -> MemoryWire:
        """A slave of these partitions."""
        self.slave = ScriptedFollower(list(places), copies_config=config)
        connection = self.broker.factory.buildProtocol(None)
        assert connection is not None
        wire = self.wire = MemoryWire(
            self.slave, connection, turn=lambda: self.broker.clock.advance(0.5)
        )
        wire.pump()
        return wire

    def put(self, body: bytes, topic: str = "t1", number: int = 0) -> None:
        """A message."""
        checksum = zlib.crc32(body) & 0x7FFFFFFF
        head = f"put {topic} {number} {len(body)} 0 {checksum} 5\r\n".encode()
        reply = self.broker.client().send(head + body)
        self.assertTrue(reply.startswith(b"result 200"), reply)

    def poll(self) -> None:
        """The slave's pauses are over, a few times."""
        for _ in range(12):
            self.slave.poll()
            self.wire.pump()

    def check_same(self, topic: str = "t1", number: int = 0) -> None:
        """The slave has the master's bytes."""
        store = self.broker.stores.get(topic, number)
        assert store is not None
        own = b"".join(store.bytes_at(each.start, each.size) for each in store.segments)
        log = self.slave.log(topic, number)
        self.assertEqual((store.min_offset, own), (log.first, bytes(log.data)))
        self.slave.verify()


class RequirementTests(JavaSlaveCase):
    """What such a slave needs of its master."""

    def test_nodes(self) -> None:
        """1: master, checksum, topics with JSON; the topic that may not be read is not there."""
        tree = MemoryTree()
        broker = Broker(
            self.mktemp(), {"t1": {"num_partitions": 2}, "no": {"accept_subscribe": False}}
        )
        presence = Presence(
            broker.clock,
            broker.config,
            Member(0, "localhost", 8123),
            broker.threads,
            lambda *_: MemoryRegistry(tree),
        )
        presence.start(broker.config.topics.values())
        broker.clock.advance(1)
        nodes = {path: node.data for path, node in tree.nodes.items()}
        self.assertEqual(b"meta://localhost:8123", nodes["/meta/brokers/ids/0/master"])
        self.assertEqual(b"0", nodes["/meta/brokers/ids/0/master_config_checksum"])
        self.assertEqual(b'{"numParts":2,"broker":"0-m"}', nodes["/meta/brokers/topics-sub/t1/0-m"])
        self.assertNotIn("/meta/brokers/topics-sub/no/0-m", nodes)

    def test_offset(self) -> None:
        """2: the lowest offset, or 404."""
        self.put(b"one")
        client = self.broker.client()
        self.assertEqual(b"result 200 1 1\r\n0", client.send(b"offset t1 g 0 0 1\r\n"))
        self.assertTrue(client.send(b"offset t1 g 1 0 2\r\n").startswith(b"result 404 "))

    def test_get(self) -> None:
        """3: whole records and at most a part of one; 404 at the end and beyond; 301 below the
        lowest offset."""
        self.broker = self.master(max_segment_size=50)
        for _ in range(6):
            self.put(b"x" * 30)
            self.broker.clock.advance(1)
        client = self.broker.client()
        reply = client.send(b"get t1 g 0 0 70 1\r\n")
        self.assertTrue(reply.startswith(b"value 50 1\r\n"), reply)
        for offset in (300, 400):
            reply = client.send(b"get t1 g 0 %d 100 2\r\n" % offset)
            self.assertTrue(reply.startswith(b"result 404 "), reply)
        store = self.broker.stores.get("t1", 0)
        assert store is not None
        store.remove_segment(store.immutable_segments()[0])
        first = b"%d" % store.min_offset
        reply = client.send(b"get t1 g 0 0 100 3\r\n")
        self.assertEqual(b"result 301 %d 3\r\n%b" % (len(first), first), reply)
        self.follow(("t1", 0))
        self.poll()
        self.check_same()

    def test_version_and_statistics(self) -> None:
        """4: heartbeats and ``stats config`` are answered at once."""
        self.follow(("t1", 0))
        self.slave.heartbeat()
        self.wire.pump()
        self.slave.verify()
        reply = self.broker.client().send(b"version\r\n")
        self.assertEqual(b"result 200 7 %d\r\n1.4.6.2" % MISSING_OPAQUE, reply)

    def test_row_R21(self) -> None:
        """5: ids are unique: a slave that leaves out ids it has seen misses none of 5000."""
        self.follow(("t1", 0), ("t1", 1))
        for number in range(5000):
            self.put(b"%d" % number, number=number % 2)
        self.poll()
        for number in (0, 1):
            self.check_same(number=number)
            self.assertEqual(2500, len(set(self.slave.log("t1", number).ids())))

    def test_longest_body(self) -> None:
        """6: a record longer than ``maxTransferSize`` comes whole when the slave asks for more."""
        self.put(b"first")
        self.put(os.urandom(JAVA_BODY))
        self.put(os.urandom(1 << 20))
        self.put(b"last")
        self.follow(("t1", 0))
        self.poll()
        self.check_same()

    def test_records_longer_than_a_small_maxTransferSize(self) -> None:
        """The same, with transfers of 64 KiB."""
        self.broker = self.master(max_transfer_size=1 << 16)
        for size in (10, 1 << 16, (1 << 16) - 20, 3 << 16, 100):
            self.put(os.urandom(size))
        self.follow(("t1", 0))
        self.poll()
        self.check_same()

    def test_longer_bodies_can_be_refused(self) -> None:
        """With ``max-body-bytes=2097152`` the master takes nothing that stops a Java slave."""
        limited = self.broker.settings.__class__(max_body_bytes=JAVA_BODY)
        self.broker = Broker(self.mktemp(), {"t1": {}}, settings=limited)
        self.put(bytes(JAVA_BODY))
        head = b"put t1 0 %d 0 -1 5\r\n" % (JAVA_BODY + 1)
        reply = self.broker.client().send(head + bytes(JAVA_BODY + 1))
        self.assertTrue(reply.startswith(b"result 400 "), reply)

    def test_transactions_are_ordinary_records(self) -> None:
        """5: what was reserved and committed as a block is read like any other record."""
        self.put(b"before")
        store = self.broker.stores.get("t1", 0)
        assert store is not None
        store.append([encode_record(7, 0, b"in"), encode_record(8, 0, b"a block")])
        self.put(b"after")
        self.follow(("t1", 0))
        self.poll()
        self.check_same()
        bodies = [each.body for each in iterate_records(bytes(self.slave.log("t1", 0).data))]
        self.assertEqual([b"before", b"in", b"a block", b"after"], bodies)


class ConfigTests(SynchronousTestCase):
    """The file that such a slave takes over."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        self.text = (
            "[system]\nbrokerId=0\nnumPartitions=1\nunflushThreshold=1000\nserverPort=8123\n"
            "unflushInterval=10000\nmaxSegmentSize=1073741824\nmaxTransferSize=1048576\n"
            "[zookeeper]\nzk.zkConnect=localhost:2181\n[topic=t]\n"
        )
        self.write(self.text)

    def write(self, text: str) -> None:
        """The master's file."""
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(text)

    def test_row_R14_R15(self) -> None:
        """The slave gets the file byte for byte; it has no key that Java does not know: ours are in
        another file."""
        broker = Broker(self.mktemp(), {"t": {}}, path=self.path)
        slave = ScriptedFollower([("t", 0)], copies_config=True)
        connection = broker.factory.buildProtocol(None)
        assert connection is not None
        MemoryWire(slave, connection, turn=lambda: broker.clock.advance(0.5)).pump()
        self.assertEqual([self.text.encode()], slave.configs)
        slave.verify()

    def test_checksum_changes_with_the_bytes_only(self) -> None:
        """A file that was touched, or written again, restarts no slave; one byte more does."""
        tree = MemoryTree()
        config = serverini.load(self.path)
        broker = Broker(self.mktemp(), {"t": {}})
        presence = Presence(
            broker.clock,
            config,
            Member(0, "localhost", 8123),
            broker.threads,
            lambda *_: MemoryRegistry(tree),
        )
        presence.start(config.topics.values())
        broker.clock.advance(1)
        node = tree.nodes["/meta/brokers/ids/0/master_config_checksum"]
        self.assertEqual((b"%d" % zlib.crc32(self.text.encode()), 0), (node.data, node.version))
        for text, version in ((self.text, 0), (self.text + "\n", 1), (self.text + "\n", 1)):
            self.write(text)
            os.utime(self.path, ns=(0, config.modified_ns + 10**9))
            reloaded = serverini.reload(config)
            assert reloaded is not None
            config = reloaded.config
            presence.registration.set_checksum(config.checksum)
            broker.clock.advance(1)
            self.assertEqual(version, node.version)
            self.assertIs(node, tree.nodes["/meta/brokers/ids/0/master_config_checksum"])
