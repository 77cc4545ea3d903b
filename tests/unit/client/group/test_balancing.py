"""The two strategies against the vectors of the original's classes (client.md 9.3, row 57)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.group.balancing import (
    STRATEGIES,
    assign_by_ring,
    assign_ranges,
    partition_point,
    sort_as_java,
)
from metamorphosis.client.settingchecks import STRATEGIES as CONFIGURABLE

AB = ["g_a", "g_b"]
ABC = ["g_a", "g_b", "g_c"]
LONG = [
    "meta-example_10.0.0.1-1234-1374246091000-1",
    "meta-example_10.0.0.2-77-0b1d2f6e-3c1a-4a58-9b7e-1f2e3d4c5b6a",
]
SIX = ["0-0", "0-1", "0-2", "0-3", "1-0", "1-1"]
TWELVE = sorted(f"0-{number}" for number in range(12))

#: consumers, partitions, shares under DEFAULT, shares under CONSIST
VECTORS = [
    (AB, ["0-0"], ["0-0", ""], ["", "0-0"]),
    (AB, SIX, ["0-0 0-1 0-2", "0-3 1-0 1-1"], ["0-1 0-2 0-3 1-0 1-1", "0-0"]),
    (
        AB,
        TWELVE,
        ["0-0 0-1 0-10 0-11 0-2 0-3", "0-4 0-5 0-6 0-7 0-8 0-9"],
        ["0-1 0-10 0-2 0-3 0-5 0-6", "0-0 0-11 0-4 0-7 0-8 0-9"],
    ),
    (ABC, SIX, ["0-0 0-1", "0-2 0-3", "1-0 1-1"], ["0-1 0-2 0-3 1-0 1-1", "0-0", ""]),
    (
        ABC,
        TWELVE,
        ["0-0 0-1 0-10 0-11", "0-2 0-3 0-4 0-5", "0-6 0-7 0-8 0-9"],
        ["0-1 0-10 0-2 0-3 0-6", "0-0 0-11 0-4 0-9", "0-5 0-7 0-8"],
    ),
    (LONG, SIX, ["0-0 0-1 0-2", "0-3 1-0 1-1"], ["0-0 0-1 1-1", "0-2 0-3 1-0"]),
    (
        LONG,
        TWELVE,
        ["0-0 0-1 0-10 0-11 0-2 0-3", "0-4 0-5 0-6 0-7 0-8 0-9"],
        ["0-0 0-1 0-10 0-11 0-9", "0-2 0-3 0-4 0-5 0-6 0-7 0-8"],
    ),
]


class StrategyTests(SynchronousTestCase):
    """Row 57."""

    def test_vectors(self) -> None:
        """Every member gets what the original's classes computed."""
        for consumers, partitions, ranges, ring in VECTORS:
            for strategy, shares in ((assign_ranges, ranges), (assign_by_ring, ring)):
                for consumer, share in zip(consumers, shares, strict=True):
                    found = strategy(consumer, consumers, partitions)
                    self.assertEqual(share.split(), found, (strategy, consumer, partitions))

    def test_end_of_the_ring(self) -> None:
        """A partition behind the last point has the owner of the first one; by hand."""
        for partition in ("5-45", "12-52", "15-57"):
            self.assertEqual([partition], assign_by_ring("g_1", ["g_1", "g_2"], [partition]))

    def test_points(self) -> None:
        """Hashes of partitions, read little-endian and unsigned."""
        for text, point in (
            ("0-0", 53638855),
            ("0-1", 556329922),
            ("1-0", 1097442028),
            ("10-3", 3660172168),
        ):
            self.assertEqual(point, partition_point(text))

    def test_sizes_of_the_original_tests(self) -> None:
        """Ten partitions over four members, and over three."""
        partitions = sorted(f"0-{number}" for number in range(10))
        for consumers, sizes in (("abcd", [3, 3, 2, 2]), ("abc", [4, 3, 3])):
            shares = [assign_ranges(each, list(consumers), partitions) for each in consumers]
            self.assertEqual(sizes, [len(each) for each in shares])
            self.assertEqual(partitions, sum(shares, []))

    def test_unknown_member_gets_nothing(self) -> None:
        """A member that is not in the list has no share."""
        for strategy in STRATEGIES.values():
            self.assertEqual([], strategy("g_x", AB, SIX))
            self.assertEqual([], strategy("g_x", [], SIX))

    def test_nothing_to_share(self) -> None:
        """No partitions, no shares."""
        for strategy in STRATEGIES.values():
            self.assertEqual([], strategy("g_a", AB, []))

    def test_every_partition_has_one_owner(self) -> None:
        """Whatever the numbers, the shares are the whole, and no two overlap."""
        for count in range(1, 9):
            consumers = [f"g_{number}" for number in range(count)]
            for partitions in (TWELVE, SIX, TWELVE[:1]):
                for strategy in STRATEGIES.values():
                    shares = [strategy(each, consumers, partitions) for each in consumers]
                    self.assertEqual(sorted(partitions), sorted(sum(shares, [])))

    def test_settings_know_the_same(self) -> None:
        """What can be configured is there."""
        self.assertEqual(set(CONFIGURABLE), set(STRATEGIES))


class OrderTests(SynchronousTestCase):
    """Java compares UTF-16 code units."""

    def test_beyond_the_basic_plane(self) -> None:
        """U+1F600 is written with surrogates, which stand before U+FF41."""
        self.assertEqual(["\U0001f600", "\uff41"], sort_as_java(["\uff41", "\U0001f600"]))
        self.assertEqual(["\uff41", "\U0001f600"], sorted(["\U0001f600", "\uff41"]))

    def test_ascii(self) -> None:
        """Plain byte order, capitals first, shorter first."""
        self.assertEqual(["B", "a", "a-", "a1"], sort_as_java(["a1", "a", "B", "a-"]))
