"""``metamorphosis.client.producer.producer``: messages, their attempts and their fates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metamorphosis.client.model import OutgoingMessage, Partition, SendResult
from metamorphosis.client.producer import puts
from metamorphosis.client.producer.puts import OVERHEAD_BYTES, put_frame
from metamorphosis.errors import (
    BadReply,
    ClientClosed,
    ConnectionLost,
    Forbidden,
    InternalServerError,
    InvalidArgument,
    InvalidMessage,
    LocalStoreError,
    MessageTooLarge,
    NoPartition,
    NotConnected,
    NotPublished,
    SendTimeout,
    ServiceUnavailable,
    UnknownTopic,
)
from metamorphosis.message import MAX_BODY_BYTES, checksum
from metamorphosis.native import compiled
from metamorphosis.wire.commands import PutCommand
from metamorphosis.wire.encoding import encode
from tests.support.producing import ProducingCase


class FrameTests(ProducingCase):
    """The bytes of a ``put``."""

    def test_identical_to_the_encoder(self) -> None:
        """Whatever the message, the quick way writes what ``wire.encoding`` writes."""
        for topic, number, body, flag, opaque in (
            ("test", 0, b"hello", 0, -2147483648),
            ("\u4e2d\u6587", -1, b"", 0, 0),
            ("a.b", 1023, bytes(range(256)) * 9, 1, 2147483636),
        ):
            command = PutCommand(topic, number, body, flag, checksum(body), None, opaque)
            self.assertEqual(encode(command), put_frame(topic, number, body, flag, opaque))

    def test_vector_of_the_protocol(self) -> None:
        """``hello`` has the checksum 907060870."""
        self.assertEqual(
            b"put test 0 5 0 907060870 7\r\nhello", put_frame("test", 0, b"hello", 0, 7)
        )

    def test_implementation(self) -> None:
        """The part in C is used where it is built."""
        built = compiled is not None
        self.assertEqual(built, puts.frame_of is not puts.frame_in_python)
        self.assertEqual(built, puts.place_of is not puts.place_in_python)

    def test_topic_that_ends_the_line(self) -> None:
        """It is refused by whatever makes the frame: the broker would read another request."""
        for topic in ("a b", "a\r\nquit", "a\ud800"):
            with self.assertRaisesRegex(InvalidMessage, "^topic 'a"):
                put_frame(topic, 0, b"", 0, 0)

    def test_row_16_attributes(self) -> None:
        """Row 16: an empty attribute is four zero bytes; ``attribute`` + ``hello`` is 4+9+5."""
        self.register(0)
        producer = self.producer("test")
        producer.send("test", b"hello", "")
        producer.send("test", b"hello", "attribute")
        producer.send("test", b"hello")
        empty, both, none = self.puts()
        self.assertEqual((b"\0\0\0\0hello", 1), (empty.body, empty.flag))
        self.assertEqual((b"\0\0\0\x09attributehello", 1), (both.body, both.flag))
        self.assertEqual((b"hello", 0), (none.body, none.flag))
        self.assertEqual(checksum(both.body), both.checksum)

    def test_row_17_empty_body(self) -> None:
        """Row 17: data without a byte are a message."""
        self.register(0)
        producer = self.producer("test")
        done = producer.send("test", b"")
        (put,) = self.puts()
        self.assertEqual((b"", 0, 0), (put.body, put.flag, put.checksum))
        self.answer(put)
        self.assertEqual(SendResult(1, Partition(0, 0), 0), self.runtime.result(done))


class SendTests(ProducingCase):
    """One attempt of one message and what comes of it."""

    def setUp(self) -> None:
        super().setUp()
        self.register(0)
        self.sender = self.producer("test", retries=0)

    def fate(self, status: int, text: str = "") -> Any:
        """Send a message, let the broker answer it."""
        done = self.sender.send("test", b"hello")
        (put,) = self.puts()
        self.answer(put, status, text)
        return self.runtime.result(done)

    def test_row_10_success(self) -> None:
        """Row 10: ``1111 1 1024`` for 0-0 is id 1111 in 0-1 at 1024."""
        self.assertEqual(SendResult(1111, Partition(0, 1), 1024), self.fate(200, "1111 1 1024"))

    def test_negative_id(self) -> None:
        """Java brokers of 1.4.5 give negative ids."""
        self.assertEqual(-5468927032769380352, self.fate(200, "-5468927032769380352 0 0")[0])

    def test_row_8_server_error(self) -> None:
        """Row 8: 500 raises with the broker's text; exactly one put was sent."""
        with self.assertRaises(InternalServerError) as caught:
            self.fate(500, "server error")
        self.assertEqual("server error", str(caught.exception))
        self.runtime.advance(60)
        self.assertEqual([], self.puts())

    def test_row_9_forbidden(self) -> None:
        """Row 9: 403 raises ``Forbidden``; without a text of the broker's it says ``403``."""
        with self.assertRaises(Forbidden) as caught:
            self.fate(403)
        self.assertEqual(("403", 403), (str(caught.exception), caught.exception.status))
        self.assertTrue(caught.exception.retriable)

    def test_row_13_refused_topic(self) -> None:
        """Row 13: the broker's text comes through."""
        with self.assertRaisesRegex(InternalServerError, "The server do not accept topic test"):
            self.fate(500, "The server do not accept topic test")

    def test_other_refusals(self) -> None:
        """Every status has its class, an unknown one counts as 500."""
        with self.assertRaises(ServiceUnavailable):
            self.fate(503, "shutting down")
        with self.assertRaisesRegex(InternalServerError, "599"):
            self.fate(599)

    def test_answers_without_sense(self) -> None:
        """A success that does not say where is an error that quotes it; outcome unknown."""
        for text in ("", "1 2", "a b c", "1 2 3 4", "1  2"):
            with self.assertRaisesRegex(BadReply, "is not <id> <partition> <offset>") as caught:
                self.fate(200, text)
            self.assertFalse(caught.exception.outcome_known)

    def test_timeout(self) -> None:
        """No answer in 3000 ms: the text of the original, outcome unknown."""
        done = self.sender.send("test", b"hello")
        self.runtime.advance(2.9)
        self.assertFalse(done.called)
        self.runtime.advance(0.2)
        with self.assertRaisesRegex(SendTimeout, "Send message timeout in 3000 mills") as caught:
            self.runtime.result(done)
        error = caught.exception
        self.assertEqual((True, False), (error.retriable, error.outcome_known))

    def test_timeout_of_one_message(self) -> None:
        """Each message may have its own limit."""
        done = self.sender.send("test", b"hello", timeout=0.5)
        self.runtime.advance(0.6)
        with self.assertRaisesRegex(SendTimeout, "timeout in 500 mills"):
            self.runtime.result(done)

    def test_connection_lost(self) -> None:
        """At once, outcome unknown; then, without a connection, nothing is sent."""
        done = self.sender.send("test", b"hello")
        self.puts()
        self.link().lose()
        with self.assertRaises(ConnectionLost) as caught:
            self.runtime.result(done)
        self.assertFalse(caught.exception.outcome_known)
        with self.assertRaises(NotConnected) as unsent:
            self.runtime.result(self.sender.send("test", b"hello"))
        self.assertEqual((True, True), (unsent.exception.retriable, unsent.exception.outcome_known))

    def test_row_3_no_message(self) -> None:
        """Row 3: a blank topic and data that are none are refused; nothing is raised."""
        for topic, data, text in (
            (" ", b"a", "topic is ' '; the name of a topic expected"),
            (None, b"a", "topic is None; the name of a topic expected"),
            ("test", None, "data is None; bytes expected"),
            ("test", "text", r"data is 'text'; bytes expected, as from text.encode"),
            ("a b", b"a", "no spaces"),
            ("\ud800", b"a", "surrogate"),
        ):
            done = self.sender.send(topic, data)  # type: ignore[arg-type]
            with self.assertRaisesRegex(InvalidMessage, text):
                self.runtime.result(done)
        with self.assertRaisesRegex(InvalidMessage, "attribute is 5; a str expected"):
            self.runtime.result(self.sender.send("test", b"", 5))  # type: ignore[arg-type]

    def test_buffers_are_copied(self) -> None:
        """What the sender changes after the call is not sent."""
        buffer = bytearray(b"hello")
        self.sender.send("test", buffer)  # type: ignore[arg-type]
        buffer[:] = b"xxxxx"
        self.assertEqual(b"hello", self.puts()[0].body)

    def test_cancelled_by_the_sender(self) -> None:
        """A future that was cancelled meanwhile is left alone."""
        done = self.sender.send("test", b"hello")
        done.addErrback(lambda _: None)
        done.cancel()
        (put,) = self.puts()
        self.answer(put)
        self.assertEqual([], self.runtime.log.texts("failure"))

    def test_answered_by_the_sender(self) -> None:
        """A future that has a result meanwhile, as of a time limit of the sender, is left alone."""
        results: list[Any] = []
        for status in (200, 500):
            done: Any = self.sender.send("test", b"hello")
            done.callback(status)
            (put,) = self.puts()
            self.answer(put, status, None if status == 200 else "no")
            results.append(self.runtime.result(done))
        self.assertEqual(([200, 500], []), (results, self.runtime.log.texts("failure")))

    def test_time_limits(self) -> None:
        """One that is over at once, or longer than the original's longest, is refused."""
        for wrong in (0.0, -1.0, 2147483.5, float("nan")):
            with self.assertRaisesRegex(InvalidMessage, "timeout is .*; seconds above 0"):
                self.runtime.result(self.sender.send("test", b"", timeout=wrong))
        self.sender.send("test", b"", timeout=2147483.0)
        self.assertEqual(1, len(self.puts()))

    def test_many_in_one_write(self) -> None:
        """Sends of one turn leave in one write and are answered in any order."""
        futures = [self.sender.send("test", b"%d" % number) for number in range(64)]
        puts = self.puts()
        self.assertEqual((64, 1), (len(puts), self.link().writes))
        for put in reversed(puts):
            self.answer(put, text=f"{int(put.body)} 0 0")
        self.assertEqual(list(range(64)), [self.runtime.result(each)[0] for each in futures])

    def test_settings(self) -> None:
        """Options out of range are refused by name."""
        for name, wrong in (("retries", -1), ("max_outstanding_bytes", 0)):
            with self.assertRaisesRegex(InvalidArgument, name):
                self.runtime.result(self.session.create_producer(**{name: wrong}))


