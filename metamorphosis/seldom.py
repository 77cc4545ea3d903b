"""Limits for log lines that can occur many times a second, or repeatedly. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

SECONDS: Final = 10.0
"""Seconds between two lines."""


class Seldom:
    """
    One kind of line.

    :param seconds: a monotonic clock.
    :ivar left_out: the number of lines left out between the last two that were logged.
    """

    __slots__ = ("_next", "_seconds", "_skipped", "left_out")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.left_out = 0
        self._seconds = seconds
        self._next = float("-inf")
        self._skipped = 0

    def may_log(self) -> bool:
        """Whether such a line may be logged now; the first one may be at once."""
        now = self._seconds()
        if now < self._next:
            self._skipped += 1
            return False
        self._next = now + SECONDS
        self.left_out, self._skipped = self._skipped, 0
        return True


FIRST_SECONDS: Final = 10.0
LONGEST_SECONDS: Final = 640.0
"""Seconds from the first line of a fault to the first line with a count; doubled for each next
line."""
MOST: Final = 16
"""Limit of kinds of faults at a time; faults of further kinds count as one kind."""
OTHERS: Final = "other faults"


class Timed(Protocol):
    """A planned call."""

    def cancel(self) -> object:
        """Cancel the call."""


class Spell:
    """A fault from its first to its last occurrence."""

    __slots__ = ("again", "last", "pause", "place", "timer", "total")

    def __init__(self, pause: float) -> None:
        self.total = 0
        self.again = 0  # since the last line
        self.last = 0.0  # time of the last occurrence
        self.place = ""
        self.pause = pause
        self.timer: Timed | None = None  # of the next line


class Recurring:
    """
    Faults that occur repeatedly, like the loss of messages. One line is logged when a fault begins,
    lines with a count follow while it lasts, and one when it is over: when it has not occurred
    between two lines.

    :param seconds: a monotonic clock.
    :param later: calls a function after a number of seconds.
    :param counted: logs ``(what, count, seconds, place)``: the occurrences since the last line.
    :param over: logs ``(what, count, seconds)``: all occurrences, and the time without one.
    :param free: occurrences that are logged before they are counted.
    :param pause: seconds from the first line to the second: more than between two attempts.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        later: Callable[..., Timed],
        counted: Callable[[str, int, float, str], object],
        over: Callable[[str, int, float], object],
        free: int = 1,
        pause: float = FIRST_SECONDS,
    ) -> None:
        self._seconds = seconds
        self._later = later
        self._counted = counted
        self._over = over
        self._free = free
        self._pause = pause
        self._spells: dict[str, Spell] = {}
        self._closed = False

    def begins(self, what: str, place: str = "") -> bool:
        """
        Count a fault; returns whether the caller is to log it.

        :param what: its kind; faults that differ only in their place are of one kind.
        :param place: its place, for the lines with a count.
        """
        what, spell = self._spell(what)
        spell.total += 1
        spell.last = self._seconds()
        if spell.total <= self._free:
            return True
        spell.again += 1
        spell.place = place
        if spell.timer is None and not self._closed:
            spell.timer = self._later(spell.pause, self._look, what)
        return False

    def close(self) -> None:
        """Log the counts. Of each later kind only the first fault is logged."""
        self._closed = True
        for what, spell in self._spells.items():
            if spell.timer is not None:
                spell.timer.cancel()
                spell.timer = None
            self._count(what, spell)

    def _spell(self, what: str) -> tuple[str, Spell]:
        """The spell of a fault, a new one if the last one is over."""
        if what not in self._spells and len(self._spells) >= MOST:
            self._spells = {each: one for each, one in self._spells.items() if self._goes_on(one)}
            if len(self._spells) >= MOST:
                what = OTHERS
        spell = self._spells.get(what)
        if spell is None or not self._goes_on(spell):
            spell = self._spells[what] = Spell(self._pause)
        return what, spell

    def _goes_on(self, spell: Spell) -> bool:
        soon = self._seconds() - spell.last < spell.pause
        return soon or spell.timer is not None or self._closed

    def _look(self, what: str) -> None:
        spell = self._spells[what]
        if self._count(what, spell):
            spell.pause = min(2 * spell.pause, max(LONGEST_SECONDS, self._pause))
            spell.timer = self._later(spell.pause, self._look, what)
            return
        del self._spells[what]
        self._over(what, spell.total, spell.pause)

    def _count(self, what: str, spell: Spell) -> bool:
        if not spell.again:
            return False
        self._counted(what, spell.again, spell.pause, spell.place)
        spell.again = 0
        return True
