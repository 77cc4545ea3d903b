"""A consumer of one broker, without ZooKeeper."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.factory import SessionFactory
from metamorphosis.client.model import Partition, StoredOffset
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.client.settings import MAX_OFFSET, ClientConfig
from metamorphosis.errors import (
    InternalServerError,
    InvalidState,
    NotConnected,
    OffsetStoreError,
)
from metamorphosis.testing.runtime import MemoryRuntime
from tests.support.memorybroker import MemoryBroker


class DirectCase(SynchronousTestCase):
    """One consumer and its broker."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.broker = MemoryBroker(self.runtime)
        self.session = SessionFactory(
            self.runtime, ClientConfig(broker="b:1", recover_path=self.mktemp())
        )
        self.store = MemoryOffsetStore()
        self.got: list[tuple[str, int, bytes]] = []
        self.consumer: Any = None
        self.addCleanup(self.end)

    def end(self) -> None:
        """Close the factory."""
        closing = self.session.close()
        self.let(1)
        self.runtime.result(closing)

    def begin(self, *topics: str, **settings: Any) -> Any:
        """A consumer of these topics; the result of ``complete_subscribe``."""
        self.consumer = self.session.create_consumer("g", store=self.store, **settings)
        for topic in topics or ("t",):
            self.consumer.subscribe(
                topic,
                1000,
                lambda message: self.got.append(
                    (message.topic, message.partition.number, message.data)
                ),
            )
        future = self.consumer.complete_subscribe()
        self.broker.serve()
        return future

    def let(self, seconds: float) -> None:
        """Let time pass, with the broker's replies; held requests are answered after their time."""
        for _ in range(round(seconds * 2)):
            self.runtime.advance(0.5)
            self.broker.serve()

    def stored(self, partition: int = 1) -> int | None:
        """The committed positions."""
        found = self.store.offsets.get(("g", "t", Partition(0, partition)))
        return None if found is None else found.offset

    def reads(self) -> list[str]:
        """The partitions that are read."""
        return sorted(f"{topic} {partition}" for topic, partition in self.consumer.assignment)


class ConnectionTests(DirectCase):
    """The connection to the one broker, which its session has as well."""

    def test_closed_consumer(self) -> None:
        """It is not an user any more."""
        self.runtime.result(self.begin(partition="0-1"))
        users = self.session.connections._shared["meta://b:1"].users
        self.assertIn(id(self.consumer._joining), users)
        closing = self.consumer.close()
        self.let(10)
        self.runtime.result(closing)
        self.assertEqual({id(self.session)}, set(users))


class DirectTests(DirectCase):
    """The partitions that are read, and their start."""

    def test_all_partitions(self) -> None:
        """Every partition in which the broker has messages is read, and partition 0."""
        for number in (1, 3):
            self.broker.log("t", number).append(b"m%d" % number)
        self.broker.log("u", 7).append(b"other")
        self.runtime.result(self.begin())
        self.assertEqual([("t", 1, b"m1"), ("t", 3, b"m3")], sorted(self.got))
        self.assertEqual(["t 0-0", "t 0-1", "t 0-3"], self.reads())

    def test_configured_partition(self) -> None:
        """With a partition in the settings only that one is read, without a request for the
        others."""
        for number in (1, 3):
            self.broker.log("t", number).append(b"m%d" % number)
        self.runtime.result(self.begin(partition="5-3"))
        self.assertEqual([("t", 3, b"m3")], self.got)
        self.assertEqual({"get"}, {asked.words[0] for asked in self.broker.asked})
        self.assertEqual(["t 5-3"], self.reads())

    def test_several_topics(self) -> None:
        """Each topic has its partitions."""
        self.broker.log("t", 0).append(b"one")
        self.broker.log("u", 1).append(b"two")
        self.runtime.result(self.begin("t", "u"))
        self.assertEqual([("t", 0, b"one"), ("u", 1, b"two")], sorted(self.got))

    def test_new_partition(self) -> None:
        """A partition that gets its first message later is found, and read from its beginning, also
        by a consumer that started at the end."""
        self.broker.log("t", 0).append(b"old")
        self.runtime.result(self.begin(offset=MAX_OFFSET))
        self.broker.log("t", 4).append(b"new")
        self.let(6)
        self.assertEqual([("t", 4, b"new")], self.got)

    def test_partition_that_goes_and_comes(self) -> None:
        """A partition that the broker does not list any more is given away, with its position
        stored; when it is listed again it is read on."""
        for number in (1, 3):
            self.broker.log("t", number).append(b"m%d" % number)
        self.runtime.result(self.begin(commit_offset_period_ms=10**6))
        gone = self.broker.logs.pop(("t", 1))
        self.let(6)
        self.assertEqual((["t 0-0", "t 0-3"], 22), (self.reads(), self.stored()))
        self.broker.asked.clear()
        self.let(6)
        self.assertNotIn(
            "1", [asked.words[3] for asked in self.broker.asked if len(asked.words) > 6]
        )
        gone.append(b"again")
        self.broker.logs["t", 1] = gone
        self.let(6)
        self.assertEqual([("t", 1, b"m1"), ("t", 1, b"again")], [m for m in self.got if m[1] == 1])

    def test_stored_offsets(self) -> None:
        """Reading continues at the stored position, and progress is stored."""
        self.broker.log("t", 1).append(b"one", b"two")
        self.store.offsets["g", "t", Partition(0, 1)] = StoredOffset("t", Partition(0, 1), 23)
        self.runtime.result(self.begin())
        self.assertEqual([("t", 1, b"two")], self.got)
        self.let(6)
        self.assertEqual(46, self.stored())

    def test_row_45_start_at_the_end(self) -> None:
        """Row 45: a new group that starts at the end receives only later messages, also in
        partitions that were empty."""
        log = self.broker.log("t", 1)
        log.append(b"old")
        self.runtime.result(self.begin(offset=MAX_OFFSET))
        self.assertEqual([], self.got)
        log.append(b"new")
        self.broker.log("t", 0).append(b"first")
        self.broker.held.clear()
        self.let(20)
        self.assertEqual([("t", 0, b"first"), ("t", 1, b"new")], sorted(self.got))

    def test_later_topic(self) -> None:
        """A topic that is subscribed later is read, too."""
        self.broker.log("t", 1).append(b"one")
        self.broker.log("u", 1).append(b"two")
        self.runtime.result(self.begin())
        self.consumer.subscribe("u", 1000, lambda message: self.got.append(("u", 1, message.data)))
        self.let(1)
        self.assertEqual([("t", 1, b"one"), ("u", 1, b"two")], self.got)


