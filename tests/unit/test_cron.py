"""Cron expressions against Quartz 2.1.7: the vectors were computed by the original class."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cron import CronExpression

VECTORS = os.path.join(os.path.dirname(__file__), "quartz_vectors.json")
try:
    BERLIN: ZoneInfo | None = ZoneInfo("Europe/Berlin")
except ZoneInfoNotFoundError:
    BERLIN = None
NO_ZONES = None if BERLIN else "this system has no time zone data"


def times(text: str, after: datetime, count: int) -> list[str]:
    """The next times as text with their distance from UTC."""
    expression = CronExpression.parse(text)
    found = []
    for _ in range(count):
        next_time = expression.next_after(after)
        assert next_time is not None
        found.append(next_time.isoformat())
        after = next_time
    return found


class QuartzTests(SynchronousTestCase):
    """The original's own answers."""

    def setUp(self) -> None:
        """Read the vectors."""
        with open(VECTORS, encoding="ascii") as stream:
            self.vectors = json.load(stream)

    def test_times(self) -> None:
        """Every expression fires at the times at which Quartz fires."""
        for text, after, expected in self.vectors["valid"]:
            expression = CronExpression.parse(text)
            now, found = after / 1000, []
            for _ in expected:
                now = expression.next_timestamp(now, UTC) or 0.0
                found.append(int(now * 1000))
            self.assertEqual(found, expected, text)
        self.assertTrue(len(self.vectors["valid"]) > 100)

    def test_invalid(self) -> None:
        """What Quartz refuses is refused with its message and a reason."""
        for text in self.vectors["invalid"]:
            error = self.assertRaises(ValueError, CronExpression.parse, text)
            start = f"CronExpression '{text}' is invalid,. "
            self.assertTrue(str(error).startswith(start) and len(str(error)) > len(start), text)


class ParseTests(SynchronousTestCase):
    """What is wrong with an expression."""

    def test_reasons(self) -> None:
        """The reason names the field, what was found and what would be right."""
        for text, part in {
            "0 6 * * ?": "six or seven fields",
            "0 0 6 * * ? * *": "found 8",
            "0 0 6 * * *": "one of the two must be '?'",
            "0 0 6 ? * ?": "'?' can only be specified for Day-of-Month -OR- Day-of-Week.",
            "60 0 0 * * ?": "Second values must be between 0 and 59, found '60'",
            "0 60 0 * * ?": "Minute values must be between 0 and 59, found '60'",
            "0 0 25 * * ?": "Hour values must be between 0 and 23, found '25'",
            "0 0 0 32 * ?": "Day of month values must be between 1 and 31, found '32'",
            "0 0 0 1 13 ?": "Month values must be between 1 and 12 or names such as JAN",
            "0 0 0 ? * 8": "Day-of-Week values must be between 1 and 7 or names such as SUN",
            "0 0 0 1 * ? 1969": "Year values must be between 1970",
            "0 0 0 1 * ? 2030-2020": "Start year must be less than stop year",
            "*/60 0 0 * * ?": "the step 60 is above 59",
            "0 0 0 L-31 * ?": "Offset from last day must be <= 30",
            "0 0 0 L,3 * ?": "cannot be combined with other days",
            "0 0 0 1,15W * ?": "cannot be combined with other days",
            "0 0 0 ? * 2#6": "between 1 and 5 must follow the '#'",
            "0 0 0 ? * 2#1,3": "between 1 and 5 must follow the '#'",
            "0 0 0 ? * MON-FRI/2": "names have no step",
            "0 0 0 ? * MONDAY": "found 'MONDAY'",
            "0 0 0 1, * ?": "'' is not a value, range or step",
            "0 - 0 1 * ?": "'-' is not a value, range or step",
        }.items():
            error = self.assertRaises(ValueError, CronExpression.parse, text)
            self.assertIn(part, str(error), text)

    def test_lower_case(self) -> None:
        """Names may be written in lower case."""
        after = datetime(2026, 1, 1, tzinfo=UTC)
        self.assertEqual(times("0 0 6 ? jan mon", after, 1), times("0 0 6 ? JAN MON", after, 1))


