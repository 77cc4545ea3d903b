"""``send_many``: a list of messages, one future, and what becomes of each of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from metamorphosis.client.model import MessagesFailed, OutgoingMessage, Partition, SendResult
from metamorphosis.client.producer import puts as puts_module
from metamorphosis.client.producer import runs as runs_module
from metamorphosis.client.producer import sending as sending_module
from metamorphosis.client.producer.puts import OVERHEAD_BYTES, frame_in_python
from metamorphosis.client.producer.runs import Runs
from metamorphosis.client.producer.sending import Sending
from metamorphosis.errors import (
    BadReply,
    ClientClosed,
    ConnectionLost,
    Forbidden,
    InternalServerError,
    InvalidArgument,
    InvalidMessage,
    MessageTooLarge,
    NoPartition,
    NotConnected,
    NothingSelected,
    NotPublished,
    SendTimeout,
)
from tests.support.producing import ProducingCase


def messages(*bodies: bytes, topic: str = "test") -> list[OutgoingMessage]:
    """One of each body."""
    return [OutgoingMessage(topic, body) for body in bodies]


class ManyCase(ProducingCase):
    """A broker with two partitions, and a producer that makes one attempt."""

    options: dict[str, Any] = {"retries": 0}

    def setUp(self) -> None:
        super().setUp()
        self.register(0, partitions=2)
        self.sender = self.producer("test", **self.options)

    def failure(self, future: Any) -> MessagesFailed:
        """Of a list."""
        with self.assertRaises(MessagesFailed) as caught:
            self.runtime.result(future)
        return caught.exception


class ResultTests(ManyCase):
    """All is well."""

    def test_results_in_the_order_of_the_messages(self) -> None:
        """In whatever order the answers come; nothing is told before the last one."""
        done = self.sender.send_many(messages(b"0", b"1", b"2"))
        puts = self.puts()
        self.assertEqual([b"0", b"1", b"2"], [put.body for put in puts])
        for put in reversed(puts):
            self.assertFalse(done.called)  # type: ignore[attr-defined]
            self.answer(put, text=f"1{int(put.body)} {put.partition} 5")
        results = self.runtime.result(done)
        self.assertEqual([10, 11, 12], [each.message_id for each in results])
        self.assertEqual([SendResult] * 3, [type(each) for each in results])

    def test_one_write(self) -> None:
        """What fits leaves together."""
        self.sender.send_many(messages(*[b"x"] * 100)).addErrback(  # type: ignore[attr-defined]
            lambda _: None
        )
        self.assertEqual((100, 1), (len(self.puts()), self.link().writes))

    def test_each_message_is_its_own(self) -> None:
        """Topics, attributes and keys may be mixed."""
        self.register(0, "other")
        sender = self.producer("test", "other", retries=0)
        some = [OutgoingMessage("test", b"a", "attribute", "k"), OutgoingMessage("other", b"b")]
        done = sender.send_many(iter(some))
        first, second = self.puts()
        self.assertEqual(
            ("test", 1, "other", 0), (first.topic, first.flag, second.topic, second.flag)
        )
        self.answer(first)
        self.answer(second)
        self.assertEqual(2, len(self.runtime.result(done)))

    def test_partition(self) -> None:
        """All of them go there."""
        self.sender.send_many(messages(*[b"x"] * 5), partition=Partition(0, 1)).addErrback(  # type: ignore[attr-defined]
            lambda _: None
        )
        self.assertEqual([1] * 5, [put.partition for put in self.puts()])

    def test_nothing(self) -> None:
        """An empty list is sent at once."""
        self.assertEqual([], self.runtime.result(self.sender.send_many([])))

    def test_cancelled(self) -> None:
        """The messages are sent nevertheless, and their answers are dropped."""
        done: Any = self.sender.send_many(messages(b"0", b"1"))
        done.addErrback(lambda _: None)
        done.cancel()
        puts = self.puts()
        self.answer(puts[0])
        self.answer(puts[1], 500, "no")
        self.assertEqual([], self.runtime.log.texts("failure"))

    def test_answered_by_the_sender(self) -> None:
        """A future that has a result meanwhile, as of a time limit of the sender, is left alone."""
        done: Any = self.sender.send_many(messages(b"0"))
        done.callback([])
        self.answer(self.puts()[0])
        self.assertEqual([], self.runtime.result(done))
        self.assertEqual([], self.runtime.log.texts("failure"))


class FailureTests(ManyCase):
    """Some are not stored."""

    def test_which_and_why(self) -> None:
        """The outcomes have both, in the order of the messages."""
        done = self.sender.send_many(messages(b"0", b"1", b"2", b"3"))
        for put, status in zip(self.puts(), (200, 500, 200, 403), strict=True):
            self.answer(put, status, None if status == 200 else "no")
        error = self.failure(done)
        kinds = [SendResult, InternalServerError, SendResult, Forbidden]
        self.assertEqual(kinds, [type(each) for each in error.outcomes])
        self.assertEqual([1, 3], list(error.failed))
        self.assertIs(error.outcomes[1], error.__cause__)
        self.assertEqual((True, False), (error.outcome_known, error.retriable))
        self.assertEqual(
            "2 of 4 messages failed; the first is messages[1]: no",
            str(error),
        )

    def test_no_broker(self) -> None:
        """The one attempt of each finds none."""
        self.end(0)
        done = self.sender.send_many(messages(b"0", b"1"))
        self.assertEqual({NoPartition}, {type(each) for each in self.failure(done).outcomes})

    def test_refusal_like_a_place(self) -> None:
        """Only the status tells what it is."""
        done = self.sender.send_many(messages(b"0"))
        (put,) = self.puts()
        self.answer(put, 500, "7 0 5")
        self.assertIsInstance(self.failure(done).outcomes[0], InternalServerError)

    def test_outcome_unknown(self) -> None:
        """One that may have been stored makes the whole unsure, and is told from the others."""
        done = self.sender.send_many(messages(b"0", b"1", b"2"))
        first, second, _ = self.puts()
        self.answer(first)
        self.answer(second, 500, "no")
        self.link().lose()
        error = self.failure(done)
        self.assertFalse(error.outcome_known)
        self.assertIsInstance(error.failed[2], ConnectionLost)
        known = {index: each.outcome_known for index, each in error.failed.items()}  # type: ignore[attr-defined]
        self.assertEqual({1: True, 2: False}, known)
        self.assertIn("2 of 3 messages failed, 1 of which may have been stored", str(error))

    def test_selector(self) -> None:
        """Its errors belong to their messages; the others go."""
        nobody = Partition(7, 0)
        chosen: list[Any] = [Partition(0, 0), None, "0-0", ZeroDivisionError("on purpose"), nobody]

        def select(*_: object) -> Any:
            found = chosen.pop(0)
            if isinstance(found, Exception):
                raise found
            return found

        sender = self.producer("test", selector=select, retries=0)
        done = sender.send_many(messages(*[b"x"] * 5))
        (put,) = self.puts()
        self.answer(put)
        failure = self.failure(done)
        self.assertTrue(failure.outcome_known)
        outcomes = failure.outcomes
        expected = [SendResult, NothingSelected, InvalidArgument, ZeroDivisionError, NoPartition]
        self.assertEqual(expected, [type(each) for each in outcomes])
        self.assertIn("topic test", str(outcomes[4]))

    def test_not_published(self) -> None:
        """Messages of an unpublished topic fail; the others of the list are sent."""
        done = self.sender.send_many(messages(b"a", topic="other") + messages(b"b"))
        (put,) = self.puts()
        self.answer(put)
        error = self.failure(done)
        self.assertEqual([NotPublished, SendResult], [type(each) for each in error.outcomes])

    def test_timeout(self) -> None:
        """That of the call is that of each message."""
        done = self.sender.send_many(messages(b"0", b"1"), timeout=1)
        self.puts()
        self.runtime.advance(1.1)
        error = self.failure(done)
        self.assertEqual([SendTimeout] * 2, [type(each) for each in error.outcomes])
        self.assertIn("to partition 0-1 at meta://host0:8123", str(error))


class WrongTests(ManyCase):
    """Bad input is told before anything is sent."""

    def test_one_of_them(self) -> None:
        """It is named, and none of the list leaves."""
        good = OutgoingMessage("test", b"x")
        for wrong, text in (
            (b"x", r"it is b'x'; an OutgoingMessage expected"),
            (("test", b"x", None, None), "an OutgoingMessage expected"),
            (good._replace(topic=" "), "topic is ' '"),
            (good._replace(data="text"), "data is 'text'; bytes expected"),
            (good._replace(attribute=5), "attribute is 5"),
            (good._replace(key=5), "key is 5"),
        ):
            some: list[Any] = [good, good, wrong, good]
            with self.assertRaisesRegex(InvalidMessage, rf"^messages\[2\]: .*{text}"):
                self.runtime.result(self.sender.send_many(some))
            self.assertEqual([], self.puts())

    def test_too_large(self) -> None:
        """Longer than what consumers take."""
        longest = self.session.config.max_body_bytes
        some = messages(b"x", bytes(longest + 1))
        with self.assertRaisesRegex(MessageTooLarge, r"^messages\[1\]: .*max_body_bytes"):
            self.runtime.result(self.sender.send_many(some))
        self.assertEqual([], self.puts())
        done = self.sender.send_many(messages(b"x", bytes(longest)))
        for put in self.puts():
            self.answer(put)
        self.assertEqual(2, len(self.runtime.result(done)))

    def test_no_list(self) -> None:
        """One message, or its body, is invalid."""
        for wrong in (OutgoingMessage("test", b"x"), b"x", "x", 5, None):
            with self.assertRaisesRegex(InvalidMessage, "^messages is .*several messages expected"):
                self.runtime.result(self.sender.send_many(wrong))  # type: ignore[arg-type]

    def test_iterator_that_fails(self) -> None:
        """Its error comes by the future; what it gave before is not sent."""

        def some() -> Iterator[OutgoingMessage]:
            yield OutgoingMessage("test", b"x")
            raise ZeroDivisionError("on purpose")

        with self.assertRaises(ZeroDivisionError):
            self.runtime.result(self.sender.send_many(some()))
        self.assertEqual([], self.puts())

    def test_closed(self) -> None:
        """Nothing is taken any more."""
        self.runtime.result(self.sender.close())
        with self.assertRaises(ClientClosed):
            self.runtime.result(self.sender.send_many(messages(b"x")))


class RetryTests(ManyCase):
    """Each message has its own attempts."""

    options = {"retries": 3}

    def test_only_what_failed(self) -> None:
        """A message that was stored is not sent again."""
        done = self.sender.send_many(messages(b"0", b"1", b"2"))
        for put, status in zip(self.puts(), (200, 503, 200), strict=True):
            self.answer(put, status, None if status == 200 else "no")
        self.assertFalse(done.called)  # type: ignore[attr-defined]
        self.runtime.advance(0.2)
        (again,) = self.puts()
        self.assertEqual(b"1", again.body)
        self.answer(again)
        self.assertEqual(3, len(self.runtime.result(done)))

    def test_budget_of_each(self) -> None:
        """One that is given up says after how many attempts; the list waits for it."""
        done = self.sender.send_many(messages(b"0", b"1"))
        first, again = self.puts()
        self.answer(first)
        self.answer(again, 503, "no")
        for _ in range(3):
            self.runtime.advance(1.1)
            (again,) = self.puts()
            self.answer(again, 503, "no")
        error = self.failure(done)
        self.assertEqual([1], list(error.failed))
        self.assertIn("given up after 4 attempts", str(error))

    def test_no_broker(self) -> None:
        """All of them wait for one that comes back."""
        self.end(0)
        done = self.sender.send_many(messages(b"0", b"1"))
        self.runtime.advance(0.5)
        self.register(0, partitions=2)
        self.link()
        self.runtime.advance(1)
        puts = self.puts()
        self.assertEqual([b"0", b"1"], [put.body for put in puts])
        for put in puts:
            self.answer(put)
        self.assertEqual(2, len(self.runtime.result(done)))

    def test_no_broker_and_one_more_attempt(self) -> None:
        """A single further attempt is made, too."""
        self.end(0)
        sender = self.producer("test", retries=1)
        done = sender.send_many(messages(b"0"))
        self.assertFalse(done.called)  # type: ignore[attr-defined]
        self.register(0, partitions=2)
        self.link()
        self.runtime.advance(1)
        (put,) = self.puts()
        self.answer(put)
        self.assertEqual(1, len(self.runtime.result(done)))

    def test_partition_at_the_second_look(self) -> None:
        """A message that finds its partition then is not sent before those in front of it."""
        failing = [NoPartition("on purpose")]

        def select(topic: str, partitions: object, message: OutgoingMessage) -> Partition:
            if message.data == b"1" and failing:
                raise failing.pop()
            return Partition(0, 0)

        sender = self.producer("test", selector=select)
        done = sender.send_many(messages(b"0", b"1", b"2"))
        puts = self.puts()
        self.assertEqual([b"0", b"1", b"2"], [put.body for put in puts])
        for put in puts:
            self.answer(put)
        self.assertEqual(3, len(self.runtime.result(done)))

    def test_close_tells_of_all(self) -> None:
        """Nothing is tried again, and the list has its outcomes before the close is over."""
        done = self.sender.send_many(messages(b"0", b"1"))
        first, second = self.puts()
        self.answer(first)
        self.answer(second, 503, "no")
        self.runtime.result(self.sender.close())
        self.assertEqual([1], list(self.failure(done).failed))


class RunTests(ManyCase):
    """The messages of a list leave together, and each keeps what it has alone."""

    options = {"retries": 3}

    def send(self, *bodies: bytes, **options: Any) -> Any:
        """A list for one partition."""
        return self.sender.send_many(messages(*bodies), partition=Partition(0, 0), **options)

    def test_long_list(self) -> None:
        """It leaves in pieces, in its order, and before the end of the turn."""
        bodies = [b"%d" % number * 2000 for number in range(100)]
        done = self.send(*bodies)
        self.assertTrue(self.link().written)
        puts = self.puts()
        self.assertEqual(bodies, [put.body for put in puts])
        self.assertLess(2, self.link().writes)
        for put in puts:
            self.answer(put)
        self.assertEqual(100, len(self.runtime.result(done)))

    def test_bytes_of_a_run(self) -> None:
        """Some 64 KiB leave together, for one partition or for several; a longer message leaves by
        itself."""
        for partition in (Partition(0, 0), None):
            for count, length, writes in ((3, 21845, 1), (3, 21846, 2), (4, 100_000, 4)):
                before = self.link().writes
                some = messages(*[bytes(length)] * count)
                done = self.sender.send_many(some, partition=partition)
                puts = self.puts()
                self.assertEqual(count, len(puts))
                for put in puts:
                    self.answer(put)
                self.assertEqual(count, len(self.runtime.result(done)))
                self.assertEqual(writes, self.link().writes - before, (partition, length))

    def test_brokers(self) -> None:
        """One run for each; results name broker and partition."""
        self.register(1)
        sender = self.producer("test", retries=0)
        done = sender.send_many(messages(*(b"%d" % number for number in range(6))))
        for broker_id in (0, 1):
            link = self.link(broker_id)
            puts = self.puts(broker_id)
            self.assertEqual(1, link.writes)
            for put in puts:
                self.answer(put, at=broker_id)
        found = [each.partition for each in self.runtime.result(done)]
        each = [Partition(0, 1), Partition(1, 0), Partition(0, 0)]
        self.assertEqual(each * 2, found)

    def test_none_is_sent_alone(self) -> None:
        """Where nothing is wrong no message costs what a single one does."""
        single: list[object] = []
        self.patch(Sending, "attempt", lambda sending, put: single.append(put))
        for partition in (Partition(0, 1), None):
            done = self.sender.send_many(messages(b"0", b"1", b"2"), partition=partition)
            for put in self.puts():
                self.answer(put)
            self.assertEqual(3, len(self.runtime.result(done)))
        self.assertEqual([], single)

    def test_one_partition(self) -> None:
        """A list for one partition is not looked through, one of a single message either."""
        found: list[bool] = []
        take = Runs._take_fixed
        self.patch(Runs, "_take_fixed", lambda *values: found.append(take(*values)) or found[-1])
        for bodies in ((b"0", b"1"), (b"0",)):
            done = self.send(*bodies)
            for put in self.puts():
                self.answer(put)
            self.assertEqual(len(bodies), len(self.runtime.result(done)))
        self.assertEqual([True, True], found)

    def test_close_waits_for_a_run(self) -> None:
        """The end of the producer comes after the answers to all messages of the list."""
        done = self.send(b"0", b"1")
        first, second = self.puts()
        self.answer(first)
        closed = self.sender.close()
        self.assertFalse(closed.called)  # type: ignore[attr-defined]
        self.answer(second)
        self.runtime.result(closed)
        self.assertEqual(2, len(self.runtime.result(done)))

    def test_topics_in_turn(self) -> None:
        """The messages of each topic leave together, and none is left behind."""
        self.register(0, "other")
        sender = self.producer("test", "other", retries=0)
        topics = ["test", "other"] * 3
        done = sender.send_many([OutgoingMessage(each, b"%d" % n) for n, each in enumerate(topics)])
        puts = self.puts()
        wanted = {(each, b"%d" % n) for n, each in enumerate(topics)}
        self.assertEqual(wanted, {(put.topic, put.body) for put in puts})
        for put in puts:
            self.answer(put)
        self.assertEqual(6, len(self.runtime.result(done)))

    def test_lost_before_it_left(self) -> None:
        """What was not written goes again without doubt, what was written with doubt."""
        done = self.sender.send_many(messages(b"0"), partition=Partition(0, 0))
        self.puts()
        late = self.send(b"1", b"2")
        self.sender._sending._retries = 0  # type: ignore[misc]
        self.sender._sending._retrying._retries = 0
        self.link().lose()
        known = [each.outcome_known for each in self.failure(late).failed.values()]  # type: ignore[attr-defined]
        self.assertEqual([True, True], known)
        self.assertFalse(self.failure(done).outcome_known)

    def test_no_time_to_leave(self) -> None:
        """Messages of a run that waits for a full socket are taken out when their time is over."""
        self.link().receiver.pause_sending()
        done = self.send(b"0", b"1", timeout=1)
        self.sender._sending._retrying._retries = 0
        self.runtime.advance(1.2)
        kinds = [type(each) for each in self.failure(done).outcomes]
        self.assertEqual([NotConnected] * 2, kinds)
        self.link().receiver.resume_sending()
        self.assertEqual([], self.puts())

    def test_not_connected(self) -> None:
        """The whole run is tried again, in its order."""
        self.link().lose()
        done = self.send(b"0", b"1", b"2")
        while not self.runtime.attempts:
            self.runtime.advance(0.1)
        self.runtime.accept()
        self.runtime.advance(1.1)
        puts = self.puts()
        self.assertEqual([b"0", b"1", b"2"], [put.body for put in puts])
        for put in puts:
            self.answer(put)
        self.assertEqual(3, len(self.runtime.result(done)))

    def test_bad_answer(self) -> None:
        """One answer that names no place fails its message alone."""
        done = self.send(b"0", b"1")
        first, second = self.puts()
        self.answer(first, text="no place")
        self.answer(second)
        error = self.failure(done)
        self.assertEqual([BadReply, SendResult], [type(each) for each in error.outcomes])

    def test_frame_that_cannot_be_made(self) -> None:
        """The partition has a number that no frame takes: the others of its run go."""
        chosen = [Partition(0, 0), Partition(0, 1 << 31), Partition(0, 1)]
        sender = self.producer("test", selector=lambda *_: chosen.pop(0), retries=0)
        made = frame_in_python

        def frame(topic: bytes, number: int, body: bytes, flag: int, opaque: int) -> bytes:
            if number >= 1 << 31:
                raise OverflowError("on purpose")
            return made(topic, number, body, flag, opaque)

        for module in (puts_module, runs_module, sending_module):
            self.patch(module, "frame_of", frame)
        done = sender.send_many(messages(b"0", b"1", b"2"))
        puts = self.puts()
        self.assertEqual([b"0", b"2"], [put.body for put in puts])
        for put in puts:
            self.answer(put)
        kinds = [type(each) for each in self.failure(done).outcomes]
        self.assertEqual([SendResult, OverflowError, SendResult], kinds)

    def test_attribute(self) -> None:
        """It is sent before the body, with its flag, and with each attempt."""
        some = [OutgoingMessage("test", b"x", attribute) for attribute in (None, "a", "")]
        done = self.sender.send_many(some, partition=Partition(0, 0))
        first = self.puts()
        self.assertEqual([0, 1, 1], [put.flag for put in first])
        for put in first:
            self.answer(put, 503, "no")
        self.runtime.advance(0.2)
        again = self.puts()
        self.assertEqual([put.body for put in first], [put.body for put in again])
        self.assertEqual([0, 1, 1], [put.flag for put in again])
        for put in again:
            self.answer(put)
        self.assertEqual(3, len(self.runtime.result(done)))

    def test_room_comes_back_by_the_message(self) -> None:
        """An answer to one of a run lets the next message that waits go."""
        sender = self.producer("test", max_outstanding_bytes=3 * (OVERHEAD_BYTES + 1))
        sender.send_many(messages(b"0", b"1", b"2", b"3", b"4")).addErrback(  # type: ignore[attr-defined]
            lambda _: None
        )
        first = self.puts()
        self.assertEqual([b"0", b"1", b"2"], [put.body for put in first])
        self.answer(first[1])
        self.assertEqual([b"3"], [put.body for put in self.puts()])

    def test_longer_than_the_room(self) -> None:
        """A message that is longer than all room goes when nothing else is under way."""
        sender = self.producer("test", max_outstanding_bytes=OVERHEAD_BYTES)
        for bodies in ((b"00", b"11"), (b"00",)):
            done = sender.send_many(messages(*bodies))
            for _ in bodies:
                (put,) = self.puts()
                self.answer(put)
            self.assertEqual(len(bodies), len(self.runtime.result(done)))


class DirectRunTests(ManyCase):
    """Runs without ZooKeeper, where the broker chooses the partition."""

    direct = True

    def setUp(self) -> None:
        ProducingCase.setUp(self)
        self.sender = self.producer("test", retries=0)

    def test_not_looked_through(self) -> None:
        """The whole list has the one place that there is."""
        found: list[bool] = []
        take = Runs._take_fixed
        self.patch(Runs, "_take_fixed", lambda *values: found.append(take(*values)) or found[-1])
        done = self.sender.send_many(messages(b"0", b"1"))
        puts = self.puts()
        self.assertEqual([-1, -1], [put.partition for put in puts])
        for put in puts:
            self.answer(put, text="7 3 10")
        stored = SendResult(7, Partition(-1, 3), 10)
        self.assertEqual(([stored] * 2, [True]), (self.runtime.result(done), found))


class BoundTests(ManyCase):
    """Memory and order are those of ``send``."""

    def test_back_pressure(self) -> None:
        """What is beyond the bound waits, and the producer is full meanwhile."""
        sender = self.producer("test", max_outstanding_bytes=3 * OVERHEAD_BYTES)
        done = sender.send_many(messages(*(b"%d" % number for number in range(10))))
        sent: list[bytes] = []
        self.assertTrue(sender.is_full)
        while puts := self.puts():
            self.assertLessEqual(len(puts), 3)
            sent += [put.body for put in puts]
            for put in puts:
                self.answer(put)
        self.assertEqual([b"%d" % number for number in range(10)], sent)
        self.assertFalse(sender.is_full)
        self.assertEqual(10, len(self.runtime.result(done)))

    def test_after_earlier_sends(self) -> None:
        """A list does not overtake what was sent before, nor is it overtaken."""
        sender = self.producer("test", max_outstanding_bytes=2 * OVERHEAD_BYTES)
        here = Partition(0, 0)
        sender.send("test", b"0", partition=here)
        sender.send_many(messages(b"1", b"2", b"3"), partition=here)
        sender.send("test", b"4", partition=here)
        sent = []
        while puts := self.puts():
            for put in puts:
                sent.append(put.body)
                self.answer(put)
        self.assertEqual([b"0", b"1", b"2", b"3", b"4"], sent)

    def test_in_order(self) -> None:
        """A message that is tried again is not passed by those after it."""
        sender = self.producer("test", in_order=True, retries=2)
        done = sender.send_many(messages(b"0", b"1", b"2"), partition=Partition(0, 0))
        stored = []
        statuses = iter((200, 503, 200, 200))
        for _ in range(20):
            for put in self.puts():
                status = next(statuses)
                if status == 200:
                    stored.append(put.body)
                self.answer(put, status, None if status == 200 else "no")
            self.runtime.advance(0.2)
        self.assertEqual([b"0", b"1", b"2"], stored)
        self.assertEqual(3, len(self.runtime.result(done)))
