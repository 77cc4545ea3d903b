"""
What the registration does when ZooKeeper or another broker is in its way (zookeeper.md 3.2, 4.3,
5.3).
"""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure

from metamorphosis.cluster.model import Broker, TopicRegistration
from metamorphosis.cluster.registration import (
    RECHECK_SECONDS,
    BrokerRegistration,
    RegistrationStatus,
)
from metamorphosis.errors import RegistryError, RegistryUnavailable
from metamorphosis.testing.registry import MemoryRegistry
from tests.unit.cluster.test_registration import BROKER, CHECKSUM, MASTER, URL, RegistrationCase

TEST = TopicRegistration("test", 1)
TOPIC = "/meta/brokers/topics/test/0-m"
PUB = "/meta/brokers/topics-pub/test/0-m"
COMPLETE = 5  # ephemeral nodes of a master with one topic
FOREIGN = b"meta://10.9.9.9:8123"


class FaultCase(RegistrationCase):
    """A registration that meets trouble."""

    def complaints(self, work: Callable[[], object]) -> list[str]:
        """Texts of the errors that are logged by ``work``."""
        with capturedLogs() as events:
            work()
        return [formatEvent(event) for event in events if event["log_level"] is LogLevel.error]

    def complete(self, registration: BrokerRegistration) -> None:
        """Assert that everything is registered in the present session."""
        self.assertEqual(len(self.ephemeral()), COMPLETE)
        self.assertIs(registration.status, RegistrationStatus.REGISTERED)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OutageTests(FaultCase):
    """ZooKeeper is absent, dies, comes back."""

    def test_connection_lost_while_it_stops(self) -> None:
        """The line names the cause, and nothing of how the nodes are deleted, several at a time."""
        registration = self.start(TEST)
        delete = self.registry.delete

        def lose(path: str) -> Deferred[None]:
            if path == TOPIC:
                self.registry.suspend()
            return delete(path)

        with mock.patch.object(self.registry, "delete", lose), capturedLogs() as events:
            self.successResultOf(registration.stop())
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["not everything was unregistered (not connected); it goes with the session"],
        )

    def test_absent_at_start(self) -> None:
        """start returns at once; everything is registered when ZooKeeper comes."""
        registration = self.make()
        registration.start([TEST])
        self.assertIs(registration.status, RegistrationStatus.WAITING)
        self.assertEqual(self.registry.calls, [])
        self.registry.start()
        self.complete(registration)

    def test_dies_and_returns_with_the_session(self) -> None:
        """The nodes survived: they are looked at, and nothing is written."""
        registration = self.start(TEST)
        self.registry.suspend()
        self.assertIs(registration.status, RegistrationStatus.WAITING)
        before = len(self.registry.calls)
        self.registry.resume()
        self.assertEqual({operation for operation, _ in self.registry.calls[before:]}, {"get"})
        self.complete(registration)

    def test_returns_with_the_session_and_without_nodes(self) -> None:
        """
        A server restored from a backup knows the session and not all nodes: they are made again.
        """
        registration = self.start(TEST)
        self.registry.suspend()
        self.tree.delete(TOPIC)
        self.tree.set_data(CHECKSUM, b"old")
        self.tree.set_data(PUB, b"old")
        self.tree.set_data("/meta/brokers/ids/0", b"old")
        self.registry.resume()
        self.complete(registration)
        self.assertEqual(self.ephemeral()["topics/test/0-m"], b"1")
        self.assertEqual(self.data(PUB), b'{"numParts":1,"broker":"0-m"}')
        self.assertEqual(self.data(CHECKSUM), b"1")
        self.assertEqual(self.data("/meta/brokers/ids/0"), URL)

    def test_dies_during_a_pass(self) -> None:
        """What was under way has an unknown outcome and is done again."""
        registration = self.make()
        registration.start([TEST])
        self.registry.hold()
        self.registry.start()
        self.registry.suspend()
        self.assertIs(registration.status, RegistrationStatus.WAITING)
        self.registry.resume()
        self.complete(registration)

    def test_lost_answer(self) -> None:
        """The create happened but its answer was lost: the node is found to be ours and kept."""
        lost = []

        def lose(operation: str, path: str) -> Exception | None:
            if (operation, path) == ("create", PUB) and not lost:
                lost.append(path)
                data = b'{"numParts":1,"broker":"0-m"}'
                self.tree.create(PUB, data, self.registry.session_id())
                return RegistryUnavailable("no answer in time")
            return None

        self.registry.faults = lose
        registration = self.start(TEST)
        self.assertIs(registration.status, RegistrationStatus.RETRYING)
        self.clock.advance(0.1)
        self.assertNotIn(("delete", PUB), self.registry.calls)
        self.complete(registration)

    def test_expiry_registers_everything_again(self) -> None:
        """
        Checklist 7: broker, parent, checksum and topics, the lazy ones too, in the new session.
        """
        registration = self.start(TEST)
        registration.register_topic(TopicRegistration("lazy", 1))
        self.tree.set_data("/meta/brokers/ids/0", b"")
        first = self.registry.session_id()
        self.registry.expire()
        self.assertNotEqual(self.registry.session_id(), first)
        self.assertEqual(len(self.ephemeral()), COMPLETE + 3)
        self.assertEqual(self.data("/meta/brokers/ids/0"), URL)
        self.assertIs(registration.status, RegistrationStatus.REGISTERED)

    def test_expiry_during_a_pass(self) -> None:
        """What the old session created does not count for the new one."""
        registration = self.make()
        registration.start([TEST])
        created = []

        def interrupt(operation: str, path: str) -> None:
            if (operation, path) == ("create", PUB) and not created:
                created.append(path)
                self.registry.expire()

        self.registry.faults = interrupt
        self.registry.start()
        self.complete(registration)

    def test_returns_empty(self) -> None:
        """A new session over an empty tree: directories, parent and nodes are all made again."""
        registration = self.start(TEST)
        before = {path: node.data for path, node in self.tree.nodes.items()}
        self.registry.suspend()
        for path in sorted(self.tree.nodes, reverse=True)[:-1]:
            self.tree.delete(path)
        self.registry.expire()
        after = {path: node.data for path, node in self.tree.nodes.items()}
        self.assertEqual(after, before)
        self.complete(registration)

    def test_long_outage_arms_no_timer(self) -> None:
        """While there is no connection nothing is tried; the registry will tell."""
        self.start(TEST)
        self.registry.suspend()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class FaultTests(FaultCase):
    """ZooKeeper is there and refuses."""

    def test_failing_creates_are_retried_with_back_off(self) -> None:
        """
        Every create fails for a while: tries get rarer, the error is told once, then all is there.
        """
        self.registry.faults = lambda operation, path: (
            RegistryError("disk full") if operation == "create" else None
        )
        told = self.complaints(lambda: self.start(TEST))
        self.assertEqual(len(told), 1)
        self.assertIn("disk full", told[0])
        tries = self.registry.calls.count(("create", MASTER))
        more = self.complaints(lambda: self.clock.pump([0.1] * 600))
        self.assertEqual(more, [])
        tries = self.registry.calls.count(("create", MASTER)) - tries
        self.assertTrue(12 <= tries <= 20, tries)
        self.registry.faults = lambda operation, path: None
        self.clock.advance(5)
        self.assertEqual(len(self.ephemeral()), COMPLETE)

    def test_one_failing_topic_does_not_keep_the_others(self) -> None:
        """A topic ZooKeeper refuses is retried, the others are registered."""
        self.registry.faults = lambda operation, path: (
            RegistryError("bad path") if "/evil/" in path else None
        )
        registration = self.start(TopicRegistration("evil", 1), TEST)
        self.assertIs(registration.status, RegistrationStatus.RETRYING)
        self.assertEqual(len(self.ephemeral()), COMPLETE)

    def test_missing_parent_is_created_with_the_url(self) -> None:
        """The legacy node vanishes between two steps: it is created persistent."""

        def vanish(operation: str, path: str) -> Exception | None:
            gone = operation == "set_data" and path == "/meta/brokers/ids/0"
            if gone and path in self.tree.nodes:
                self.tree.delete(MASTER)
                self.tree.delete(path)
            return None

        self.registry.faults = vanish
        self.start()
        self.assertEqual(self.data("/meta/brokers/ids/0"), URL)
        self.assertEqual(self.tree.nodes["/meta/brokers/ids/0"].owner, 0)

    def test_node_that_comes_and_goes(self) -> None:
        """A node that always exists at create and never at get ends in a retry, not in a loop."""

        def tease(operation: str, path: str) -> None:
            if path == CHECKSUM and operation == "create":
                self.tree.nodes.setdefault(path, type(self.tree.nodes["/"])(b"", 0x77))
            elif path == CHECKSUM and operation == "get":
                self.tree.nodes.pop(path, None)

        self.registry.faults = tease
        self.assertIs(self.start().status, RegistrationStatus.RETRYING)

    def test_bug_is_logged_and_retried(self) -> None:
        """An exception that is not a registry error is logged with its traceback, and tried
        again."""
        # type: ignore
        self.registry.set_data = lambda path, data: Failure(KeyError("x")).value.missing
        registration = self.start(TEST)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertIs(registration.status, RegistrationStatus.RETRYING)
        del self.registry.set_data
        self.clock.advance(0.1)
        self.complete(registration)


