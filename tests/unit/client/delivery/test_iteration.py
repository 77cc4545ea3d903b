"""``async for message in consumer``."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from metamorphosis.client.delivery.delivery import PartitionDelivery
from metamorphosis.client.delivery.iteration import Iteration, LimitedIteration
from metamorphosis.client.delivery.subscription import Subscription
from metamorphosis.client.model import Partition, Position, ReceivedMessage
from metamorphosis.client.network.flow import Slots
from metamorphosis.errors import ClientClosed, InvalidState
from tests.unit.client.delivery.test_delivery import PARTITION, DeliveryCase, messages


class IterationCase(DeliveryCase):
    """One user, and deliveries that bring messages."""

    def setUp(self) -> None:
        super().setUp()
        self.present: dict[tuple[str, Partition], PartitionDelivery] = {}
        self.iteration = Iteration(
            self.runtime, lambda topic, partition: self.present.get((topic, partition))
        )
        self.rules.outlet = self.iteration

    def claimed(self, offset: int = 0, **more: Any) -> PartitionDelivery:
        """A partition whose messages go to the iteration."""
        subscription = Subscription("t", 1000, None, **more)
        delivery = PartitionDelivery(self.rules, subscription, Position("t", PARTITION, offset))
        self.present["t", PARTITION] = delivery
        return delivery

    def fetch(self, delivery: PartitionDelivery, *numbers: int) -> Deferred[bool]:
        """Messages arrive."""
        return self.runtime.start(delivery.deliver(messages(*numbers)))

    def next(self) -> ReceivedMessage:
        """The next message, which must be there."""
        found = self.runtime.run(self.iteration.__anext__())
        assert isinstance(found, ReceivedMessage)
        return found

    def next_later(self) -> Deferred[ReceivedMessage]:
        """The next message, when it arrives."""
        return self.runtime.start(self.iteration.__anext__())


class IterationTests(IterationCase):
    """Taking messages one by one."""

    def test_acknowledged_by_asking_on(self) -> None:
        """A message counts when the next one is asked for."""
        delivery = self.claimed()
        done = self.fetch(delivery, 0, 1)
        self.assertEqual((0, 0), (self.next().id, delivery.position.offset))
        self.assertEqual((1, 23), (self.next().id, delivery.position.offset))
        self.assertTrue(delivery.position.modified)
        self.assertNoResult(done)
        later = self.next_later()
        self.assertEqual(46, delivery.position.offset)
        self.assertTrue(self.runtime.result(done))
        self.assertEqual([], self.rules.duplicates.fresh(messages(0, 1)))
        self.fetch(delivery, 2)
        self.assertEqual(2, self.runtime.result(later).id)

    def test_does_not_suspend(self) -> None:
        """A present message is returned without a turn of the loop."""
        self.fetch(self.claimed(), 0)
        coroutine = self.iteration.__anext__()
        with self.assertRaises(StopIteration) as stop:
            coroutine.send(None)
        self.assertEqual(0, stop.exception.value.id)

    def test_last_one_is_rejected(self) -> None:
        """A stretch whose last message fails too often counts as processed."""
        self.rules.max_retries = 0
        delivery = self.claimed()
        done = self.fetch(delivery, 0, 1)
        self.next()
        self.iteration.rollback(self.next())
        self.assertIs(True, self.runtime.result(done))
        self.assertEqual(([1], 46), (self.rejected, delivery.position.offset))

    def test_async_for(self) -> None:
        """The loop ends when the consumer is closed."""

        async def loop() -> None:
            async for message in self.iteration:
                self.got.append(message.id)

        delivery = self.claimed()
        looping = self.runtime.start(loop())
        self.fetch(delivery, 0, 1)
        self.fetch(delivery, 2)
        self.assertEqual([0, 1, 2], self.got)
        self.iteration.close()
        self.assertIsNone(self.runtime.result(looping))

    def test_several_partitions(self) -> None:
        """Partitions take turns, one fetched stretch each."""
        one, other = self.claimed(), self.claimed()
        for delivery, numbers in ((one, (0, 1)), (other, (10, 11))):
            self.fetch(delivery, *numbers)
        self.assertEqual([0, 1, 10, 11], [self.next().id for _ in range(4)])
        self.assertEqual((46, 11 * 23), (one.position.offset, other.position.offset))

    def test_back_pressure(self) -> None:
        """A partition's delivery ends only when the user has taken its messages: no more is fetched
        before."""
        done = self.fetch(self.claimed(), 0, 1)
        self.next()
        self.runtime.advance(3600)
        self.assertNoResult(done)

    def test_takes_no_place_of_listeners(self) -> None:
        """Messages that wait for an iteration take no slot of a listener: an idle iteration does
        not stop the listeners of other topics."""
        self.rules.slots = Slots(self.runtime, 1)
        self.fetch(self.claimed(), 0)
        self.assertTrue(self.deliver(self.delivery(), 7))
        self.assertEqual([7], self.got)

    def test_ack_before_leaving(self) -> None:
        """``ack`` acknowledges as asking for the next message does."""
        delivery = self.claimed()
        self.fetch(delivery, 0, 1)
        message = self.next()
        self.iteration.ack(message)
        self.assertEqual(23, delivery.position.offset)
        self.assertRaisesRegex(InvalidState, "taken last", self.iteration.ack, message)
        self.assertEqual(1, self.next().id)

    def test_two_users(self) -> None:
        """A second wait at the same time is an error."""
        self.next_later()
        self.failureResultOf(self.next_later(), InvalidState)

    def test_rollback(self) -> None:
        """The message is delivered again, earlier ones are not."""
        delivery = self.claimed()
        done = self.fetch(delivery, 0, 1, 2)
        self.next()
        message = self.next()
        self.iteration.rollback(message)
        self.assertFalse(self.runtime.result(done))
        self.assertEqual((23, 1), (delivery.progress.resume_offset, delivery.progress.retries))
        self.assertRaisesRegex(InvalidState, "taken last", self.iteration.rollback, message)
        self.fetch(delivery, 1, 2)
        self.assertEqual([1, 2], [self.next().id, self.next().id])

    def test_rollback_of_another_message(self) -> None:
        """It is refused, and has no effect on the message taken last."""
        delivery = self.claimed()
        self.fetch(delivery, 0, 1)
        first, last = self.next(), self.next()
        self.assertRaisesRegex(InvalidState, "taken last", self.iteration.rollback, first)
        self.assertTrue(self.iteration.holds(last))
        self.iteration.ack(last)
        self.assertEqual(46, delivery.position.offset)

    def test_rejected(self) -> None:
        """A message that was rolled back too often is rejected; the next one follows at once."""
        self.rules.max_retries = 1
        delivery = self.claimed()
        for _ in range(2):
            self.fetch(delivery, 0, 1)
            self.iteration.rollback(self.next())
        self.assertEqual(([0], 23), (self.rejected, delivery.position.offset))
        self.assertEqual(1, self.next().id)

    def test_manual(self) -> None:
        """With ``auto_ack=False`` asking for the next message does not acknowledge."""
        delivery = self.claimed(auto_ack=False)
        done = self.fetch(delivery, 0, 1, 2)
        kept = [self.next() for _ in range(3)]
        later = self.next_later()
        self.assertTrue(self.runtime.result(done))
        self.assertEqual((0, 69), (delivery.position.offset, delivery.progress.resume_offset))
        delivery.ack(kept[1])
        self.assertEqual(46, delivery.position.offset)
        delivery.rollback(kept[2])
        self.fetch(delivery, 2)
        self.assertEqual(2, self.runtime.result(later).id)

    def test_manual_rollback_counts(self) -> None:
        """A message that is rolled back again and again is rejected, as the documents say, and
        later ones are delivered."""
        self.rules.max_retries = 2
        delivery = self.claimed(auto_ack=False)
        for _ in range(3):
            done = self.fetch(delivery, 0, 1, 2)
            self.assertEqual(0, self.next().id)
            message = self.next()
            delivery.rollback(message)
            self.assertFalse(self.runtime.result(done))
        done = self.fetch(delivery, 0, 1, 2)
        self.assertEqual([0, 2], [self.next().id, self.next().id])
        self.assertEqual(([1], 46), (self.rejected, delivery.position.offset))

    def test_manual_rollback_drops_the_rest(self) -> None:
        """Messages fetched after the rolled back one are not delivered."""
        delivery = self.claimed(auto_ack=False)
        done = self.fetch(delivery, 0, 1, 2)
        delivery.rollback(self.next())
        self.assertFalse(self.runtime.result(done))
        later = self.next_later()
        self.assertNoResult(later)
        self.fetch(delivery, 0)
        self.assertEqual(0, self.runtime.result(later).id)


class PollTests(IterationCase):
    """Taking messages as lists."""

    def poll(self, most: int = 500, timeout: float | None = 0) -> list[int]:
        """The ids of the present messages."""
        return [each.id for each in self.messages(most, timeout)]

    def messages(self, most: int = 500, timeout: float | None = 0) -> list[ReceivedMessage]:
        """The present messages."""
        found: list[ReceivedMessage] = self.runtime.run(self.iteration.poll(timeout, most))
        return found

    def poll_later(self, timeout: float | None) -> Deferred[list[ReceivedMessage]]:
        """The messages, when they arrive."""
        return self.runtime.start(self.iteration.poll(timeout, 500))

    def test_acknowledged_by_the_next(self) -> None:
        """All of a list count when others are asked for."""
        delivery = self.claimed()
        done = self.fetch(delivery, 0, 1, 2)
        self.assertEqual([0, 1], self.poll(2))
        self.assertEqual(0, delivery.position.offset)
        self.assertEqual([2], self.poll(2))
        self.assertEqual(46, delivery.position.offset)
        self.assertNoResult(done)
        self.assertEqual([], self.poll())
        self.assertEqual(69, delivery.position.offset)
        self.assertTrue(self.runtime.result(done))
        self.assertEqual([], self.rules.duplicates.fresh(messages(0, 1, 2)))

    def test_several_partitions(self) -> None:
        """A list takes from as many as needed; each is given on when all of it is acknowledged."""
        one, other = self.claimed(), self.claimed()
        outcomes = [self.fetch(one, 0, 1), self.fetch(other, 10, 11)]
        self.assertEqual([0, 1, 10], self.poll(3))
        self.assertEqual((0, 0), (one.position.offset, other.position.offset))
        for each in outcomes:
            self.assertNoResult(each)
        self.assertEqual([11], self.poll())
        self.assertEqual((46, 11 * 23), (one.position.offset, other.position.offset))
        self.assertTrue(self.runtime.result(outcomes[0]))
        self.assertEqual([], self.poll())
        self.assertTrue(self.runtime.result(outcomes[1]))
        self.assertEqual(12 * 23, other.position.offset)

    def test_time_limit(self) -> None:
        """It waits for the first message up to the time limit."""
        later = self.poll_later(5)
        self.runtime.advance(4)
        self.assertNoResult(later)
        self.runtime.advance(2)
        self.assertEqual([], self.runtime.result(later))
        later = self.poll_later(5)
        self.fetch(self.claimed(), 7)
        self.assertEqual([7], [each.id for each in self.runtime.result(later)])

    def test_ack_of_some(self) -> None:
        """Messages up to the acknowledged one count, over partitions; the rest counts later, or not
        at all."""
        one, other = self.claimed(), self.claimed()
        done = self.fetch(one, 0, 1)
        self.fetch(other, 10, 11, 12)
        found = self.messages()
        self.iteration.ack(found[3])
        self.assertEqual((46, 12 * 23), (one.position.offset, other.position.offset))
        self.assertTrue(self.runtime.result(done))
        for acked in found[:4]:
            self.assertRaisesRegex(InvalidState, "taken last", self.iteration.ack, acked)
        self.assertTrue(self.iteration.holds(found[4]))
        self.iteration.ack(found[4])
        self.assertEqual(13 * 23, other.position.offset)
        self.assertRaises(InvalidState, self.iteration.ack, found[4])

    def test_rollback_of_one(self) -> None:
        """Earlier messages count, this one has failed, later ones are delivered again without a
        failure."""
        one, other, third = self.claimed(), self.claimed(), self.claimed()
        outcomes = [self.fetch(one, 0), self.fetch(other, 10, 11, 12), self.fetch(third, 20)]
        found = self.messages()
        self.iteration.rollback(found[2])
        self.assertEqual([True, False, False], [self.runtime.result(each) for each in outcomes])
        self.assertEqual((23, 11 * 23, 0), tuple(d.position.offset for d in (one, other, third)))
        self.assertEqual([0, 1, 0], [d.progress.retries for d in (one, other, third)])
        self.assertEqual([], self.poll())
        self.fetch(other, 11, 12)
        self.fetch(third, 20)
        self.assertEqual([11, 12, 20], self.poll())

    def test_rollback_of_the_first_and_the_last(self) -> None:
        """The ends of a list."""
        delivery = self.claimed()
        for index in (0, 1):
            done = self.fetch(delivery, 0, 1)
            self.iteration.rollback(self.messages()[index])
            self.assertFalse(self.runtime.result(done))
            self.assertEqual(index * 23, delivery.position.offset)
            self.assertEqual(1, delivery.progress.retries)

    def test_revoked(self) -> None:
        """Lists of a partition that is given away and returns count, and are not delivered
        again."""
        delivery = self.claimed()
        done = self.fetch(delivery, 0, 1, 2)
        self.assertEqual([0, 1], self.poll(2))
        delivery.stop()
        self.assertFalse(self.runtime.result(done))
        again = self.claimed(0)
        again.position.modified = False
        self.fetch(again, 0, 1, 2)
        self.assertEqual([2], self.poll())
        position = again.position
        self.assertEqual((46, 1, True), (position.offset, position.message_id, position.modified))

    def test_manual(self) -> None:
        """With ``auto_ack=False`` only ``ack`` of the consumer counts."""
        delivery = self.claimed(auto_ack=False)
        done = self.fetch(delivery, 0, 1, 2)
        found = self.messages()
        self.assertEqual([], self.poll())
        self.assertTrue(self.runtime.result(done))
        self.assertEqual(0, delivery.position.offset)
        delivery.ack(found[1])
        self.assertEqual(46, delivery.position.offset)

    def test_closed(self) -> None:
        """A wait ends with an error, as every later call does; messages in the user's hands do not
        count."""
        delivery = self.claimed()
        done = self.fetch(delivery, 0)
        self.poll()
        self.iteration.close()
        self.assertFalse(self.runtime.result(done))
        self.assertEqual(0, delivery.position.offset)
        self.failureResultOf(self.poll_later(None), ClientClosed)
        waiting = Iteration(self.runtime, lambda topic, partition: None)
        later = self.runtime.start(waiting.poll(None, 1))
        waiting.close()
        self.failureResultOf(later, ClientClosed)

    def test_iteration_with_a_limit(self) -> None:
        """A loop ends when no message has arrived for this time, and at the end."""
        loop = LimitedIteration(self.iteration, 5)

        async def read() -> None:
            async for message in loop:
                self.got.append(message.id)

        reading = self.runtime.start(read())
        self.runtime.advance(4)
        self.fetch(self.claimed(), 0, 1)
        self.runtime.advance(4)
        self.assertNoResult(reading)
        self.runtime.advance(2)
        self.runtime.result(reading)
        self.assertEqual([0, 1], self.got)
        self.iteration.close()
        self.runtime.result(self.runtime.start(read()))

    def test_mixed_with_the_loop(self) -> None:
        """A list may follow a single message, and the other way round."""
        delivery = self.claimed()
        self.fetch(delivery, 0, 1, 2, 3)
        self.assertEqual(0, self.next().id)
        self.assertEqual([1, 2], self.poll(2))
        self.assertEqual((23, 3), (delivery.position.offset, self.next().id))
        self.assertEqual(69, delivery.position.offset)


class PausedTests(IterationCase):
    """The partition is paused."""

    def test_rest_comes_again(self) -> None:
        """The user's message counts; the others are given back, and none is lost or skipped."""
        delivery = self.claimed()
        done = self.fetch(delivery, 0, 1, 2)
        self.next()
        delivery.pause()
        later = self.next_later()
        self.assertFalse(self.runtime.result(done))
        self.assertEqual((23, 23), (delivery.position.offset, delivery.progress.resume_offset))
        delivery.resume()
        self.fetch(delivery, 1, 2)
        self.assertEqual(1, self.runtime.result(later).id)

    def test_list_counts(self) -> None:
        """All messages of a list count, and waiting ones are given back at once."""
        one, other = self.claimed(), self.claimed()
        outcomes = [self.fetch(one, 0, 1, 2), self.fetch(other, 10)]
        self.runtime.run(self.iteration.poll(0, 2))
        for delivery in (one, other):
            delivery.pause()
        self.assertFalse(self.runtime.result(outcomes[1]))
        self.assertNoResult(outcomes[0])
        self.assertEqual([], self.runtime.run(self.iteration.poll(0, 2)))
        self.assertFalse(self.runtime.result(outcomes[0]))
        self.assertEqual((46, 0), (one.position.offset, other.position.offset))

    def test_rollback_while_paused(self) -> None:
        """The message fails, and is delivered again after the pause."""
        delivery = self.claimed()
        done = self.fetch(delivery, 0, 1)
        message = self.next()
        delivery.pause()
        self.iteration.rollback(message)
        self.assertFalse(self.runtime.result(done))
        self.assertEqual((0, 1), (delivery.position.offset, delivery.progress.retries))


