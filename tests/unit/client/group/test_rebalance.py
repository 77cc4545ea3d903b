"""Members of a group, their partitions and faults (rows 54, 59 to 63, 67 to 72)."""

from __future__ import annotations

import os
import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.group import balance
from metamorphosis.client.group.membership import Contested, make_consumer_id
from metamorphosis.client.model import Partition, StoredOffset
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.client.settings import ConsumerConfig
from metamorphosis.errors import (
    ClientClosed,
    InvalidState,
    NotEmpty,
    OffsetsNotStorable,
    OffsetStoreError,
    RegistryUnavailable,
)
from metamorphosis.testing.registry import MemoryRegistry
from tests.support.group import PATHS, Group, Member

SETTLED = 45.0  # longer than any pause between two attempts, and than one audit


class RebalanceCase(SynchronousTestCase):
    """Group ``g``, broker 0 with four partitions of ``test``."""

    def setUp(self) -> None:
        """No member has joined yet."""
        self.group = Group()
        self.broker = self.group.broker(0, test=4)
        self.log = self.group.runtime.log

    def tearDown(self) -> None:
        """No unexpected error was logged."""
        self.assertEqual([], self.log.texts("failure"))

    def result(self, future: object) -> object:
        """The result of a call."""
        return self.group.runtime.result(future)

    def foreign(self, path: str, data: bytes) -> MemoryRegistry:
        """A node of another session."""
        registry = MemoryRegistry(self.group.tree)
        registry.start()
        registry.create(path, data, True)
        return registry


class IdTests(RebalanceCase):
    """zookeeper.md 7.1."""

    def test_generated(self) -> None:
        """Group, address, process and a random part."""
        found = make_consumer_id(ConsumerConfig(group="meta-example"), lambda: "10.1.2.2")
        self.assertTrue(
            re.fullmatch(
                rf"meta-example_10\.1\.2\.2-{os.getpid()}-[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}"
                r"-[0-9a-f]{12}",
                found,
            ),
            found,
        )
        again = make_consumer_id(ConsumerConfig(group="meta-example"), lambda: "10.1.2.2")
        self.assertNotEqual(found, again)

    def test_configured(self) -> None:
        """The configured part takes the place of all that is generated."""
        config = ConsumerConfig(group="g", consumer_id="one")
        self.assertEqual("g_one", make_consumer_id(config))

    def test_node(self) -> None:
        """Ephemeral, with the topics joined by commas."""
        member = self.group.joined("a", topics=["test", "other"])
        self.assertEqual({"g_a": "test,other"}, self.group.ids())
        owner = self.group.tree.nodes["/meta/consumers/g/ids/g_a"].owner
        self.assertEqual(member.registry.session_id(), owner)


