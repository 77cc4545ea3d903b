"""The consumer, by its public methods."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.consumer.consumer import Consumer
from metamorphosis.client.delivery.recovery import RecoveredMessage
from metamorphosis.client.delivery.subscription import Rollback
from metamorphosis.client.factory import SessionFactory
from metamorphosis.client.model import Partition, ReceivedMessage, StoredOffset
from metamorphosis.client.offsets.localfile import LocalFileOffsetStore
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.client.settings import (
    MAX_OFFSET,
    ClientConfig,
    ConsumerConfig,
    broadcast_config,
)
from metamorphosis.cluster.model import TopicBroker
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import (
    ClientClosed,
    InvalidArgument,
    InvalidConsumerConfig,
    InvalidState,
    Moved,
    NotConnected,
)
from metamorphosis.ids import EPOCH_MS
from metamorphosis.testing.registry import MemoryRegistry
from metamorphosis.testing.runtime import MemoryRuntime
from tests.support.memorybroker import Log, MemoryBroker

PATHS = Paths()


def nothing(message: object) -> None:
    """A listener."""


class ConsumerCase(SynchronousTestCase):
    """ZooKeeper, a master with the id 2 at ``b:1``, and a factory."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.broker = MemoryBroker(self.runtime)
        self.registry = MemoryRegistry(self.runtime.tree)
        self.registry.start()
        self.registry.create(PATHS.master(2), b"meta://b:1", True)
        self.got: list[Any] = []
        self.session = self.factory()

    def factory(self) -> SessionFactory:
        """A process."""
        session = SessionFactory(
            self.runtime, ClientConfig(zookeeper="zk:1", recover_path=self.mktemp())
        )
        self.addCleanup(self.end, session)
        return session

    def end(self, session: SessionFactory) -> None:
        """Close a factory; it waits for listeners as configured."""
        closing: Any = session.close()
        for _ in range(60):
            if closing.called:
                break
            self.let(1)
        self.runtime.result(closing)

    def topic(self, name: str, partitions: int) -> list[Log]:
        """The broker has a topic."""
        data = TopicBroker(partitions, "2-m").encode()
        for path in (PATHS.topics_sub(name), PATHS.topics_pub(name)):
            self.registry.create(f"{path}/2-m", data, True)
        return [self.broker.log(name, number) for number in range(partitions)]

    def listen(self, message: ReceivedMessage) -> None:
        """A listener."""
        self.got.append(message.data)

    def let(self, seconds: float) -> None:
        """Let time pass, with the broker's replies."""
        self.broker.serve()
        for _ in range(round(seconds * 2)):
            self.runtime.advance(0.5)
            self.broker.serve()

    def begin(self, consumer: Consumer) -> Consumer:
        """Complete its subscription."""
        future = consumer.complete_subscribe()
        self.let(2)
        self.runtime.result(future)
        return consumer

    def close(self, closing: Any) -> None:
        """Wait for the end."""
        self.let(1)
        self.runtime.result(closing)