class SelectionTests(ProducingCase):
    """Which partition and which broker."""

    def test_round_robin_over_brokers(self) -> None:
        """Row 1, as sent: indexes 1, 2, 0 of 0-0, 0-1, 1-0."""
        self.register(0, partitions=2)
        self.register(1)
        producer = self.producer("test")
        for _ in range(6):
            producer.send("test", b"x")
        self.assertEqual([1, 0, 1, 0], [put.partition for put in self.puts(0)])
        self.assertEqual([0, 0], [put.partition for put in self.puts(1)])

    def test_partition_that_the_broker_names(self) -> None:
        """It counts, if it is another one than was asked for; the broker stays the same."""
        self.register(3)
        done = self.producer("test").send("test", b"x")
        (put,) = self.puts(3)
        self.answer(put, text="7 2 5", at=3)
        self.assertEqual(SendResult(7, Partition(3, 2), 5), self.runtime.result(done))

    def test_key(self) -> None:
        """The same key, the same partition; unaffected by what comes between."""
        self.register(0, partitions=8)
        producer = self.producer("test")
        for key in ("a", None, "a", b"a", None):
            producer.send("test", b"x", key=key)
        expected = checksum(b"a") % 8
        self.assertEqual([expected, 1, expected, expected, 2], [p.partition for p in self.puts()])

    def test_given_partition(self) -> None:
        """It goes exactly there, whatever the selector."""
        self.register(0, partitions=4)
        producer = self.producer("test")
        producer.send("test", b"x", partition=Partition(0, 3))
        self.assertEqual([3], [put.partition for put in self.puts()])

    def test_given_nonsense(self) -> None:
        """An invalid partition is refused; so is one too large for the wire."""
        self.register(0)
        producer = self.producer("test")
        for wrong in ("0-0", 3, Partition(0, 1 << 31), Partition(0, -2)):
            with self.assertRaisesRegex(InvalidArgument, "a Partition expected"):
                self.runtime.result(
                    producer.send("test", b"x", partition=wrong)  # type: ignore[arg-type]
                )

    def test_row_2_no_partition(self) -> None:
        """Row 2: the error names the topic; the selector is not asked to choose from nothing."""
        asked: list[str] = []
        producer = self.producer("test", selector=lambda topic, *rest: asked.append(topic))
        with self.assertRaisesRegex(NoPartition, "topic test: no broker has ever registered"):
            self.runtime.result(self.producer("test", retries=0).send("test", b"x"))
        self.register(0, "other")
        self.runtime.advance(6)
        producer.send("test", b"x").addErrback(lambda _: None)
        self.runtime.turn()
        with self.assertRaisesRegex(UnknownTopic, "topic test"):
            self.runtime.result(producer.send("test", b"x"))
        self.assertEqual([], asked)

    def test_row_4_never_published(self) -> None:
        """Row 4: that is said, and at once."""
        with self.assertRaisesRegex(NotPublished, "topic other has not been published"):
            self.runtime.result(self.producer().send("other", b"x"))

    def test_row_5_nobody_serves_it(self) -> None:
        """Row 5: published, and no broker has it: an error at once, with the known brokers."""
        self.register(3, "other")
        with self.assertRaisesRegex(
            UnknownTopic,
            "topic test: no broker has ever had it: .*/topics-pub/test.* 3$",
        ):
            self.runtime.result(self.producer("test").send("test", b"x"))

    def test_row_7_partition_without_broker(self) -> None:
        """Row 7: the partition is known and its broker has no URL."""
        self.tree.create("/meta/brokers/topics-pub/test/0-m", b'{"numParts":1}', 1)
        with self.assertRaisesRegex(NoPartition, "partition 0-0: broker 0 is not registered"):
            self.runtime.result(self.producer("test", retries=0).send("test", b"x"))

    def test_selector_of_the_user(self) -> None:
        """It gets topic, partitions and message, and its choice is used."""
        self.register(0, partitions=3)
        seen: list[Any] = []

        def last(
            topic: str, partitions: Sequence[Partition], message: OutgoingMessage
        ) -> Partition:
            seen.append((topic, list(partitions), message))
            return partitions[-1]

        producer = self.producer("test", selector=last)
        producer.send("test", b"x", "a", key="k")
        self.assertEqual([2], [put.partition for put in self.puts()])
        partitions = [Partition(0, number) for number in range(3)]
        self.assertEqual([("test", partitions, OutgoingMessage("test", b"x", "a", "k"))], seen)

    def test_selectors_that_fail(self) -> None:
        """None, invalid values and exceptions fail the send; the next one is not affected."""
        self.register(0)
        answers: list[Any] = [None, "0-0", Partition(0, 0)]
        producer = self.producer("test", selector=lambda *_: answers.pop(0))
        with self.assertRaisesRegex(NoPartition, "selector found no partition for topic test"):
            self.runtime.result(producer.send("test", b"x"))
        with self.assertRaisesRegex(InvalidArgument, "a Partition expected"):
            self.runtime.result(producer.send("test", b"x"))
        producer.send("test", b"x")
        self.assertEqual(1, len(self.puts()))
        with self.assertRaises(IndexError):
            self.runtime.result(producer.send("test", b"x"))

    def test_row_15_message_is_read_only(self) -> None:
        """Row 15: a selector that modifies the message gets an error, and so does the send."""
        self.register(0)

        def modify(topic: str, partitions: Sequence[Partition], message: Any) -> Partition:
            message.topic = "other"
            return partitions[0]

        with self.assertRaises(AttributeError):
            self.runtime.result(self.producer("test", selector=modify).send("test", b"x"))

    def test_row_12_default_topic(self) -> None:
        """Row 12: an unpublished topic goes to the default's partitions under its own name."""
        self.register(0, "default", partitions=2)
        producer = self.producer()
        done = producer.set_default_topic("default")
        self.link()
        self.runtime.result(done)
        producer.send("dynamic", b"x")
        (put,) = self.puts()
        self.assertEqual(("dynamic", 1), (put.topic, put.partition))

    def test_row_19_rotation(self) -> None:
        """Row 19: a broker that leaves ZooKeeper gets nothing, one that returns gets its share."""
        self.register(0)
        self.register(1)
        producer = self.producer("test")
        self.unregister(1)
        for _ in range(4):
            producer.send("test", b"x")
        self.assertEqual(4, len(self.puts(0)))
        self.register(1)
        self.link(1)
        for _ in range(4):
            producer.send("test", b"x")
        self.assertEqual((2, 2), (len(self.puts(0)), len(self.puts(1))))


