"""Sharing, reconnecting, closing."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.network.connections import DELAYS, Connections, is_own_address
from metamorphosis.client.network.opaques import next_opaque
from metamorphosis.client.network.replies import LOST, TIMED_OUT
from metamorphosis.client.settings import ClientConfig
from metamorphosis.errors import ClientClosed, InvalidConfig
from metamorphosis.testing.runtime import MemoryLink, MemoryRuntime

URL = "meta://host:8123"


class ConnectionsCase(SynchronousTestCase):
    """No connection yet."""

    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        """Surroundings."""
        self.runtime = MemoryRuntime()
        config = ClientConfig(broker=URL, **self.settings)
        self.connections = Connections(self.runtime, config, self.runtime.log)
        self.user = object()


class SharingTests(ConnectionsCase):
    """One connection per URL."""

    def test_one_per_url(self) -> None:
        """Whatever form the URL has."""
        first = self.connections.acquire("host:8123", self.user)
        self.assertIs(first, self.connections.acquire(URL, object()))
        self.assertIsNot(first, self.connections.acquire("host:8124", self.user))
        self.assertEqual(["host:8123", "host:8124"], [repr(each) for each in self.runtime.attempts])
        self.assertIs(first, self.connections.connection_of("host:8123"))
        self.assertIsNone(self.connections.connection_of("other:1"))

    def test_last_user_closes(self) -> None:
        """A user counts once; without users there is no connection and no further attempt."""
        other = object()
        for user in (self.user, self.user, other):
            self.connections.acquire(URL, user)
        link = self.runtime.accept()
        self.connections.release(URL, self.user)
        self.assertTrue(link.open)
        self.connections.release(URL, other)
        self.connections.release(URL, other)
        self.assertFalse(link.open)
        self.runtime.advance(100)
        self.assertEqual([], self.runtime.attempts)
        self.assertEqual([], self.runtime.clock.getDelayedCalls())
        self.assertEqual(set(), self.connections._leaving, "kept for ever")

    def test_released_while_connecting(self) -> None:
        """The attempt is given up, in silence."""
        self.connections.acquire(URL, self.user)
        self.connections.release(URL, self.user)
        self.assertEqual([], self.runtime.attempts)
        self.runtime.advance(100)
        self.assertEqual([], self.runtime.log.lines)

    def test_acquired_again(self) -> None:
        """After the last release it is a new connection, and the old one's end is not its own."""
        first = self.connections.acquire(URL, self.user)
        self.runtime.accept()
        self.connections.release(URL, self.user)
        second = self.connections.acquire(URL, self.user)
        link = self.runtime.accept()
        self.assertIsNot(first, second)
        self.assertTrue(second.is_connected and link.open)

    def asked(self) -> list[tuple[int, bytes]]:
        """Ask the broker something on the first connection; the answers, as they come."""
        answers: list[tuple[int, bytes]] = []
        connection = self.connections.acquire(URL, self.user)
        self.link = self.runtime.accept()
        connection.request(1, b"version 1\r\n", lambda *answer: answers.append(answer[:2]), 3.0)
        self.runtime.turn()
        return answers

    def test_answer_after_the_release(self) -> None:
        """A broker that left ZooKeeper still answers what it was asked; then the link is closed."""
        answers = self.asked()
        self.connections.release(URL, self.user)
        self.assertEqual((True, []), (self.link.open, self.connections.connected_urls()))
        self.assertIsNone(self.connections.connection_of(URL))
        self.link.answer(200, b"1.4")
        self.assertEqual([(200, b"1.4")], answers)
        self.assertFalse(self.link.open)
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    def test_no_answer_after_the_release(self) -> None:
        """The time limit of what was asked is also that of the link."""
        answers = self.asked()
        self.connections.release(URL, self.user)
        self.runtime.advance(2.9)
        self.assertTrue(self.link.open)
        self.runtime.advance(0.2)
        self.assertEqual([(TIMED_OUT, b"")], answers)
        self.assertFalse(self.link.open)
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    def test_lost_after_the_release(self) -> None:
        """No further attempt is made."""
        answers = self.asked()
        self.connections.release(URL, self.user)
        self.link.lose()
        self.assertEqual([(LOST, b"connection lost")], answers)
        self.runtime.advance(10)
        self.assertEqual([], self.runtime.attempts)

    def test_wanted_again_before_the_answer(self) -> None:
        """The broker is back: the same connection continues."""
        answers = self.asked()
        self.connections.release(URL, self.user)
        again = self.connections.acquire(URL, object())
        self.link.answer(200)
        self.assertEqual((1, True), (len(answers), self.link.open))
        self.assertTrue(again.is_connected)
        self.assertEqual([], self.runtime.attempts)

    def test_closed_before_the_answer(self) -> None:
        """The end of the factory does not wait."""
        answers = self.asked()
        self.connections.release(URL, self.user)
        closing = self.runtime.start(self.connections.close())
        self.runtime.advance(1)
        self.runtime.result(closing)
        self.assertEqual([(LOST, b"closed")], answers)

    def test_connected_urls(self) -> None:
        """Those that can be asked now."""
        self.connections.acquire("a:1", self.user)
        self.connections.acquire("b:1", self.user)
        self.runtime.accept("b:1")
        self.assertEqual(["meta://b:1"], self.connections.connected_urls())

    def test_bad_url(self) -> None:
        """Is refused before anything is tried."""
        self.assertRaises(InvalidConfig, self.connections.acquire, "nonsense", self.user)