class QuickRestartTests(FaultCase):
    """The process died and is back before its old session expired."""

    def setUp(self) -> None:
        """A broker registered everything and crashed."""
        super().setUp()
        self.start(TEST, TopicRegistration("only-old", 1))
        self.old = self.registry.crash()
        self.registry = MemoryRegistry(self.tree)

    def test_takes_over_at_once(self) -> None:
        """Broker, checksum and topics become the new session's without any waiting or complaint."""
        started: list[BrokerRegistration] = []
        told = self.complaints(lambda: started.append(self.start(TEST)))
        self.assertEqual(told, [])
        self.complete(started[0])

    def test_end_of_the_old_session_removes_nothing_of_ours(self) -> None:
        """When the old session expires at last, only what was not taken over goes."""
        registration = self.start(TEST)
        self.tree.end_session(self.old)
        self.complete(registration)
        self.assertNotIn("/meta/brokers/topics/only-old/0-m", self.tree.nodes)

    def test_lazy_topic_is_taken_over(self) -> None:
        """
        The first put of a topic after the restart: the original answers 500 to it, we take its
        nodes over.
        """
        registration = self.start()
        registration.register_topic(TopicRegistration("only-old", 2))
        self.assertEqual(self.ephemeral()["topics/only-old/0-m"], b"2")
        self.assertIs(registration.status, RegistrationStatus.REGISTERED)

    def test_changed_flag_removes_the_old_node(self) -> None:
        """acceptPublish was turned off for the restart: the old session's node goes as well."""
        self.start(TopicRegistration("test", 1, accept_publish=False))
        self.assertNotIn(PUB, self.tree.nodes)

    def test_second_crash_half_way(self) -> None:
        """Two dead sessions: the unknown one's topic nodes are waited for, not deleted."""
        self.start()
        middle = self.registry.crash()
        self.registry = MemoryRegistry(self.tree)
        registration = self.start(TEST)
        self.assertEqual(self.tree.nodes[MASTER].owner, self.registry.session_id())
        self.assertIs(registration.status, RegistrationStatus.BLOCKED)
        self.assertEqual(self.tree.nodes[TOPIC].owner, self.old)
        self.tree.end_session(middle)
        self.tree.end_session(self.old)
        self.complete(registration)

    def test_own_expired_session_of_this_process(self) -> None:
        """Nodes of a session this process had before are its own, whatever the master node says."""
        registration = self.start(TEST)
        stale = self.registry.session_id()
        self.registry.lose()
        self.tree.create(TOPIC, b"1", stale)
        self.registry.resume()
        self.complete(registration)


