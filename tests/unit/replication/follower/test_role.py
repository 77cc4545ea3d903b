"""The asynchronous slave as a whole: ZooKeeper, topics, reloads, what it answers, how it ends."""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.replication.follower import ownlog
from metamorphosis.replication.status import RoleFigures, parse_status
from tests.support.follower import CHECKSUM, MASTER, FollowerBroker
from tests.support.following import records
from tests.support.partitions import M1, M2, M3

PUT = b"put test 0 5 0 907060870 1\r\nhello"


class FollowerCase(SynchronousTestCase):
    """A slave that was started."""

    def follow(self, **options: object) -> FollowerBroker:
        """Another slave."""
        slave = FollowerBroker(os.path.abspath(self.mktemp()), **options)  # type: ignore[arg-type]
        slave.start()
        return slave

    def content(self, slave: FollowerBroker, topic: str = "test", number: int = 0) -> bytes:
        """Of the slave's log."""
        store = slave.broker.stores.get(topic, number)
        return b"" if store is None else store.bytes_at(store.min_offset, 1 << 30)

    def status(self, slave: FollowerBroker) -> RoleFigures:
        """What ``stats replication`` says."""
        lines = slave.broker.client().send(b"stats replication 1\r\n").decode().split("\r\n")
        figures = parse_status(lines)
        assert figures is not None
        return figures


class NodesTests(FollowerCase):
    """ZooKeeper."""

    def test_nodes_of_a_slave(self) -> None:
        """Those of the original to the byte, no owners, no offsets; R18 for the group's name."""
        slave = self.follow(slave_id=3, group="meta-slave-group_3")
        slave.register(test=2)
        slave.serve(3)
        nodes = slave.nodes()
        member = next(path for path in nodes if path.startswith("/meta/consumers"))
        self.assertTrue(
            member.startswith("/meta/consumers/meta-slave-group_3/ids/meta-slave-group_3_"), member
        )
        self.assertEqual(b"test", nodes.pop(member))
        self.assertEqual(
            {
                "/meta/brokers/ids/0/slave3": b"meta://slave:8124",
                "/meta/brokers/topics/test/0-s3": b"2",
                "/meta/brokers/topics-pub/test/0-s3": b'{"numParts":2,"broker":"0-s3"}',
                "/meta/brokers/topics-sub/test/0-s3": b'{"numParts":2,"broker":"0-s3"}',
            },
            nodes,
        )
        group = [path for path in slave.tree.nodes if path.startswith("/meta/consumers/meta-slave")]
        self.assertEqual(3, len(group))  # the group, ids, the member

    def test_row_R26(self) -> None:
        """An orderly stop leaves no node."""
        slave = self.follow()
        slave.register(test=2)
        slave.master.log("test", 0, M1)
        slave.serve(3)
        self.assertTrue(slave.nodes())
        slave.stop()
        slave.presence.registration.stop()
        slave.serve(1)
        self.assertEqual({}, slave.nodes())
        self.assertEqual([], slave.master.links())
        slave.master.asked.clear()
        slave.serve(60)
        self.assertEqual([], slave.master.asked)

    def test_row_R25(self) -> None:
        """An expired session: all nodes are made again, and nothing is copied twice."""
        slave = self.follow()
        slave.register(test=1)
        log = slave.master.log("test", 0, records(10))
        slave.serve(3)
        before = slave.nodes()
        slave.registry.expire()
        slave.serve(10)
        self.assertEqual(before, slave.nodes())
        log.data += M3
        slave.serve(5)
        self.assertEqual(log.data, self.content(slave))

    def test_two_topics(self) -> None:
        """The member's node names those that are read, and follows them."""
        slave = self.follow(topics={"b": {}, "a": {}})
        slave.register(b=1)
        slave.serve(3)
        slave.register(a=1)
        slave.serve(3)
        members = [data for path, data in slave.nodes().items() if "consumers" in path]
        self.assertEqual([b"a,b"], members)


