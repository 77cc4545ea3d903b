"""The session factory: beginning, end, children, statistics."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.factory import SessionFactory
from metamorphosis.client.model import Partition
from metamorphosis.client.settings import (
    ClientConfig,
    ConsumerConfig,
    client_config,
    consumer_config,
)
from metamorphosis.client.topics.brokerstats import parse_stats
from metamorphosis.cluster.model import ConnectionFault, SessionEvent, SessionState, TopicBroker
from metamorphosis.errors import (
    ClientClosed,
    InvalidArgument,
    InvalidConfig,
    InvalidConsumerConfig,
    InvalidState,
    NotConnected,
    RequestTimeout,
    ServiceUnavailable,
)
from metamorphosis.testing.registry import MemoryRegistry
from metamorphosis.testing.runtime import MemoryLink, MemoryRuntime
from tests.support.leftovers import collect_garbage, unclosed_factories


class Child:
    """Notes when it ends."""

    def __init__(self, name: str, ended: list[str], session: SessionFactory) -> None:
        self.name = name
        self._ended = ended
        self._session = session
        self.wait: Deferred[None] | None = None
        self.error: Exception | None = None

    async def close(self) -> None:
        """Perhaps later."""
        if self.wait is not None:
            await self.wait
        self._ended.append(self.name)
        if self.error is not None:
            raise self.error
        self._session.remove_child(self)


class DirectTests(SynchronousTestCase):
    """One broker, no ZooKeeper."""

    def setUp(self) -> None:
        """Not started yet."""
        self.runtime = MemoryRuntime()
        self.session = SessionFactory(self.runtime, ClientConfig(broker="host:8123"))

    def started(self) -> MemoryLink:
        """Start it."""
        starting = self.session.start()
        link = self.runtime.accept("host:8123")
        self.successResultOf(starting)
        return link

    def test_nothing_before_start(self) -> None:
        """The constructor connects to nothing, and there is no registry."""
        self.assertEqual([], self.runtime.attempts)
        self.assertIsNone(self.session.registry)

    def test_start(self) -> None:
        """Fires when the broker is connected; again at once."""
        starting: Any = self.session.start()
        self.assertNoResult(starting)
        self.runtime.refuse()
        self.runtime.advance(0.1)
        self.assertNoResult(starting)
        self.runtime.accept()
        self.successResultOf(starting)
        self.successResultOf(self.session.start())
        self.assertEqual([], self.runtime.attempts)

    def test_connected_before_the_start(self) -> None:
        """By whatever else uses the broker: the start is over at once."""
        self.session.connections.acquire("host:8123", self)
        self.runtime.accept("host:8123")
        self.successResultOf(self.session.start())
        self.session.connections.release("host:8123", self)

    def test_start_fails(self) -> None:
        """After the time an error that can be retried; the factory keeps trying."""
        self.runtime.advance(1000)
        starting = self.session.start()
        self.runtime.advance(80)
        failure = self.failureResultOf(starting, NotConnected)
        self.assertIn("broker meta://host:8123: no connection within 80 s", str(failure.value))
        self.assertTrue(failure.value.retriable)
        again = self.session.start()
        self.runtime.accept()
        self.successResultOf(again)

    def test_refused(self) -> None:
        """Refused connections are tried for 5 s, as documented; the error has the last cause."""
        starting = self.session.start()
        self.runtime.refuse_all("Connection refused", 4.9)
        self.assertNoResult(starting)
        self.runtime.refuse_all("Connection refused", 2.0)
        failure = self.failureResultOf(starting, NotConnected)
        self.assertRegex(
            str(failure.value),
            r"broker meta://host:8123: no connection within \d(\.\d+)? s \(Connection refused\);",
        )

    def test_told_to_wait(self) -> None:
        """A setting makes the start wait for a broker that is started later."""
        config = ClientConfig(broker="host:8123", refused_timeout_ms=70000)
        self.session = SessionFactory(self.runtime, config)
        starting = self.session.start()
        self.runtime.refuse_all("Connection refused", 59)
        self.assertNoResult(starting)
        self.runtime.advance(2)
        self.runtime.accept()
        self.successResultOf(starting)

    def test_refused_at_first(self) -> None:
        """What does not answer is waited for as long as ever, whatever was refused before."""
        starting = self.session.start()
        self.runtime.refuse_all("Connection refused", 1)
        self.runtime.advance(2)
        self.runtime.refuse(reason="no connection within 10 s", error=TimeoutError)
        self.runtime.advance(60)
        self.assertNoResult(starting)

    def test_close_while_starting(self) -> None:
        """Callers that wait for the start get the error."""
        starting = self.session.start()
        closing = self.session.close()
        self.runtime.turn()
        self.failureResultOf(starting, ClientClosed)
        self.successResultOf(closing)
        self.runtime.advance(200)
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    def test_children_end_in_order(self) -> None:
        """One after the other, in the order in which they were made, the first ones before; then
        the connections."""
        link = self.started()
        ended: list[str] = []
        children = [Child(name, ended, self.session) for name in ("a", "b", "first")]
        self.session.add_child(children[0])
        self.session.add_child(children[1])
        self.session.add_child(children[2], first=True)
        children[0].wait = Deferred()
        closing: Any = self.session.close()
        self.runtime.turn()
        self.assertEqual(["first"], ended)
        self.assertTrue(link.open)
        children[0].wait.callback(None)
        self.runtime.turn()
        self.assertEqual(["first", "a", "b"], ended)
        self.assertFalse(link.open)
        self.successResultOf(closing)

    def test_child_that_fails(self) -> None:
        """The error is logged, and the other parts still end."""
        self.started()
        ended: list[str] = []
        bad, good = Child("bad", ended, self.session), Child("good", ended, self.session)
        bad.error = ZeroDivisionError("on purpose")
        self.session.add_child(bad)
        self.session.add_child(good)
        self.runtime.result(self.session.close())
        self.assertEqual(["bad", "good"], ended)
        self.assertEqual(1, len(self.runtime.log.texts("failure")))

    def test_child_that_left(self) -> None:
        """A child that has left is not closed again."""
        self.started()
        ended: list[str] = []
        child = Child("a", ended, self.session)
        self.session.add_child(child)
        self.runtime.run(child.close())
        self.session.remove_child(child)
        self.runtime.result(self.session.close())
        self.assertEqual(["a"], ended)

    def test_close_twice(self) -> None:
        """Both fire at the end, and a third one at once."""
        self.started()
        ended: list[str] = []
        child = Child("a", ended, self.session)
        child.wait = Deferred()
        self.session.add_child(child)
        first: Any = self.session.close()
        second: Any = self.session.close()
        self.assertNoResult(second)
        child.wait.callback(None)
        self.runtime.turn()
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.session.close())
        self.assertEqual(["a"], ended)

    def test_who_waits_for_close_gives_up(self) -> None:
        """The factory ends although one caller has cancelled its wait; the others are answered."""
        link = self.started()
        child = Child("a", [], self.session)
        child.wait = Deferred()
        self.session.add_child(child)
        first: Any = self.session.close()
        first.addErrback(lambda _: None)
        first.cancel()
        second: Any = self.session.close()
        self.assertNoResult(second)
        child.wait.callback(None)
        self.runtime.turn()
        self.assertIsNone(self.successResultOf(second))
        self.assertFalse(link.open)
        self.assertEqual([], self.runtime.log.texts("failure"))

    def test_dropped(self) -> None:
        """A factory that is dropped without ``close`` is reported and leaves neither producers nor
        connections."""
        collect_garbage(self)
        link = self.started()
        producer: Any = self.session.create_producer("t")
        self.assertIs(self.session, self.successResultOf(producer)._session)
        del producer
        del self.session
        gc.collect()
        [warning] = unclosed_factories(self)
        self.assertIs(ResourceWarning, warning["category"])
        self.assertIn("meta://host:8123 was not closed", warning["message"])
        self.runtime.turn()
        self.assertFalse(link.open)
        self.runtime.advance(60)
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    def test_dropped_before_the_start_or_after_the_end(self) -> None:
        """There is nothing to say."""
        collect_garbage(self)
        del self.session
        self.session = SessionFactory(self.runtime, ClientConfig(broker="host:8123"))
        self.started()
        self.runtime.result(self.session.close())
        del self.session
        gc.collect()
        self.assertEqual([], unclosed_factories(self))

    def test_context_manager_that_cannot_start(self) -> None:
        """Parts that were begun are closed, because the caller cannot close them."""

        async def use() -> None:
            async with self.session:
                pass

        using: Any = self.runtime.start(use())
        self.runtime.refuse()
        self.runtime.advance(80.1)
        self.failureResultOf(using, NotConnected)
        self.assertTrue(self.session.is_closed)
        self.assertEqual([], self.runtime.attempts)
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    def test_after_close(self) -> None:
        """Every ``create`` is refused."""
        self.runtime.result(self.session.close())
        self.assertTrue(self.session.is_closed)
        self.failureResultOf(self.session.create_producer(), ClientClosed)
        self.failureResultOf(self.session.start(), ClientClosed)
        self.failureResultOf(self.session.get_stats(), ClientClosed)
        self.assertRaises(ClientClosed, self.session.create_consumer, "g")
        child = Child("a", [], self.session)
        self.assertRaises(ClientClosed, self.session.add_child, child)

    def test_context_manager(self) -> None:
        """``async with`` starts and closes."""
        ended: list[str] = []

        async def use() -> None:
            async with self.session as session:
                self.assertIs(self.session, session)
                session.add_child(Child("a", ended, session))

        using = self.runtime.start(use())
        link = self.runtime.accept()
        self.successResultOf(using)
        self.assertEqual(["a"], ended)
        self.assertFalse(link.open)

    def test_partitions_need_zookeeper(self) -> None:
        """Direct mode does not know the partitions of a topic."""
        self.started()
        self.failureResultOf(self.session.get_partitions_for_topic("t"), InvalidState)

    def test_session_ids(self) -> None:
        """Host, milliseconds, and a number of the factory's."""
        first, second = self.session.next_session_id(), self.session.next_session_id()
        self.assertRegex(first, r"^.+-\d{13}-1$")
        milliseconds = int(first.split("-")[-2])
        self.assertTrue(0 <= time.time() * 1000 - milliseconds < 3_600_000, first)
        self.assertEqual(first[:-1] + "2", second)

    # -- statistics, conformance 82

    def test_stats_of_all(self) -> None:
        """Of every broker that is connected, the item as asked for."""
        link = self.started()
        other = self.connect_to("other:1")
        asked = self.session.get_stats(item="topics")
        text = b"pid 123\r\nitem topics\r\nput_failed 0\r\nalone\r\n"
        self.assertTrue(link.answer(200, text).startswith(b"stats topics "))
        other.answer(200, b"pid 5\r\n")
        expected = {
            "meta://host:8123": {
                "pid": "123",
                "item": "topics",
                "put_failed": "0",
                "alone": "NO VALUE",
            },
            "meta://other:1": {"pid": "5"},
        }
        self.assertEqual(expected, self.successResultOf(asked))

    def connect_to(self, address: str) -> MemoryLink:
        """Some producer uses another broker, too."""
        self.session.connections.acquire(address, self)
        return self.runtime.accept(address)

    def test_stats_of_one(self) -> None:
        """Only the target is asked; without an item there are two spaces."""
        link = self.started()
        other = self.connect_to("other:1")
        asked = self.session.get_stats("other:1")
        self.assertTrue(other.answer(200, b"pid 5\r\n").startswith(b"stats  "))
        self.assertEqual(b"", link.take())
        self.assertEqual({"meta://other:1": {"pid": "5"}}, self.successResultOf(asked))

    def test_stats_of_a_stranger(self) -> None:
        """An unused target is connected to, and released again."""
        self.started()
        asked = self.session.get_stats("third:1")
        link = self.runtime.accept("third:1")
        link.answer(200, b"pid 7\r\n")
        self.assertEqual({"meta://third:1": {"pid": "7"}}, self.successResultOf(asked))
        self.assertFalse(link.open)

    def test_stats_without_answer(self) -> None:
        """They are waited for three seconds."""
        self.started()
        asked = self.session.get_stats("host:8123")
        self.runtime.advance(2.9)
        self.assertNoResult(asked)
        self.runtime.advance(0.2)
        self.failureResultOf(asked, RequestTimeout)

    def test_stats_refused(self) -> None:
        """The target's refusal is an error; of many brokers one that fails is left out."""
        link = self.started()
        asked = self.session.get_stats("host:8123", "nonsense")
        link.answer(503, b"no service")
        self.failureResultOf(asked, ServiceUnavailable)
        other = self.connect_to("other:1")
        asked = self.session.get_stats()
        link.take()
        other.answer(200, b"pid 5\r\n")
        self.runtime.advance(3.1)
        self.assertEqual({"meta://other:1": {"pid": "5"}}, self.successResultOf(asked))
        self.assertIn("no answer in time", self.runtime.log.texts("warn")[-1])

    def test_stats_without_brokers(self) -> None:
        """Without a connection there is no report."""
        self.started().lose()
        self.assertEqual({}, self.runtime.result(self.session.get_stats()))

    def test_eighteen_keys(self) -> None:
        """Values may have spaces."""
        text = b"".join(b"key%d value %d\r\n" % (number, number) for number in range(18))
        found = parse_stats(text)
        self.assertEqual(18, len(found))
        self.assertEqual("value 7", found["key7"])


