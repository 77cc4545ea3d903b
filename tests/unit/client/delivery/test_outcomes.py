"""Messages that come again, and what of them is still acknowledged."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from metamorphosis.client.delivery.subscription import Rollback
from metamorphosis.client.model import ReceivedMessage
from metamorphosis.errors import InvalidState
from tests.unit.client.delivery.test_delivery import PARTITION, DeliveryCase, messages
from tests.unit.client.delivery.test_iteration import IterationCase


class FailureTests(DeliveryCase):
    """A listener fails."""

    def test_failed_message_waits_for_no_ack(self) -> None:
        """With ``auto_ack=False`` it cannot be acknowledged before it has come again; those before
        it can."""
        delivery = self.delivery(auto_ack=False)
        self.failing[1] = 1
        self.deliver(delivery, 0, 1)
        first, failed = messages(0, 1)
        self.assertRaisesRegex(InvalidState, "delivered again", delivery.ack, failed)
        delivery.ack(first)
        self.assertEqual([1], [each.id for each in self.rules.duplicates.fresh(messages(0, 1))])
        self.round(delivery, 1)
        delivery.ack(failed)
        self.assertEqual(([0, 1, 1], 46), (self.got, delivery.position.offset))

    def test_first_message(self) -> None:
        """It comes again, with ``auto_ack=False`` as well."""
        for auto_ack in (True, False):
            self.got.clear()
            delivery = self.delivery(auto_ack=auto_ack)
            self.failing[0] = 1
            self.assertFalse(self.deliver(delivery, 0))
            self.round(delivery, 1)
            self.assertEqual([0, 0, 1], self.got)
            self.rules.duplicates.forget("t", PARTITION)

    def test_rejection_out_of_a_list(self) -> None:
        """The messages behind a rejected one are delivered, wherever it stands in its list."""
        self.rules.max_retries = 0

        def listener(batch: list[ReceivedMessage]) -> None:
            self.got.append([each.id for each in batch])
            for each in batch:
                if each.id in self.failing:
                    raise Rollback(each)

        for bad, behind in ((0, [[1, 2]]), (1, [[2]]), (2, [])):
            self.got.clear()
            self.rejected.clear()
            self.failing = {bad: 1}
            delivery = self.delivery(listener, batch=True)
            self.assertIs(not behind, self.deliver(delivery, 0, 1, 2))
            while delivery.progress.resume_offset < 69:
                self.round(delivery, 2)
            self.assertEqual(([[0, 1, 2], *behind], [bad]), (self.got, self.rejected))
            self.assertEqual(69, delivery.position.offset)
            self.rules.duplicates.forget("t", PARTITION)

    def test_message_between_two_that_fail(self) -> None:
        """It counts, whatever became of the one before it and of the one behind it."""
        self.rules.max_retries = 1
        delivery = self.delivery()
        self.failing = {0: 2, 2: 1}
        self.deliver(delivery, 0, 1, 2)
        self.deliver(delivery, 0, 1, 2)
        self.assertEqual(([0, 0, 1, 2], [0]), (self.got, self.rejected))
        self.assertEqual((46, 1, True), self.position(delivery))
        self.assertEqual([2], [each.id for each in self.rules.duplicates.fresh(messages(0, 1, 2))])

    def test_filter_ends_the_pauses(self) -> None:
        """A message that has failed is refused by the filter when it comes again: what follows is
        fetched without a pause."""
        delivery = self.delivery(filter=lambda group, message: not self.got)
        self.failing[0] = 1
        self.deliver(delivery, 0)
        self.assertEqual(1, delivery.progress.retries)
        self.assertTrue(self.deliver(delivery, 0))
        self.assertEqual(([0], 0), (self.got, delivery.progress.retries))

    def test_move_ends_the_pauses(self) -> None:
        """Where the broker sends the reader on, a failure before it costs no pause."""
        delivery = self.delivery()
        self.failing[0] = 1
        self.deliver(delivery, 0)
        delivery.progress.move_to(500)
        self.assertEqual((500, 0), (delivery.position.offset, delivery.progress.retries))

    def test_failures_before_a_seek(self) -> None:
        """They do not count for what is delivered after it."""
        self.rules.max_retries = 1
        delivery = self.delivery()
        self.failing[0] = 3
        self.deliver(delivery, 0)
        delivery.seek(0)
        self.deliver(delivery, 0)
        self.assertEqual(([0, 0], []), (self.got, self.rejected))
        self.deliver(delivery, 0)
        self.assertEqual([0], self.rejected)

    def test_seek_in_a_filter(self) -> None:
        """The place that a filter has chosen counts, although it refuses its message."""

        def wanted(group: str, message: ReceivedMessage) -> bool:
            delivery.seek(500)
            return False

        delivery = self.delivery(filter=wanted)
        self.assertFalse(self.deliver(delivery, 0, 1))
        self.assertEqual((500, 500), (delivery.progress.resume_offset, delivery.position.offset))

    def test_message_that_fails_for_ever(self) -> None:
        """However often it comes, the messages before it are remembered as processed."""
        self.rules.max_retries = 10_000
        delivery = self.delivery(auto_ack=False)
        self.failing[1] = 5000
        for _ in range(5001):
            self.round(delivery, 1)
        delivery.ack(messages(1)[0])
        self.assertEqual([], self.rules.duplicates.fresh(messages(0, 1)))

    def test_rejection_ends_the_pauses(self) -> None:
        """What comes next is fetched without a pause."""
        self.rules.max_retries = 0
        delivery = self.delivery()
        self.failing[0] = 1
        self.reject_error = OSError("disk full")
        self.deliver(delivery, 0)
        self.assertEqual(2, delivery.progress.retries)
        self.assertFalse(self.deliver(delivery, 0))
        self.reject_error = None
        self.deliver(delivery, 0)
        self.assertEqual(([0], 0), (self.rejected, delivery.progress.retries))
        self.assertEqual(23, delivery.progress.resume_offset)

    def test_stopped(self) -> None:
        """What comes after the stop is not delivered, and does not count as processed."""
        delivery = self.delivery()
        delivery.stop()
        self.assertFalse(self.deliver(delivery, 0))
        self.assertEqual(([], 0), (self.got, delivery.progress.resume_offset))

    def test_counts(self) -> None:
        """Failures and rejections are counted one by one."""
        self.rules.max_retries = 1
        delivery = self.delivery()
        self.failing = {0: 2, 1: 1}
        for _ in range(3):
            self.round(delivery, 1)
        self.assertEqual((3, 1), (self.rules.counts.failed, self.rules.counts.rejected))
        self.rules.counts.bytes = 0
        self.deliver(self.delivery(offset=46), 2, 3)
        self.assertEqual(46, self.rules.counts.bytes)

    def test_list_is_remembered(self) -> None:
        """Its messages are duplicates when they come again."""
        self.deliver(self.delivery(self.got.append, batch=True), 0, 1)
        self.assertEqual([], self.rules.duplicates.fresh(messages(0, 1)))

    def test_interrupted_list(self) -> None:
        """``KeyboardInterrupt`` in a listener of lists is no failure either."""

        def interrupted(batch: list[ReceivedMessage]) -> None:
            raise KeyboardInterrupt

        delivery = self.delivery(interrupted, batch=True)
        future = self.runtime.start(delivery.deliver(messages(0, 1)))
        self.failureResultOf(future, KeyboardInterrupt)
        self.assertEqual((0, 0), (delivery.progress.retries, self.rules.counts.failed))

    def test_text_of_a_rollback(self) -> None:
        """It says what happened, should a program log it."""
        self.assertEqual("rolled back", str(Rollback()))


class BusyTests(IterationCase):
    """A program is busy."""

    def test_message_under_way(self) -> None:
        """The first message of what it has is known, for the log, until it has finished."""
        waiting: Deferred[None] = Deferred()
        listening = self.delivery(lambda batch: waiting, batch=True)
        self.fetch(listening, 0, 1)
        self.assertEqual(messages(0), [listening.under_way])
        waiting.callback(None)
        self.assertIsNone(listening.under_way)
        self.rules.duplicates.forget("t", PARTITION)
        looping = self.claimed()
        self.fetch(looping, 0, 1)
        self.assertEqual(messages(0), [looping.under_way])
        self.iteration.close()
        self.assertIsNone(looping.under_way)


class SlowTests(DeliveryCase):
    """A listener is slow for a while."""

    def turns(self) -> list[int]:
        """How many messages were delivered whenever the loop gets a turn from now on."""
        found: list[int] = []
        call_later = self.runtime.call_later

        def look(seconds: float, *more: object) -> object:
            found.append(len(self.got))
            return call_later(seconds, *more)  # type: ignore[arg-type]

        self.patch(self.runtime, "call_later", look)
        return found

    def test_shorter_stretches(self) -> None:
        """Each turn of a slow listener is half as long, down to about the time that it may take."""
        turns = self.turns()

        def listener(message: ReceivedMessage) -> None:
            self.got.append(message.id)
            self.runtime.clock.advance(0.006)

        done = self.runtime.start(self.delivery(listener).deliver(messages(*range(36))))
        self.runtime.advance(1)
        self.assertTrue(self.runtime.result(done))
        self.assertEqual([16, 24, 28, 30, 33, 36], turns)

    def test_quick_again(self) -> None:
        """The loop gets its turn after the slow stretch, and not after each of the quick ones."""
        turns = self.turns()

        def listener(message: ReceivedMessage) -> None:
            self.got.append(message.id)
            if message.id < 16:
                self.runtime.clock.advance(0.001)

        done = self.runtime.start(self.delivery(listener).deliver(messages(*range(500))))
        self.runtime.advance(0)
        self.assertTrue(self.runtime.result(done))
        self.assertEqual([16], turns)


class ListTests(IterationCase):
    """A list of ``poll`` is acknowledged in parts."""

    def taken(self) -> list[ReceivedMessage]:
        """Messages 0, 1 of a partition, 10, 11, 12 of another one."""
        self.one, self.other = self.claimed(), self.claimed()
        self.fetch(self.one, 0, 1)
        self.fetch(self.other, 10, 11, 12)
        found: list[ReceivedMessage] = self.runtime.run(self.iteration.poll(0, 500))
        return found

    def test_one_after_the_other(self) -> None:
        """Each message can be acknowledged by itself."""
        ends = [23, 46, 11 * 23, 12 * 23, 13 * 23]
        for message, end in zip(self.taken(), ends, strict=True):
            self.assertTrue(self.iteration.holds(message))
            self.iteration.ack(message)
            self.assertIn(end, (self.one.position.offset, self.other.position.offset))
            self.assertFalse(self.iteration.holds(message))

    def test_commit_in_between(self) -> None:
        """What is acknowledged can be stored before the rest is."""
        found = self.taken()
        self.one.position.modified = False
        self.iteration.ack(found[0])
        position = self.one.position
        self.assertEqual((23, 0, True), (position.offset, position.message_id, position.modified))

    def test_partition_that_is_given_away(self) -> None:
        """A list of it does not count."""
        delivery = self.claimed()
        self.fetch(delivery, 0, 1)
        self.runtime.run(self.iteration.poll(0, 2))
        delivery.stop()
        self.present.clear()
        self.runtime.run(self.iteration.poll(0, 2))
        self.assertEqual((0, False), (delivery.position.offset, delivery.position.modified))

    def test_ack_after_the_end(self) -> None:
        """What was taken cannot be acknowledged any more."""
        message = self.taken()[-1]
        self.iteration.close()
        self.assertFalse(self.iteration.holds(message))
        self.assertRaisesRegex(InvalidState, "taken last", self.iteration.ack, message)

    def test_list_and_loop(self) -> None:
        """The rest of what a list was taken from comes in the loop, and all of it counts."""
        delivery = self.claimed()
        done = self.fetch(delivery, 0, 1, 2, 3)
        self.runtime.run(self.iteration.poll(0, 2))
        self.assertEqual([2, 3], [self.next().id, self.next().id])
        self.next_later()
        self.assertTrue(self.runtime.result(done))
        self.assertEqual(92, delivery.progress.resume_offset)

    def test_commit_in_the_loop(self) -> None:
        """Offset and id are those of the message that was taken before the present one."""
        delivery = self.claimed()
        self.fetch(delivery, 0, 1, 2)
        for number in range(3):
            self.assertEqual(number, self.next().id)
            self.assertEqual(number - 1, delivery.position.message_id)

    def test_rest_with_the_next_request(self) -> None:
        """Wherever the acknowledged part ends, the next request acknowledges the rest."""
        for index in range(5):
            self.setUp()
            self.iteration.ack(self.taken()[index])
            self.assertEqual([], self.runtime.run(self.iteration.poll(0, 500)))
            ends = self.one.position.offset, self.other.position.offset
            self.assertEqual((46, 13 * 23), ends, index)

    def test_rollback_of_the_rest(self) -> None:
        """Wherever the acknowledged part ends, the rest may be rolled back."""
        for index in range(4):
            self.setUp()
            found = self.taken()
            self.iteration.ack(found[index])
            self.iteration.rollback(found[index + 1])
            self.assertFalse(any(map(self.iteration.holds, found)))
            ends = [(23, 0), (46, 0), (46, 11 * 23), (46, 12 * 23)]
            at = self.one.position.offset, self.other.position.offset
            self.assertEqual(ends[index], at if index else (at[0], 0), index)
