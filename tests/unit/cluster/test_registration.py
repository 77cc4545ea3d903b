"""What stands in ZooKeeper while a broker runs, reloads and stops (zookeeper.md 3, 4, 19)."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cluster.model import Broker, TopicRegistration
from metamorphosis.cluster.paths import Paths
from metamorphosis.cluster.registration import BrokerRegistration, RegistrationStatus
from metamorphosis.errors import RegistryError
from metamorphosis.testing.registry import MemoryRegistry, MemoryTree

URL = b"meta://10.1.1.1:8123"
MASTER = "/meta/brokers/ids/0/master"
CHECKSUM = "/meta/brokers/ids/0/master_config_checksum"
BROKER = Broker(0, "10.1.1.1", 8123)


class RegistrationCase(SynchronousTestCase):
    """One broker, one tree, one clock."""

    def setUp(self) -> None:
        """A reachable ZooKeeper with nothing in it."""
        self.clock = Clock()
        self.tree = MemoryTree()
        self.registry = MemoryRegistry(self.tree)

    def make(
        self,
        broker: Broker = BROKER,
        registry: MemoryRegistry | None = None,
        enabled: bool = True,
    ) -> BrokerRegistration:
        """A registration that is not started."""
        return BrokerRegistration(
            registry or self.registry, self.clock, Paths(), broker, checksum=1, enabled=enabled
        )

    def start(self, *topics: TopicRegistration) -> BrokerRegistration:
        """A registration that is started, and its registry after it."""
        registration = self.make()
        registration.start(topics)
        self.registry.start()
        return registration

    def data(self, path: str) -> bytes | None:
        """The data of a node that must be there."""
        return self.tree.nodes[path].data

    def ephemeral(self) -> dict[str, bytes | None]:
        """Path below /meta/brokers and data of every ephemeral node of the current session."""
        owner = self.registry.session_id()
        return {
            path.removeprefix("/meta/brokers/"): node.data
            for path, node in self.tree.nodes.items()
            if node.owner == owner
        }


class StartTests(RegistrationCase):
    """Registration into an empty tree."""

    def test_all_three_generations_of_nodes(self) -> None:
        """Checklist 2: master, parent data, checksum, topics, topics-pub and topics-sub."""
        registration = self.start(TopicRegistration("test", 4))
        described = b'{"numParts":4,"broker":"0-m"}'
        self.assertEqual(
            self.ephemeral(),
            {
                "ids/0/master": URL,
                "ids/0/master_config_checksum": b"1",
                "topics/test/0-m": b"4",
                "topics-pub/test/0-m": described,
                "topics-sub/test/0-m": described,
            },
        )
        self.assertEqual(self.data("/meta/brokers/ids/0"), URL)
        self.assertIs(registration.status, RegistrationStatus.REGISTERED)

    def test_broker_node_comes_first(self) -> None:
        """The master node is created first, then parent, checksum and topics sorted by name."""
        self.start(TopicRegistration("b", 1), TopicRegistration("a", 1))
        created = [path for operation, path in self.registry.calls if operation == "create"]
        self.assertEqual(created[:2], [MASTER, CHECKSUM])
        topics = [path for path in created if path.startswith("/meta/brokers/topics/")]
        self.assertEqual(topics, ["/meta/brokers/topics/a/0-m", "/meta/brokers/topics/b/0-m"])

    def test_directories_have_null_data_and_are_persistent(self) -> None:
        """Directories are made on demand, without data."""
        self.start(TopicRegistration("test", 1))
        for path in ("/meta", "/meta/brokers/topics-sub", "/meta/brokers/topics-sub/test"):
            self.assertEqual((self.data(path), self.tree.nodes[path].owner), (None, 0))

    def test_one_session_owns_all(self) -> None:
        """Checklist 3: no ephemeral node belongs to another session."""
        self.start(TopicRegistration("test", 1))
        owners = {node.owner for node in self.tree.nodes.values()}
        self.assertEqual(owners, {0, self.registry.session_id()})

    def test_children_of_ids_are_numeric(self) -> None:
        """Checklist 9: nothing but broker ids below brokers/ids."""
        self.start(TopicRegistration("test", 1))
        self.assertEqual(self.tree.child_names("/meta/brokers/ids"), ["0"])

    def test_pattern_topic_is_registered_literally(self) -> None:
        """A section [topic=*] or [topic=dyn*] becomes a topic of that name."""
        self.start(TopicRegistration("*", 1), TopicRegistration("dyn*", 1))
        self.assertEqual(
            self.data("/meta/brokers/topics-pub/*/0-m"), b'{"numParts":1,"broker":"0-m"}'
        )
        self.assertIn("/meta/brokers/topics/dyn*/0-m", self.tree.nodes)

    def test_accept_publish_false(self) -> None:
        """No node for producers, the other two are there."""
        self.start(TopicRegistration("test", 1, accept_publish=False))
        self.assertNotIn("topics-pub/test/0-m", self.ephemeral())
        self.assertIn("topics-sub/test/0-m", self.ephemeral())
        self.assertIn("topics/test/0-m", self.ephemeral())

    def test_accept_subscribe_false(self) -> None:
        """No node for consumers, the other two are there."""
        self.start(TopicRegistration("test", 1, accept_subscribe=False))
        self.assertIn("topics-pub/test/0-m", self.ephemeral())
        self.assertNotIn("topics-sub/test/0-m", self.ephemeral())
        self.assertIn("topics/test/0-m", self.ephemeral())

    def test_start_after_connected(self) -> None:
        """A registry that was connected before is used at once."""
        self.registry.start()
        registration = self.make()
        registration.start([])
        self.assertIs(registration.status, RegistrationStatus.REGISTERED)

    def test_stale_parent_data_are_overwritten(self) -> None:
        """The legacy node keeps the URL of a master that crashed until the next one registers."""
        self.tree.create("/meta/brokers/ids/0", b"meta://old:1", 0)
        self.start()
        self.assertEqual(self.data("/meta/brokers/ids/0"), URL)

    def test_slave(self) -> None:
        """Checklist 8: slave<n> and -s<n>, no checksum, no legacy parent data."""
        registration = self.make(Broker(0, "10.1.1.2", 8123, slave_id=3))
        registration.start([TopicRegistration("test", 1)])
        self.registry.start()
        described = b'{"numParts":1,"broker":"0-s3"}'
        self.assertEqual(
            self.ephemeral(),
            {
                "ids/0/slave3": b"meta://10.1.1.2:8123",
                "topics/test/0-s3": b"1",
                "topics-pub/test/0-s3": described,
                "topics-sub/test/0-s3": described,
            },
        )
        self.assertIsNone(self.data("/meta/brokers/ids/0"))

    def test_zk_enable_false(self) -> None:
        """Checklist 10: nothing is read or written, not at start, put, reload nor stop."""
        registration = self.make(enabled=False)
        self.registry.start()
        registration.start([TopicRegistration("test", 1)])
        registration.register_topic(TopicRegistration("lazy", 1))
        registration.update_topics([TopicRegistration("test", 2)])
        registration.set_checksum(2)
        self.assertIs(registration.status, RegistrationStatus.DISABLED)
        self.successResultOf(registration.stop())
        self.assertEqual(self.registry.calls, [])

    def test_thousand_topics(self) -> None:
        """Many topics register in one go and do not pile up on the stack."""
        topics = [TopicRegistration(f"t{n}", 1) for n in range(1000)]
        registration = self.start(*topics)
        self.assertIs(registration.status, RegistrationStatus.REGISTERED)
        self.assertEqual(len(self.ephemeral()), 3002)
        self.successResultOf(registration.stop())
        self.assertEqual(self.ephemeral(), {})


class LazyTopicTests(RegistrationCase):
    """Topics that appear with their first message."""

    def test_first_message_registers(self) -> None:
        """Checklist 5: the topic's nodes appear, once."""
        registration = self.start()
        registration.register_topic(TopicRegistration("lazy", 2))
        self.assertEqual(self.ephemeral()["topics/lazy/0-m"], b"2")
        before = len(self.registry.calls)
        registration.register_topic(TopicRegistration("lazy", 2))
        self.assertEqual(len(self.registry.calls), before)

    def test_first_message_before_zookeeper(self) -> None:
        """A topic that came while ZooKeeper was absent is registered when it comes."""
        registration = self.make()
        registration.start([])
        registration.register_topic(TopicRegistration("lazy", 2))
        self.registry.start()
        self.assertIn("topics/lazy/0-m", self.ephemeral())

    def test_first_message_before_start(self) -> None:
        """A topic that came before the registration was started is not forgotten."""
        registration = self.make()
        registration.register_topic(TopicRegistration("lazy", 2))
        registration.start([])
        self.registry.start()
        self.assertIn("topics/lazy/0-m", self.ephemeral())

    def test_first_message_during_a_pass(self) -> None:
        """A topic that comes while others register follows right after."""
        registration = self.make()
        registration.start([TopicRegistration("test", 1)])
        self.registry.hold()
        self.registry.start()
        registration.register_topic(TopicRegistration("lazy", 2))
        self.assertIs(registration.status, RegistrationStatus.REGISTERING)
        self.registry.release()
        self.assertIn("topics/lazy/0-m", self.ephemeral())
        self.assertIs(registration.status, RegistrationStatus.REGISTERED)

    def test_known_topics_cost_nothing(self) -> None:
        """A lazy topic touches its own nodes only, however many topics there are."""
        registration = self.start(*(TopicRegistration(f"t{n}", 1) for n in range(50)))
        before = len(self.registry.calls)
        registration.register_topic(TopicRegistration("lazy", 2))
        self.assertEqual(
            [path for _, path in self.registry.calls[before:]],
            [f"/meta/brokers/topics{kind}/lazy/0-m" for kind in ("", "-pub", "-sub")],
        )

    def test_failed_creation_is_tried_again(self) -> None:
        """The original takes a topic for registered when its creation failed; we try again."""
        registration = self.start()
        self.registry.suspend()
        registration.register_topic(TopicRegistration("lazy", 2))
        self.assertIs(registration.status, RegistrationStatus.WAITING)
        self.registry.resume()
        self.assertIn("topics/lazy/0-m", self.ephemeral())