class LengthTests(ProducingCase):
    """Longer than what consumers take is not sent."""

    def test_too_large(self) -> None:
        """Refused by the future, or to the callback, before anything is sent; not to be retried."""
        self.register(0)
        producer = self.producer("test", retries=3)
        outcomes: list[Any] = []
        longest = self.session.config.max_body_bytes
        self.assertEqual(MAX_BODY_BYTES, longest)
        for data, attribute in ((bytes(longest + 1), None), (bytes(longest - 4), "a")):
            with self.assertRaisesRegex(MessageTooLarge, "max_body_bytes") as caught:
                self.runtime.result(producer.send("test", data, attribute))
            self.assertFalse(caught.exception.retriable)
            producer.send_with_callback(
                lambda *outcome: outcomes.append(outcome), "test", data, attribute
            )
        self.runtime.turn()
        self.assertEqual([MessageTooLarge] * 2, [type(error) for _, error in outcomes])
        self.assertEqual([], self.puts())

    def test_longest(self) -> None:
        """Just as long as consumers take goes out, with its attribute."""
        self.register(0)
        producer = self.producer("test")
        longest = self.session.config.max_body_bytes
        producer.send("test", bytes(longest))
        producer.send("test", bytes(longest - 5), "a")
        producer.send_with_callback(lambda result, error: None, "test", bytes(longest))
        self.assertEqual(3, len(self.puts()))


