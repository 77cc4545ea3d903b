"""``metamorphosis.client.model``: received messages, with the part in C and without."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client import model
from metamorphosis.client.messagefields import FieldsInPython
from metamorphosis.client.model import Partition, ReceivedMessage, SendResult
from metamorphosis.message import ATTRIBUTE_FLAG, HEADER_BYTES
from metamorphosis.native import compiled


class FieldTests(SynchronousTestCase):
    """The fields of a message in the middle of a piece of the log."""

    def test_both_implementations(self) -> None:
        """The body is a part of the piece, and the next record follows it."""
        for kind in {FieldsInPython, model.MessageFields}:
            fields = kind()
            fields.offset = 1000
            fields._piece, fields._start, fields._end = b"0123456789", 3, 7
            self.assertEqual(b"3456", fields.body, kind)
            self.assertEqual(1000 + HEADER_BYTES + 4, fields.next_offset, kind)

    def test_implementation(self) -> None:
        """The part in C is used where it is built."""
        self.assertEqual(compiled is None, model.MessageFields is FieldsInPython)


class ResultTests(SynchronousTestCase):
    """The place of a message."""

    def test_is_stored(self) -> None:
        """By its id or its offset: in a transaction it has no offset yet."""
        for message_id, offset, expected in ((5, 7, True), (5, -1, True), (-1, 0, True)):
            self.assertIs(expected, SendResult(message_id, Partition(0, 0), offset).is_stored)
        self.assertIs(False, SendResult(-1, Partition(0, 0), -1).is_stored)


class MessageTests(SynchronousTestCase):
    """What users do with a message."""

    def test_comparison(self) -> None:
        """By all fields; with anything else it is not equal."""

        def message(flag: int, body: bytes) -> ReceivedMessage:
            return ReceivedMessage("t", Partition(0, 1), 5, 7, flag, b"xx" + body, 2)

        one = message(0, b"abc")
        self.assertEqual(one, ReceivedMessage("t", Partition(0, 1), 5, 7, 0, b"abc"))
        self.assertEqual(hash(one), hash(message(0, b"abc")))
        for other in (message(0, b"abd"), message(ATTRIBUTE_FLAG, b"abc")):
            self.assertNotEqual(one, other)
        self.assertIs(False, one == "abc")

    def test_text(self) -> None:
        """The beginning of a long body."""
        for length, end in ((32, "a'"), (33, "a'...")):
            message = ReceivedMessage("t", Partition(0, 1), 5, 7, 0, b"a" * length)
            expected = (
                "ReceivedMessage(topic='t', partition='0-1', offset=5, id=7, flag=0,"
                f" body=b'{'a' * 31}{end})"
            )
            self.assertEqual(expected, repr(message))
