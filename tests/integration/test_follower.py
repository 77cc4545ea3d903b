"""
An asynchronous slave and its master, both ours, as processes: kills at any moment, a master that is
frozen, an empty ZooKeeper, topics that come by a reload, an orderly stop.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.store.layout import find_segments
from tests.faults.peer import Peer
from tests.support.broker import Keys
from tests.support.embedded import EmbeddedZooKeeper
from tests.support.replicated import Member

TOPICS: dict[str, Keys] = {
    "a": {"numPartitions": 2, "unflushThreshold": 1000},
    "b": {"numPartitions": 1, "unflushThreshold": 0},
}
PARTITIONS = (("a", 0), ("a", 1), ("b", 0))
SEGMENT = 64 * 1024
WAIT_SECONDS = 30.0


class Stage:
    """ZooKeeper, a master and its slave, which end with the process."""

    def __init__(self) -> None:
        directory = tempfile.mkdtemp(prefix="metamorphosis-follower-")
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        self.zookeeper = EmbeddedZooKeeper(f"{directory}/zookeeper", tick_time=100)
        self.zookeeper.start()
        self.master = self._member(f"{directory}/master", None, {})
        properties = {"slaveId": 0, "autoSyncMasterConfig": "true"}
        self.slave = self._member(f"{directory}/slave", "slave", properties)
        self.slave.start()
        self.slave.write_configuration = lambda: None  # type: ignore[method-assign]
        self.master.start()

    def _member(self, directory: str, role: str | None, properties: Keys) -> Member:
        return Member(
            directory,
            role,
            properties,
            topics=TOPICS,
            system={"maxSegmentSize": SEGMENT},
            zookeeper=self.zookeeper,
            zookeeper_keys={"zk.zkSessionTimeoutMs": 1000},
        )


_stages: list[Stage] = []


def stage() -> Stage:
    """The stage that all tests share."""
    if not _stages:
        _stages.append(Stage())
    return _stages[0]


def log_of(member: Member, topic: str, number: int) -> bytes:
    """The bytes of a partition, also while it is written to."""
    path = os.path.join(member.data, f"{topic}-{number}")
    data = b""
    for segment in find_segments(path) if os.path.isdir(path) else []:
        with open(segment.path, "rb") as file:
            data += file.read()
    return data


class FollowerTests(SynchronousTestCase):
    """One master, one slave."""

    def setUp(self) -> None:
        self.stage = stage()
        self.master, self.slave = self.stage.master, self.stage.slave
        self.random = random.Random(8123)

    def tearDown(self) -> None:
        for word in ("Traceback", "Replication diverged", "Replication gap"):
            self.assertNotIn(word, self.slave.output())

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Poll until the condition holds."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {WAIT_SECONDS} s\n{self.slave.output()}")
            time.sleep(0.05)

    def put(self, count: int, places: tuple[tuple[str, int], ...] = PARTITIONS) -> None:
        """Messages, spread over partitions."""
        with Peer(self.master.port) as peer:
            for number in range(count):
                topic, partition = places[number % len(places)]
                body = self.random.randbytes(self.random.randrange(3000))
                head = f"put {topic} {partition} {len(body)} 0 -1 {number}\r\n".encode()
                self.assertEqual(200, peer.ask(head + body).status)

    def wait_for_copy(self, places: tuple[tuple[str, int], ...] = PARTITIONS) -> None:
        """Every partition is the same on both."""
        for place in places:
            self.wait_until(
                lambda place=place: log_of(self.slave, *place) == log_of(self.master, *place),  # type: ignore[misc]
                f"{place} is copied",
            )

    def test_kills(self) -> None:
        """Either is killed at random, again and again: no record is repeated or missing."""
        for _ in range(4):
            self.put(150)
            time.sleep(self.random.uniform(0, 0.3))
            self.slave.kill()
            self.put(150)
            self.slave.start()
        self.wait_for_copy()
        self.put(100)
        self.master.kill()
        self.master.start()
        self.put(100)
        self.wait_for_copy()

    def test_frozen_master(self) -> None:
        """The master is silent for longer than the heartbeats and the session; then copying
        continues."""
        self.put(30)
        self.wait_for_copy()
        self.master.signal(signal.SIGSTOP)
        try:
            time.sleep(7)
        finally:
            self.master.signal(signal.SIGCONT)
        self.put(30)
        self.wait_for_copy()
        self.assertIn("heartbeats without an answer", self.slave.output())

    def test_row_R12(self) -> None:
        """A topic that the master gets by a reload is taken over and copied."""
        with open(self.master.server_ini, "a", encoding="utf-8") as file:
            file.write("[topic=new]\nnumPartitions=2\n")
        self.master.write_configuration = lambda: None  # type: ignore[method-assign]
        self.master.signal(signal.SIGHUP)
        self.master.wait_for_log("topics added: new")
        places = (("new", 0), ("new", 1))
        self.put(20, places)
        self.wait_until(lambda: bool(log_of(self.slave, "new", 1)), "the topic is copied")
        self.wait_for_copy(places)
        with open(self.slave.server_ini, encoding="utf-8") as file:
            text = file.read()
        self.assertIn("[topic=new]\nnumPartitions=2\n", text)
        self.assertIn(f"serverPort={self.slave.port}\n", text)

    def test_empty_zookeeper(self) -> None:
        """ZooKeeper returns empty: both register again, and copying continues."""
        server = self.stage.zookeeper
        server.kill()
        shutil.rmtree(server.data)
        self.put(30)
        server.start()
        self.wait_until(lambda: self.nodes() >= self.own_nodes(), "the slave is registered")
        self.put(30)
        self.wait_for_copy()

    def own_nodes(self) -> set[str]:
        """The expected nodes of a slave with these topics."""
        trees = ("topics", "topics-pub", "topics-sub")
        nodes = {f"/meta/brokers/{tree}/{topic}/0-s0" for tree in trees for topic in TOPICS}
        return nodes | {"/meta/brokers/ids/0/slave0"}

    def nodes(self) -> set[str]:
        """All nodes."""
        return set(self.stage.zookeeper.tree("/meta"))

    def test_row_R26(self) -> None:
        """An orderly stop removes the nodes of the slave and of its group."""
        self.put(3)
        self.wait_until(lambda: self.nodes() >= self.own_nodes(), "the slave is registered")
        self.assertEqual(0, self.slave.stop())
        nodes = self.nodes()
        members = [each for each in nodes if "meta-slave-group_0/ids/" in each]
        self.assertEqual((set(), []), (nodes & self.own_nodes(), members))
        self.slave.start()
        self.wait_for_copy()

    def test_put_is_refused(self) -> None:
        """R24, over a socket; and a held get on the slave is answered when the record was
        copied."""
        self.put(3)
        self.wait_for_copy()
        with Peer(self.slave.port) as peer:
            reply = peer.ask(b"put a 0 5 0 907060870 1\r\nhello")
            self.assertEqual(
                (403, b"The broker is a slave,put is not allowed"), (reply.status, reply.body)
            )
            end = len(log_of(self.slave, "a", 0))
            peer.send(b"get a readers 0 %d 1000 2 20000\r\n" % end)
            self.put(1, (("a", 0),))
            began = time.monotonic()
            self.assertEqual(2, peer.reply().opaque)
            self.assertLess(time.monotonic() - began, 10)

    def test_status(self) -> None:
        """``stats replication`` over a socket."""
        with socket.create_connection(("127.0.0.1", self.slave.port), 5) as connection:
            connection.sendall(b"stats replication 1\r\n")
            received = b""
            while b"END\r\n" not in received:
                received += connection.recv(65536)
        self.assertIn(b"role asynchronous slave 0\r\n", received)
