"""
A member's view of its group and of the brokers (zookeeper.md 9.3), and the events that wake it.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.group.clusterview import BrokerUrls, ClusterReader, ClusterView
from metamorphosis.errors import NoNode, RegistryUnavailable
from metamorphosis.testing.registry import MemoryRegistry
from tests.support.group import PATHS, Group


class ReaderCase(SynchronousTestCase):
    """A reader, and a registry to play the others with."""

    def setUp(self) -> None:
        """The member ``g_me`` of group ``g`` is registered."""
        self.group = Group()
        self.registry = MemoryRegistry(self.group.tree)
        self.registry.start()
        self.others = MemoryRegistry(self.group.tree)
        self.others.start()
        self.woken = 0
        self.reader = ClusterReader(
            self.registry, PATHS, "g", "g_me", self.wake, self.group.runtime.log
        )
        self.member("g_me", b"test", self.registry)

    def wake(self) -> None:
        """Count the calls."""
        self.woken += 1

    def member(
        self, name: str, topics: bytes | None, registry: MemoryRegistry | None = None
    ) -> None:
        """A member's node."""
        path = f"{PATHS.consumer_ids('g')}/{name}"
        (registry or self.others).create(path, topics, True)

    def topic_node(self, name: str, data: bytes, topic: str = "test") -> None:
        """A broker's node below a topic."""
        self.others.create(f"{PATHS.topics_sub(topic)}/{name}", data, True)

    def view(self) -> ClusterView:
        """The present view."""
        found: ClusterView = self.group.runtime.run(self.reader.read())
        return found


class ListTests(ReaderCase):
    """The lists that decide, as every member must compute them."""

    def test_members_by_topic(self) -> None:
        """Only subscribers of a topic are in its list, in the order of Java's strings."""
        self.member("g_\uff41", b"test")
        self.member("g_\U0001f600", b"other,test")
        self.member("g_Z", b"other")
        view = self.view()
        self.assertEqual(["g_me", "g_\U0001f600", "g_\uff41"], view.consumers["test"])
        self.assertEqual(["g_Z", "g_\U0001f600"], view.consumers["other"])
        self.assertEqual(("test",), view.topics)
        self.assertTrue(view.registered)

    def test_blank_members(self) -> None:
        """A node without data, with empty data or blanks subscribes to nothing."""
        for number, data in enumerate((None, b"", b"  ", b",")):
            self.member(f"g_{number}", data)
        self.assertEqual({"test": ["g_me"]}, self.view().consumers)

    def test_partitions_sorted_as_texts(self) -> None:
        """``0-10`` stands before ``0-2``, and ``10-0`` before ``2-0``."""
        self.topic_node("0-m", b'{"numParts":12,"broker":"0-m"}')
        self.topic_node("10-m", b'{"numParts":1,"broker":"10-m"}')
        self.topic_node("2-m", b'{"numParts":1,"broker":"2-m"}')
        found = self.view().partitions["test"]
        self.assertEqual(["0-0", "0-1", "0-10", "0-11", "0-2"], found[:5])
        self.assertEqual(["10-0", "2-0"], found[-2:])

    def test_slaves_count(self) -> None:
        """A slave adds nothing to its master's partitions, unless it declares more."""
        self.topic_node("0-m", b'{"numParts":2,"broker":"0-m"}')
        self.topic_node("0-s0", b'{"broker":"0-s0","numParts":2}')
        self.assertEqual(["0-0", "0-1"], self.view().partitions["test"])
        self.topic_node("0-s1", b'{"numParts":"3"}')
        self.assertEqual(["0-0", "0-1", "0-2"], self.view().partitions["test"])

    def test_topic_without_a_broker(self) -> None:
        """It is logged at the beginning, not with each balance; it may be mistyped."""
        for _ in range(2):
            self.assertEqual({}, self.view().partitions)
        (text,) = self.group.runtime.log.texts("warn")
        self.assertIn(f"no broker has topic test, {PATHS.topics_sub('test')} in", text)
        self.topic_node("0-m", b'{"numParts":1,"broker":"0-m"}')
        self.assertEqual(["0-0"], self.view().partitions["test"])
        self.others.delete(f"{PATHS.topics_sub('test')}/0-m")
        self.assertEqual({}, self.view().partitions)
        self.assertEqual(2, len(self.group.runtime.log.texts("warn")))

    def test_only_a_slave(self) -> None:
        """The partitions stay when the master has left."""
        self.topic_node("0-s0", b'{"numParts":1,"broker":"0-s0"}')
        self.assertEqual(["0-0"], self.view().partitions["test"])

    def test_broken_nodes_are_skipped(self) -> None:
        """Invalid names and data are logged once and affect only themselves."""
        self.topic_node("0-m", b'{"numParts":1,"broker":"0-m"}')
        for name, data in (
            ("1-m", b"four"),
            ("2-m", b""),
            ("3", b'{"numParts":1}'),
            ("4-m-x", b'{"numParts":1}'),
            ("x-m", b'{"numParts":1}'),
            ("\u0663-m", b'{"numParts":1}'),
        ):
            self.topic_node(name, data)
        self.assertEqual(["0-0"], self.view().partitions["test"])
        self.view()
        errors = self.group.runtime.log.texts("error")
        self.assertEqual(6, len(errors))
        self.assertIn("/meta/brokers/topics-sub/test/1-m is skipped", " ".join(errors))

    def test_long_garbage_is_shown_by_its_beginning(self) -> None:
        """A node that holds thousands of wrong characters makes one line of the usual length."""
        long = "x" * 5000
        self.topic_node("0-m", b'{"numParts":1,"broker":"0-m"}')
        self.topic_node("1-m", b'{"numParts":"%b"}' % long.encode())
        self.topic_node(long, b'{"numParts":1}')
        for slave, url in enumerate(
            (f"meta://h:{long}", f"meta://h:1?slaveId={long}", f"meta://[{long}]:1", long)
        ):
            path = f"{PATHS.broker(0)}/slave{slave}"
            self.others.create(path, url.encode(), True)
        self.view()
        errors = self.group.runtime.log.texts("error")
        self.assertEqual(6, len(errors))
        for text in errors:
            self.assertLess(len(text), 300, text)
            self.assertIn("xxxxx", text)

    def test_odd_names_of_the_original(self) -> None:
        """Empty tokens are dropped, and what kind of broker it is does not matter."""
        self.topic_node("0--m", b'{"numParts":1}')
        self.topic_node("1-q", b'{"numParts":1}')
        self.assertEqual(["0-0", "1-0"], self.view().partitions["test"])

    def test_topic_without_partitions_has_no_list(self) -> None:
        """Neither a missing directory nor a count of 0 makes an empty list."""
        self.assertEqual((["g_me"], None), self.view().lists("test"))
        self.assertIn(PATHS.topics_sub("test"), self.group.tree.nodes)
        self.topic_node("0-m", b'{"numParts":0,"broker":"0-m"}')
        self.assertEqual((["g_me"], None), self.view().lists("test"))

    def test_not_registered(self) -> None:
        """Without the own node, or with one of another session, there is no membership."""
        self.registry.delete("/meta/consumers/g/ids/g_me")
        self.member("g_x", b"test")
        view = self.view()
        self.assertEqual((False, ()), (view.registered, view.topics))
        self.member("g_me", b"test", self.others)
        self.assertFalse(self.view().registered)