class LeavingTests(ProducingCase):
    """A broker that stops in order: its own node goes, then its topics', then it continues serving
    for a while."""

    def test_under_way(self) -> None:
        """What is under way gets its answer, on the link that is released; nothing is sent
        twice."""
        self.register(0)
        self.register(1)
        producer = self.producer("test")
        futures = [producer.send("test", b"%d" % number) for number in range(4)]
        first, second = self.puts(0), self.puts(1)
        self.unregister(1)
        self.assertTrue(self.link(1).open)
        for put in first:
            self.answer(put)
        for put in second:
            self.answer(put, at=1)
        self.assertEqual([1] * 4, [self.runtime.result(each).message_id for each in futures])
        self.assertFalse(self.link(1).open)
        self.assertEqual([], self.puts(0))


class DirectTests(ProducingCase):
    """Without ZooKeeper."""

    direct = True

    def test_broker_chooses(self) -> None:
        """The put carries -1, no selector is asked; the result's broker id is -1."""
        producer = self.producer("test", selector=lambda *_: self.fail("asked"))
        done = producer.send("test", b"x")
        (put,) = self.puts()
        self.assertEqual(-1, put.partition)
        self.answer(put, text="7 3 10")
        self.assertEqual(SendResult(7, Partition(-1, 3), 10), self.runtime.result(done))

    def test_given_partition(self) -> None:
        """The sender may choose; the one broker has them all."""
        producer = self.producer("test")
        done = producer.send("test", b"x", partition=Partition(0, 3))
        (put,) = self.puts()
        self.assertEqual(3, put.partition)
        self.answer(put)
        self.assertEqual(Partition(0, 3), self.runtime.result(done).partition)


class CallbackTests(ProducingCase):
    """Sends whose fate a function is told."""

    def setUp(self) -> None:
        super().setUp()
        self.register(0)
        self.sender = self.producer("test", retries=0)
        self.told: list[tuple[Any, Any]] = []

    def send(self, topic: str = "test") -> None:
        """Send, and note what is told."""
        self.sender.send_with_callback(lambda *told: self.told.append(told), topic, b"x")

    def test_row_14_five_messages(self) -> None:
        """Row 14: five messages, five calls with their results."""
        for _ in range(5):
            self.send()
        for number, put in enumerate(self.puts()):
            self.answer(put, text=f"{number} 0 0")
        results = [(SendResult(number, Partition(0, 0), 0), None) for number in range(5)]
        self.assertEqual(results, self.told)

    def test_row_14_no_connection(self) -> None:
        """Row 14: without a connection the callback gets the error."""
        self.link().lose()
        self.send()
        self.runtime.turn()
        self.assertIsInstance(self.told[0][1], NotConnected)

    def test_errors_of_this_side(self) -> None:
        """They are told as well, after the call has returned."""
        self.send(" ")
        self.assertEqual([], self.told)
        self.runtime.turn()
        self.assertIsInstance(self.told[0][1], InvalidMessage)

    def test_callback_that_raises(self) -> None:
        """It is logged with the topic, and the others are told."""
        self.sender.send_with_callback(lambda *_: 1 / 0, "test", b"x")
        self.send()
        for put in self.puts():
            self.answer(put)
        self.assertEqual(1, len(self.told))
        self.assertIn("callback of a message of topic test", self.runtime.log.texts("failure")[0])

    def test_lines_of_callbacks_that_raise(self) -> None:
        """One traceback, then their number."""
        for _ in range(5):
            self.sender.send_with_callback(lambda *_: 1 / 0, "test", b"x")
        for put in self.puts():
            self.answer(put)
        self.assertEqual(1, len(self.runtime.log.texts("failure")))
        self.runtime.advance(10)
        what = "callbacks of messages fail with ZeroDivisionError; the last one: topic test"
        self.assertEqual([f"4 times more within 10 s: {what}"], self.runtime.log.texts("warn"))


