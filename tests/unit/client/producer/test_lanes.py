"""``in_order`` with a broker that keeps the order of requests: many of a partition under way."""

from __future__ import annotations

from typing import Any

from metamorphosis.client.model import MessagesFailed, OutgoingMessage, Partition
from metamorphosis.client.producer import lanes
from metamorphosis.errors import ClientClosed, Forbidden, MetaQError, NotConnected, SendTimeout
from metamorphosis.wire.commands import PutCommand, StatsCommand
from tests.support.producing import ProducingCase

HERE = Partition(0, 0)
ORIGINAL = b"STATS\r\nreplication\r\nresultCode 1\r\npartitions 0\r\nEND\r\n"


class LaneCase(ProducingCase):
    """One broker, one partition, one lane."""

    def setUp(self) -> None:
        super().setUp()
        self.register(0)
        self.sender = self.producer("test", in_order=True)
        self.asked = 0
        self.keeps_order = True

    def send(self, *numbers: int) -> Any:
        """One future of all of them."""
        some = [OutgoingMessage("test", b"%d" % number) for number in numbers]
        done: Any = self.sender.send_many(some, partition=HERE)
        self.futures.append(done)
        return done

    def arrived(self) -> list[int]:
        """The messages that the broker has got since, which answers about its order."""
        found = []
        self.last: dict[int, PutCommand] = {}
        while commands := self.commands():
            for each in commands:
                if isinstance(each, PutCommand):
                    found.append(int(each.body))
                    self.last[int(each.body)] = each
                elif isinstance(each, StatsCommand):
                    self.asked += 1
                    if self.keeps_order:
                        self.say_order(each)
                    else:
                        head = b"result 200 %d %d\r\n" % (len(ORIGINAL), each.opaque)
                        self.link().receive(head + ORIGINAL)
        return found

    def meet(self) -> None:
        """The producer asks the broker for its order, while its second message waits."""
        done = self.send(100, 101)
        for number in (100, 101):
            self.assertEqual([number], self.arrived())
            self.say(200, number)
        self.assertEqual((2, 1), (len(self.runtime.result(done)), self.asked))

    def say(self, status: int, *numbers: int) -> None:
        """The answer to some of them."""
        for number in numbers:
            text = f"{number} 0 0" if status == 200 else "no"
            self.answer(self.last[number], status, text)

    def reconnect(self) -> None:
        """The link breaks, and there is another one."""
        self.link().lose()
        self.runtime.advance(0.05)
        self.link()
        self.runtime.advance(0.2)


class WindowTests(LaneCase):
    """The number of pending messages."""

    def test_broker_of_ours(self) -> None:
        """It is asked once; from then on all leave that wait."""
        self.meet()
        done = self.send(0, 1, 2)
        self.assertEqual([0, 1, 2], self.arrived())
        self.say(200, 0, 1, 2)
        self.assertEqual([0, 1, 2], [each.message_id for each in self.runtime.result(done)])
        self.send(3, 4).addErrback(lambda _: None)
        self.assertEqual(([3, 4], 1), (self.arrived(), self.asked))

    def test_one_alone_asks_nothing(self) -> None:
        """The question is only sent when a message waits for another one."""
        self.send(0).addErrback(lambda _: None)
        self.assertEqual(([0], 0), (self.arrived(), self.asked))

    def test_original_broker(self) -> None:
        """It may execute requests in any order: one at a time."""
        self.keeps_order = False
        done = self.send(0, 1, 2)
        for number in range(3):
            self.assertEqual([number], self.arrived())
            self.say(200, number)
        self.assertEqual((3, 1), (len(self.runtime.result(done)), self.asked))

    def test_every_link_is_asked(self) -> None:
        """Another broker may have taken the address."""
        self.meet()
        self.send(0, 1, 2).addErrback(lambda _: None)
        self.assertEqual([0, 1, 2], self.arrived())
        self.keeps_order = False
        self.reconnect()
        self.assertEqual(([0], 2), (self.arrived(), self.asked))

    def test_bounded(self) -> None:
        """Their number is limited."""
        self.meet()
        self.patch(lanes, "WINDOW", 2)
        self.send(0, 1, 2, 3).addErrback(lambda _: None)
        self.assertEqual([0, 1], self.arrived())
        self.say(200, 0)
        self.assertEqual([2], self.arrived())

    def test_waited_less_than_its_limit(self) -> None:
        """A message that came last does not fail with the first one, which got no answer."""
        self.keeps_order = False
        sender = self.producer("test", in_order=True, retries=0)
        first = sender.send("test", b"10", partition=HERE)
        second = sender.send("test", b"11", partition=HERE)
        self.assertEqual([10], self.arrived())
        self.runtime.advance(2.5)
        third = sender.send("test", b"12", partition=HERE)
        self.runtime.advance(1)
        self.assertRaises(SendTimeout, self.runtime.result, first)
        with self.assertRaisesRegex(MetaQError, "behind others"):
            self.runtime.result(second)
        self.assertEqual(12, self.arrived()[-1])
        self.say(200, 12)
        self.assertEqual(12, self.runtime.result(third).message_id)


