"""One broker: requests, replies, limits, heartbeat, back-pressure, loss."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.network.connection import WRITE_BYTES, BrokerConnection
from metamorphosis.client.network.links import Waiter
from metamorphosis.client.network.opaques import next_opaque
from metamorphosis.client.network.replies import LOST, NOT_SENT, TIMED_OUT, VALUE
from metamorphosis.client.settings import ClientConfig
from metamorphosis.testing.runtime import MemoryLink, MemoryRuntime
from metamorphosis.wire.commands import GetCommand, StatsCommand

URL = "meta://host:8123"


class ConnectionCase(SynchronousTestCase):
    """A connection with a link, and what became of requests."""

    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        """Connect."""
        self.runtime = MemoryRuntime()
        self.lost: list[BrokerConnection] = []
        self.outcomes: list[tuple[int, int, bytes]] = []  # number of the request, status, body
        config = ClientConfig(broker=URL, **self.settings)
        self.connection = BrokerConnection(
            self.runtime, URL, config, self.runtime.log, self.lost.append
        )
        self.link = self.connect()

    def connect(self) -> MemoryLink:
        """The next link."""
        self.runtime.connect("host", 8123, self.connection, 1)
        return self.runtime.accept()

    def ask(self, number: int = 0, timeout: float = 3.0, waiter: Waiter | None = None) -> int:
        """Make a request; its opaque."""
        opaque = next_opaque()

        def keep(status: int, body: bytes, opaque: int) -> None:
            self.outcomes.append((number, status, body))

        frame = b"version %d\r\n" % opaque
        self.connection.request(opaque, frame, waiter or keep, timeout)
        return opaque


class RequestTests(ConnectionCase):
    """There and back."""

    def test_one_write_a_turn(self) -> None:
        """Requests of a turn leave together at its end."""
        opaques = [self.ask() for _ in range(3)]
        self.assertEqual(b"", self.link.written)
        self.runtime.turn()
        self.assertEqual(1, self.link.writes)
        self.assertEqual(b"".join(b"version %d\r\n" % each for each in opaques), self.link.take())

    def test_requests_made_by_waiters(self) -> None:
        """What the waiters of a chunk ask for leaves as one write when the chunk has been read."""
        first = [self.ask(waiter=lambda *_: self.ask() and None) for _ in range(3)]
        self.link.take()
        data = b"".join(b"result 200 0 %d\r\n" % each for each in first)
        self.link.receiver.data_received(data)
        self.assertEqual(2, self.link.writes)
        self.assertEqual(3, self.link.written.count(b"\r\n"))

    def test_waiter_that_ends_the_program(self) -> None:
        """What is not an ``Exception`` goes through, and requests still leave afterwards."""

        def leave(status: int, body: bytes, opaque: int) -> None:
            raise SystemExit

        opaque = self.ask(waiter=leave)
        self.link.take()
        with self.assertRaises(SystemExit):
            self.link.receive(b"result 200 0 %d\r\n" % opaque)
        self.ask()
        self.assertIn(b"version", self.link.take())

    def test_replies_in_any_order(self) -> None:
        """Each goes to its own waiter, once."""
        first, second = self.ask(1), self.ask(2)
        self.link.take()
        self.link.receive(b"value 2 %d\r\nab" % second)
        self.link.receive(b"result 500 2 %d\r\nno" % first)
        self.assertEqual([(2, VALUE, b"ab"), (1, 500, b"no")], self.outcomes)
        self.runtime.advance(60)
        self.assertEqual(2, len(self.outcomes))

    def test_long_body(self) -> None:
        """A link may put the bytes of a long body where they belong; that is traffic as well."""
        opaque = self.ask(1, 30)
        self.link.take()
        length = 100_000
        self.link.receive(b"value %d %d\r\n" % (length, opaque))
        for part in (60_000, 40_000):
            self.runtime.advance(9)
            room = self.connection.room()
            assert room is not None
            room[:part] = b"x" * part
            self.connection.received(part)
        self.assertEqual([(1, VALUE, b"x" * length)], self.outcomes)
        self.assertEqual(b"", self.link.take())

    def test_unknown_opaque(self) -> None:
        """A reply without a waiter is counted and ignored."""
        first = self.ask(1)
        self.link.take()
        self.link.receive(b"result 200 0 77\r\nresult 200 0 %d\r\n" % first)
        self.link.receive(b"result 200 0 %d\r\n" % first)
        self.assertEqual([(1, 200, b"")], self.outcomes)
        self.assertEqual(2, self.connection.unknown_replies)
        self.assertTrue(self.connection.is_connected)

    def test_waiter_that_raises(self) -> None:
        """It is logged, and the others get their replies."""

        def bad(status: int, body: bytes, opaque: int) -> None:
            raise ZeroDivisionError("on purpose")

        opaques = [self.ask(1), self.ask(waiter=bad), self.ask(3)]
        self.link.take()
        self.link.receive(b"".join(b"result 200 0 %d\r\n" % each for each in opaques))
        self.assertEqual([1, 3], [number for number, _, _ in self.outcomes])
        self.assertEqual(1, len(self.runtime.log.texts("failure")))

    def test_call(self) -> None:
        """A command's opaque is replaced; the future has status and body."""
        future = self.connection.call(StatsCommand("topics", 5), 3)
        written = self.link.answer(200, b"text")
        self.assertTrue(written.startswith(b"stats topics -"))
        self.assertEqual((200, b"text"), self.runtime.result(future))

    def test_call_cancelled(self) -> None:
        """The answer to a cancelled future is not an error."""
        future: Any = self.connection.call(GetCommand("t", "g", 0, 0, 10, 0), 3)
        future.cancel()
        self.failureResultOf(future)
        self.link.answer(404)
        self.assertEqual([], self.runtime.log.texts("failure"))

    def test_not_connected(self) -> None:
        """The waiter is told, but not from within the request."""
        self.link.lose()
        self.ask(1)
        self.assertEqual([], self.outcomes)
        self.runtime.turn()
        self.assertEqual([(1, NOT_SENT, b"connection lost")], self.outcomes)
        self.connect()
        self.runtime.advance(5)
        self.assertEqual(b"", self.runtime.links[-1].take())
        self.assertEqual(1, len(self.outcomes), "and only once")

    def test_several(self) -> None:
        """They leave in their order as one write; each has its own outcome, and the same limit."""
        frames = {next_opaque(): b"number %d\r\n" % number for number in range(3)}
        outcomes: list[tuple[int, int]] = []

        def keep(status: int, body: bytes, opaque: int) -> None:
            outcomes.append((list(frames).index(opaque), status))

        self.connection.request_all(frames, keep, 3.0)
        self.assertEqual(b"".join(frames.values()), self.link.take())
        self.assertEqual(1, self.link.writes)
        self.link.receive(b"result 200 0 %d\r\n" % list(frames)[1])
        self.runtime.advance(2.9)
        self.assertEqual([(1, 200)], outcomes)
        self.runtime.advance(0.1)
        self.assertEqual([(1, 200), (0, TIMED_OUT), (2, TIMED_OUT)], outcomes)
        self.link.lose()
        del outcomes[:]
        self.connection.request_all(frames, keep, 3.0)
        self.assertEqual([], outcomes)
        self.connect()
        self.runtime.advance(5)
        self.assertEqual(b"", self.runtime.links[-1].take())
        self.assertEqual([(number, NOT_SENT) for number in range(3)], outcomes)