class SubscriptionTests(ConsumerCase):
    """``subscribe`` and ``complete_subscribe``."""

    def test_row_53_settings(self) -> None:
        """Row 53: no group, bad characters, no runners, no time-out, a negative period."""
        for settings in (
            {"group": " "},
            {},
            {"group": "a/b"},
            {"group": "g", "fetch_runner_count": 0},
            {"group": "g", "fetch_timeout_ms": 0},
            {"group": "g", "commit_offset_period_ms": -1},
        ):
            self.assertRaises(InvalidConsumerConfig, self.session.create_consumer, **settings)

    def test_arguments(self) -> None:
        """Blank topics, invalid sizes and objects that are not callable are refused."""
        consumer = self.session.create_consumer("g")
        for wrong in (
            {"topic": " "},
            {"topic": None},
            {"topic": "t u"},
            {"topic": "t/u"},
            {"topic": "t\r\nquit"},
            {"topic": "t,u"},
            {"topic": "t", "max_size": 0},
            {"topic": "t", "max_size": 1.5},
            {"topic": "t", "listener": "listener"},
            {"topic": "t", "filter": True},
        ):
            self.assertRaises(InvalidArgument, consumer.subscribe, **wrong)
        self.assertRaises(InvalidArgument, consumer.on_rejection, None)
        self.assertEqual({}, self.session.subscriptions)

    def test_row_54_twice(self) -> None:
        """Row 54: a topic can be subscribed once by a group in a factory, and completed once."""
        consumer = self.session.create_consumer("g").subscribe("t", 1000, nothing)
        self.assertRaises(InvalidState, consumer.subscribe, "t", 1000, nothing)
        other = self.session.create_consumer("g")
        self.assertRaises(InvalidState, other.subscribe, "t", 1000, nothing)
        self.session.create_consumer("h").subscribe("t", 1000, nothing)
        self.begin(consumer)
        again = consumer.complete_subscribe()
        self.assertRaises(InvalidState, self.runtime.result, again)

    def test_row_54_unknown_topic(self) -> None:
        """Row 54: an unknown topic is not an error; its directory is made, and later messages are
        read."""
        self.begin(self.session.create_consumer("g").subscribe("t", 1000, self.listen))
        self.assertIn(PATHS.topics_sub("t"), self.runtime.tree.nodes)
        [log] = self.topic("t", 1)
        log.append(b"one")
        self.let(10)
        self.assertEqual([b"one"], self.got)

    def test_counts(self) -> None:
        """From zero on, what it has done."""
        (log,) = self.topic("t", 1)
        log.append(b"one", b"three")
        consumer = self.session.create_consumer("g").subscribe("t", listener=self.listen)
        self.assertEqual({0}, set(consumer.counts))
        self.begin(consumer)
        self.let(6)
        counts = consumer.counts._asdict()
        self.assertEqual((2, 48), (counts.pop("delivered"), counts.pop("delivered_bytes")))
        self.assertEqual({1}, {number for number in counts.values() if number}, "one commit")

    def test_row_29_consumes_and_commits(self) -> None:
        """Row 29: messages of all partitions arrive; the positions are stored in ZooKeeper."""
        for n, log in enumerate(self.topic("t", 3)):
            log.append(b"a%d" % n, b"b%d" % n)
        consumer = self.begin(self.session.create_consumer("g").subscribe("t", 1000, self.listen))
        self.assertEqual([b"a0", b"a1", b"a2", b"b0", b"b1", b"b2"], sorted(self.got))
        self.let(6)
        node = self.runtime.tree.nodes[PATHS.offset("g", "t", "2-1")]
        self.assertEqual(b"2-44", node.data)
        self.assertEqual([("t", Partition(2, n)) for n in range(3)], sorted(consumer.assignment))

    def test_row_56_groups_and_members(self) -> None:
        """Row 56: each group receives every message, its members share them."""
        logs = self.topic("t", 4)
        got: dict[str, list[bytes]] = {name: [] for name in ("one", "two", "other")}
        for name, group in (("one", "g"), ("two", "g"), ("other", "h")):
            consumer = self.factory().create_consumer(group)
            self.begin(
                consumer.subscribe(
                    "t", 1000, lambda message, name=name: got[name].append(message.data)
                )
            )
        self.let(10)
        for n, log in enumerate(logs):
            log.append(b"%d" % n)
        self.let(10)
        self.assertEqual([2, 2, 4], [len(each) for each in got.values()])
        self.assertEqual(sorted(got["other"]), sorted(got["one"] + got["two"]))

    def test_later_topic(self) -> None:
        """A topic subscribed after ``complete_subscribe`` is read, too."""
        self.topic("t", 1)[0].append(b"one")
        self.topic("u", 1)[0].append(b"two")
        consumer = self.begin(self.session.create_consumer("g").subscribe("t", 1000, self.listen))
        consumer.subscribe("u", 1000, self.listen)
        self.let(10)
        self.assertEqual([b"one", b"two"], self.got)

    def test_several_kinds_of_listeners(self) -> None:
        """One consumer may have a listener for one topic and iterate another."""
        self.topic("t", 1)[0].append(b"one")
        self.topic("u", 1)[0].append(b"two")
        consumer = self.session.create_consumer("g")
        self.begin(consumer.subscribe("t", 1000, self.listen).subscribe("u"))
        message = self.runtime.run(consumer.__aiter__().__anext__())
        self.assertEqual(([b"one"], b"two"), (self.got, message.data))

    def test_iteration_needs_a_topic(self) -> None:
        """An iteration without a topic is an error."""
        consumer = self.session.create_consumer("g")
        self.assertRaises(InvalidState, consumer.__aiter__)
        consumer.subscribe("t")
        self.assertRaises(InvalidState, consumer.__aiter__)

    def test_own_store(self) -> None:
        """Offsets go to the user's store, which is not closed with the consumer."""

        class Store(MemoryOffsetStore):
            closed = False

            async def close(self) -> None:
                self.closed = True

        store = Store()
        store.offsets["g", "t", Partition(2, 0)] = StoredOffset("t", Partition(2, 0), 23)
        self.topic("t", 1)[0].append(b"one", b"two")
        consumer = self.session.create_consumer("g", store=store)
        self.begin(consumer.subscribe("t", 1000, self.listen))
        self.assertEqual([b"two"], self.got)
        committed = consumer.commit()
        self.assertTrue(self.runtime.result(committed))
        self.assertEqual(46, store.offsets["g", "t", Partition(2, 0)].offset)
        self.close(consumer.close())
        self.assertFalse(store.closed)

    def test_who_waits_for_a_commit_gives_up(self) -> None:
        """The commit goes on, and its outcome counts for the next one."""
        answers: list[Deferred[None]] = []

        class Store(MemoryOffsetStore):
            def commit(self, *_: object) -> Any:
                answers.append(Deferred())
                return answers[-1]

        self.topic("t", 1)[0].append(b"one")
        consumer = self.session.create_consumer("g", store=Store())
        self.begin(consumer.subscribe("t", 1000, self.listen))
        given_up: Any = consumer.commit()
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        answers[0].errback(OSError("no"))
        again = consumer.commit()
        answers[1].callback(None)
        self.assertTrue(self.runtime.result(again))
        self.assertTrue(self.runtime.result(consumer.commit()))
        self.assertEqual(2, len(answers))
        committing = consumer._joining.assignment.committing  # type: ignore[union-attr]
        self.assertEqual((2, 1), (committing.commits, committing.failed_commits))

    def test_who_waits_for_the_group_gives_up(self) -> None:
        """The group is joined nevertheless."""
        self.topic("t", 1)[0].append(b"one")
        registry = MemoryRegistry(self.runtime.tree, reachable=False)
        session = SessionFactory(self.runtime, self.session.config, registry)
        self.addCleanup(self.end, session)
        consumer = session.create_consumer("g").subscribe("t", 1000, self.listen)
        given_up: Any = consumer.complete_subscribe()
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        registry.resume()
        self.let(2)
        self.assertEqual([b"one"], self.got)

    def test_commit_before_subscribing(self) -> None:
        """A commit before any subscription stores no position."""
        self.assertTrue(self.runtime.result(self.session.create_consumer("g").commit()))

    def test_no_zookeeper_at_first(self) -> None:
        """Without a session ``complete_subscribe`` fails, and the group is joined when there is
        one."""
        (log,) = self.topic("t", 1)
        log.append(b"one")
        registry = MemoryRegistry(self.runtime.tree, reachable=False)
        session = SessionFactory(self.runtime, self.session.config, registry)
        consumer = session.create_consumer("g").subscribe("t", listener=self.listen)
        future = consumer.complete_subscribe()
        self.let(31)
        self.assertRaises(NotConnected, self.runtime.result, future)
        self.assertEqual([], self.got)
        registry.resume()
        self.let(5)
        self.assertEqual([b"one"], self.got)

    def test_closed_before_zookeeper_comes(self) -> None:
        """It does not join."""
        self.topic("t", 1)
        registry = MemoryRegistry(self.runtime.tree, reachable=False)
        session = SessionFactory(self.runtime, self.session.config, registry)
        consumer = session.create_consumer("g").subscribe("t", listener=self.listen)
        future = consumer.complete_subscribe()
        self.let(1)
        self.close(consumer.close())
        registry.resume()
        self.let(5)
        self.assertRaises(ClientClosed, self.runtime.result, future)
        self.assertEqual([], [path for path in self.runtime.tree.nodes if "/g/" in path])

    def test_times_of_the_member(self) -> None:
        """Those of the settings, in seconds."""
        consumer = self.begin(self.session.create_consumer("g").subscribe("t", listener=nothing))
        member: Any = consumer._joining.assignment
        self.assertEqual((5.0, 40.0), (member._sync_seconds, member._patience))

    def test_no_zookeeper_until_the_close(self) -> None:
        """Nobody tries any more, and nothing says so."""
        self.topic("t", 1)
        registry = MemoryRegistry(self.runtime.tree, reachable=False)
        session = SessionFactory(self.runtime, self.session.config, registry)
        consumer = session.create_consumer("g").subscribe("t", listener=self.listen)
        future = consumer.complete_subscribe()
        self.let(31)
        self.assertRaises(NotConnected, self.runtime.result, future)
        self.close(consumer.close())
        lines = self.runtime.log.texts("warn")
        self.assertEqual(
            [], [each for each in lines if "still trying" in each and "joined" in each]
        )


