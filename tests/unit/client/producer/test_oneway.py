"""``metamorphosis.client.producer.oneway``: sends without results, and what is kept of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail

from metamorphosis.client.localstore import LocalStore
from metamorphosis.client.model import (
    ANY_PARTITION,
    LostMessage,
    OutgoingMessage,
    Partition,
    SendResult,
)
from metamorphosis.client.producer.losses import Losses
from metamorphosis.client.producer.oneway import KEPT_MOST, KeepingPolicy, OneWayProducer, units
from metamorphosis.errors import MessageTooLarge
from tests.support.producing import ProducingCase

HERE = SendResult(-1, Partition(0, 0), -1)
NOWHERE = SendResult(-1, ANY_PARTITION, -1)


class OneWayCase(ProducingCase):
    """One broker with one partition, and messages that did not go out."""

    def setUp(self) -> None:
        super().setUp()
        self.refused: list[tuple[bytes, str]] = []

    def note(self, message: OutgoingMessage, partition: Partition) -> None:
        """A policy."""
        self.refused.append((message.data, str(partition)))

    def sender(self, *topics: str, **options: Any) -> OneWayProducer:
        """With the noting policy, unless another is given; None is that of the factory."""
        producer = OneWayProducer(self.session, **{"policy": self.note, **options})
        self.publish(producer, *topics)
        return producer

    def bodies(self) -> list[bytes]:
        """Of the puts sent since, which are not answered."""
        self.last = self.puts()
        return [put.body for put in self.last]


class WindowTests(OneWayCase):
    """Row 79 and what surrounds it."""

    def setUp(self) -> None:
        super().setUp()
        self.register(0)

    def test_units(self) -> None:
        """A unit is 4096 bytes, a message takes at least one, a started one is not counted."""
        lengths = {0: 1, 1: 1, 4095: 1, 4096: 1, 8191: 1, 8192: 2, 12288: 3, 1 << 20: 256}
        self.assertEqual(lengths, {length: units(length) for length in lengths})

    def test_row_79_window_of_three(self) -> None:
        """Row 79: 8192 bytes fit, the second 8192 are refused, after the answer accepted."""
        producer = self.sender("test", window=3)
        body = bytes(8192)
        self.assertEqual([HERE, HERE], [producer.send("test", body) for _ in range(2)])
        self.assertEqual([(body, "0-0")], self.refused)
        self.assertEqual(1, producer.free)
        self.assertEqual([body], self.bodies())
        self.answer(self.last[0])
        self.assertEqual(3, producer.free)
        producer.send("test", body)
        self.assertEqual([body], self.bodies())

    def test_released_by_whatever_happens(self) -> None:
        """An error, a time-out and a lost connection give the units back."""
        producer = self.sender("test", window=10)
        for happen in (
            lambda: self.answer(self.last[0], 500, "no"),
            lambda: self.runtime.advance(3.1),
            lambda: self.link().lose(),
        ):
            producer.send("test", bytes(8192))
            self.bodies()
            self.assertEqual(8, producer.free)
            happen()
            self.assertEqual(10, producer.free)

    def test_too_large(self) -> None:
        """What consumers would pass over is refused, neither sent nor given to the policy."""
        producer = self.sender("test")
        longest = self.session.config.max_body_bytes
        for data, attribute in ((bytes(longest + 1), None), (bytes(longest - 4), "a")):
            self.assertRaises(MessageTooLarge, producer.send, "test", data, attribute)
        self.assertEqual(([], []), (self.bodies(), self.refused))
        self.assertEqual(producer.window, producer.free)
        producer.send("test", bytes(longest))
        self.assertEqual([longest], [len(body) for body in self.bodies()])

    def test_default_window(self) -> None:
        """20000 units, also for 0 and less."""
        self.assertEqual([20000, 20000], [self.sender(window=each).free for each in (0, -1)])

    def test_flow_limit_of_the_connection(self) -> None:
        """While the broker takes nothing, messages overflow before the window is full."""
        producer = self.sender("test")
        self.link().stall()
        for _ in range(18):
            producer.send("test", bytes(1 << 20))
        self.assertTrue(self.refused)
        self.link().drain()
        self.assertEqual(18, len(self.bodies()) + len(self.refused))

    def test_ready(self) -> None:
        """It fires when half of the window is free."""
        producer = self.sender("test", window=6)
        self.assertTrue(producer.ready().called)
        for _ in range(3):
            producer.send("test", b"x")
        self.assertTrue(producer.ready().called)
        producer.send("test", b"x")
        ready = producer.ready()
        self.bodies()
        self.assertFalse(ready.called)
        self.answer(self.last[0])
        self.assertTrue(ready.called)
        for _ in range(3):
            producer.send("test", b"x")
        ready = producer.ready()
        for put in self.puts()[:2]:
            self.assertFalse(ready.called)
            self.answer(put)
        self.assertFalse(ready.called, "a third is free")
        self.answer(self.last[1], 500, "no")
        self.assertTrue(ready.called)


class OutcomeTests(OneWayCase):
    """What becomes of messages."""

    def setUp(self) -> None:
        super().setUp()
        self.register(0)
        self.oneway = self.sender("test")

    def lines(self) -> list[str]:
        """Of messages that are lost."""
        return [line for line in self.runtime.log.texts("error") if "is lost" in line]

    def test_row_80_invalid_message(self) -> None:
        """Row 80: dropped with a line, nothing raised, no policy asked."""
        for topic, data in ((" ", b"x"), ("test", None), ("test", "text"), (5, b"x")):
            self.assertIsNone(self.oneway.send(topic, data))  # type: ignore[arg-type]
        self.assertEqual(([], 4), (self.refused, len(self.lines())))
        self.assertIn("Message of topic 5 is lost", self.lines()[3])

    def test_row_80_no_partition(self) -> None:
        """Row 80: the policy is called, with no partition."""
        self.assertEqual(NOWHERE, self.oneway.send("other", b"x"))
        self.assertEqual([(b"x", "-1--1")], self.refused)

    def test_closed(self) -> None:
        """After close a message is dropped with a line."""
        self.runtime.result(self.oneway.close())
        self.assertIsNone(self.oneway.send("test", b"x"))
        self.assertIn("topic test is lost: Producer has been shutdown", self.lines()[0])

    def test_result(self) -> None:
        """Id and offset -1 and the partition, at once; it is not ``is_stored``."""
        result = self.oneway.send("test", b"x")
        assert result is not None
        self.assertEqual((HERE, False), (result, result.is_stored))

    def test_selector_that_fails(self) -> None:
        """The policy gets the message."""
        producer = self.sender(selector=lambda *_: 1 / 0)
        self.assertEqual(NOWHERE, producer.send("test", b"x"))
        self.assertEqual([(b"x", "-1--1")], self.refused)

    def test_errors_that_may_pass(self) -> None:
        """No connection, a lost one, a time-out, a closed partition: to the policy."""
        self.oneway.send("test", b"closed")
        self.bodies()
        self.answer(self.last[0], 403)
        self.oneway.send("test", b"late")
        self.runtime.advance(3.1)
        self.oneway.send("test", b"lost")
        self.bodies()
        self.link().lose()
        self.oneway.send("test", b"unsent")
        self.runtime.turn()
        bodies = [body for body, _ in self.refused]
        self.assertEqual([b"closed", b"late", b"lost", b"unsent"], bodies)
        self.assertEqual([], self.lines())

    def test_refused_for_good(self) -> None:
        """A message the broker does not want is lost, with a line that has topic and text."""
        self.oneway.send("test", b"x")
        self.bodies()
        self.answer(self.last[0], 500, "server error")
        self.assertEqual([], self.refused)
        self.assertIn("topic test is lost: server error", self.lines()[0])

    def refuse(self, count: int, text: str = "server error") -> None:
        """The broker refuses a number of messages for good."""
        for _ in range(count):
            self.oneway.send("test", b"x")
        self.bodies()
        for put in self.last:
            self.answer(put, 500, text)

    def test_lines_of_losses(self) -> None:
        """One when they begin, then their number after growing times, one when they are over."""
        self.refuse(1000)
        self.assertEqual(1, len(self.lines()))
        self.runtime.advance(10)
        self.refuse(3)
        self.runtime.advance(20)
        counted = self.runtime.log.texts("warn")
        self.assertEqual(
            ["999 times more within 10 s", "3 times more within 20 s"],
            [line.partition(":")[0] for line in counted],
        )
        self.assertIn("messages are lost: server error; the last one: topic test", counted[0])
        self.assertEqual([], self.over())
        self.runtime.advance(40)
        (line,) = self.over()
        self.assertIn("Not again for 40 s, after 1003 times: messages are lost", line)
        self.refuse(1)
        self.assertEqual(2, len(self.lines()))

    def over(self) -> list[str]:
        """The lines about the ends of losses."""
        return [line for line in self.runtime.log.texts("info") if line.startswith("Not again")]

    def test_losses_of_several_kinds(self) -> None:
        """Each has its line; a single one needs no other."""
        self.refuse(1, "no")
        self.refuse(1, "never")
        self.assertEqual(2, len(self.lines()))
        self.runtime.advance(60)
        self.assertEqual([], self.over())

    def test_losses_are_told(self) -> None:
        """Each of them, to the listener and in the count, whatever the log says."""
        told: list[LostMessage] = []
        self.assertIs(self.oneway, self.oneway.on_lost(told.append))
        self.refuse(3)
        self.oneway.send("test", "text")  # type: ignore[arg-type]
        self.assertEqual(4, self.oneway.lost)
        message = OutgoingMessage("test", b"x")
        self.assertEqual([LostMessage(message, Partition(0, 0), "server error")] * 3, told[:3])
        self.assertEqual(ANY_PARTITION, told[3].partition)
        self.assertIn("data is 'text'", told[3].reason)

    def test_losses_of_policies_are_told(self) -> None:
        """What a policy raises, plain or by a future, and what the disk does not take."""
        told: list[LostMessage] = []
        for failing in (lambda *_: 1 / 0, lambda *_: fail(ZeroDivisionError())):
            producer = self.sender(policy=failing).on_lost(told.append)
            for _ in range(2):
                producer.send("other", b"x")
            self.assertEqual(2, producer.lost)
        reason = "the policy for one-way messages failed"
        lost = LostMessage(OutgoingMessage("other", b"x"), ANY_PARTITION, reason)
        self.assertEqual([lost] * 4, told)
        self.assertEqual(2, len(self.runtime.log.texts("failure")))

    def test_listener_of_losses_that_fails(self) -> None:
        """One log line, and the losses count."""
        self.oneway.on_lost(lambda _: 1 / 0)
        self.refuse(3)
        self.assertEqual(3, self.oneway.lost)
        self.assertEqual(1, len(self.runtime.log.texts("failure")))

    def test_lines_at_the_close(self) -> None:
        """What was counted is logged; what is lost afterwards leaves no timer."""
        self.refuse(3)
        self.runtime.result(self.oneway.close())
        self.assertIn("2 times more", self.runtime.log.texts("warn")[0])
        for _ in range(3):
            self.oneway.send("test", b"x")
        self.assertEqual((2, 6), (len(self.lines()), self.oneway.lost))
        self.runtime.advance(100)
        self.assertEqual([], self.over())

    def test_nothing_is_kept(self) -> None:
        """With a policy of the program there is nothing to recover."""
        self.assertIsNone(self.runtime.result(self.oneway.recover()))

    def test_lines_of_a_kind(self) -> None:
        """What differs only in its topic is counted together."""
        producer = self.sender(policy=lambda *_: 1 / 0)
        for topic in ("other", "third"):
            producer.send(topic, b"x")
        self.assertEqual(1, len(self.runtime.log.texts("failure")))
        self.runtime.advance(10)
        what = "messages are lost: the policy for one-way messages failed"
        line = f"1 times more within 10 s: {what}; the last one: topic third"
        self.assertEqual([line], self.runtime.log.texts("warn"))

    def test_policies_that_fail(self) -> None:
        """Exceptions of a policy, plain or by a future, are logged with the topic."""
        for failing in (lambda *_: 1 / 0, lambda *_: fail(ZeroDivisionError())):
            self.sender(policy=failing).send("other", b"x")
        lines = self.runtime.log.texts("failure")
        self.assertEqual([True] * 2, ["topic other is lost" in line for line in lines])

    def test_policy_that_takes_time(self) -> None:
        """A policy may return a future; the sender does not wait for it."""
        waiting: Deferred[None] = Deferred()
        self.assertEqual(NOWHERE, self.sender(policy=lambda *_: waiting).send("other", b"x"))
        waiting.callback(None)
        self.assertEqual([], self.runtime.log.texts("failure"))

    def test_close_waits_for_policies(self) -> None:
        """What a policy is still doing about a message is waited for."""
        waiting: Deferred[None] = Deferred()
        producer = self.sender(policy=lambda *_: waiting)
        producer.send("other", b"x")
        closing = producer.close()
        self.runtime.turn()
        self.assertFalse(closing.called)
        waiting.callback(None)
        self.runtime.result(closing)

    def test_close_waits_for_answers(self) -> None:
        """What is under way gets its answer, a refusal as well, or its time limit."""
        for status in (200, 500):
            producer = self.sender("test")
            producer.send("test", b"x")
            self.bodies()
            closing = producer.close()
            self.assertFalse(closing.called)
            self.answer(self.last[0], status)
            self.runtime.result(closing)
            self.assertNotIn(producer, self.session._children)


class KeepingTests(OneWayCase):
    """The policy of the factory."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.session.config.async_storage_path

    def kept(self, name: str) -> list[bytes]:
        """The data in a store that is not open."""
        self.assertIn(name, LocalStore.names(self.path))
        store = LocalStore.open(self.path, name)
        values = [item.value[5:] for item in store.items()]
        store.close()
        return values

    def test_row_80_unknown_partition(self) -> None:
        """Row 80: a message without a partition is kept under ``-1--1``."""
        producer = self.sender("test", policy=None)
        producer.send("test", b"x")
        self.runtime.result(producer.close())
        self.assertEqual([b"x"], self.kept("test@-1--1"))

    def test_row_80_limit(self) -> None:
        """Row 80: with 499999 kept a message is accepted, with 500001 it is refused and logged."""

        class Counting:
            number = KEPT_MOST - 1
            taken = 0

            def count(self, topic: str, partition: Partition) -> int:
                return self.number if (topic, partition) == ("test", Partition(0, 3)) else 0

            def keep(self, *_: object) -> None:
                self.taken += 1

        backlog = Counting()
        policy = KeepingPolicy(backlog, Losses(self.runtime, self.runtime.log))  # type: ignore[arg-type]
        message = OutgoingMessage("test", b"x")
        self.assertTrue(policy(message, Partition(0, 3)))
        backlog.number = KEPT_MOST + 1
        self.assertFalse(policy(message, Partition(0, 3)))
        self.assertEqual(1, backlog.taken)
        line = self.runtime.log.texts("error")[0]
        self.assertIn("topic test, partition 0-3, 1 bytes, is lost: 500000", line)
        backlog.number = KEPT_MOST
        self.assertFalse(policy(message, Partition(0, 3)))
        self.runtime.advance(10)
        what = "messages are lost: 500000 messages are kept already"
        counted = f"1 times more within 10 s: {what}; the last one: topic test, partition 0-3"
        self.assertEqual([counted], self.runtime.log.texts("warn"))
        self.runtime.advance(20)

    def test_sent_when_the_topic_is_published(self) -> None:
        """Messages of a process that died go out with the next publication, whole."""
        producer = self.sender("test", policy=None)
        producer.send("test", b"a", "attribute", key="k")
        producer.send("test", b"b")
        self.runtime.result(producer.close())
        self.register(0)
        again = self.sender("test", policy=None)
        self.assertEqual([b"\0\0\0\x09attributea", b"b"], self.bodies())
        self.assertEqual([1, 0], [put.flag for put in self.last])
        for put in self.last:
            self.answer(put)
        self.runtime.result(again.close())
        self.assertEqual([], self.kept("test@-1--1"))
        line = "Kept messages of topic test were sent: 2 of partition -1--1"
        self.assertIn(line, self.runtime.log.texts("info"))

    def test_sent_every_interval(self) -> None:
        """What failed is tried again after five minutes; what was taken is gone."""
        self.register(0)
        producer = self.sender("test", policy=None, window=2)
        for number in range(5):
            producer.send("test", b"%d" % number)
        self.assertEqual([b"0", b"1"], self.bodies())
        for put in self.last:
            self.answer(put)
        self.runtime.advance(299)
        self.assertEqual([], self.bodies())
        self.runtime.advance(2)
        self.assertEqual([b"2", b"3", b"4"], self.bodies())
        self.answer(self.last[0])
        self.answer(self.last[1], 500, "no")
        self.answer(self.last[2])
        self.runtime.advance(301)
        self.assertEqual([b"3"], self.bodies())

    def test_recover_on_demand(self) -> None:
        """``recover`` does it now, and says when it is done; failures stay kept."""
        self.register(0)
        producer = self.sender("test", policy=None)
        self.link().lose()
        producer.send("test", b"x")
        self.runtime.turn()
        self.runtime.result(producer.recover())
        self.runtime.advance(1)
        lines = self.runtime.log.texts("warn")
        self.assertTrue(any("Kept messages of topic test wait, 1 of" in each for each in lines))
        self.link()
        done = producer.recover()
        self.assertEqual([b"x"], self.bodies())
        self.answer(self.last[0])
        self.runtime.result(done)
        self.runtime.result(producer.recover())
        self.assertEqual([], self.bodies())

    def test_recover_while_it_is_done(self) -> None:
        """A second call waits for the end of the first, and makes no attempt of its own."""
        self.register(0)
        producer = self.sender("test", policy=None)
        self.link().lose()
        producer.send("test", b"x")
        self.runtime.advance(0.1)
        self.link()
        calls = producer.recover(), producer.recover()
        self.assertEqual([b"x"], self.bodies())
        self.answer(self.last[0], 503, "no")
        for call in calls:
            self.runtime.result(call)
        self.assertEqual([], self.bodies())

    def test_recover_without_a_broker(self) -> None:
        """It ends, the message stays kept, and one line says so, however often it is tried."""
        producer = self.sender("test", policy=None)
        producer.send("test", b"x")
        self.runtime.turn()
        for _ in range(2):
            self.runtime.result(producer.recover())
            self.runtime.advance(120)
        self.assertEqual(1, producer._backlog.count("test", ANY_PARTITION))  # type: ignore
        self.runtime.result(producer.close())
        lines = [each for each in self.runtime.log.texts("warn") if "Kept messages" in each]
        self.assertEqual(1, len(lines))
        self.assertIn("of topic test wait, 1 of", lines[0])
        self.assertEqual([b"x"], self.kept("test@-1--1"))

    def test_refused_for_good(self) -> None:
        """However many kept messages the broker refuses, those after them are sent."""
        producer = self.sender("test", policy=None)
        for number in range(130):
            producer.send("test", b"%d" % number)
        self.runtime.turn()
        self.register(0)
        self.link()
        done = producer.recover()
        while self.bodies():
            for put in self.last:
                self.answer(put, 200 if put.body == b"129" else 400, None)
        self.runtime.result(done)
        self.assertEqual(129, producer._backlog.count("test", ANY_PARTITION))  # type: ignore

    def test_selector_that_fails_for_some(self) -> None:
        """Kept messages for which the program chooses no partition hold up no others."""

        def choose(topic: str, partitions: Any, message: OutgoingMessage) -> Partition:
            if message.data == b"x":
                raise ZeroDivisionError("on purpose")
            return Partition(0, 0)

        producer = self.sender("test", policy=None, selector=choose)
        for data in (*[b"x"] * 64, b"last"):
            producer.send("test", data)
        self.runtime.turn()
        self.register(0)
        self.link()
        done = producer.recover()
        self.assertEqual([b"last"], self.bodies())
        self.answer(self.last[0])
        self.runtime.result(done)

    def test_closed_while_sending(self) -> None:
        """What is under way is finished, the rest stays kept for the next process."""
        producer = self.sender("test", policy=None)
        for number in range(70):
            producer.send("test", b"%d" % number)
        self.runtime.turn()
        self.register(0)
        self.link()
        producer.recover()
        self.assertEqual(64, len(self.bodies()))
        closing = producer.close()
        self.runtime.turn()
        self.assertFalse(closing.called)
        for put in self.last:
            self.answer(put)
        self.runtime.result(closing)
        self.assertEqual([], self.bodies())
        self.assertEqual([b"%d" % number for number in range(64, 70)], self.kept("test@-1--1"))

    def test_second_topic(self) -> None:
        """What was kept of a topic that is published later goes out then, and nothing else."""
        producer = self.sender("test", policy=None)
        producer.send("test", b"a")
        producer.send("other", b"b")
        self.runtime.turn()
        self.register(0, "other")
        self.publish(producer, "other")
        self.assertEqual([b"b"], self.bodies())

    def test_topic_published_while_another_waits(self) -> None:
        """A kept message that was refused waits for its own time, not for another topic."""
        self.register(0)
        self.register(0, "other")
        producer = self.sender("test", policy=None, window=1)
        for data in (b"sent", b"kept"):
            producer.send("test", data)
        producer.send("other", b"other")
        self.assertEqual([b"sent"], self.bodies())
        self.answer(self.last[0])
        self.publish(producer, "other")
        self.assertEqual([b"other"], self.bodies())

    def test_many_pages(self) -> None:
        """More than a page is sent 64 at a time, each once."""
        producer = self.sender("test", policy=None)
        for number in range(1200):
            producer.send("test", b"%d" % number)
        self.runtime.turn()
        self.register(0)
        self.link()
        done = producer.recover()
        sent = []
        while bodies := self.bodies():
            self.assertLessEqual(len(bodies), 64)
            sent += bodies
            for put in self.last:
                self.answer(put)
        self.runtime.result(done)
        self.assertEqual([b"%d" % number for number in range(1200)], sent)

    def test_written_together(self) -> None:
        """A burst is one piece of work for the thread, and a close writes what is left."""
        producer = self.sender("test", policy=None)
        producer.send("test", b"first")
        self.runtime.turn()
        (pool,) = self.runtime.pools
        pool.hold()
        for _ in range(100):
            producer.send("test", b"x")
        self.runtime.turn()
        self.assertEqual(1, pool.held)
        closing = producer.close()
        pool.release()
        self.runtime.result(closing)
        self.assertEqual([b"first"] + [b"x"] * 100, self.kept("test@-1--1"))

    def test_disk_that_fails(self) -> None:
        """A message that cannot be written is lost with a line that names the file."""
        told: list[LostMessage] = []
        producer = self.sender("test", policy=None).on_lost(told.append)
        Path(self.path).write_bytes(b"")
        producer.send("test", b"x")
        self.runtime.turn()
        message = OutgoingMessage("test", b"x")
        self.assertEqual([(message, ANY_PARTITION)], [each[:2] for each in told])
        line = self.runtime.log.texts("error")[0]
        self.assertIn("topic test, partition -1--1, 1 bytes, is lost", line)
        self.assertIn(str(self.path), line)
