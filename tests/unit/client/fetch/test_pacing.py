"""The time and size of the next fetch."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.fetch.pacing import Pacing

BASE = 1 << 20
LIMIT = (2 << 20) + 20


def pacing(size: int = BASE, max_delay: int = 5000) -> Pacing:
    """With the defaults of the original."""
    return Pacing(max_delay, size, LIMIT, 5)


class DelayTests(SynchronousTestCase):
    """The original's arithmetic, milliseconds."""

    def test_row_33_nothing_found(self) -> None:
        """Row 33: each empty fetch adds a tenth of the longest pause; data ends it."""
        pace = pacing()
        delays = []
        for _ in range(12):
            pace.nothing()
            delays.append(pace.delay_ms)
        self.assertEqual([*range(500, 5001, 500), 5000, 5000], delays)
        pace.processed(0)
        self.assertEqual(0, pace.delay_ms)

    def test_integer_division(self) -> None:
        """The step is a whole number of milliseconds."""
        pace = pacing(max_delay=99)
        pace.nothing()
        self.assertEqual(9, pace.delay_ms)

    def test_failing_message(self) -> None:
        """The pause grows with the retries up to the longest one."""
        pace = pacing()
        delays = []
        for retries in (1, 2, 3, 11):
            pace.processed(retries)
            delays.append(pace.delay_ms)
        self.assertEqual([500, 1000, 1500, 5000], delays)


class SizeTests(SynchronousTestCase):
    """How many bytes."""

    def test_row_34_doubles(self) -> None:
        """Row 34: where the length is unknown the size doubles from the seventh fruitless fetch."""
        pace = pacing(1000)
        sizes = []
        for _ in range(9):
            self.assertFalse(pace.too_small(0))
            sizes.append(pace.size)
        self.assertEqual([1000] * 6 + [2000, 4000, 8000], sizes)
        self.assertEqual((9, 4500), (pace.fruitless, pace.delay_ms))

    def test_stops_doubling(self) -> None:
        """The size does not exceed the longest message."""
        pace = pacing()
        for _ in range(50):
            pace.too_small(0)
        self.assertEqual(2 * BASE, pace.size)

    def test_takes_the_needed_size(self) -> None:
        """The header says what is needed: fetched at once."""
        pace = pacing(1024)
        pace.nothing()
        self.assertTrue(pace.too_small(5020))
        self.assertEqual((5020, 0, 1), (pace.size, pace.delay_ms, pace.fruitless))

    def test_large_enough(self) -> None:
        """The size does not grow for a broker that sends less than requested."""
        pace = pacing(1 << 20)
        self.assertFalse(pace.too_small(5020))
        self.assertEqual((1 << 20, 500), (pace.size, pace.delay_ms))

    def test_shrinks(self) -> None:
        """After a big message the size goes back in halves, no lower than it was."""
        pace = pacing(1000)
        pace.too_small(9000)
        sizes = []
        for length in (8000, 100, 100, 100, 100, 100):
            pace.received(length)
            sizes.append(pace.size)
        self.assertEqual([9000, 4500, 2250, 1125, 1000, 1000], sizes)

    def test_shrinks_below_half(self) -> None:
        """A batch of half the size keeps it; a byte less does not."""
        for length, size in ((4500, 9000), (4499, 4500)):
            pace = pacing(1000)
            pace.too_small(9000)
            pace.received(length)
            self.assertEqual(size, pace.size)

    def test_counters_are_apart(self) -> None:
        """A batch that was processed, or failed, ends the count of fruitless fetches."""
        pace = pacing()
        pace.too_small(0)
        pace.processed(3)
        self.assertEqual(0, pace.fruitless)
