"""``metamorphosis.client.topics.directory``: what producers know of topics."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from metamorphosis.client.model import ANY_PARTITION, Partition
from metamorphosis.client.topics.topicview import master_id
from metamorphosis.errors import (
    ClientClosed,
    InvalidArgument,
    InvalidState,
    NoPartition,
    NotConnected,
    NotPublished,
    RegistryError,
    RegistryUnavailable,
    UnknownTopic,
)
from tests.support.producing import PUB, ProducingCase


class DirectoryCase(ProducingCase):
    """The directory of the session, and one user."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = self.session.directory
        self.user = object()

    def publish(self, topic: str = "test", user: object | None = None) -> Any:
        """The future of a publication."""
        return self.runtime.start(self.directory.publish(topic, user or self.user))

    def published(self, topic: str = "test") -> list[str]:
        """Texts of the partitions known at present."""
        return [str(each) for each in self.directory.topics[topic].listed]

    def choice(self, topic: str = "test") -> list[str]:
        """Texts of those that a selector chooses from."""
        return [str(each) for each in self.directory.topics[topic].partitions]

    def absence(self, topic: str = "test") -> NoPartition:
        """Reasons why a topic has no partitions."""
        return self.assertRaises(NoPartition, self.directory.topic_for, topic)

    def urls(self, topic: str = "test") -> dict[int, str]:
        """Broker id -> URL of its connection."""
        brokers = self.directory.topics[topic].brokers
        return {broker_id: each.url for broker_id, each in brokers.items()}


