"""The search for records in a piece of a log, by itself."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.fetch.boundaries import (
    RecordEnd,
    begins_row,
    find_record,
    is_record,
)
from metamorphosis.client.fetch.inside import RecordsInside
from metamorphosis.message import HEADER, HEADER_BYTES, crc32, encode_record

GAP = b"\xee" * 15
"""Behind the length and the first byte of the checksum: no header begins in it."""


def turns(steps: Generator[None, None, Any]) -> int:
    """How often others get their turn during a search."""
    return sum(1 for _ in steps)


class TurnTests(SynchronousTestCase):
    """The loop gets its turn after a few milliseconds of work, and not more often."""

    def looks(self, length: int, count: int) -> int:
        """The turns for ``count`` places where a record of this length may begin and does not."""
        data = (length.to_bytes(4, "big") + b"\0" + GAP) * count + b"\xee"
        return turns(find_record(data, 0, len(data), 5000))

    def test_places(self) -> None:
        """After 4096 places that had to be looked at."""
        self.assertEqual([0, 1, 1, 2], [self.looks(1, n) for n in (4095, 4096, 8191, 8192)])

    def test_checksums(self) -> None:
        """A checksum costs more the longer the body is."""
        self.assertEqual([0, 1], [self.looks(4096, n) for n in (1501, 1502)])

    def test_bodies_that_cannot_be_whole(self) -> None:
        """No checksum is calculated of what is longer than the rest of the data."""
        self.assertEqual(1, self.looks(4096, 2740))

    def test_ends(self) -> None:
        """The same for the places where a record may end by its checksum."""
        for number, expected in ((4095, 0), (4096, 1)):
            data = bytes(HEADER_BYTES) + (b"\x0f\xee\xee\xee\x70" + GAP) * number
            self.assertEqual(expected, turns(RecordEnd(-1).find(data, 0, len(data))))

    def test_records_inside(self) -> None:
        """A record that is passed costs as much as 16 places, and its length."""
        for length, most in ((20, 256), (4096, 228)):
            data = b"?" * 21 + encode_record(2, 0, b"\xee" * length) * (most + 1)
            size = HEADER_BYTES + length
            for number, expected in ((most - 1, 0), (most, 1)):
                inside = RecordsInside(1 << 30, (), HEADER_BYTES, 5000)
                looks = inside.hold_a_message(data, 0, 21 + number * size)
                self.assertEqual(expected, turns(looks), (length, number))

    def test_lengths_above_the_limit(self) -> None:
        """Such a place costs nothing."""
        for limit in (100, 5000, 1 << 20, (1 << 24) - 1):
            data = b"\x10" * 20_000
            self.assertEqual(0, turns(find_record(data, 0, len(data), limit)), limit)


class RecordTests(SynchronousTestCase):
    """What is a record."""

    def test_body_that_ends_early(self) -> None:
        """It is none, although the checksum of what is there is right."""
        data = HEADER.pack(5, crc32(b"abc") & 0x7FFFFFFF, 1, 0) + b"abc"
        self.assertFalse(is_record(data, 0, 100))
        self.assertFalse(is_record(data[:19], 0, 100))
        self.assertTrue(is_record(encode_record(1, 0, b"abc"), 0, 3))

    def test_row(self) -> None:
        """Empty records count if their ids lead up to a record with a body."""
        behind = encode_record(7, 0, b"abc")
        for message_id, expected in ((6, True), (8, False), (-(1 << 55), False)):
            data = encode_record(message_id, 0, b"") + behind
            self.assertIs(expected, begins_row(data, 0, 100), message_id)


class InsideTests(SynchronousTestCase):
    """Records between a damaged record and the end that it claims."""

    def test_first_record_behind_a_cut(self) -> None:
        """The data are cut where the body has held no record yet."""
        inner = encode_record(7, 0, b"x")
        for gap in range(95, 125):
            data = b"?" * gap + inner + b"?" * 100
            for ids, expected in ((range(3, 7), False), (range(7, 8), True)):
                inside = RecordsInside(1 << 20, (ids,), HEADER_BYTES, 100)
                found = [self.holds(inside, data[:120], 0, 100), False]
                if not found[0]:
                    found[1] = self.holds(inside, data[100:], 100, 200)
                self.assertEqual(expected, any(found), (gap, ids))

    @staticmethod
    def holds(inside: RecordsInside, data: bytes, base: int, stop: int) -> bool:
        """Whether there is a message of its own."""
        search = inside.hold_a_message(data, base, stop)
        while True:
            try:
                next(search)
            except StopIteration as stop_:
                return bool(stop_.value)