class ReplyLimitTests(ConnectionCase):
    """Replies that are too long end the connection, because nothing after them can be read."""

    settings = {"max_reply_line_bytes": 64, "max_reply_bytes": 2048}

    def test_longest(self) -> None:
        """As long as allowed."""
        opaque = self.ask(1)
        self.link.take()
        self.link.receive(b"value 2048 %d\r\n" % opaque + bytes(2048))
        self.assertEqual([(1, VALUE, bytes(2048))], self.outcomes)
        self.assertTrue(self.link.open)

    def test_body(self) -> None:
        """A byte longer."""
        opaque = self.ask(1)
        self.link.take()
        self.link.receive(b"value 2049 %d\r\n" % opaque)
        self.assertFalse(self.link.open)
        self.assertEqual([(1, LOST)], [each[:2] for each in self.outcomes])

    def test_line(self) -> None:
        """Without an end so far."""
        self.ask(1)
        self.link.take()
        self.link.receive(b"x" * 64)
        self.assertTrue(self.link.open)
        self.link.receive(b"x")
        self.assertFalse(self.link.open)


class LimitTests(ConnectionCase):
    """No answer in time."""

    def test_timeout(self) -> None:
        """At its time, whatever others have."""
        self.ask(1, 3.0)
        self.ask(2, 1.0)
        self.link.take()
        self.runtime.advance(0.99)
        self.assertEqual([], self.outcomes)
        self.runtime.advance(0.06)
        self.assertEqual([(2, TIMED_OUT, b"")], self.outcomes)
        self.runtime.advance(2)
        self.assertEqual([(2, TIMED_OUT, b""), (1, TIMED_OUT, b"")], self.outcomes)

    def test_one_timer(self) -> None:
        """However many requests, there is one timer."""
        for number in range(100):
            self.ask(number, 3.0 + number / 100)
        self.assertEqual(1, len(self.runtime.clock.getDelayedCalls()))

    def test_deadline_counts_from_its_turn(self) -> None:
        """A request made late after another has its whole time."""
        self.ask(1, 3.0)
        self.runtime.advance(2.5)
        self.ask(2, 3.0)
        self.runtime.advance(2.9)
        self.assertEqual([1], [number for number, _, _ in self.outcomes])
        self.runtime.advance(0.15)
        self.assertEqual([1, 2], [number for number, _, _ in self.outcomes])

    def test_late_reply(self) -> None:
        """A late reply is ignored."""
        opaque = self.ask(1, 1.0)
        self.link.take()
        self.runtime.advance(2)
        self.link.receive(b"result 200 0 %d\r\n" % opaque)
        self.assertEqual([(1, TIMED_OUT, b"")], self.outcomes)
        self.assertEqual(1, self.connection.unknown_replies)

    def test_wait_longer(self) -> None:
        """A request may be waited for again, for the time that is given, and no sweep comes before
        that."""
        told: list[tuple[int, bytes]] = []

        def waiter(status: int, body: bytes, opaque: int) -> None:
            told.append((status, body))

        opaque = self.ask(waiter=waiter)
        self.link.take()
        self.runtime.advance(3.05)
        for status in (TIMED_OUT, 200):
            self.connection.wait_longer(opaque, waiter, 2.0)
            self.runtime.advance(1.9)
            if status == 200:
                self.link.receive(b"result 200 0 %d\r\n" % opaque)
            else:
                self.assertEqual(1, len(told))
                self.runtime.advance(0.2)
        self.assertEqual([(TIMED_OUT, b""), (TIMED_OUT, b""), (200, b"")], told)

    def test_question_about_the_order(self) -> None:
        """Its time limit is that of statistics: a broker that never answers it holds up no end."""
        self.assertFalse(self.connection.keeps_order())
        self.link.take()
        idle: list[float] = []
        self.connection.on_idle(lambda: idle.append(self.runtime.seconds()))
        self.runtime.advance(2.9)
        self.assertEqual([], idle)
        self.runtime.advance(0.2)
        self.assertEqual(1, len(idle))

    def test_never_sent(self) -> None:
        """A request that the socket did not take in its time is not sent afterwards, and its
        outcome is known."""
        self.link.stall()
        self.ask(1, 1.0)
        self.ask(2, 9.0)
        self.runtime.advance(1.1)
        self.assertEqual([(1, NOT_SENT, b"")], self.outcomes)
        self.link.drain()
        self.assertEqual(1, self.link.take().count(b"\r\n"))

    def test_paused_deadline(self) -> None:
        """While the socket takes nothing requests still have their whole time."""
        self.link.stall()
        self.ask(1, 9.0)
        self.runtime.advance(5)
        self.ask(2, 5.0)
        self.runtime.advance(4.5)
        self.assertEqual([(1, NOT_SENT, b"")], self.outcomes)

    def test_waiter_closes_the_link(self) -> None:
        """A waiter of the sweep may do anything; everyone is told once."""
        self.ask(0, 1.0, lambda *_: self.connection.close())
        self.ask(1, 1.0)
        self.ask(2, 5.0)
        self.runtime.advance(1.1)
        self.assertEqual([1, 2], sorted(number for number, _, _ in self.outcomes))
        self.assertEqual([], self.runtime.clock.getDelayedCalls())


