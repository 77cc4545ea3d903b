"""The client's reader of records in C beside the one in Python, on pieces damaged at random."""

from __future__ import annotations

import gc
import os
import random
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.fetch import records
from metamorphosis.client.fetch.records import FetchedRecords
from metamorphosis.client.model import Partition, ReceivedMessage
from metamorphosis.message import HEADER, encode_jump, encode_record
from metamorphosis.native import compiled
from tests.unit.native.test_puts import NativeCase

SEED = 20261130
PIECES = int(os.environ.get("TWIN_PIECES", "3000"))
PARTITION = Partition(0, 1)


def random_piece(rng: random.Random) -> bytes:
    """Records, most of them good, and an end that may be torn."""
    pieces = []
    for _ in range(rng.randrange(12)):
        body = rng.randbytes(rng.choice((0, 1, 4, 20, 64, 300, 1100)))
        record = bytearray(
            encode_record(rng.randrange(-(1 << 63), 1 << 63), rng.choice((0, 1, -1)), body)
        )
        kind = rng.randrange(30)
        if kind == 0:
            record[rng.randrange(len(record))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            record = bytearray(HEADER.size)
        elif kind == 2:
            record = bytearray(encode_jump(rng.randrange(1 << 40)))
        elif kind == 3:
            record = bytearray(encode_record(0, 0, b""))
        pieces.append(bytes(record))
    piece = b"".join(pieces)
    return piece[: rng.randrange(len(piece) + 1)] if not rng.randrange(3) else piece


def seen(fetched: FetchedRecords, limits: list[int]) -> list[Any]:
    """Everything that a reader shows, a stretch at a time."""
    shown: list[Any] = []
    for limit in limits:
        messages = fetched.read(limit)
        shown.append([values(message) for message in messages])
        shown.append((fetched.next_offset, fetched.jumped, fetched.damage, fetched.exhausted))
        if fetched.exhausted:
            assert fetched.read(limit) == []
            break
    return shown


def values(message: ReceivedMessage) -> tuple[Any, ...]:
    """All of a message."""
    return (
        type(message),
        message.topic,
        message.partition,
        message.offset,
        message.id,
        message.flag,
        message.body,
    )


class RecordTests(SynchronousTestCase):
    """``FetchedRecords.read`` with and without the part in C."""

    if compiled is None:
        skip = NativeCase.skip

    def test_random_pieces(self) -> None:
        """The same messages, in the same stretches, and the same end; a failure names its seed."""
        for seed in range(SEED, SEED + PIECES):
            rng = random.Random(seed)
            piece = random_piece(rng)
            origin = rng.choice((0, 1 << 40, (1 << 62)))
            most = rng.choice((0, 64, 1000, 1 << 20))
            limits = [rng.choice((0, 1, 2, 5, 100)) for _ in range(30)]
            shown = []
            for part in (compiled, None):
                self.patch(records, "compiled", part)
                shown.append(seen(FetchedRecords("t", PARTITION, origin, piece, most), limits))
            self.assertEqual(shown[0], shown[1], f"seed {seed}")

    def test_a_million_messages_leave_nothing(self) -> None:
        """The memory of dropped messages is released."""
        piece = encode_record(5, 0, b"hello") * 50 + bytes(30)

        def work() -> None:
            FetchedRecords("t", PARTITION, 0, piece, 100).read(100)

        for _ in range(20):
            work()
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(1000):
            work()
        gc.collect()
        self.assertLess(sys.getallocatedblocks() - before, 200)

    def test_arguments(self) -> None:
        """Invalid arguments raise an error, and do not crash."""
        assert compiled is not None
        good: list[Any] = [b"12345", 0, 1, 10, 0, ReceivedMessage, "t", PARTITION, []]
        self.assertEqual(compiled.read_records(*good), 0)
        for index, bad in ((0, "text"), (1, 6), (1, -1), (3, -1), (5, "type"), (8, ())):
            wrong = [*good[:index], bad, *good[index + 1 :]]
            with self.assertRaises((TypeError, ValueError)):
                compiled.read_records(*wrong)
        piece = encode_record(1, 0, b"x")
        with self.assertRaises(TypeError):
            compiled.read_records(piece, 0, 1, 10, 0, object, "t", PARTITION, [])
