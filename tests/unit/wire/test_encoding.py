"""Tests of ``metamorphosis.wire.encoding``."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import LocalProtocolError
from metamorphosis.wire.commands import (
    BooleanCommand,
    Command,
    DataCommand,
    GetCommand,
    OffsetCommand,
    PutCommand,
    StatsCommand,
    SyncCommand,
    TransactionCommand,
    TransactionType,
    VersionCommand,
)
from metamorphosis.wire.encoding import encode, encode_head, result, value_head
from metamorphosis.wire.transactionids import LocalTransactionId, XATransactionId
from tests.support.feeding import Outcome, decoded, generated
from tests.support.wirevectors import CANONICAL, READ_ONLY, local, transaction

PUT = PutCommand("t", 0, b"x", 0, -1, None, 1)
SYNC = SyncCommand("t", 0, b"x", 0, 9, -1, 1)
GET = GetCommand("t", "g", 0, 0, 1, 1)
OFFSET = OffsetCommand("t", "g", 0, 0, 1)
BEGIN = TransactionCommand(local(1), "s", TransactionType.BEGIN, 1)

#: name, command, part of the error text
UNSENDABLE: list[tuple[str, Command, str]] = [
    ("topic with a space", replace(PUT, topic="a b"), "topic 'a b'"),
    ("topic with a line end", replace(PUT, topic="a\r\nquit\r\n"), "topic"),
    ("topic that is no text", replace(PUT, topic="\ud800"), "surrogate"),
    ("put partition", replace(PUT, partition=1 << 31), "partition 2147483648"),
    ("put flag", replace(PUT, flag=-(1 << 31) - 1), "flag"),
    ("put checksum", replace(PUT, checksum=0xFFFFFFFF), "checksum"),
    ("put opaque", replace(PUT, opaque=1 << 31), "opaque"),
    ("sync topic", replace(SYNC, topic=" "), "topic"),
    ("sync partition", replace(SYNC, partition=1 << 31), "partition"),
    ("sync flag", replace(SYNC, flag=1 << 31), "flag"),
    ("sync id", replace(SYNC, message_id=1 << 63), "message id"),
    ("sync checksum", replace(SYNC, checksum=1 << 31), "checksum"),
    ("sync opaque", replace(SYNC, opaque=1 << 31), "opaque"),
    ("get topic", replace(GET, topic="a b"), "topic"),
    ("get group", replace(GET, group="a b"), "group"),
    ("get partition", replace(GET, partition=1 << 31), "partition"),
    ("get offset", replace(GET, offset=1 << 63), "offset"),
    ("get max size", replace(GET, max_size=1 << 31), "max size"),
    ("get opaque", replace(GET, opaque=1 << 31), "opaque"),
    ("get wait", replace(GET, wait_ms=10**9), "wait"),
    ("get wait below 0", replace(GET, wait_ms=-1), "wait"),
    ("offset topic", replace(OFFSET, topic="a b"), "topic"),
    ("offset group", replace(OFFSET, group="a b"), "group"),
    ("offset partition", replace(OFFSET, partition=1 << 31), "partition"),
    ("offset offset", replace(OFFSET, offset=-(1 << 63) - 1), "offset"),
    ("offset opaque", replace(OFFSET, opaque=1 << 31), "opaque"),
    ("version opaque", VersionCommand(1 << 31), "opaque"),
    ("stats item", StatsCommand("a b", 1), "item"),
    ("stats opaque", StatsCommand(None, 1 << 31), "opaque"),
    ("transaction session", replace(BEGIN, session_id="a b"), "session id"),
    ("transaction timeout", replace(BEGIN, timeout=1 << 31), "timeout"),
    ("transaction qualifier", replace(BEGIN, unique_qualifier="a b"), "unique qualifier"),
    ("transaction opaque", replace(BEGIN, opaque=1 << 31), "opaque"),
    ("local key above int32", replace(BEGIN, transaction_id=local(1 << 31)), "number"),
    ("local key of an IPv6 host", replace(BEGIN, transaction_id=local(1, "::1-7")), "colon"),
    ("local key with a space", replace(PUT, transaction_id=local(1, "a b")), "transaction key"),
    (
        "XA key above int32",
        replace(PUT, transaction_id=XATransactionId(1 << 31, b"", b"", "u")),
        "format",
    ),
    (
        "XA key with a colon",
        replace(PUT, transaction_id=XATransactionId(1, b"", b"", "u:v")),
        "colon",
    ),
    (
        "XA key with a space",
        replace(PUT, transaction_id=XATransactionId(1, b"", b"", "u v")),
        "transaction key",
    ),
    ("result status", BooleanCommand(1 << 31, None, 1), "status"),
    ("result opaque", BooleanCommand(200, None, 1 << 31), "opaque"),
    ("value opaque", DataCommand(b"", 1 << 31), "opaque"),
]


@generated("writes", "The command is written as '{}' is, byte for byte.", CANONICAL)
class CanonicalTests(SynchronousTestCase):
    """The other direction of the golden frames."""

    def check(self, frame: bytes, command: Command) -> None:
        """In one piece, and as head and body."""
        self.assertEqual(frame, encode(command))
        head = encode_head(command)
        self.assertTrue(frame.startswith(head))
        self.assertEqual(b"\r\n", head[-2:])


@generated("rewrites", "What was read from '{}' is written so that it reads the same.", READ_ONLY)
class RewrittenTests(SynchronousTestCase):
    """Frames of other forms turn canonical when they are passed on."""

    def check(self, _: bytes, command: Command) -> None:
        """Reading what was written gives the command again, but for what means the same."""
        [again] = decoded([encode(command)]).commands
        if isinstance(command, StatsCommand) and not command.item:
            command = replace(command, item="")
        if isinstance(command, TransactionCommand) and command.timeout < 0:
            command = replace(command, timeout=0)
        if isinstance(command, TransactionCommand) and command.unique_qualifier == "":
            command = replace(command, unique_qualifier=None)
        self.assertEqual(command, again)


@generated("refuses", "What cannot be sent ({}) is refused here, not by the peer.", UNSENDABLE)
class UnsendableTests(SynchronousTestCase):
    """Commands that would be read as something else, or close the connection."""

    def check(self, command: Command, text: str) -> None:
        """The error names the field."""
        error = self.assertRaises(LocalProtocolError, encode, command)
        self.assertIn(text, str(error))


class Long(bytes):
    """A body of more bytes than a test should have in memory."""

    def __len__(self) -> int:
        return 1 << 31


class LengthTests(SynchronousTestCase):
    """A length is a 32-bit number."""

    def test_body_that_is_too_long(self) -> None:
        """It is refused before a frame is made of it that no peer can read."""
        for command in (PUT, SYNC):
            error = self.assertRaises(
                LocalProtocolError, encode_head, replace(command, body=Long(b"x"))
            )
            self.assertIn("body of 2147483648 bytes", str(error))


class TransactionFormTests(SynchronousTestCase):
    """Which of the optional fields are written."""

    def test_no_timeout_when_it_is_zero_or_less(self) -> None:
        """As the Java client does."""
        for timeout in (0, -1):
            self.assertEqual(
                b"transaction TX:sessionId:99 sessionId BEGIN 100\r\n",
                encode(transaction(TransactionType.BEGIN, timeout)),
            )

    def test_no_timeout_unless_one_is_given(self) -> None:
        """A begin that names none has none."""
        self.assertEqual(b"transaction TX:sessionId:1 s BEGIN 1\r\n", encode(BEGIN))

    def test_no_blank_qualifier(self) -> None:
        """As the Java client does."""
        for blank in ("", " ", "\t"):
            self.assertEqual(
                b"transaction TX:sessionId:99 sessionId BEGIN 3 100\r\n",
                encode(transaction(TransactionType.BEGIN, 3, blank)),
            )

    def test_qualifier_of_digits_is_not_read_as_a_timeout(self) -> None:
        """RECOVER of the qualifier 99 asks for that one's transactions only."""
        command = transaction(TransactionType.RECOVER, 0, "99")
        frame = encode(command)
        self.assertEqual(b"transaction TX:sessionId:99 sessionId RECOVER 0 99 100\r\n", frame)
        self.assertEqual(Outcome([command]), decoded([frame]))

    def test_keys_are_canonical(self) -> None:
        """XA keys are written in lower case hex whatever they were read from."""
        self.assertEqual(
            b"put t 0 1 0 -1 XID:-1:ab00:: 1\r\nx",
            encode(replace(PUT, transaction_id=XATransactionId(-1, b"\xab\0", b"", ""))),
        )
        self.assertEqual(
            b"put t 0 1 0 -1 TX::-1 1\r\nx",
            encode(replace(PUT, transaction_id=LocalTransactionId("", -1))),
        )