class BoundTests(ProducingCase):
    """What is under way is bounded."""

    def setUp(self) -> None:
        super().setUp()
        self.register(0)
        limit = 3 * OVERHEAD_BYTES + 3
        self.sender = self.producer("test", retries=0, max_outstanding_bytes=limit)

    def test_others_wait_their_turn(self) -> None:
        """Three fit; the rest leaves in order as answers come, on one connection or another."""
        futures = [self.sender.send("test", b"%d" % number) for number in range(8)]
        bodies = []
        while puts := self.puts():
            bodies.append(b"".join(put.body for put in puts))
            self.answer(puts[0])
            for put in puts[1:]:
                self.answer(put)
        self.assertEqual(b"01234567", b"".join(bodies))
        self.assertEqual(b"012", bodies[0])
        self.assertTrue(all(self.runtime.result(each) for each in futures))

    def test_ready(self) -> None:
        """``ready`` fires when the last one that waited has left."""
        for _ in range(3):
            self.sender.send("test", b"x")
        self.assertFalse(self.sender.is_full)
        self.assertTrue(self.sender.ready().called)
        for _ in range(2):
            self.sender.send("test", b"x")
        ready = self.sender.ready()
        puts = self.puts()
        self.answer(puts[0])
        self.assertEqual((True, False), (self.sender.is_full, ready.called))
        self.answer(puts[1])
        self.assertEqual((False, True), (self.sender.is_full, ready.called))

    def test_message_larger_than_the_bound(self) -> None:
        """It goes alone."""
        first = self.sender.send("test", b"x")
        large = self.sender.send("test", bytes(1 << 16))
        (put,) = self.puts()
        self.answer(put)
        self.runtime.result(first)
        (put,) = self.puts()
        self.answer(put)
        self.assertEqual(1, self.runtime.result(large).message_id)

    def test_broker_that_hangs(self) -> None:
        """Those after have waited as long: they fail with the first, and were never sent."""
        futures = [self.sender.send("test", b"x") for _ in range(6)]
        self.puts()
        self.runtime.advance(3.1)
        for future in futures[:3]:
            self.assertRaises(SendTimeout, self.runtime.result, future)
        text = "topic test to partition 0-0: not sent, it waited 3.. s behind others"
        for future in futures[3:]:
            with self.assertRaisesRegex(NotConnected, text):
                self.runtime.result(future)
        self.assertEqual([], self.puts())

    def test_ready_when_those_who_waited_fail(self) -> None:
        """``ready`` fires when no send waits any more, whatever the outcomes."""
        for future in [self.sender.send("test", b"x") for _ in range(6)]:
            future.addErrback(lambda _: None)
        ready = self.sender.ready()
        self.runtime.advance(3.1)
        self.assertEqual((False, True), (self.sender.is_full, ready.called))

    def test_nobody_takes_the_topic(self) -> None:
        """Messages that are to be tried again count as well: the producer becomes full."""
        sender = self.producer("test", retries=9, max_outstanding_bytes=2 * OVERHEAD_BYTES)
        self.unregister(0)
        futures = [sender.send("test", b"") for _ in range(5)]
        self.assertTrue(sender.is_full)
        self.register(0)
        self.link()
        self.runtime.advance(1)
        while puts := self.puts():
            for put in puts:
                self.answer(put)
        self.assertTrue(all(self.runtime.result(each) for each in futures))

    def test_round_robin_counts_once(self) -> None:
        """A message that waited goes to the partition chosen when it was sent."""
        self.tree.delete("/meta/brokers/topics-pub/test/0-m")
        self.register(0, partitions=4)
        self.link()
        for _ in range(4):
            self.sender.send("test", b"")
        puts = self.puts()
        self.answer(puts[0])
        self.assertEqual([1, 2, 3, 0], [put.partition for put in puts + self.puts()])


class RetryTests(ProducingCase):
    """Further attempts."""

    def setUp(self) -> None:
        super().setUp()
        self.register(0, partitions=2)
        self.sender = self.producer("test", retries=2)

    def test_retriable_errors(self) -> None:
        """Closed partition, then timeout, then success: three attempts, pauses that double."""
        done = self.sender.send("test", b"x")
        (put,) = self.puts()
        self.answer(put, 403)
        self.assertEqual([], self.puts())
        self.runtime.advance(0.1)
        self.assertEqual(1, len(self.puts()))
        self.runtime.advance(3.05)
        self.assertEqual([], self.puts())
        self.runtime.advance(0.2)
        (put,) = self.puts()
        self.answer(put)
        self.assertEqual(1, self.runtime.result(done).message_id)

    def test_chooses_again(self) -> None:
        """Another attempt goes to the next partition, unless the sender named one."""
        self.sender.send("test", b"a")
        self.sender.send("test", b"b", partition=Partition(0, 1))
        for put in self.puts():
            self.answer(put, 403)
        self.runtime.advance(0.1)
        self.assertEqual({b"a": 0, b"b": 1}, {put.body: put.partition for put in self.puts()})

    def test_no_more_than_asked_for(self) -> None:
        """After the last attempt its error is the result."""
        done = self.sender.send("test", b"x")
        for _ in range(3):
            (put,) = self.puts()
            self.answer(put, 403, "closed")
            self.runtime.advance(1)
        with self.assertRaisesRegex(Forbidden, "closed"):
            self.runtime.result(done)

    def test_other_errors_are_final(self) -> None:
        """What would fail again is not repeated."""
        done = self.sender.send("test", b"x")
        (put,) = self.puts()
        self.answer(put, 500, "server error")
        with self.assertRaises(InternalServerError):
            self.runtime.result(done)

    def test_topic_without_broker(self) -> None:
        """A broker that restarts is waited for."""
        self.unregister(0)
        done = self.sender.send("test", b"x")
        self.runtime.advance(0.05)
        self.register(0)
        self.link()
        self.runtime.advance(0.1)
        (put,) = self.puts()
        self.answer(put)
        self.assertEqual(1, self.runtime.result(done).message_id)

    def test_many_at_once(self) -> None:
        """What failed together is tried again together, in its order and by one timer."""
        for number in range(50):
            self.sender.send("test", b"%d" % number)
        self.puts()
        self.link().lose()
        before = len(self.runtime.clock.getDelayedCalls())
        self.runtime.advance(0.08)
        self.link()
        self.runtime.advance(0.05)
        self.assertEqual([b"%d" % number for number in range(50)], [p.body for p in self.puts()])
        self.assertLess(before, 5)

    def test_connection_that_comes_back(self) -> None:
        """A lost connection costs an attempt, not the message."""
        done = self.sender.send("test", b"x")
        self.puts()
        self.link().lose()
        self.runtime.advance(0.09)
        self.link()
        self.runtime.advance(0.05)
        (put,) = self.puts()
        self.answer(put)
        self.assertEqual(1, self.runtime.result(done).message_id)