class ReconnectTests(ConnectionsCase):
    """For ever, with back-off."""

    def pause(self) -> float:
        """Let the time pass until the next attempt; the seconds."""
        began = self.runtime.seconds()
        while not self.runtime.attempts:  # other timers are those of lines of the log
            timer = min(self.runtime.clock.getDelayedCalls(), key=lambda each: each.getTime())
            self.runtime.advance(timer.getTime() - self.runtime.seconds())
        self.assertEqual(1, len(self.runtime.attempts))
        return float(round(self.runtime.seconds() - began, 6))

    def pauses(self, count: int) -> list[float]:
        """Refuse a number of attempts; returns the seconds between them."""
        found = []
        for _ in range(count):
            self.runtime.refuse()
            found.append(self.pause())
        return found

    def test_back_off(self) -> None:
        """The first attempts follow fast, later ones every two seconds, for ever; one warning."""
        self.connections.acquire(URL, self.user)
        self.assertEqual([*DELAYS, 2.0, 2.0, 2.0], self.pauses(len(DELAYS) + 3))
        connection = self.connections.connection_of(URL)
        assert connection is not None
        self.assertIsNotNone(connection.fault)
        self.runtime.accept()
        self.assertIsNone(connection.fault)
        self.assertEqual(
            [
                f"Broker {URL} cannot be reached (connection refused); still trying",
                f"Broker {URL} is connected",
            ],
            self.runtime.log.texts(),
        )

    def test_link_that_ends_before_its_attempt(self) -> None:
        """One further attempt, not two."""
        self.connections.acquire(URL, self.user)
        (attempt,) = self.runtime.attempts
        self.runtime.attempts.clear()
        link = MemoryLink(self.runtime, "host", 8123, attempt.receiver)
        attempt.receiver.connected(link)
        link.lose()
        attempt.future.errback(TimeoutError("late"))
        self.runtime.advance(10)
        self.assertEqual(1, len(self.runtime.attempts))

    def test_after_a_loss(self) -> None:
        """A broker that has answered is tried again at once; waiting users get the new link."""
        connection = self.connections.acquire(URL, self.user)
        self.pauses(8)
        link = self.runtime.accept()
        link.receive(b"result 200 0 1\r\n")
        link.lose()
        self.assertEqual([], self.runtime.attempts)
        self.runtime.advance(0.05)
        self.runtime.accept()
        self.assertTrue(connection.is_connected)

    def test_after_an_answer_on_an_earlier_link(self) -> None:
        """What counts is the last link: one without a reply is followed by longer pauses."""
        self.connections.acquire(URL, self.user)
        link = self.runtime.accept()
        link.receive(b"result 200 0 1\r\n")
        times = []
        for _ in range(3):
            link.lose()
            times.append(self.pause())
            link = self.runtime.accept()
        self.assertEqual(list(DELAYS[:3]), times)

    def test_lines_at_the_close(self) -> None:
        """What was counted until then is logged."""
        self.connections.acquire(URL, self.user)
        for _ in range(5):
            self.runtime.accept().lose()
            self.pause()
        self.runtime.run(self.connections.close())
        counted = [line for line in self.runtime.log.texts("warn") if "times more" in line]
        self.assertIn(f"2 times more within 10 s: broker {URL}: connection lost", counted)

    def test_lines_of_a_second_outage(self) -> None:
        """It is said again that the broker cannot be reached, and again once."""
        self.connections.acquire(URL, self.user)
        for _ in range(2):
            self.pauses(3)
            link = self.runtime.accept()
            self.runtime.advance(3600)
            link = self.link_after(link)
            link.lose()
            self.pause()
        lines = self.runtime.log.texts("warn")
        self.assertEqual(2, sum("cannot be reached (connection refused)" in each for each in lines))

    def link_after(self, link: MemoryLink) -> MemoryLink:
        """The present one: a silent broker's was replaced meanwhile."""
        while self.runtime.attempts:
            link = self.runtime.accept()
        return link

    def test_accepts_and_closes(self) -> None:
        """A server that never gives a valid answer is not worth fast attempts."""
        self.connections.acquire(URL, self.user)
        times = []
        for _ in range(10):
            link = self.runtime.accept()
            link.receive(b"nonsense\r\n")
            times.append(self.pause())
        self.assertEqual([*DELAYS, 2.0, 2.0, 2.0, 2.0], times)

    def test_lines_of_a_broker_that_closes_at_once(self) -> None:
        """A few of its links have lines, then they are counted."""
        self.connections.acquire(URL, self.user)
        for _ in range(20):
            self.runtime.accept().lose()
            self.runtime.advance(2.1)
        lines = self.runtime.log.texts()
        for text in (f"Broker {URL} is connected", f"Broker {URL}: connection lost"):
            self.assertEqual(3, lines.count(text))
        counted = [line for line in lines if "times more" in line]
        self.assertEqual(4, len(counted))
        self.assertIn(f"broker {URL}: connection lost", "".join(counted))

    def test_silent_broker(self) -> None:
        """One that accepts and never answers is noticed by its heartbeat and tried again."""
        self.connections.acquire(URL, self.user)
        self.runtime.accept()
        self.runtime.advance(26)
        self.assertEqual(1, len(self.runtime.attempts))

    def test_unexpected_error(self) -> None:
        """An attempt that fails with an unexpected error is logged and repeated."""
        self.connections.acquire(URL, self.user)
        self.runtime.attempts.pop().future.errback(ZeroDivisionError("on purpose"))
        self.runtime.advance(0.1)
        self.assertEqual(1, len(self.runtime.attempts))
        self.assertEqual(1, len(self.runtime.log.texts("failure")))

    def test_timeout_of_an_attempt(self) -> None:
        """The runtime is told how long to wait."""
        self.connections.acquire(URL, self.user)
        self.assertEqual(10.0, self.runtime.attempts[0].timeout)