class LossTests(ConnectionCase):
    """The link ends."""

    def test_everyone_is_told_at_once(self) -> None:
        """All waiters are called: sent requests may have been executed, others were not."""
        self.ask(1)
        self.link.take()
        self.ask(2)
        self.link.lose("connection reset")
        reason = b"connection reset"
        self.assertEqual([(1, LOST, reason), (2, NOT_SENT, reason)], self.outcomes)
        self.assertFalse(self.connection.is_connected)
        self.assertEqual([self.connection], self.lost)
        self.assertEqual([f"Broker {URL}: connection reset"], self.runtime.log.texts("warn"))

    def test_next_link_starts_afresh(self) -> None:
        """Half a reply of the last link is forgotten."""
        self.link.receive(b"value 100 5\r\nhalf")
        self.link.lose()
        link = self.connect()
        opaque = self.ask(1)
        link.take()
        link.receive(b"result 200 0 %d\r\n" % opaque)
        self.assertEqual([(1, 200, b"")], self.outcomes)

    def test_garbage(self) -> None:
        """The link is closed at once; earlier replies count, all other waiters get an error."""
        first = self.ask(1)
        self.ask(2)
        self.link.take()
        self.link.receive(b"result 200 0 %d\r\nHTTP/1.1 400 Bad Request\r\n\r\n" % first)
        reason = b"no reply of a broker: b'HTTP/1.1 400 Bad Request'"
        self.assertEqual([(1, 200, b""), (2, LOST, reason)], self.outcomes)
        self.assertTrue(self.link.aborted)
        self.assertEqual(1, self.connection.garbage)
        self.assertIn("HTTP/1.1", self.runtime.log.texts("error")[0])
        self.assertEqual(1, len(self.lost))

    def test_garbage_after_the_end(self) -> None:
        """A waiter has closed the connection: what follows its reply is nobody's fault."""
        first = self.ask(waiter=lambda *_: self.connection.close())
        self.link.take()
        self.link.receive(b"result 200 0 %d\r\nresult 200 0 77\r\nnonsense\r\n" % first)
        self.assertEqual((0, 0), (self.connection.garbage, self.connection.unknown_replies))
        self.assertEqual([], self.runtime.log.texts("error"))

    def test_announced_too_much(self) -> None:
        """A body longer than ``max_reply_bytes`` is garbage before any of it is kept."""
        self.link.receive(b"value 2000000000 1\r\n")
        self.assertTrue(self.link.aborted)

    def test_waiter_raises(self) -> None:
        """The others are told nevertheless."""

        def bad(status: int, body: bytes, opaque: int) -> None:
            raise ZeroDivisionError("on purpose")

        self.ask(waiter=bad)
        self.ask(2)
        self.link.lose()
        self.assertEqual([2], [number for number, _, _ in self.outcomes])
        self.assertEqual(1, len(self.runtime.log.texts("failure")))

    def test_close(self) -> None:
        """Requests leave, waiters are told, and no error is logged."""
        self.ask(1)
        self.connection.close()
        self.assertEqual([(1, LOST, b"closed")], self.outcomes)
        self.assertEqual(1, self.link.written.count(b"version"))
        self.assertFalse(self.link.open)
        self.runtime.turn()
        self.assertEqual([], self.runtime.log.texts("warn"))
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    def test_states(self) -> None:
        """From one link to the next, and to the end; a socket that is gone is not cut."""
        states = [self.connection.state]

        def note() -> None:
            states.append(self.connection.state)

        self.link.lose()
        note()
        self.connection.cut()
        self.assertFalse(self.link.aborted)
        self.connect()
        self.connection.fail("on purpose")
        note()
        self.runtime.turn()
        note()
        self.connect()
        self.connection.close()
        note()
        self.runtime.turn()
        note()
        names = ["UP", "DOWN", "ENDING", "DOWN", "CLOSING", "CLOSED"]
        self.assertEqual(names, [each.name for each in states])

    def test_before_the_first_link(self) -> None:
        """There is no reason yet, and no socket that could be cut."""
        config = ClientConfig(broker=URL)
        self.connection = BrokerConnection(
            self.runtime, URL, config, self.runtime.log, self.lost.append
        )
        self.ask(1)
        self.connection.cut()
        self.runtime.turn()
        self.assertEqual([(1, NOT_SENT, b"")], self.outcomes)

    def test_closed_while_connecting(self) -> None:
        """A link that comes too late is cut."""
        self.link.lose()
        self.runtime.connect("host", 8123, self.connection, 1)
        self.connection.close()
        self.assertTrue(self.runtime.accept().aborted)
        self.assertFalse(self.connection.is_connected)
        self.assertEqual("CLOSED", self.connection.state.name)

    def test_ready(self) -> None:
        """True at once or when there is a link, False after the time or the end."""
        self.assertTrue(self.runtime.result(self.connection.ready(1)))
        self.link.lose()
        soon: Any = self.connection.ready(5)
        never: Any = self.connection.ready(1)
        self.runtime.advance(2)
        self.assertFalse(self.successResultOf(never))
        self.assertNoResult(soon)
        self.connect()
        self.assertTrue(self.successResultOf(soon))
        self.runtime.links[-1].lose()
        closed: Any = self.connection.ready(5)
        self.connection.close()
        self.assertFalse(self.successResultOf(closed))


