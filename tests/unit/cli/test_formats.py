"""The output of ``metaq consume`` for a message."""

from __future__ import annotations

import argparse

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cli.formats import FIELDS, format_of, raw_body, time_text
from metamorphosis.client.model import Partition, ReceivedMessage
from metamorphosis.ids import EPOCH_MS
from metamorphosis.message import encode_body

MOMENT = 1764489600123  # 2025-11-30T08:00:00.123Z
IDENTITY = (MOMENT - EPOCH_MS) << 22


def message(body: bytes, attribute: str | None = None, number: int = IDENTITY) -> ReceivedMessage:
    """A message of partition 3-1 at offset 70."""
    flag = int(attribute is not None)
    return ReceivedMessage("t", Partition(3, 1), 70, number, flag, encode_body(body, attribute))


class FormatTests(SynchronousTestCase):
    """``--format`` and ``--raw``."""

    def test_every_field(self) -> None:
        """Names in braces."""
        one = message(b"\xff{body}", "ä")
        for field, expected in (
            ("topic", b"t"),
            ("partition", b"3-1"),
            ("offset", b"70"),
            ("next", b"%d" % one.next_offset),
            ("id", b"%d" % IDENTITY),
            ("time", b"2025-11-30T08:00:00.123Z"),
            ("attribute", "ä".encode()),
            ("size", b"7"),
            ("body", b"\xff{body}"),
        ):
            self.assertEqual(format_of(f"<{{{field}}}>")(one), b"<" + expected + b">")
            self.assertIn(field, FIELDS)
        self.assertEqual(len(FIELDS), 9)

    def test_escapes(self) -> None:
        """Those of a shell's printf, bytes in hexadecimal, and braces."""
        one = message(b"B")
        self.assertEqual(format_of(r"{{{body}}}\n\t\r\0\\\xfe\x00")(one), b"{B}\n\t\r\0\\\xfe\0")
        self.assertEqual(format_of("ä")(one), "ä".encode())
        self.assertEqual(format_of("")(one), b"")

    def test_faults(self) -> None:
        """Each error names the fault and the valid forms."""
        for text, reason in (
            ("{bdy}", "{bdy} is unknown; fields: topic, partition"),
            ("{}", "{} is unknown"),
            ("{body", "the { at character 1 has no partner; write {{"),
            ("a}", "the } at character 2 has no partner; write }}"),
            (r"\q", r"\q is unknown; escapes: \n"),
            ("\\", "\\ is unknown"),
            (r"\x9", r"\x is unknown"),
        ):
            error = self.assertRaises(argparse.ArgumentTypeError, format_of, text)
            self.assertIn(reason, str(error))

    def test_java_ids(self) -> None:
        """They have no time."""
        self.assertEqual(time_text(-5), "-")
        self.assertEqual(format_of("{time} {attribute}.")(message(b"", None, -5)), b"- .")

    def test_raw(self) -> None:
        """Exact bytes."""
        self.assertEqual(raw_body(message(b"a\0b", "x")), b"a\0b")