class JoinTests(RebalanceCase):
    """Members come and go."""

    def test_alone(self) -> None:
        """The only member reads everything, from the master, and has claimed it."""
        member = self.group.joined("a")
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())
        self.assertEqual(dict.fromkeys(member.reads(), "g_a"), self.group.owners())
        owner = self.group.tree.nodes[PATHS.owner("g", "test", "0-0")].owner
        self.assertEqual(member.registry.session_id(), owner)
        self.assertEqual({"meta://10.0.0.0:8123"}, set(member.fetching.runs[-1].values()))
        keys = {("test", Partition(0, number)) for number in range(4)}
        self.assertEqual(keys, set(member.rebalance.assignment))
        told = "Group g: g_a has test 0-0, test 0-1, test 0-2, test 0-3"
        self.assertEqual([told], [text for text in self.log.texts("info") if " has " in text])

    def test_join(self) -> None:
        """Row 59: a joining member finds claims of others, gives up its own, and has its share when
        the others have released theirs; it waits for their nodes, not for the sync time."""
        first = self.group.joined("a")
        first.fetching.held = True
        second = self.group.member("b")
        second.join()
        self.group.advance(0.1)
        self.assertEqual([], second.reads())
        self.assertEqual(dict.fromkeys(["0-0", "0-1", "0-2", "0-3"], "g_a"), self.group.owners())
        first.fetching.let_go()
        self.group.advance(0.1)
        self.result(second.registering)
        self.assertEqual(["0-0", "0-1"], first.reads())
        self.assertEqual(["0-2", "0-3"], second.reads())
        self.assertEqual(
            {"0-0": "g_a", "0-1": "g_a", "0-2": "g_b", "0-3": "g_b"}, self.group.owners()
        )

    def test_balanced_again(self) -> None:
        """Said after three attempts; the count of the next trouble begins anew."""
        foreign = self.foreign(PATHS.owner("g", "test", "0-2"), b"g_x")
        self.group.member("a").join()
        while not any("(attempt 3)" in each for each in self.log.texts("info")):
            self.group.advance(0.01)
        foreign.stop()
        self.group.advance(5)
        self.assertEqual(1, self.log.texts("info").count("Group g: balanced again"))
        self.foreign(PATHS.owner("g", "test", "1-0"), b"g_x")
        del self.log.lines[:]
        self.group.broker(1, test=1)
        self.group.advance(0.3)
        attempts = [each for each in self.log.texts("info") if "(attempt " in each]
        self.assertIn("(attempt 1)", attempts[0])

    def test_release_everything_on_conflict(self) -> None:
        """A member that cannot get all of its share gives up what it got, as Java's do."""
        foreign = self.foreign(PATHS.owner("g", "test", "0-2"), b"g_x")
        member = self.group.member("a")
        member.join()
        for attempt in (1, 2, 3):
            free = [PATHS.owner("g", "test", text) for text in ("0-0", "0-1", "0-3")]
            for operation in ("create", "delete"):
                self.assertEqual(
                    free, [path for path in free if (operation, path) in member.registry.calls]
                )
            self.assertEqual(({"0-2": "g_x"}, []), (self.group.owners(), member.reads()))
            if attempt < 3:
                del member.registry.calls[:]
                while ("delete", free[-1]) not in member.registry.calls:
                    self.group.advance(0.01)
        foreign.stop()
        self.group.advance(1)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())

    def test_commit_before_everything_is_released(self) -> None:
        """Whoever claims one of the partitions then begins where this member has come to."""
        member = self.group.joined("a", commit_offset_period_ms=60_000)
        member.fetching.process("test", "0-0", 50)
        self.foreign(PATHS.owner("g", "test", "1-0"), b"g_x")
        stored: list[str | None] = []

        def released(operation: str, path: str) -> None:
            if (operation, path) == ("delete", PATHS.owner("g", "test", "0-0")):
                stored.append(self.group.offset("0-0"))

        member.registry.faults = released
        self.group.broker(1, test=1)
        self.group.advance(1)
        self.assertEqual(["7-50"], stored[:1])

    def test_a_crashed_claim_stops_only_its_partition(self) -> None:
        """Partitions that were given up and that no other member took are claimed again and read;
        only the partition of a dead session is waited for."""
        dead = self.foreign(PATHS.owner("g", "test", "0-2"), b"g_x")
        member = self.group.member("a")
        self.members = [member]
        member.join()
        self.group.advance(10)
        self.assertEqual(["0-0", "0-1", "0-3"], member.reads())
        runs = len(member.fetching.runs)
        self.group.advance(10)
        self.assertEqual(runs, len(member.fetching.runs), "others are not disturbed")
        self.group.tree.end_session(dead.session_id())
        self.group.advance(0.2)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())
        self.result(member.registering)

    def test_the_next_claim_of_another_one(self) -> None:
        """After a success everything is released again for a contested claim."""
        self.test_a_crashed_claim_stops_only_its_partition()
        (member,) = self.members
        self.foreign(PATHS.owner("g", "test", "1-0"), b"g_x")
        del member.registry.calls[:]
        self.group.broker(1, test=1)
        self.group.advance(0.05)
        self.assertIn(("delete", PATHS.owner("g", "test", "0-0")), member.registry.calls)

    def test_leave(self) -> None:
        """Rows 59 and 69: committed, then released, and the rest takes over where it was."""
        first, second = self.group.joined("a"), self.group.joined("b")
        second.fetching.process("test", "0-2", 500, 77)
        calls = second.registry.calls
        del calls[:]
        self.result(second.leave())
        self.group.advance(1)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], first.reads())
        position = first.rebalance.assignment["test", Partition(0, 2)]
        self.assertEqual((500, 77), (position.offset, position.message_id))
        self.assertEqual({"g_a": "test"}, self.group.ids())
        deleted = [path for operation, path in calls if operation == "delete"]
        self.assertEqual(PATHS.owner("g", "test", "0-2"), deleted[0])
        self.assertEqual("/meta/consumers/g/ids/g_b", deleted[-1])
        wrote = calls.index(("create", PATHS.offset("g", "test", "0-2")))
        self.assertLess(wrote, calls.index(("delete", deleted[0])))

    def test_leave_while_others_look(self) -> None:
        """A partition is released only after its reading has ended."""
        first, second = self.group.joined("a"), self.group.joined("b")
        second.fetching.held = True
        leaving = second.leave()
        self.group.advance(20)
        self.assertEqual(["0-0", "0-1"], first.reads())
        second.fetching.process("test", "0-2", 900)
        second.fetching.let_go()
        self.result(leaving)
        self.group.advance(1)
        self.assertEqual(900, first.rebalance.assignment["test", Partition(0, 2)].offset)

    def test_crash(self) -> None:
        """When the session of a dead member ends, the others share its partitions."""
        first, second = self.group.joined("a"), self.group.joined("b")
        session = second.crash()
        self.group.advance(20)
        self.assertEqual(["0-0", "0-1"], first.reads())
        self.group.tree.end_session(session)
        self.group.advance(1)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], first.reads())

    def test_more_members_than_partitions(self) -> None:
        """A member without partitions is a member nevertheless, and not an error."""
        members = [self.group.joined(name) for name in "abcdef"]
        self.group.advance(SETTLED)
        self.assertEqual([1, 1, 1, 1, 0, 0], [len(each.reads()) for each in members])

    def test_many_at_once(self) -> None:
        """Row 60: all join in one moment, and no partition is without owner after it."""
        members = [self.group.member(name) for name in "abcdef"]
        for member in members:
            member.join()
        self.group.advance(10)
        for member in members:
            self.result(member.registering)
        self.assertEqual([1, 1, 1, 1, 0, 0], [len(each.reads()) for each in members])

    def test_unchanged_position_stays(self) -> None:
        """What is kept through a balance keeps its position in memory, committed."""
        member = self.group.joined("a")
        member.fetching.process("test", "0-0", 100)
        position = member.rebalance.assignment["test", Partition(0, 0)]
        self.group.joined("b")
        self.assertIs(position, member.rebalance.assignment["test", Partition(0, 0)])
        self.assertEqual("7-100", self.group.offset("0-0"))

    def test_commit_before_release(self) -> None:
        """Row 72: processed messages are committed before another member can read the partition."""
        member = self.group.joined("a")
        member.fetching.process("test", "0-3", 100, -5)
        second = self.group.joined("b")
        self.assertEqual("-5-100", self.group.offset("0-3"))
        self.assertEqual(100, second.rebalance.assignment["test", Partition(0, 3)].offset)
        self.assertIsNone(self.group.offset("0-0"), "nothing was processed there")

    def test_consistent_hash(self) -> None:
        """The other strategy, for groups that use it."""
        first = self.group.joined("a", load_balance_strategy="CONSIST")
        second = self.group.joined("b", load_balance_strategy="CONSIST")
        self.assertEqual(["0-1", "0-2", "0-3"], first.reads())
        self.assertEqual(["0-0"], second.reads())

    def test_twelve_partitions(self) -> None:
        """Partitions are shared in the order of texts."""
        self.group.broker(1, twelve=12)
        first = self.group.joined("a", topics=["twelve"])
        self.group.joined("b", topics=["twelve"])
        expected = ["1-0", "1-1", "1-2", "1-3", "1-10", "1-11"]
        self.assertEqual(expected, first.reads("twelve"))