class MasterTests(FollowerCase):
    """Finding and following it."""

    def test_row_R11_R58(self) -> None:
        """The slave is first; the master's topics come long after its node."""
        slave = self.follow()
        slave.master.log("test", 0, M1)
        slave.serve(60)
        slave.register()
        slave.serve(60)
        self.assertEqual(b"", self.content(slave))
        slave.register(test=1)
        slave.serve(4)
        self.assertEqual(M1, self.content(slave))

    def test_zookeeper_comes_late(self) -> None:
        """No session for a while, then one, with everything there."""
        slave = FollowerBroker(os.path.abspath(self.mktemp()))
        slave.registry.suspend()
        slave.start()
        slave.register(test=1)
        slave.master.log("test", 0, M1)
        slave.serve(30)
        slave.registry.resume()
        slave.serve(5)
        self.assertEqual(M1, self.content(slave))

    def test_row_R10(self) -> None:
        """The master dies and comes back: copying continues within seconds."""
        slave = self.follow()
        slave.register(test=1)
        log = slave.master.log("test", 0, records(10))
        slave.serve(3)
        for _ in range(3):
            slave.master_dies()
            slave.serve(10)
            log.data += M2
            slave.register(test=1)
            slave.serve(5)
            self.assertEqual(log.data, self.content(slave))

    def test_without_a_master_it_serves(self) -> None:
        """It stays registered, answers, and says that the status is not well."""
        slave = self.follow()
        slave.register(test=1)
        slave.master.log("test", 0, M1)
        slave.serve(3)
        self.assertTrue(self.status(slave).is_well)
        slave.master_dies()
        slave.serve(10)
        self.assertIn(M1, slave.broker.client().send(b"get test g 0 0 1000 1\r\n"))
        self.assertIn("/meta/brokers/ids/0/slave0", slave.nodes())
        figures = self.status(slave)
        self.assertFalse(figures.is_well)
        self.assertEqual("waiting", figures.state)
        self.assertGreater(figures.partitions[0].seconds, 5)

    def test_withdrawn_master_that_still_serves(self) -> None:
        """A pair master that has left ZooKeeper is copied on over the connection that is there."""
        slave = self.follow()
        slave.register(test=1)
        log = slave.master.log("test", 0, M1)
        slave.serve(3)
        slave.master_leaves()
        slave.serve(3)
        log.data += M2
        slave.serve(1)
        self.assertEqual(M1 + M2, self.content(slave))

    def test_master_under_another_address(self) -> None:
        """The old connection ends, and the logs are compared with the new one's."""
        slave = self.follow()
        slave.register(test=1)
        slave.master.log("test", 0, M1)
        slave.serve(3)
        old = slave.master
        slave.master_dies()
        slave.master = type(old)(slave.runtime, "other:1")
        slave.master.log("test", 0, M1 + M2)
        slave.register("other:1", test=1)
        slave.serve(3)
        self.assertEqual(M1 + M2, self.content(slave))
        self.assertEqual([], old.links())
        self.assertEqual("meta://other:1", self.status(slave).other)

    def test_garbage_in_zookeeper(self) -> None:
        """Nodes that are not a URL and no JSON are named once, and what is right is used."""
        slave = self.follow(topics={"test": {}, "bad": {}, "huge": {}, "less": {}})
        slave.create("/meta/brokers/topics-sub/bad/0-m", b"what")
        slave.create("/meta/brokers/topics-sub/huge/0-m", b'{"numParts":999999999}')
        slave.create("/meta/brokers/topics-sub/less/0-m", b'{"numParts":-1}')
        slave.create(MASTER, b"http://nowhere")
        with capturedLogs() as events:
            slave.serve(20)
        texts = [each for each in slave.runtime.log.texts("error") if "nodes in ZooKeeper" in each]
        self.assertEqual(3, len(texts), (texts, events))
        slave.others.delete(MASTER)
        slave.register(test=1)
        slave.master.log("test", 0, M1)
        slave.serve(4)
        self.assertEqual(M1, self.content(slave))

    def test_other_brokers_are_not_followed(self) -> None:
        """A topic that only another broker or a slave has is none of ours."""
        slave = self.follow()
        slave.register()
        slave.create("/meta/brokers/topics-sub/test/1-m", b'{"numParts":4,"broker":"1-m"}')
        slave.create("/meta/brokers/topics-sub/test/0-s1", b'{"numParts":4,"broker":"0-s1"}')
        slave.serve(5)
        self.assertEqual((), self.status(slave).partitions)