class PublishTests(DirectoryCase):
    """The first look."""

    def test_partitions_of_masters_in_numeric_order(self) -> None:
        """Brokers 10 and 2: sorted by number; slaves and invalid names do not count."""
        self.register(10, partitions=2)
        self.register(2, partitions=11)
        for name in ("3-s0", "x", "4-m-5", "y-m"):
            self.tree.create(f"{PUB}/test/{name}", b'{"numParts":4}', 1)
        done = self.publish()
        self.link(2), self.link(10)
        self.runtime.result(done)
        expected = [f"2-{number}" for number in range(11)] + ["10-0", "10-1"]
        self.assertEqual(expected, self.published())

    def test_partition_of_a_broker_that_is_away(self) -> None:
        """The error names the node that is missing, and the ZooKeeper."""
        self.register(0)
        self.publish()
        self.link()
        error = self.assertRaises(NoPartition, self.directory.broker_of, "test", Partition(7, 0))
        self.assertIn("no /meta/brokers/ids/7/master in ZooKeeper at zk:2181", str(error))

    def test_makes_nothing(self) -> None:
        """Looking for an unknown topic makes no node; when the topic comes it is seen."""
        before = set(self.tree.nodes)
        self.runtime.result(self.publish("new"))
        self.assertEqual((before, []), (set(self.tree.nodes), self.published("new")))
        self.register(0, "new")
        self.assertEqual(["0-0"], self.published("new"))
        self.unregister(0, "new")
        self.assertEqual([], self.published("new"))
        self.register(0, "new")
        self.assertEqual(["0-0"], self.published("new"))

    def test_not_read_yet(self) -> None:
        """A request before ZooKeeper's answer fails with that reason, and may be repeated."""
        self.register(0)
        self.registry.hold()
        done = self.publish()
        error = self.absence()
        self.assertIs(NoPartition, type(error))
        self.assertIn("not known yet", str(error))
        self.registry.release()
        self.link(0)
        self.runtime.result(done)
        self.assertEqual("test", self.directory.topic_for("test").name)

    def test_waits_for_the_brokers(self) -> None:
        """It fires when every broker is connected."""
        self.register(0)
        self.register(1)
        done = self.publish()
        self.link(0)
        self.assertFalse(done.called)
        self.link(1)
        self.assertTrue(done.called)

    def test_unreachable_broker_is_waited_for_ten_seconds_at_most(self) -> None:
        """The topic is usable without it, a log line names it, and it is used when it connects."""
        self.register(0)
        self.register(1)
        done = self.publish()
        self.link(0)
        self.runtime.refuse("host1:8123")
        self.runtime.advance(9.9)
        self.assertFalse(done.called)
        self.runtime.advance(0.2)
        self.runtime.result(done)
        self.assertEqual(["0-0", "1-0"], self.published())
        self.assertIn(
            "meta://host1:8123 has not been reached yet (connection refused)",
            self.runtime.log.texts("warn")[-1],
        )
        self.runtime.accept("host1:8123")
        self.assertTrue(self.directory.topics["test"].brokers[1].is_connected)

    def test_unreachable_brokers_are_waited_for_together(self) -> None:
        """Several take no longer than one."""
        for broker_id in range(3):
            self.register(broker_id)
        done = self.publish()
        self.runtime.advance(10.1)
        self.runtime.result(done)
        self.assertEqual(3, len(self.runtime.log.texts("warn")))

    def test_row_6_blank_topic(self) -> None:
        """Row 6: a blank topic; what ZooKeeper or the wire cannot carry is refused too."""
        for topic in ("", "  ", None):
            with self.assertRaisesRegex(InvalidArgument, "topic is .*; the name of a topic"):
                self.runtime.result(self.publish(topic))  # type: ignore[arg-type]
        for topic in ("a b", "a/b", "a\r\nb", "a\0b", "\ud800"):
            with self.assertRaisesRegex(InvalidArgument, "no spaces, slashes"):
                self.runtime.result(self.publish(topic))

    def test_second_user_shares(self) -> None:
        """Another publication reads nothing and opens no connection."""
        self.register(0)
        done = self.publish()
        self.link()
        self.runtime.result(done)
        before = len(self.registry.calls)
        self.runtime.result(self.publish(user=object()))
        self.assertEqual((before, 1), (len(self.registry.calls), len(self.runtime.links)))

    def test_refused_broker_is_waited_for_briefly(self) -> None:
        """As briefly as the documents say, once every attempt is refused."""
        self.register(0)
        self.register(1)
        done = self.publish()
        self.link(0)
        self.runtime.refuse_all("Connection refused", 4.7)
        self.assertFalse(done.called)
        self.runtime.refuse_all("Connection refused", 0.5)
        self.runtime.result(done)
        self.assertIn("(Connection refused)", self.runtime.log.texts("warn")[-1])

    def test_broker_without_address(self) -> None:
        """A half registered broker's partitions are listed; its address is taken when it comes."""
        self.tree.create(f"{PUB}/test/0-m", b'{"numParts":2}', 1)
        self.runtime.result(self.publish())
        self.assertEqual((["0-0", "0-1"], {}), (self.published(), self.urls()))
        with self.assertRaisesRegex(
            NoPartition, "partition 0-1: broker 0 is not registered .* /meta/brokers/ids/0/master"
        ):
            self.directory.broker_of("test", Partition(0, 1))
        self.tree.create("/meta/brokers/ids/0/master", b"meta://host0:8123", 1)
        self.assertEqual({0: "meta://host0:8123"}, self.urls())

    def test_nonsense_in_nodes(self) -> None:
        """Broken nodes are logged by path and left out, the others used."""
        self.register(0)
        self.tree.create(f"{PUB}/test/1-m", b"null", 1)
        self.tree.create(f"{PUB}/test/2-m", b'{"numParts":1}', 1)
        self.tree.create("/meta/brokers/ids/2/master", b"http://host2", 1)
        done = self.publish()
        self.link()
        self.runtime.result(done)
        self.assertEqual(["0-0", "2-0"], self.published())
        self.assertEqual({0: "meta://host0:8123"}, self.urls())
        errors = self.runtime.log.texts("error")
        self.assertIn(f"{PUB}/test/1-m is left out", errors[0])
        self.assertIn("/meta/brokers/ids/2/master is left out", errors[1])


