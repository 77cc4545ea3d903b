"""``metamorphosis.client.producer.ordered``: order per partition through outages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metamorphosis.client.localstore import LocalStore
from metamorphosis.client.model import ANY_PARTITION, OutgoingMessage, Partition, SendResult
from metamorphosis.client.producer.backlog import pack, unpack
from metamorphosis.client.producer.ordered import OrderedProducer
from metamorphosis.client.settings import ClientConfig
from metamorphosis.errors import (
    ClientClosed,
    InternalServerError,
    InvalidConfig,
    InvalidMessage,
    LocalStoreError,
    MessageTooLarge,
    NoPartition,
    NotConnected,
    SendTimeout,
)
from tests.support.producing import ProducingCase

HERE = Partition(0, 0)
KEPT = SendResult(-1, HERE, -1)


def by_attribute(topic: str, partitions: Any, message: OutgoingMessage) -> Partition:
    """The attribute is the partition, 0-0 without one."""
    return Partition.parse(message.attribute or "0-0")


class OrderedCase(ProducingCase):
    """Broker 0 with two configured partitions; messages go to 0-0 unless told otherwise."""

    save = False

    def config(self, **settings: Any) -> ClientConfig:
        """With the configured partitions."""
        info = {"test": "0:2", "other": "0:1"}
        return super().config(
            **settings, partitions_info=info, ordered_save_to_local_when_failed=self.save
        )

    def setUp(self) -> None:
        super().setUp()
        self.path = self.session.config.local_message_path

    def ordered(self, *topics: str, selector: Any = by_attribute) -> OrderedProducer:
        """One that has published the topics."""
        producer = OrderedProducer(self.session, selector)
        self.publish(producer, *topics)
        return producer

    def bodies(self) -> list[bytes]:
        """Of the puts sent since, which are not answered."""
        self.last = self.puts()
        return [put.body.split(b"0-1")[-1] for put in self.last]

    def answer_each(self, *expected: bytes) -> None:
        """These puts come, one at a time, and are stored."""
        for body in expected:
            self.assertEqual([body], self.bodies())
            self.answer(self.last[0])

    def keep(self, *bodies: bytes, partition: Partition = HERE) -> None:
        """As left behind by an earlier process."""
        store = LocalStore.open(self.path, f"test@{partition}")
        attribute = str(partition) if partition == Partition(0, 1) else None
        for number, body in enumerate(bodies):
            store.append(number, pack(OutgoingMessage("test", body, attribute)))
        store.close()


class SenderTests(OrderedCase):
    """Row 78 and what surrounds it."""

    def test_row_78_not_writable(self) -> None:
        """Row 78: the partition is configured and not available: kept, a success without offset."""
        producer = self.ordered("test")
        result = self.runtime.result(producer.send("test", b"x"))
        self.assertEqual((KEPT, False), (result, result.is_stored))
        self.assertEqual(1, producer.local_count("test", HERE))

    def test_partition_that_its_broker_has_not_yet(self) -> None:
        """It is kept, although there is a connection to the broker of the other partitions."""
        self.register(0, partitions=1)
        producer = self.ordered("test")
        result = self.runtime.result(producer.send("test", b"x", "0-1"))
        self.assertEqual((Partition(0, 1), False), (result.partition, result.is_stored))
        self.assertEqual([], self.bodies())

    def test_row_78_writable_and_nothing_kept(self) -> None:
        """Row 78: to the broker."""
        self.register(0, partitions=2)
        done = self.ordered("test").send("test", b"x")
        self.answer_each(b"x")
        result = self.runtime.result(done)
        self.assertEqual((1, True), (result.message_id, result.is_stored))

    def few(self, number: int = 10) -> OrderedProducer:
        """Some messages are kept, and the broker is back but does not answer."""
        producer = self.ordered("test")
        for _ in range(number):
            self.runtime.result(producer.send("test", b"kept"))
        self.register(0, partitions=2)
        self.link()
        return producer

    def test_row_78_few_kept(self) -> None:
        """Row 78: three looks, 100 ms apart, then it is kept, too."""
        producer = self.few()
        done = producer.send("test", b"x")
        self.runtime.advance(0.19)
        self.assertFalse(done.called)
        self.runtime.advance(0.02)
        self.assertEqual(KEPT, self.runtime.result(done))
        self.assertEqual(11, producer.local_count("test", HERE))
        self.assertEqual([b"kept"], self.bodies())

    def test_row_78_drained_at_the_second_look(self) -> None:
        """Row 78: when the kept ones have been sent meanwhile it goes to the broker."""
        producer = self.few(2)
        done = producer.send("test", b"x")
        self.answer_each(b"kept", b"kept")
        self.assertEqual([], self.bodies())
        self.runtime.advance(0.11)
        self.answer_each(b"x")
        self.assertEqual(1, self.runtime.result(done).message_id)

    def test_row_78_many_kept(self) -> None:
        """Row 78: with more than 20 it is kept at once; their sending has begun."""
        producer = self.few(21)
        self.assertEqual(KEPT, self.runtime.result(producer.send("test", b"x")))
        self.assertEqual([b"kept"], self.bodies())

    def test_twenty_are_few(self) -> None:
        """With 20 it waits."""
        done = self.few(20).send("test", b"x")
        self.runtime.advance(0.1)
        self.assertFalse(done.called)
        self.runtime.advance(0.2)
        self.assertEqual(KEPT, self.runtime.result(done))

    def test_one_of_a_partition_at_a_time(self) -> None:
        """The second message leaves with the fate of the first; partitions are independent."""
        self.register(0, partitions=2)
        producer = self.ordered("test")
        for data, attribute in ((b"a", None), (b"b", None), (b"c", "0-1"), (b"d", "0-1")):
            producer.send("test", data, attribute)
        self.assertEqual([b"a", b"c"], self.bodies())
        first, second = self.last
        self.answer(second)
        self.assertEqual([b"d"], self.bodies())
        self.answer(self.last[0])
        self.answer(first)
        self.answer_each(b"b")

    def test_closed_partition(self) -> None:
        """403: kept for the partition, and so is what follows: nothing overtakes it."""
        self.register(0, partitions=2)
        producer = self.ordered("test")
        futures = [producer.send("test", body) for body in (b"a", b"b")]
        self.assertEqual([b"a"], self.bodies())
        self.answer(self.last[0], 403)
        self.assertEqual(KEPT, self.runtime.result(futures[0]))
        self.assertEqual([b"a"], self.bodies())
        self.answer(self.last[0], 403)
        self.runtime.advance(0.3)
        for _ in range(5):
            for put in self.puts():
                self.answer(put, 403)
            self.runtime.advance(0.1)
        self.assertEqual(KEPT, self.runtime.result(futures[1]))
        done = producer.recover()
        self.answer_each(b"a", b"b")
        self.runtime.result(done)
        self.assertEqual(0, producer.local_count("test", HERE))

    def test_lines_of_a_closed_partition(self) -> None:
        """One when messages begin to be kept, then their number, one when that is over."""
        self.register(0, partitions=2)
        producer = self.ordered("test")
        for _ in range(5):
            done = producer.send("test", b"a")
            self.bodies()
            self.answer(self.last[0], 403, "closed")
            self.assertEqual(KEPT, self.runtime.result(done))
            done = producer.recover()
            self.answer_each(b"a")
            self.runtime.result(done)
        self.runtime.advance(10)
        lines = self.runtime.log.texts("warn")
        kept = [line for line in lines if "is kept locally" in line]
        counted = [line for line in lines if "times more" in line]
        self.assertEqual(["A message of topic test, partition 0-0 is kept locally: closed"], kept)
        what = "messages are kept locally: Forbidden; the last one: topic test, partition 0-0"
        self.assertEqual([f"4 times more within 10 s: {what}"], counted)
        self.runtime.advance(20)
        self.assertIn("Not again for 20 s, after 5 times", self.runtime.log.texts("info")[-1])

    def test_line_at_the_close(self) -> None:
        """What was counted until then is logged."""
        self.register(0, partitions=2)
        producer = self.ordered("test")
        for _ in range(2):
            self.futures.append(producer.send("test", b"a"))
            self.bodies()
            self.answer(self.last[0], 403, "closed")
            done = producer.recover()
            self.answer_each(b"a")
            self.runtime.result(done)
        self.runtime.result(producer.close())
        (line,) = (line for line in self.runtime.log.texts("warn") if "times more" in line)
        self.assertIn("1 times more within 10 s: messages are kept locally", line)

    def test_other_errors_are_the_senders(self) -> None:
        """500 raises; nothing is kept."""
        self.register(0, partitions=2)
        producer = self.ordered("test")
        done = producer.send("test", b"a")
        self.bodies()
        self.answer(self.last[0], 500, "server error")
        with self.assertRaisesRegex(InternalServerError, "server error"):
            self.runtime.result(done)
        self.assertEqual(0, producer.local_count("test", HERE))

    def test_broker_that_hangs(self) -> None:
        """Those after have waited as long: they fail with the first, and were never sent."""
        self.register(0, partitions=2)
        producer = self.ordered("test")
        self.runtime.advance(5)
        futures = [producer.send("test", b"%d" % number) for number in range(3)]
        self.bodies()
        self.runtime.advance(2)
        self.futures.append(producer.send("test", b"3"))
        self.runtime.advance(1.1)
        self.assertRaises(SendTimeout, self.runtime.result, futures[0])
        text = "topic test to partition 0-0: not sent, it waited 3.. s behind others"
        for future in futures[1:]:
            with self.assertRaisesRegex(NotConnected, text):
                self.runtime.result(future)
        self.assertEqual([b"3"], self.bodies())

    def test_not_configured(self) -> None:
        """A topic without configured partitions is refused by name."""
        self.register(0, "wild")
        with self.assertRaisesRegex(NoPartition, "no config partitions for topic wild"):
            self.runtime.result(self.ordered("wild").send("wild", b"x"))

    def test_neither_configured_nor_available(self) -> None:
        """A choice that no configuration would ever make writable is refused, not kept."""
        self.register(0, partitions=2)
        producer = self.ordered("test")
        with self.assertRaisesRegex(NoPartition, "neither configured nor available"):
            self.runtime.result(producer.send("test", b"x", "7-7"))

    def test_too_large(self) -> None:
        """What consumers would pass over is neither sent nor kept."""
        self.register(0, partitions=2)
        producer = self.ordered("test")
        longest = self.session.config.max_body_bytes
        for data, attribute in ((bytes(longest + 1), None), (bytes(longest - 4), "a")):
            with self.assertRaises(MessageTooLarge):
                self.runtime.result(producer.send("test", data, attribute, key="k"))
        self.assertEqual([], self.puts())
        self.futures.append(producer.send("test", bytes(longest)))
        self.assertEqual(1, len(self.puts()))

    def test_no_message(self) -> None:
        """Blank topics and null data have the usual errors, after close that of close."""
        producer = self.ordered()
        for topic, data, text in ((" ", b"x", "topic is"), ("test", None, "data is None")):
            with self.assertRaisesRegex(InvalidMessage, text):
                self.runtime.result(producer.send(topic, data))  # type: ignore[arg-type]
        self.runtime.result(producer.close())
        with self.assertRaises(ClientClosed):
            self.runtime.result(producer.send("test", b"x"))

    def test_keys(self) -> None:
        """Without a choice of the user's the key decides among the configured partitions."""
        self.register(0, partitions=2)
        producer = self.ordered("test", selector=None)
        chosen = set()
        for key in ("a", "b", "c", "d", "e"):
            done = producer.send("test", b"x", key=key)
            (put,) = self.puts()
            self.answer(put)
            chosen.add(self.runtime.result(done).partition)
        self.assertEqual({Partition(0, 0), Partition(0, 1)}, chosen)

    def test_wrong_configuration(self) -> None:
        """It is refused with the other settings, by its key."""
        with self.assertRaisesRegex(InvalidConfig, "partitions_info, test: .*'0:x'"):
            ClientConfig(broker="a:1", partitions_info={"test": "0:x"})

    def test_disk_that_fails(self) -> None:
        """What can be neither sent nor kept is an error that names the file."""
        producer = self.ordered("test")
        self.path.write_bytes(b"")
        with self.assertRaisesRegex(LocalStoreError, str(self.path)):
            self.runtime.result(producer.send("test", b"x"))
        self.assertEqual(0, producer.local_count("test", HERE))