class QuickFormTests(SynchronousTestCase):
    """The functions of the broker's reply path."""

    def test_result_is_the_frame_of_a_boolean_command(self) -> None:
        """Both ways of writing a reply agree."""
        for text in (b"not found", b"\r\n", "线程池繁忙".encode()):
            self.assertEqual(encode(BooleanCommand(404, text, -7)), result(404, -7, text))

    def test_result_without_text(self) -> None:
        """None and the empty texts have length 0 and no body."""
        for text in (None, b"", ""):
            self.assertEqual(b"result 200 0 5\r\n", result(200, 5, text))
        self.assertEqual(b"result 200 0 5\r\n", result(200, 5))

    def test_result_counts_bytes(self) -> None:
        """The length of a text that is not ASCII is not its number of characters."""
        self.assertEqual(
            b"result 503 15 1\r\n" + "线程池繁忙".encode(), result(503, 1, "线程池繁忙")
        )

    def test_result_of_any_text(self) -> None:
        """A reply never fails over its text: half a surrogate pair turns into a question mark."""
        self.assertEqual(b"result 500 1 1\r\n?", result(500, 1, "\ud800"))

    def test_value_head_is_the_line_of_a_data_command(self) -> None:
        """The body goes out separately, by ``sendfile``."""
        self.assertEqual(encode_head(DataCommand(bytes(100), -1)), value_head(100, -1))
        self.assertEqual(b"value 100 -1\r\n", value_head(100, -1))