class BrowsingTests(ConsumerCase):
    """Browsers of a session with ZooKeeper."""

    def test_partitions(self) -> None:
        """Those that brokers take messages for, with the messages in them."""
        first, second = self.topic("t", 2)
        first.append(b"one")
        second.append(b"two")
        browser = self.runtime.result(self.session.create_topic_browser("t"))
        future: Any = browser.partitions()
        self.let(1)
        self.assertEqual([Partition(2, 0), Partition(2, 1)], self.runtime.result(future))

        async def collect() -> list[bytes]:
            return [message.data async for message in browser]

        found = self.runtime.start(collect())
        self.let(1)
        self.assertEqual([b"one", b"two"], self.runtime.result(found))


class BeginningTests(ConsumerCase):
    """The start of a group without a position."""

    def id_at(self, second: int) -> int:
        """A message id of that second of the test."""
        return (second * 1000) << 22 | 5

    def ms(self, second: int) -> int:
        """That second of the test in ms since 1970."""
        return EPOCH_MS + second * 1000

    def filled(self, log: Log) -> Log:
        """Messages of the seconds 1 to 9."""
        for second in range(1, 10):
            log.append(b"%d" % second, first_id=self.id_at(second))
        return log

    def consumer(self, **settings: Any) -> Consumer:
        """Of one topic, with a listener."""
        consumer: Consumer = self.session.create_consumer("g", **settings)
        return consumer.subscribe("t", 1000, self.listen)

    def test_time(self) -> None:
        """At the first message of the time or later, in each partition; in one without such a
        message later ones are read, and the position is stored."""
        logs = self.topic("t", 3)
        self.filled(logs[0])
        self.filled(logs[1])
        consumer = self.begin(self.consumer(offset_at_ms=self.ms(8)))
        self.assertEqual([b"8", b"8", b"9", b"9"], sorted(self.got))
        logs[2].append(b"new", first_id=self.id_at(10))
        self.let(10)
        self.assertEqual(b"new", self.got[-1])
        self.assertTrue(self.runtime.result(consumer.commit()))
        stored = self.runtime.tree.nodes[PATHS.offset("g", "t", "2-0")].data
        self.assertEqual(b"%d-%d" % (self.id_at(9), logs[0].end), stored)

    def test_stored_offset_comes_first(self) -> None:
        """A group with a position continues there."""
        log = self.filled(self.topic("t", 1)[0])
        self.registry.create(PATHS.offset("g", "t", "2-0"), b"1-21", False)
        self.begin(self.consumer(offset_at_ms=self.ms(8)))
        self.assertEqual((8, 9 * 21), (len(self.got), log.end))

    def test_nothing_that_late(self) -> None:
        """The end, which is stored although there is no message."""
        self.filled(self.topic("t", 1)[0])
        consumer = self.begin(self.consumer(offset_at_ms=self.ms(100)))
        self.assertEqual([], self.got)
        self.assertTrue(self.runtime.result(consumer.commit()))
        self.assertEqual(b"-1-189", self.runtime.tree.nodes[PATHS.offset("g", "t", "2-0")].data)

    def test_java_ids(self) -> None:
        """Ids of Java brokers have no time: all messages are read, and the log says so."""
        self.topic("t", 1)[0].append(b"one", b"two", first_id=-77)
        self.begin(self.consumer(offset_at_ms=self.ms(100)))
        self.assertEqual([b"one", b"two"], self.got)
        (line,) = [each for each in self.runtime.log.texts("warn") if "since 1970" in each]
        self.assertIn("is not known, the group begins at the beginning: t 2-0: the id -76", line)

    def test_seek_before_the_place_is_known(self) -> None:
        """A seek of the user takes precedence."""
        self.filled(self.topic("t", 1)[0])
        consumer = self.consumer(offset_at_ms=self.ms(2))
        future = consumer.complete_subscribe()
        while not consumer.assignment:
            self.runtime.advance(0.1)
        consumer.seek("t", Partition(2, 0), 8 * 21)
        self.let(2)
        self.runtime.result(future)
        self.assertEqual([b"9"], self.got)

    def test_broker_that_refuses(self) -> None:
        """The search is repeated until the broker answers; meanwhile no position is stored."""
        self.filled(self.topic("t", 1)[0])
        self.broker.refusals["t", 0] = 500
        consumer = self.begin(self.consumer(offset_at_ms=self.ms(8)))
        self.assertTrue(self.runtime.result(consumer.commit()))
        self.assertNotIn(PATHS.offset("g", "t", "2-0"), self.runtime.tree.nodes)
        self.broker.refusals.clear()
        self.let(10)
        self.assertEqual([b"8", b"9"], self.got)

    def test_settings_that_exclude_each_other(self) -> None:
        """A time and an offset together are refused."""
        for other in ({"offset": 5}, {"always_consume_from_max_offset": True}):
            with self.assertRaisesRegex(InvalidConsumerConfig, "both offset_at_ms and [a-z_]+ are"):
                self.session.create_consumer("g", offset_at_ms=1, **other)
        with self.assertRaisesRegex(InvalidConsumerConfig, "offset_at_ms is -1; milliseconds"):
            self.session.create_consumer("g", offset_at_ms=-1)
        config = ConsumerConfig(group="g", offset_at_ms=1).from_max_offset(True)
        self.assertIsNone(config.offset_at_ms)


