"""Names of directories and files, as the original reads and writes them."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import SegmentsInvalid, StoreError
from metamorphosis.store.layout import (
    ensure_directory,
    find_segments,
    parse_segment_name,
    partition_directory,
    segment_name,
    split_directory_name,
)


class LayoutTests(SynchronousTestCase):
    """Every name in both directions."""

    def test_segment_names(self) -> None:
        """Twenty digits are written, any decimal integer of 64 bits is read."""
        self.assertEqual(segment_name(524312), "00000000000000524312.meta")
        names = {
            "100.meta": 100,
            "-5.meta": -5,
            "+7.meta": 7,
            "9223372036854775807.meta": 2**63 - 1,
        }
        for name, start in names.items():
            self.assertEqual(parse_segment_name(name), start)

    def test_segment_names_that_are_none(self) -> None:
        """What ``int`` takes and Java does not is refused."""
        for text in ("abc", "", " 1", "1_0", "0x1", "9223372036854775808", "--1", "1.0"):
            error = self.assertRaises(SegmentsInvalid, parse_segment_name, text + ".meta")
            self.assertEqual(str(error), f'For input string: "{text}"')

    def test_directory_names(self) -> None:
        """Split at the last dash; the partition is an integer of 32 bits."""
        names = {"t-0": ("t", 0), "a-b-12": ("a-b", 12), "t--1": ("t-", 1), "-1": ("", 1)}
        for name, split in names.items():
            self.assertEqual(split_directory_name(name), split)
        self.assertIsNone(split_directory_name("transactions"))
        for name in ("t-x", "t-", "t-2147483648"):
            self.assertRaises(SegmentsInvalid, split_directory_name, name)

    def test_topic_that_leads_elsewhere(self) -> None:
        """A producer cannot make us write outside of the data path."""
        for topic in ("../t", "a/b", "a\0b"):
            self.assertRaises(StoreError, partition_directory, "data", topic, 0)

    def test_topic_that_the_file_system_refuses(self) -> None:
        """Too long a name is an error of the put, not of the broker."""
        path = partition_directory(self.mktemp(), "t" * 300, 0)
        os.makedirs(os.path.dirname(path))
        error = self.assertRaises(StoreError, ensure_directory, path)
        self.assertIn("File name too long", str(error))

    def test_name_that_cannot_be_encoded(self) -> None:
        """A name without bytes in the file system's encoding is an error, too."""
        path = self.mktemp()
        os.mkdir(path)
        self.assertRaises(StoreError, ensure_directory, os.path.join(path, "\ud800"))

    def test_directory_that_is_there(self) -> None:
        """Ensuring twice is fine."""
        path = self.mktemp()
        ensure_directory(path)
        ensure_directory(path)
        self.assertTrue(os.path.isdir(path))

    def test_missing_directory(self) -> None:
        """A directory that cannot be listed is named."""
        path = os.path.abspath(self.mktemp())
        error = self.assertRaises(StoreError, find_segments, path)
        self.assertIn(path, str(error))

    def test_order_of_segments(self) -> None:
        """Numbers are sorted as numbers, also below zero."""
        path = self.mktemp()
        os.mkdir(path)
        for name, size in (("5.meta", 100), ("-5.meta", 10), ("105.meta", 0)):
            with open(os.path.join(path, name), "wb") as file:
                file.write(bytes(size))
        self.assertEqual([found.start for found in find_segments(path)], [-5, 5, 105])
