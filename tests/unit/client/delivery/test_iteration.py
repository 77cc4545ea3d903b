"""``async for message in consumer``."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from metamorphosis.client.delivery.delivery import PartitionDelivery
from metamorphosis.client.delivery.iteration import Iteration
from metamorphosis.client.delivery.subscription import Subscription
from metamorphosis.client.model import Partition, Position, ReceivedMessage
from metamorphosis.client.network.flow import Slots
from metamorphosis.errors import InvalidState
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
        """A partition whose messages are for the iteration."""
        subscription = Subscription("t", 1000, None, **more)
        delivery = PartitionDelivery(self.rules, subscription, Position("t", PARTITION, offset))
        self.present["t", PARTITION] = delivery
        return delivery

    def fetch(self, delivery: PartitionDelivery, *numbers: int) -> Deferred[bool]:
        """Messages arrive."""
        return self.runtime.start(delivery.deliver(messages(*numbers)))

    def next(self) -> ReceivedMessage:
        """The next message, which is there."""
        found = self.runtime.run(self.iteration.__anext__())
        assert isinstance(found, ReceivedMessage)
        return found

    def next_later(self) -> Deferred[ReceivedMessage]:
        """The next message, whenever it comes."""
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
        """What is there is given without waiting for the loop."""
        self.fetch(self.claimed(), 0)
        coroutine = self.iteration.__anext__()
        with self.assertRaises(StopIteration) as stop:
            coroutine.send(None)
        self.assertEqual(0, stop.exception.value.id)

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
        """Partitions take turns, a fetched stretch each."""
        one, other = self.claimed(), self.claimed()
        for delivery, numbers in ((one, (0, 1)), (other, (10, 11))):
            self.fetch(delivery, *numbers)
        self.assertEqual([0, 1, 10, 11], [self.next().id for _ in range(4)])
        self.assertEqual((46, 11 * 23), (one.position.offset, other.position.offset))

    def test_back_pressure(self) -> None:
        """A partition's delivery is not over before the user has taken its messages: nothing more
        is fetched."""
        done = self.fetch(self.claimed(), 0, 1)
        self.next()
        self.runtime.advance(3600)
        self.assertNoResult(done)

    def test_takes_no_place_of_listeners(self) -> None:
        """Messages that wait for an iteration are no listener call: who does not iterate does not
        stop the listeners of other topics."""
        self.rules.slots = Slots(self.runtime, 1)
        self.fetch(self.claimed(), 0)
        self.assertTrue(self.deliver(self.delivery(), 7))
        self.assertEqual([7], self.got)

    def test_ack_before_leaving(self) -> None:
        """``ack`` says what asking for the next message would."""
        delivery = self.claimed()
        self.fetch(delivery, 0, 1)
        message = self.next()
        self.iteration.ack(message)
        self.assertEqual(23, delivery.position.offset)
        self.assertRaisesRegex(InvalidState, "taken last", self.iteration.ack, message)
        self.assertEqual(1, self.next().id)

    def test_two_users(self) -> None:
        """Two cannot wait at once."""
        self.next_later()
        self.failureResultOf(self.next_later(), InvalidState)

    def test_rollback(self) -> None:
        """The message comes again, and what came before it does not."""
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
        """It is refused, and the one that was taken last is not touched."""
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
        """With ``auto_ack=False`` asking on does not count."""
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
        """A message that is rolled back again and again is put aside, as the documents say, and
        what is behind it is delivered."""
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
        """What was fetched behind the rollback is not given to the user."""
        delivery = self.claimed(auto_ack=False)
        done = self.fetch(delivery, 0, 1, 2)
        delivery.rollback(self.next())
        self.assertFalse(self.runtime.result(done))
        later = self.next_later()
        self.assertNoResult(later)
        self.fetch(delivery, 0)
        self.assertEqual(0, self.runtime.result(later).id)


class RevokedTests(IterationCase):
    """The partition is given away, or given back and claimed again."""

    def test_rest_is_dropped(self) -> None:
        """Messages that the user does not have yet are for the next owner."""
        delivery = self.claimed()
        done = self.fetch(delivery, 0, 1, 2)
        self.next()
        self.next()
        delivery.stop()
        self.assertFalse(self.runtime.result(done))
        self.assertEqual(23, delivery.position.offset)
        self.assertNoResult(self.next_later())

    def test_queued_are_dropped(self) -> None:
        """Also what waits behind another partition's messages."""
        one, other = self.claimed(), self.claimed()
        self.fetch(one, 0, 1)
        done = self.fetch(other, 10)
        self.next()
        other.stop()
        self.assertFalse(self.runtime.result(done))
        self.assertEqual(1, self.next().id)
        self.assertNoResult(self.next_later())

    def test_given_away(self) -> None:
        """The message the user has is not acknowledged when the partition is somebody else's."""
        delivery = self.claimed()
        self.fetch(delivery, 0, 1)
        self.next()
        delivery.stop()
        self.present.clear()
        self.next_later()
        self.assertEqual((0, False), (delivery.position.offset, delivery.position.modified))

    def test_claimed_again(self) -> None:
        """When the partition comes back, the message the user has counts, and does not come
        again."""
        delivery = self.claimed()
        self.fetch(delivery, 0, 1)
        self.next()
        delivery.stop()
        again = self.claimed(0)
        self.fetch(again, 0, 1)
        self.assertEqual((1, 23), (self.next().id, again.position.offset))

    def test_claimed_again_beside_another_partition(self) -> None:
        """Whose messages stand at the same offsets, and are all given."""
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
        """A rollback of a message whose partition was given away does no harm."""
        delivery = self.claimed()
        self.fetch(delivery, 0, 1)
        message = self.next()
        delivery.stop()
        self.iteration.rollback(message)
        self.assertEqual(0, delivery.position.offset)

    def test_closed(self) -> None:
        """The end: what the user has is not acknowledged, nothing more comes."""
        delivery = self.claimed()
        done = self.fetch(delivery, 0, 1)
        self.next()
        self.iteration.close()
        self.assertFalse(self.runtime.result(done))
        self.failureResultOf(self.next_later(), StopAsyncIteration)
        self.assertEqual(0, delivery.position.offset)
