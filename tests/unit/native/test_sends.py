"""The client's frames and answers in C beside those in Python: changed at random, cut anywhere."""

from __future__ import annotations

import os
import random
import sys
from typing import Any

from metamorphosis.client.model import OutgoingMessage, Partition
from metamorphosis.client.network import replies
from metamorphosis.client.network.replies import Reply, ReplyReader
from metamorphosis.client.producer import puts
from metamorphosis.client.producer.puts import Put, frame_in_python, place_in_python
from metamorphosis.native import compiled
from tests.unit.native.test_puts import NativeCase

SEED = 20261130
STREAMS = int(os.environ.get("TWIN_STREAMS", "3000"))
MOST = 400
"""Longest body that a reader takes here."""

VECTORS = (
    b"result 200 0 -5\r\n",
    b"result 200 12 -2147483648\r\n7 0 99999999",
    b"value 3 7\r\nabc",
    b"value 0 2147483647\r\n",
    b"result 404 2 8\r\nno",
    b"result 200 401 8\r\n",
    b"result 0200 01 08\r\nx",
    b"result -1 0 8\r\n",
    b"result 200 -1 8\r\n",
    b"result +200 0 8\r\n",
    b"result 200 0 +8\r\n",
    b"result 200 0  8\r\n",
    b"result 2_0 0 8\r\n",
    b"result 200 0\r\n",
    b"result 200 0 8 9\r\n",
    b"result 200 0 8\n",
    b"result 99999999999 0 8\r\n",
    b"result 200 0 99999999999999999999999\r\n",
    b"result 200 0 -9223372036854775808\r\n",
    b"results 200 0 8\r\n",
    b"values 0 8\r\n",
    b"value  0 8\r\n",
    b"\r\n",
    b"x" * 150,
)
"""Ordinary, odd and broken: one of each."""

PLACES = (
    b"1 0 0",
    b"-5468927032769380352 3 1024",
    b"9223372036854775807 0 9223372036854775807",
    b"9223372036854775808 0 0",
    b"-9223372036854775808 0 -1",
    b"1 -1 5",
    b"",
    b"1 2",
    b"1 2 3 4",
    b"1  2",
    b"a b c",
    b"1 2 3 ",
    b" 1 2 3",
    b"1 2 3\r\n",
    b"+1 2 3",
    b"1_0 2 3",
    b"1 2 -",
    b"00 00 00",
)


def seen(data: bytes, cuts: list[int]) -> tuple[list[Reply], str | None, bool]:
    """Everything that a reader makes of the pieces."""
    reader = ReplyReader(100, MOST)
    found: list[Reply] = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if reader.fault is None:
            found += reader.receive(data[start:end])
    return found, reader.fault, reader.is_between


class ReplyTests(NativeCase):
    """``split_replies`` below ``ReplyReader``."""

    def both(self, data: bytes, cuts: list[int], where: object) -> None:
        """With the part in C and without it."""
        shown = []
        for part in (compiled, None):
            self.patch(replies, "compiled", part)
            shown.append(seen(data, cuts))
        self.assertEqual(shown[0], shown[1], where)

    def test_vectors_at_every_cut(self) -> None:
        """Whole, in two pieces, byte by byte; alone, and after an ordinary one."""
        for vector in VECTORS:
            for data in (vector, VECTORS[2] + vector + VECTORS[0]):
                for cut in range(len(data) + 1):
                    self.both(data, [cut], (data, cut))
                self.both(data, list(range(1, len(data))), data)

    def test_random_streams(self) -> None:
        """Ordinary ones, changed at random, cut at random; a failure names its seed."""
        for seed in range(SEED, SEED + STREAMS):
            rng = random.Random(seed)
            data = bytearray(b"".join(rng.choice(VECTORS[:5]) for _ in range(rng.randrange(1, 30))))
            for _ in range(rng.choice((0, 0, 1, 2))):
                data[rng.randrange(len(data))] = rng.choice(b"0123456789- \r\nresultvalue+")
            cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(4)))
            self.both(bytes(data), cuts, f"seed {seed}")

    def test_nothing_is_left(self) -> None:
        """What was read and dropped is gone."""
        assert compiled is not None
        data = VECTORS[1] * 50 + b"odd"

        def work() -> None:
            compiled.split_replies(data, MOST, [])

        for _ in range(20):
            work()
        before = sys.getallocatedblocks()
        for _ in range(1000):
            work()
        self.assertLess(sys.getallocatedblocks() - before, 200)

    def test_arguments(self) -> None:
        """What cannot be is an error, and not a crash."""
        assert compiled is not None
        wrong: Any
        for wrong in (("text", 1, []), (b"", "1", []), (b"", 1, ()), (bytearray(), 1, [])):
            self.assertRaises(TypeError, compiled.split_replies, *wrong)
        for wrong in ("text", None, bytearray(b"1 2 3")):
            self.assertRaises(TypeError, compiled.put_place, wrong)
        for wrong in (("t", 0, b"", 0, 0), (b"t", 0, "", 0, 0), (b"t", None, b"", 0, 0)):
            self.assertRaises(TypeError, compiled.put_frame, *wrong)
        self.assertRaises(OverflowError, compiled.put_frame, b"t", 1 << 31, b"", 0, 0)


class PutTests(NativeCase):
    """The frame of a put, and the place that its answer names."""

    def test_frames(self) -> None:
        """Of any topic, number and body."""
        assert compiled is not None
        rng = random.Random(SEED)
        edges = (0, 1, -1, 7, 2147483647, -2147483648)
        for topic in ("t", "test.topic-1", "\u4e2d\u6587", "x" * 300):
            for length in (0, 1, 9, 10, 63, 64, 1000, 70_000):
                body = rng.randbytes(length)
                numbers = rng.choice(edges), rng.choice((0, 1, -1)), rng.choice(edges)
                given = topic.encode(), numbers[0], body, *numbers[1:]
                self.assertEqual(frame_in_python(*given), compiled.put_frame(*given))

    def test_places(self) -> None:
        """What is usual is read; the rest is left to the code in Python."""
        assert compiled is not None
        rng = random.Random(SEED)
        given = [*PLACES]
        for _ in range(5000):
            body = bytearray(rng.choice(PLACES))
            if body:
                body[rng.randrange(len(body))] = rng.choice(b"0123456789- +_")
            given.append(bytes(body))
        usual = 0
        for body in given:
            found = compiled.put_place(body)
            if found is not None:
                usual += 1
                self.assertEqual(place_in_python(body), found, body)
        self.assertGreater(usual, 1000)

    def test_answers(self) -> None:
        """A put makes the same of each answer with the part in C and without it."""
        told: list[tuple[object, ...]] = []

        class Owner:
            """Notes what it is told."""

            def stored(self, put: Put, result: object) -> None:
                """See ``puts.Owner``."""
                told.append((result,))

            def failed(self, put: Put, error: Exception) -> None:
                """See ``puts.Owner``."""
                told.append((type(error), str(error)))

        for body in PLACES:
            del told[:]
            for place in (puts.place_of, puts.place_in_python):
                self.patch(puts, "place_of", place)
                put = Put(Owner(), OutgoingMessage("t", b"x"), Partition(0, 0), 1.0, None, None)
                put.answered(200, body, 0)
            self.assertEqual(told[0], told[1], body)