class HeartbeatTests(ConnectionCase):
    """A broker that is silent."""

    def test_after_ten_seconds(self) -> None:
        """One ``version``, and the next ten seconds after its answer."""
        self.runtime.advance(9.9)
        self.assertEqual(b"", self.link.take())
        self.runtime.advance(0.2)
        self.assertTrue(self.link.answer(200, b"1.4").startswith(b"version "))
        self.runtime.advance(9.5)
        self.assertEqual(b"", self.link.take())
        self.runtime.advance(1)
        self.assertTrue(self.link.take().startswith(b"version "))

    def test_not_while_there_is_traffic(self) -> None:
        """Bytes of the broker's are sign enough."""
        for _ in range(10):
            self.runtime.advance(5)
            self.ask()
            self.assertEqual(1, self.link.answer(200).count(b"\r\n"))

    def test_three_failures(self) -> None:
        """Three heartbeats without an answer end the link; requests do not hide that."""
        for second in range(1, 24):
            self.runtime.advance(1)
            self.ask(second, 60)
        self.assertTrue(self.link.open)
        self.runtime.advance(2)
        self.assertFalse(self.link.open)
        self.assertTrue(self.link.aborted)
        self.assertEqual(23, len(self.outcomes))
        self.assertEqual([self.connection], self.lost)
        self.assertIn("3 heartbeats without an answer", self.runtime.log.texts("warn")[0])

    def beats(self, seconds: float) -> list[float]:
        """When heartbeats are sent within this time, in seconds from now."""
        link, began, found = self.runtime.links[-1], self.runtime.seconds(), []
        while self.runtime.seconds() - began < seconds:
            self.runtime.advance(0.25)
            lines = link.take().count(b"version ")
            found += [round(self.runtime.seconds() - began, 2)] * lines
        return found

    def sweeps(self) -> list[float]:
        """The times of the sweeps from now on; each wakes the process."""
        found: list[float] = []
        sweep = self.connection._sweeps._sweep
        self.connection._sweeps._sweep = lambda: (found.append(self.runtime.seconds()), sweep())
        return found

    def test_one_after_the_other(self) -> None:
        """The next one is sent when the time for an answer to the last is over, and after the third
        the link ends; in between nothing wakes the process."""
        sweeps = self.sweeps()
        self.assertEqual([10, 15, 20], self.beats(24.75))
        self.assertTrue(self.link.open)
        self.assertEqual([], self.beats(0.25))
        self.assertFalse(self.link.open)
        self.assertEqual([10, 15, 20, 25], sweeps)

    def test_only_one_at_a_time(self) -> None:
        """Sweeps for the limits of other requests send no further one meanwhile."""
        for limit in (11, 12, 16):
            self.ask(limit, limit)
        self.link.take()
        self.assertEqual([10, 15, 20], self.beats(24.75))
        self.assertEqual(3, len(self.outcomes))

    def test_answer_after_two_failures(self) -> None:
        """The count begins anew, ten seconds later."""
        self.assertEqual([10, 15], self.beats(19))
        self.runtime.advance(1.5)
        self.assertTrue(self.link.answer(200, b"1.4").startswith(b"version "))
        sweeps, began = self.sweeps(), self.runtime.seconds()
        self.assertEqual([10, 15, 20], self.beats(24.75))
        self.assertTrue(self.link.open)
        self.beats(0.25)
        self.assertFalse(self.link.open)
        limit = 4.5  # of the request that was answered
        self.assertEqual([limit, 10, 15, 20, 25], [each - began for each in sweeps])

    def test_next_link(self) -> None:
        """It begins anew; what the last one did not answer does not count."""
        self.assertEqual([10, 15, 20], self.beats(22))
        self.link.lose()
        self.assertEqual([], [each for each in self.runtime.log.texts() if "heartbeats" in each])
        self.connect()
        self.assertEqual([10, 15, 20], self.beats(24.75))
        self.assertTrue(self.runtime.links[-1].open)

    def test_traffic_moves_the_next_one(self) -> None:
        """Ten seconds of silence are counted from the last bytes."""
        self.runtime.advance(6)
        self.ask()
        self.link.answer(200)
        sweeps = self.sweeps()
        self.assertEqual([10], self.beats(12))
        self.assertLess(len(sweeps), 4)

    def test_late_answer(self) -> None:
        """Any received byte counts as an answer."""
        self.runtime.advance(23)
        self.link.receive(b"result 200 0 77\r\n")
        self.runtime.advance(10)
        self.assertTrue(self.link.open)

    def test_slow_body(self) -> None:
        """A long reply that trickles in keeps the link alive."""
        self.link.receive(b"value 1000 1\r\n")
        for _ in range(20):
            self.runtime.advance(9)
            self.link.receive(b"x")
        self.assertTrue(self.link.open)
        self.assertEqual(b"", self.link.take())

    def test_nobody_beats_while_we_do_not_read(self) -> None:
        """While reading is paused no heartbeat fails."""
        self.connection.pause_reading()
        sweeps = self.sweeps()
        self.runtime.advance(105)
        self.assertLess(len(sweeps), 12)
        self.assertTrue(self.link.open)
        self.assertEqual(b"", self.link.take())
        self.assertFalse(self.link.reading)
        self.connection.resume_reading()
        self.runtime.advance(9)
        self.assertEqual(b"", self.link.take())
        self.runtime.advance(22)
        self.assertFalse(self.link.open)

    def test_refused_heartbeat(self) -> None:
        """A refusal counts as an answer."""
        for _ in range(5):
            self.runtime.advance(10.1)
            self.link.answer(500, b"no")
        self.assertTrue(self.link.open)