class ForeignBrokerTests(FaultCase):
    """Another broker uses our id."""

    def setUp(self) -> None:
        """Broker 0 at another address is registered, with a topic."""
        super().setUp()
        self.other = MemoryRegistry(self.tree)
        self.other_registration = self.make(Broker(0, "10.9.9.9", 8123), self.other)
        self.other_registration.start([TEST])
        self.other.start()
        self.before = {path: (node.data, node.owner) for path, node in self.tree.nodes.items()}

    def unchanged(self) -> None:
        """Assert that the other broker's nodes are as they were."""
        now = {path: (node.data, node.owner) for path, node in self.tree.nodes.items()}
        self.assertEqual(now, self.before)

    def test_its_nodes_are_left_alone(self) -> None:
        """Nothing of it is deleted or changed, nothing of ours is written, not even lazily."""
        registration = self.start(TEST)
        registration.register_topic(TopicRegistration("lazy", 1))
        registration.set_checksum(3)
        self.clock.pump([1.0] * 60)
        self.unchanged()
        self.assertIs(registration.status, RegistrationStatus.BLOCKED)

    def test_both_urls_are_told_once(self) -> None:
        """One error line with both URLs and what to do."""
        told = self.complaints(lambda: self.start(TEST))
        self.assertEqual(len(told), 1)
        self.assertIn(FOREIGN.decode(), told[0])
        self.assertIn(URL.decode(), told[0])
        self.assertIn("another brokerId", told[0])
        self.assertEqual(self.complaints(lambda: self.clock.pump([1.0] * 60)), [])

    def test_registers_when_it_is_gone(self) -> None:
        """The watch fires when the other stops; everything of ours is there at once."""
        registration = self.start(TEST)
        self.successResultOf(self.other_registration.stop())
        self.complete(registration)
        self.assertEqual(self.data(MASTER), URL)

    def test_registers_when_its_session_expires(self) -> None:
        """The other crashed: its session ends all at once."""
        registration = self.start(TEST)
        self.tree.end_session(self.other.crash())
        self.complete(registration)

    def test_lost_watch_is_made_up_for(self) -> None:
        """The node went without the watch firing: the periodic look finds out."""
        registration = self.start(TEST)
        self.tree.watches.clear()
        self.tree.end_session(self.other.crash())
        self.assertIs(registration.status, RegistrationStatus.BLOCKED)
        self.clock.advance(RECHECK_SECONDS)
        self.complete(registration)

    def test_one_foreign_broker_after_the_other(self) -> None:
        """A third broker is quicker than we are: its node is watched like the first one's."""
        registration = self.start(TEST)
        self.registry.hold()
        self.tree.end_session(self.other.crash())
        self.tree.create(MASTER, FOREIGN, 0x77)
        self.registry.release()
        self.assertIs(registration.status, RegistrationStatus.BLOCKED)
        self.tree.end_session(0x77)
        self.complete(registration)

    def test_gone_before_the_watch(self) -> None:
        """The node vanishes after we found it and before we watch it."""
        session = self.other.crash()
        self.registry.faults = lambda operation, path: (
            self.tree.end_session(session) if operation == "exists" else None
        )
        self.complete(self.start(TEST))

    def test_watches_do_not_pile_up(self) -> None:
        """An hour of waiting leaves one watch."""
        self.start(TEST)
        self.clock.pump([RECHECK_SECONDS] * 720)
        self.assertEqual(len(self.tree.watches[MASTER, False]), 1)

    def test_watch_is_set_again_after_a_reconnect(self) -> None:
        """Watches die with the connection and are renewed with it."""
        registration = self.start(TEST)
        self.registry.suspend()
        self.registry.resume()
        self.tree.end_session(self.other.crash())
        self.complete(registration)

    def test_stop_while_waiting(self) -> None:
        """A broker that never got its id deletes nothing, the legacy node neither."""
        registration = self.start(TEST)
        self.successResultOf(registration.stop())
        self.unchanged()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_same_host_other_port_is_another_broker(self) -> None:
        """Host, port and id all count."""
        self.tree.set_data(MASTER, b"meta://10.1.1.1:8124")
        self.assertIs(self.start(TEST).status, RegistrationStatus.BLOCKED)

    def test_persistent_master_node_of_another(self) -> None:
        """The node was made by hand: it is logged and not touched."""
        self.tree.end_session(self.other.crash())
        self.tree.create(MASTER, FOREIGN, 0)
        told = self.complaints(lambda: self.start(TEST))
        self.assertIn("made by hand", told[0])
        self.assertEqual(self.data(MASTER), FOREIGN)

    def test_takes_the_id_while_we_were_away(self) -> None:
        """Our session expired, the other registered first: we wait, and come back when it goes."""
        self.tree.end_session(self.other.crash())
        registration = self.start(TEST)
        self.registry.lose()
        third = MemoryRegistry(self.tree)
        self.make(Broker(0, "10.9.9.9", 8123), third).start([])
        third.start()
        self.registry.resume()
        self.assertIs(registration.status, RegistrationStatus.BLOCKED)
        self.assertEqual(self.ephemeral(), {})
        self.successResultOf(third.stop())
        self.complete(registration)

    def test_stop_after_the_id_was_taken(self) -> None:
        """Our session expired and another broker has the id: our stop leaves its parent node."""
        self.tree.end_session(self.other.crash())
        registration = self.start(TEST)
        self.registry.lose()
        third = MemoryRegistry(self.tree)
        self.make(Broker(0, "10.9.9.9", 8123), third).start([])
        third.start()
        self.registry.resume()
        self.successResultOf(registration.stop())
        self.assertEqual(self.data("/meta/brokers/ids/0"), FOREIGN)
        self.assertEqual(self.data(MASTER), FOREIGN)


