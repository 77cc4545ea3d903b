"""The flights that have not been answered, in the order in which they were sent."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import Final

from metamorphosis.replication.pairmaster.flights import Flight
from metamorphosis.replication.pairmaster.frames import OPAQUES

NEVER: Final = float("inf")

STUCK_SECONDS: Final = 30.0
"""A flight that is not answered so long after its time limit will not be."""

MANY: Final = 1000
"""So many that are over are forgotten at once."""

_number = attrgetter("number")


class UnderWay:
    """Thread: reactor."""

    def __init__(self) -> None:
        self._flights: list[Flight] = []  # by number; those before _first are over
        self._first = 0

    def __iter__(self) -> Iterator[Flight]:
        """Those that are not over, and some that are."""
        return iter(self._flights[self._first :])

    def add(self, flight: Flight) -> None:
        """It was sent last."""
        self._flights.append(flight)

    def find(self, opaque: int) -> tuple[Flight, int] | tuple[None, int]:
        """
        The flight, and the number in it of the record, that this opaque was given to and that has
        no answer; None if there is none.
        """
        flights, first = self._flights, self._first
        if first == len(flights) or opaque < 0:
            return None, 0
        flight = flights[first]
        record = (opaque - flight.number) % OPAQUES
        if record >= flight.count:
            number = flight.number + record
            flight = flights[bisect_right(flights, number, lo=first, key=_number) - 1]
            record = number - flight.number
        if flight.done <= record < flight.count and record not in flight.early:
            return flight, record
        return None, 0

    def trim(self) -> None:
        """Forget those at the front that are over."""
        flights, first = self._flights, self._first
        end = len(flights)
        while first < end and flights[first].done == flights[first].count:
            first += 1
        if first == end:
            flights.clear()
            first = 0
        elif first > MANY:
            del flights[:first]
            first = 0
        self._first = first

    def take_all(self) -> list[Flight]:
        """Those that are not over; nothing is under way any more."""
        flights = [each for each in self if not each.is_over]
        self._flights.clear()
        self._first = 0
        return flights

    def overdue(self, now: float) -> tuple[list[Flight], float, bool]:
        """
        Those whose time limit is over, each once; when to look again; and whether one has been late
        for ``STUCK_SECONDS``.
        """
        late: list[Flight] = []
        following = NEVER
        stuck = False
        for flight in self:
            if flight.is_over:
                continue
            if flight.deadline <= now:
                stuck = stuck or flight.is_late
                if not flight.is_late:
                    flight.is_late = True
                    late.append(flight)
                flight.deadline = now + STUCK_SECONDS
            following = min(following, flight.deadline)
        return late, following, stuck