class ReloadTests(RegistrationCase):
    """A configuration that changes while the broker runs."""

    def changes(self, registration: BrokerRegistration, topic: TopicRegistration) -> list[str]:
        """The writes that an update of one topic causes, as 'operation path'."""
        before = len(self.registry.calls)
        registration.update_topics([topic])
        return [
            f"{operation} {path.removeprefix('/meta/brokers/')}"
            for operation, path in self.registry.calls[before:]
            if operation in ("create", "delete", "set_data")
        ]

    def test_partition_count_is_delete_and_create(self) -> None:
        """Checklist 6: clients watch children only, so nothing is overwritten."""
        registration = self.start(TopicRegistration("test", 1))
        changes = self.changes(registration, TopicRegistration("test", 2))
        self.assertEqual([c for c in changes if c.startswith("set_data")], [])
        for directory in ("topics", "topics-pub", "topics-sub"):
            node = f"{directory}/test/0-m"
            self.assertIn(f"delete {node}", changes)
            self.assertEqual(self.tree.nodes[f"/meta/brokers/{node}"].version, 0)
        self.assertEqual(self.ephemeral()["topics/test/0-m"], b"2")
        self.assertEqual(self.ephemeral()["topics-sub/test/0-m"], b'{"numParts":2,"broker":"0-m"}')

    def test_flag_deletes_and_creates_its_node_only(self) -> None:
        """Checklist 6: acceptPublish goes off and on again, nothing else moves."""
        registration = self.start(TopicRegistration("test", 1))
        off = self.changes(registration, TopicRegistration("test", 1, accept_publish=False))
        self.assertEqual(off, ["delete topics-pub/test/0-m"])
        on = self.changes(registration, TopicRegistration("test", 1))
        self.assertEqual(on, ["create topics-pub/test/0-m"])
        off = self.changes(registration, TopicRegistration("test", 1, accept_subscribe=False))
        self.assertEqual(off, ["delete topics-sub/test/0-m"])

    def test_unchanged_topic_is_left_alone(self) -> None:
        """A reload that changes nothing writes nothing."""
        registration = self.start(TopicRegistration("test", 1))
        self.assertEqual(self.changes(registration, TopicRegistration("test", 1)), [])

    def test_new_topic_is_registered(self) -> None:
        """A section that was added."""
        registration = self.start(TopicRegistration("test", 1))
        self.changes(registration, TopicRegistration("new", 3))
        self.assertEqual(self.ephemeral()["topics/new/0-m"], b"3")

    def test_removed_topic_stays_until_stop(self) -> None:
        """A section that is gone: its nodes stay, and go at stop."""
        registration = self.start(TopicRegistration("test", 1), TopicRegistration("old", 1))
        registration.update_topics([TopicRegistration("test", 1)])
        self.assertIn("topics/old/0-m", self.ephemeral())
        self.successResultOf(registration.stop())
        self.assertNotIn("/meta/brokers/topics/old/0-m", self.tree.nodes)

    def test_change_during_a_pass(self) -> None:
        """A reload while the topic's nodes are being made: the newer configuration wins."""
        registration = self.make()
        registration.start([])
        self.registry.start()
        self.registry.hold()
        registration.register_topic(TopicRegistration("test", 1))
        registration.update_topics([TopicRegistration("test", 2)])
        self.registry.release()
        self.assertEqual(self.ephemeral()["topics/test/0-m"], b"2")
        self.assertIs(registration.status, RegistrationStatus.REGISTERED)

    def test_change_while_suspended(self) -> None:
        """A reload during an outage takes effect when the session is back."""
        registration = self.start(TopicRegistration("test", 1))
        self.registry.suspend()
        registration.update_topics([TopicRegistration("test", 2)])
        registration.set_checksum(77)
        self.registry.resume()
        self.assertEqual(self.ephemeral()["topics/test/0-m"], b"2")
        self.assertEqual(self.data(CHECKSUM), b"77")

    def test_checksum_is_set_in_place(self) -> None:
        """Checklist 6: slaves watch the data of the checksum node."""
        registration = self.start()
        registration.set_checksum(4294967295)
        self.assertEqual(self.data(CHECKSUM), b"4294967295")
        self.assertEqual(self.tree.nodes[CHECKSUM].version, 1)

    def test_missing_checksum_is_created(self) -> None:
        """The node was deleted by hand: the next change creates it."""
        registration = self.start()
        self.tree.delete(CHECKSUM)
        registration.set_checksum(5)
        self.assertEqual(self.data(CHECKSUM), b"5")


