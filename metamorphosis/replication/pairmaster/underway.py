"""The pending flights, in the order in which they were sent."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import Final

from metamorphosis.replication.pairmaster.fields import UnderWayFields
from metamorphosis.replication.pairmaster.flights import Flight
from metamorphosis.replication.pairmaster.frames import OPAQUES

NEVER: Final = float("inf")

STUCK_SECONDS: Final = 30.0
"""Time after its time limit at which a flight counts as lost."""

MANY: Final = 1000
"""The number of ended flights that are removed at once."""

_number = attrgetter("number")


class UnderWay(UnderWayFields):
    """The pending flights. Thread: reactor."""

    __slots__ = ()

    def __init__(self) -> None:
        self._many = MANY
        self._flights: list[Flight] = []  # by number; those before _first are over
        self._first = 0

    def __iter__(self) -> Iterator[Flight]:
        """The pending flights, and some that have ended."""
        return iter(self._flights[self._first :])

    def add(self, flight: Flight) -> None:
        """Add the flight that was sent last."""
        self._flights.append(flight)

    def find(self, opaque: int) -> tuple[Flight, int] | tuple[None, int]:
        """
        The flight of the pending record with this opaque, and the record's number in it; None
        without such a record.
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

    def take_expected(self, data: bytes) -> int:
        """
        Pass on the replies at the front of ``data`` that accept the oldest pending puts, each at
        its offset: the usual ones, without an object for each. Returns the number of their bytes.
        """
        end = 0
        while self._first < len(self._flights):
            flight = self._flights[self._first]
            if flight.batch is None:
                break
            before = end
            end = flight.batch.store.accepted_next(flight, data, before)
            if len(self._flights) == 1 and flight.done == flight.count:  # as ``trim``
                self._flights.clear()
            else:
                self.trim()
            if end == before:
                break
        return end

    def oldest(self, default: int) -> int:
        """The number of the oldest pending flight."""
        self.trim()
        return self._flights[self._first].number if self._flights else default

    def trim(self) -> None:
        """Remove ended flights at the front."""
        flights, first = self._flights, self._first
        end = len(flights)
        while first < end and flights[first].done == flights[first].count:
            first += 1
        if first == end:
            flights.clear()
            first = 0
        elif first > self._many:
            del flights[:first]
            first = 0
        self._first = first

    def take_all(self) -> list[Flight]:
        """Remove and return all pending flights."""
        flights = [each for each in self if not each.is_over]
        self._flights.clear()
        self._first = 0
        return flights

    def overdue(self, now: float) -> tuple[list[Flight], float, bool]:
        """
        The flights whose time limit has passed, each once; the time of the next check; and whether
        one has been late for ``STUCK_SECONDS``.
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