class WatchTests(DirectoryCase):
    """The world moves."""

    def setUp(self) -> None:
        super().setUp()
        self.register(0)
        done = self.publish()
        self.link()
        self.runtime.result(done)

    def test_row_19_broker_leaves_and_returns(self) -> None:
        """Row 19: its partitions disappear with it and reappear with it, again and again."""
        for _ in range(3):
            self.register(1, partitions=2)
            self.assertEqual(["0-0", "1-0", "1-1"], self.published())
            self.unregister(1)
            self.assertEqual(["0-0"], self.published())

    def test_healthy_connections_stay(self) -> None:
        """What comes and goes beside it does not touch a connection."""
        first = self.directory.topics["test"].brokers[0]
        self.register(1)
        self.link(1)
        self.unregister(1)
        self.runtime.turn()
        self.assertIs(first, self.directory.topics["test"].brokers[0])
        self.assertTrue(self.link(0).open)
        self.assertFalse(self.link(1).open)

    def test_new_address(self) -> None:
        """A broker that comes back with another address, its topic node untouched, is followed."""
        self.tree.set_data("/meta/brokers/ids/0/master", b"meta://host7:8123")
        self.assertEqual({0: "meta://host7:8123"}, self.urls())
        self.link(7)
        self.runtime.turn()
        self.assertFalse(self.link(0).open)

    def test_accept_publish_false(self) -> None:
        """Row 11: a broker without a node below topics-pub is not selectable, though it runs."""
        self.tree.delete(f"{PUB}/test/0-m")
        self.assertEqual([], self.published())
        self.assertIn("in ZooKeeper at zk:2181", str(self.absence()))

    def test_reread_after_reconnection(self) -> None:
        """Watches are gone with the connection: what happened meanwhile is seen afterwards."""
        self.registry.suspend()
        self.register(1)
        self.assertEqual(["0-0"], self.published())
        self.registry.resume()
        self.assertEqual(["0-0", "1-0"], self.published())
        self.unregister(1)
        self.assertEqual(["0-0"], self.published())

    def test_reread_in_a_new_session(self) -> None:
        """After an expired session everything is read and watched again."""
        self.registry.lose()
        self.register(1)
        self.registry.resume()
        self.register(2)
        self.assertEqual(["0-0", "1-0", "2-0"], self.published())

    def test_no_watch_twice(self) -> None:
        """However often a topic is read, there is one watch on each of its nodes."""
        for _ in range(3):
            self.register(1)
            self.unregister(1)
        self.register(1)
        ours = [key for key, found in self.tree.watches.items() for _ in found]
        self.assertEqual(
            {(f"{PUB}/test", True), *((f"/meta/brokers/ids/{n}/master", False) for n in (0, 1))},
            set(ours),
        )
        self.assertEqual(len(set(ours)), len(ours))

    def test_vanishes_between_listing_and_reading(self) -> None:
        """A broker node gone after the listing is left out, and the next look sees the rest."""

        def vanish(operation: str, path: str) -> Exception | None:
            if (operation, path) == ("get", f"{PUB}/test/1-m"):
                self.registry.faults = lambda operation, path: None
                self.tree.delete(path)
            return None

        self.registry.faults = vanish
        self.register(1)
        self.assertEqual(["0-0"], self.published())
        self.register(2)
        self.assertEqual(["0-0", "2-0"], self.published())

    def test_change_during_a_look(self) -> None:
        """News that arrive while a look is under way lead to another look."""
        self.registry.hold()
        self.register(1)
        self.register(2)
        self.unregister(1)
        self.registry.release()
        self.assertEqual(["0-0", "2-0"], self.published())

    def test_release(self) -> None:
        """The last user's leaving forgets the topic and closes its connections."""
        second = object()
        self.runtime.result(self.publish(user=second))
        self.directory.release("test", self.user)
        self.assertEqual(["0-0"], self.published())
        self.directory.release("test", second)
        self.directory.release("test", second)
        self.runtime.turn()
        self.assertEqual({}, dict(self.directory.topics))
        self.assertFalse(self.link().open)
        self.assertEqual([], self.runtime.clock.getDelayedCalls())
        self.register(1)
        self.assertEqual([], self.runtime.attempts)

    def test_released_beside_another_one(self) -> None:
        """A connection that another topic needs keeps nothing of the first."""
        self.register(0, "other")
        self.runtime.result(self.publish("other"))
        (broker,) = self.directory.topics["test"].brokers.values()
        self.assertEqual(2, len(broker.changes._watching))
        self.directory.release("test", self.user)
        self.assertEqual(1, len(broker.changes._watching))

    def test_broker_that_leaves_one_topic(self) -> None:
        """Its connection, which another topic needs, keeps nothing of the first."""
        self.register(1)
        self.register(1, "other")
        self.runtime.result(self.publish("other", self.link(1)))
        broker = self.directory.topics["test"].brokers[1]
        self.tree.delete(f"{PUB}/test/1-m")
        self.assertEqual(["0-0"], self.published())
        self.assertEqual(1, len(broker.changes._watching))

    def test_partitions_are_logged(self) -> None:
        """At each change, and no more often."""
        self.register(1, partitions=2)
        self.registry.suspend()
        self.registry.resume()
        texts = [text for text in self.runtime.log.texts("info") if "writable" in text]
        text = "Topic test: {} writable partitions on brokers {}"
        self.assertEqual([text.format(1, "0"), text.format(3, "0, 1")], texts)

    def fail_once(self) -> None:
        """The look that is under way, and no later one."""

        def once(operation: str, path: str) -> Exception:
            self.registry.faults = lambda operation, path: None
            return RegistryError("no")

        self.registry.faults = once
        self.registry.release()

    def test_release_during_a_look_that_fails(self) -> None:
        """Nothing is said of a forgotten topic, and it is not read again."""
        self.registry.hold()
        self.register(1)
        self.directory.release("test", self.user)
        self.fail_once()
        self.assertEqual([], self.runtime.log.texts("warn"))
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    def test_change_during_a_look_that_fails(self) -> None:
        """It is read again at once, and nothing is said."""
        self.registry.hold()
        self.register(1)
        self.directory._watch.look(self.directory.topics["test"])  # type: ignore[union-attr]
        self.fail_once()
        self.assertEqual(["0-0", "1-0"], self.published())
        self.assertEqual([], self.runtime.log.texts("warn"))

    def test_release_between_two_looks(self) -> None:
        """No timer is left."""
        self.registry.hold()
        self.register(1)
        self.fail_once()
        self.assertEqual(["0-0"], self.published())
        self.directory.release("test", self.user)
        self.link().lose()
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    def test_change_between_two_looks(self) -> None:
        """What was to be read later is read now, and not later as well."""
        self.registry.hold()
        self.register(1)
        self.fail_once()
        self.registry.suspend()
        self.registry.resume()
        self.assertEqual(["0-0", "1-0"], self.published())
        self.link(1)
        self.registry.calls.clear()
        self.runtime.advance(10)
        self.assertEqual([], self.registry.calls)

    def test_release_during_a_look(self) -> None:
        """What was read for a forgotten topic is dropped."""
        self.registry.hold()
        self.register(1)
        self.directory.release("test", self.user)
        self.registry.release()
        self.assertEqual(({}, []), (self.directory.topics, self.runtime.attempts))