class SavingTests(OrderedCase):
    """``ordered_save_to_local_when_failed``."""

    save = True

    def test_whatever_fails_is_kept(self) -> None:
        """A refusal, a time-out and a lost connection."""
        self.register(0, partitions=2)
        producer = self.ordered("test")
        happenings: list[Callable[[], object]] = [
            lambda: self.answer(self.last[0], 500, "no"),
            lambda: self.runtime.advance(3.1),
        ]
        for happen in happenings:
            done = producer.send("test", b"a")
            self.assertEqual([b"a"], self.bodies())
            happen()
            self.assertEqual(KEPT, self.runtime.result(done))
            sent = producer.recover()
            self.answer_each(b"a")
            self.runtime.result(sent)


class RecoveryTests(OrderedCase):
    """Row 76: what was kept goes out in order."""

    def test_row_76_counts(self) -> None:
        """Row 76: each partition counts its own."""
        producer = self.ordered("test")
        for attribute in (None, "0-1", None):
            self.runtime.result(producer.send("test", b"x", attribute))
        counts = [producer.local_count("test", Partition(0, number)) for number in range(3)]
        self.assertEqual([2, 1, 0], counts)
        self.assertEqual(0, producer.local_count("test", ANY_PARTITION))

    def test_row_76_unknown_partition_first(self) -> None:
        """Row 76: messages of no partition are sent before the partition's own."""
        self.keep(b"c", b"d")
        self.keep(b"a", b"b", partition=ANY_PARTITION)
        self.register(0, partitions=2)
        self.ordered("test")
        self.answer_each(b"a", b"b", b"c", b"d")
        self.assertEqual([], self.bodies())

    def test_row_76_repeated_calls(self) -> None:
        """Row 76: recovering while it is being done sends nothing twice."""
        producer = self.ordered("test")
        for body in (b"a", b"b"):
            self.runtime.result(producer.send("test", body))
        self.register(0, partitions=2)
        self.link()
        futures = [producer.recover() for _ in range(5)]
        self.answer_each(b"a", b"b")
        self.assertEqual([], self.bodies())
        for future in futures:
            self.runtime.result(future)
        self.runtime.result(producer.recover())
        self.assertEqual(([], 0), (self.bodies(), producer.local_count("test", HERE)))

    def test_sent_at_publication_before_new_ones(self) -> None:
        """What an earlier process kept goes out first; a new message waits behind it."""
        self.keep(b"a", b"b")
        self.register(0, partitions=2)
        producer = self.ordered("test")
        done = producer.send("test", b"c")
        self.answer_each(b"a", b"b")
        self.runtime.advance(0.2)
        self.answer_each(b"c")
        self.assertEqual(1, self.runtime.result(done).message_id)
        self.runtime.advance(1)
        (line,) = (line for line in self.runtime.log.texts("info") if "Kept messages" in line)
        self.assertEqual("Kept messages of topic test were sent: 2 of partition 0-0", line)

    def test_second_topic(self) -> None:
        """What was kept of a topic that is published later goes out then."""
        producer = self.ordered("other")
        self.keep(b"a", b"b")
        self.register(0, partitions=2)
        self.publish(producer, "test")
        self.answer_each(b"a", b"b")
        self.assertEqual(0, producer.local_count("test", HERE))

    def test_failure_stops(self) -> None:
        """One that fails stays with all after it; later it is the first again."""
        self.keep(b"a", b"b", b"c")
        self.register(0, partitions=2)
        producer = self.ordered("test")
        self.answer_each(b"a")
        self.assertEqual([b"b"], self.bodies())
        self.answer(self.last[0], 500, "server error")
        self.assertEqual(([], 2), (self.bodies(), producer.local_count("test", HERE)))
        self.runtime.advance(1)
        line = self.runtime.log.texts("warn")[-1]
        self.assertIn("Kept messages of topic test wait, 2 of partition 0-0: ", line)
        producer.recover()
        self.answer_each(b"b", b"c")

    def test_same_failure_is_reported_once(self) -> None:
        """However often the broker refuses the same, there is one line."""
        self.keep(b"a")
        self.register(0, partitions=2)
        producer = self.ordered("test")
        for _ in range(4):
            self.assertEqual([b"a"], self.bodies())
            self.answer(self.last[0], 403, "closed")
            producer.recover()
        self.runtime.advance(1)
        lines = [line for line in self.runtime.log.texts("warn") if "Kept messages" in line]
        self.assertEqual(1, len(lines))

    def test_same_failure_after_a_success(self) -> None:
        """It is reported again: it is another outage."""
        self.register(0, partitions=2)
        producer = self.ordered("test")
        for _ in range(2):
            self.futures.append(producer.send("test", b"a"))
            for _ in range(2):
                self.assertEqual([b"a"], self.bodies())
                self.answer(self.last[0], 403, "closed")
                producer.recover()
            self.answer_each(b"a")
            self.runtime.advance(1)
        lines = [line for line in self.runtime.log.texts("warn") if "Kept messages" in line]
        self.assertEqual(2, len(lines))

    def test_topic_that_another_producer_has_published(self) -> None:
        """What was kept is sent first, although this producer has not published the topic."""
        self.keep(b"a")
        self.register(0, partitions=2)
        self.producer("test")
        producer = self.ordered()
        done = producer.send("test", b"b")
        self.answer_each(b"a")
        self.runtime.advance(0.2)
        self.answer_each(b"b")
        self.assertEqual(1, self.runtime.result(done).message_id)

    def test_every_interval(self) -> None:
        """Without any new message they are tried every five minutes."""
        producer = self.ordered("test")
        self.runtime.result(producer.send("test", b"a"))
        self.register(0, partitions=2)
        self.link()
        self.assertEqual([], self.bodies())
        self.runtime.advance(299)
        self.assertEqual([], self.bodies())
        self.runtime.advance(1)
        self.answer_each(b"a")

    def test_partition_that_goes_away(self) -> None:
        """While it is not writable the kept messages are not touched."""
        self.keep(b"a", b"b")
        self.register(0, partitions=2)
        producer = self.ordered("test")
        self.assertEqual([b"a"], self.bodies())
        put = self.last[0]
        self.end(0)
        self.assertEqual(2, producer.local_count("test", HERE))
        self.register(0, partitions=2)
        self.link()
        producer.recover()
        self.answer_each(b"a", b"b")
        self.assertNotEqual(put, self.last[0])

    def test_close_keeps_what_waits(self) -> None:
        """Messages in the lane are kept, the one under way gets its answer; nothing is lost."""
        self.register(0, partitions=2)
        producer = self.ordered("test")
        self.futures.append(producer.send("test", b"earlier"))
        self.answer_each(b"earlier")
        futures = [producer.send("test", b"%d" % number) for number in range(3)]
        self.assertEqual([b"0"], self.bodies())
        closing = producer.close()
        self.assertFalse(closing.called)
        self.answer(self.last[0])
        self.runtime.result(closing)
        self.assertEqual(1, self.runtime.result(futures[0]).message_id)
        self.assertEqual([KEPT, KEPT], [self.runtime.result(each) for each in futures[1:]])
        self.ordered("test")
        self.link()
        self.answer_each(b"1", b"2")

    def test_cancelled_by_the_sender(self) -> None:
        """A future that was cancelled does not stop those after it."""
        self.register(0, partitions=2)
        producer = self.ordered("test")
        futures = [producer.send("test", b"%d" % number) for number in range(2)]
        futures[0].addErrback(lambda _: None)
        futures[0].cancel()
        self.answer_each(b"0", b"1")
        self.assertEqual(1, self.runtime.result(futures[1]).message_id)

    def test_answered_by_the_sender(self) -> None:
        """A future that has a result meanwhile, as of a time limit of the sender, is left alone,
        and those after it go on."""
        self.register(0, partitions=2)
        producer = self.ordered("test")
        futures = [producer.send("test", b"%d" % number) for number in range(2)]
        futures[0].callback(KEPT)  # type: ignore[attr-defined]
        self.answer_each(b"0", b"1")
        self.assertEqual(KEPT, self.runtime.result(futures[0]))
        self.assertEqual(1, self.runtime.result(futures[1]).message_id)


