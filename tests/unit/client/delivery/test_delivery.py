"""Messages on their way to the listener, and their outcomes."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.delivery.delivery import PartitionDelivery
from metamorphosis.client.delivery.duplicates import DuplicateCache
from metamorphosis.client.delivery.subscription import DeliveryRules, Rollback, Subscription
from metamorphosis.client.model import Partition, Position, ReceivedMessage
from metamorphosis.client.network.flow import Slots
from metamorphosis.client.runtimes.aio import AsyncioRuntime
from metamorphosis.errors import InvalidState
from metamorphosis.testing.runtime import MemoryLog, MemoryRuntime

PARTITION = Partition(0, 1)


def messages(*numbers: int) -> list[ReceivedMessage]:
    """Messages of 20 + 3 bytes; message n has the id n and the offset 23 * n."""
    return [ReceivedMessage("t", PARTITION, 23 * n, n, 0, b"m%02d" % n) for n in numbers]


class DeliveryCase(SynchronousTestCase):
    """One partition and its listener."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.got: list[Any] = []
        self.failing: dict[int, int] = {}  # id: how often it still fails
        self.rejected: list[int] = []
        self.reject_error: Exception | None = None
        self.rules = DeliveryRules(
            self.runtime, "g", self.runtime.log, 5, DuplicateCache(), self.reject
        )

    def reject(self, message: ReceivedMessage) -> None:
        """The reject strategy."""
        if self.reject_error is not None:
            raise self.reject_error
        self.rejected.append(message.id)

    def listen(self, message: ReceivedMessage) -> None:
        """A plain listener."""
        self.got.append(message.id)
        if self.failing.get(message.id, 0) > 0:
            self.failing[message.id] -= 1
            raise ValueError("cannot do it")

    def delivery(self, listener: Any = None, offset: int = 0, **more: Any) -> PartitionDelivery:
        """A claimed partition."""
        subscription = Subscription("t", 1000, listener or self.listen, **more)
        return PartitionDelivery(self.rules, subscription, Position("t", PARTITION, offset))

    def deliver(self, delivery: PartitionDelivery, *numbers: int) -> bool:
        """The result of ``deliver``, which must not wait."""
        return bool(self.runtime.run(delivery.deliver(messages(*numbers))))

    def round(self, delivery: PartitionDelivery, last: int) -> None:
        """Deliver everything up to a message, as the fetch loop does."""
        first = delivery.progress.resume_offset // 23
        self.deliver(delivery, *range(first, last + 1))

    def position(self, delivery: PartitionDelivery) -> tuple[int, int, bool]:
        """The position for a commit."""
        position = delivery.position
        return position.offset, position.message_id, position.modified


