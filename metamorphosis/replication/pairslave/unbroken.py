"""
Partitions whose master is joining: it sends many records that it has acknowledged before, and a
hole among them could not be filled with ``sync``. So after one that is refused no other is stored,
although the disk may have room again, until the master has asked where the log ends.

A master says by the group of its ``offset`` questions what it is about to do:

    state     event                                       state
    -         a question of the group ``JOINING_GROUP``   JOINING
    JOINING   a record is refused                         BROKEN: all that follow are refused
    any       a question of any other group               -
    any       one of ``JOINING_GROUP``                    JOINING

The state belongs to a connection; one of another connection takes its place. The original asks
nothing, and is refused record by record as ever.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from metamorphosis.replication.role import JOINING_GROUP

if TYPE_CHECKING:
    from metamorphosis.broker.session import Session

Place = tuple[str, int]
"""Topic and partition."""

REASON: Final = "a record before this one was refused; ask where the log ends first"


class _State(Enum):
    """See the module."""

    JOINING = "nothing was refused yet"
    BROKEN = "a record was refused"


class Unbroken:
    """Thread: reactor."""

    def __init__(self) -> None:
        self._states: dict[Place, tuple[Session, _State]] = {}

    def asked(self, place: Place, group: str, session: Session) -> None:
        """
        The master, or anybody, has asked where the log of a partition ends.

        :param place: one that there may be here.
        """
        if group == JOINING_GROUP:
            self._states[place] = session, _State.JOINING
            session.on_lost(self._lost)
        elif self._of(place, session) is not None:
            del self._states[place]

    def refused(self, place: Place) -> bool:
        """A record is not stored; returns whether those behind it must not be either."""
        found = self._states.get(place)
        if found is not None:
            self._states[place] = found[0], _State.BROKEN
        return found is not None

    def is_broken(self, place: Place, session: Session) -> bool:
        """Whether a record must not be stored because of an earlier one."""
        return self._of(place, session) is _State.BROKEN

    def _of(self, place: Place, session: Session) -> _State | None:
        found = self._states.get(place)
        return None if found is None or found[0] is not session else found[1]

    def _lost(self, session: Session) -> None:
        for place in [each for each, (owner, _) in self._states.items() if owner is session]:
            del self._states[place]
