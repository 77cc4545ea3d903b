"""The other broker: connection, questions, and everything that an answer can be."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.network.opaques import next_opaque
from metamorphosis.client.network.replies import LOST, NOT_SENT
from metamorphosis.errors import (
    OffsetTooSmall,
    PeerError,
    PeerMisbehaved,
    PeerRefused,
    PeerUnreachable,
)
from metamorphosis.replication.logs import LogEnds
from metamorphosis.replication.peer import Absent, Heartbeats, Moved, Peer, PeerLog
from metamorphosis.testing.runtime import MemoryLink, MemoryRuntime, opaques_of

T = TypeVar("T")
URL = "meta://master:8123"


class PeerCase(SynchronousTestCase):
    """A peer in memory; ``link`` is the other broker's end."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.peer = Peer(self.runtime, URL)
        self.changes: list[bool] = []
        self.peer.on_change(self.changes.append)
        self.peer.start()

    def connect(self) -> MemoryLink:
        """The next attempt succeeds."""
        return self.runtime.accept("master:8123")

    def ask(self, question: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Begin to ask."""
        asked = self.runtime.start(question)
        self.runtime.turn()
        return asked

    def answer(self, link: MemoryLink, *answers: tuple[int, bytes]) -> bytes:
        """Answer the requests that were written, one after the other; gives what was written."""
        written = link.take()
        for opaque, (status, body) in zip(opaques_of(written), answers, strict=True):
            head = b"value" if status == 0 else b"result %d" % status
            link.receive(b"%b %d %d\r\n%b" % (head, len(body), opaque, body))
        return written


class ConnectionTests(PeerCase):
    """It comes, goes and comes back."""

    def test_connected_and_lost(self) -> None:
        """Both are told, and a lost connection is made again for ever."""
        self.assertFalse(self.peer.is_connected)
        for _ in range(10):
            link = self.connect()
            self.assertTrue(self.peer.is_connected)
            link.lose("reset")
            self.assertFalse(self.peer.is_connected)
            self.assertEqual("reset", self.peer.fault and self.peer.fault.reason)
            self.runtime.advance(2)
        self.assertEqual([True, False] * 10, self.changes)

    def test_refused_for_long(self) -> None:
        """Every attempt is followed by another within 2 s."""
        self.runtime.refuse_all("Connection refused", 300)
        self.assertEqual([], self.changes)
        self.runtime.advance(2)
        self.connect()
        self.assertEqual([True], self.changes)

    def test_loss_is_told_after_the_waiters(self) -> None:
        """What was under way has its end before ``on_change`` is called."""
        told: list[object] = []
        link = self.connect()
        self.peer.on_change(told.append)
        opaques = [next_opaque(), next_opaque()]
        for opaque in opaques:
            frame = b"version %d\r\n" % opaque
            self.peer.request(opaque, frame, lambda status, *_: told.append(status), 5)
            if opaque is opaques[0]:
                link.take()
        link.lose()
        self.assertEqual([LOST, NOT_SENT, False], told)

    def test_silent_line(self) -> None:
        """A line that swallows everything is given up within seconds."""
        link = self.connect()
        asked = self.ask(self.peer.read("t", 0, "g", 0, 100))
        self.runtime.advance(6.5)
        self.assertFalse(link.open)
        self.failureResultOf(asked, PeerUnreachable)
        self.assertEqual([True, False], self.changes)

    def test_patience_of_the_heartbeat(self) -> None:
        """A role says how long a silent peer is waited for."""
        peer = Peer(self.runtime, "meta://other:1", Heartbeats(20_000, 10_000, 3))
        peer.start()
        link = self.runtime.accept("other:1")
        self.runtime.advance(49)
        self.assertTrue(link.open)
        self.runtime.advance(2)
        self.assertFalse(link.open)

    def test_close(self) -> None:
        """The socket is closed, and no attempt follows."""
        link = self.connect()
        asked = self.ask(self.peer.version())
        self.runtime.result(self.peer.close())
        self.assertFalse(link.open)
        self.failureResultOf(asked, PeerUnreachable)
        self.runtime.advance(10)
        self.assertEqual([], self.runtime.attempts)

    def test_not_started(self) -> None:
        """Before ``start`` no connection is made."""
        peer = Peer(self.runtime, URL)
        self.assertRaises(PeerUnreachable, self.runtime.run, peer.version())
        self.assertFalse(peer.is_connected)


class QuestionTests(PeerCase):
    """What is asked, and what comes of each kind of answer."""

    def setUp(self) -> None:
        super().setUp()
        self.link = self.connect()

    def outcome(self, question: Coroutine[Any, Any, T], *answers: tuple[int, bytes]) -> T:
        """Of a question that is answered so."""
        asked = self.ask(question)
        self.written = self.answer(self.link, *answers)
        return self.runtime.result(asked)

    def lines(self) -> list[bytes]:
        """What was asked, without opaques."""
        return [line.rpartition(b" ")[0] for line in self.written.split(b"\r\n") if line]

    def test_ends(self) -> None:
        """Both ends are asked for in one write."""
        found = self.outcome(self.peer.ends("t", 3, "g"), (200, b"1000"), (200, b"5000"))
        self.assertEqual(LogEnds(1000, 5000), found)
        self.assertEqual([b"offset t g 3 0", b"offset t g 3 9223372036854775807"], self.lines())
        self.assertEqual(1, self.link.writes)

    def test_ends_of_an_absent_partition(self) -> None:
        """404 is not an error, and proves nothing."""
        self.assertIsNone(self.outcome(self.peer.ends("t", 3, "g"), (404, b"no"), (404, b"no")))

    def test_ends_of_a_partition_that_appears(self) -> None:
        """It comes into being between the two: as if it were not there yet."""
        self.assertIsNone(self.outcome(self.peer.ends("t", 3, "g"), (404, b"no"), (200, b"20")))

    def test_ends_that_are_refused(self) -> None:
        """Both questions fail, and one error is told."""
        question = self.peer.ends("t", 3, "g")
        self.assertRaises(PeerRefused, self.outcome, question, (500, b"no"), (500, b"no"))
        asked = self.ask(self.peer.ends("t", 3, "g"))
        self.link.lose()
        self.failureResultOf(asked, PeerUnreachable)

    def test_impossible_ends(self) -> None:
        """A log that ends before it begins."""
        question = self.peer.ends("t", 3, "g")
        self.assertRaises(PeerMisbehaved, self.outcome, question, (200, b"20"), (200, b"10"))

    def test_ends_that_are_no_numbers(self) -> None:
        """No digits, or more than an offset can be."""
        for body in (b"", b"-1", b"1 0", b"9223372036854775808", b"9" * 5000, "٣".encode()):
            question = self.peer.ends("t", 3, "g")
            self.assertRaises(PeerMisbehaved, self.outcome, question, (200, body), (200, b"10"))

    def test_read(self) -> None:
        """The three sensible answers of a ``get``."""
        question = self.peer.read("t", 0, "g", 7, 100)
        self.assertEqual(b"record", self.outcome(question, (0, b"record")))
        self.assertEqual([b"get t g 0 7 100"], self.lines())
        absent = self.outcome(self.peer.read("t", 0, "g", 7, 100), (404, b"nothing"))
        self.assertEqual(Absent(), absent)
        moved = self.outcome(self.peer.read("t", 0, "g", 7, 100), (301, b"1000"))
        self.assertEqual(Moved(1000), moved)

    def test_read_that_waits(self) -> None:
        """The broker may hold it, and its answer is waited for longer."""
        asked = self.ask(self.peer.read("t", 0, "g", 7, 100, wait_ms=30_000))
        written = self.link.take()
        self.assertTrue(written.endswith(b" 30000\r\n"), written)
        (opaque,) = opaques_of(written)
        for _ in range(39):
            self.runtime.advance(1)
            self.link.answer(200, b"1.4.6.2")  # heartbeats
        self.assertNoResult(asked)
        self.link.receive(b"value 3 %d\r\nabc" % opaque)
        self.assertEqual(b"abc", self.successResultOf(asked))

    def test_read_of_too_much(self) -> None:
        """More than was asked for, or nothing, is not an answer of a broker."""
        for body in (b"x" * 101, b""):
            question = self.peer.read("t", 0, "g", 7, 100)
            self.assertRaises(PeerMisbehaved, self.outcome, question, (0, body))

    def test_refusals(self) -> None:
        """Status and text of what the broker refuses."""
        question = self.peer.read("t", 0, "g", 7, 100)
        error = self.assertRaises(PeerRefused, self.outcome, question, (403, b"closed"))
        self.assertEqual((403, "closed"), (error.status, error.text))
        self.assertIn("meta://master:8123: get t 0 7 was answered 403 closed", str(error))
        self.assertRaises(PeerRefused, self.outcome, self.peer.config_file(), (500, b"no file"))

    def test_success_in_the_wrong_place(self) -> None:
        """A ``result 200`` for a ``get``, a ``value`` for anything else."""
        self.assertRaises(
            PeerRefused, self.outcome, self.peer.read("t", 0, "g", 7, 100), (200, b"hm")
        )
        self.assertRaises(PeerRefused, self.outcome, self.peer.config_file(), (0, b"hm"))

    def test_config_file(self) -> None:
        """The bytes as they are."""
        content = "[system]\r\n; 中\n".encode("gbk")
        self.assertEqual(content, self.outcome(self.peer.config_file(), (200, content)))
        self.assertEqual([b"stats config"], self.lines())

    def test_version(self) -> None:
        """Its text."""
        self.assertEqual("1.4.6.2", self.outcome(self.peer.version(), (200, b"1.4.6.2")))

    def test_no_answer(self) -> None:
        """The question ends when its time is over, though the connection lives."""
        asked = self.ask(self.peer.config_file())
        (opaque,) = opaques_of(self.link.take())
        for _ in range(6):
            self.runtime.advance(1)
            self.link.answer(200, b"1.4.6.2")
        failure = self.failureResultOf(asked, PeerUnreachable)
        self.assertIn("no answer in time", str(failure.value))
        self.link.receive(b"result 200 0 %d\r\n" % opaque)  # a late one goes nowhere
        self.assertTrue(self.peer.is_connected)

    def test_garbage(self) -> None:
        """Bytes that are not a reply end the connection, and another is made."""
        asked = self.ask(self.peer.version())
        self.link.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.failureResultOf(asked, PeerUnreachable)
        self.assertFalse(self.peer.is_connected)
        self.runtime.advance(2)
        self.connect()
        self.assertEqual([True, False, True], self.changes)

    def test_log_reader(self) -> None:
        """A partition as what ``compare_tail`` reads."""
        log = PeerLog(self.peer, "t", 0, "g")
        self.assertEqual(LogEnds(5, 9), self.outcome(log.ends(), (200, b"5"), (200, b"9")))
        self.assertEqual(b"abcd", self.outcome(log.read(5, 4), (0, b"abcd")))
        self.assertEqual(b"", self.outcome(log.read(9, 4), (404, b"")))
        self.assertEqual(b"", self.outcome(log.read(12, 4), (301, b"9")))
        error = self.assertRaises(OffsetTooSmall, self.outcome, log.read(3, 4), (301, b"5"))
        self.assertEqual(5, error.min_offset)

    def test_errors_have_one_base(self) -> None:
        """So that a role can try again whatever failed."""
        for error in (PeerUnreachable, PeerRefused, PeerMisbehaved):
            self.assertTrue(issubclass(error, PeerError))