class ForeignTopicTests(FaultCase):
    """A topic node of our name that a broker without master node made."""

    def setUp(self) -> None:
        """A Java broker whose registration failed still registers topics."""
        super().setUp()
        self.tree.create(TOPIC, b"9", 0x77)

    def test_other_nodes_are_registered(self) -> None:
        """Only the occupied node is waited for."""
        registration = self.start(TEST)
        self.assertEqual(self.data(TOPIC), b"9")
        self.assertIs(registration.status, RegistrationStatus.BLOCKED)
        self.assertEqual(len(self.ephemeral()), COMPLETE - 1)
        self.tree.end_session(0x77)
        self.complete(registration)

    def test_refused_flag_does_not_delete_it(self) -> None:
        """acceptPublish=false deletes our node only, not the other's."""
        self.tree.create(PUB, b"{}", 0x77)
        self.start(TopicRegistration("test", 1, accept_publish=False))
        self.assertIn(PUB, self.tree.nodes)

    def test_many_are_told_in_one_line(self) -> None:
        """Three occupied nodes, one complaint with their number."""
        self.tree.create(PUB, b"{}", 0x77)
        told = self.complaints(lambda: self.start(TEST))
        self.assertEqual(len(told), 1)
        self.assertIn("nodes: 2", told[0])


class BrokerOfOurUrlTests(FaultCase):
    """The data of the broker node, not its owner alone, say whose it is."""

    def test_persistent_master_node_with_our_url(self) -> None:
        """A node of ours that lost its session (a restored dump) becomes ephemeral."""
        self.tree.create(MASTER, URL, 0)
        registration = self.start(TEST)
        self.complete(registration)
        self.assertEqual(self.tree.nodes[MASTER].owner, self.registry.session_id())

    def test_master_of_slave_is_not_its_broker_node(self) -> None:
        """A slave on its master's host takes nothing of the master's session over."""
        self.tree.create(MASTER, URL, 0x77)
        self.tree.create("/meta/brokers/topics/test/0-s1", b"1", 0x77)
        slave = self.make(Broker(BROKER.broker_id, BROKER.host, BROKER.port, slave_id=1))
        slave.start([TEST])
        self.registry.start()
        self.assertIs(slave.status, RegistrationStatus.BLOCKED)
        self.assertEqual(self.tree.nodes[MASTER].owner, 0x77)