class TopicTests(RebalanceCase):
    """Topics come, go and differ."""

    def test_members_with_different_topics(self) -> None:
        """Row 61: a topic is shared by its subscribers only."""
        self.group.broker(1, other=2)
        first = self.group.joined("a", topics=["test"])
        second = self.group.joined("b", topics=["test", "other"])
        third = self.group.joined("c", topics=["other"])
        self.group.advance(SETTLED)
        self.assertEqual(["0-0", "0-1"], first.reads())
        self.assertEqual((["0-2", "0-3"], ["1-0"]), (second.reads(), second.reads("other")))
        self.assertEqual(["1-1"], third.reads("other"))

    def test_broker_appears_and_leaves(self) -> None:
        """Row 62: new partitions are shared; those of a broker that left are released."""
        first, second = self.group.joined("a"), self.group.joined("b")
        new = self.group.broker(1, test=2)
        self.group.advance(1)
        self.assertEqual(["0-0", "0-1", "0-2"], first.reads())
        self.assertEqual(["0-3", "1-0", "1-1"], second.reads())
        new.stop()
        self.group.advance(1)
        self.assertEqual(["0-0", "0-1"], first.reads())
        self.assertEqual(["0-2", "0-3"], second.reads())
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], sorted(self.group.owners()))

    def test_topic_nobody_serves(self) -> None:
        """Row 54: no error and no messages, and the topic's directory is there."""
        member = self.group.joined("a", topics=["nowhere"])
        self.assertEqual([], member.reads("nowhere"))
        self.assertIn(PATHS.topics_sub("nowhere"), self.group.tree.nodes)

    def test_before_any_broker(self) -> None:
        """Row 68: it is registered, and begins when a broker appears."""
        group = Group()
        member = group.joined("a")
        self.assertEqual([], member.reads())
        group.broker(0, test=1)
        group.advance(1)
        self.assertEqual(["0-0"], member.reads())

    def test_topic_disappears(self) -> None:
        """All partitions of a topic are gone: they are released, and the state with them."""
        member = self.group.joined("a")
        self.broker.stop()
        self.group.advance(1)
        self.assertEqual(([], {}), (member.reads(), self.group.owners()))
        self.assertEqual({}, member.rebalance.assignment)

    def test_subscribe_later(self) -> None:
        """The group is told of topics that come and go, and shares them."""
        self.group.broker(1, other=2)
        first, second = self.group.joined("a"), self.group.joined("b")
        for member in (first, second):
            member.topics["other"] = None
            member.rebalance.refresh()
        self.group.advance(SETTLED)
        self.assertEqual({"g_a": "test,other", "g_b": "test,other"}, self.group.ids())
        self.assertFalse([text for text in self.log.texts("warn") if "g_a is not" in text])
        self.assertEqual(["1-0"], first.reads("other"))
        self.assertEqual(["1-1"], second.reads("other"))
        del first.topics["test"]
        first.rebalance.refresh()
        self.group.advance(SETTLED)
        self.assertEqual(([], ["0-0", "0-1", "0-2", "0-3"]), (first.reads(), second.reads()))


