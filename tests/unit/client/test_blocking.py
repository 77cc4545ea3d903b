"""The client for scripts: threads are the subject."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client import aio, blocking
from metamorphosis.client.blocking import MessageSessionFactory
from metamorphosis.client.model import MessagesFailed, OutgoingMessage, Partition, SendResult
from metamorphosis.client.runtimes import (
    plain,
    plainconsumers,
    plainproducers,
    plaintransactions,
)
from metamorphosis.client.runtimes.loopthread import LoopThread
from metamorphosis.client.runtimes.plainproducers import SEND_WINDOW
from metamorphosis.errors import (
    ClientClosed,
    InvalidConfig,
    InvalidMessage,
    InvalidState,
    NotConnected,
    NotPublished,
    RequestTimeout,
)
from metamorphosis.message import encode_record
from tests.support.fakebroker import FakeBroker, listen
from tests.support.leftovers import collect_garbage, new_threads, unclosed_factories
from tests.unit.client.test_faces import OTHERS, declared, names_of

SECONDS = 60.0

PLAIN = (blocking, plain, plainconsumers, plainproducers, plaintransactions)


class BlockingCase(SynchronousTestCase):
    """A broker in a loop of its own."""

    def setUp(self) -> None:
        """Begin to listen."""
        logger = logging.getLogger("metamorphosis.client")
        logger.setLevel(logging.CRITICAL)
        self.addCleanup(logger.setLevel, logging.NOTSET)
        self.broker = FakeBroker()
        self.side = LoopThread("broker")
        self.server, self.address = self.side.call(listen, self.broker)
        self.addCleanup(self.side.stop)
        self.addCleanup(self.side.call, self.broker.end)
        self.addCleanup(self.side.call, self.server.close)

    def factory(self, **settings: Any) -> MessageSessionFactory:
        """Closed at the end of the test."""
        factory = MessageSessionFactory(broker=self.address, **settings)
        self.addCleanup(factory.close)
        return factory


class FactoryTests(BlockingCase):
    """Producer, consumer, browser, statistics."""

    def test_there_and_back(self) -> None:
        """Messages sent are consumed; the threads are gone afterwards."""
        before = threading.enumerate()
        with MessageSessionFactory(broker=self.address) as factory:
            with factory.create_producer("test") as producer:
                self.assertEqual(0, producer.send("test", b"0").offset)
                results = list(producer.send_all("test", [b"1", b"2"]))
                self.assertEqual([21, 42], [each.offset for each in results])
            with factory.create_consumer("g", partition="0-0", long_poll_ms=0) as consumer:
                consumer.subscribe("test").complete_subscribe()
                self.assertEqual("g", consumer.group)
                got = []
                for message in consumer:
                    got.append(message.data)
                    if len(got) == 3:
                        consumer.ack(message)
                        break
                self.assertEqual([b"0", b"1", b"2"], got)
                self.assertIs(True, consumer.commit())
                ((_, position),) = consumer.assignment.items()
                self.assertEqual(63, position.offset)
            stats = factory.get_stats(item="topics")
            self.assertEqual("topics", stats[f"meta://{self.address}"]["item"])
        self.assertEqual(set(), new_threads(before))

    def test_factory_that_cannot_be_made(self) -> None:
        """The error is that of the loop's thread, which has ended."""
        before = threading.enumerate()

        def fail(*_: object) -> None:
            raise ZeroDivisionError("on purpose")

        self.patch(blocking, "SessionFactory", fail)
        self.assertRaises(ZeroDivisionError, MessageSessionFactory, broker=self.address)
        self.assertEqual(set(), new_threads(before))

    def test_other_producers(self) -> None:
        """One-way and ordered sends; what they keep is in directories of the test."""
        factory = self.factory(async_storage_path=self.mktemp(), local_message_path=self.mktemp())
        with factory.create_one_way_producer("test") as producer:
            self.assertIs(producer, producer.on_lost(lambda _: None))
            producer.send("test", b"0")
            self.assertTrue(producer.ready())
            producer.recover()
        with factory.create_ordered_producer("test") as ordered:
            self.assertEqual(21, ordered.send("test", b"1").offset)
            self.assertEqual(0, ordered.local_count("test", Partition(-1, -1)))
            ordered.recover()
        with factory.create_xa_producer("test", unique_qualifier="mine") as xa:
            self.assertTrue(xa.unique_qualifier.endswith("mine"))
            self.assertEqual(f"meta://{self.address}", xa.resource().target)

    def test_get(self) -> None:
        """Reading without a group's position."""
        factory = self.factory()
        factory.create_producer("test").send("test", b"0")
        consumer = factory.create_consumer("g")
        found = consumer.get("test", Partition(0, 0), 0)
        self.assertEqual([b"0"], [message.data for message in found or ()])
        self.assertIsNone(consumer.get("test", Partition(0, 0), 21))

    def test_listener_may_block(self) -> None:
        """It runs in a thread, and may call the client."""
        factory = self.factory()
        producer = factory.create_producer("test")
        got: list[bytes] = []
        done = threading.Event()

        def listener(message: Any) -> None:
            got.append(message.data)
            if message.data == b"first":
                producer.send("test", b"second")
            else:
                done.set()

        consumer = factory.create_consumer("g", partition="0-0", long_poll_ms=0)
        consumer.subscribe("test", listener=listener).complete_subscribe()
        producer.send("test", b"first")
        self.assertTrue(done.wait(SECONDS))
        self.assertEqual([b"first", b"second"], got)

    def test_threads_of_listeners_end(self) -> None:
        """With the factory, which has waited for them."""
        before = threading.enumerate()
        factory, done = self.factory(), threading.Event()
        factory.create_producer("test").send("test", b"first")
        consumer = factory.create_consumer("g", partition="0-0", long_poll_ms=0)
        consumer.subscribe("test", listener=lambda _: done.set()).complete_subscribe()
        self.assertTrue(done.wait(SECONDS))
        factory.close()
        self.assertEqual(set(), new_threads(before))

    def test_listener_that_raises(self) -> None:
        """The message comes again, as with every other face."""
        factory = self.factory()
        producer = factory.create_producer("test")
        calls: list[bytes] = []
        done = threading.Event()

        def listener(message: Any) -> None:
            calls.append(message.data)
            if len(calls) < 2:
                raise ZeroDivisionError("on purpose")
            done.set()

        consumer = factory.create_consumer(
            "g", partition="0-0", long_poll_ms=0, max_delay_fetch_time_ms=10
        )
        consumer.subscribe("test", listener=listener).complete_subscribe()
        producer.send("test", b"x")
        self.assertTrue(done.wait(SECONDS))
        self.assertEqual([b"x", b"x"], calls)

    def test_close_ends_a_loop_that_waits(self) -> None:
        """Another thread closes the factory: ``for`` ends."""
        factory = self.factory()
        consumer = factory.create_consumer("g", partition="0-0", long_poll_ms=0)
        consumer.subscribe("test").complete_subscribe()
        got: list[Any] = []
        loop = threading.Thread(target=lambda: got.extend(consumer))
        loop.start()
        factory.close()
        loop.join(SECONDS)
        self.assertFalse(loop.is_alive())
        self.assertEqual([], got)

    def test_interrupted_loop_goes_on(self) -> None:
        """A message that comes when Ctrl-C has ended the wait for it is there for the next loop."""
        factory = self.factory()
        consumer = factory.create_consumer("g", partition="0-0", long_poll_ms=0)
        consumer.subscribe("test").complete_subscribe()
        call, waits = consumer._thread.call, threading.Event()

        def interrupted(function: Any, *args: Any) -> Any:
            threading.Thread(target=call, args=(function, *args), daemon=True).start()
            waits.wait(0.2)
            raise KeyboardInterrupt

        iteration = iter(consumer)
        patch = self.patch(consumer._thread, "call", interrupted)
        self.assertRaises(KeyboardInterrupt, next, iteration)
        patch.restore()
        producer = factory.create_producer("test")
        for data in (b"0", b"1"):
            producer.send("test", data)
        waits.wait(1)
        got = []
        for message in consumer:
            got.append(message.data)
            if len(got) == 2:
                break
        self.assertEqual([b"0", b"1"], got)

    def test_interrupted_poll_goes_on(self) -> None:
        """The same with ``poll``, also if the next one ends before the message comes."""
        factory = self.factory()
        consumer = factory.create_consumer("g", partition="0-0", long_poll_ms=0)
        consumer.subscribe("test").complete_subscribe()
        call, asked = consumer._thread.call, threading.Event()

        def interrupted(function: Any, *args: Any) -> Any:
            threading.Thread(target=call, args=(function, *args), daemon=True).start()
            consumer._thread.post(asked.set)
            asked.wait(SECONDS)
            raise KeyboardInterrupt

        patch = self.patch(consumer._thread, "call", interrupted)
        self.assertRaises(KeyboardInterrupt, consumer.poll)
        patch.restore()
        for _ in range(2):
            self.assertEqual([], consumer.poll(timeout=0.01))
        factory.create_producer("test").send("test", b"0")
        self.assertEqual([b"0"], [each.data for each in consumer.poll(timeout=SECONDS)])

    def test_many_windows(self) -> None:
        """``send_all`` takes any number, lazily, and gives the results in order."""
        producer = self.factory().create_producer("test")
        results = producer.send_all("test", (b"x" for _ in range(SEND_WINDOW + 5)))
        self.assertEqual(0, next(results).offset)
        self.assertEqual(SEND_WINDOW, len(self.broker.commands))
        offsets = [each.offset for each in results]
        self.assertEqual([21 * (n + 1) for n in range(SEND_WINDOW + 4)], offsets)

    def test_send_many(self) -> None:
        """Results of a list, which an iterator of the caller's may give in its own thread."""
        producer = self.factory().create_producer("test")

        def some() -> Iterator[OutgoingMessage]:
            yield OutgoingMessage("test", b"0")
            producer.send("test", b"in between")
            yield OutgoingMessage("test", b"1", "attribute")

        results = producer.send_many(some(), partition=Partition(0, 3))
        self.assertEqual([SendResult] * 2, [type(each) for each in results])
        self.assertEqual([0, 21], [each.offset for each in results])
        wrong: Any = [OutgoingMessage("test", b"2"), b"3"]
        with self.assertRaisesRegex(InvalidMessage, r"messages\[1\]"):
            producer.send_many(wrong)

    def test_send_many_fails(self) -> None:
        """The error has the outcome of each."""
        producer = self.factory().create_producer("test", retries=0)
        nowhere = OutgoingMessage("never published", b"x")
        with self.assertRaises(InvalidMessage):
            producer.send_many([nowhere])
        nowhere = OutgoingMessage("elsewhere", b"x")
        with self.assertRaises(MessagesFailed) as caught:
            producer.send_many([OutgoingMessage("test", b"0"), nowhere])
        self.assertEqual(0, caught.exception.outcomes[0].offset)  # type: ignore[union-attr]
        self.assertEqual([1], list(caught.exception.failed))

    def test_send_later(self) -> None:
        """Futures at once; ``flush`` waits for all; the order is that of the calls."""
        producer = self.factory().create_producer("test")
        futures = [producer.send_later("test", b"%d" % n) for n in range(50)]
        producer.flush()
        self.assertTrue(all(each.done() for each in futures))
        offsets = [each.result().offset for each in futures]
        self.assertEqual(sorted(offsets), offsets)
        self.assertFalse(producer.send_later("test", b"x").cancel())
        producer.flush(SECONDS)

    def test_send_later_fails(self) -> None:
        """By the future, and by the next ``flush``, once; a wrong argument at once."""
        producer = self.factory().create_producer("test")
        failed = producer.send_later("elsewhere", b"x")
        good = producer.send_later("test", b"x")
        later = producer.send_later("nowhere", b"x")
        error = self.assertRaises(NotPublished, producer.flush)
        self.assertIs(failed.exception(SECONDS), error, "the first one")
        self.assertIsInstance(later.exception(SECONDS), NotPublished)
        self.assertTrue(good.result(SECONDS).is_stored)
        producer.flush()
        wrong: Any = "text"
        with self.assertRaisesRegex(InvalidMessage, "data is 'text'"):
            producer.send_later("test", wrong)

    def test_passed_over(self) -> None:
        """Consumers and browsers count what they do not deliver."""
        factory = self.factory()
        for each in (factory.create_consumer("g"), factory.create_topic_browser("test")):
            self.assertEqual((0, 0), (each.passed_over.damaged, each.passed_over.too_long))

    def test_browser(self) -> None:
        """A loop over it has everything."""
        factory = self.factory()
        list(factory.create_producer("test").send_all("test", [b"0", b"1", b"2"]))
        with factory.create_topic_browser("test") as browser:
            for _ in range(2):
                self.assertEqual([b"0", b"1", b"2"], [message.data for message in browser])

    def test_listener_for_what_is_passed_over(self) -> None:
        """It is called in a thread with each of them."""
        factory = self.factory(max_body_bytes=1 << 10)
        log = self.broker.logs["test", 0] = bytearray(encode_record(1, 0, bytes(3 << 10)))
        log += encode_record(2, 0, b"next")
        told: list[Any] = []
        done = threading.Event()

        def listener(passed: Any) -> None:
            told.extend((passed, threading.current_thread()))
            done.set()

        consumer = factory.create_consumer("g", partition="0-0", long_poll_ms=0)
        self.assertIs(consumer, consumer.on_passed_over(listener))
        consumer.subscribe("test", 1 << 10).complete_subscribe()
        self.assertEqual([b"next"], [each.data for each in consumer.poll(SECONDS, 1)])
        self.assertTrue(done.wait(SECONDS))
        passed, thread = told
        self.assertEqual((0, True), (passed.offset, passed.too_long))
        self.assertNotIn(thread, (threading.current_thread(), factory._thread._thread))

    def test_send_later_after_the_end(self) -> None:
        """Neither a message nor a wait for those before is possible."""
        factory = self.factory()
        producer = factory.create_producer("test")
        factory.close()
        self.assertRaises(ClientClosed, producer.flush)
        self.assertRaises(ClientClosed, producer.send_later, "test", b"x")

    def test_close_is_that_of_the_core(self) -> None:
        """Which ends producers and connections in order, before the loop ends."""
        factory = self.factory()
        factory.create_producer("test")
        factory.close()
        self.assertTrue(factory._core.is_closed)
        self.assertFalse(factory._thread.is_alive)

    def test_send_later_bound(self) -> None:
        """A call that would fill the memory waits until there is room."""
        factory = self.factory()
        producer = factory.create_producer("test", max_outstanding_bytes=3000)
        held = threading.Event()
        self.addCleanup(held.set)
        producer._thread.post(lambda: held.wait(SECONDS))
        futures = [producer.send_later("test", b"x"), producer.send_later("test", b"x")]
        rest = threading.Thread(target=lambda: futures.append(producer.send_later("test", b"x")))
        rest.start()
        rest.join(0.1)
        self.assertEqual((True, 2), (rest.is_alive(), len(futures)))
        with self.assertRaisesRegex(RequestTimeout, "2 messages have no fate yet"):
            producer.flush(0.01)
        held.set()
        rest.join(SECONDS)
        producer.flush(SECONDS)
        self.assertEqual(3, len([each.result() for each in futures]))

    def test_send_later_in_the_loop(self) -> None:
        """A callback of a future runs in the loop, where nothing may wait."""
        producer = self.factory().create_producer("test")
        told: list[Any] = []
        done = threading.Event()

        def again(future: Any) -> None:
            try:
                producer.send_later("test", b"again")
            except InvalidState as error:
                told.append(error)
            done.set()

        producer.send_later("test", b"x").add_done_callback(again)
        self.assertTrue(done.wait(SECONDS))
        producer.flush()
        self.assertLessEqual(len(told), 1)  # none, if it was done before the callback was there

    def test_send_later_and_close(self) -> None:
        """Messages under way meet their fate; later calls are refused."""
        factory = self.factory()
        producer = factory.create_producer("test")
        futures = [producer.send_later("test", b"x") for _ in range(20)]
        producer.close()
        self.assertTrue(all(each.result(SECONDS).is_stored for each in futures))
        self.assertIsInstance(producer.send_later("test", b"x").exception(SECONDS), ClientClosed)
        factory.close()
        self.assertRaises(ClientClosed, producer.send_later, "test", b"x")
        self.assertRaises(ClientClosed, producer.flush)

    def test_send_all_fails(self) -> None:
        """The first error is raised where it belongs."""
        producer = self.factory().create_producer("test")
        bodies: list[Any] = [b"good", "no bytes", b"good"]
        results = producer.send_all("test", bodies)
        self.assertEqual(0, next(results).offset)
        with self.assertRaises(InvalidMessage):
            next(results)

    def test_errors(self) -> None:
        """Those of the core, raised where the call was made."""
        before = threading.enumerate()
        for settings in ({}, {"zookeeper": "host:port:no"}):
            with self.assertRaises(InvalidConfig):
                MessageSessionFactory(**settings)
        self.assertEqual(set(), new_threads(before))
        factory = self.factory()
        with self.assertRaises(InvalidMessage):
            factory.create_producer("test").send("", b"")
        with self.assertRaises(InvalidState):
            factory.get_partitions_for_topic("test")

    def test_nobody_there(self) -> None:
        """``with`` raises, and leaves no thread behind."""
        before = threading.enumerate()
        self.side.call(self.server.close)
        with (
            self.assertRaises(NotConnected),
            MessageSessionFactory(broker=self.address, refused_timeout_ms=50),
        ):
            self.fail("there is no broker")
        self.assertEqual(set(), new_threads(before))

    def test_dropped(self) -> None:
        """A factory that was not closed is reported; an object that uses a factory keeps it.
        Threads and descriptors: ``tests.integration.test_dropped_factories``."""
        collect_garbage(self)
        broker = f"meta://{self.address}"
        producer = MessageSessionFactory(broker=self.address).create_producer("test")
        gc.collect()
        self.assertEqual([], unclosed_factories(self, broker))
        self.assertTrue(producer.send("test", b"x").is_stored)
        del producer
        for _ in range(5):
            MessageSessionFactory(broker=self.address).start()
        gc.collect()
        told = [each["category"] for each in unclosed_factories(self, broker)]
        self.assertEqual([ResourceWarning] * 6, told)

    def test_closed(self) -> None:
        """Every call raises an error; a second close has no effect."""
        factory = self.factory()
        producer = factory.create_producer("test")
        factory.close()
        factory.close()
        producer.close()
        with self.assertRaises(ClientClosed):
            producer.send("test", b"")
        with self.assertRaises(ClientClosed):
            factory.create_consumer("g")


