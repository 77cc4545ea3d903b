"""The lag of a group, by the store, the brokers and ZooKeeper."""

from __future__ import annotations

from typing import Any

from metamorphosis.client.model import Lag, Partition, StoredOffset
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.errors import (
    ClientClosed,
    InternalServerError,
    InvalidArgument,
    NoPartition,
    OffsetStoreError,
    RequestTimeout,
)
from tests.unit.client.consumer.test_consumer import PATHS, ConsumerCase, TopicBroker

FIRST, SECOND = Partition(2, 0), Partition(2, 1)


class LagTests(ConsumerCase):
    """``committed``, ``end`` and ``lag``."""

    def ask(self, future: Any, seconds: float = 1) -> Any:
        """The result, with the broker's replies."""
        self.let(seconds)
        return self.runtime.result(future)

    def stored(self, partition: str, text: bytes) -> None:
        """Another member has stored this position."""
        self.registry.create(PATHS.offset("g", "t", partition), text, False)

    def test_partitions_of_other_members(self) -> None:
        """Every partition, without joining: with and without a position, deleted and beyond."""
        first, _ = self.topic("t", 2)
        first.append(b"one", b"two")
        self.stored("2-0", b"1-23")
        consumer = self.session.create_consumer("g")
        lags = self.ask(consumer.lag("t"))
        self.assertEqual({FIRST: Lag(23, 1, 0, 46), SECOND: Lag(None, -1, 0, 0)}, lags)
        self.assertEqual([23, 0], [each.bytes for each in lags.values()])
        self.assertEqual(StoredOffset("t", FIRST, 23, 1), self.ask(consumer.committed("t", FIRST)))
        self.assertEqual(46, self.ask(consumer.end("t", FIRST)))
        self.assertEqual([], list(self.runtime.tree.nodes[PATHS.offset("g", "t", "2-0")].children))
        self.assertNotIn(PATHS.consumer_ids("g"), self.runtime.tree.nodes)

    def test_bytes(self) -> None:
        """Deleted unread messages do not count; a position beyond the end is a lag of 0."""
        for committed, expected in ((None, 50), (0, 50), (120, 30), (150, 0), (999, 0)):
            self.assertEqual(expected, Lag(committed, -1, 100, 150).bytes)
        self.assertEqual(50, Lag(None, -1, 0, 50).bytes)
        for begin, end in ((None, None), (0, None), (None, 50)):
            self.assertIsNone(Lag(5, -1, begin, end, NoPartition("away")).bytes)

    def test_unknown_topic(self) -> None:
        """It has no partitions, and no node is made in ZooKeeper."""
        consumer = self.session.create_consumer("g")
        self.assertEqual({}, self.ask(consumer.lag("t")))
        self.assertNotIn(PATHS.topics_sub("t"), self.runtime.tree.nodes)
        self.assertRaises(NoPartition, self.ask, consumer.end("t", FIRST))

    def test_partition_without_messages(self) -> None:
        """Its broker does not know it yet: it begins and ends at 0."""
        self.topic("t", 1)
        self.broker.logs.clear()
        consumer = self.session.create_consumer("g")
        self.assertEqual({FIRST: Lag(None, -1, 0, 0)}, self.ask(consumer.lag("t")))
        self.assertEqual(0, self.ask(consumer.end("t", FIRST)))

    def test_nodes_that_say_nothing(self) -> None:
        """A broker whose node has no number of partitions has none, and hides no other one."""
        self.topic("t", 1)
        for name, data in (("3-m", b"garbage"), ("4-m", b""), ("x-m", b"1"), ("5", b"1")):
            self.registry.create(f"{PATHS.topics_sub('t')}/{name}", data, True)
        consumer = self.session.create_consumer("g")
        self.assertEqual({FIRST: Lag(None, -1, 0, 0)}, self.ask(consumer.lag("t")))

    def test_one_broker_is_away(self) -> None:
        """The other partitions have a lag, this one has the reason."""
        self.topic("t", 1)[0].append(b"one")
        for number, data in ((3, b"meta://c:1"), (4, None)):
            if data is not None:
                self.registry.create(PATHS.master(number), data, True)
            name = f"{number}-m"
            data = TopicBroker(1, name).encode()
            self.registry.create(f"{PATHS.topics_sub('t')}/{name}", data, True)
        lags = self.ask(self.session.create_consumer("g").lag("t", 2.0), 3)
        self.assertEqual(Lag(None, -1, 0, 23), lags[FIRST])
        self.assertEqual({FIRST, Partition(3, 0), Partition(4, 0)}, set(lags))
        texts = [str(lags[Partition(each, 0)].fault) for each in (3, 4)]
        self.assertIn("meta://c:1 cannot be reached within 2 s", texts[0])
        self.assertIn("t 4-0: ZooKeeper lists no broker that has it", texts[1])
        self.assertIsNone(lags[Partition(3, 0)].bytes)

    def test_read_only_topic(self) -> None:
        """A topic that refuses messages still has a lag; a slave answers while its master is
        away."""
        self.registry.create(PATHS.slave(5, 0), b"meta://b:1", True)
        data = TopicBroker(1, "5-s0").encode()
        self.registry.create(f"{PATHS.topics_sub('t')}/5-s0", data, True)
        self.broker.log("t", 0).append(b"one")
        self.assertEqual(23, self.ask(self.session.create_consumer("g").end("t", Partition(5, 0))))

    def test_refusal(self) -> None:
        """An invalid reply is a fault of its partition, and the error of ``end``."""
        self.topic("t", 1)
        self.broker._offset = lambda asked: self.broker._result(  # type: ignore[method-assign]
            asked, 500, b"no"
        )
        consumer = self.session.create_consumer("g")
        self.assertIsInstance(self.ask(consumer.lag("t"))[FIRST].fault, InternalServerError)
        self.assertRaises(InternalServerError, self.ask, consumer.end("t", FIRST))

    def test_store_that_fails(self) -> None:
        """If the store raises or does not answer, its error is raised."""
        self.topic("t", 1)

        class Store(MemoryOffsetStore):
            outcome: Any = ZeroDivisionError("on purpose")

            async def load(self, topic: str, group: str, partition: Partition) -> Any:
                if isinstance(self.outcome, Exception):
                    raise self.outcome
                await self.outcome

        store = Store()
        consumer = self.session.create_consumer("g", store=store)
        for future in (consumer.lag("t"), consumer.committed("t", FIRST)):
            error = self.assertRaises(OffsetStoreError, self.ask, future)
            self.assertIn("offset of t 2-0, group g: ZeroDivisionError", str(error))
        store.outcome = self.runtime.api.create_future()
        error = self.assertRaises(OffsetStoreError, self.ask, consumer.lag("t", 2.0), 3)
        self.assertIsInstance(error.__cause__, RequestTimeout)
        self.stored("2-0", b"nonsense")
        plain = self.session.create_consumer("g")
        self.assertRaises(OffsetStoreError, self.ask, plain.lag("t"))

    def test_plain_store(self) -> None:
        """A user's store may give plain values."""
        self.topic("t", 1)

        class Store(MemoryOffsetStore):
            def load(self, topic: str, group: str, partition: Partition) -> Any:
                return StoredOffset(topic, partition, 7)

        consumer = self.session.create_consumer("g", store=Store())
        self.assertEqual(7, self.ask(consumer.committed("t", FIRST)).offset)

    def test_arguments_and_end(self) -> None:
        """Wrong arguments and a closed consumer fail the future; the connections are released."""
        self.topic("t", 1)
        consumer = self.session.create_consumer("g")
        self.ask(consumer.lag("t"))
        self.assertEqual(["meta://b:1"], self.session.connections.connected_urls())
        for future in (consumer.lag(" "), consumer.end("t", "0-0"), consumer.lag("t", 0)):
            self.assertRaises(InvalidArgument, self.runtime.result, future)
        self.close(consumer.close())
        self.assertEqual([], self.session.connections.connected_urls())
        for future in (consumer.lag("t"), consumer.end("t", FIRST), consumer.committed("t", FIRST)):
            self.assertRaises(ClientClosed, self.runtime.result, future)