class BrokerTests(RebalanceCase):
    """Where partitions are read."""

    def test_slave_joins(self) -> None:
        """Row 63: nothing changes, and no member stops reading."""
        member = self.group.joined("a")
        runs = len(member.fetching.runs)
        self.group.broker(0, slave_id=1, test=4)
        self.group.advance(SETTLED)
        self.assertEqual(runs, len(member.fetching.runs))

    def test_master_stops_and_returns(self) -> None:
        """Rows 63 to 65: to the slave at the same positions, and back."""
        self.group.broker(0, slave_id=1, test=4)
        member = self.group.joined("a")
        member.fetching.process("test", "0-0", 100)
        self.broker.stop()
        self.group.advance(1)
        self.assertEqual({"meta://10.0.0.0:9001"}, set(member.fetching.runs[-1].values()))
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())
        self.assertEqual(100, member.rebalance.assignment["test", Partition(0, 0)].offset)
        self.assertEqual("7-100", self.group.offset("0-0"), "committed before it moved")
        self.group.broker(0, test=4)
        self.group.advance(1)
        self.assertEqual({"meta://10.0.0.0:8123"}, set(member.fetching.runs[-1].values()))

    def test_another_slave_leaves(self) -> None:
        """Row 64: brokers that are not read from may come and go."""
        first = self.group.broker(0, slave_id=1, test=4)
        second = self.group.broker(0, slave_id=2, test=4)
        self.broker.stop()
        member = self.group.joined("a")
        runs = len(member.fetching.runs)
        used = set(member.fetching.runs[-1].values())
        if len(used) == 1:
            (first if used == {"meta://10.0.0.0:9002"} else second).stop()
            self.group.advance(SETTLED)
            self.assertEqual(runs, len(member.fetching.runs))
        first.stop()
        second.stop()
        self.group.advance(1)
        self.assertEqual([], member.reads())

    def test_broker_without_address(self) -> None:
        """Its partitions are ours without an address; the others are read meanwhile."""
        self.group.broker(1, test=1).delete(PATHS.master(1))
        member = self.group.joined("a")
        urls = member.fetching.runs[-1]
        self.assertIsNone(urls["test", Partition(1, 0)])
        self.assertEqual("meta://10.0.0.0:8123", urls["test", Partition(0, 0)])
        self.assertIn("no broker has test 1-0", self.log.texts("warn")[0])
        self.foreign(PATHS.master(1), b"meta://late:1")
        self.group.advance(1)
        self.assertEqual("meta://late:1", member.fetching.runs[-1]["test", Partition(1, 0)])

    def test_broker_leaves_in_order(self) -> None:
        """One line of the log for all of its partitions."""
        self.group.joined("a")
        self.group.tree.delete(PATHS.master(0))
        self.group.advance(1)
        [line] = [text for text in self.log.texts("warn") if "no broker has" in text]
        self.assertIn("no broker has test 0-0, test 0-1, test 0-2, test 0-3 at present", line)

    def leaving(self) -> Member:
        """A broker leaves ZooKeeper; the member has a connection to it, on which it still answers,
        and gets its last messages."""
        member = self.group.joined("a")
        member.fetching.answering.add("meta://10.0.0.0:8123")
        self.broker.stop()
        self.group.advance(1)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())
        self.assertEqual({"meta://10.0.0.0:8123"}, set(member.fetching.runs[-1].values()))
        member.fetching.process("test", "0-0", 100)
        return member

    def test_leaving_broker_is_read_while_it_answers(self) -> None:
        """Until it closes the connection; what was processed is stored."""
        member = self.leaving()
        member.fetching.hang_up("meta://10.0.0.0:8123")
        self.group.advance(1)
        self.assertEqual(([], {}), (member.reads(), self.group.owners()))
        self.assertEqual("7-100", self.group.offset("0-0"))

    def test_leaving_broker_that_never_hangs_up(self) -> None:
        """It is released in the end."""
        member = self.leaving()
        self.group.advance(8)
        self.assertEqual(4, len(member.reads()))
        self.group.advance(3)
        self.assertEqual(([], {}), (member.reads(), self.group.owners()))
        self.assertEqual("7-100", self.group.offset("0-0"))

    def test_leaving_broker_is_back(self) -> None:
        """At another address: it is read there, from where the member was."""
        member = self.leaving()
        registry = self.group.broker(1, test=1)
        self.group.advance(1)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3", "1-0"], member.reads())
        self.broker = self.group.broker(0, test=4)
        member.fetching.hang_up("meta://10.0.0.0:8123")
        self.group.advance(1)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3", "1-0"], member.reads())
        self.assertEqual(100, member.rebalance.assignment["test", Partition(0, 0)].offset)
        registry.stop()
        self.group.advance(1)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())

    def test_broker_with_another_address(self) -> None:
        """A broker that returns at another address is found there."""
        member = self.group.joined("a")
        self.broker.delete(PATHS.master(0))
        self.broker.create(PATHS.master(0), b"meta://elsewhere:1", True)
        self.group.advance(1)
        self.assertEqual({"meta://elsewhere:1"}, set(member.fetching.runs[-1].values()))