class ZooKeeperTests(SynchronousTestCase):
    """Brokers are found."""

    def setUp(self) -> None:
        """Not started yet."""
        self.runtime = MemoryRuntime()
        self.config = ClientConfig(zookeeper="zk:2181", zookeeper_root="/other")
        self.session = SessionFactory(self.runtime, self.config)

    def test_dropped(self) -> None:
        """The ZooKeeper session ends, though topics are watched."""
        collect_garbage(self)
        self.runtime.result(self.session.start())
        producer: Any = self.runtime.result(self.session.create_producer("t"))
        registry = self.session.registry
        del producer
        del self.session
        gc.collect()
        self.assertEqual(1, len(unclosed_factories(self)))
        self.runtime.turn()
        self.assertEqual(0, registry.session_id())

    def test_start_and_close(self) -> None:
        """The session begins and ends with the factory."""
        self.runtime.result(self.session.start())
        self.assertNotEqual(0, self.session.registry.session_id())
        self.runtime.result(self.session.close())
        self.assertEqual(0, self.session.registry.session_id())

    def test_absent(self) -> None:
        """No session in time is an error; when ZooKeeper comes everything continues."""
        self.session.registry.reachable = False
        starting = self.session.start()
        self.runtime.advance(30)
        failure = self.failureResultOf(starting, NotConnected)
        self.assertIn("ZooKeeper at zk:2181: no session within 30 s", str(failure.value))
        self.session.registry.resume()
        self.successResultOf(self.session.start())

    def test_other_changes_of_the_session(self) -> None:
        """Only a connection starts the factory."""
        listeners: list[Callable[[SessionEvent], None]] = []
        registry: Any = self.session.registry
        registry.on_session = listeners.append
        registry.reachable = False
        starting: Any = self.session.start()
        (changed,) = listeners
        for state in (SessionState.SUSPENDED, SessionState.LOST):
            changed(SessionEvent(state))
            self.assertNoResult(starting)
        changed(SessionEvent(SessionState.CONNECTED, True))
        self.successResultOf(starting)

    def test_get_partitions_for_topic(self) -> None:
        """Those of masters, by number; none for an unknown topic. It starts the factory."""
        registry = MemoryRegistry(self.runtime.tree)
        registry.start()
        for name, count in (("10-m", 1), ("2-m", 2), ("2-s0", 9)):
            data = TopicBroker(count, name).encode()
            self.runtime.result(registry.create(f"/other/brokers/topics-pub/t/{name}", data, True))
        found = self.runtime.result(self.session.get_partitions_for_topic("t"))
        self.assertEqual([Partition(2, 0), Partition(2, 1), Partition(10, 0)], found)
        self.assertEqual([], self.runtime.result(self.session.get_partitions_for_topic("u")))

    def test_producer_starts_the_factory(self) -> None:
        """No call of ``start`` is needed."""
        producer = self.runtime.result(self.session.create_producer("t"))
        self.runtime.result(self.session.close())
        self.failureResultOf(producer.send("t", b""), ClientClosed)

    def test_producer_that_cannot_publish(self) -> None:
        """Whatever the reason, nothing is left of it in the factory."""
        self.runtime.result(self.session.start())
        self.failureResultOf(self.session.create_producer(" "), InvalidArgument)
        self.session.registry.hold()
        publishing: Any = self.session.create_producer("test")
        self.assertEqual(1, len(self.session._children))
        publishing.cancel()
        self.failureResultOf(publishing)
        self.assertEqual([], self.session._children)

    def test_refused(self) -> None:
        """The reason is ZooKeeper's, and the start does not wait for long."""
        self.session.registry.reachable = False
        self.session.registry.outage = ConnectionFault("Connection refused", True)
        starting = self.session.start()
        self.runtime.advance(6)
        failure = self.failureResultOf(starting, NotConnected)
        self.assertIn("within 5 s (Connection refused); still trying", str(failure.value))

    def test_registry_made(self) -> None:
        """With the addresses and the time that are configured."""
        made: list[tuple[str, int]] = []
        self.runtime.registry = lambda *given: made.append(given)  # type: ignore
        config = self.config.replaced(zookeeper_session_timeout_ms=7000)
        SessionFactory(self.runtime, config)
        self.assertEqual([("zk:2181", 7000)], made)

    def test_constructor_that_fails(self) -> None:
        """There is nothing to be closed when it is collected."""

        def fail(*_: object) -> MemoryRegistry:
            raise ZeroDivisionError("on purpose")

        said: list[object] = []
        self.patch(sys, "unraisablehook", said.append)
        self.runtime.registry = fail  # type: ignore[method-assign]
        self.assertRaises(ZeroDivisionError, SessionFactory, self.runtime, self.config)
        gc.collect()
        self.assertEqual([], said)

    def test_parts(self) -> None:
        """Topics end before the connections, and these before the ZooKeeper session."""
        self.assertIs(self.session.directory, self.session.directory)
        names = [name for name, _ in self.session._parts]
        self.assertEqual(["the ZooKeeper session", "the connections", "the topics"], names)

    def test_registry_given(self) -> None:
        """A registry of the caller's is used in place of one made."""
        own = self.runtime.registry("", 0)
        self.assertIs(own, SessionFactory(self.runtime, self.config, own).registry)


