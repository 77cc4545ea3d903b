"""Puts of one transaction in C: the edges of memory, bad arguments, and what fails."""

from __future__ import annotations

import mmap
import random
from typing import Any

from metamorphosis.broker.hotpath.contract import STEP_VECTORS
from metamorphosis.broker.hotpath.transactional import take_run
from metamorphosis.native import compiled
from tests.unit.native.test_puts import NativeCase

KEY = b"TX:s:1"
PLACES = {(b"test", b"0"): ("test", 0)}
NEXT_ID = (1 << 62) - 3  # one before the carry is not far

Taken = tuple[int, list[Any], list[bytes], list[bytes]]


def take(data: Any, start: int = 0, room: int = 1 << 20, pure: bool = False) -> Taken:
    """Position, messages, records and replies."""
    assert compiled is not None
    lists: tuple[list[Any], list[bytes], list[bytes]] = [], [], []
    run = take_run if pure else compiled.take_run
    past = run(data, start, len(data), KEY, PLACES, 5000, room, 300, NEXT_ID, *lists)
    return past, *lists


def put(length: int) -> bytes:
    """One of the transaction."""
    return b"put test 0 %d 0 -1 %b 7\r\n%b" % (length, KEY, b"x" * length)


class RunTests(NativeCase):
    """``take_run``."""

    def test_every_prefix_at_the_end_of_a_page(self) -> None:
        """Each vector, cut at each byte, in front of memory that must not be touched; the same as
        in Python."""
        _, page = self.guarded()
        requests = {vector.request for vector in STEP_VECTORS}
        requests |= {put(length) for length in (0, 15, 63, 64, 100, 2000)}
        for request in requests:
            for length in range(len(request) + 1):
                cut = request[:length]
                start = mmap.PAGESIZE - length
                page[start:] = cut
                past, *lists = take(page, start)
                self.assertEqual((past - start, *lists), take(cut, pure=True), (request, length))

    def test_lengths_of_records(self) -> None:
        """Around every length whose varint has one byte more, and until there is no room."""
        for length in (*range(60, 140), *range(4990, 5002)):
            self.assertEqual(take(put(length), pure=True), take(put(length)))
        data = put(100) * 10
        for room in range(3000):
            self.assertEqual(take(data, room=room, pure=True)[0], take(data, room=room)[0])

    def test_changed_bytes(self) -> None:
        """Any byte of a run may be any other: both take the same."""
        chance = random.Random(3)
        good = put(3) + b"put test 0 5 -7 907060870 TX:s:1 -12\r\nhello" + put(0)
        for _ in range(5000):
            data = bytearray(good)
            for _ in range(chance.choice((1, 1, 2))):
                data[chance.randrange(len(data))] = chance.choice(b"0123456789- \r\nTX:s+")
            self.assertEqual(take(bytes(data), pure=True), take(bytes(data)), bytes(data))

    def test_ids_carry(self) -> None:
        """The last id of a millisecond ends the run."""
        past, messages, *_ = take(put(1) * 5)
        self.assertEqual((3 * len(put(1)), 3), (past, len(messages)))

    def test_bad_arguments(self) -> None:
        """They are refused, not followed."""
        assert compiled is not None
        data = put(5)
        rest = (KEY, PLACES, 5000, 1 << 20, 300, NEXT_ID)
        for start, end in ((-1, 5), (5, 4), (0, len(data) + 1), (len(data) + 1, len(data) + 1)):
            with self.assertRaises(ValueError):
                compiled.take_run(data, start, end, *rest, [], [], [])
        with self.assertRaises(TypeError):
            compiled.take_run(data, 0, len(data), *rest, (), [], [])