class AcknowledgingTests(ConsumerCase):
    """``ack`` and ``rollback``."""

    def begin_iteration(self, **more: Any) -> tuple[Consumer, Any]:
        """A consumer of one partition with three messages."""
        self.topic("t", 1)[0].append(b"one", b"two", b"six")
        consumer = self.session.create_consumer("g", max_fetch_retries=1)
        self.begin(consumer.subscribe("t", 1000, **more))
        return consumer, consumer.__aiter__()

    def offset(self, consumer: Consumer) -> int:
        """The stored position."""
        return consumer.assignment["t", Partition(2, 0)].offset

    def next(self, iteration: Any) -> ReceivedMessage:
        """The next message, after a pause if needed."""
        future = self.runtime.start(iteration.__anext__())
        self.let(3)
        found = self.runtime.result(future)
        assert isinstance(found, ReceivedMessage)
        return found

    def test_iteration(self) -> None:
        """In an iteration ``ack`` and ``rollback`` are about the message taken last."""
        consumer, iteration = self.begin_iteration()
        consumer.ack(self.next(iteration))
        self.assertEqual(23, self.offset(consumer))
        consumer.rollback(self.next(iteration))
        message = self.next(iteration)
        self.assertEqual(b"two", message.data)
        consumer.rollback(message)
        self.assertEqual(b"six", self.next(iteration).data)
        self.assertIn("offset 23, id 2 failed 2 times and was rejected", self.warnings_())

    def warnings_(self) -> str:
        """The log."""
        return "\n".join(self.runtime.log.texts("warn"))

    def test_rejected_in_an_iteration_comes_again(self) -> None:
        """A rejected message is kept, and delivered again by the recovery."""
        consumer, iteration = self.begin_iteration()
        for _ in range(2):
            consumer.rollback(self.next(iteration))
        data = [self.next(iteration).data for _ in range(2)]
        future = self.runtime.start(iteration.__anext__())
        self.let(310)
        message = self.runtime.result(future)
        self.assertEqual([b"two", b"six", b"one"], [*data, message.data])
        self.assertIsInstance(message, RecoveredMessage)
        self.assertEqual(69, self.offset(consumer))
        consumer.rollback(message)
        later = self.runtime.start(iteration.__anext__())
        self.let(310)
        again = self.runtime.result(later)
        consumer.ack(again)
        last: Any = self.runtime.start(iteration.__anext__())
        self.let(310)
        self.assertEqual(b"one", again.data)
        self.assertNoResult(last)
        last.addErrback(lambda failure: failure.trap(StopAsyncIteration))  # when all is closed

    def test_row_40_manual(self) -> None:
        """Row 40: with a listener, messages are acknowledged and rolled back at the consumer."""
        kept: list[ReceivedMessage] = []
        consumer, _ = self.begin_iteration_with(kept.append)
        self.assertEqual((3, 0), (len(kept), self.offset(consumer)))
        consumer.ack(kept[0])
        self.assertEqual(23, self.offset(consumer))
        consumer.rollback(kept[2])
        self.let(2)
        self.assertEqual([b"one", b"two", b"six", b"two", b"six"], [m.data for m in kept])

    def begin_iteration_with(self, listener: Any) -> tuple[Consumer, None]:
        """The same with a listener, and manual acknowledgement."""
        self.topic("t", 1)[0].append(b"one", b"two", b"six")
        consumer = self.session.create_consumer("g")
        self.begin(consumer.subscribe("t", 1000, listener, auto_ack=False))
        return consumer, None

    def test_seek(self) -> None:
        """A seek reads a partition from another offset; messages are delivered again."""
        self.topic("t", 1)[0].append(b"one", b"two")
        consumer = self.begin(self.session.create_consumer("g").subscribe("t", 1000, self.listen))
        partition = Partition(2, 0)
        consumer.seek("t", partition, 23)
        self.let(1)
        consumer.seek("t", partition, 0)
        self.let(1)
        self.assertEqual([b"one", b"two", b"two", b"one", b"two"], self.got)
        consumer.seek("t", partition, MAX_OFFSET)
        self.let(1)
        self.assertEqual((5, 46), (len(self.got), self.offset(consumer)))
        consumer.seek("t", partition, 23)
        self.assertEqual(-1, consumer.assignment["t", partition].message_id)
        self.assertRaises(InvalidArgument, consumer.seek, "t", partition, -1)
        self.assertRaises(InvalidState, consumer.seek, "t", Partition(2, 9), 0)

    def test_seek_while_the_listener_is_busy(self) -> None:
        """A message in the listener's hands during a seek does not change the position."""
        waiting: list[Deferred[None]] = []

        def listener(message: ReceivedMessage) -> Deferred[None]:
            self.listen(message)
            waiting.append(Deferred())
            return waiting[-1]

        self.topic("t", 1)[0].append(b"one", b"two", b"six")
        consumer = self.begin(self.session.create_consumer("g").subscribe("t", 1000, listener))
        consumer.seek("t", Partition(2, 0), 46)
        waiting[0].callback(None)
        self.assertEqual(46, self.offset(consumer))
        self.let(2)
        self.assertEqual([b"one", b"six"], self.got)

    def test_seek_in_an_iteration(self) -> None:
        """Messages that were fetched before the seek are not delivered."""
        consumer, iteration = self.begin_iteration()
        self.next(iteration)
        consumer.seek("t", Partition(2, 0), 46)
        self.assertEqual(b"six", self.next(iteration).data)
        self.assertEqual(46, self.offset(consumer))

    def test_not_ours(self) -> None:
        """A partition that another member owns by now is not acknowledged."""
        consumer = self.session.create_consumer("g").subscribe("t", 1000, nothing, auto_ack=False)
        message = ReceivedMessage("t", Partition(2, 0), 0, 1, 0, b"")
        for method in (consumer.ack, consumer.rollback):
            self.assertRaisesRegex(InvalidState, "not this consumer's any more", method, message)


