"""Tests of the values of the wire: commands, transaction ids, numbers, status codes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import BROKER_ERRORS, LocalProtocolError, RemoteProtocolError
from metamorphosis.wire.commands import DataCommand, PutCommand, QuitCommand, VersionCommand
from metamorphosis.wire.numbers import check_int32, check_int64, parse_int32, parse_int64, shown
from metamorphosis.wire.status import Status
from metamorphosis.wire.transactionids import (
    NULL_TRANSACTION_ID,
    LocalTransactionId,
    NullTransactionId,
    XATransactionId,
    parse_transaction_id,
)
from tests.support.feeding import generated

INT32 = ("-2147483648", "2147483647", "0", "-0", "+7", "007", "-007", "+" + "0" * 5000 + "1")
INT64 = ("-9223372036854775808", "9223372036854775807", *INT32)
NO_NUMBER = ["", "+", "-", "--1", "+-1", " 1", "1 ", "1\n", "\t1", "1_0", "0x1", "1.0", "1e3"]
NO_NUMBER += ["١", "²"]


class CommandTests(SynchronousTestCase):
    """What all commands have in common."""

    def test_equal_by_value(self) -> None:
        """Two commands with equal fields are equal and hash alike; another class never is equal."""
        self.assertEqual(VersionCommand(1), VersionCommand(1))
        self.assertEqual(hash(VersionCommand(1)), hash(VersionCommand(1)))
        self.assertNotEqual(VersionCommand(1), VersionCommand(2))
        self.assertNotEqual(DataCommand(b"", 1), VersionCommand(1))

    def test_frozen(self) -> None:
        """A command cannot be changed."""
        self.assertRaises(FrozenInstanceError, setattr, VersionCommand(1), "opaque", 2)

    def test_slots(self) -> None:
        """No command carries a dictionary."""
        self.assertFalse(hasattr(QuitCommand(), "__dict__"))
        self.assertFalse(hasattr(VersionCommand(1), "__dict__"))

    def test_repr_shows_every_field(self) -> None:
        """A log line tells the whole command."""
        self.assertEqual(
            "PutCommand(topic='t', partition=0, body=b'x', flag=1, checksum=-1,"
            " transaction_id=None, opaque=7)",
            repr(PutCommand("t", 0, b"x", 1, -1, None, 7)),
        )

    def test_repr_cuts_bodies(self) -> None:
        """A megabyte of user data does not get into the log."""
        text = repr(DataCommand(b"x" * (1 << 20), 7))
        self.assertEqual(f"DataCommand(body={b'x' * 32!r}... (1048576 bytes), opaque=7)", text)


class NumberTests(SynchronousTestCase):
    """The number grammar of the wire."""

    def test_int32(self) -> None:
        """Signs and leading zeros are read as Java 7 and later read them."""
        for text in INT32:
            self.assertEqual(_value(text), parse_int32(text.encode(), "n"))

    def test_int64(self) -> None:
        """The same with the wider range."""
        for text in INT64:
            self.assertEqual(_value(text), parse_int64(text.encode(), "n"))

    def test_out_of_range(self) -> None:
        """One beyond either end is refused, and so is what is far beyond."""
        for text in ("2147483648", "-2147483649", "9" * 5000, "-" + "9" * 5000):
            self.assertRaises(RemoteProtocolError, parse_int32, text.encode(), "n")
        for text in ("9223372036854775808", "-9223372036854775809", "1" + "0" * 100):
            self.assertRaises(RemoteProtocolError, parse_int64, text.encode(), "n")

    def test_no_number(self) -> None:
        """What ``int()`` would take beyond the grammar is refused."""
        for text in NO_NUMBER:
            error = self.assertRaises(RemoteProtocolError, parse_int32, text.encode(), "field")
            self.assertIn("field", str(error))
            self.assertRaises(RemoteProtocolError, parse_int64, text.encode(), "n")

    def test_check(self) -> None:
        """Numbers of ours are checked before they are sent."""
        for check, bits in ((check_int32, 31), (check_int64, 63)):
            for value in (-(1 << bits), 0, (1 << bits) - 1):
                self.assertEqual(value, check(value, "n"))
            for value in (-(1 << bits) - 1, 1 << bits):
                self.assertRaises(LocalProtocolError, check, value, "n")


def _value(text: str) -> int:
    """The number, by another way than the code under test."""
    return int(text.replace("0" * 1000, ""))


@generated(
    "of",
    "The key '{}' has this value, and this canonical form.",
    [
        ("null", "null", NULL_TRANSACTION_ID, "null"),
        (
            "a Java client",
            "TX:10.0.0.1-1363000000000-1:5",
            LocalTransactionId("10.0.0.1-1363000000000-1", 5),
            "TX:10.0.0.1-1363000000000-1:5",
        ),
        ("negative number", "TX:s:-5", LocalTransactionId("s", -5), "TX:s:-5"),
        ("plus and zeros", "TX:s:+005", LocalTransactionId("s", 5), "TX:s:5"),
        ("colons behind", "TX:s:5::", LocalTransactionId("s", 5), "TX:s:5"),
        ("no session", "TX::5", LocalTransactionId("", 5), "TX::5"),
        (
            "XA",
            "XID:100:0aff:0b:XAMessageProducer-host",
            XATransactionId(100, b"\x0a\xff", b"\x0b", "XAMessageProducer-host"),
            "XID:100:0aff:0b:XAMessageProducer-host",
        ),
        (
            "XA upper case",
            "XID:1:0A:fF:u",
            XATransactionId(1, b"\x0a", b"\xff", "u"),
            "XID:1:0a:ff:u",
        ),
        ("XA odd digits", "XID:1:abc:c:u", XATransactionId(1, b"\xab", b"", "u"), "XID:1:ab::u"),
        ("XA empty hex", "XID:7:::q", XATransactionId(7, b"", b"", "q"), "XID:7:::q"),
        ("XA all empty", "XID:-7:::", XATransactionId(-7, b"", b"", ""), "XID:-7:::"),
        ("XA odd non-hex", "XID:1:abz::", XATransactionId(1, b"\xab", b"", ""), "XID:1:ab::"),
    ],
)
class TransactionIdTests(SynchronousTestCase):
    """Transaction keys that are read."""

    def check(
        self, key: str, value: NullTransactionId | LocalTransactionId | XATransactionId, text: str
    ) -> None:
        """In both directions."""
        self.assertEqual(value, parse_transaction_id(key))
        self.assertEqual(text, str(value))
        self.assertEqual(value, parse_transaction_id(text))


@generated(
    "refuses",
    "The key '{}' closes the connection.",
    [
        ("empty", ""),
        ("Null", "Null"),
        ("null with more", "null:"),
        ("other", "abc"),
        ("tx", "tx:s:1"),
        ("TX alone", "TX:"),
        ("local of 2 parts", "TX:s"),
        ("local of 4 parts", "TX:s:t:1"),
        ("local of an IPv6 host", "TX:fe80::1-7-1:1"),
        ("local without number", "TX:s:"),
        ("local number no number", "TX:s:x"),
        ("local number above int32", "TX:s:2147483648"),
        ("local number of another script", "TX:s:٣"),
        ("local number half a surrogate pair", "TX:s:\ud800"),
        ("XA alone", "XID:"),
        ("XA of 4 parts", "XID:1:0a:0b"),
        ("XA of 6 parts", "XID:1:0a:0b:u:v"),
        ("XA without format", "XID::0a:0b:u"),
        ("XA format above int32", "XID:2147483648:0a:0b:u"),
        ("XA not hex", "XID:1:0g:0b:u"),
        ("XA branch not hex", "XID:1:0a:zz:u"),
        ("XA white space", "XID:1:0a\t\t:0b:u"),
        ("XA white space only", "XID:1:\t\t:0b:u"),
        ("XA signed hex", "XID:1:+a:0b:u"),
        ("XA not ASCII", "XID:1:٠٠:0b:u"),
    ],
)
class BadTransactionIdTests(SynchronousTestCase):
    """Transaction keys that no peer may send."""

    def check(self, key: str) -> None:
        """Nothing but the protocol error leaves."""
        self.assertRaises(RemoteProtocolError, parse_transaction_id, key)


class TransactionIdEqualityTests(SynchronousTestCase):
    """Which keys name the same transaction."""

    def test_every_field_counts(self) -> None:
        """XA ids differ when any of the four fields does."""
        ids = [
            XATransactionId(1, b"a", b"b", "u"),
            XATransactionId(2, b"a", b"b", "u"),
            XATransactionId(1, b"A", b"b", "u"),
            XATransactionId(1, b"a", b"B", "u"),
            XATransactionId(1, b"a", b"b", "U"),
            XATransactionId(1, b"ab", b"", "u"),
            LocalTransactionId("s", 1),
            LocalTransactionId("s", 2),
            LocalTransactionId("t", 1),
            NULL_TRANSACTION_ID,
        ]
        self.assertEqual(len(ids), len(set(ids)))


class StatusTests(SynchronousTestCase):
    """The nine codes."""

    def test_codes(self) -> None:
        """These and no others exist."""
        self.assertEqual([200, 301, 400, 401, 403, 404, 500, 503, 504], list(Status))

    def test_every_error_has_a_code(self) -> None:
        """The exception of a status carries a code that exists."""
        self.assertEqual(set(), set(BROKER_ERRORS) - set(Status))


class ShownTests(SynchronousTestCase):
    """What error texts show of what a peer sent."""

    def test_short(self) -> None:
        """It is quoted."""
        self.assertEqual(shown(b"a b\n"), "b'a b\\n'")
        self.assertEqual(shown("x" * 80), repr("x" * 80))

    def test_long(self) -> None:
        """Its start, and how long it is."""
        self.assertEqual(shown(b"x" * 81), f"{b'x' * 80!r}... (81 long)")
