"""Partitions that a consumer gets, pauses and loses, and a listener that closes its consumer."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from metamorphosis.client.consumer.consumer import Consumer
from metamorphosis.client.delivery.assigning import AssignmentNews
from metamorphosis.client.delivery.subscription import UserCalls
from metamorphosis.client.model import Partition, ReceivedMessage
from metamorphosis.client.settings import ConsumerConfig
from metamorphosis.errors import ClientClosed, InvalidArgument, InvalidState
from tests.unit.client.consumer.test_consumer import PATHS, ConsumerCase

FIRST, SECOND = ("t", Partition(2, 0)), ("t", Partition(2, 1))


class AssignedCase(ConsumerCase):
    """A topic with two partitions."""

    def setUp(self) -> None:
        super().setUp()
        self.logs = self.topic("t", 2)
        self.news: list[Any] = []

    def consumer(self, session: Any = None, **settings: Any) -> Consumer:
        """A consumer that reports to ``news``."""
        consumer: Consumer = (session or self.session).create_consumer("g", **settings)
        consumer.on_assigned(lambda keys: self.news.append(("assigned", keys)))
        return consumer.on_revoked(lambda keys: self.news.append(("revoked", keys)))

    def listening(self, consumer: Consumer, **more: Any) -> Consumer:
        """It reads."""
        return self.begin(consumer.subscribe("t", 1000, self.listen, **more))


class NewsTests(AssignedCase):
    """``on_assigned`` and ``on_revoked``."""

    def test_a_member_comes_and_goes(self) -> None:
        """Each partition is reported once when it is assigned and once when it is revoked."""
        first = self.listening(self.consumer())
        self.assertEqual([("assigned", [FIRST, SECOND])], self.news)
        other = self.factory().create_consumer("g", consumer_id="other")
        other.subscribe("t", 1000, self.listen)
        self.news.clear()
        joining = other.complete_subscribe()
        self.let(60)
        self.runtime.result(joining)
        (kept,) = first.assignment
        told = [key for what, keys in self.news for key in keys if what == "revoked"]
        came = [key for what, keys in self.news for key in keys if what == "assigned"]
        self.assertEqual({FIRST, SECOND}, {*told, *first.assignment})
        self.assertEqual([kept] if kept in told else [], came)
        self.news.clear()
        self.close(other.close())
        self.let(20)
        self.assertEqual([("assigned", [({FIRST, SECOND} - {kept}).pop()])], self.news)
        self.news.clear()
        self.close(first.close())
        self.assertEqual([("revoked", [FIRST, SECOND])], self.news)

    def test_seek_before_the_first_message(self) -> None:
        """No message is delivered before the listener has finished, however long it takes."""
        self.logs[0].append(b"one", b"two")
        waiting: Deferred[None] = Deferred()
        consumer = self.consumer()

        async def assigned(keys: Any) -> None:
            await waiting
            consumer.seek("t", Partition(2, 0), 23)
            consumer.pause(*SECOND)

        self.listening(consumer.on_assigned(assigned))
        self.logs[1].append(b"three")
        self.let(10)
        self.assertEqual([], self.got)
        waiting.callback(None)
        self.let(10)
        self.assertEqual([b"two"], self.got)
        consumer.resume(*SECOND)
        self.let(1)
        self.assertEqual([b"two", b"three"], self.got)

    def test_resume_before_the_first_message(self) -> None:
        """A pause that ends while the listener is not finished yet delivers nothing."""
        self.logs[0].append(b"one")
        waiting: Deferred[None] = Deferred()
        consumer = self.consumer()

        async def assigned(keys: Any) -> None:
            consumer.pause(*FIRST)
            consumer.resume(*FIRST)
            await waiting

        self.listening(consumer.on_assigned(assigned))
        self.let(10)
        self.assertEqual([], self.got)
        waiting.callback(None)
        self.let(10)
        self.assertEqual([b"one"], self.got)

    def test_one_delivery_at_a_time(self) -> None:
        """With ``max_deliveries`` the listener of one partition waits for that of the other."""
        for log in self.logs:
            log.append(b"one")
        waiting: list[Deferred[None]] = []

        def listener(message: ReceivedMessage) -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        self.begin(self.consumer(max_deliveries=1).subscribe("t", 1000, listener))
        self.let(10)
        for number in (1, 2):
            self.assertEqual(number, len(waiting))
            waiting[-1].callback(None)
            self.let(1)

    def test_sizes(self) -> None:
        """A fetch asks for a mebibyte, if nothing else is said."""
        self.begin(self.consumer().subscribe("t", listener=self.listen))
        self.assertEqual({1 << 20}, {each.size for each in self.broker.asked if each.wait_ms})

    def test_closed_consumer(self) -> None:
        """Whoever asks it is told so, and not what should have been done before."""
        consumer = self.consumer().subscribe("t")
        self.close(consumer.close())
        self.assertRaises(ClientClosed, self.runtime.result, consumer.poll())
        self.assertRaises(ClientClosed, self.runtime.result, consumer.get(*FIRST, 0))

    def test_settings_in_a_row(self) -> None:
        """Each listener is set by a method that returns the consumer."""
        consumer = self.consumer()
        for method in ("on_assigned", "on_revoked", "on_passed_over", "on_rejection"):
            self.assertIs(consumer, getattr(consumer, method)(print), method)

    def test_ack_in_the_last_moment(self) -> None:
        """An ack during the revocation is stored for the next owner."""
        self.logs[0].append(b"one", b"two")
        kept: list[ReceivedMessage] = []
        consumer = self.consumer()

        async def revoked(keys: Any) -> None:
            consumer.ack(kept[0])

        consumer.on_revoked(revoked).subscribe("t", 1000, kept.append, auto_ack=False)
        self.begin(consumer)
        self.close(consumer.close())
        self.assertEqual(b"1-23", self.runtime.tree.nodes[PATHS.offset("g", "t", "2-0")].data)
        self.assertRaises(InvalidState, consumer.ack, kept[1])

    def test_one_call_at_a_time(self) -> None:
        """News that come while the listener is busy wait for it."""
        calls: list[Any] = []
        waiting: list[Deferred[None]] = []

        def listener(keys: Any) -> Deferred[None]:
            calls.append(keys)
            waiting.append(Deferred())
            return waiting[-1]

        config = ConsumerConfig(group="g")
        news = AssignmentNews(self.runtime, self.runtime.log, config, UserCalls())
        news.on_assigned = listener
        told = [self.runtime.start(news.assigned([key])) for key in (FIRST, SECOND)]
        self.assertEqual([[FIRST]], calls)
        waiting[0].callback(None)
        self.assertEqual([[FIRST], [SECOND]], calls)
        waiting[1].callback(None)
        for each in told:
            self.runtime.result(each)

    def test_listener_that_fails_or_hangs(self) -> None:
        """It is logged, and delays neither messages nor the balance."""
        self.logs[0].append(b"one")

        def failing(keys: Any) -> None:
            raise ZeroDivisionError("on purpose")

        consumer = self.consumer(stop_timeout_ms=5000).on_assigned(failing)
        self.listening(consumer.on_revoked(lambda keys: Deferred()))
        self.assertEqual([b"one"], self.got)
        closing = consumer.close()
        self.let(4)
        self.assertNoResult(closing)
        self.let(2)
        self.runtime.result(closing)
        lines = "\n".join(self.runtime.log.texts("failure"))
        for what in ("assigned", "revoked"):
            self.assertIn(f"Group g: the listener for {what} partitions failed", lines)

    def test_end_of_a_session(self) -> None:
        """All partitions are revoked with the session, and assigned again."""
        self.listening(self.consumer())
        self.news.clear()
        self.registry.expire()
        self.let(10)
        session: Any = self.session.registry
        session.expire()
        self.registry.start()
        self.let(20)
        self.assertEqual(("revoked", [FIRST, SECOND]), self.news[0])

    def test_direct_mode(self) -> None:
        """The listener is called without a group, too."""
        from metamorphosis.client.factory import SessionFactory
        from metamorphosis.client.settings import ClientConfig

        config = ClientConfig(broker="b:1", recover_path=self.mktemp())
        session = SessionFactory(self.runtime, config)
        self.addCleanup(self.end, session)
        consumer = self.listening(self.consumer(session, partition="0-1"))
        key = "t", Partition(0, 1)
        self.assertEqual([("assigned", [key])], self.news)
        self.close(consumer.close())
        self.assertEqual(("revoked", [key]), self.news[-1])

    def test_arguments(self) -> None:
        """An object that is not callable is refused."""
        consumer: Any = self.consumer()
        for method in (consumer.on_assigned, consumer.on_revoked):
            self.assertRaises(InvalidArgument, method, "listener")


class PauseTests(AssignedCase):
    """``pause`` and ``resume``."""

    def test_one_of_two(self) -> None:
        """The other partition is read; the paused one keeps its position."""
        consumer = self.listening(self.consumer())
        consumer.pause(*FIRST)
        consumer.pause(*FIRST)
        self.assertEqual({FIRST}, consumer.paused)
        self.logs[0].append(b"one", b"two")
        self.logs[1].append(b"three")
        self.let(20)
        self.assertEqual([b"three"], self.got)
        consumer.resume(*FIRST)
        self.let(6)
        self.assertEqual(([b"three", b"one", b"two"], frozenset()), (self.got, consumer.paused))
        consumer.resume(*FIRST)

    def test_in_the_middle_of_a_stretch(self) -> None:
        """A listener that pauses its partition gets no further message, and its processed messages
        count."""
        self.logs[0].append(b"one", b"two", b"six")
        consumer = self.consumer()

        def listener(message: ReceivedMessage) -> None:
            self.listen(message)
            consumer.pause(message.topic, message.partition)

        self.begin(consumer.subscribe("t", 1000, listener))
        for count in (1, 2, 3):
            self.let(6)
            self.assertEqual(count, len(self.got))
            self.assertEqual(23 * count, consumer.assignment[FIRST].offset)
            consumer.resume(*FIRST)

    def test_after_a_failure(self) -> None:
        """What failed is after it: after the resume the rest comes without its pause."""
        self.logs[0].append(b"one", b"two")
        consumer = self.consumer()
        failing = [True]

        def listener(message: ReceivedMessage) -> None:
            if failing:
                failing.pop()
                raise ValueError("not yet")
            self.listen(message)
            consumer.pause(message.topic, message.partition)

        self.begin(consumer.subscribe("t", 1000, listener))
        self.let(6)
        self.assertEqual([b"one"], self.got)
        consumer.resume(*FIRST)
        for _ in range(3):
            self.broker.serve()
            self.runtime.advance(0)
        self.assertEqual([b"one", b"two"], self.got)

    def test_through_a_balance(self) -> None:
        """The partition stays paused while this member owns it."""
        consumer = self.listening(self.consumer())
        consumer.pause(*FIRST)
        consumer.subscribe("u", 1000, self.listen)
        self.topic("u", 1)[0].append(b"other")
        self.let(20)
        self.logs[0].append(b"one")
        self.let(20)
        self.assertEqual(([b"other"], {FIRST}), (self.got, consumer.paused))

    def test_closes_while_paused(self) -> None:
        """A close does not wait for a resume."""
        self.logs[0].append(b"one")
        consumer = self.listening(self.consumer())
        consumer.pause(*FIRST)
        self.close(consumer.close())
        self.assertEqual(b"1-23", self.runtime.tree.nodes[PATHS.offset("g", "t", "2-0")].data)

    def test_not_ours(self) -> None:
        """A partition of another member cannot be paused."""
        consumer = self.consumer()
        for method in (consumer.pause, consumer.resume):
            self.assertRaisesRegex(InvalidState, "not this consumer's", method, *FIRST)
            self.assertRaises(InvalidArgument, method, "t", "2-0")


class ClosingTests(AssignedCase):
    """``close`` from within a listener."""

    def closing(self, close: Any) -> Any:
        """A listener that is a coroutine, and awaits ``close()``."""
        self.logs[0].append(b"one")

        async def listener(message: ReceivedMessage) -> None:
            try:
                await close()
            except InvalidState as error:
                self.got.append(str(error))

        return listener

    def test_awaited(self) -> None:
        """An error at once, for consumer and factory; neither is closed."""
        for target in ("consumer", "factory"):
            self.got.clear()
            consumer = self.session.create_consumer("g")
            ends = {"consumer": consumer.close, "factory": self.session.close}
            self.begin(consumer.subscribe("t", 1000, self.closing(ends[target])))
            (text,) = self.got
            self.assertIn("let the listener return, and close from elsewhere", text)
            self.assertIn(FIRST, consumer.assignment)
            self.close(consumer.close())

    def test_other_functions_of_the_user(self) -> None:
        """The same from a reject strategy and a listener for assignments."""
        consumer = self.session.create_consumer("g")
        self.begin(consumer.on_assigned(self.closing(consumer.close)).subscribe("t", 1000, print))
        self.assertEqual(1, len(self.got))
        self.close(consumer.close())

    def test_another_consumer(self) -> None:
        """A listener may close other consumers, and await that."""
        other = self.session.create_consumer("h")
        consumer = self.session.create_consumer("g")
        self.begin(consumer.subscribe("t", 1000, self.closing(other.close)))
        self.assertEqual([], self.got)
        self.assertRaises(ClientClosed, other.subscribe, "t")

    def test_not_awaited(self) -> None:
        """A function that calls ``close`` and returns ends the consumer; its message counts."""
        self.logs[0].append(b"one", b"two")
        consumer = self.session.create_consumer("g")

        def listener(message: ReceivedMessage) -> None:
            self.listen(message)
            consumer.close()

        self.begin(consumer.subscribe("t", 1000, listener))
        self.close(consumer.close())
        self.assertEqual([b"one"], self.got)
        self.assertEqual(b"1-23", self.runtime.tree.nodes[PATHS.offset("g", "t", "2-0")].data)

    def test_returned(self) -> None:
        """A function that returns the future of ``close`` is logged, and does not block the
        close."""
        for target in ("consumer", "factory"):
            session = self.factory()
            consumer = session.create_consumer("g")
            end = {"consumer": consumer.close, "factory": session.close}[target]
            self.logs[0].append(b"one")
            started: Any = consumer.subscribe("t", 1000, lambda m: end()).complete_subscribe()
            self.let(4)
            started.addErrback(lambda failure: failure.trap(ClientClosed))
            self.close(end())
            self.assertIn("The listener failed", self.runtime.log.texts("failure")[-1])