class PatientHeartbeatTests(ConnectionCase):
    """More time for an answer than between two heartbeats."""

    settings = {"heartbeat_timeout_ms": 30_000}

    def test_answered_at_once(self) -> None:
        """The next one is sent ten seconds after the answer."""
        self.runtime.advance(10)
        for _ in range(3):
            self.assertTrue(self.link.answer(200, b"1.4").startswith(b"version "))
            self.runtime.advance(9.75)
            self.assertEqual(b"", self.link.take())
            self.runtime.advance(0.25)


class MarkTests(ConnectionCase):
    """Exactly so many bytes, in requests one by one and together."""

    settings = {"max_scheduled_written_bytes": WRITE_BYTES + 1000}

    def fill(self, length: int, at_once: bool) -> MemoryLink:
        """Make requests of so many bytes in all, over a link of their own that takes nothing."""
        link = self.connect()
        link.stall()
        frames = {next_opaque(): b"x" * 40, next_opaque(): b"x" * (length - 40)}
        if at_once:
            self.connection.request_all(frames, lambda *_: None, 3.0)
        else:
            for opaque, frame in frames.items():
                self.connection.request(opaque, frame, lambda *_: None, 3.0)
        return link

    def test_writable(self) -> None:
        """So many may wait for the socket; one more may not."""
        self.link.lose()
        for at_once in (False, True):
            for more in (0, 1):
                link = self.fill(WRITE_BYTES + 1000 + more, at_once)
                self.assertEqual(not more, self.connection.writable, (more, at_once))
                link.lose()

    def test_written_together(self) -> None:
        """So many wait for the end of the turn; with one more they leave at once."""
        self.link.lose()
        self.patch(MemoryLink, "stall", lambda link: None)
        for at_once in (False, True):
            for more in (0, 1):
                link = self.fill(WRITE_BYTES + more, at_once)
                self.assertEqual(more, link.writes, (more, at_once))
                link.lose()


