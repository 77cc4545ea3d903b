"""Messages kept on disk for later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.delivery.duplicates import DuplicateCache
from metamorphosis.client.delivery.progress import Progress
from metamorphosis.client.delivery.recovery import (
    RecoveredMessage,
    Recovery,
    deliver_recovered,
    drop,
    pack,
    unpack,
)
from metamorphosis.client.delivery.subscription import DeliveryRules, Rollback, Subscription
from metamorphosis.client.localstore import LocalStore
from metamorphosis.client.model import Partition, ReceivedMessage
from metamorphosis.client.network.flow import Slots
from metamorphosis.client.settings import ClientConfig
from metamorphosis.errors import ClientClosed, LocalStoreError, OffsetStoreError
from metamorphosis.testing.runtime import MemoryRuntime


def message(number: int, topic: str = "t") -> ReceivedMessage:
    """A message with this id."""
    return ReceivedMessage(topic, Partition(3, 1), number * 100, number, 0, b"body %d" % number)


class RecoveryCase(SynchronousTestCase):
    """
    One directory.

    :ivar failing: id -> how often the listener still fails.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.got: list[int] = []
        self.failing: dict[int, int] = {}
        self.begin()

    def begin(self) -> None:
        """A process begins."""
        self.runtime = MemoryRuntime()
        config = ClientConfig(
            broker="b:1", recover_path=self.directory, recover_message_interval_ms=60000
        )
        self.recovery = Recovery(self.runtime, config, self.runtime.log)
        self.addCleanup(lambda: self.runtime.run(self.recovery.close()))

    def end(self) -> None:
        """It ends."""
        self.runtime.run(self.recovery.close())

    async def take(self, message: ReceivedMessage) -> None:
        """The listener."""
        self.got.append(message.id)
        if self.failing.get(message.id, 0) > 0:
            self.failing[message.id] -= 1
            raise ValueError("still no good")

    def keep(self, *numbers: int, group: str = "g") -> None:
        """Keep rejected messages."""
        for number in numbers:
            self.runtime.run(self.recovery.keep(message(number), group))

    def count(self, group: str = "g") -> int:
        """The number of kept messages."""
        return int(self.runtime.run(self.recovery.count("t", group)))


class FormatTests(SynchronousTestCase):
    """The bytes of a kept message."""

    def test_round_trip(self) -> None:
        """All fields are restored, negative ids and attributes too."""
        for kept in (
            message(7),
            ReceivedMessage("t", Partition(0, 0), 1 << 60, -5, 1, b"\0\0\0\2abcd"),
            ReceivedMessage("t", Partition(0, 0), 0, 5, -1, b""),
        ):
            found = unpack("t", pack(kept))
            self.assertEqual(kept, found)
            self.assertFalse(found.rolled_back)

    def test_no_message(self) -> None:
        """Too few bytes are refused."""
        error = self.assertRaises(ValueError, unpack, "t", b"12345")
        self.assertIn("5 bytes", str(error))


