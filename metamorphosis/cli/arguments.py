"""Values of the command line of ``metaq``: numbers, points in time, places in a log."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from math import inf
from typing import NamedTuple

EARLIEST, LATEST, STORED = "earliest", "latest", "stored"

START_TEXT = (
    "earliest, latest, stored, an offset, a time such as 2026-11-30T08:00, 2026-11-30T08:00Z or"
    " 2026-11-30, or an age such as 90s, 15m, 2h or 3d"
)

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_AGE = re.compile(r"([0-9]{1,9})([smhd])")


class StartKind(Enum):
    """The kinds of values of ``--from``."""

    STORED = STORED
    """The position of the group."""
    EARLIEST = EARLIEST
    LATEST = LATEST
    OFFSET = "offset"
    """The offset of a byte in one partition."""
    TIME = "time"
    """The first message stored at or after a time."""
    AGE = "age"
    """The same, with a time relative to the start of the command."""


class Start(NamedTuple):
    """
    The place at which reading begins.

    :ivar value: an offset; a time, ms since 1970; an age, ms.
    """

    kind: StartKind
    value: int = 0

    def milliseconds(self, now: float) -> int:
        """
        The time of a ``TIME`` or ``AGE``, ms since 1970.

        :param now: wall clock, seconds since 1970.
        """
        return int(now * 1000) - self.value if self.kind is StartKind.AGE else self.value


def start(text: str) -> Start:
    """
    The value of ``--from``. A time without a zone is local time.

    :raises argparse.ArgumentTypeError: the text is not a start.
    """
    if text in (EARLIEST, LATEST, STORED):
        return Start(StartKind(text))
    if text.isascii() and text.isdecimal() and len(text) < 20:
        return Start(StartKind.OFFSET, int(text))
    age = _AGE.fullmatch(text)
    if age:
        return Start(StartKind.AGE, int(age[1]) * _SECONDS[age[2]] * 1000)
    try:
        seconds = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(f"{text!r} is none of: {START_TEXT}") from None
    return Start(StartKind.TIME, int(seconds * 1000))


def positive(kind: Callable[[str], float], most: float = inf) -> Callable[[str], float]:
    """An argument type for finite numbers above 0, up to ``most``."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value <= most or value == inf:
            limit = "" if most == inf else f" and up to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0{limit}")
        return value

    return parse


def count(text: str) -> int:
    """
    A whole number of 0 or more.

    :raises argparse.ArgumentTypeError: the text is not a number.
    """
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, as 0 or 1000")
    return int(text)


def target(text: str) -> str:
    """
    The value of ``metaq offsets --to``.

    :raises argparse.ArgumentTypeError: the text is not a place.
    """
    if text not in (EARLIEST, LATEST) and not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is neither earliest nor latest nor an offset")
    return text