class TopicsTests(FollowerCase):
    """Topics and partitions that come and go."""

    def test_row_R16(self) -> None:
        """``acceptSubscribe=false``: no node below ``topics-sub``, so it is not copied;
        ``acceptPublish=false`` is."""
        slave = self.follow(topics={"unread": {}, "unwritten": {}})
        slave.register(unwritten=1)
        slave.create("/meta/brokers/topics-pub/unread/0-m", b'{"numParts":1,"broker":"0-m"}')
        slave.create("/meta/brokers/topics/unread/0-m", b"1")
        slave.master.log("unread", 0, M1)
        slave.master.log("unwritten", 0, M2)
        slave.serve(5)
        self.assertEqual(
            (b"", M2), (self.content(slave, "unread"), self.content(slave, "unwritten"))
        )

    def test_row_R22(self) -> None:
        """More partitions on the master are copied without a restart."""
        slave = self.follow(topics={"test": {"num_partitions": 4}})
        slave.register(test=1)
        slave.serve(3)
        slave.register(test=4)
        for number in range(4):
            slave.master.log("test", number, records(number + 1))
        slave.serve(5)
        for number in range(4):
            self.assertEqual(records(number + 1), self.content(slave, number=number))

    def test_row_R12(self) -> None:
        """A topic that our configuration lacks is named, and copied when a reload brings it."""
        slave = self.follow(topics={"test": {"num_partitions": 1}})
        slave.register(test=2, new=1)
        slave.master.log("test", 0, M1)
        slave.master.log("test", 1, M2)
        slave.master.log("new", 0, M3)
        slave.serve(5)
        self.assertEqual(M1, self.content(slave))
        figures = self.status(slave)
        stands = {each.name: each.stands for each in figures.partitions if each.stands}
        self.assertEqual(
            {
                "new-0": "there is no section [topic=new] in server.ini",
                "test-1": "[topic=test] numPartitions is 1",
            },
            stands,
        )
        self.assertFalse(figures.is_well)
        told = [each for each in slave.runtime.log.texts("error") if "are not copied" in each]
        self.assertEqual(1, len(told))
        slave.set_topics(test=2, new=1)
        slave.serve(5)
        self.assertEqual((M2, M3), (self.content(slave, number=1), self.content(slave, "new")))
        self.assertTrue(self.status(slave).is_well)

    def test_topic_that_leaves(self) -> None:
        """It is not asked for any more while its master is there; its messages stay."""
        slave = self.follow()
        slave.register(test=1)
        slave.master.log("test", 0, M1)
        slave.serve(3)
        slave.others.delete("/meta/brokers/topics-sub/test/0-m")
        slave.serve(10)
        slave.master.asked.clear()
        slave.serve(20)
        self.assertEqual([], [each for each in slave.master.asked if each.startswith("get")])
        self.assertEqual(M1, self.content(slave))

    def test_topic_that_leaves_while_its_directory_is_moved(self) -> None:
        """It comes back meanwhile: no new log is made before the old one is out of the way."""
        held: list[tuple[Callable[[], str], Deferred[str]]] = []

        def hold(threads: IWorkerThreads, work: Callable[[], str]) -> Deferred[str]:
            held.append((work, Deferred()))
            return held[-1][1]

        self.patch(ownlog, "_in_worker", hold)
        slave = self.follow()
        slave.register(test=1)
        log = slave.master.log("test", 0, records(100))
        slave.serve(3)
        log.first, log.data = 100_000, records(20)
        slave.master.lose()
        slave.serve(5)
        slave.others.delete("/meta/brokers/topics-sub/test/0-m")
        slave.serve(5)
        slave.register(test=1)
        slave.serve(5)
        self.assertEqual((1, b""), (len(held), self.content(slave)))
        work, moved = held.pop()
        moved.callback(work())
        slave.serve(5)
        self.assertEqual(records(20), self.content(slave))
        self.assertEqual([], held)

    def test_row_R17(self) -> None:
        """Two slaves of one group are both complete."""
        slaves = [self.follow(slave_id=number, group="g") for number in (0, 1)]
        for slave in slaves:
            slave.register(test=1)
            slave.master.log("test", 0, records(100))
            slave.serve(3)
            self.assertEqual(records(100), self.content(slave))

    def test_topic_of_a_pattern(self) -> None:
        """A section with a star takes it, and it is registered when its first record is here."""
        slave = self.follow(topics={"t*": {"num_partitions": 1}})
        slave.register(tx=1)
        slave.master.log("tx", 0, M1)
        slave.serve(5)
        self.assertEqual(M1, self.content(slave, "tx"))
        self.assertIn("/meta/brokers/topics-sub/tx/0-s0", slave.nodes())