class BackPressureTests(ConnectionCase):
    """A broker that does not read."""

    settings = {"max_scheduled_written_bytes": 100}

    def test_writable(self) -> None:
        """Above the mark ``writable`` is False, until the socket has taken the bytes."""
        self.runtime.result(self.connection.drained())
        self.link.stall()
        while self.connection.writable:
            self.ask()
        drained: Any = self.connection.drained()
        self.assertEqual(b"", self.link.take())
        self.assertNoResult(drained)
        self.link.drain()
        self.assertTrue(self.connection.writable)
        self.successResultOf(drained)
        self.assertGreater(len(self.link.take()), 100)

    def test_socket_that_is_full_again(self) -> None:
        """It has taken the waiting bytes only: waiters for room keep waiting."""
        self.link.stall()
        while self.connection.writable:
            self.ask()
        drained: Any = self.connection.drained()
        write = self.link.write

        def full(data: bytes) -> None:
            write(data)
            self.connection.pause_sending()

        self.patch(self.link, "write", full)
        self.connection.resume_sending()
        self.assertFalse(self.connection.writable)
        self.assertNoResult(drained)
        self.connection.resume_sending()
        self.assertTrue(self.connection.writable)
        self.successResultOf(drained)

    def test_much_in_one_turn(self) -> None:
        """What is more than a write's worth does not wait for the end of the turn."""
        while not self.link.writes:
            self.ask()
        self.assertGreater(len(self.link.written), 100)
        self.assertTrue(self.connection.writable)
        self.ask()
        self.runtime.turn()
        self.assertEqual(2, self.link.writes)

    def test_much_in_one_turn_that_is_not_taken(self) -> None:
        """The mark counts within a turn as well."""
        self.link.stall()
        while self.connection.writable:
            self.ask()
        self.assertEqual(0, self.link.writes)

    def test_writable_already(self) -> None:
        """A wait on a writable connection ends at once."""
        self.runtime.result(self.connection.drained())

    def test_lost(self) -> None:
        """No caller waits for a lost link."""
        self.link.stall()
        while self.connection.writable:
            self.ask()
        drained: Any = self.connection.drained()
        self.link.lose()
        self.successResultOf(drained)
        self.assertTrue(self.connection.writable)
        link = self.connect()
        self.ask(timeout=1)
        self.assertEqual(0, link.writes, "bytes of the last link count")
        self.assertEqual(1, link.take().count(b"\r\n"))

    def test_not_sent_in_time(self) -> None:
        """Requests that were taken out of the queue do not count any more."""
        self.link.stall()
        frames = {next_opaque(): b"x" * 60 for _ in range(4)}
        for opaque, frame in frames.items():
            self.connection.request(opaque, frame, lambda *_: None, 1.0)
            self.runtime.advance(1.1)
            self.assertTrue(self.connection.writable)

    def test_full_at_its_end(self) -> None:
        """A link that was given up with a full queue does not stall the next one."""
        self.connection.fail("on purpose")
        self.link.stall()
        self.runtime.turn()
        link = self.connect()
        self.ask()
        self.assertEqual(1, link.take().count(b"\r\n"))

    def test_pause_reading_survives_the_link(self) -> None:
        """A new link is paused as well."""
        self.connection.pause_reading()
        self.link.lose()
        link = self.connect()
        self.assertFalse(link.reading)
        self.connection.resume_reading()
        self.assertTrue(link.reading)