class PlainListenerTests(DeliveryCase):
    """A callable for each message."""

    def test_row_29_delivered(self) -> None:
        """Row 29: the listener gets the message; the position is after it and has its id."""
        delivery = self.delivery(offset=23)
        self.assertTrue(self.deliver(delivery, 1))
        self.assertEqual([1], self.got)
        self.assertEqual((46, 1, True), self.position(delivery))
        self.assertEqual((46, 0), (delivery.progress.resume_offset, delivery.progress.retries))

    def test_order(self) -> None:
        """Messages come in the order of the partition, through all stretches."""
        delivery = self.delivery()
        self.assertTrue(self.deliver(delivery, *range(200)))
        self.assertEqual(list(range(200)), self.got)

    def test_stretches_grow(self) -> None:
        """The clock is read after 16 messages of a quick listener, then more and more seldom, at
        least after every 1024."""
        looks: list[int] = []
        seconds = self.runtime.seconds

        def look() -> float:
            looks.append(len(self.got))
            return seconds()

        self.patch(self.runtime, "seconds", look)
        self.assertTrue(self.deliver(self.delivery(), *range(2032 + 1024)))
        ends = [16, 48, 112, 240, 496, 1008, 2032, 3056]
        self.assertEqual(ends, [each for each in dict.fromkeys(looks) if each])

    def test_row_31_fails(self) -> None:
        """Row 31: after an exception the position stays, and the first retry is planned."""
        delivery = self.delivery()
        self.failing[0] = 1
        self.assertFalse(self.deliver(delivery, 0))
        self.assertEqual((0, -1, False), self.position(delivery))
        self.assertEqual(1, delivery.progress.retries)
        [line] = self.runtime.log.texts("failure")
        self.assertIn("t 0-1 offset 0, id 0", line)
        self.assertIn("cannot do it", line)

    def test_row_32_rollback(self) -> None:
        """Row 32: ``Rollback`` is the same, without a line in the log."""

        def listener(message: ReceivedMessage) -> None:
            self.got.append(message.id)
            if self.got.count(message.id) < 3:
                raise Rollback

        delivery = self.delivery(listener)
        for _ in range(11):
            self.round(delivery, 4)
        self.assertEqual([n for n in range(5) for _ in range(3)], self.got)
        self.assertEqual([], self.runtime.log.texts("failure", "warn"))

    def test_row_36_second_of_two_fails(self) -> None:
        """Row 36: what came before the failing message is acknowledged and not repeated."""
        delivery = self.delivery()
        self.failing[1] = 2
        retries = []
        for _ in range(3):
            self.round(delivery, 1)
            retries.append(delivery.progress.retries)
        self.assertEqual([0, 1, 1, 1], self.got)
        self.assertEqual([1, 2, 0], retries)
        self.assertEqual((46, 1, True), self.position(delivery))

    def test_lines_of_a_listener_that_fails(self) -> None:
        """One traceback for each kind of error, one line about what is rejected; then numbers."""
        delivery = self.delivery()
        self.failing = dict.fromkeys(range(4), 100)
        for _ in range(24):
            self.round(delivery, 3)
        self.assertEqual([0, 1, 2, 3], self.rejected)
        self.assertEqual((1, 1), tuple(map(len, map(self.runtime.log.texts, ("failure", "warn")))))
        self.runtime.advance(10)
        counted = self.runtime.log.texts("warn")[1:]
        self.assertEqual(
            ["23 times more within 10 s", "3 times more within 10 s"],
            sorted(line.partition(":")[0] for line in counted),
        )
        self.assertIn("the listener of t fails with ValueError", " ".join(counted))
        self.assertIn(
            "messages of t fail too often and are rejected; the last one: partition 0-1"
            " offset 69, id 3",
            " ".join(counted),
        )
        self.runtime.advance(20)
        self.assertEqual(2, len(self.runtime.log.texts("info")))

    def test_lines_of_a_filter_that_fails(self) -> None:
        """One traceback for all messages."""
        delivery = self.delivery(filter=lambda *_: 1 / 0)
        self.assertTrue(self.deliver(delivery, *range(100)))
        (line,) = self.runtime.log.texts("failure")
        self.assertIn("The filter failed on t 0-1 offset 0", line)
        self.runtime.advance(10)
        self.assertIn("99 times more", self.runtime.log.texts("warn")[0])

    def test_row_35_too_many_retries(self) -> None:
        """Row 35: the sixth failure is the last; the message is rejected, and the position is after
        it."""
        delivery = self.delivery()
        self.failing[0] = 100
        retries = []
        for _ in range(6):
            self.round(delivery, 1)
            retries.append(delivery.progress.retries)
        self.assertEqual([1, 2, 3, 4, 5, 0], retries)
        self.assertEqual(([0] * 6 + [1], [0]), (self.got, self.rejected))
        self.assertEqual((46, 1, True), self.position(delivery))
        self.assertIn("t 0-1 offset 0, id 0 failed 6 times", self.runtime.log.texts("warn")[0])

    def test_last_message_that_is_rejected(self) -> None:
        """It is not asked for again."""
        self.rules.max_retries = 0
        delivery = self.delivery()
        self.failing[1] = 1
        self.round(delivery, 1)
        self.assertEqual(([0, 1], [1]), (self.got, self.rejected))
        self.assertEqual(46, delivery.progress.resume_offset)

    def test_as_often_in_the_middle(self) -> None:
        """A message within a batch is rejected after as many failures as a first one."""
        delivery = self.delivery()
        self.failing[2] = 100
        for _ in range(6):
            self.round(delivery, 3)
        self.assertEqual((6, [2]), (self.got.count(2), self.rejected))
        self.assertEqual(92, delivery.position.offset)

    def test_no_retries(self) -> None:
        """``max_fetch_retries`` 0 rejects at the first failure."""
        self.rules.max_retries = 0
        delivery = self.delivery()
        self.failing[1] = 100
        self.assertTrue(self.deliver(delivery, 0, 1, 2))
        self.assertEqual(([0, 1, 2], [1]), (self.got, self.rejected))

    def test_rejection_fails(self) -> None:
        """A message whose rejection fails stays, and is not delivered again until the rejection
        succeeds."""
        self.rules.max_retries = 1
        self.reject_error = OSError("disk full")
        delivery = self.delivery()
        self.failing[0] = 100
        for _ in range(4):
            self.round(delivery, 0)
        self.assertEqual([0, 0], self.got)
        self.assertEqual((0, -1, False), self.position(delivery))
        self.assertGreater(delivery.progress.retries, 1)
        self.assertIn("disk full", self.runtime.log.texts("failure")[-1])
        self.reject_error = None
        self.round(delivery, 1)
        self.assertEqual(([0, 0, 1], [0]), (self.got, self.rejected))
        self.assertEqual(46, delivery.position.offset)

    def test_listener_that_stops_everything(self) -> None:
        """A plain listener that closes its consumer gets no further message; its processed messages
        count."""

        def listener(message: ReceivedMessage) -> None:
            self.got.append(message.id)
            if message.id == 1:
                delivery.stop()

        delivery = self.delivery(listener)
        self.assertFalse(self.deliver(delivery, 0, 1, 2, 3))
        self.assertEqual(([0, 1], (46, 1, True)), (self.got, self.position(delivery)))
        self.assertEqual([2], [each.id for each in self.rules.duplicates.fresh(messages(0, 1, 2))])

    def test_long_batches_let_others_in(self) -> None:
        """A slow plain listener is interrupted after a while, and its stretches become shorter."""

        def slow(message: ReceivedMessage) -> None:
            self.got.append(message.id)
            self.runtime.clock.advance(0.005)

        delivery = self.delivery(slow)
        done: list[bool] = []
        self.runtime.start(delivery.deliver(messages(*range(40)))).addCallback(done.append)
        self.assertEqual((16, []), (len(self.got), done))
        self.runtime.advance(10)
        self.assertEqual((list(range(40)), [True]), (self.got, done))

    def test_results_that_cannot_be_awaited(self) -> None:
        """Any return value is accepted."""
        delivery = self.delivery(lambda message: True)
        self.assertTrue(self.deliver(delivery, 0, 1))
        self.assertEqual(46, delivery.position.offset)

    def test_interrupts_end_the_program(self) -> None:
        """``KeyboardInterrupt`` is not a failure of a message."""

        def interrupted(message: ReceivedMessage) -> None:
            raise KeyboardInterrupt

        delivery = self.delivery(interrupted)
        future = self.runtime.start(delivery.deliver(messages(0)))
        self.failureResultOf(future, KeyboardInterrupt)
        self.assertEqual(0, delivery.progress.retries)