class ChoiceTests(DirectoryCase):
    """What a selector chooses from: where a message can go now, if it can go anywhere."""

    def setUp(self) -> None:
        super().setUp()
        self.register(0)
        self.register(1, partitions=2)
        done = self.publish()
        self.link(0), self.link(1)
        self.runtime.result(done)

    def test_broker_without_address(self) -> None:
        """A broker that leaves takes its own node away first: from then on it is left out."""
        self.tree.delete("/meta/brokers/ids/1/master")
        self.assertEqual(["0-0"], self.choice())
        self.assertEqual(["0-0", "1-0", "1-1"], self.published())
        self.tree.delete("/meta/brokers/ids/0/master")
        self.assertEqual(["0-0", "1-0", "1-1"], self.choice())

    def test_broker_without_connection(self) -> None:
        """A lost connection takes partitions out at once, and brings them back at once."""
        self.link(1).lose()
        self.assertEqual(["0-0"], self.choice())
        self.link(0).lose()
        self.assertEqual(["0-0", "1-0", "1-1"], self.choice())
        self.runtime.advance(0.1)
        self.runtime.accept("host1:8123")
        self.assertEqual(["1-0", "1-1"], self.choice())
        self.runtime.accept("host0:8123")
        self.assertEqual(["0-0", "1-0", "1-1"], self.choice())

    def test_new_broker(self) -> None:
        """Nothing goes to it before there is a connection."""
        self.register(2)
        self.assertEqual(["0-0", "1-0", "1-1"], self.choice())
        self.link(2)
        self.assertEqual(["0-0", "1-0", "1-1", "2-0"], self.choice())


