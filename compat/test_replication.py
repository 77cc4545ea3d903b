"""
Our asynchronous slave under the original's master: every shape of message, restarts of both, gaps,
hidden partitions, and a Java consumer that reads on from the slave.

One master and one slave serve a whole class; each test has topics of its own.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import partial

from compat.clientcase import ClientCase, name, wait_until
from compat.exchange import Connection, Reply
from compat.samples import samples, send
from tests.support import peers, zookeeper
from tests.support.replicated import Member

SEGMENT = 16 * 1024

TOPICS: peers.Topics = {
    # with group commit a roll may end the original's thread that writes
    "shapes": {"numPartitions": 2, "unflushThreshold": 1000},
    "load": {"numPartitions": 2, "unflushThreshold": 1000},
    "gap": {"numPartitions": 1},
    "read": {"numPartitions": 2},
    "closed": {"acceptSubscribe": "false"},
    "synced": {"numPartitions": 2},
}
OWN_TOPICS = {topic: keys for topic, keys in TOPICS.items() if topic != "synced"}

# the original loads directories in groups of one more than there are processors, and leaves out the
# last group if it is not full
HIDDEN = 2
LOADED = len(os.sched_getaffinity(0)) + 1
INSIDE_TOPICS: peers.Topics = {"load": {"numPartitions": LOADED + HIDDEN}}


class Pair:
    """
    A Java master and our slave.

    :param inside: the journal of transactions lies among the partitions, as by default.
    """

    def __init__(self, inside: bool) -> None:
        topics = INSIDE_TOPICS if inside else TOPICS
        self.directory = tempfile.mkdtemp(prefix="metamorphosis-copy-")
        atexit.register(shutil.rmtree, self.directory, ignore_errors=True)
        root = f"/{name('copy')}"
        server = zookeeper.shared()
        system: dict[str, object] = {"maxSegmentSize": SEGMENT}
        if inside:
            system["dataLogPath"] = f"{self.directory}/master/data"
        self.master = peers.JavaBroker(
            f"{self.directory}/master", server, root, topics, system=system
        )
        self.master.zookeeper_keys = {**self.master.zookeeper_keys, "zk.zkSessionTimeoutMs": 2000}
        own = f"{self.directory}/slave/{'data' if inside else 'journal'}"
        os.makedirs(own, exist_ok=True)
        self.slave = Member(
            f"{self.directory}/slave",
            "slave",
            {"slaveId": 0, "slaveMaxDelayInMills": 100, "autoSyncMasterConfig": "true"},
            topics=OWN_TOPICS if topics is TOPICS else topics,
            system={"maxSegmentSize": 3 * SEGMENT, "dataLogPath": own},
            zookeeper=server,
            zookeeper_keys={**peers.ZOOKEEPER, "zk.zkRoot": root},
        )

    def start(self) -> None:
        """The slave first: it waits for its master. Its ``server.ini`` stays as it becomes."""
        self.slave.start()
        self.slave.write_configuration = lambda: None  # type: ignore[method-assign]
        self.master.start()

    def kill_master(self) -> None:
        """The original starts badly while ZooKeeper still has the nodes of its last run."""
        self.master.kill()
        path = f"{self.master.root}/brokers/topics-sub"
        tree = self.master.zookeeper.tree
        wait_until(lambda: not any(each.endswith("/0-m") for each in tree(path)), "it is gone")

    def restart_slave(self, between: Callable[[], None] = lambda: None) -> None:
        """Killed, then started."""
        self.slave.kill()
        between()
        self.slave.start()


_pairs: dict[bool, Pair] = {}


def pair(inside: bool) -> Pair:
    """The one of a class, running."""
    if inside not in _pairs:
        made = _pairs[inside] = Pair(inside)
        made.start()
    return _pairs[inside]


class Log:
    """What is on the disk of one partition, read without the broker's own code."""

    def __init__(self, data: str, topic: str, partition: int) -> None:
        self.first = 0
        self.data = b""
        path = os.path.join(data, f"{topic}-{partition}")
        names = sorted(os.listdir(path)) if os.path.isdir(path) else []
        for file in names:
            start = int(file.removesuffix(".meta"))
            if not self.data:
                self.first = start
            if start != self.first + len(self.data):
                raise AssertionError(f"{path}/{file} does not join the one before it")
            with open(os.path.join(path, file), "rb") as opened:
                self.data += opened.read()

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.first + len(self.data)