class SessionTests(RebalanceCase):
    """Connections and sessions are lost."""

    def test_expiry(self) -> None:
        """Row 67: the same id with the same data, the same partitions."""
        first, second = self.group.joined("a"), self.group.joined("b")
        before = self.group.ids()
        first.registry.expire()
        self.group.advance(1)
        text = "Group g: the ZooKeeper session of g_a ended; 2 partitions are claimed anew"
        self.assertEqual([text], self.log.texts("warn"))
        self.assertEqual(before, self.group.ids())
        self.assertEqual(["0-0", "0-1"], first.reads())
        self.assertEqual(["0-2", "0-3"], second.reads())
        for path in ("/meta/consumers/g/ids/g_a", PATHS.owner("g", "test", "0-0")):
            self.assertEqual(first.registry.session_id(), self.group.tree.nodes[path].owner)

    def test_progress_survives_expiry(self) -> None:
        """What was processed since the last commit is not processed again."""
        member = self.group.joined("a")
        member.fetching.process("test", "0-0", 100)
        member.registry.expire()
        self.group.advance(1)
        self.assertEqual(100, member.rebalance.assignment["test", Partition(0, 0)].offset)
        self.group.advance(10)
        self.assertEqual("7-100", self.group.offset("0-0"))

    def test_progress_since_the_last_commit_survives(self) -> None:
        """The same where something has been committed in between."""
        member = self.group.joined("a")
        member.fetching.process("test", "0-0", 100)
        self.group.advance(10)
        self.assertEqual("7-100", self.group.offset("0-0"))
        member.fetching.process("test", "0-0", 200)
        member.registry.expire()
        self.group.advance(1)
        self.assertEqual(200, member.rebalance.assignment["test", Partition(0, 0)].offset)

    def test_session_ends_while_positions_are_loaded(self) -> None:
        """Nothing is read, and ``register`` reports nothing, before the partitions are claimed in
        the new session."""
        loading: list[Deferred[None]] = []

        class Slow(MemoryOffsetStore):
            async def load(self, *key: Any) -> StoredOffset | None:
                loading.append(Deferred())
                await loading[-1]
                return await super().load(*key)

        member = self.group.member("a", store=Slow())
        member.join()
        self.assertEqual(4, len(loading))
        member.registry.lose()
        for each in loading:
            each.callback(None)
        self.group.advance(0.01)
        self.assertNoResult(member.registering)
        self.assertEqual([], member.reads())
        del loading[:]
        member.registry.resume()
        self.group.advance(1)
        self.assertNoResult(member.registering)
        for each in loading:
            each.callback(None)
        self.group.advance(1)
        self.result(member.registering)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())
        owner = self.group.tree.nodes[PATHS.owner("g", "test", "0-0")].owner
        self.assertEqual(member.registry.session_id(), owner)

    def test_progress_for_the_next_owner(self) -> None:
        """A reachable store gets the position before another member can claim the partition."""
        store = MemoryOffsetStore()
        first = self.group.joined("a", store=store)
        first.fetching.process("test", "0-3", 100)
        first.registry.lose()
        self.group.advance(0.1)
        self.assertEqual(100, store.offsets["g", "test", Partition(0, 3)].offset)

    def test_older_position_does_not_win(self) -> None:
        """A later commit of another member counts."""
        store = MemoryOffsetStore()
        first = self.group.joined("a", store=store)
        first.fetching.process("test", "0-0", 100)
        first.fetching.held = True
        first.registry.lose()
        second = self.group.joined("b", store=store)
        second.fetching.process("test", "0-0", 150)
        self.result(second.leave())
        first.fetching.let_go()
        first.registry.resume()
        self.group.advance(5)
        self.assertEqual(150, first.rebalance.assignment["test", Partition(0, 0)].offset)

    def test_nothing_is_stored_over_the_next_owner(self) -> None:
        """While a listener delays the end of a lost session, the periodic commit does not overwrite
        later commits of others."""
        store = MemoryOffsetStore()
        first = self.group.joined("a", store=store)
        first.fetching.held = True
        first.registry.lose()
        second = self.group.joined("b", store=store)
        second.fetching.process("test", "0-0", 150)
        self.group.advance(6)
        self.assertEqual(150, store.offsets["g", "test", Partition(0, 0)].offset)
        first.fetching.process("test", "0-0", 100)
        self.group.advance(6)
        self.assertEqual(150, store.offsets["g", "test", Partition(0, 0)].offset)
        self.assertEqual({}, first.rebalance.assignment)
        first.fetching.let_go()
        self.group.advance(6)
        self.assertEqual(150, store.offsets["g", "test", Partition(0, 0)].offset)

    def test_reading_ends_with_the_session(self) -> None:
        """As soon as the session is known to be over nothing is read, until it is claimed anew."""
        member = self.group.joined("a")
        member.registry.lose()
        self.group.advance(0)
        self.assertEqual([], member.reads())
        member.registry.resume()
        self.group.advance(1)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())

    def test_suspended(self) -> None:
        """Without a connection reading continues; afterwards everything is looked at again."""
        member = self.group.joined("a")
        runs = len(member.fetching.runs)
        member.registry.suspend()
        self.group.advance(300)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())
        calls = self.group.runtime.clock.getDelayedCalls()
        self.assertLess(max(each.getTime() for each in calls), 400, "no timer that never ends")
        self.group.broker(1, test=1)
        member.registry.resume()
        self.group.advance(1)
        self.assertIn("1-0", member.reads())
        self.assertEqual(runs + 1, len(member.fetching.runs))

    def test_claim_that_is_gone_after_an_outage(self) -> None:
        """It is claimed again at once, not at the time of the next audit."""
        member = self.group.joined("a")
        member.registry.suspend()
        self.group.tree.delete(PATHS.owner("g", "test", "0-1"))
        self.group.advance(1)
        member.registry.resume()
        self.group.advance(0.1)
        self.assertEqual("g_a", self.group.owners()["0-1"])

    def test_watches_after_a_lost_connection(self) -> None:
        """They are set again: what changes later is noticed at once."""
        member = self.group.joined("a")
        member.registry.suspend()
        member.registry.resume()
        self.group.advance(1)
        self.group.broker(1, test=1)
        self.group.advance(0.1)
        self.assertIn("1-0", member.reads())

    def test_suspended_in_the_middle(self) -> None:
        """What is owned is read on when the connection is lost during a balance."""
        member = self.group.joined("a")

        def fail(operation: str, path: str) -> Exception | None:
            if operation == "create" and path.endswith("1-0"):
                return RegistryUnavailable("gone")
            return None

        member.registry.faults = fail
        self.group.broker(1, test=1)
        self.group.advance(3)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())
        member.registry.faults = lambda operation, path: None
        self.group.advance(5)
        self.assertIn("1-0", member.reads())

    def test_session_ends_while_claiming(self) -> None:
        """Claims that belong to a session that ended are not read, and none is left over."""
        member = self.group.member("a")
        member.registry.start()
        member.registry.hold()
        member.registering = member.runtime.start(member.rebalance.register())
        for _ in range(200):
            registry = member.registry
            if any("/owners/" in path for _, path in registry.calls):
                break
            registry.release()
            registry.hold()
            self.group.advance(0)
        registry.release()
        registry.expire()
        self.group.advance(10)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())
        paths = [PATHS.owner("g", "test", text) for text in member.reads()]
        owners = {self.group.tree.nodes[path].owner for path in paths}
        self.assertEqual({registry.session_id()}, owners)