class ServingTests(FollowerCase):
    """What it answers."""

    def setUp(self) -> None:
        self.slave = self.follow()
        self.slave.register(test=1)
        self.log = self.slave.master.log("test", 0, M1 + M2)
        self.slave.serve(3)
        self.client = self.slave.broker.client()

    def test_row_R24(self) -> None:
        """A put is refused, also in a transaction, and the log stays."""
        text = b"The broker is a slave,put is not allowed"
        self.assertEqual(b"result 403 40 1\r\n" + text, self.client.send(PUT))
        in_transaction = b"put test 0 5 0 907060870 TX:a:1 2\r\nhello"
        self.assertEqual(b"result 403 40 2\r\n" + text, self.client.send(in_transaction))
        self.assertEqual(M1 + M2, self.content(self.slave))

    def test_transactions(self) -> None:
        """Steps are unsupported, END is silent."""
        reply = self.client.send(b"transaction TX:a:1 s BEGIN 3\r\n")
        self.assertEqual(b"result 500 28 3\r\nUnsupported beginTransaction", reply)
        self.assertEqual(b"", self.client.send(b"transaction TX:a:1 s END 4\r\n"))

    def test_row_R45(self) -> None:
        """``sync`` is the pair slave's."""
        reply = self.client.send(b"sync test 0 5 0 1 907060870 3\r\nhello")
        self.assertTrue(reply.startswith(b"result 503 "), reply)

    def test_reading(self) -> None:
        """``get``, ``offset``, ``version`` as of any broker."""
        self.assertEqual(
            b"value 50 1\r\n" + M1 + M2, self.client.send(b"get test g 0 0 1000 1\r\n")
        )
        self.assertEqual(b"result 200 1 2\r\n0", self.client.send(b"offset test g 0 0 2\r\n"))
        self.assertIn(b"1.4.6.2", self.client.send(b"version 3\r\n"))

    def test_statistics(self) -> None:
        """It is a slave, and copied messages are puts of the broker but not of the topic."""
        text = self.client.send(b"stats  1\r\n")
        self.assertIn(b"\r\nslave true\r\n", text)
        self.assertIn(b"\r\ncmd_put 2\r\n", text)
        self.assertIn(b"\r\ntotal_messages 2\r\n", text)

    def test_diverged_partition_answers_404(self) -> None:
        """To ``get``, also of a client that has read it before, and to ``offset``."""
        self.client.send(b"get test g 0 0 1000 1\r\n")
        self.log.data = M1
        self.slave.master.lose()
        self.slave.serve(10)
        for request in (b"get test g 0 0 1000 1\r\n", b"offset test g 0 0 1\r\n"):
            reply = self.client.send(request)
            self.assertTrue(reply.startswith(b"result 404 "), reply)
        figures = self.status(self.slave)
        self.assertEqual("diverged", figures.partitions[0].state)
        self.assertIn("longer by 25 bytes", figures.partitions[0].stands)
        self.assertFalse(figures.is_well)
        self.log.data = M1 + M2
        self.slave.master.lose()
        self.slave.serve(10)
        self.assertIn(M2, self.client.send(b"get test g 0 0 1000 1\r\n"))

    def test_status_of_the_original(self) -> None:
        """The eight lines of its JMX bean come first."""
        reply = self.client.send(b"stats replication 7\r\n").decode()
        self.assertEqual(
            [
                "STATS",
                "Subscriber handler:running",
                "Replicate partitions:1",
                "Replicate topic partitions detail:",
                "    test:1",
                "Replicate requests:1",
                "Replicate runner:running",
                "Replicate status:yes",
            ],
            reply.split("\r\n")[1:9],
        )
        self.assertEqual(1, self.status(self.slave).requests)


