"""
Cron expressions in the syntax of Quartz 2.1.7, as ``deleteWhen`` has them: seconds, minutes, hours,
day of month, month, day of week and optionally the year.

Why not a library: no library on PyPI both reads this syntax completely and is maintained. croniter
and cronsim have the seconds in another place or not at all, and lack ``W`` and the ``?`` rule;
aws-croniter has no seconds, quartz-cron-checker computes no times, the last releases of
cron-schedule-triggers and tzcron are of 2019 and 2016.

Differs: Quartz ignores unknown text after a valid beginning (``MONDAY``, ``MON-FRI/2``, an eighth
field) and accepts ``15W`` and ``2#1`` in lists, of which it then uses one element; all these are
refused here. A day that a month lacks (``31W``, ``L-30`` in February) is skipped, not taken from a
neighbouring month.

Source: ``org.quartz.CronExpression``.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import partial

#: Days of a year and month on which an expression fires.
Days = Callable[[int, int], Iterable[int]]

#: Quartz searches this many years ahead.
_YEARS_AHEAD = 100
_SECOND = timedelta(seconds=1)
_NO_NAMES: dict[str, int] = {}
_MONTHS = {
    name: number
    for number, name in enumerate(
        "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split(), start=1
    )
}
_WEEKDAYS = {
    name: number for number, name in enumerate("SUN MON TUE WED THU FRI SAT".split(), start=1)
}


@dataclass(frozen=True, slots=True)
class _Field:
    """The allowed values of one field."""

    name: str
    low: int
    high: int
    names: dict[str, int]
    wraps: bool = True

    def values(self, text: str) -> frozenset[int]:
        """The values of a list of numbers, names, ranges and steps."""
        return frozenset(value for item in text.split(",") for value in self._item(item))

    def _item(self, item: str) -> Iterable[int]:
        """
        ``*``, ``a``, ``a-b``, each with an optional ``/step``; ``/step`` alone counts from the
        lowest value.
        """
        match = re.fullmatch(r"(\*?|(\w+)(?:-(\w+))?)(?:/([0-9]{1,4}))?", item, re.ASCII)
        if match is None or not item:
            raise ValueError(f"{self.name}: {item!r} is not a value, range or step")
        whole, first, last, step = match.groups()
        if first in self.names or last in self.names:
            # Quartz refuses MON-6 and silently skips the step of MON-FRI/2.
            if step or (last and not (first in self.names and last in self.names)):
                raise ValueError(
                    f"{self.name}: names have no step and no range to numbers, found {item!r}"
                )
        increment = int(step or 1)
        if step and first is None and increment > self.high:
            raise ValueError(f"{self.name}: the step {increment} is above {self.high}")
        if first is None:
            return range(self.low, self.high + 1, increment or 1)
        start = self.number(first)
        stop = self.number(last) if last else self.high if step else start
        if increment == 0:
            return (start,)
        if stop < start and not self.wraps:
            raise ValueError("Start year must be less than stop year")
        span = self.high - self.low + 1
        stop += span if stop < start else 0
        return ((value - self.low) % span + self.low for value in range(start, stop + 1, increment))

    def number(self, text: str) -> int:
        """The value of a number or a name."""
        value = self.names.get(text, -1)
        if value < 0 and text.isascii() and text.isdigit():
            value = int(text[:9])
        if not self.low <= value <= self.high:
            names = f" or names such as {next(iter(self.names))}" if self.names else ""
            raise ValueError(
                f"{self.name} values must be between {self.low} and {self.high}{names},"
                f" found {text!r}"
            )
        return value


_SECONDS = _Field("Second", 0, 59, _NO_NAMES)
_MINUTES = _Field("Minute", 0, 59, _NO_NAMES)
_HOURS = _Field("Hour", 0, 23, _NO_NAMES)
_DAY_OF_MONTH = _Field("Day of month", 1, 31, _NO_NAMES)
_MONTH = _Field("Month", 1, 12, _MONTHS)
_DAY_OF_WEEK = _Field("Day-of-Week", 1, 7, _WEEKDAYS)
_YEAR = _Field("Year", 1970, 2999, _NO_NAMES, wraps=False)


def _length(year: int, month: int) -> int:
    """Number of days of the month."""
    return calendar.monthrange(year, month)[1]


def _weekday(year: int, month: int, day: int) -> int:
    """1 is Sunday, 7 is Saturday."""
    return (calendar.weekday(year, month, day) + 1) % 7 + 1


def _of_month(days: frozenset[int], year: int, month: int) -> Iterable[int]:
    """``1,15``: these days as far as the month has them."""
    last = _length(year, month)
    return (day for day in sorted(days) if day <= last)


def _nearest_weekday(day: int, year: int, month: int) -> Iterable[int]:
    """``15W``: the working day next to this one within the same month."""
    last = _length(year, month)
    if not 1 <= day <= last:
        return ()
    weekday = _weekday(year, month, day)
    if weekday == 7:
        return (day - 1 if day > 1 else day + 2,)
    if weekday == 1:
        return (day + 1 if day < last else day - 2,)
    return (day,)


def _last_day(offset: int, working: bool, year: int, month: int) -> Iterable[int]:
    """
    ``L``, ``L-3``, ``LW``: a number of days before the end of the month, or the working day next to
    that.
    """
    day = _length(year, month) - offset
    if day < 1:
        return ()
    return _nearest_weekday(day, year, month) if working else (day,)


def _of_week(weekdays: frozenset[int], year: int, month: int) -> Iterable[int]:
    """``MON-FRI``: all these days of the week."""
    days = range(1, _length(year, month) + 1)
    return (day for day in days if _weekday(year, month, day) in weekdays)


def _nth_of_week(weekday: int, nth: int, year: int, month: int) -> Iterable[int]:
    """``2#1``, and ``6L`` with nth -1: one of these days of the month, if the month has it."""
    found = list(_of_week(frozenset((weekday,)), year, month))
    return found[-1:] if nth < 0 else found[nth - 1 : nth]