class ConfigTests(SynchronousTestCase):
    """What is given beside a config object."""

    def test_client_config(self) -> None:
        """Settings alone, or on top of an object; None is not given."""
        config = client_config(None, {"broker": "a:1", "zookeeper": None, "send_timeout_ms": 5})
        self.assertEqual(("meta://a:1", 5), (config.broker, config.send_timeout_ms))
        other = client_config(config, {"broker": None, "send_timeout_ms": 7})
        self.assertEqual(("meta://a:1", 7), (other.broker, other.send_timeout_ms))
        self.assertRaises(InvalidConfig, client_config, None, {"broker": "a:1", "nonsense": 1})
        self.assertRaises(InvalidConfig, client_config, None, {})

    def test_consumer_config(self) -> None:
        """The same; a group is needed."""
        config = consumer_config(None, "g", {"offset": 5})
        self.assertEqual(("g", 5), (config.group, config.offset))
        other = consumer_config(config, None, {"offset": 6})
        self.assertEqual(("g", 6), (other.group, other.offset))
        self.assertEqual("h", consumer_config(ConsumerConfig(group="g"), "h", {}).group)
        error = self.assertRaises(InvalidConsumerConfig, consumer_config, None, None, {})
        self.assertEqual("Blank group", str(error))
        self.assertRaises(InvalidConsumerConfig, consumer_config, None, "g", {"ofset": 5})