class AwaitedTests(DeliveryCase):
    """Listeners that are coroutines."""

    def test_nothing_is_kept(self) -> None:
        """A call that has ended, in whatever way, is not remembered."""

        async def listen(message: ReceivedMessage) -> None:
            self.listen(message)

        self.failing = {1: 1}
        self.deliver(self.delivery(listen), 0, 1)
        self.assertEqual([0, 1], self.got)
        self.assertEqual(set(), self.rules.calls.awaited)


class FilterTests(DeliveryCase):
    """The client's filter, and the duplicate cache."""

    def test_row_30_filter(self) -> None:
        """Row 30: messages that the filter refuses, or fails on, are not delivered; the position
        moves on."""

        def accept(group: str, message: ReceivedMessage) -> bool:
            self.assertEqual("g", group)
            if message.id == 2:
                raise ValueError("what is this")
            return message.id != 1

        delivery = self.delivery(filter=accept)
        self.assertTrue(self.deliver(delivery, 0, 1, 2))
        self.assertEqual([0], self.got)
        self.assertEqual((69, 2, True), self.position(delivery))
        [line] = self.runtime.log.texts("failure")
        self.assertIn("t 0-1 offset 46", line)

    def test_row_46_duplicates(self) -> None:
        """Row 46: messages that were processed before are not delivered, the position moves on, a
        log line says so."""
        self.rules.duplicates.add(messages(0, 1))
        delivery = self.delivery()
        self.assertTrue(self.deliver(delivery, 0, 1, 2))
        self.assertEqual([2], self.got)
        self.assertTrue(self.deliver(delivery, 1, 2))
        self.runtime.advance(1.0)
        [line] = self.runtime.log.texts("info")
        self.assertRegex(line, "^4 messages were processed before.*: t 0-1 from offset 0 on$")
        self.assertEqual(([2], 69), (self.got, delivery.position.offset))
        self.deliver(delivery, 1)
        self.rules.repeated.close()
        self.assertRegex(self.runtime.log.texts("info")[1], "^1 .*: t 0-1 from offset 23 on$")

    def test_failed_messages_are_no_duplicates(self) -> None:
        """Only processed messages are remembered."""
        delivery = self.delivery()
        self.failing[1] = 1
        self.deliver(delivery, 0, 1, 2)
        self.deliver(delivery, 0, 1, 2)
        self.assertEqual([0, 1, 1, 2], self.got)