class OwnAddressTests(ConnectionsCase):
    """Without ``loopback_connection``."""

    def test_own_address(self) -> None:
        """It stays as it was given: brokers may listen on one address only."""
        self.connections.acquire("127.0.0.1:8123", self.user)
        self.assertEqual(["127.0.0.1:8123"], [repr(each) for each in self.runtime.attempts])


class LoopbackTests(ConnectionsCase):
    """``loopback_connection``."""

    settings = {"loopback_connection": True}

    def test_own_address(self) -> None:
        """Addresses of this machine become ``localhost``, others do not."""
        self.connections.acquire("127.0.0.1:8123", self.user)
        self.connections.acquire("192.0.2.1:8123", self.user)
        self.connections.acquire("name:8123", self.user)
        hosts = [each.host for each in self.runtime.attempts]
        self.assertEqual(["localhost", "192.0.2.1", "name"], hosts)

    def test_is_own_address(self) -> None:
        """Names are not looked up."""
        self.assertTrue(is_own_address("127.0.0.1"))
        self.assertFalse(is_own_address("localhost"))
        self.assertFalse(is_own_address("192.0.2.1"))

    def test_port(self) -> None:
        """The system chooses it: others may not be ours."""
        ports: list[object] = []
        bind = socket.socket.bind

        class Probe(socket.socket):
            """Notes the port."""

            def bind(self, address: Any) -> None:
                """See ``socket``."""
                ports.append(address[1])
                bind(self, address)

        self.patch(socket, "socket", Probe)
        self.assertTrue(is_own_address("127.0.0.1"))
        self.assertEqual([0], ports)