def _parse_day_of_month(text: str) -> Days:
    """The field of days of the month, other than ``?``."""
    if "L" in text or "W" in text:
        last = re.fullmatch(r"L(?:-([0-9]{1,2}))?(W?)", text)
        if last is not None:
            offset = int(last[1] or 0)
            if offset > 30:
                raise ValueError("Offset from last day must be <= 30")
            return partial(_last_day, offset, bool(last[2]))
        if text.endswith("W") and text[:-1].isdigit():
            return partial(_nearest_weekday, _DAY_OF_MONTH.number(text[:-1]))
        raise ValueError(
            f"Day of month: {text!r} is none of L, L-3, LW and 15W, which cannot be combined with"
            " other days"
        )
    return partial(_of_month, _DAY_OF_MONTH.values(text))


def _parse_day_of_week(text: str) -> Days:
    """The field of days of the week, other than ``?``."""
    if text == "L":
        return partial(_of_week, frozenset((7,)))
    one = re.fullmatch(r"(\w+?)(?:(L)|#([1-5]))", text, re.ASCII)
    if one is not None:
        return partial(_nth_of_week, _DAY_OF_WEEK.number(one[1]), -1 if one[2] else int(one[3]))
    if "#" in text:
        raise ValueError(
            "A numeric value between 1 and 5 must follow the '#' option, which stands alone,"
            f" found {text!r}"
        )
    return partial(_of_week, _DAY_OF_WEEK.values(text))


def _parse_days(of_month: str, of_week: str) -> Days:
    """Exactly one of the two fields is ``?``."""
    if of_month == of_week == "?":
        raise ValueError("'?' can only be specified for Day-of-Month -OR- Day-of-Week.")
    if of_week == "?":
        return _parse_day_of_month(of_month)
    if of_month == "?":
        return _parse_day_of_week(of_week)
    raise ValueError(
        "Support for specifying both a day-of-week AND a day-of-month parameter is not implemented;"
        " one of the two must be '?'"
    )