class WaitingListenerTests(DeliveryCase):
    """Listeners whose result comes later."""

    def setUp(self) -> None:
        super().setUp()
        self.waiting: list[Deferred[None]] = []

    def later(self, message: ReceivedMessage) -> Deferred[None]:
        """Returns a Deferred."""
        self.got.append(message.id)
        self.waiting.append(Deferred())
        return self.waiting[-1]

    async def coroutine(self, message: ReceivedMessage) -> None:
        """The same as a coroutine."""
        await self.later(message)

    def test_one_at_a_time(self) -> None:
        """The next message waits for the Deferred or coroutine of the one before."""
        for listener in (self.later, self.coroutine):
            self.got, self.waiting = [], []
            self.rules.duplicates = DuplicateCache()
            delivery = self.delivery(listener)
            done = self.runtime.start(delivery.deliver(messages(0, 1)))
            self.assertEqual(([0], 0), (self.got, delivery.position.offset))
            self.waiting[0].callback(None)
            self.assertEqual(([0, 1], 23), (self.got, delivery.position.offset))
            self.waiting[1].callback(None)
            self.assertTrue(self.runtime.result(done))
            self.assertEqual(46, delivery.position.offset)

    def test_fails_later(self) -> None:
        """An error of the Deferred is the listener's, a cancellation too."""
        for error in (ValueError("no"), CancelledError()):
            self.got, self.waiting = [], []
            self.rules.duplicates = DuplicateCache()
            delivery = self.delivery(self.coroutine)
            done = self.runtime.start(delivery.deliver(messages(0, 1)))
            self.waiting[0].callback(None)
            self.waiting[1].errback(error)
            self.assertFalse(self.runtime.result(done))
            self.assertEqual((23, 1), (delivery.position.offset, delivery.progress.retries))

    def test_row_48_stop_waits(self) -> None:
        """Row 48: stopping ends the delivery after the message under way, which counts."""
        delivery = self.delivery(self.later)
        done = self.runtime.start(delivery.deliver(messages(0, 1, 2)))
        delivery.stop()
        self.assertEqual(0, delivery.under_way and delivery.under_way.id)
        self.waiting[0].callback(None)
        self.assertFalse(self.runtime.result(done))
        self.assertEqual(([0], 23), (self.got, delivery.position.offset))
        self.assertIsNone(delivery.under_way)
        self.assertEqual([1], [each.id for each in self.rules.duplicates.fresh(messages(0, 1))])

    def test_row_48_failure_while_stopping(self) -> None:
        """Row 48: a message that fails during the stop is not acknowledged."""
        delivery = self.delivery(self.later)
        done = self.runtime.start(delivery.deliver(messages(0, 1, 2)))
        self.waiting[0].callback(None)
        delivery.stop()
        self.waiting[1].errback(ValueError("interrupted"))
        self.assertFalse(self.runtime.result(done))
        self.assertEqual(([0, 1], 23), (self.got, delivery.position.offset))

    def test_abandoned(self) -> None:
        """A message that the listener finishes too late is not acknowledged, and no other is
        delivered."""
        delivery = self.delivery(self.later)
        done = self.runtime.start(delivery.deliver(messages(0, 1)))
        delivery.abandon()
        self.waiting[0].callback(None)
        self.assertFalse(self.runtime.result(done))
        self.assertEqual((0, -1, False), self.position(delivery))
        self.assertEqual([0], self.got)

    def test_abandoned_and_failed(self) -> None:
        """A failure that comes too late is logged, and rejects no message."""
        self.rules.max_retries = 0
        delivery = self.delivery(self.later)
        self.runtime.start(delivery.deliver(messages(0)))
        delivery.abandon()
        self.waiting[0].errback(ValueError("late"))
        self.assertEqual(([], 0), (self.rejected, delivery.position.offset))
        self.assertIn("offset 0, id 0: ValueError late", self.runtime.log.texts("failure")[0])

    def test_nothing_follows_a_late_failure(self) -> None:
        """A listener that fails after its partition has gone, or after a rollback, gets no further
        message of the batch."""
        for end in (PartitionDelivery.abandon, lambda each: each.rollback(self.kept[0])):
            self.kept: list[ReceivedMessage] = []
            delivery: PartitionDelivery

            def listen(message: ReceivedMessage) -> None:
                self.kept.append(message)
                end(delivery)
                raise ValueError("late")

            delivery = self.delivery(listen, auto_ack=False)
            self.assertFalse(self.deliver(delivery, 0, 1))
            self.assertEqual([0], [each.id for each in self.kept])

    def test_row_43_limited_in_all(self) -> None:
        """Row 43: with one slot the second partition waits; without a limit it does not."""
        for slots, first in ((Slots(self.runtime, 1), [0]), (None, [0, 0])):
            self.got, self.waiting = [], []
            self.rules.duplicates = DuplicateCache(0)
            self.rules.slots = slots
            done = [
                self.runtime.start(self.delivery(self.later).deliver(messages(0))) for _ in range(2)
            ]
            self.assertEqual(first, self.got)
            self.waiting[0].callback(None)
            self.waiting[1].callback(None)
            self.assertEqual([True, True], [self.runtime.result(each) for each in done])

    def test_stopped_while_waiting_for_a_slot(self) -> None:
        """A delivery that gets its slot after the stop gives it back."""
        self.rules.slots = Slots(self.runtime, 1)
        self.runtime.start(self.delivery(self.later).deliver(messages(0)))
        second = self.delivery(self.later)
        done = self.runtime.start(second.deliver(messages(0)))
        second.stop()
        self.waiting[0].callback(None)
        self.assertFalse(self.runtime.result(done))
        self.assertEqual(([0], 1), (self.got, self.rules.slots.free))

    def test_reject_strategy_may_wait(self) -> None:
        """The next message waits until the rejected one is stored."""
        kept: Deferred[None] = Deferred()
        self.rules.max_retries = 0
        self.rules.reject = lambda message: kept
        delivery = self.delivery()
        self.failing[0] = 1
        done = self.runtime.start(delivery.deliver(messages(0, 1)))
        self.assertEqual(([0], 0), (self.got, delivery.position.offset))
        kept.callback(None)
        self.assertTrue(self.runtime.result(done))
        self.assertEqual(([0, 1], 46), (self.got, delivery.position.offset))