class FailureTests(LaneCase):
    """No message passes one that failed."""

    def setUp(self) -> None:
        super().setUp()
        self.meet()
        self.done = self.send(0, 1, 2, 3)
        self.assertEqual([0, 1, 2, 3], self.arrived())

    def test_lost_connection(self) -> None:
        """Everything without an answer goes again, in its order; what was sent since waits."""
        self.say(200, 0)
        self.link().lose()
        self.send(4).addErrback(lambda _: None)
        self.runtime.advance(0.05)
        self.link()
        self.runtime.advance(0.2)
        self.assertEqual([1], self.arrived())  # the new link is asked first
        self.say(200, 1)
        self.assertEqual([2, 3, 4], self.arrived())
        self.say(200, 2, 3, 4)
        self.assertEqual(4, len(self.runtime.result(self.done)))

    def test_refused_and_passed(self) -> None:
        """A later one was stored: the refused one is given up at once, and says why."""
        self.say(403, 0)
        self.say(200, 1, 2)
        self.say(403, 3)
        self.runtime.advance(0.05)
        self.assertEqual([], self.arrived())
        self.runtime.advance(0.1)
        self.assertEqual([3], self.arrived())
        self.say(200, 3)
        with self.assertRaises(MessagesFailed) as caught:
            self.runtime.result(self.done)
        (error,) = caught.exception.failed.values()
        self.assertIsInstance(error, Forbidden)
        self.assertIn(
            "no; not tried again: later messages of its partition were stored", str(error)
        )

    def test_refused_and_perhaps_passed(self) -> None:
        """A later one may have been stored: the same."""
        self.say(403, 0)
        self.reconnect()
        self.assertEqual([1], self.arrived())
        self.say(200, 1)
        self.assertEqual([2, 3], self.arrived())
        self.say(200, 2, 3)
        with self.assertRaisesRegex(MessagesFailed, "partition may have been stored"):
            self.runtime.result(self.done)

    def test_all_refused(self) -> None:
        """They go again together after one pause, and what comes meanwhile after them."""
        self.say(200, 0)
        self.say(503, 1, 2)
        self.send(4).addErrback(lambda _: None)
        self.assertEqual([], self.arrived_keeping())
        self.say(503, 3)
        self.runtime.advance(0.15)
        self.assertEqual([1, 2, 3, 4], self.arrived())
        self.say(200, 1, 2, 3, 4)
        self.assertEqual(4, len(self.runtime.result(self.done)))

    def arrived_keeping(self) -> list[int]:
        """``arrived``, with the earlier ones still there to be answered."""
        before = self.last
        found = self.arrived()
        self.last = {**before, **self.last}
        return found

    def test_no_answer(self) -> None:
        """The first without one stands for all after it: they go again together."""
        self.say(200, 0)
        self.runtime.advance(3.05)
        self.assertEqual([], self.arrived_keeping())
        self.runtime.advance(0.1)
        self.assertEqual([1, 2, 3], self.arrived())
        self.say(200, 1, 2, 3)
        self.assertEqual(4, len(self.runtime.result(self.done)))

    def test_no_answer_to_one_sent_earlier(self) -> None:
        """Those sent later time out with the first: none waits for its own time limit."""
        self.say(200, 0, 1, 2, 3)
        self.send(4).addErrback(lambda _: None)
        self.runtime.advance(2)
        self.send(5).addErrback(lambda _: None)
        self.assertEqual([4, 5], self.arrived())
        self.runtime.advance(1.2)
        self.assertEqual([4, 5], self.arrived())

    def test_outcomes_without_an_answer(self) -> None:
        """What was written may have been stored; what the socket has not taken was not."""
        for stalls, expected in ((False, SendTimeout), (True, NotConnected)):
            sender = self.producer("test", in_order=True)
            first = sender.send("test", b"4", partition=HERE)
            self.assertEqual(4, self.arrived()[-1])
            self.runtime.advance(2)
            if stalls:
                self.link().stall()
            second = sender.send("test", b"5", partition=HERE)
            self.runtime.advance(1.05)
            sender.close()
            self.assertRaises(SendTimeout, self.runtime.result, first)
            error = self.assertRaises(expected, self.runtime.result, second)
            self.assertIs(stalls, error.outcome_known)

    def test_slow_broker(self) -> None:
        """The time of a message begins when the one before it is answered."""
        for number in range(4):
            self.runtime.advance(2.5)
            self.assertEqual([], self.arrived_keeping())
            self.say(200, number)
        self.assertEqual(4, len(self.runtime.result(self.done)))

    def test_a_little_slow(self) -> None:
        """The time limit is extended by as much as the one before was late, and no more."""
        self.runtime.advance(0.5)
        self.say(200, 0)
        self.runtime.advance(2.9)
        self.assertEqual([], self.arrived_keeping())
        self.runtime.advance(0.3)
        self.assertEqual([1, 2, 3], self.arrived())

    def test_slow_and_then_silent(self) -> None:
        """The time limit is not extended."""
        self.runtime.advance(2)
        self.say(200, 0)
        self.runtime.advance(2.9)
        self.assertEqual([], self.arrived_keeping())
        self.runtime.advance(0.3)
        self.assertEqual([1, 2, 3], self.arrived())

    def test_broker_away_for_a_moment(self) -> None:
        """A message behind others that has no broker waits for its turn, without an attempt."""
        self.unregister(0)
        self.send(4).addErrback(lambda _: None)
        self.register(0)
        self.assertEqual([], self.arrived_keeping())
        self.say(200, 0, 1, 2, 3)
        self.assertEqual([4], self.arrived())

    def test_shorter_time_limit(self) -> None:
        """A message that timed out is not passed by one in front of it, and goes again."""
        self.say(200, 0, 1, 2, 3)
        for number, limit in ((4, 10.0), (5, 1.0)):
            self.futures.append(
                self.sender.send("test", b"%d" % number, partition=HERE, timeout=limit)
            )
        self.assertEqual([4, 5], self.arrived())
        self.runtime.advance(1.5)
        self.say(200, 4)
        self.runtime.advance(0.2)
        self.assertEqual([5], self.arrived())

    def test_closed_while_they_wait_for_their_attempt(self) -> None:
        """Nothing is tried again; each gets its last error."""
        self.say(503, 0, 1, 2, 3)
        more = self.send(4)
        closed = self.sender.close()
        with self.assertRaisesRegex(MessagesFailed, "4 of 4 messages failed; .*: no"):
            self.runtime.result(self.done)
        self.assertEqual([4], self.arrived())  # was sent before the close, and waited
        self.say(200, 4)
        self.assertEqual(1, len(self.runtime.result(more)))
        self.runtime.result(closed)
        self.assertRaises(ClientClosed, self.runtime.result, self.send(5))

    def test_closed_while_the_others_are_waited_for(self) -> None:
        """The answers that still come count."""
        self.say(503, 0)
        closed = self.sender.close()
        self.say(503, 1, 2, 3)
        with self.assertRaises(MessagesFailed):
            self.runtime.result(self.done)
        self.runtime.result(closed)

    def test_attempts_of_those_that_waited(self) -> None:
        """The broker falls silent for good: each says how many attempts it has had."""
        sender = self.producer("test", in_order=True, retries=1)
        self.say(200, 0, 1, 2, 3)
        self.runtime.advance(20)
        futures = [sender.send("test", b"%d" % number, partition=HERE) for number in range(3)]
        self.assertEqual([0, 1, 2], self.arrived())
        self.link().lose()
        self.runtime.advance(0.05)
        self.link()
        self.runtime.advance(8)
        texts = []
        for future in futures:
            with self.assertRaises(MetaQError) as caught:
                self.runtime.result(future)
            texts.append(str(caught.exception))
        self.assertIn("given up after 2 attempts", texts[0])
        for text in texts[1:]:
            self.assertRegex(text, r"it waited 3\.\d s behind others")
            self.assertIn("given up after 1 attempts", text)

    def test_time_is_over(self) -> None:
        """A broker that never answers: all are given up when their time is over."""
        for _ in range(60):
            self.runtime.advance(2.5)
        with self.assertRaises(MessagesFailed) as caught:
            self.runtime.result(self.done)
        self.assertEqual({SendTimeout}, {type(each) for each in caught.exception.outcomes})
        self.assertFalse(caught.exception.outcome_known)
        self.assertEqual({}, self.sender._sending._lanes._lanes)