class OutageTests(DirectoryCase):
    """ZooKeeper fails, and the defect of section 3.1: a topic is never poisoned."""

    def test_publish_without_zookeeper(self) -> None:
        """It says so after ten seconds and keeps trying; then the topic works by itself."""
        self.registry.suspend()
        done = self.publish()
        self.runtime.advance(10.1)
        with self.assertRaisesRegex(NotConnected, "topic test: ZooKeeper has not told"):
            self.runtime.result(done)
        self.registry.resume()
        self.register(0)
        self.assertEqual(["0-0"], self.published())

    def test_released_while_publishing(self) -> None:
        """The producer was closed meanwhile; ZooKeeper is not to blame."""
        self.registry.suspend()
        done = self.publish()
        self.directory.release("test", self.user)
        with self.assertRaises(ClientClosed):
            self.runtime.result(done)

    def test_operations_without_answers(self) -> None:
        """A read that fails while the session lives is repeated after a pause."""
        self.register(0)
        fail = [3]

        def fault(operation: str, path: str) -> Exception | None:
            fail[0] -= 1
            return RegistryUnavailable("no answer") if fail[0] >= 0 else None

        self.registry.faults = fault
        done = self.publish()
        self.runtime.advance(2)
        self.link()
        self.runtime.result(done)
        self.assertEqual(["0-0"], self.published())
        self.assertEqual(1, len(self.runtime.log.texts("warn")))

    def test_pauses_between_reads(self) -> None:
        """They grow up to five seconds and begin anew after a success; ZooKeeper's outage is said
        once."""
        for _ in range(2):
            self.assertEqual([0.1, 0.5, 1, 5, 5], self._pauses(RegistryUnavailable("no answer")))
            self.assertEqual([0, 1, 1, 1, 1, 1], self.said)
            self.registry.faults = lambda operation, path: None
            self.runtime.advance(5)
            self.runtime.log.lines.clear()

    def test_reads_that_are_refused(self) -> None:
        """Each refusal is said: its reason may be another one."""
        self.assertEqual([0.1, 0.5, 1, 5, 5], self._pauses(RegistryError("no way")))
        self.assertEqual([0, 1, 2, 3, 4, 5], self.said)

    def _pauses(self, error: Exception) -> list[float]:
        """Those between the reads of a published topic in twelve seconds."""
        if "test" not in self.directory.topics:
            self.register(0)
            done = self.publish()
            self.link()
            self.runtime.result(done)
        reads: list[float] = []
        self.said: list[int] = []  # lines before each of them

        def fault(operation: str, path: str) -> Exception:
            reads.append(self.runtime.seconds())
            self.said.append(len(self.runtime.log.texts("warn")))
            return error

        self.registry.faults = fault
        self.registry.suspend()
        self.registry.resume()
        for _ in range(12 * 20):
            self.runtime.advance(0.05)
        return [round(later - earlier, 2) for earlier, later in pairwise(reads)]

    def test_last_view_stays(self) -> None:
        """While ZooKeeper is away the partitions last seen are used."""
        self.register(0)
        done = self.publish()
        self.link()
        self.runtime.result(done)
        self.registry.lose()
        self.runtime.advance(60)
        self.assertEqual(["0-0"], self.published())

    def test_close_wakes_who_waits(self) -> None:
        """A publication under way when the factory closes fails at once; later ones too."""
        self.registry.suspend()
        done = self.publish()
        self.directory.close()
        for future in (done, self.publish()):
            with self.assertRaises(ClientClosed):
                self.runtime.result(future)


class DefaultTopicTests(DirectoryCase):
    """One topic stands in for unpublished topics."""

    def set_default(self, topic: str) -> Any:
        """The future of it, brokers connected."""
        done = self.runtime.start(self.directory.set_default_topic(topic, self.user))
        while self.runtime.attempts:
            self.runtime.accept()
        return done

    def test_used_for_unpublished_topics(self) -> None:
        """Row 12: an unpublished topic goes where the default topic goes."""
        self.register(0, "default")
        self.runtime.result(self.set_default("default"))
        self.assertEqual("default", self.directory.topic_for("other").name)

    def test_not_for_published_topics(self) -> None:
        """Row 12: a published topic without partitions does not fall back."""
        self.register(0, "default")
        self.runtime.result(self.set_default("default"))
        self.runtime.result(self.publish("empty"))
        with self.assertRaisesRegex(UnknownTopic, "topic empty: no broker has ever had it"):
            self.directory.topic_for("empty")

    def test_only_one(self) -> None:
        """The same again is fine, another one is refused by name."""
        self.register(0, "default")
        self.runtime.result(self.set_default("default"))
        self.runtime.result(self.set_default("default"))
        with self.assertRaisesRegex(InvalidState, "default topic is default and cannot become b"):
            self.runtime.result(self.set_default("b"))

    def test_wrong_name(self) -> None:
        """It does not become the default."""
        with self.assertRaises(InvalidArgument):
            self.runtime.result(self.set_default(" "))
        self.assertIsNone(self.directory.default_topic)

    def test_published_before(self) -> None:
        """A topic that the user published before becomes the default all the same."""
        self.register(0)
        done = self.publish()
        self.link()
        self.runtime.result(done)
        self.runtime.result(self.set_default("test"))
        self.assertEqual("test", self.directory.topic_for("other").name)