class FixedIdTests(RebalanceCase):
    """Row 70: the id is configured, and the process before us may not be dead to ZooKeeper yet."""

    def test_restart_within_the_session(self) -> None:
        """It waits for the old session to end and has everything then."""
        old = self.group.joined("one")
        old.fetching.process("test", "0-0", 100)
        self.group.advance(6)
        session = old.crash()
        new = self.group.member("one")
        new.join()
        self.group.advance(15)
        self.assertEqual([], new.reads())
        self.assertNoResult(new.registering)
        self.group.tree.end_session(session)
        self.group.advance(0.2)
        self.result(new.registering)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], new.reads())
        self.assertEqual(100, new.rebalance.assignment["test", Partition(0, 0)].offset)
        self.assertEqual(
            new.registry.session_id(), self.group.tree.nodes["/meta/consumers/g/ids/g_one"].owner
        )

    def test_two_alive(self) -> None:
        """An id that is used by another process is an error, and is waited for."""
        self.group.joined("one")
        second = self.group.member("one")
        second.join()
        self.group.advance(60)
        error = self.failureResultOf(second.registering, Contested)
        self.assertIn("/meta/consumers/g/ids/g_one", str(error.value))

    def test_own_former_session(self) -> None:
        """A node of an earlier session of this process is not a reason to wait."""
        member = self.group.joined("one")
        for _ in range(3):
            old = member.registry.crash()
            member.registry.on_session(member.rebalance._session.event)
            member.registry.resume()
            self.group.advance(1)
            self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())
            self.assertFalse(
                [path for path, node in self.group.tree.nodes.items() if node.owner == old]
            )


class AuditTests(RebalanceCase):
    """Changes without an event."""

    def test_own_id_deleted(self) -> None:
        """It is made again."""
        member = self.group.joined("a")
        self.group.tree.delete("/meta/consumers/g/ids/g_a")
        self.group.advance(1)
        self.assertEqual({"g_a": "test"}, self.group.ids())
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())

    def test_own_id_changed(self) -> None:
        """A node with other topics is put right."""
        member = self.group.joined("a")
        self.group.tree.set_data("/meta/consumers/g/ids/g_a", b"other")
        self.group.advance(SETTLED)
        self.assertEqual({"g_a": "test"}, self.group.ids())
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())

    def test_own_claim_deleted(self) -> None:
        """It is claimed again, with the position it had."""
        member = self.group.joined("a")
        member.fetching.process("test", "0-1", 100)
        self.group.tree.delete(PATHS.owner("g", "test", "0-1"))
        self.group.advance(SETTLED)
        self.assertEqual("g_a", self.group.owners()["0-1"])
        self.assertEqual(100, member.rebalance.assignment["test", Partition(0, 1)].offset)

    def test_own_claim_taken(self) -> None:
        """A partition that another member has claimed meanwhile is not read any more."""
        member = self.group.joined("a")
        path = PATHS.owner("g", "test", "0-1")
        self.group.tree.delete(path)
        other = self.foreign(path, b"g_x")
        self.group.advance(SETTLED)
        self.assertNotIn("0-1", member.reads())
        other.stop()
        self.group.advance(10)
        self.assertIn("0-1", member.reads())

    def test_lost_watch(self) -> None:
        """A change without an event is seen at the next audit."""
        member = self.group.joined("a")
        self.group.tree.watches.clear()
        self.group.broker(1, test=1)
        self.group.advance(SETTLED)
        self.assertIn("1-0", member.reads())

    def test_idle_member_is_woken(self) -> None:
        """
        A member of the original that gave up claims nothing before the list of members changes:
        it is made to change, by a member without topics, and not too often.
        """
        self.foreign("/meta/consumers/g/ids/g_java", b"test")
        seen: list[dict[str, str | None]] = []

        def changed(event: object) -> None:
            seen.append(self.group.ids())
            watch()

        def watch() -> None:
            self.group.tree.watches.setdefault(("/meta/consumers/g/ids", True), []).append(
                (0, changed)
            )

        watch()
        member = self.group.joined("a")
        self.assertEqual(["0-0", "0-1"], member.reads())
        self.group.advance(2 * SETTLED)
        extra = [set(ids) - {"g_a", "g_java"} for ids in seen]
        self.assertEqual([0, 1, 0], [len(each) for each in extra], "it joins, wakes, and that ends")
        name = extra[1].pop()
        self.assertTrue(name.startswith("g_wake-"), name)
        self.assertEqual("", seen[1][name])
        self.group.advance(120)
        self.assertEqual(3, len(seen))
        self.assertEqual(["0-0", "0-1"], member.reads(), "it stays the other's")


