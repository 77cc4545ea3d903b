"""The CRC of the native part, each way that this processor can go, against zlib's."""

from __future__ import annotations

import random
from zlib import crc32

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.native import compiled, way

SEED = 20261130
LENGTHS = (*range(300), 1000, 1023, 1024, 1025, 4096, 8192, 65537, 1 << 20)


class ChecksumTests(SynchronousTestCase):
    """``crc32``."""

    if compiled is None:
        skip = f"the native part is not used ({way})"

    def test_every_length(self) -> None:
        """Around each step of each way, and at any alignment."""
        assert compiled is not None
        data = random.Random(SEED).randbytes(max(LENGTHS) + 16)
        for number in range(len(compiled.checksum_ways())):
            for length in LENGTHS:
                start = length % 16
                piece = data[start : start + length]
                self.assertEqual(compiled.crc32(piece, number), crc32(piece), (number, length))

    def test_views(self) -> None:
        """Any buffer will do."""
        assert compiled is not None
        data = bytearray(range(256))
        self.assertEqual(compiled.crc32(memoryview(data)[3:200]), crc32(data[3:200]))

    def test_ways(self) -> None:
        """The tables work everywhere; there is nothing behind them."""
        assert compiled is not None
        ways = compiled.checksum_ways()
        self.assertEqual(ways[-1], "tables")
        self.assertIn(ways[0], way)
        for number in (-1, len(ways)):
            with self.assertRaisesRegex(ValueError, f"there are {len(ways)} ways, no {number}"):
                compiled.crc32(b"", number)