class PassTests(RecoveryCase):
    """The times and order of redelivery."""

    def test_first_pass(self) -> None:
        """After five seconds, then once in the configured time."""
        self.recovery.listen("t", "g", self.take)
        self.keep(1, 2)
        self.runtime.advance(4.9)
        self.assertEqual([], self.got)
        self.runtime.advance(0.2)
        self.assertEqual(([1, 2], 0), (self.got, self.count()))
        self.keep(3)
        self.runtime.advance(59)
        self.assertEqual([1, 2], self.got)
        self.runtime.advance(1)
        self.assertEqual([1, 2, 3], self.got)

    def test_row_37_fails_again(self) -> None:
        """Row 37: a message that fails stays, is delivered with each pass, and does not delay
        others."""
        self.recovery.listen("t", "g", self.take)
        self.failing[1] = 2
        self.keep(1, 2)
        self.runtime.advance(5)
        self.assertEqual(([1, 2], 1), (self.got, self.count()))
        [line] = self.runtime.log.texts("failure")
        self.assertIn("t 3-1 offset 100, id 1", line)
        self.runtime.advance(120)
        self.assertEqual(([1, 2, 1, 1], 0), (self.got, self.count()))

    def test_lines_of_a_listener_that_fails(self) -> None:
        """One traceback, then the number of failures."""
        self.recovery.listen("t", "g", self.take)
        self.failing = dict.fromkeys(range(50), 3)
        self.keep(*range(50))
        self.runtime.advance(130)
        self.assertEqual((150, 1), (len(self.got), len(self.runtime.log.texts("failure"))))
        (counted,) = self.runtime.log.texts("warn")
        self.assertIn("99 times more", counted)
        self.assertIn("group g, fail again with ValueError; the last one: partition 3-1", counted)

    def test_lines_of_damaged_entries(self) -> None:
        """One for all of them."""
        store = LocalStore.open(self.directory, "t@g")
        for number in range(20):
            store.append(number + 1, b"?")
        store.close()
        self.recovery.listen("t", "g", self.take)
        self.runtime.advance(5)
        self.assertEqual(1, len(self.runtime.log.texts("error")))

    def test_rollback_keeps(self) -> None:
        """A ``Rollback`` keeps the message, without a traceback; so does ``rolled_back``."""

        async def take(message: ReceivedMessage) -> None:
            self.got.append(message.id)
            assert isinstance(message, RecoveredMessage)
            if len(self.got) == 1:
                raise Rollback
            message.rolled_back = len(self.got) == 2

        self.recovery.listen("t", "g", take)
        self.keep(1)
        self.runtime.advance(65)
        self.assertEqual(([1, 1], 1), (self.got, self.count()))
        self.runtime.advance(60)
        self.assertEqual(([1, 1, 1], 0), (self.got, self.count()))
        self.assertEqual([], self.runtime.log.texts("failure"))

    def test_row_75_next_process(self) -> None:
        """Row 75: 100 messages, a restart: all are delivered once, in order."""
        self.keep(*range(100))
        self.end()
        self.begin()
        self.recovery.listen("t", "g", self.take)
        self.runtime.advance(5)
        self.assertEqual((list(range(100)), 0), (self.got, self.count()))
        self.end()
        self.begin()
        self.recovery.listen("t", "g", self.take)
        self.runtime.advance(70)
        self.assertEqual(100, len(self.got))

    def test_row_75_same_id(self) -> None:
        """Row 75: the same id again is not an error; another message of that id is kept as well."""
        self.keep(1, 1)
        other = ReceivedMessage("t", Partition(3, 2), 0, 1, 0, b"other")
        self.runtime.run(self.recovery.keep(other, "g"))
        self.assertEqual(2, self.count())

    def test_nobody_listens(self) -> None:
        """Messages of other topics and groups are not touched."""
        self.keep(1, group="other")
        self.recovery.listen("t", "g", self.take)
        self.runtime.advance(70)
        self.assertEqual(([], 1), (self.got, self.count("other")))

    def test_slow_listener(self) -> None:
        """A pass that lasts longer than the interval is not begun twice."""
        waiting: Deferred[None] = Deferred()

        async def take(message: ReceivedMessage) -> None:
            self.got.append(message.id)
            await waiting

        self.recovery.listen("t", "g", take)
        self.keep(1)
        self.runtime.advance(5)
        self.runtime.start(self.recovery.recover())
        self.runtime.advance(300)
        self.assertEqual([1], self.got)
        waiting.callback(None)
        self.assertEqual(0, self.count())

    def test_damaged_entry(self) -> None:
        """An entry that is too short stays, with a log line, and does not delay others."""
        store = LocalStore.open(self.directory, "t@g")
        store.append(1, b"?")
        store.close()
        self.keep(2)
        self.recovery.listen("t", "g", self.take)
        self.runtime.advance(5)
        self.assertEqual(([2], 1), (self.got, self.count()))
        self.assertIn("cannot be read and stays", self.runtime.log.texts("error")[0])

    def test_disk_that_does_not_work(self) -> None:
        """A directory that cannot be used is an error of ``keep``; one line for all passes."""
        self.directory.write_bytes(b"a file")
        self.assertRaises(LocalStoreError, self.keep, 1)
        self.recovery.listen("t", "g", self.take)
        self.runtime.advance(200)
        (line,) = self.runtime.log.texts("failure")
        self.assertIn("Kept messages of t, group g, cannot be read", line)
        (counted,) = self.runtime.log.texts("warn")
        self.assertIn("2 times more within 120 s: kept messages of t, group g, cannot be", counted)

    def test_drop(self) -> None:
        """The strategy that drops messages."""
        self.assertIsNone(drop(message(1)))  # type: ignore[func-returns-value]