class StopTests(RegistrationCase):
    """Orderly unregistration (3.3, 4.4)."""

    def test_everything_of_ours_goes_and_directories_stay(self) -> None:
        """Broker node, checksum, parent and topic nodes are deleted, topic directories stay."""
        registration = self.start(TopicRegistration("test", 1))
        self.successResultOf(registration.stop())
        self.assertEqual(self.ephemeral(), {})
        self.assertNotIn("/meta/brokers/ids/0", self.tree.nodes)
        self.assertIn("/meta/brokers/topics-sub/test", self.tree.nodes)
        self.assertIs(registration.status, RegistrationStatus.STOPPED)

    def test_order(self) -> None:
        """The master node first, the topics last."""
        registration = self.start(TopicRegistration("test", 1))
        before = len(self.registry.calls)
        self.successResultOf(registration.stop())
        deleted = [
            path.removeprefix("/meta/brokers/")
            for operation, path in self.registry.calls[before:]
            if operation == "delete"
        ]
        self.assertEqual(deleted[:3], ["ids/0/master", "ids/0/master_config_checksum", "ids/0"])
        self.assertEqual(len(deleted), 6)

    def test_parent_becomes_empty_while_a_slave_is_there(self) -> None:
        """The parent cannot be deleted: its data say that the master left in order."""
        registration = self.start()
        self.tree.create("/meta/brokers/ids/0/slave0", b"meta://10.1.1.2:8123", 0x77)
        self.successResultOf(registration.stop())
        self.assertEqual(self.data("/meta/brokers/ids/0"), b"")
        self.assertEqual(self.tree.child_names("/meta/brokers/ids/0"), ["slave0"])

    def test_slave_leaves_the_parent(self) -> None:
        """A slave deletes its own node and touches nothing of the master."""
        self.tree.create(MASTER, URL, 0x77)
        registration = self.make(Broker(0, "10.1.1.2", 8123, slave_id=3))
        registration.start([])
        self.registry.start()
        self.successResultOf(registration.stop())
        self.assertEqual(self.tree.child_names("/meta/brokers/ids/0"), ["master"])

    def test_nodes_that_are_gone_or_anothers(self) -> None:
        """Missing nodes are ignored, and nodes of another session stay."""
        registration = self.start(TopicRegistration("test", 1))
        self.tree.delete(CHECKSUM)
        self.tree.delete("/meta/brokers/topics/test/0-m")
        self.tree.create("/meta/brokers/topics/test/0-m", b"9", 0x77)
        self.successResultOf(registration.stop())
        self.assertEqual(self.data("/meta/brokers/topics/test/0-m"), b"9")
        self.assertNotIn(MASTER, self.tree.nodes)

    def test_parent_of_anothers_url_stays(self) -> None:
        """Our nodes were deleted and another broker registered: its legacy data stay."""
        registration = self.start()
        for path in (MASTER, CHECKSUM):
            self.tree.delete(path)
        self.tree.create(MASTER, b"meta://other:1", 0x77)
        self.tree.set_data("/meta/brokers/ids/0", b"meta://other:1")
        self.successResultOf(registration.stop())
        self.assertEqual(self.data("/meta/brokers/ids/0"), b"meta://other:1")

    def test_stop_while_suspended(self) -> None:
        """Without a connection there is nothing to wait for."""
        registration = self.start()
        self.registry.suspend()
        self.successResultOf(registration.stop())
        self.assertIs(registration.status, RegistrationStatus.STOPPED)

    def test_stop_before_zookeeper_came(self) -> None:
        """A broker that never registered stops at once and does not register afterwards."""
        registration = self.make()
        registration.start([])
        self.successResultOf(registration.stop())
        self.registry.start()
        self.assertEqual(self.ephemeral(), {})

    def test_stop_without_start(self) -> None:
        """A registration that never started has nothing to undo."""
        registration = self.make()
        self.successResultOf(registration.stop())
        self.assertEqual(self.registry.calls, [])

    def test_stop_is_bounded_when_zookeeper_hangs(self) -> None:
        """No answer: three seconds, then the end of the session has to do it."""
        registration = self.start()
        self.registry.hold()
        stopping = registration.stop()
        self.clock.advance(2.9)
        self.assertNoResult(stopping)
        self.clock.advance(0.2)
        self.successResultOf(stopping)
        self.registry.release()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_during_a_pass(self) -> None:
        """The pass ends at its next step, then what it created is deleted."""
        registration = self.make()
        registration.start([TopicRegistration("test", 1)])
        self.registry.hold()
        self.registry.start()
        stopping = registration.stop()
        self.assertNoResult(stopping)
        self.registry.release()
        self.successResultOf(stopping)
        self.assertEqual(self.ephemeral(), {})
        self.assertNotIn(("create", "/meta/brokers/topics/test/0-m"), self.registry.calls)

    def test_refused_deletion_does_not_keep_the_rest(self) -> None:
        """One node cannot be deleted: it is told, and the others go."""
        registration = self.start(TopicRegistration("test", 1))
        self.registry.faults = lambda operation, path: (
            RegistryError("no") if (operation, path) == ("delete", CHECKSUM) else None
        )
        self.successResultOf(registration.stop())
        self.assertEqual(list(self.ephemeral()), ["ids/0/master_config_checksum"])

    def test_second_stop(self) -> None:
        """Stopping twice does nothing more."""
        registration = self.start()
        self.successResultOf(registration.stop())
        before = len(self.registry.calls)
        self.successResultOf(registration.stop())
        self.assertEqual(len(self.registry.calls), before)

    def test_no_registration_after_stop(self) -> None:
        """Messages and session news that arrive late change nothing."""
        registration = self.start()
        self.successResultOf(registration.stop())
        registration.register_topic(TopicRegistration("late", 1))
        registration.set_checksum(9)
        self.registry.expire()
        self.assertEqual(self.ephemeral(), {})