class RejectionTests(ConsumerCase):
    """Messages that fail too often."""

    def failing(self, times: int, reject: Any = None) -> Consumer:
        """A listener that fails this often for the first message; ``got`` has the tries."""
        self.topic("t", 1)[0].append(b"bad", b"good")

        def listener(message: ReceivedMessage) -> None:
            self.got.append(message.data)
            if message.data == b"bad" and self.got.count(b"bad") <= times:
                raise ValueError("cannot do it")

        consumer = self.session.create_consumer("g")
        if reject is not None:
            self.assertIs(consumer, consumer.on_rejection(reject))
        return self.begin(consumer.subscribe("t", 1000, listener))

    def test_row_37_recovered(self) -> None:
        """Row 37: a message that fails 7 times with 5 retries is delivered 6 times, and twice by
        the recovery; the other once."""
        self.failing(7)
        self.let(30)
        self.assertEqual([b"bad"] * 6 + [b"good"], self.got)
        self.let(650)
        self.assertEqual([b"bad"] * 6 + [b"good"] + [b"bad"] * 2, self.got)

    def test_topic_of_later(self) -> None:
        """What is kept of a topic that is subscribed later comes as well."""
        consumer = self.failing(0)
        message = ReceivedMessage("u", Partition(2, 0), 0, 1, 0, b"kept")
        self.runtime.run(self.session.recovery.keep(message, "g"))
        del self.got[:]
        consumer.subscribe("u", 1000, self.listen)
        self.let(350)
        self.assertEqual([b"kept"], self.got)

    def test_own_strategy(self) -> None:
        """A user's strategy gets the message instead."""
        rejected: list[bytes] = []
        self.failing(1000, lambda message: rejected.append(message.data))
        self.let(650)
        self.assertEqual(([b"bad"], [b"bad"] * 6 + [b"good"]), (rejected, self.got))

    def test_disk_full(self) -> None:
        """A message that cannot be kept is delivered again until it can."""
        path = self.session.config.recover_path
        path.write_bytes(b"a file, no directory")
        self.failing(1000)
        self.let(60)
        self.assertEqual([b"bad"] * 6, self.got)
        self.assertIn("could not be rejected either", "\n".join(self.runtime.log.texts("failure")))
        path.unlink()
        self.let(10)
        self.assertEqual([b"bad"] * 6 + [b"good"], self.got)

    def test_row_32_rollback_in_a_coroutine(self) -> None:
        """Row 32: a listener that is a coroutine rolls back by raising, too."""
        self.topic("t", 1)[0].append(b"one")

        async def listener(message: ReceivedMessage) -> None:
            self.got.append(message.data)
            if len(self.got) < 3:
                raise Rollback

        self.begin(self.session.create_consumer("g").subscribe("t", 1000, listener))
        self.let(10)
        self.assertEqual([b"one"] * 3, self.got)