class ConfigTests(FollowerCase):
    """``autoSyncMasterConfig``."""

    def sync(self, **options: object) -> FollowerBroker:
        """A slave with a file, whose master offers another topic."""
        self.path = os.path.abspath(self.mktemp())
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(
                "[system]\nbrokerId=0\nnumPartitions=1\nunflushThreshold=1000\nserverPort=8124\n"
                "unflushInterval=10000\nmaxSegmentSize=1073741824\nmaxTransferSize=1048576\n"
                "[zookeeper]\nzk.zkConnect=localhost:2181\n[topic=test]\n"
            )
        slave = self.follow(path=self.path, **options)
        slave.master.config = b"[system]\nnumPartitions=3\nserverPort=8123\n[topic=new]\n"
        slave.create(CHECKSUM, b"1")
        slave.register(test=1)
        return slave

    def own(self) -> str:
        """What is in the slave's file."""
        with open(self.path, encoding="utf-8") as file:
            return file.read()

    def test_taken_when_connected_and_when_it_changes(self) -> None:
        """The first time already, and only where something is different."""
        slave = self.sync(syncs_config=True)
        slave.serve(5)
        self.assertIn("[topic=new]\nnumPartitions=3\n", self.own())
        self.assertIn("serverPort=8124\n", self.own())
        self.assertEqual(1, slave.reloads)
        slave.others.set_data(CHECKSUM, b"2")
        slave.serve(5)
        self.assertEqual(1, slave.reloads)
        slave.master.config += b"[topic=newer]\nnumPartitions=2\n"
        slave.others.set_data(CHECKSUM, b"3")
        slave.serve(5)
        self.assertIn("[topic=newer]\nnumPartitions=2\n", self.own())
        self.assertEqual(2, slave.reloads)

    def test_not_asked_for(self) -> None:
        """The default."""
        slave = self.sync()
        slave.serve(5)
        self.assertNotIn("new", self.own())
        self.assertNotIn("stats config", slave.master.asked)

    def test_data_path_of_another_machine(self) -> None:
        """With it our broker would not start again: the file stays, and the reason is told."""
        slave = self.sync(syncs_config=True)
        slave.master.config = b"[topic=far]\ndataPath=/nowhere/at/all\n"
        before = self.own()
        slave.serve(5)
        self.assertEqual(before, self.own())
        self.assertIn("dataPath=/nowhere/at/all", self.status(slave).notes[0])
        slave.master.config = f"[topic=far]\ndataPath={self.path}.data\n".encode()
        slave.serve(5)
        self.assertIn("[topic=far]\n", self.own())

    def test_refused_and_tried_again(self) -> None:
        """A master that cannot read its file, and one whose topics we would not start with."""
        slave = self.sync(syncs_config=True)
        slave.master.refusals["stats"] = 500
        slave.serve(10)
        self.assertIn("server.ini: ", self.status(slave).notes[0])
        before = self.own()
        slave.master.config += b"[topic=bad]\nnumPartitions=many\n"
        del slave.master.refusals["stats"]
        slave.serve(10)
        self.assertEqual(before, self.own())
        self.assertIn("many", self.status(slave).notes[0])
        slave.master.config = slave.master.config.replace(b"many", b"2")
        slave.serve(5)
        self.assertIn("[topic=bad]\nnumPartitions=2\n", self.own())
        self.assertEqual((), self.status(slave).notes)
