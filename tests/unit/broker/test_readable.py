"""The offset at which reading continues after a record that a Java consumer cannot read."""

from __future__ import annotations

import os
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker import readable
from metamorphosis.broker.readable import LONGEST, holds_message, next_message
from metamorphosis.message import HEADER, MAX_BODY_BYTES, crc32
from tests.support.serving import Broker
from tests.unit.broker.test_hotpath import put


class ReadableTests(SynchronousTestCase):
    """A store whose segments are damaged on the disk."""

    def store(self, *bodies: bytes, segment_size: int = 1 << 30) -> None:
        """A log of these messages."""
        broker = Broker(self.mktemp(), max_segment_size=segment_size)
        self.starts = [0]
        for body in bodies:
            broker.client().send(put(body))
            self.starts.append(self.starts[-1] + 20 + len(body))
        found = broker.stores.get("test", 0)
        assert found is not None
        self.found = found
        self.assertEqual(self.starts[-1], found.max_offset)

    def damage(self, offset: int, data: bytes) -> None:
        """Overwrite bytes of the log."""
        found = self.found.slice(offset, 1)
        assert found is not None
        segment, position, _ = found
        file = os.open(segment.path, os.O_WRONLY)
        try:
            os.pwrite(file, data, position)
        finally:
            os.close(file)

    def way(self) -> list[int]:
        """The messages that a consumer reads, by their offsets, from the start to the end."""
        found, offset = [], 0
        while offset < self.found.max_offset:
            if holds_message(self.found, offset):
                found.append(offset)
                offset = self.starts[self.starts.index(offset) + 1]
                continue
            target = next_message(self.found, offset)
            assert target is not None and target > offset, (offset, target)
            offset = target
        self.assertEqual(self.found.max_offset, offset)
        return found

    def test_body(self) -> None:
        """A changed byte of a body costs this message only, at each place of the log."""
        for damaged in range(4):
            self.store(b"one", b"two", b"three", b"four")
            self.damage(self.starts[damaged] + 20, b"X")
            expected = [start for index, start in enumerate(self.starts[:-1]) if index != damaged]
            self.assertEqual(expected, self.way())

    def test_length(self) -> None:
        """A length that is negative, too short, too long or leads beyond the log is not
        followed."""
        for length in (b"\xff" * 4, b"\0\0\0\x01", b"\0\0\0\x20", b"\0\0\x10\0", b"\x7f" * 4):
            self.store(b"one", b"two" * 10, b"three" * 5)
            self.damage(self.starts[1], length)
            self.assertEqual([self.starts[0], self.starts[2]], self.way(), length)

    def test_end_of_a_segment(self) -> None:
        """After the last record of a segment the first one of the next segment follows."""
        self.store(*[b"x" * 80] * 6, segment_size=200)
        for damaged in (1, 3):
            self.damage(self.starts[damaged], b"\xff" * 100)
        self.assertEqual([self.starts[index] for index in (0, 2, 4, 5)], self.way())

    def test_random_damage(self) -> None:
        """No whole message is left out, wherever the damage begins and ends."""
        for seed in range(60):
            chance = Random(seed)
            bodies = [chance.randbytes(chance.choice((1, 5, 30, 200))) for _ in range(20)]
            self.store(*bodies)
            first = chance.randrange(self.starts[-1] - 300)
            size = chance.randrange(1, 300)
            self.damage(first, chance.randbytes(size))
            whole = [
                start
                for start, end in zip(self.starts, self.starts[1:], strict=False)
                if end <= first or start >= first + size
            ]
            self.assertEqual(whole, [each for each in self.way() if each in whole], seed)

    def test_little_work_at_a_time(self) -> None:
        """With many possible headers the search ends early and is continued by the next get."""
        self.patch(readable, "CHECKED_BYTES", 400)
        self.store(b"one", b"\0\0\0\x64\0\0\0\0" * 40, b"three")
        self.damage(self.starts[1], b"\xff" * 4)
        asked = next_message(self.found, self.starts[1])
        assert asked is not None
        self.assertTrue(self.starts[1] < asked < self.starts[2])
        self.assertEqual([self.starts[0], self.starts[2]], self.way())

    def test_lengths_beyond_the_end_cost_nothing(self) -> None:
        """Headers whose bodies end after the log cost no work: the search continues to its end."""
        self.patch(readable, "CHECKED_BYTES", 400)
        for length in (b"\0\x10\0\0", b"\0\0\1\x40"):  # far beyond, and a few bytes
            self.store(b"one", (length + b"\x01\xff\xff\xff") * 40, b"three")
            self.damage(self.starts[1], b"\xff" * 4)
            self.assertEqual(self.starts[2], next_message(self.found, self.starts[1]))

    def test_empty_message_at_the_end(self) -> None:
        """One whose checksum is damaged is skipped, though only its header is left."""
        self.store(b"one", b"")
        self.damage(self.starts[1] + 4, b"\0\0\0\1")
        self.assertEqual(self.starts[2], next_message(self.found, self.starts[1]))

    def test_body_too_long(self) -> None:
        """A body that no Java consumer accepts is skipped with its content."""
        inner = b"x" * (MAX_BODY_BYTES + 1)
        self.store(b"one", inner, b"three")
        self.assertEqual([self.starts[0], self.starts[2]], self.way())

    def test_message_inside_of_the_last(self) -> None:
        """A damaged record at the end of a log, or of a segment whose successor is damaged too, is
        skipped with what it contains."""
        inner = HEADER.pack(3, crc32(b"one") & 0x7FFFFFFF, 1, 0) + b"one"
        outer = inner * 3 + b"X"
        for follower in ((), (b"two", b"three")):
            self.store(b"one", outer, *follower, segment_size=100)
            self.damage(self.starts[2] - 1, b"Y")
            if follower:
                self.damage(self.starts[2] + 20, b"Y")
            self.assertEqual(self.starts[2], next_message(self.found, self.starts[1]))

    def test_damage_longer_than_a_search(self) -> None:
        """The next search begins where the last one ended, less one record."""
        self.patch(readable, "LONGEST", 1000)
        self.patch(readable, "SEARCHED_BYTES", 2000)
        self.store(b"one", b"x" * 900, b"x" * 900, b"x" * 900, b"five")
        self.damage(self.starts[1], b"\xff" * 2760)
        self.assertEqual(self.starts[1] + 1000, next_message(self.found, self.starts[1]))
        self.assertEqual([self.starts[0], self.starts[4]], self.way())

    def test_length_to_the_end_of_a_search(self) -> None:
        """A wrong length that leads exactly there is not followed: the log goes on."""
        self.patch(readable, "LONGEST", 100)
        self.patch(readable, "SEARCHED_BYTES", 200)
        self.store(b"one", *[b"x" * 21] * 20)
        self.damage(self.starts[1], b"\0\0\0" + bytes([200 - 20]))
        self.assertEqual([0, *self.starts[2:-1]], self.way())

    def test_nothing_there(self) -> None:
        """At the end and beyond it there is no offset."""
        self.store(b"one")
        for offset in (self.starts[-1], self.starts[-1] + 1, LONGEST):
            self.assertIsNone(next_message(self.found, offset))