class CloseTests(ConnectionsCase):
    """The end of all."""

    def test_close(self) -> None:
        """Links are closed and waited for, attempts and timers are gone, nothing begins anew."""
        self.connections.acquire("a:1", self.user)
        self.connections.acquire("b:1", self.user)
        self.connections.acquire("c:1", self.user)
        link = self.runtime.accept("a:1")
        self.runtime.refuse("c:1")
        self.runtime.run(self.connections.close())
        self.assertFalse(link.open)
        self.assertEqual([], self.runtime.attempts)
        self.assertEqual([], self.runtime.clock.getDelayedCalls())
        self.assertRaises(ClientClosed, self.connections.acquire, URL, self.user)
        self.runtime.run(self.connections.close())

    def test_last_requests_leave(self) -> None:
        """What was asked for in the same turn is written before the end."""
        connection = self.connections.acquire(URL, self.user)
        link = self.runtime.accept()
        opaque = next_opaque()
        connection.request(opaque, b"version %d\r\n" % opaque, lambda *answer: None, 3)
        self.runtime.run(self.connections.close())
        self.assertEqual(b"version %d\r\n" % opaque, link.written)

    def test_socket_that_does_not_end(self) -> None:
        """It is cut after a while."""
        self.connections.acquire(URL, self.user)
        link = self.runtime.accept()
        ended = []

        def close() -> None:
            link.open = True  # the broker does not take what was written

        link.close = close  # type: ignore[method-assign]
        link.abort = lambda: ended.append(1)  # type: ignore[method-assign]
        closing = self.runtime.start(self.connections.close())
        self.runtime.advance(1.9)
        self.assertEqual([], ended)
        self.runtime.advance(0.2)
        self.assertEqual([1], ended)
        self.assertNoResult(closing)
        self.runtime.advance(2)
        self.successResultOf(closing)

    def test_attempt_that_takes_time_to_end(self) -> None:
        """It is waited for: nothing of a factory runs after its end."""

        class Slow(Deferred[None]):
            """Ends some time after it was cancelled."""

            def cancel(self) -> None:
                """Later."""

        self.connections.acquire(URL, self.user)
        (attempt,) = self.runtime.attempts
        self.runtime.attempts.clear()
        attempt.future.errback(OSError("away"))
        slow = Slow()
        self.runtime.connect = lambda *_: slow  # type: ignore[method-assign]
        self.runtime.advance(0.1)
        closing: Any = self.runtime.start(self.connections.close())
        self.runtime.turn()
        self.assertNoResult(closing)
        slow.errback(CancelledError())
        self.successResultOf(closing)

    def test_closed_by_an_answer(self) -> None:
        """To the last request of a connection that was released: it ends once."""
        connection = self.connections.acquire(URL, self.user)
        link = self.runtime.accept()
        closing: list[Any] = []
        opaque = next_opaque()

        def close(*_: object) -> None:
            closing.append(self.runtime.start(self.connections.close()))

        connection.request(opaque, b"version %d\r\n" % opaque, close, 3)
        self.connections.release(URL, self.user)
        link.answer(200)
        self.successResultOf(closing[0])

    def test_released_link_is_waited_for(self) -> None:
        """Also one that was released just before."""
        self.connections.acquire(URL, self.user)
        link = self.runtime.accept()
        self.connections.release(URL, self.user)
        closing: Any = self.runtime.start(self.connections.close())
        self.assertNoResult(closing)
        self.assertFalse(link.open)
        self.runtime.turn()
        self.successResultOf(closing)