class FaultTests(RebalanceCase):
    """Faults, and endless retries."""

    def test_registration_error_is_raised(self) -> None:
        """The registering caller gets the error, and the member keeps trying."""
        member = self.group.member("a")
        member.registry.faults = lambda operation, path: (
            NotEmpty("strange") if operation == "create" and "/ids/" in path else None
        )
        member.join()
        self.group.advance(5)
        self.failureResultOf(member.registering, NotEmpty)
        member.registry.faults = lambda operation, path: None
        self.group.advance(10)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())

    def test_contested_for_long(self) -> None:
        """A claim that is never given up is an error after more than the life of a session."""
        self.foreign(PATHS.owner("g", "test", "0-2"), b"g_x")
        member = self.group.member("a")
        member.join()
        self.group.advance(39)
        self.assertNoResult(member.registering)
        self.group.advance(10)
        error = self.failureResultOf(member.registering, Contested)
        self.assertIn(PATHS.owner("g", "test", "0-2"), str(error.value))

    def test_contested_with_long_pauses(self) -> None:
        """There is time for several attempts, however far apart they are."""
        self.foreign(PATHS.owner("g", "test", "0-2"), b"g_x")
        member = self.group.member("a", sync_seconds=20.0)
        member.join()
        self.group.advance(139)
        self.assertNoResult(member.registering)
        self.group.advance(21)
        self.failureResultOf(member.registering, Contested)

    def test_never_gives_up(self) -> None:
        """Row 60: hours of failures later it still tries, every sync time at most."""
        foreign = self.foreign(PATHS.owner("g", "test", "0-2"), b"g_x")
        member = self.group.member("a")
        member.join()
        member.registering.addErrback(lambda _: None)
        self.group.advance(7200)
        del member.registry.calls[:]
        self.group.advance(60)
        creates = [call for call in member.registry.calls if call[0] == "create"]
        self.assertGreaterEqual(len(creates), 60 / 5)
        self.assertLess(len(creates), 60 / 2)
        foreign.stop()
        self.group.advance(0.2)
        self.assertIn("0-2", member.reads())

    def test_without_zookeeper(self) -> None:
        """Without answers: an error after a while, and everything when ZooKeeper comes."""
        member = self.group.member("a")
        member.registry.reachable = False
        member.join()
        self.group.advance(60)
        self.failureResultOf(member.registering, RegistryUnavailable)
        member.registry.resume()
        self.group.advance(1)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())

    def test_store_is_away(self) -> None:
        """Partitions whose position is not known wait, claimed; the others are read."""

        class Moody(MemoryOffsetStore):
            """Knows nothing of one partition."""

            broken = True

            async def load(self, topic: str, group: str, partition: Partition) -> None:
                """See ``IOffsetStore``."""
                if self.broken and partition == Partition(0, 2):
                    raise OffsetStoreError("away")

        store = Moody()
        member = self.group.member("a", store=store)
        member.join()
        self.group.advance(20)
        self.failureResultOf(member.registering, OffsetStoreError)
        self.assertEqual(["0-0", "0-1", "0-3"], member.reads())
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], sorted(self.group.owners()))
        runs = len(member.fetching.runs)
        self.group.advance(20)
        self.assertEqual(runs, len(member.fetching.runs), "the others are not disturbed")
        store.broken = False
        self.group.advance(6)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())

    def test_lists_that_change_back_while_the_store_is_away(self) -> None:
        """What was claimed for the lists in between is given up again."""

        class Moody(MemoryOffsetStore):
            """Fails on demand."""

            broken = False

            async def load(self, topic: str, group: str, partition: Partition) -> None:
                """See ``IOffsetStore``."""
                if self.broken:
                    raise OffsetStoreError("away")

        store = Moody()
        member = self.group.joined("a", store=store)
        other = self.group.joined("b")
        self.group.advance(20)
        self.assertEqual(["0-0", "0-1"], member.reads())
        store.broken = True
        other.leave()
        self.group.advance(20)
        self.assertEqual(["0-0", "0-1"], member.reads())
        self.assertEqual({"g_a"}, set(self.group.owners().values()))
        again = self.group.member("b")
        again.join()
        self.group.advance(20)
        store.broken = False
        self.group.advance(40)
        self.assertEqual(["0-0", "0-1"], member.reads())
        self.assertEqual(["0-2", "0-3"], again.reads())

    def test_store_that_cannot_keep_progress(self) -> None:
        """``complete_subscribe`` fails with what mends the store, and works when that is done."""

        class Narrow(MemoryOffsetStore):
            """Has a table with a column that is too short."""

            mended = False

            async def initialise(
                self, topic: str, group: str, partition: Partition, offset: int
            ) -> None:
                """See ``IOffsetStore``."""
                if not self.mended:
                    raise OffsetsNotStorable("this statement mends it: alter table")

        store = Narrow()
        member = self.group.member("a", store=store)
        member.join()
        self.group.advance(20)
        error = self.failureResultOf(member.registering, OffsetsNotStorable)
        self.assertIn("alter table", str(error.value))
        self.assertEqual([], member.reads())
        store.mended = True
        self.group.advance(6)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())

    def test_broken_offset_node(self) -> None:
        """A node that holds no number stops its partition, with the path in the log."""
        self.group.tree.create(PATHS.offset("g", "test", "0-1"), b"garbage", 0)
        member = self.group.member("a")
        member.join()
        self.group.advance(20)
        self.failureResultOf(member.registering, OffsetStoreError)
        self.assertEqual(["0-0", "0-2", "0-3"], member.reads())
        self.assertIn("/offsets/test/0-1 holds 'garbage'", self.log.texts("warn")[0])
        self.group.tree.set_data(PATHS.offset("g", "test", "0-1"), b"-1-300")
        self.group.advance(6)
        self.assertEqual(300, member.rebalance.assignment["test", Partition(0, 1)].offset)

    def test_commit_fails_before_release(self) -> None:
        """The partition is released nevertheless, and the log names the messages that are delivered
        again."""
        member = self.group.joined("a")
        member.fetching.process("test", "0-3", 100)
        member.registry.faults = lambda operation, path: (
            RegistryUnavailable("no") if "/offsets/" in path else None
        )
        second = self.group.joined("b")
        self.assertEqual(0, second.rebalance.assignment["test", Partition(0, 3)].offset)
        line = self.log.texts("error")[0]
        self.assertIn("given away: test 0-3 at offset 100, but 0 is stored", line)

    def test_giving_up_fails(self) -> None:
        """All was given up for one contested topic, and that failed: the rest comes back soon."""
        self.patch(balance, "AUDIT_SECONDS", 1e6)
        member = self.group.joined("a", topics=["test", "other"])
        self.foreign(PATHS.owner("g", "other", "1-0"), b"g_x")
        member.registry.faults = lambda operation, path: (
            RegistryUnavailable("no") if operation == "delete" else None
        )
        self.group.broker(1, other=1)
        self.group.advance(0.01)
        self.assertEqual([], member.reads())
        member.registry.faults = lambda operation, path: None
        self.group.advance(2)
        self.assertEqual(["0-0", "0-1", "0-2", "0-3"], member.reads())

    def test_release_fails(self) -> None:
        """Nodes that remain are deleted later; their partitions are not read meanwhile."""
        first = self.group.joined("a")
        first.registry.faults = lambda operation, path: (
            RegistryUnavailable("no") if operation == "delete" else None
        )
        second = self.group.member("b")
        second.join()
        self.group.advance(8)
        self.assertEqual(["0-0", "0-1"], first.reads())
        self.assertEqual([], second.reads())
        first.registry.faults = lambda operation, path: None
        self.group.advance(10)
        self.result(second.registering)
        self.assertEqual(["0-2", "0-3"], second.reads())