class NextTests(SynchronousTestCase):
    """Times that no vector has."""

    def test_strictly_later(self) -> None:
        """A time at which it fires is not the next one, a moment before is followed by it."""
        expression = CronExpression.parse("0 0 6 * * ?")
        six = datetime(2026, 1, 1, 6, tzinfo=UTC)
        self.assertEqual(expression.next_after(six), six + timedelta(days=1))
        self.assertEqual(expression.next_after(six - timedelta(microseconds=1)), six)

    def test_never_again(self) -> None:
        """An expression whose years are over, or whose day never comes, has no next time."""
        now = datetime(2026, 1, 1, tzinfo=UTC)
        for text in ("0 0 6 * * ? 2025", "0 0 6 30 2 ?", "* * * 30 2 ?", "0 0 6 31W 2,4 ?"):
            self.assertIsNone(CronExpression.parse(text).next_after(now), text)

    def test_days_that_a_month_lacks(self) -> None:
        """A working day next to the 31st exists only where the 31st does."""
        after = datetime(2026, 1, 31, 12, tzinfo=UTC)
        self.assertEqual(times("0 0 6 31W * ?", after, 1), ["2026-03-31T06:00:00+00:00"])
        self.assertEqual(times("0 0 6 L-30 * ?", after, 1), ["2026-03-01T06:00:00+00:00"])

    def test_working_day_stays_in_its_month(self) -> None:
        """A Saturday moves back unless it is the first, a Sunday forward unless it is the last."""
        for text, expected in {
            "0 0 6 1W 8 ?": "2026-08-03",  # Saturday the 1st
            "0 0 6 2W 5 ?": "2026-05-01",  # Saturday the 2nd
            "0 0 6 31W 5 ?": "2026-05-29",  # Sunday the last
            "0 0 6 30W 8 ?": "2026-08-31",  # Sunday, one day before the last
            "0 0 6 LW 5 ?": "2026-05-29",
            "0 0 6 LW 2 ?": "2026-02-27",
        }.items():
            after = datetime(2026, 1, 1, tzinfo=UTC)
            self.assertEqual(times(text, after, 1), [f"{expected}T06:00:00+00:00"], text)

    def test_zone(self) -> None:
        """The time of day is that of the zone of the argument."""
        after = datetime(2026, 7, 1, tzinfo=timezone(timedelta(hours=2)))
        self.assertEqual(times("0 0 6 * * ?", after, 1), ["2026-07-01T06:00:00+02:00"])

    def test_system_zone(self) -> None:
        """A naive time is one of the system's zone, and so is the result."""
        found = CronExpression.parse("0 0 6 * * ?").next_after(datetime(2026, 1, 1, 5))
        self.assertEqual(found, datetime(2026, 1, 1, 6))


class DaylightSavingTests(SynchronousTestCase):
    """Clocks go forward on 2026-03-29 at 02:00 and back on 2026-10-25 at 03:00 in Berlin."""

    skip = NO_ZONES

    def test_skipped_hour(self) -> None:
        """A time in the skipped hour comes an hour later by the clock, and once."""
        self.assertEqual(
            times("0 30 2 * * ?", datetime(2026, 3, 28, 12, tzinfo=BERLIN), 2),
            ["2026-03-29T03:30:00+02:00", "2026-03-30T02:30:00+02:00"],
        )

    def test_skipped_and_following_hour(self) -> None:
        """Where the skipped time meets another one, there is one firing."""
        self.assertEqual(
            times("0 30 2,3,4 * * ?", datetime(2026, 3, 29, 0, tzinfo=BERLIN), 3),
            [
                "2026-03-29T03:30:00+02:00",
                "2026-03-29T04:30:00+02:00",
                "2026-03-30T02:30:00+02:00",
            ],
        )

    def test_repeated_hour(self) -> None:
        """A time in the repeated hour comes the first time only."""
        self.assertEqual(
            times("0 30 2 * * ?", datetime(2026, 10, 24, 12, tzinfo=BERLIN), 2),
            ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"],
        )

    def test_from_within_the_repeated_hour(self) -> None:
        """From the second pass of the hour on, its times are over."""
        after = datetime(2026, 10, 25, 2, 10, fold=1, tzinfo=BERLIN)
        self.assertEqual(times("0 30 2 * * ?", after, 1), ["2026-10-26T02:30:00+01:00"])

    def test_every_hour_in_the_repeated_hour(self) -> None:
        """What fires all day long fires in both passes."""
        self.assertEqual(
            times("0 0/30 * * * ?", datetime(2026, 10, 25, 2, 10, tzinfo=BERLIN), 4),
            [
                "2026-10-25T02:30:00+02:00",
                "2026-10-25T02:00:00+01:00",
                "2026-10-25T02:30:00+01:00",
                "2026-10-25T03:00:00+01:00",
            ],
        )

    def test_every_hour_over_the_skipped_hour(self) -> None:
        """What fires all day long continues after the skipped hour."""
        self.assertEqual(
            times("0 0/30 * * * ?", datetime(2026, 3, 29, 1, 10, tzinfo=BERLIN), 3),
            [
                "2026-03-29T01:30:00+01:00",
                "2026-03-29T03:00:00+02:00",
                "2026-03-29T03:30:00+02:00",
            ],
        )

    def test_every_hour_of_a_later_day(self) -> None:
        """A shift of the clock between now and the next time moves that time along."""
        after = datetime(2026, 3, 28, 12, tzinfo=BERLIN)
        self.assertEqual(times("0 0 * 1 4 ?", after, 1), ["2026-04-01T00:00:00+02:00"])