class AsyncioTests(SynchronousTestCase):
    """Cancellation, which asyncio has for a listener's future and for the loop's end."""

    def setUp(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)
        log = MemoryLog()
        rules = DeliveryRules(
            AsyncioRuntime(self.loop), "g", log, 5, DuplicateCache(), lambda message: None
        )
        self.future = self.loop.create_future()
        self.subscription = Subscription("t", 1000, self.listen)
        self.delivery = PartitionDelivery(rules, self.subscription, Position("t", PARTITION, 0))

    async def listen(self, message: ReceivedMessage) -> None:
        """Waits for something."""
        await self.future

    def test_cancelled_future(self) -> None:
        """A listener whose future was cancelled has failed."""

        async def test() -> bool:
            self.loop.call_soon(self.future.cancel)
            return await self.delivery.deliver(messages(0, 1))

        self.assertFalse(self.loop.run_until_complete(test()))
        self.assertEqual((0, 1), (self.delivery.position.offset, self.delivery.progress.retries))

    def test_cancelled_task(self) -> None:
        """The end of the loop ends the delivery, and is not a failure of the listener's."""
        task = self.loop.create_task(self.delivery.deliver(messages(0, 1)))
        self.loop.call_soon(task.cancel)
        self.assertRaises(asyncio.CancelledError, self.loop.run_until_complete, task)
        self.assertEqual((0, 0), (self.delivery.position.offset, self.delivery.progress.retries))


