"""``metamorphosis.client.partitionsinfo``: the configured partitions of ordered producers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.model import Partition
from metamorphosis.client.partitionsinfo import parse_partitions, parse_partitions_info
from metamorphosis.errors import InvalidConfig


def parts(*texts: str) -> list[Partition]:
    """Partitions as ``<brokerId>-<number>``."""
    return [Partition.parse(text) for text in texts]


class ConfigurationTests(SynchronousTestCase):
    """``partitionsInfo``."""

    def test_row_85_expansion(self) -> None:
        """Row 85: ``;5:4;;1:3;;`` is seven partitions, sorted by number."""
        expected = parts("1-0", "1-1", "1-2", "5-0", "5-1", "5-2", "5-3")
        self.assertEqual(tuple(expected), parse_partitions(";5:4;;1:3;;"))

    def test_row_85_malformed(self) -> None:
        """Row 85: a missing count or one of 0 is an error that quotes the piece."""
        for text, piece in (("5:4;1", "1"), ("5:4;1:0", "1:0"), ("a:1", "a:1"), ("1:-1", "1:-1")):
            with self.assertRaisesRegex(ValueError, f"'{piece}' is not <brokerId>:<count>"):
                parse_partitions(text)

    def test_numeric_order(self) -> None:
        """Ten comes after two."""
        found = parse_partitions("10:1;2:12")
        self.assertEqual(
            parts("2-0", "2-1", "2-2", "2-10", "10-0"), [found[each] for each in (0, 1, 2, 10, 12)]
        )

    def test_of_all_topics(self) -> None:
        """By topic, with or without the original's prefix."""
        found = parse_partitions_info({"topic.num.a": "0:1", "b": "1:2"})
        self.assertEqual({"a": tuple(parts("0-0")), "b": tuple(parts("1-0", "1-1"))}, found)

    def test_error_names_the_topic(self) -> None:
        """A malformed value is found by its key."""
        with self.assertRaisesRegex(InvalidConfig, "partitions_info, topic.num.a: .*'x'"):
            parse_partitions_info({"topic.num.a": "x"})