class BrokerTests(ReaderCase):
    """The brokers that partitions are read from."""

    def test_master_and_slaves(self) -> None:
        """Addresses of the brokers that have a partition of ours."""
        self.group.broker(0, test=1)
        self.group.broker(0, slave_id=1, test=1)
        self.group.broker(1, other=1)
        expected = BrokerUrls("meta://10.0.0.0:8123", ("meta://10.0.0.0:9001",))
        self.assertEqual({0: expected}, self.view().brokers)

    def test_address_with_query(self) -> None:
        """The query of an address is ignored."""
        self.topic_node("0-m", b'{"numParts":1}')
        self.others.create(PATHS.master(0), b"meta://[::1]:8123?slaveId=3", True)
        self.assertEqual("meta://[::1]:8123", self.view().brokers[0].master)

    def test_half_registered_broker(self) -> None:
        """A topic's node without the broker's own: there is no address, and the broker's node is
        watched."""
        self.topic_node("0-m", b'{"numParts":1}')
        self.assertEqual({0: BrokerUrls()}, self.view().brokers)
        self.others.create(PATHS.master(0), b"meta://h:1", True)
        self.assertEqual(1, self.woken)
        self.assertEqual("meta://h:1", self.view().brokers[0].master)

    def test_broken_addresses(self) -> None:
        """A blank or invalid address is ignored; odd children of a broker are not slaves."""
        self.topic_node("0-m", b'{"numParts":1}')
        self.others.create(PATHS.master(0), b"", True)
        self.others.create(PATHS.slave(0, 1), b"http://h:1", True)
        for name in ("slave", "slave-1", "slavex", "master_config_checksum"):
            self.others.create(f"{PATHS.broker(0)}/{name}", b"meta://h:1", True)
        self.assertEqual({0: BrokerUrls()}, self.view().brokers)
        self.assertIn("slave1 is skipped", self.group.runtime.log.texts("error")[0])

    def test_choice(self) -> None:
        """The master if there is one, else the slave in use, else any, else none."""
        self.assertEqual("m", BrokerUrls("m", ("a", "b")).choose("a"))
        self.assertEqual("b", BrokerUrls(None, ("a", "b")).choose("b"))
        seen = {BrokerUrls(None, ("a", "b")).choose("gone") for _ in range(100)}
        self.assertEqual({"a", "b"}, seen)
        self.assertIsNone(BrokerUrls().choose("a"))