class LifeTests(RebalanceCase):
    """The order of calls."""

    def test_register_twice(self) -> None:
        """Row 54: the second time is an error."""
        member = self.group.joined("a")
        self.failureResultOf(member.runtime.start(member.rebalance.register()), InvalidState)

    def test_unregister_while_registering(self) -> None:
        """Waiting callers learn that it was closed, and nothing stays."""
        self.foreign(PATHS.owner("g", "test", "0-2"), b"g_x")
        member = self.group.member("a")
        member.join()
        self.group.advance(1)
        leaving = member.leave()
        self.group.advance(1)
        self.result(leaving)
        self.failureResultOf(member.registering, ClientClosed)
        self.assertEqual(({}, {"0-2": "g_x"}), (self.group.ids(), self.group.owners()))

    def test_unregister_unregistered(self) -> None:
        """``unregister`` without a registration has no effect."""
        member: Member = self.group.member("a")
        self.result(member.runtime.start(member.rebalance.unregister()))

    def test_unregister_without_zookeeper(self) -> None:
        """It ends in a bounded time; the rest is left to the end of the session."""
        member = self.group.joined("a")
        member.fetching.process("test", "0-0", 100)
        member.registry.suspend()
        leaving = member.runtime.start(member.rebalance.unregister())
        self.group.advance(15)
        self.result(leaving)
        self.assertEqual([], member.reads())
        self.assertIn("stays until its session ends", self.log.texts("warn")[-1])

    def test_nothing_after_unregister(self) -> None:
        """No timer, watch or session moves it any more."""
        member = self.group.joined("a")
        self.result(member.runtime.start(member.rebalance.unregister()))
        member.registry.expire()
        self.group.broker(1, test=1)
        self.group.advance(300)
        self.assertEqual([], member.reads())
        self.assertEqual(({}, {}), (self.group.ids(), self.group.owners()))
        self.assertEqual([], self.group.runtime.clock.getDelayedCalls())