class BatchTests(DeliveryCase):
    """A listener for lists."""

    def listen_all(self, batch: list[ReceivedMessage]) -> None:
        """A listener that fails while one of the messages fails."""
        self.got.append([each.id for each in batch])
        for each in batch:
            if self.failing.get(each.id, 0) > 0:
                self.failing[each.id] -= 1
                raise ValueError("one of them")

    def test_whole_batch(self) -> None:
        """The listener gets everything of a fetch at once."""
        delivery = self.delivery(self.listen_all, batch=True)
        self.assertTrue(self.deliver(delivery, 0, 1, 2))
        self.assertEqual([[0, 1, 2]], self.got)
        self.assertEqual((69, 2, True), self.position(delivery))

    def test_later(self) -> None:
        """The listener may return a future."""
        waiting: Deferred[None] = Deferred()
        delivery = self.delivery(lambda batch: waiting, batch=True)
        done = self.runtime.start(delivery.deliver(messages(0, 1)))
        self.assertEqual(0, delivery.position.offset)
        waiting.callback(None)
        self.assertTrue(self.runtime.result(done))
        self.assertEqual(46, delivery.position.offset)

    def test_poison_is_isolated(self) -> None:
        """After a failure each message is delivered by itself, so that only the bad one is
        rejected."""
        delivery = self.delivery(self.listen_all, batch=True)
        self.failing[1] = 100
        for _ in range(8):
            self.round(delivery, 3)
        self.assertEqual([[0, 1, 2, 3], [0]] + [[1]] * 6 + [[2], [3]], self.got)
        self.assertEqual([1], self.rejected)
        self.assertEqual(92, delivery.position.offset)

    def test_lists_again_behind_the_failure(self) -> None:
        """Messages after the failed batch come in lists again."""
        delivery = self.delivery(self.listen_all, batch=True)
        self.failing[0] = 1
        self.deliver(delivery, 0, 1)
        self.deliver(delivery, 0, 1, 2, 3)
        self.assertEqual([[0, 1], [0], [1], [2, 3]], self.got)

    def test_no_retries_rejects_none_blindly(self) -> None:
        """The failing message is unknown: with ``max_fetch_retries`` 0 each is tried by itself,
        too."""
        self.rules.max_retries = 0
        delivery = self.delivery(self.listen_all, batch=True)
        self.failing[1] = 100
        for _ in range(2):
            self.round(delivery, 2)
        self.assertEqual([1], self.rejected)

    def test_rollback_names_the_message(self) -> None:
        """Messages before that of a ``Rollback`` are acknowledged."""

        def listener(batch: list[ReceivedMessage]) -> None:
            self.got.append([each.id for each in batch])
            if len(self.got) == 1:
                raise Rollback(batch[2])

        delivery = self.delivery(listener, batch=True)
        self.assertFalse(self.deliver(delivery, 0, 1, 2, 3))
        self.assertEqual((46, 1), (delivery.position.offset, delivery.progress.retries))
        self.round(delivery, 3)
        self.assertEqual([[0, 1, 2, 3], [2, 3]], self.got)

    def test_rollback_of_all(self) -> None:
        """A ``Rollback`` without a message is a failure of the batch, without a log line."""

        def listener(batch: list[ReceivedMessage]) -> None:
            self.got.append([each.id for each in batch])
            if len(self.got) == 1:
                raise Rollback

        delivery = self.delivery(listener, batch=True)
        self.assertFalse(self.deliver(delivery, 0, 1))
        self.assertEqual((0, 1), (delivery.position.offset, delivery.progress.retries))
        self.assertEqual([], self.runtime.log.texts("failure"))

    def test_abandoned(self) -> None:
        """A batch that comes back too late changes nothing."""
        waiting: Deferred[None] = Deferred()
        delivery = self.delivery(lambda batch: waiting, batch=True)
        self.runtime.start(delivery.deliver(messages(0, 1)))
        delivery.abandon()
        waiting.errback(ValueError("late"))
        self.assertEqual((0, 0), (delivery.position.offset, delivery.progress.retries))
        self.assertIn("offset 0, id 0: ValueError late", self.runtime.log.texts("failure")[0])