class LookupTests(ConsumerCase):
    """``get`` and offsets at a consumer."""

    def ask(self, future: Any) -> Any:
        """The result, with the broker's replies."""
        self.let(1)
        return self.runtime.result(future)

    def test_row_83(self) -> None:
        """Row 83: messages and offsets of any partition, without subscription or position."""
        log = self.topic("t", 2)[1]
        log.append(b"one", b"two")
        consumer = self.session.create_consumer("g")
        partition = Partition(2, 1)
        found = self.ask(consumer.get("t", partition, 23))
        self.assertEqual([b"two"], [message.data for message in found])
        self.assertIsNone(self.ask(consumer.get("t", partition, 46)))
        self.assertEqual(46, self.ask(consumer.offset("t", partition, 1 << 40)))
        self.assertEqual(0, self.ask(consumer.offset_at("t", partition, 0)))
        self.assertEqual("g", self.broker.asked[0].words[2])

    def test_moved(self) -> None:
        """Row 83: the error of a 301 has the new offset."""
        self.topic("t", 1)
        self.broker.log("t", 0, 500).append(b"one")
        consumer = self.session.create_consumer("g")
        error = self.assertRaises(Moved, self.ask, consumer.get("t", Partition(2, 0), 0))
        self.assertEqual("500", str(error))

    def test_arguments(self) -> None:
        """Invalid sizes and times are refused."""
        consumer = self.session.create_consumer("g")
        for size, timeout in ((0, 1.0), (1, 0.0)):
            future = consumer.get("t", Partition(2, 0), 0, size, timeout)
            self.assertRaises(InvalidArgument, self.runtime.result, future)


