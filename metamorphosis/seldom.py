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
"""From the line that says that a fault has begun, or was counted, to the next one: doubled each
time."""
MOST: Final = 16
"""Faults of different kinds at the same time; those of further kinds count as one."""
OTHERS: Final = "other faults"


class Timed(Protocol):
    """Of a function that is called later."""

    def cancel(self) -> object:
        """It is not called any more."""


class Spell:
    """A fault that has begun."""

    __slots__ = ("again", "last", "pause", "place", "timer", "total")

    def __init__(self, pause: float) -> None:
        self.total = 0
        self.again = 0  # since the last line
        self.last = 0.0  # when it came last
        self.place = ""
        self.pause = pause
        self.timer: Timed | None = None  # of the next line, once there is something to count


class Recurring:
    """
    Faults that come again and again, like messages that are lost. The log has a line when one
    begins, lines that count while it goes on, and one when it is over: when it has not come again
    between two lines.

    :param seconds: the time, of a clock that is never set back.
    :param later: calls a function after so many seconds.
    :param counted: logs ``(what, count, seconds, place)``: a fault came again so often.
    :param over: logs ``(what, count, seconds)``: a fault has not come for so long; how often it
        came in all.
    :param free: how often a fault is logged before it is counted.
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
        A fault has come. Whether the caller logs it.

        :param what: of its kind; those that differ only in their place are one.
        :param place: where, for the lines that count.
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
        """Log what was counted. Of faults that come afterwards only the first is logged."""
        self._closed = True
        for what, spell in self._spells.items():
            if spell.timer is not None:
                spell.timer.cancel()
                spell.timer = None
            self._count(what, spell)

    def _spell(self, what: str) -> tuple[str, Spell]:
        """That of a fault, begun anew if it has not come for long."""
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