class LogTests(RegistrationCase):
    """Log lines, and callers that wait for a registration."""

    def test_registered_is_said(self) -> None:
        """One line when all nodes exist, another for each new topic, none without a change."""
        with capturedLogs() as events:
            registration = self.start(TopicRegistration("a", 1))
            registration.update_topics([TopicRegistration("a", 1)])
            registration.set_checksum(1)
            registration.register_topic(TopicRegistration("b", 1))
            registration.register_topic(TopicRegistration("b", 1))
        lines = [event for event in events if "registered in ZooKeeper" in event["log_format"]]
        self.assertEqual([event["topics"] for event in lines], [1, 2])
        self.assertEqual(lines[0]["url"], URL.decode())

    def test_register_topic_tells_its_end(self) -> None:
        """At once if ZooKeeper is there, later if it returns; never for a known topic."""
        registration = self.start(TopicRegistration("a", 1))
        self.assertIsNone(registration.register_topic(TopicRegistration("a", 1)))
        done = registration.register_topic(TopicRegistration("b", 1))
        assert done is not None
        self.successResultOf(done)
        self.registry.suspend()
        done = registration.register_topic(TopicRegistration("c", 1))
        assert done is not None
        self.assertNoResult(done)
        self.registry.resume()
        self.successResultOf(done)

    def test_disabled(self) -> None:
        """Without ZooKeeper no caller waits."""
        registration = self.make(enabled=False)
        registration.start([])
        self.assertIsNone(registration.register_topic(TopicRegistration("b", 1)))

    def test_garbage_is_cut(self) -> None:
        """The data of another's node are logged up to a limit."""
        other = MemoryRegistry(self.tree)
        other.start()
        for path in ("/meta", "/meta/brokers", "/meta/brokers/ids", "/meta/brokers/ids/0"):
            other.create(path, b"", False)
        other.create(MASTER, b"x" * 900_000, True)
        with capturedLogs() as events:
            self.start(TopicRegistration("a", 1))
        faults = [str(event["fault"]) for event in events if "fault" in event]
        self.assertEqual(len(faults), 1)
        self.assertIn("(900000 long)", faults[0])
        self.assertLess(len(faults[0]), 500)