class AskingTests(DirectoryCase):
    """Partitions of topics that need not be published."""

    def test_partitions_of(self) -> None:
        """Section 14.4: masters in numeric order; without a node an empty list, and no node."""
        self.register(10)
        self.register(2, partitions=2)
        found = self.runtime.run(self.directory.partitions_of("test"))
        self.assertEqual(["2-0", "2-1", "10-0"], [str(each) for each in found])
        self.assertEqual([], self.runtime.run(self.directory.partitions_of("nobody")))
        self.assertNotIn(f"{PUB}/nobody", self.tree.nodes)
        self.assertEqual({}, {key: found for key, found in self.tree.watches.items() if found})

    def test_partitions_of_a_broker_that_leaves(self) -> None:
        """It is left out where it goes between the list and its own node."""
        self.register(0)
        self.register(1)

        def vanish(operation: str, path: str) -> None:
            if (operation, path) == ("get", f"{PUB}/test/1-m"):
                self.tree.delete(path)

        self.registry.faults = vanish
        found = self.runtime.run(self.directory.partitions_of("test"))
        self.assertEqual(["0-0"], [str(each) for each in found])

    def test_partitions_of_no_name(self) -> None:
        """It is refused as it is elsewhere."""
        with self.assertRaisesRegex(InvalidArgument, "topic is ' '; the name of a topic"):
            self.runtime.run(self.directory.partitions_of(" "))

    def test_looks_for_the_reason(self) -> None:
        """Messages to a topic without partitions ask ZooKeeper every few seconds, not each time."""
        self.runtime.advance(100)
        self.runtime.result(self.publish())
        for seconds, is_read in ((5, False), (0.1, True), (5, False)):
            self.runtime.advance(seconds)
            self.registry.calls.clear()
            self.absence()
            self.runtime.turn()
            self.assertEqual(is_read, bool(self.registry.calls))

    def test_never_published(self) -> None:
        """Row 4: it is said, with what was published."""
        self.runtime.result(self.publish("b"))
        with self.assertRaisesRegex(
            NotPublished, "topic a has not been published: .*; published so far: b"
        ) as caught:
            self.directory.topic_for("a")
        self.assertFalse(caught.exception.retriable)

    def test_names_of_masters(self) -> None:
        """Two tokens, the second exactly ``m``; empty tokens do not count."""
        names: dict[str, int | None] = {"0-m": 0, "12-m": 12, "0--m": 0}
        names |= dict.fromkeys(("0-s1", "m", "0-m-1", "x-m"))
        self.assertEqual(names, {name: master_id(name) for name in names})


class DirectTests(DirectoryCase):
    """Without ZooKeeper."""

    direct = True

    def test_any_partition_of_the_one_broker(self) -> None:
        """Every topic has the partition -1--1 there."""
        done = self.publish()
        self.link()
        self.runtime.result(done)
        self.assertEqual(["-1--1"], self.published())
        broker = self.directory.broker_of("test", ANY_PARTITION)
        self.assertEqual("meta://host0:8123", broker.url)
        self.session.connections.release("host0:8123", self.session)
        self.directory.release("test", self.user)
        self.runtime.turn()
        self.assertFalse(self.link().open)

    def test_nobody_knows_the_partitions(self) -> None:
        """Section 14.4: an illegal state."""
        with self.assertRaisesRegex(InvalidState, "direct mode"):
            self.runtime.run(self.directory.partitions_of("test"))
