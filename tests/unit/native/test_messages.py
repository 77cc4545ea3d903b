"""The fields of received messages in C beside those in Python."""

from __future__ import annotations

import gc
import sys
from typing import Any

from metamorphosis.client.delivery import duplicates
from metamorphosis.client.messagefields import FieldsInPython
from metamorphosis.client.model import Partition, ReceivedMessage
from metamorphosis.message import encode_record
from metamorphosis.native import compiled
from tests.unit.native.test_puts import NativeCase

PARTITION = Partition(0, 1)
FIELDS = ("topic", "partition", "offset", "id", "flag", "_piece", "_start", "_end")
ORDINARY = ("t", PARTITION, 1 << 40, -(1 << 63), -1, b"0123456789", 2, 5)


def values(made: Any) -> list[object]:
    """All that a message shows."""
    return [getattr(made, each) for each in (*FIELDS, "body", "next_offset")]


class FieldsTests(NativeCase):
    """``MessageFields``."""

    def both(self, *given: object) -> list[Any]:
        """One of each kind with these fields."""
        assert compiled is not None
        made: list[Any] = [compiled.MessageFields(), FieldsInPython()]
        for each in made:
            for name, value in zip(FIELDS, given, strict=True):
                setattr(each, name, value)
        return made

    def test_twins(self) -> None:
        """The same values; bodies at the ends of a piece, empty ones, and what cannot be."""
        for start, end in ((2, 5), (0, 10), (0, 0), (10, 10), (5, 2), (2, 100), (-3, 10), (50, 60)):
            in_c, in_python = self.both(*ORDINARY[:-2], start, end)
            self.assertEqual(values(in_python), values(in_c), (start, end))

    def test_no_bytes(self) -> None:
        """What is not bytes is sliced as Python slices it, or not at all."""
        in_c, in_python = self.both(*ORDINARY[:-3], "0123456789", 2, 5)
        self.assertEqual(in_python.body, in_c.body)
        for each in self.both(*ORDINARY[:-3], None, 2, 5):
            with self.assertRaises(TypeError):
                _ = each.body

    def test_without_fields(self) -> None:
        """What was not given is an error."""
        assert compiled is not None
        for each in (compiled.MessageFields(), FieldsInPython()):
            for name in ("topic", "partition", "_piece", "body"):
                self.assertRaises(AttributeError, getattr, each, name)

    def test_in_use(self) -> None:
        """The messages of users have them."""
        assert compiled is not None
        self.assertTrue(issubclass(ReceivedMessage, compiled.MessageFields))

    def test_not_collected(self) -> None:
        """The collector is not told of a message that was read; its fields go when it goes."""
        assert compiled is not None
        topic = "".join(("top", "ic"))
        piece = encode_record(7, 0, b"hello")
        before = sys.getrefcount(topic), sys.getrefcount(piece)
        messages: list[Any] = []
        compiled.read_records(piece, 0, 1, 100, 0, ReceivedMessage, topic, PARTITION, messages)
        self.assertFalse(gc.is_tracked(messages[0]))
        self.assertEqual(before[0] + 1, sys.getrefcount(topic))
        messages.clear()
        gc.collect()
        self.assertEqual(before, (sys.getrefcount(topic), sys.getrefcount(piece)))

    def test_plain_fields_are_read_too(self) -> None:
        """Also of a type that the collector does not know."""
        assert compiled is not None
        messages: list[Any] = []
        piece = encode_record(7, 0, b"hello")
        compiled.read_records(piece, 0, 1, 100, 0, compiled.MessageFields, "t", PARTITION, messages)
        (made,) = messages
        self.assertEqual((7, b"hello", len(piece)), (made.id, made.body, made.next_offset))


class IdentityTests(NativeCase):
    """``identities``."""

    def test_twins(self) -> None:
        """The same bytes with the part in C and without it."""
        numbers = (0, 1, -1, (1 << 63) - 1, -(1 << 63), 1 << 40)
        some = [
            ReceivedMessage("t", PARTITION, offset, number, 0, b"")
            for number in numbers
            for offset in numbers
        ]
        shown = []
        for part in (compiled, None):
            self.patch(duplicates, "compiled", part)
            shown.append((duplicates.identities(some), duplicates.identities([])))
        self.assertEqual(shown[0], shown[1])

    def test_arguments(self) -> None:
        """What cannot be is an error, and not a crash."""
        assert compiled is not None
        for wrong in ((), None, [None], [ReceivedMessage("t", PARTITION, 0, 0, 0, b""), "x"]):
            self.assertRaises(TypeError, compiled.identities, wrong)