class CopyCase(ClientCase):
    """One pair."""

    skip = peers.missing()
    inside = False

    def setUp(self) -> None:
        self.pair = pair(self.inside)
        self.master, self.slave = self.pair.master, self.pair.slave

    def put(self, topic: str, partition: int, body: bytes, flag: int = 0) -> None:
        """One message, as bytes."""
        checksum = zlib.crc32(body) & 0x7FFFFFFF
        head = f"put {topic} {partition} {len(body)} {flag} {checksum} 7\r\n"
        reply = self.ask(head.encode() + body)
        self.assertEqual((200, 7), (reply.status, reply.opaque), reply)

    def ask(self, request: bytes) -> Reply:
        """Of the master."""
        with closing(Connection(self.master.port)) as connection:
            return connection.ask(request)

    def is_same(self, topic: str, partition: int) -> bool:
        """Whether the slave's log has the same bytes and the same end as the master's."""
        try:
            ours = Log(self.slave.data, topic, partition)
            theirs = Log(self.master.data, topic, partition)
        except (OSError, AssertionError):
            return False  # a segment was being made
        first = max(ours.first, theirs.first)
        same = ours.data[first - ours.first :] == theirs.data[first - theirs.first :]
        return ours.end == theirs.end and same

    def wait_for_copy(self, topic: str) -> None:
        """Of every partition that the master has written to."""
        count = int(str(self.master.topics[topic].get("numPartitions", 1)))
        for partition in range(count):
            if Log(self.master.data, topic, partition).data:
                wait_until(
                    partial(self.is_same, topic, partition), f"{topic}-{partition} is copied"
                )

    def load(self, count: int) -> None:
        """Put this number of messages, over all partitions."""
        partitions = int(str(self.master.topics["load"]["numPartitions"]))
        with closing(Connection(self.master.port)) as connection:
            for number in range(count):
                body = os.urandom(100 + number)
                head = f"put load {number % partitions} {len(body)} 0 -1 {number}\r\n"
                reply = connection.ask(head.encode() + body)
                self.assertEqual(200, reply.status, reply)

    def fill(self, topic: str, partition: int, count: int) -> None:
        """Messages of 1 KiB."""
        for _ in range(count):
            self.put(topic, partition, os.urandom(1024))

    def delete_oldest(self, topic: str, partition: int, keep_from: int = 1) -> None:
        """Delete segments as retention does; the first remaining one begins at ``keep_from`` or
        above."""
        path = f"{self.master.data}/{topic}-{partition}"
        names = sorted(os.listdir(path))
        starts = [int(each.removesuffix(".meta")) for each in names]
        self.assertGreaterEqual(starts[-1], keep_from)
        for file, start in zip(names, starts, strict=True):
            if start < keep_from:
                os.unlink(f"{path}/{file}")

    def slave_says(self, word: str) -> int:
        """The number of slave's log lines with this text."""
        return self.slave.output().count(word)

    def tearDown(self) -> None:
        self.assertNotIn("Traceback", self.slave.output())
        self.assertNotIn("Replication diverged", self.slave.output())