class EndTests(ConsumerCase):
    """``close``."""

    def test_row_55_leaves_the_factory(self) -> None:
        """Row 55: a closed consumer is not a child of its factory; its topics are free again."""
        consumer = self.begin(self.session.create_consumer("g").subscribe("t", 1000, nothing))
        other = self.session.create_consumer("g").subscribe("u", 1000, nothing)
        self.close(consumer.close())
        self.close(consumer.close())
        self.assertEqual([other], self.session._children)
        self.assertEqual({("g", "u"): other}, self.session.subscriptions)
        self.assertRaises(ClientClosed, consumer.subscribe, "t", 1000, nothing)
        self.assertRaises(ClientClosed, self.runtime.result, consumer.complete_subscribe())
        other.subscribe("t", 1000, nothing)

    def test_unused(self) -> None:
        """A consumer without any call closes as others do."""
        consumer = self.session.create_consumer("g")
        self.runtime.result(consumer.close())
        self.runtime.result(self.session.close())

    def test_positions_are_stored(self) -> None:
        """Processed messages are committed at the end, and the member leaves the group."""
        self.topic("t", 1)[0].append(b"one")
        consumer = self.begin(self.session.create_consumer("g").subscribe("t", 1000, self.listen))
        self.close(consumer.close())
        self.assertEqual(b"1-23", self.runtime.tree.nodes[PATHS.offset("g", "t", "2-0")].data)
        self.assertEqual([], list(self.runtime.tree.nodes[PATHS.consumer_ids("g")].children))

    def test_row_48_waits_for_listeners(self) -> None:
        """Row 48: the close waits for a busy listener, and stores its progress."""
        waiting: Deferred[None] = Deferred()
        self.topic("t", 1)[0].append(b"one", b"two")
        consumer = self.session.create_consumer("g").subscribe("t", 1000, lambda m: waiting)
        self.begin(consumer)
        closing = consumer.close()
        self.let(20)
        self.assertNoResult(closing)
        waiting.callback(None)
        self.close(closing)
        self.assertEqual(b"1-23", self.runtime.tree.nodes[PATHS.offset("g", "t", "2-0")].data)

    def test_hanging_listener(self) -> None:
        """A listener that hangs ends after the configured time, without acknowledgement."""
        self.topic("t", 1)[0].append(b"one")
        consumer = self.session.create_consumer("g", stop_timeout_ms=5000)
        self.begin(consumer.subscribe("t", 1000, lambda message: Deferred()))
        closing = consumer.close()
        self.let(6)
        self.runtime.result(closing)
        self.assertNotIn(PATHS.offset("g", "t", "2-0"), self.runtime.tree.nodes)

    def test_iteration_ends(self) -> None:
        """A loop over the messages of a consumer ends when the consumer is closed."""
        self.topic("t", 1)
        consumer = self.begin(self.session.create_consumer("g").subscribe("t"))

        async def loop() -> None:
            async for message in consumer:
                self.got.append(message)

        looping = self.runtime.start(loop())
        self.close(consumer.close())
        self.assertIsNone(self.runtime.result(looping))

    def recovered(self) -> tuple[Consumer, Any, Any]:
        """Two kept messages on their way into an iteration, the first of which the user has; the
        consumer, the iteration, and that message."""
        self.topic("t", 1)
        for number in (1, 2):
            message = ReceivedMessage("t", Partition(2, 0), 0, number, 0, b"%d" % number)
            self.runtime.run(self.session.recovery.keep(message, "g"))
        consumer = self.begin(self.session.create_consumer("g").subscribe("t"))
        iteration = consumer.__aiter__()
        future = self.runtime.start(iteration.__anext__())
        self.let(6)
        return consumer, iteration, self.runtime.result(future)

    def test_kept_messages_do_not_hold_up_the_end(self) -> None:
        """Kept messages that the user of an iteration has not taken stay kept, and do not delay the
        close."""
        consumer, _, message = self.recovered()
        self.assertIsInstance(message, RecoveredMessage)
        self.close(consumer.close())
        self.assertEqual(2, self.runtime.run(self.session.recovery.count("t", "g")))

    def test_listener_that_hangs_on_a_kept_message(self) -> None:
        """The close waits for it as long as for any other listener."""
        self.topic("t", 1)
        message = ReceivedMessage("t", Partition(2, 0), 0, 1, 0, b"1")
        self.runtime.run(self.session.recovery.keep(message, "g"))
        waiting: Deferred[None] = Deferred()
        consumer = self.session.create_consumer("g", stop_timeout_ms=20000)
        self.begin(consumer.subscribe("t", 1000, lambda message: waiting))
        self.let(6)
        closing = consumer.close()
        ended: list[object] = []
        closing.addCallback(ended.append)  # type: ignore[attr-defined]
        self.let(18)
        self.assertEqual([], ended)
        self.let(10)
        self.assertEqual([None], ended)
        self.assertEqual(1, self.runtime.run(self.session.recovery.count("t", "g")))
        waiting.callback(None)

    def test_kept_message_acknowledged_before_the_end(self) -> None:
        """An acknowledged kept message is not delivered again."""
        consumer, _, message = self.recovered()
        consumer.ack(message)
        self.close(consumer.close())
        self.assertEqual(1, self.runtime.run(self.session.recovery.count("t", "g")))

    def test_who_waits_for_close_gives_up(self) -> None:
        """The close goes on, to the same end."""
        waiting: Deferred[None] = Deferred()
        self.topic("t", 1)[0].append(b"one", b"two")
        consumer = self.session.create_consumer("g").subscribe("t", 1000, lambda m: waiting)
        self.begin(consumer)
        given_up: Any = consumer.close()
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        closing = consumer.close()
        self.let(2)
        self.assertNoResult(closing)
        waiting.callback(None)
        self.close(closing)
        self.assertEqual(b"1-23", self.runtime.tree.nodes[PATHS.offset("g", "t", "2-0")].data)
        self.assertEqual([], list(self.runtime.tree.nodes[PATHS.consumer_ids("g")].children))

    def test_store_that_does_not_close(self) -> None:
        """An error at the end does not keep connections open."""

        class Store(MemoryOffsetStore):
            async def close(self) -> None:
                raise OSError("no")

        self.topic("t", 1)
        consumer = self.session.create_consumer("g", store=Store()).subscribe("t", 1000, nothing)
        consumer.own_store()
        self.begin(consumer)
        future = consumer.get("t", Partition(2, 0), 0)
        self.let(1)
        self.runtime.result(future)
        self.close(consumer.close())
        self.assertIn("Closing the consumer of group g", self.runtime.log.texts("failure")[0])
        self.assertEqual([], self.session.connections.connected_urls())

    def test_with_the_factory(self) -> None:
        """Closing the factory closes its consumers, and leaves no timer behind."""
        self.topic("t", 1)[0].append(b"one")
        consumer = self.begin(self.session.create_consumer("g").subscribe("t", 1000, self.listen))
        self.close(self.session.close())
        self.assertEqual({}, dict(consumer.assignment))
        self.assertRaises(ClientClosed, consumer.subscribe, "u", 1000, nothing)
        self.assertRaises(ClientClosed, self.session.create_consumer, "g")
        self.runtime.advance(100)
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    def test_async_with(self) -> None:
        """``async with`` closes it."""

        async def use() -> Consumer:
            async with self.session.create_consumer("g") as consumer:
                assert isinstance(consumer, Consumer)
                return consumer

        consumer = self.runtime.run(use())
        self.assertRaises(ClientClosed, consumer.subscribe, "t", 1000, nothing)