class LoopThreadTests(SynchronousTestCase):
    """Calls into a loop."""

    def setUp(self) -> None:
        """A loop."""
        self.thread = LoopThread("test")
        self.addCleanup(self.thread.stop)

    def test_results(self) -> None:
        """Plain, awaited, raised."""

        async def later(value: int) -> int:
            return value

        self.assertEqual(3, self.thread.call(lambda: 3))
        self.assertEqual(4, self.thread.call(later, 4))
        self.assertEqual("test", self.thread.call(lambda: threading.current_thread().name))
        with self.assertRaises(ZeroDivisionError):
            self.thread.call(lambda: 1 // 0)

    def test_call_from_the_loop(self) -> None:
        """A call from the loop would wait for itself: it is refused."""
        with self.assertRaisesRegex(InvalidState, "would never return"):
            self.thread.call(self.thread.call, int)

    def test_alive(self) -> None:
        """Until it is stopped."""
        self.assertIs(True, self.thread.is_alive)
        self.thread.stop()
        self.assertIs(False, self.thread.is_alive)

    def test_stop_while_somebody_waits(self) -> None:
        """Waiting callers get the error."""
        errors: list[BaseException] = []
        began = threading.Event()

        async def never() -> None:
            began.set()
            await self.thread.loop.create_future()

        def wait() -> None:
            try:
                self.thread.call(never)
            except BaseException as error:
                errors.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        self.assertTrue(began.wait(SECONDS))
        self.thread.stop()
        waiting.join(SECONDS)
        self.assertIsInstance(errors[0], ClientClosed)

    def test_end_after(self) -> None:
        """The loop ends after the last part, whatever becomes of them."""
        told: list[str] = []

        async def later() -> None:
            await asyncio.sleep(0)
            told.append("later")

        def fail() -> None:
            raise ZeroDivisionError("on purpose")

        with self.assertLogs("metamorphosis.client", "ERROR") as logged:
            self.thread.end_after([later, fail, lambda: told.append("last")])
            self.thread._thread.join(SECONDS)
        self.assertEqual((False, ["later", "last"]), (self.thread.is_alive, told))
        self.assertIn("A part was not closed", logged.output[0])

    def test_task_that_takes_time_to_end(self) -> None:
        """The loop runs until it has ended."""
        told: list[str] = []

        async def slow() -> None:
            try:
                await self.thread.loop.create_future()
            finally:
                for _ in range(20):
                    await asyncio.sleep(0)
                told.append("ended")

        async def start() -> None:
            self.task = asyncio.ensure_future(slow())
            await asyncio.sleep(0)

        self.thread.call(start)
        self.thread.stop()
        self.assertEqual(["ended"], told)

    def test_call_whose_future_is_cancelled(self) -> None:
        """It ends as with the loop: it does not wait for ever."""

        async def cancelled() -> None:
            future = self.thread.loop.create_future()
            future.cancel()
            await future

        self.assertRaises(ClientClosed, self.thread.call, cancelled)

    def test_call_that_meets_the_end(self) -> None:
        """A call that arrives while the loop ends is told, too."""
        entered, release, queued = threading.Event(), threading.Event(), threading.Event()
        outcomes: list[Any] = []

        def hold() -> None:
            entered.set()
            release.wait(SECONDS)

        def ask() -> None:
            try:
                outcomes.append(self.thread.call(int))
            except ClientClosed as error:
                outcomes.append(error)

        loop: Any = self.thread.loop
        original = loop.call_soon_threadsafe
        original(hold)
        self.assertTrue(entered.wait(SECONDS))
        original(loop.stop)
        loop.call_soon_threadsafe = lambda *args: (original(*args), queued.set())
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        self.assertTrue(queued.wait(SECONDS))
        release.set()
        asking.join(SECONDS)
        self.assertIsInstance(outcomes[0], ClientClosed)

    def test_forked_process(self) -> None:
        """It has no thread that could answer: an error, not a wait without end."""
        with warnings.catch_warnings():
            # From 3.12 on: a process with threads forks, which is what a user may do too.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded")
            child = os.fork()
        if not child:
            signal.alarm(10)
            try:
                self.thread.call(int)
            except ClientClosed:
                os._exit(7)
            finally:
                os._exit(1)
        self.assertEqual(7, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


class FaceTests(SynchronousTestCase):
    """The same methods as the other faces."""

    def test_methods(self) -> None:
        """Everything the asyncio face has, with its parameters, but what only loops need."""
        ours = {name: each for module in PLAIN for name, each in declared(module).items()}
        theirs = {name: each for own in (aio, *OTHERS[aio]) for name, each in declared(own).items()}
        only_loops = {"is_full", "ready", "send_with_callback"}
        for name in theirs.keys() - {"Closing"}:
            for method, promised in theirs[name].items():
                if method.startswith("__") or (name == "Producer" and method in only_loops):
                    continue
                where = f"{name}.{method}"
                core = ours[name]
                inherited = ours["Plain"].keys() | ours["Publishing"].keys()
                self.assertIn(method, core.keys() | inherited, where)
                if method in core:
                    self.assertEqual(names_of(promised), names_of(core[method]), where)
