"""``--from`` and numbers."""

from __future__ import annotations

import argparse
from datetime import datetime

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cli.arguments import Start, StartKind, count, start


class StartTests(SynchronousTestCase):
    """``--from``."""

    def test_words_and_offsets(self) -> None:
        """The ends of the log, the group's position, an offset."""
        for text, expected in (
            ("stored", Start(StartKind.STORED)),
            ("earliest", Start(StartKind.EARLIEST)),
            ("latest", Start(StartKind.LATEST)),
            ("0", Start(StartKind.OFFSET, 0)),
            ("9223372036854775807", Start(StartKind.OFFSET, (1 << 63) - 1)),
        ):
            self.assertEqual(start(text), expected)

    def test_times(self) -> None:
        """With a zone, or local time."""
        for text, milliseconds in (
            ("2025-11-30T08:00:00Z", 1764489600000),
            ("2025-11-30T08:00:00.5+00:00", 1764489600500),
            ("2025-11-30T16:00+08:00", 1764489600000),
            ("2025-11-30 08:00", int(datetime(2025, 11, 30, 8).timestamp() * 1000)),
            ("2025-11-30", int(datetime(2025, 11, 30).timestamp() * 1000)),
        ):
            self.assertEqual(start(text), Start(StartKind.TIME, milliseconds))
            self.assertEqual(start(text).milliseconds(5.0), milliseconds)

    def test_ages(self) -> None:
        """Counted back from now."""
        for text, seconds in (("90s", 90), ("15m", 900), ("2h", 7200), ("3d", 259200)):
            self.assertEqual(start(text), Start(StartKind.AGE, seconds * 1000))
            self.assertEqual(start(text).milliseconds(1e6), int((1e6 - seconds) * 1000))

    def test_others(self) -> None:
        """The error names all valid forms."""
        for text in ("begin", "-1", "2025-13-01", "1x", "٣", "", "12345678901234567890"):
            error = self.assertRaises(argparse.ArgumentTypeError, start, text)
            self.assertIn("earliest, latest, stored, an offset, a time", str(error))

    def test_counts(self) -> None:
        """0 is valid."""
        self.assertEqual(count("0"), 0)
        for text in ("-1", "1.5", "x", "²"):
            self.assertRaises(argparse.ArgumentTypeError, count, text)