class BroadcastTests(ConsumerCase):
    """Groups of one machine each."""

    def test_row_84_group(self) -> None:
        """Row 84: the group has the host with hyphens; the given settings stay as they are."""
        config = ConsumerConfig(group="g", max_fetch_retries=2)
        for host, group in (
            ("10.0.0.7", "g-10-0-0-7"),
            ("box.example.com", "g-box-example-com"),
            ("[fe80::1%eth0]", "g-fe80--1-eth0"),
        ):
            shared = broadcast_config(config, host)
            self.assertEqual((group, 2), (shared.group, shared.max_fetch_retries))
        self.assertEqual("g", config.group)
        self.assertRegex(broadcast_config(config).group, r"\Ag-[^.:\[\]]+\Z")

    def test_consumer(self) -> None:
        """Its offsets are in a local file, by default the original's."""
        store = MemoryOffsetStore()
        self.topic("t", 1)[0].append(b"one")
        consumer = self.session.create_broadcast_consumer("g", store=store)
        self.assertTrue(consumer.group.startswith("g-"))
        self.begin(consumer.subscribe("t", 1000, self.listen))
        self.assertEqual([b"one"], self.got)
        self.close(consumer.close())
        self.assertEqual([consumer.group], [key[0] for key in store.offsets])

    def test_default_store(self) -> None:
        """Without a store it is a file of the home directory, closed with the consumer."""
        self.patch(LocalFileOffsetStore, "__init__", lambda store, runtime: None)
        closed: list[object] = []

        async def close(store: object) -> None:
            closed.append(store)

        self.patch(LocalFileOffsetStore, "close", close)
        consumer = self.session.create_broadcast_consumer("g")
        self.runtime.result(consumer.close())
        self.assertEqual(1, len(closed))