class ManualTests(DeliveryCase):
    """``auto_ack=False``."""

    def test_row_40_rollback_and_ack(self) -> None:
        """Row 40: five unacknowledged messages come again in their order after a rollback; an ack
        on the tenth call ends it."""

        def listener(message: ReceivedMessage) -> None:
            self.got.append(message.id)
            if len(self.got) == 5:
                delivery.rollback(message)
            if len(self.got) == 10:
                delivery.ack(message)

        delivery = self.delivery(listener, auto_ack=False)
        self.assertFalse(self.deliver(delivery, *range(5)))
        self.assertTrue(delivery.progress.rolled_back)
        self.assertEqual((0, 0), (delivery.progress.resume_offset, delivery.position.offset))
        self.round(delivery, 4)
        self.assertEqual([*range(5), *range(5)], self.got)
        self.assertEqual((115, 4, True), self.position(delivery))
        self.round(delivery, 4)
        self.assertEqual(10, len(self.got))

    def test_row_42_nothing_is_stored_without_ack(self) -> None:
        """Row 42: without an ack only the position of the next fetch moves."""
        delivery = self.delivery(auto_ack=False)
        self.assertTrue(self.deliver(delivery, 0, 1))
        self.assertEqual((0, -1, False), self.position(delivery))
        self.assertEqual(46, delivery.progress.resume_offset)

    def test_ack_later(self) -> None:
        """An ack may come at any time, for any delivered message."""
        kept: list[ReceivedMessage] = []
        delivery = self.delivery(kept.append, auto_ack=False)
        self.deliver(delivery, 0, 1, 2)
        delivery.ack(kept[1])
        self.assertEqual((46, 1, True), self.position(delivery))
        self.deliver(delivery, 3)
        delivery.ack(kept[3])
        self.assertEqual(92, delivery.position.offset)

    def test_acknowledged_ones_are_remembered(self) -> None:
        """An acknowledged message is a duplicate when it is fetched again, others are not."""
        kept: list[ReceivedMessage] = []
        delivery = self.delivery(kept.append, auto_ack=False)
        self.deliver(delivery, 0, 1, 2)
        delivery.ack(kept[1])
        self.assertEqual([2], [each.id for each in self.rules.duplicates.fresh(messages(0, 1, 2))])

    def test_row_41_wrong_calls(self) -> None:
        """Row 41: ack in automatic mode, ack after rollback and rollback after ack are refused."""
        [message] = messages(0)
        automatic = self.delivery()
        self.assertRaisesRegex(InvalidState, "automatically", automatic.ack, message)
        self.assertRaisesRegex(InvalidState, "automatically", automatic.rollback, message)
        delivery = self.delivery(auto_ack=False)
        self.deliver(delivery, 0)
        delivery.rollback(message)
        self.assertRaisesRegex(InvalidState, "rolled back", delivery.ack, message)
        delivery = self.delivery(auto_ack=False)
        self.deliver(delivery, 0)
        delivery.ack(message)
        self.assertRaisesRegex(InvalidState, "acknowledged", delivery.rollback, message)
        self.assertRaisesRegex(InvalidState, "acknowledged", delivery.ack, message)
        delivery.abandon()
        self.assertRaisesRegex(InvalidState, "another", delivery.ack, message)

    def test_rollback_counts(self) -> None:
        """A message that is rolled back each time is finally rejected, although earlier ones
        succeed each time."""
        self.rules.max_retries = 2

        def listener(message: ReceivedMessage) -> None:
            self.got.append(message.id)
            if message.id == 2:
                delivery.rollback(message)

        delivery = self.delivery(listener, auto_ack=False)
        pauses = []
        for _ in range(3):
            self.assertFalse(self.deliver(delivery, *range(5)))
            pauses.append(delivery.progress.retries)
        self.assertEqual(([0, 1, 2] * 3, [1, 2, 3]), (self.got, pauses))
        self.got.clear()
        self.assertTrue(self.deliver(delivery, *range(5)))
        self.assertEqual(([0, 1, 3, 4], [2]), (self.got, self.rejected))
        self.assertEqual(69, delivery.position.offset)
        self.assertIn("failed 3 times", self.runtime.log.texts("warn")[-1])

    def test_rollbacks_of_several(self) -> None:
        """Each message has a count of its own, which its acknowledgement ends."""
        self.rules.max_retries = 1
        kept: list[ReceivedMessage] = []
        delivery = self.delivery(kept.append, auto_ack=False)
        for number in (1, 0, 1):
            self.deliver(delivery, 0, 1)
            delivery.rollback(messages(number)[0])
        self.deliver(delivery, 0, 1)
        self.assertEqual([1], self.rejected)

    def test_ack_ends_the_count(self) -> None:
        """An acknowledgement ends the count of failures."""
        delivery = self.delivery(auto_ack=False)
        [message] = messages(0)
        self.deliver(delivery, 0, 1)
        delivery.rollback(message)
        self.assertEqual(1, delivery.progress.failures_of(message))
        self.deliver(delivery, 0, 1)
        delivery.ack(message)
        self.assertEqual(0, delivery.progress.failures_of(message))

    def test_rollback_between_deliveries(self) -> None:
        """The fetch loop is told to go back."""
        calls: list[int] = []
        delivery = self.delivery(auto_ack=False)
        delivery.changed = lambda: calls.append(delivery.progress.resume_offset)
        self.deliver(delivery, 0, 1)
        delivery.rollback(messages(1)[0])
        self.assertEqual([0], calls)

    def test_rollback_while_the_listener_waits(self) -> None:
        """The return of a listener after its rollback does not count."""
        waiting: Deferred[None] = Deferred()
        delivery = self.delivery(lambda message: waiting, auto_ack=False)
        done = self.runtime.start(delivery.deliver(messages(0, 1)))
        delivery.rollback(messages(0)[0])
        waiting.callback(None)
        self.assertFalse(self.runtime.result(done))
        self.assertEqual(0, delivery.progress.resume_offset)

    def test_failure_comes_again_by_itself(self) -> None:
        """An exception repeats only its message; earlier ones still wait for their ack."""
        delivery = self.delivery(auto_ack=False)
        self.failing[1] = 1
        self.assertFalse(self.deliver(delivery, 0, 1))
        self.assertEqual((23, 0), (delivery.progress.resume_offset, delivery.position.offset))
        self.round(delivery, 1)
        self.assertEqual([0, 1, 1], self.got)

    def test_rejection_acknowledges_all_before(self) -> None:
        """Waiting messages before a rejected one are acknowledged with it, as in the original."""
        self.rules.max_retries = 0
        delivery = self.delivery(auto_ack=False)
        self.failing[1] = 1
        self.assertTrue(self.deliver(delivery, 0, 1, 2))
        self.assertEqual(([1], 46), (self.rejected, delivery.position.offset))
        self.assertEqual(69, delivery.progress.resume_offset)

    def test_unwanted_messages_need_no_ack(self) -> None:
        """If no message waits for an ack, filtered messages move the position."""
        delivery = self.delivery(auto_ack=False, filter=lambda group, message: message.id > 1)
        self.deliver(delivery, 0, 1)
        self.assertEqual(46, delivery.position.offset)
        self.deliver(delivery, 2)
        self.assertEqual(46, delivery.position.offset)

    def test_move_keeps_what_waits(self) -> None:
        """A 301 does not acknowledge messages that wait for an ack."""
        delivery = self.delivery(auto_ack=False)
        self.deliver(delivery, 0)
        delivery.progress.move_to(500)
        self.assertEqual((0, 500), (delivery.position.offset, delivery.progress.resume_offset))

    def test_batches(self) -> None:
        """Lists wait for their ack like single messages."""
        kept: list[list[ReceivedMessage]] = []
        delivery = self.delivery(kept.append, batch=True, auto_ack=False)
        self.deliver(delivery, 0, 1, 2)
        self.assertEqual((0, 69), (delivery.position.offset, delivery.progress.resume_offset))
        delivery.ack(kept[0][1])
        self.assertEqual(46, delivery.position.offset)
