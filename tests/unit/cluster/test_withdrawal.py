"""A broker that leaves ZooKeeper and comes back while it continues serving."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from metamorphosis.cluster.model import Broker, TopicRegistration
from metamorphosis.cluster.registration import (
    FIRST_RETRY_SECONDS,
    BrokerRegistration,
    RegistrationStatus,
)
from metamorphosis.errors import RegistryError, RegistryUnavailable
from metamorphosis.testing.registry import MemoryRegistry
from tests.unit.cluster.test_registration import MASTER, URL, RegistrationCase

TEST = TopicRegistration("test", 1)
OTHER = TopicRegistration("other", 2)
TOPIC = "/meta/brokers/topics/test/0-m"
PARENT = "/meta/brokers/ids/0"
COMPLETE = 5  # ephemeral nodes of a master with one topic


class WithdrawalTests(RegistrationCase):
    """``withdraw`` and ``resume``."""

    def withdraw(self, registration: BrokerRegistration) -> list[None]:
        """Ask for it; the list has an element as soon as it is done."""
        done: list[None] = []
        registration.withdraw().addCallback(done.append)
        return done

    def assert_withdrawn(self, registration: BrokerRegistration) -> None:
        """No node of the broker is left, and nothing is planned."""
        self.assertIs(registration.status, RegistrationStatus.WITHDRAWN)
        self.assertEqual({}, self.ephemeral())
        self.assertEqual([], self.clock.getDelayedCalls())

    def assert_registered(self, registration: BrokerRegistration, nodes: int = COMPLETE) -> None:
        """Every node is there."""
        self.assertIs(registration.status, RegistrationStatus.REGISTERED)
        self.assertEqual(nodes, len(self.ephemeral()))
        self.assertEqual(URL, self.data(PARENT))

    def test_there_and_back(self) -> None:
        """
        Every node goes, the legacy one too, the session stays; then all is as before. One line each
        is logged.
        """
        registration = self.start(TEST)
        before, session = self.ephemeral(), self.registry.session_id()
        with capturedLogs() as events:
            done = self.withdraw(registration)
            self.assertEqual([None], done)
            self.assert_withdrawn(registration)
            self.assertNotIn(PARENT, self.tree.nodes)
            registration.resume()
        self.assert_registered(registration)
        self.assertEqual((before, session), (self.ephemeral(), self.registry.session_id()))
        texts = [formatEvent(event) for event in events]
        self.assertEqual(2, len(texts), texts)
        self.assertTrue(texts[0].startswith("withdrawn from ZooKeeper: broker 0 at meta://"))
        self.assertTrue(texts[1].startswith("registered in ZooKeeper: broker 0 at meta://"))

    def test_start_withdrawn(self) -> None:
        """
        Nothing is registered before ``resume``; nodes of our last run go, though its session lives
        on, and those of another broker stay. No line says that something was withdrawn before.
        """
        last = MemoryRegistry(self.tree)
        self.make(registry=last).start([TEST])
        last.start()
        self.assertIn(MASTER, self.tree.nodes)
        registration = self.make()
        registration.start([TEST, OTHER], withdrawn=True)
        self.registry.start()
        self.assert_withdrawn(registration)
        self.assertFalse({MASTER, TOPIC, PARENT} & self.tree.nodes.keys())
        registration.resume()
        self.assert_registered(registration, nodes=8)

    def test_start_withdrawn_beside_another_broker(self) -> None:
        """Its nodes stay, and nothing is logged where nothing was withdrawn."""
        other = MemoryRegistry(self.tree)
        self.make(Broker(0, "10.9.9.9", 8123), other).start([TEST])
        other.start()
        before = dict(self.tree.nodes)
        with capturedLogs() as events:
            registration = self.make()
            registration.start([TEST], withdrawn=True)
            self.registry.start()
        self.assert_withdrawn(registration)
        self.assertEqual((before, []), (self.tree.nodes, [formatEvent(each) for each in events]))

    def test_broker_goes_first(self) -> None:
        """Clients lose the broker before its topics, as at an orderly stop."""
        registration = self.start(TEST)
        self.registry.calls.clear()
        self.withdraw(registration)
        deleted = [path for operation, path in self.registry.calls if operation == "delete"]
        self.assertEqual(MASTER, deleted[0])
        self.assertEqual(COMPLETE + 1, len(deleted))

    def test_slave_below_the_parent(self) -> None:
        """The legacy node stays above a slave, with empty data."""
        registration = self.start(TEST)
        slaves = MemoryRegistry(self.tree)
        slave = self.make(Broker(0, "10.1.1.2", 8123, slave_id=0), slaves)
        slave.start([])
        slaves.start()
        self.assertEqual([None], self.withdraw(registration))
        self.assertEqual(b"", self.data(PARENT))
        registration.resume()
        self.assert_registered(registration)

    def test_topics_of_meanwhile(self) -> None:
        """A first put, a reload and a checksum wait for ``resume``; the put is not held up."""
        registration = self.start(TEST)
        self.withdraw(registration)
        self.assertIsNone(registration.register_topic(OTHER))
        registration.set_checksum(7)
        self.assert_withdrawn(registration)
        registration.resume()
        self.assert_registered(registration, COMPLETE + 3)
        self.assertEqual(b"7", self.ephemeral()["ids/0/master_config_checksum"])

    def test_first_put_is_told(self) -> None:
        """A put that waits for its topic's registration does not wait for ``resume``."""
        registration = self.start(TEST)
        self.registry.hold()
        waiting = registration.register_topic(OTHER)
        assert waiting is not None
        self.assertNoResult(waiting)
        self.withdraw(registration)
        self.successResultOf(waiting)
        self.registry.release()
        self.assert_withdrawn(registration)

    def test_twice(self) -> None:
        """Each caller is told; the second withdrawal finds nothing, and logs nothing."""
        registration = self.start(TEST)
        self.registry.hold()
        first, second = self.withdraw(registration), self.withdraw(registration)
        self.assertEqual(([], []), (first, second))
        self.registry.release()
        self.assertEqual(([None], [None]), (first, second))
        with capturedLogs() as events:
            self.assertEqual([None], self.withdraw(registration))
        self.assertEqual([], events)
        self.assert_withdrawn(registration)

    def test_in_the_midst_of_registering(self) -> None:
        """What is being created is deleted, and nothing more is created."""
        registration = self.make()
        self.registry.hold()
        registration.start([TEST, OTHER])
        self.registry.start()
        done = self.withdraw(registration)
        self.registry.release()
        self.assertEqual([None], done)
        self.assert_withdrawn(registration)
        self.assertNotIn(TOPIC, [path for operation, path in self.registry.calls])

    def test_resumed_in_the_midst(self) -> None:
        """``resume`` ends a withdrawal that is under way, and everything is there again."""
        registration = self.start(TEST)
        self.registry.hold()
        done = self.withdraw(registration)
        registration.resume()
        self.assertEqual([None], done)
        self.registry.release()
        self.assert_registered(registration)

    def test_some_cannot_be_deleted(self) -> None:
        """It is tried again; ``resume`` before that makes the deleted ones again."""
        registration = self.start(TEST)
        fault = RegistryError("no")
        self.registry.faults = lambda operation, path: (
            fault if (operation, path) == ("delete", TOPIC) else None
        )
        done = self.withdraw(registration)
        self.assertEqual(["topics/test/0-m"], list(self.ephemeral()))
        self.assertIs(registration.status, RegistrationStatus.RETRYING)
        registration.resume()
        self.assertEqual([None], done)
        self.assert_registered(registration)
        done = self.withdraw(registration)
        self.assertEqual([], done)
        self.registry.faults = lambda operation, path: None
        self.clock.advance(FIRST_RETRY_SECONDS)
        self.assertEqual([None], done)
        self.assert_withdrawn(registration)

    def test_away_and_back_with_the_session(self) -> None:
        """The nodes live on without a connection, and go as soon as there is one."""
        registration = self.start(TEST)
        self.registry.suspend()
        done = self.withdraw(registration)
        self.assertEqual(([], COMPLETE), (done, len(self.ephemeral())))
        self.registry.resume()
        self.assertEqual([None], done)
        self.assert_withdrawn(registration)

    def test_away_and_back_without_the_session(self) -> None:
        """A new session holds nothing, and gets nothing."""
        registration = self.start(TEST)
        self.registry.suspend()
        done = self.withdraw(registration)
        self.registry.expire()
        self.assertEqual([None], done)
        self.assert_withdrawn(registration)
        self.registry.expire()
        self.assert_withdrawn(registration)
        registration.resume()
        self.assert_registered(registration)

    def test_create_with_a_lost_answer(self) -> None:
        """A node that was made without our knowledge goes, too."""
        registration = self.make()

        def lost(operation: str, path: str) -> Exception | None:
            if (operation, path) != ("create", TOPIC):
                return None
            self.tree.create(path, b"1", self.registry.session_id())
            return RegistryUnavailable("connection lost")

        self.registry.faults = lost
        registration.start([TEST])
        self.registry.start()
        self.registry.faults = lambda operation, path: None
        self.assertIn(TOPIC, self.tree.nodes)
        self.assertEqual([None], self.withdraw(registration))
        self.assertNotIn(TOPIC, self.tree.nodes)
        self.assert_withdrawn(registration)

    def test_node_of_another_broker(self) -> None:
        """One that has taken our place meanwhile keeps its node."""
        registration = self.start(TEST)
        self.tree.delete(TOPIC)
        self.tree.create(TOPIC, b"1", 0)
        self.assertEqual([None], self.withdraw(registration))
        self.assertIn(TOPIC, self.tree.nodes)
        self.assert_withdrawn(registration)

    def test_stop(self) -> None:
        """A stop ends it, and there is nothing left to do."""
        registration = self.start(TEST)
        self.registry.suspend()
        done = self.withdraw(registration)
        stopped: Deferred[None] = registration.stop()
        self.successResultOf(stopped)
        self.assertEqual([None], done)
        self.assertIs(registration.status, RegistrationStatus.STOPPED)
        registration.resume()
        self.assertIs(registration.status, RegistrationStatus.STOPPED)
        self.assertEqual([None], self.withdraw(registration))

    def test_never_started(self) -> None:
        """Without ZooKeeper, or before the start, there is nothing to leave."""
        registration = self.make(enabled=False)
        registration.start([TEST])
        self.assertEqual([None], self.withdraw(registration))
        registration.resume()
        self.assertIs(registration.status, RegistrationStatus.DISABLED)