class BudgetTests(ProducingCase):
    """Without a number of attempts there are as many as two minutes have time for."""

    def setUp(self) -> None:
        super().setUp()
        self.register(0)
        self.sender = self.producer("test")

    def test_restart_of_three_seconds(self) -> None:
        """No send fails: its node, its topics and the broker go, and all come back."""
        futures = [self.sender.send("test", b"%d" % number) for number in range(5)]
        self.puts()
        self.end(0)
        futures += [self.sender.send("test", b"%d" % number) for number in range(5, 10)]
        self.runtime.advance(3)
        futures += [self.sender.send("test", b"%d" % number) for number in range(10, 15)]
        self.register(0)
        self.link()
        futures += [self.sender.send("test", b"%d" % number) for number in range(15, 20)]
        bodies = []
        for _ in range(12):
            self.runtime.advance(0.1)
            for put in self.puts():
                bodies.append(int(put.body))
                self.answer(put)
        self.assertEqual(list(range(20)), sorted(bodies))
        self.assertEqual([1] * 20, [self.runtime.result(each).message_id for each in futures])

    def test_one_of_two_brokers_dies(self) -> None:
        """As soon as the connection is lost no send tries it, and none fails."""
        self.register(1)
        self.link(1)
        under_way = [self.sender.send("test", b"x") for _ in range(2)]
        for put in self.puts(0):
            self.answer(put)
        self.puts(1)
        self.link(1).lose()
        later = [self.sender.send("test", b"y") for _ in range(4)]
        self.assertEqual(4, len(puts := self.puts(0)))
        for put in puts:
            self.answer(put)
        self.runtime.advance(0.1)
        for put in self.puts(0):
            self.answer(put)
        self.assertEqual([1] * 6, [self.runtime.result(e).message_id for e in under_way + later])

    def test_key_stays(self) -> None:
        """A lost connection moves no key: messages of one wait until its broker is there."""
        self.register(1)
        self.link(1)
        key = next(key for key in map(str, range(9)) if checksum(key.encode()) % 2)
        self.link(1).lose()
        done = self.sender.send("test", b"x", key=key)
        self.assertEqual([], self.puts(0))
        self.runtime.advance(0.06)
        self.link(1)
        self.runtime.advance(0.1)
        (put,) = self.puts(1)
        self.answer(put, at=1)
        self.assertEqual(Partition(1, 0), self.runtime.result(done).partition)

    def test_time_is_over(self) -> None:
        """After two minutes the last error is the result; it says how often it was tried."""
        self.link().lose()
        done = self.sender.send("test", b"x")
        self.runtime.refuse_all("Connection refused", 118)
        self.assertNoResult(done)
        self.runtime.refuse_all("Connection refused", 3)
        with self.assertRaisesRegex(
            NotConnected,
            r"0-0 at meta://host0.*\(Connection refused\); given up after 1\d\d",
        ) as caught:
            self.runtime.result(done)
        self.assertTrue(caught.exception.outcome_known)

    def test_broker_that_never_answers(self) -> None:
        """Time that attempts took counts."""
        done = self.sender.send("test", b"x")
        self.runtime.advance(117)
        self.assertNoResult(done)
        self.runtime.advance(6)
        with self.assertRaisesRegex(SendTimeout, "given up after"):
            self.runtime.result(done)

    def test_outcome_of_all_attempts(self) -> None:
        """An attempt that was lost may have stored it, whatever the last one came to."""
        sender = self.producer("test", retries=1)
        done = sender.send("test", b"x")
        self.puts()
        self.link().lose()
        self.runtime.advance(0.06)
        self.link()
        self.runtime.advance(0.1)
        for put in self.puts():
            self.answer(put, 403, "closed")
        with self.assertRaisesRegex(Forbidden, "earlier one may have stored") as caught:
            self.runtime.result(done)
        self.assertFalse(caught.exception.outcome_known)

    def test_what_will_not_pass(self) -> None:
        """A refusal for good is told at once."""
        done = self.sender.send("test", b"x")
        (put,) = self.puts()
        self.answer(put, 500, "server error")
        with self.assertRaisesRegex(InternalServerError, "^server error$"):
            self.runtime.result(done)