class EndTests(RecoveryCase):
    """Leaving."""

    def test_forget(self) -> None:
        """No further message is delivered to the listener; the stop waits for the busy one."""
        waiting: Deferred[None] = Deferred()

        async def take(message: ReceivedMessage) -> None:
            self.got.append(message.id)
            await waiting

        self.recovery.listen("t", "g", take)
        self.keep(1, 2)
        self.runtime.advance(5)
        forgetting = self.runtime.start(self.recovery.forget("t", "g", 60.0))
        self.assertNoResult(forgetting)
        waiting.callback(None)
        self.runtime.result(forgetting)
        self.runtime.advance(100)
        self.assertEqual(([1], 1), (self.got, self.count()))

    def test_forget_does_not_wait_for_ever(self) -> None:
        """The wait for a hanging listener is limited, and its message stays."""

        async def take(message: ReceivedMessage) -> None:
            await Deferred()

        self.recovery.listen("t", "g", take)
        self.keep(1)
        self.runtime.advance(5)
        forgetting = self.runtime.start(self.recovery.forget("t", "g", 3.0))
        self.runtime.advance(3)
        self.runtime.result(forgetting)
        self.assertEqual(1, self.count())

    def test_forget_unknown(self) -> None:
        """``forget`` of an unknown listener has no effect."""
        self.runtime.run(self.recovery.forget("t", "g", None))

    def test_closed(self) -> None:
        """After the end no message is kept or delivered, no timer is left, and a second close has
        no effect."""
        self.recovery.listen("t", "g", self.take)
        self.keep(1)
        self.end()
        self.end()
        self.assertRaises(OffsetStoreError, self.keep, 2)
        self.runtime.advance(100)
        self.assertEqual([], self.got)
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    def test_closed_unused(self) -> None:
        """Without any message no file is made."""
        self.end()
        self.assertRaises(ClientClosed, self.keep, 1)
        self.assertFalse(self.directory.exists())


class Outlet:
    """An iteration whose user is the test."""

    def __init__(self, *outcomes: tuple[int, BaseException | None]) -> None:
        self.outcomes = list(outcomes)
        self.got: list[ReceivedMessage] = []

    async def take(
        self, progress: Progress, messages: list[ReceivedMessage]
    ) -> tuple[int, BaseException | None]:
        """See ``Outlet``."""
        self.got += messages
        return self.outcomes.pop(0)

    def revoke(self, progress: Progress) -> None:
        """See ``Outlet``."""


class DeliverTests(SynchronousTestCase):
    """``deliver_recovered``: the delivery of one kept message."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.got: list[Any] = []
        self.rules = DeliveryRules(
            self.runtime, "g", self.runtime.log, 5, DuplicateCache(), lambda message: None
        )

    def deliver(self, listener: Any, **more: Any) -> Deferred[None]:
        """Deliver message 1."""
        subscription = Subscription("t", 1000, listener, **more)
        return self.runtime.start(deliver_recovered(self.rules, subscription, message(1)))

    def test_listeners(self) -> None:
        """Plain listeners, of one message and of lists; filter and duplicates are not asked."""
        self.rules.duplicates.add([message(1)])
        self.runtime.result(self.deliver(self.got.append, filter=lambda group, message: False))
        self.runtime.result(self.deliver(self.got.append, batch=True))
        self.assertEqual([message(1), [message(1)]], self.got)

    def test_waits(self) -> None:
        """The listener's result is awaited; its error is that of the delivery."""
        waiting: Deferred[None] = Deferred()
        done = self.deliver(lambda message: waiting)
        self.assertNoResult(done)
        waiting.errback(ValueError("no"))
        self.assertRaises(ValueError, self.runtime.result, done)

    def test_slots(self) -> None:
        """It counts as one of the listener calls under way."""
        self.rules.slots = Slots(self.runtime, 1)
        self.rules.slots.try_acquire()
        done = self.deliver(self.got.append)
        self.assertNoResult(done)
        self.rules.slots.release()
        self.runtime.result(done)
        self.assertEqual(1, self.rules.slots.free)
        self.rules.slots.close()
        self.assertRaises(Rollback, self.runtime.result, self.deliver(self.got.append))

    def test_iteration(self) -> None:
        """Without a listener the message goes to ``async for``, and stays until it is taken."""
        outlet = self.rules.outlet = Outlet((1, None), (0, None), (0, Rollback()))
        self.runtime.result(self.deliver(None))
        self.assertRaises(Rollback, self.runtime.result, self.deliver(None))
        self.assertRaises(Rollback, self.runtime.result, self.deliver(None))
        self.assertEqual([message(1)] * 3, outlet.got)