class TroubleTests(DirectCase):
    """Faults."""

    def test_no_statistics(self) -> None:
        """A broker that does not list its partitions is asked again; registering fails."""
        self.broker.log("t", 0).append(b"one")
        stats = self.broker._stats
        self.broker._stats = lambda asked: self.broker._result(  # type: ignore[method-assign]
            asked, 500, b"busy"
        )
        future = self.begin()
        self.assertRaises(InternalServerError, self.runtime.result, future)
        self.let(12)
        self.assertEqual(1, len(self.runtime.log.texts("warn")))
        refused = self.broker._stats
        self.broker._stats = stats  # type: ignore[method-assign]
        self.let(6)
        self.assertEqual([("t", 0, b"one")], self.got)
        self.broker._stats = refused  # type: ignore[method-assign]
        self.runtime.log.lines.clear()
        self.let(12)
        lines = self.runtime.log.texts("warn")
        self.assertEqual(1, len([each for each in lines if "No partitions are known" in each]))

    def test_no_broker(self) -> None:
        """Without the broker registering fails, as the start of the factory does."""
        self.session = SessionFactory(
            self.runtime, ClientConfig(broker="c:1", recover_path=self.mktemp())
        )
        future = self.begin()
        self.runtime.advance(81)
        self.assertRaises(NotConnected, self.runtime.result, future)

    def test_store_that_fails(self) -> None:
        """While the store does not return a position no message is read; later it is."""
        self.broker.log("t", 0).append(b"one")
        load = self.store.load

        async def fail(*args: object) -> None:
            raise OSError("database is away")

        self.store.load = fail  # type: ignore[method-assign, assignment]
        future = self.begin()
        self.assertRaises(OffsetStoreError, self.runtime.result, future)
        self.assertEqual([], self.got)
        self.store.load = load  # type: ignore[method-assign]
        self.let(6)
        self.assertEqual([("t", 0, b"one")], self.got)

    def test_store_that_fails_at_the_end(self) -> None:
        """A start at the end stays one after a failure of the store: earlier messages are not
        delivered."""
        log = self.broker.log("t", 0)
        log.append(b"old")
        load = self.store.load

        async def fail(*args: object) -> None:
            raise OSError("database is away")

        self.store.load = fail  # type: ignore[method-assign, assignment]
        self.assertRaises(OffsetStoreError, self.runtime.result, self.begin(offset=MAX_OFFSET))
        self.store.load = load  # type: ignore[method-assign]
        self.let(12)
        self.assertEqual([], self.got)
        log.append(b"new")
        self.broker.held.clear()
        self.let(20)
        self.assertEqual([("t", 0, b"new")], self.got)

    def test_twice(self) -> None:
        """A second registration is refused."""
        self.runtime.result(self.begin())
        self.assertRaises(InvalidState, self.runtime.result, self.consumer.complete_subscribe())

    def test_close(self) -> None:
        """The close stores the positions, stops the requests and releases the connection."""
        self.broker.log("t", 1).append(b"one")
        self.runtime.result(self.begin())
        closing = self.consumer.close()
        self.let(1)
        self.runtime.result(closing)
        self.assertEqual((23, {}), (self.stored(), dict(self.consumer.assignment)))
        count = len(self.broker.asked)
        self.let(30)
        self.assertEqual(count, len(self.broker.asked))