class OrderTests(ProducingCase):
    """``in_order``: retries never reorder within a partition."""

    def setUp(self) -> None:
        super().setUp()
        self.register(0, partitions=2)
        self.sender = self.producer("test", retries=2, in_order=True)

    def send(self, body: bytes, number: int = 0) -> Any:
        """To one partition."""
        return self.sender.send("test", body, partition=Partition(0, number))

    def bodies(self) -> list[bytes]:
        """Of the puts sent since."""
        self.last = self.puts()
        return [put.body for put in self.last]

    def test_one_of_a_partition_at_a_time(self) -> None:
        """The next one leaves with the answer to the one before; partitions are independent."""
        for body, number in ((b"a", 0), (b"b", 0), (b"c", 1), (b"d", 1), (b"e", 0)):
            self.send(body, number)
        self.assertEqual([b"a", b"c"], self.bodies())
        self.answer(self.last[0])
        self.assertEqual([b"b"], self.bodies())
        self.answer(self.last[0])
        self.assertEqual([b"e"], self.bodies())

    def test_later_ones_wait_for_retries(self) -> None:
        """While the first is tried again nothing of its partition passes it."""
        first, second = self.send(b"a"), self.send(b"b")
        self.bodies()
        self.answer(self.last[0], 403)
        third = self.send(b"c")
        self.runtime.advance(0.05)
        self.assertEqual([], self.bodies())
        self.runtime.advance(0.1)
        for body in (b"a", b"b", b"c"):
            self.assertEqual([body], self.bodies())
            self.answer(self.last[0])
        for future in (first, second, third):
            self.assertEqual(1, self.runtime.result(future).message_id)

    def test_given_up(self) -> None:
        """When the first has failed for good the second goes."""
        first, second = self.send(b"a"), self.send(b"b")
        self.bodies()
        self.answer(self.last[0], 500, "no")
        self.assertRaises(InternalServerError, self.runtime.result, first)
        self.assertEqual([b"b"], self.bodies())
        self.answer(self.last[0])
        self.assertEqual(1, self.runtime.result(second).message_id)

    def test_retry_keeps_the_partition(self) -> None:
        """The selector is asked once; another attempt goes to the same partition."""
        self.sender.send("test", b"a")
        self.bodies()
        chosen = self.last[0].partition
        self.answer(self.last[0], 403)
        self.runtime.advance(0.2)
        self.assertEqual([b"a"], self.bodies())
        self.assertEqual(chosen, self.last[0].partition)

    def test_broker_goes_and_comes(self) -> None:
        """Without a broker the lane stands; what is sent meanwhile stands behind it."""
        first = self.send(b"a")
        self.bodies()
        self.end(0)
        second = self.send(b"b")
        self.runtime.advance(0.05)
        self.register(0, partitions=2)
        self.link()
        self.runtime.advance(0.2)
        for body in (b"a", b"b"):
            self.assertEqual([body], self.bodies())
            self.answer(self.last[0])
        for future in (first, second):
            self.assertEqual(1, self.runtime.result(future).message_id)

    def test_pinned_message_while_the_broker_is_away(self) -> None:
        """The first attempt without a broker stands in the lane like any other."""
        self.unregister(0)
        self.register(1, partitions=1)
        self.link(1)
        self.send(b"a")
        self.register(0, partitions=2)
        self.link(0)
        self.send(b"b")
        self.assertEqual([], self.bodies())
        self.runtime.advance(0.2)
        self.assertEqual([b"a"], self.bodies())

    def test_message_without_a_partition(self) -> None:
        """Those after it wait, too, as nobody knows whom they would overtake, even a message that
        knows its partition."""
        self.end(0)
        futures = [self.sender.send("test", b"%d" % number) for number in range(3)]
        futures.append(self.send(b"pinned"))
        futures += [self.sender.send("test", b"%d" % number) for number in range(3, 6)]
        self.runtime.advance(0.05)
        self.register(0, partitions=2)
        self.link()
        futures.append(self.sender.send("test", b"6"))
        self.runtime.advance(0.2)
        stored: dict[int, list[bytes]] = {0: [], 1: []}
        while puts := self.puts():
            for put in puts:
                stored[put.partition].append(put.body)
                self.answer(put)
        self.assertEqual({0: [b"1", b"pinned", b"3", b"5"], 1: [b"0", b"2", b"4", b"6"]}, stored)
        self.assertEqual([1] * 8, [self.runtime.result(each).message_id for each in futures])

    def test_message_that_waited_for_room(self) -> None:
        """It got its partition while an earlier one without had no room, and stays behind it."""
        sender = self.producer("test", in_order=True, max_outstanding_bytes=2 * OVERHEAD_BYTES + 8)
        for number in (0, 1):
            sender.send("test", b"%d" % number, partition=Partition(0, number))
        first, second = self.puts()
        self.unregister(0)
        sender.send("test", b"2")
        self.register(0, partitions=1)
        sender.send("test", b"3")
        self.unregister(0)
        self.answer(first)
        self.runtime.advance(0.15)
        self.answer(second)
        self.register(0, partitions=1)
        sent = []
        for _ in range(8):
            self.runtime.advance(0.05)
            sent += self.bodies()
            for put in self.last:
                self.answer(put)
        self.assertEqual([b"2", b"3"], sent)

    def test_message_that_never_gets_a_partition(self) -> None:
        """It is given up in its time, and so are those after it."""
        self.end(0)
        first = self.sender.send("test", b"a")
        second = self.sender.send("test", b"b")
        self.runtime.advance(2)
        for future in (first, second):
            self.assertRaises(NoPartition, self.runtime.result, future)
        self.assertEqual({}, self.sender._sending._lanes._lanes)

    def test_time_behind_a_message_without_a_partition(self) -> None:
        """It counts: two minutes after the sends all of them have failed."""
        sender = self.producer("test", in_order=True)
        self.end(0)
        self.runtime.advance(1)
        futures = [sender.send("test", b"%d" % number) for number in range(3)]
        self.runtime.advance(125)
        for future in futures:
            self.assertRaises(NoPartition, self.runtime.result, future)

    def test_selector_that_fails_in_the_lane(self) -> None:
        """The next one gets its chance."""
        chosen: list[Any] = [ZeroDivisionError("on purpose"), Partition(0, 1)]

        def select(*_: object) -> Partition:
            found = chosen.pop(0)
            if isinstance(found, Exception):
                raise found
            return found  # type: ignore[no-any-return]

        sender = self.producer("test", in_order=True, selector=select)
        self.end(0)
        first, second = sender.send("test", b"a"), sender.send("test", b"b")
        self.register(0, partitions=2)
        self.link()
        self.runtime.advance(0.5)
        self.assertRaises(ZeroDivisionError, self.runtime.result, first)
        self.assertEqual([b"b"], self.bodies())
        self.answer(self.last[0])
        self.assertEqual(Partition(0, 1), self.runtime.result(second).partition)

    def test_broker_that_hangs(self) -> None:
        """When all attempts are over, messages that have waited longer than their limit fail,
        too."""
        futures = [self.send(b"%d" % number) for number in range(3)]
        self.runtime.advance(12)
        self.assertRaises(SendTimeout, self.runtime.result, futures[0])
        for future in futures[1:]:
            with self.assertRaisesRegex(NotConnected, "behind others"):
                self.runtime.result(future)

    def test_long_lane(self) -> None:
        """Thousands in a lane that fails at once: no recursion, every one gets its fate."""
        futures = [self.send(b"%d" % number) for number in range(3000)]
        self.link().lose()
        self.unregister(0)
        self.runtime.advance(3000)
        failed = []
        for future in futures:
            future.addErrback(failed.append)
        self.assertEqual(3000, len(failed))

    def test_broker_goes_while_others_wait_for_room(self) -> None:
        """A message whose broker is away does not pass those that wait for room."""
        sender = self.producer(
            "test", retries=5, in_order=True, max_outstanding_bytes=2 * OVERHEAD_BYTES
        )
        here = Partition(0, 0)
        for body in (b"0", b"1", b"2"):
            sender.send("test", body, partition=here)
        self.bodies()
        self.end(0)
        sender.send("test", b"3", partition=here)
        self.register(0, partitions=2)
        self.link()
        self.runtime.advance(1)
        sent = []
        while bodies := self.bodies():
            sent += bodies
            self.answer(self.last[0])
            self.runtime.advance(1)
        self.assertEqual([b"0", b"1", b"2", b"3"], sent)

    def test_waits_for_room_and_then_for_its_lane(self) -> None:
        """The time limit begins with the first wait, and not again with the second."""
        sender = self.producer(
            "test", retries=0, in_order=True, max_outstanding_bytes=2 * OVERHEAD_BYTES
        )
        self.runtime.advance(1)  # 0.0 would mean that it does not wait
        hangs, answers = Partition(0, 0), Partition(0, 1)
        future = sender.send("test", b"", partition=hangs)
        sender.send("test", b"", partition=answers)
        waits = sender.send("test", b"", partition=hangs)
        future.addErrback(lambda _: None)
        (answered,) = (put for put in self.puts() if put.partition == 1)
        self.runtime.advance(2)
        self.answer(answered)
        self.runtime.advance(1.2)
        with self.assertRaisesRegex(NotConnected, "waited 3.. s behind others"):
            self.runtime.result(waits)
        self.assertEqual([], self.puts())

    def test_bound_and_lanes(self) -> None:
        """Sends that wait for room enter their lanes in order."""
        sender = self.producer(in_order=True, max_outstanding_bytes=2 * OVERHEAD_BYTES)
        for number in range(5):
            sender.send("test", b"%d" % number, partition=Partition(0, 0))
        sent = []
        while bodies := self.bodies():
            sent += bodies
            self.assertEqual(1, len(bodies))
            self.answer(self.last[0])
        self.assertEqual([b"0", b"1", b"2", b"3", b"4"], sent)


