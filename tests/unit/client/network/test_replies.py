"""Bytes of a broker -> replies, whatever the chunks; statuses -> errors."""

from __future__ import annotations

import gc
import random
import sys

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.network import replies as module
from metamorphosis.client.network.opaques import BEYOND, FIRST, next_opaque
from metamorphosis.client.network.replies import (
    LONG_BYTES,
    LOST,
    NOT_SENT,
    TIMED_OUT,
    VALUE,
    Reply,
    ReplyReader,
    broker_error,
    error_of,
)
from metamorphosis.errors import (
    BadRequest,
    BrokerError,
    ConnectionLost,
    Forbidden,
    GatewayTimeout,
    InternalServerError,
    MetaQError,
    Moved,
    NotConnected,
    NotFound,
    RequestTimeout,
    SendTimeout,
    ServiceUnavailable,
)
from metamorphosis.native import compiled


def read(chunks: list[bytes]) -> tuple[list[Reply], str | None]:
    """Everything a reader makes of the chunks."""
    reader = ReplyReader(100, 10_000)
    replies = [reply for chunk in chunks for reply in reader.receive(chunk)]
    return replies, reader.fault


class ReplyReaderTests(SynchronousTestCase):
    """One chunk, many chunks, garbage."""

    def test_frames_of_a_chunk(self) -> None:
        """Results and values with and without body, in order."""
        data = b"result 200 0 -5\r\nvalue 3 7\r\nabcresult 404 2 8\r\nno"
        expected = [(200, b"", -5), (VALUE, b"abc", 7), (404, b"no", 8)]
        self.assertEqual((expected, None), read([data]))

    def test_body_may_look_like_a_reply(self) -> None:
        """Bodies are not looked into."""
        body = b"result 200 0 1\r\n"
        data = b"value %d 2\r\n%b" % (len(body), body)
        self.assertEqual(([(VALUE, body, 2)], None), read([data]))

    def test_any_cut(self) -> None:
        """Cut anywhere, and into single bytes, it is the same."""
        data = b"result 200 5 1\r\nhellovalue 0 2\r\nvalue 4 -3\r\n\r\n\r\nresult 301 1 4\r\n9"
        expected = read([data])
        self.assertEqual(4, len(expected[0]))
        for cut in range(len(data)):
            self.assertEqual(expected, read([data[:cut], data[cut:]]), cut)
        self.assertEqual(expected, read([data[i : i + 1] for i in range(len(data))]))

    def test_random_cuts(self) -> None:
        """Long bodies over many chunks."""
        chance = random.Random(5)
        for _ in range(50):
            frames, expected = b"", []
            for opaque in range(20):
                body = chance.randbytes(chance.choice([0, 1, 50, 3000]))
                frames += b"value %d %d\r\n%b" % (len(body), opaque, body)
                expected.append((VALUE, body, opaque))
            chunks = []
            while frames:
                size = chance.choice([1, 2, 10, 1000, 5000])
                chunks.append(frames[:size])
                frames = frames[size:]
            self.assertEqual((expected, None), read(chunks))

    def test_room(self) -> None:
        """Bytes of a long body may be put right where they belong, in any mixture with chunks."""
        length = 3 * LONG_BYTES
        body = random.Random(7).randbytes(length)
        reader = ReplyReader(100, length)
        self.assertIsNone(reader.room())
        self.assertEqual([], reader.receive(b"value %d 5\r\n" % length + body[:10]))
        room = reader.room()
        assert room is not None
        self.assertEqual(length - 10, len(room))
        room[:100] = body[10:110]
        self.assertEqual([], reader.received(100))
        self.assertEqual([], reader.receive(body[110:2000]))
        room = reader.room()
        assert room is not None
        room[:] = body[2000:]
        ((status, got, opaque),) = reader.received(len(room))
        self.assertEqual((VALUE, 5), (status, opaque))
        self.assertIs(bytes, type(got))
        self.assertTrue(got == body)
        self.assertIsNone(reader.room())
        self.assertEqual([(200, b"", 6)], reader.receive(b"result 200 0 6\r\n"))

    def test_room_is_held(self) -> None:
        """Holders of the buffer, such as event loops, keep it, whatever becomes of the reply."""
        for part in (compiled, None):
            self.patch(module, "compiled", part)
            reader = ReplyReader(100, 1 << 20)
            reader.receive(b"value %d 7\r\n" % LONG_BYTES)
            room = reader.room()
            assert room is not None
            room[:] = bytes(range(256)) * (LONG_BYTES // 256)
            ((_, body, _),) = reader.received(len(room))
            self.assertEqual(room, body)
            del reader, body
            gc.collect()
            self.assertEqual(bytes(range(256)), room[-256:])

    def test_garbage_with_room(self) -> None:
        """A reader that dies in the middle of a body, in a cycle, is collected without a word."""
        said: list[object] = []
        self.patch(sys, "unraisablehook", said.append)
        for _ in range(20):
            reader = ReplyReader(100, 1 << 20)
            reader.receive(b"value %d 7\r\n" % (2 * LONG_BYTES))
            cycle: list[object] = [reader, reader.room()]
            cycle.append(cycle)
            del reader, cycle
            gc.collect()
        self.assertEqual([], said)

    def test_no_room_for_little(self) -> None:
        """The end of a body is received together with what follows it."""
        reader = ReplyReader(100, 10 * LONG_BYTES)
        reader.receive(b"value %d 5\r\n" % LONG_BYTES)
        self.assertIsNotNone(reader.room())
        reader.receive(b"x")
        self.assertIsNone(reader.room())
        replies = reader.receive(bytes(LONG_BYTES - 1) + b"result 200 0 6\r\n")
        self.assertEqual([5, 6], [opaque for _, _, opaque in replies])

    def test_bodies_are_their_own(self) -> None:
        """What was delivered does not change when more comes."""
        reader = ReplyReader(100, 1000)
        reader.receive(b"value 4 1\r\nab")
        ((_, first, _),) = reader.receive(b"cd")
        reader.receive(b"value 4 1\r\nxy")
        reader.receive(b"zz")
        self.assertEqual(b"abcd", first)

    def test_garbage(self) -> None:
        """What no broker sends is a fault; the replies before it count."""
        for garbage in (
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            b"result 200 0\r\n",
            b"result 200 0 1 2\r\n",
            b"result x 0 1\r\n",
            b"result -1 0 1\r\n",
            b"result 200 -1 1\r\n",
            b"value -1 1\r\n",
            b"value 5\r\n",
            b"values 1 1\r\nx",
            b"value 1 1 1\r\n",
            b"value 10001 1\r\n",
            b"put t 0 0 0 1\r\n",
            b"\x16\x03\x01" + b"\xff" * 200,
            b"x" * 101,
            b"value " + b"9" * 5000 + b" 1\r\n",
        ):
            replies, fault = read([b"result 200 0 1\r\n" + garbage])
            self.assertEqual([(200, b"", 1)], replies, garbage)
            self.assertIn("no reply of a broker", fault or "", garbage)
            self.assertLess(len(fault or ""), 500)

    def test_empty_line_at_first(self) -> None:
        """It is garbage as well."""
        self.assertIn("no reply of a broker: b''", read([b"\r\n"])[1] or "")

    def test_nothing_after_a_fault(self) -> None:
        """What follows garbage is not trusted."""
        reader = ReplyReader(100, 100)
        self.assertEqual([], reader.receive(b"nonsense\r\nresult 200 0 1\r\n"))
        self.assertEqual([], reader.receive(b"result 200 0 1\r\n"))
        self.assertIsNotNone(reader.fault)

    def test_limits_are_inclusive(self) -> None:
        """The longest line and body allowed are read."""
        data = b"value 10000 1\r\n" + bytes(10_000)
        self.assertEqual(([(VALUE, bytes(10_000), 1)], None), read([data]))
        self.assertEqual(([], None), read([b"r" * 100]))


class PureReplyReaderTests(ReplyReaderTests):
    """The same without the part in C."""

    def setUp(self) -> None:
        self.patch(module, "compiled", None)


class ErrorTests(SynchronousTestCase):
    """What a status is to the user."""

    def test_refusals(self) -> None:
        """Each status of the wire has its class, with the broker's text."""
        for status, expected in (
            (301, Moved),
            (400, BadRequest),
            (403, Forbidden),
            (404, NotFound),
            (500, InternalServerError),
            (503, ServiceUnavailable),
            (504, GatewayTimeout),
            (999, InternalServerError),
        ):
            error = error_of(status, b"the text", "put")
            self.assertIs(expected, type(error))
            self.assertIsInstance(error, BrokerError)
            self.assertEqual("the text", str(error))

    def test_refusal_without_text(self) -> None:
        """The status is the text, as with the original's 403."""
        self.assertEqual("403", str(broker_error(403, b"")))

    def test_text_that_is_no_text(self) -> None:
        """Malformed UTF-8 makes no second error."""
        self.assertEqual("a\ufffd", str(broker_error(500, b"a\xff")))

    def test_own_statuses(self) -> None:
        """What happened on this side says whether the outcome is known and a retry makes sense."""
        cases: list[tuple[int, type[MetaQError], bool]] = [
            (NOT_SENT, NotConnected, True),
            (LOST, ConnectionLost, False),
            (TIMED_OUT, RequestTimeout, False),
        ]
        for status, expected, known in cases:
            error = error_of(status, b"", "put of topic t")
            self.assertIs(expected, type(error))
            self.assertIn("put of topic t", str(error))
            self.assertNotIn("(", str(error), "there is no reason")
            self.assertIs(True, error.retriable)
            self.assertIs(known, error.outcome_known)

    def test_reason(self) -> None:
        """Why there is no connection stands in the text; what a late answer holds does not."""
        reason = b"Connection refused"
        self.assertIn("no connection (Connection refused)", str(error_of(NOT_SENT, reason, "x")))
        self.assertIn("answer (Connection refused)", str(error_of(LOST, reason, "x")))

    def test_send_timeout_is_a_request_timeout(self) -> None:
        """Catching one error catches the other."""
        self.assertTrue(issubclass(SendTimeout, RequestTimeout))


class OpaqueTests(SynchronousTestCase):
    """Request numbers."""

    def test_consecutive(self) -> None:
        """One after the other, in the range of the original."""
        first = next_opaque()
        self.assertEqual(first + 1, next_opaque())
        self.assertLessEqual(FIRST, first)
        self.assertEqual((-2147483648, 2147483637), (FIRST, BEYOND))