class WatchTests(ReaderCase):
    """The events that wake a member."""

    def setUp(self) -> None:
        """One broker, seen."""
        super().setUp()
        self.broker = self.group.broker(0, test=1)
        self.view()
        self.woken = 0

    def test_member_joins_and_leaves(self) -> None:
        """The group's list of members is watched, again after every look."""
        self.member("g_x", b"test")
        self.assertEqual(1, self.woken)
        self.view()
        self.others.delete("/meta/consumers/g/ids/g_x")
        self.assertEqual(2, self.woken)

    def test_topic_changes(self) -> None:
        """A broker's node below a topic comes or goes."""
        self.topic_node("1-m", b'{"numParts":1}')
        self.assertEqual(1, self.woken)
        self.view()
        self.broker.stop()
        self.assertGreater(self.woken, 1)

    def test_broker_moves(self) -> None:
        """A new address alone is noticed."""
        self.broker.delete(PATHS.master(0))
        self.view()
        self.broker.create(PATHS.master(0), b"meta://elsewhere:1", True)
        self.assertEqual(2, self.woken)
        self.assertEqual("meta://elsewhere:1", self.view().brokers[0].master)

    def test_one_watch_for_many_looks(self) -> None:
        """A second look sets no second watch."""
        for _ in range(3):
            self.view()
        self.member("g_x", b"test")
        self.assertEqual(1, self.woken)

    def test_watches_of_a_lost_connection(self) -> None:
        """After ``forget_watches`` old ones have no effect and the next look sets new ones."""
        self.reader.forget_watches()
        self.member("g_x", b"test")
        self.assertEqual(0, self.woken)
        self.view()
        self.member("g_y", b"test")
        self.assertEqual(1, self.woken)

    def test_failed_look_leaves_no_watch(self) -> None:
        """A node whose request failed is watched with the next look."""
        self.reader.forget_watches()
        self.registry.faults = lambda operation, path: RegistryUnavailable("no")
        self.failureResultOf(self.group.runtime.start(self.reader.read()), RegistryUnavailable)
        self.registry.faults = lambda operation, path: None
        self.view()
        self.woken = 0
        self.member("g_x", b"test")
        self.assertEqual(1, self.woken)

    def test_node(self) -> None:
        """A single node is watched for whether it stays."""
        self.member("g_x", b"")
        path = "/meta/consumers/g/ids/g_x"
        self.view()
        self.woken = 0
        self.assertTrue(self.group.runtime.run(self.reader.watch_node(path)))
        self.others.delete(path)
        self.assertEqual(2, self.woken)
        self.assertFalse(self.group.runtime.run(self.reader.watch_node(path)))


class VanishingTests(ReaderCase):
    """Row 71: a listed node is gone when it is read."""

    def test_member_leaves_while_read(self) -> None:
        """The look is repeated, and the member is not in it."""
        self.member("g_x", b"test")
        asked: list[str] = []

        def vanish(operation: str, path: str) -> Exception | None:
            if operation == "get" and path.endswith("g_x") and not asked:
                asked.append(path)
                self.others.delete(path)
            return None

        self.registry.faults = vanish
        self.assertEqual(["g_me"], self.view().consumers["test"])
        self.assertEqual(1, len(asked))

    def test_never_stands_still(self) -> None:
        """After some looks it is an error, which is retried after a pause."""
        self.member("g_x", b"test")

        def vanish(operation: str, path: str) -> Exception | None:
            return NoNode(path) if operation == "get" and path.endswith("g_x") else None

        self.registry.faults = vanish
        self.failureResultOf(self.group.runtime.start(self.reader.read()), NoNode)

    def test_master_leaves_while_read(self) -> None:
        """A broker that goes just now has no address."""
        self.group.broker(0, test=1)

        def vanish(operation: str, path: str) -> Exception | None:
            return NoNode(path) if operation == "get" and path.endswith("master") else None

        self.registry.faults = vanish
        self.assertEqual({0: BrokerUrls()}, self.view().brokers)


class OwnerTests(ReaderCase):
    """The claims of members."""

    def test_sessions(self) -> None:
        """Partition -> the session of its claim; empty without claims."""
        read = self.reader.owners
        self.assertEqual({}, self.group.runtime.run(read("test")))
        self.registry.create(PATHS.owner("g", "test", "0-0"), b"g_me", True)
        self.others.create(PATHS.owner("g", "test", "0-1"), b"g_x", True)
        expected = {"0-0": self.registry.session_id(), "0-1": self.others.session_id()}
        self.assertEqual(expected, self.group.runtime.run(read("test")))