class DirectOrderTests(ProducingCase):
    """``in_order`` with the one broker, which may choose any partition."""

    direct = True

    def test_one_lane(self) -> None:
        """A message to a named partition waits for one whose partition the broker chooses."""
        sender = self.producer("test", in_order=True)
        for partition in (None, Partition(0, 1), Partition(7, 1), None):
            sender.send("test", b"%d" % len(self.futures), partition=partition)
        sent = []
        while puts := self.puts():
            self.assertEqual(1, len(puts))
            sent.append((puts[0].body, puts[0].partition))
            self.answer(puts[0])
        self.assertEqual([(b"0", -1), (b"1", 1), (b"2", 1), (b"3", -1)], sent)


class CloseTests(ProducingCase):
    """The end."""

    def setUp(self) -> None:
        super().setUp()
        self.register(0)
        self.sender = self.producer("test", retries=3)

    def test_row_18_closed(self) -> None:
        """Row 18: it leaves the factory; sending and publishing afterwards fail."""
        self.runtime.result(self.sender.close())
        self.assertNotIn(self.sender, self.session._children)
        for future in (self.sender.send("test", b"x"), self.sender.publish("test")):
            with self.assertRaisesRegex(ClientClosed, "Producer has been shutdown"):
                self.runtime.result(future)
        told: list[Any] = []
        self.sender.send_with_callback(lambda *fate: told.append(fate), "test", b"x")
        self.runtime.turn()
        self.assertIsInstance(told[0][1], ClientClosed)

    def test_topics_are_released(self) -> None:
        """The last producer's end forgets the topic and closes its connections."""
        other = self.producer("test")
        self.runtime.result(self.sender.close())
        self.assertTrue(self.link().open)
        self.runtime.result(other.close())
        self.runtime.turn()
        self.assertFalse(self.link().open)
        self.assertEqual({}, self.session.directory.topics)

    def test_waits_for_what_is_under_way(self) -> None:
        """Answers that still come count; a second close waits as well."""
        done = self.sender.send("test", b"x")
        (put,) = self.puts()
        closes = self.sender.close(), self.sender.close()
        self.assertEqual([False, False], [each.called for each in closes])
        self.answer(put)
        self.assertEqual(1, self.runtime.result(done).message_id)
        for each in closes:
            self.runtime.result(each)

    def test_who_waits_for_close_gives_up(self) -> None:
        """The producer ends although one caller has cancelled its wait; the others are answered."""
        done = self.sender.send("test", b"x")
        (put,) = self.puts()
        first = self.sender.close()
        first.addErrback(lambda _: None)
        first.cancel()
        second = self.sender.close()
        self.runtime.turn()
        self.assertFalse(second.called)
        self.assertIn(self.sender, self.session._children)
        self.answer(put)
        self.assertEqual(1, self.runtime.result(done).message_id)
        self.assertIsNone(self.runtime.result(second))
        self.assertNotIn(self.sender, self.session._children)

    def test_end_that_fails(self) -> None:
        """All callers of ``close`` are answered, and the producer has left its factory."""

        async def fail() -> None:
            raise LocalStoreError("disk full")

        self.sender._end = fail  # type: ignore[method-assign]
        for _ in range(2):
            with self.assertRaisesRegex(LocalStoreError, "disk full"):
                self.runtime.result(self.sender.close())
        self.assertNotIn(self.sender, self.session._children)

    def test_nothing_is_tried_again(self) -> None:
        """A message in the pause before another attempt gets its last error."""
        done = self.sender.send("test", b"x")
        (put,) = self.puts()
        self.answer(put, 403, "closed partition")
        self.runtime.result(self.sender.close())
        with self.assertRaisesRegex(Forbidden, "closed partition"):
            self.runtime.result(done)

    def test_context_manager(self) -> None:
        """``async with`` closes it."""

        async def use() -> None:
            async with self.sender:
                pass

        self.runtime.run(use())
        self.assertNotIn(self.sender, self.session._children)

    def test_factory_closes_producers(self) -> None:
        """Closing the factory ends the producer: what is under way gets its fate."""
        done = self.sender.send("test", b"x")
        self.puts()
        closing = self.session.close()
        self.runtime.advance(3.5)
        self.assertRaises(SendTimeout, self.runtime.result, done)
        for link in self.runtime.links:
            link.lose()
        self.runtime.advance(5)
        self.runtime.result(closing)
