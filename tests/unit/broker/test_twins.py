"""
The hot path in C beside the one in Python, on random streams: ordinary, odd and broken requests,
cut at random, over several partitions. What was consumed, the records, the replies and what they
wait for, the ids and the offsets are the same after every piece.
"""

from __future__ import annotations

import os
import random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.hotpath import native, pure
from metamorphosis.broker.hotpath.contract import Scan
from metamorphosis.native import compiled, way
from tests.unit.broker.test_hotpath import put
from tests.unit.native.test_puts import Ids, Routes, Store

SEED = 20261130
FRAMES = int(os.environ.get("TWIN_FRAMES", "200000"))
"""Requests that are compared in all."""

ODD = (b"+", b"-", b"0", b" ", b"\r", b"\n", b"9999999999", b"x", b"", b"-1", b"00", b"p", b"\xff")


class ClockIds(Ids):
    """Ids without a clock, which carry often."""

    def start_chunk(self) -> int:
        """As ``MessageIds``."""
        return int(self.next_id)

    def carry(self, overflowed: int) -> Any:
        """The next millisecond; put back by the caller, as ``MessageIds.carry`` does."""
        self.next_id = (overflowed | 0x3FFFFF) + 1
        return self.next_id


class Group:
    """As ``broker.replies.ReplyGroup``, with runs that can be compared."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.runs: list[Any] = []


class Side:
    """One implementation with three partitions of its own."""

    def __init__(self, scan: Scan) -> None:
        self.scan: Any = scan
        self.stores = [Store() for _ in range(3)]
        self.routes = Routes(*self.stores, max_body=3000)
        self.routes.reads = {}  # type: ignore[attr-defined]
        self.ids = ClockIds()

    def take(self, data: bytes, start: int, view: bool) -> tuple[Any, ...]:
        """The results of one piece, as values that can be compared."""
        group = Group()
        source = memoryview(data) if view else data
        past = self.scan(data, source, start, len(data), self.routes, self.ids, group)
        batches = {id(store.batch): number for number, store in enumerate(self.stores)}
        runs = [(batches[id(run[0])], *run[1:3]) for run in group.runs]
        pieces = [
            [bytes(piece) for piece in store.batch.pieces] if store.batch is not None else None
            for store in self.stores
        ]
        return past, group.replies, runs, pieces, self.ids.next_id, self.offsets()

    def offsets(self) -> list[int]:
        """The offsets of the next records."""
        return [store.next_offset for store in self.stores]

    def commit(self) -> None:
        """The turn ends: batches are taken out."""
        for store in self.stores:
            store.batch = None


def frame(rng: random.Random) -> bytes:
    """One request; every fifth is broken somewhere."""
    body = rng.randbytes(rng.choice((0, 1, 5, 60, 100, 1000, 2999)))
    request = put(
        body,
        topic=rng.choice((b"test", b"test", b"test", b"nosuch"))
        if not rng.randrange(9)
        else b"test",
        partition=b"%d" % rng.randrange(3),
        opaque=b"%d" % rng.choice((0, 5, -1, rng.randrange(-(1 << 31), 1 << 31))),
        flag=b"%d" % rng.choice((0, 0, 1, -7, 999999999)),
    )
    kind = rng.randrange(20)
    if kind == 0:
        return request.replace(b" 0 ", rng.choice((b" +0 ", b" 00 ", b"  ")), 1)
    if kind == 1:
        words = request.split(b" ")
        words[rng.randrange(len(words))] = rng.choice(ODD)
        return b" ".join(words)
    if kind == 2:
        place = rng.randrange(min(len(request), 60))
        return request[:place] + rng.choice(ODD) + request[place + rng.randrange(2) :]
    if kind == 3:
        return put(body, checksum=rng.choice((b"-1", b"-2", b"5", b"9999999999", b"12345678901")))
    if kind == 4:
        return b"put test 1 %d 0 %d\r\n%b" % (len(body), rng.randrange(1 << 31), body)
    return request


class TwinTests(SynchronousTestCase):
    """``native.scan`` and ``pure.scan``."""

    if compiled is None:
        skip = f"the native part is not used ({way})"

    def test_random_streams(self) -> None:
        """The same, whatever comes; a failure names the seed of its stream."""
        left, seed = FRAMES, SEED
        while left > 0:
            rng = random.Random(seed)
            frames = [frame(rng) for _ in range(rng.choice((1, 5, 40)))]
            left -= len(frames)
            self.compare(rng, frames, seed)
            seed += 1

    def compare(self, rng: random.Random, frames: list[bytes], seed: int) -> None:
        """One stream. A frame that both leave is skipped, as the slow path would take it."""
        fast, slow = Side(native.scan), Side(pure.scan)
        fast.routes.checked_only = slow.routes.checked_only = not seed % 4
        data = b"".join(frames)
        starts = [0]
        for each in frames:
            starts.append(starts[-1] + len(each))
        position = 0
        while position < len(data):
            end = rng.choice((len(data), min(len(data), position + rng.randrange(1, 4000))))
            view = rng.randrange(2) == 0
            found = fast.take(data[:end], position, view)
            self.assertEqual(found, slow.take(data[:end], position, view), f"seed {seed}")
            if found[0] == position and end == len(data):
                position = next(start for start in starts if start > position)
            else:
                position = found[0]
            if rng.randrange(2):
                fast.commit()
                slow.commit()