class RevokedTests(IterationCase):
    """The partition is given away, or given back and claimed again."""

    def test_rest_is_dropped(self) -> None:
        """Messages that the user has not taken are left to the next owner."""
        delivery = self.claimed()
        done = self.fetch(delivery, 0, 1, 2)
        self.next()
        self.next()
        delivery.stop()
        self.assertFalse(self.runtime.result(done))
        self.assertEqual(23, delivery.position.offset)
        self.assertNoResult(self.next_later())

    def test_queued_are_dropped(self) -> None:
        """Also messages that wait after another partition's."""
        one, other = self.claimed(), self.claimed()
        self.fetch(one, 0, 1)
        done = self.fetch(other, 10)
        self.next()
        other.stop()
        self.assertFalse(self.runtime.result(done))
        self.assertEqual(1, self.next().id)
        self.assertNoResult(self.next_later())

    def test_given_away(self) -> None:
        """The user's message is not acknowledged when another member owns the partition."""
        delivery = self.claimed()
        self.fetch(delivery, 0, 1)
        self.next()
        delivery.stop()
        self.present.clear()
        self.next_later()
        self.assertEqual((0, False), (delivery.position.offset, delivery.position.modified))

    def test_claimed_again(self) -> None:
        """When the partition returns, the user's message counts, and is not delivered again."""
        delivery = self.claimed()
        self.fetch(delivery, 0, 1)
        self.next()
        delivery.stop()
        again = self.claimed(0)
        self.fetch(again, 0, 1)
        self.assertEqual((1, 23), (self.next().id, again.position.offset))

    def test_claimed_again_beside_another_partition(self) -> None:
        """Another partition with the same offsets delivers all its messages."""
        delivery = self.claimed()
        self.fetch(delivery, 0, 1)
        self.next()
        delivery.stop()
        other, again = self.claimed(), self.claimed()
        self.fetch(other, 0, 1)
        self.fetch(again, 0, 1)
        self.assertEqual([0, 1, 1], [self.next().id for _ in range(3)])

    def test_claimed_again_and_not_fetched_yet(self) -> None:
        """The same if it is fetched later."""
        delivery = self.claimed()
        self.fetch(delivery, 0, 1)
        self.next()
        delivery.stop()
        again = self.claimed(0)
        later = self.next_later()
        self.assertEqual(23, again.position.offset)
        self.fetch(again, 0, 1)
        self.assertEqual(1, self.runtime.result(later).id)

    def test_rolled_back_after_all(self) -> None:
        """A rollback after the partition was given away has no effect."""
        delivery = self.claimed()
        self.fetch(delivery, 0, 1)
        message = self.next()
        delivery.stop()
        self.iteration.rollback(message)
        self.assertEqual(0, delivery.position.offset)

    def test_closed(self) -> None:
        """At the end the user's message is not acknowledged, and no other is delivered."""
        delivery = self.claimed()
        done = self.fetch(delivery, 0, 1)
        self.next()
        self.iteration.close()
        self.assertFalse(self.runtime.result(done))
        self.failureResultOf(self.next_later(), StopAsyncIteration)
        self.assertEqual(0, delivery.position.offset)