@dataclass(frozen=True, slots=True)
class CronExpression:
    """A schedule. Made by ``parse``; values are ascending."""

    text: str
    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: Days
    months: tuple[int, ...]
    years: frozenset[int] | None

    @classmethod
    def parse(cls, text: str) -> CronExpression:
        """
        Read an expression, upper or lower case.

        :raises ValueError: with the original's message and the fault.
        """
        fields = text.upper().split()
        try:
            if not 6 <= len(fields) <= 7:
                raise ValueError(
                    "six or seven fields are needed (second minute hour day-of-month month"
                    f" day-of-week [year]), found {len(fields)}"
                )
            days = _parse_days(fields[3], fields[5])
            seconds, minutes, hours, months = (
                tuple(sorted(field.values(value)))
                for field, value in zip(
                    (_SECONDS, _MINUTES, _HOURS, _MONTH), (*fields[:3], fields[4]), strict=True
                )
            )
            years = _YEAR.values(fields[6]) if fields[6:] and fields[6] != "*" else None
        except ValueError as error:
            raise ValueError(f"CronExpression '{text}' is invalid,. {error}") from None
        return cls(text, seconds, minutes, hours, days, months, years)

    def next_after(self, after: datetime) -> datetime | None:
        """
        The first time later than ``after``, in the time zone of ``after``; a naive one is in the
        system's zone.

        Times in an hour that is skipped when the clocks go forward fire an hour later; times in an
        hour that occurs twice fire only the first time, unless the expression fires in every hour
        of the day.

        :return: None when it never fires again.
        """
        found = self.next_timestamp(after.timestamp(), after.tzinfo)
        return None if found is None else datetime.fromtimestamp(found, after.tzinfo)

    def next_timestamp(self, after: float, zone: tzinfo | None = None) -> float | None:
        """``next_after`` in seconds since 1970; ``zone`` None is the system's."""
        if len(self.hours) == 24:
            return self._next_of_every_hour(after, zone)
        wall = _wall(after, zone)
        while True:
            found = self._next_wall(wall)
            if found is None:
                return None
            instant = found.replace(tzinfo=zone).timestamp()
            if instant > after:
                return instant
            wall = found

    def _next_of_every_hour(self, after: float, zone: tzinfo | None) -> float | None:
        """The next time by a clock without a shift, started again after each shift of the real
        clock."""
        while True:
            offset = _offset(after, zone)
            found = self._next_wall(_wall(after, zone))
            if found is None:
                return None
            instant = after + (found - _wall(after, zone)).total_seconds()
            if _offset(instant, zone) == offset:
                return instant
            low, high = int(after), int(instant)
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset(middle, zone) == offset else (low, middle)
            # The second before the first one with the new offset, expressed in the new offset.
            found = self._next_wall(_wall(high, zone) - _SECOND)
            if found is None:
                return None
            instant = high + (found - _wall(high, zone)).total_seconds()
            if _offset(instant, zone) == _offset(high, zone):
                return instant
            after = high

    def _next_wall(self, after: datetime) -> datetime | None:
        """The first time later than ``after`` on a clock without time zones."""
        start = after.replace(microsecond=0, fold=0) + _SECOND
        for year in range(start.year, start.year + _YEARS_AHEAD + 1):
            if self.years is not None and year not in self.years:
                continue
            for month in self.months:
                if (year, month) >= (start.year, start.month):
                    found = self._next_in_month(year, month, start)
                    if found is not None:
                        return found
        return None

    def _next_in_month(self, year: int, month: int, start: datetime) -> datetime | None:
        """The first time in this month that is not earlier than ``start``."""
        for day in self.days(year, month):
            today = datetime(year, month, day)
            if today.date() < start.date():
                continue
            earliest = (start.hour, start.minute, start.second) if today < start else (0, 0, 0)
            time_of_day = self._next_time_of_day(earliest)
            if time_of_day is not None:
                return datetime(year, month, day, *time_of_day)
        return None

    def _next_time_of_day(self, earliest: tuple[int, int, int]) -> tuple[int, int, int] | None:
        """The first hour, minute and second that are not earlier than these."""
        for hour in self.hours:
            for minute in self.minutes if hour >= earliest[0] else ():
                if (hour, minute) < earliest[:2]:
                    continue
                for second in self.seconds:
                    if (hour, minute, second) >= earliest:
                        return hour, minute, second
        return None


def _wall(instant: float, zone: tzinfo | None) -> datetime:
    """The time that a clock in that zone shows, as a naive time."""
    return datetime.fromtimestamp(instant, zone).replace(tzinfo=None, fold=0)


def _offset(instant: float, zone: tzinfo | None) -> timedelta | None:
    """The distance of that clock from UTC."""
    return datetime.fromtimestamp(instant, zone).astimezone(zone).utcoffset()