class OutsideTests(CopyCase):
    """The journal of transactions lies outside of the data path."""

    def test_row_R04_R05_R57(self) -> None:
        """Bodies and flags of every shape, a transaction, and records longer than an answer."""
        shapes = [
            (b"", 0),
            (b"\0\0\0\3k=vbody", 1),
            (b"\0\0\0\0body", 1),
            (b"\0\0\0\2\xff\xfebody", 1),  # the attribute is no UTF-8
            (b"flags", 0x7FFFFFFE),
            (b"negative", -2),
            (os.urandom(1024 * 1024 - 20), 0),
            (os.urandom(1024 * 1024), 0),
            (os.urandom(3_000_000), 0),
            (b"the end", 0),
        ]
        for body, flag in shapes:
            self.put("shapes", 0, body, flag)
        with closing(Connection(self.master.port)) as connection:
            for request in (
                b"transaction TX:s:1 s BEGIN 0 1\r\n",
                b"put shapes 0 5 0 -1 TX:s:1 2\r\nfirst",
                b"put shapes 1 6 0 -1 TX:s:1 3\r\nsecond",
                b"put shapes 0 5 0 -1 TX:s:1 4\r\nthird",
                b"transaction TX:s:1 s COMMIT_ONE_PHASE 5\r\n",
            ):
                self.assertEqual(200, connection.ask(request).status)
        self.wait_for_copy("shapes")
        self.assertEqual(0, Log(self.slave.data, "shapes", 1).first)

    def test_restarts(self) -> None:
        """R06 to R10: both are killed and started while puts continue: no record is repeated or
        missing."""
        self.load(40)
        self.wait_for_copy("load")
        puts = threading.Thread(target=self.load, args=(200,))
        puts.start()
        self.pair.restart_slave()
        puts.join()
        self.wait_for_copy("load")
        self.slave.stop()
        self.load(50)
        self.slave.start()
        self.wait_for_copy("load")
        self.pair.kill_master()
        self.master.start()
        self.load(50)
        self.wait_for_copy("load")

    def test_row_R13(self) -> None:
        """A topic that only the master has was taken over, with its partitions."""
        wait_until(lambda: "[topic=synced]" in self.own_file(), "the section is taken over")
        self.assertIn(f"serverPort={self.slave.port}\n", self.own_file())
        for number in (0, 1):
            self.put("synced", number, b"there")
        self.wait_for_copy("synced")

    def test_row_R12(self) -> None:
        """A topic that the master gets by a reload is taken over when the checksum changes."""
        with open(self.master.server_ini, "a", encoding="utf-8") as file:
            file.write("[topic=reloaded]\nunflushThreshold=1\n")
        topics = self.master.topics
        self.master.topics = {**topics, "reloaded": {"numPartitions": 1}}
        self.addCleanup(setattr, self.master, "topics", topics)
        peers.driver().call("reload", port=self.master.jmx_port)
        self.master.wait_for_registration()
        self.put("reloaded", 0, b"new")
        self.wait_for_copy("reloaded")
        self.assertIn("[topic=reloaded]\nnumPartitions=1\n", self.own_file())

    def own_file(self) -> str:
        """The slave's ``server.ini``."""
        with open(self.slave.server_ini, encoding="utf-8") as file:
            return file.read()

    def test_row_R16(self) -> None:
        """A topic that consumers may not read is not copied."""
        self.put("closed", 0, b"secret")
        self.put("shapes", 1, b"public")
        self.wait_for_copy("shapes")
        self.assertFalse(os.path.exists(f"{self.slave.data}/closed-0"))

    def test_row_R19(self) -> None:
        """The master deletes segments that the stopped slave needs: the slave moves its log aside
        and begins anew at the lowest offset."""
        self.fill("gap", 0, 20)
        self.wait_for_copy("gap")
        before = Log(self.slave.data, "gap", 0)
        self.slave.kill()
        self.fill("gap", 0, 40)
        self.master.stop()
        self.delete_oldest("gap", 0, keep_from=before.end + 1)
        self.master.start()
        self.put("gap", 0, b"after the gap")
        self.slave.start()
        self.wait_for_copy("gap")
        theirs = Log(self.master.data, "gap", 0)
        self.assertEqual(theirs.first, Log(self.slave.data, "gap", 0).first)
        (aside,) = [each for each in os.listdir(f"{self.slave.data}.aside") if "gap-0" in each]
        with open(f"{self.slave.data}.aside/{aside}/{0:020d}.meta", "rb") as file:
            self.assertTrue(before.data.startswith(file.read(1000)))
        self.assertEqual(1, self.slave_says("Replication gap"))

    def test_row_R23(self) -> None:
        """A Java consumer moves to our slave when its master is killed, and back."""
        factory = self.factory(self.master)
        producing = self.producer(factory, "read")
        sent = samples("copied", 20)
        self.assertSent(send(peers.driver(), producing, "read", sent), 20)
        self.wait_for_copy("read")
        self.pair.kill_master()
        _, call = self.consume(factory, "read", name("group"))
        self.assertReceived(call, sent)
        self.master.start()
        more = samples("later", 20)
        for message in more:
            self.send_until_accepted(producing, "read", [message])
        self.assertReceived(call, [*sent, *more])
        self.wait_for_copy("read")


class InsideTests(CopyCase):
    """
    The journal lies among the partitions: a restarted master hides some of these until their first
    put (BUG-26).
    """

    inside = True

    def test_restarts(self) -> None:
        """The slave and its master are killed and started; a slave with a log waits for its own."""
        self.load(40)
        self.wait_for_copy("load")
        self.pair.restart_slave(partial(self.load, 40))
        self.wait_for_copy("load")
        self.pair.kill_master()
        self.master.start()
        self.load(40)
        self.wait_for_copy("load")

    def test_row_R56(self) -> None:
        """An empty slave is told 404, then ``301`` at the first put: no byte at a wrong offset."""
        numbers = range(LOADED + HIDDEN)
        for number in numbers:
            self.fill("load", number, 20)
        self.master.stop()
        for number in numbers:
            self.delete_oldest("load", number)
        self.slave.kill()
        for number in numbers:
            shutil.rmtree(f"{self.slave.data}/load-{number}", ignore_errors=True)
        self.master.start()
        hidden = [number for number in numbers if self.ends(number) is None]
        self.assertEqual(HIDDEN, len(hidden))
        self.slave.start()
        for number in set(numbers) - set(hidden):
            wait_until(partial(self.is_same, "load", number), f"load-{number} is copied")
        for number in hidden:
            self.assertFalse(os.path.exists(f"{self.slave.data}/load-{number}"))
        for number in numbers:
            self.put("load", number, b"the first")
        self.wait_for_copy("load")
        for number in numbers:
            theirs = Log(self.master.data, "load", number).first
            self.assertGreater(theirs, 0)
            self.assertEqual(theirs, Log(self.slave.data, "load", number).first)

    def ends(self, number: int) -> bytes | None:
        """The master's replies to ``offset``."""
        reply = self.ask(f"offset load g {number} 0 1\r\n".encode())
        return reply.body if reply.status == 200 else None