class IntervalTests(OrderedCase):
    """``recover_message_interval_ms``."""

    def config(self, **settings: Any) -> ClientConfig:
        """A second and a half."""
        return super().config(**settings, recover_message_interval_ms=1500)

    def test_milliseconds(self) -> None:
        """Kept messages are tried again after this time, not earlier."""
        producer = self.ordered("test")
        self.runtime.result(producer.send("test", b"a"))
        self.register(0, partitions=2)
        self.link()
        self.runtime.advance(1.4)
        self.assertEqual([], self.bodies())
        self.runtime.advance(0.1)
        self.answer_each(b"a")


class DirectTests(OrderedCase):
    """Without ZooKeeper the broker chooses the partition."""

    direct = True

    def test_one_lane(self) -> None:
        """All messages of a topic are in one lane; a closed partition keeps them."""
        producer = self.ordered("test")
        futures = [producer.send("test", b"a"), producer.send("test", b"b", "0-1")]
        self.assertEqual([b"a"], self.bodies())
        self.answer(self.last[0], text="5 1 0")
        self.assertEqual(SendResult(5, Partition(-1, 1), 0), self.runtime.result(futures[0]))
        self.bodies()
        self.answer(self.last[0], 403)
        self.assertEqual(SendResult(-1, ANY_PARTITION, -1), self.runtime.result(futures[1]))


class KeptFormTests(OrderedCase):
    """The bytes of a kept message."""

    def test_there_and_back(self) -> None:
        """Data, attribute and key come back as they were."""
        for message in (
            OutgoingMessage("t", b""),
            OutgoingMessage("t", b"x", "", ""),
            OutgoingMessage("t", b"\0\xff", "a\u4e2d", b"\xff"),
            OutgoingMessage("t", b"\0\0\0\0", None, "k\ud800"),
        ):
            self.assertEqual(message, unpack("t", pack(message)))
