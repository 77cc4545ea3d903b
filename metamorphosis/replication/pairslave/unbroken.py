"""
Partitions whose master is joining: it sends many records that it has acknowledged before, and a
hole among them could not be filled with ``sync``. So after a refused record no other is stored,
although the disk may have room again, until the master has asked for the end of the log.

The group in a master's ``offset`` requests announces its next step:

    state     event                                       state
    -         a request of the group ``JOINING_GROUP``    JOINING
    JOINING   a record is refused                         BROKEN: all later ones are refused
    any       a request of any other group                -
    any       a request of ``JOINING_GROUP``              JOINING

The state belongs to a connection; that of another connection replaces it. The original sends no
such requests: each of its records is stored or refused by itself.
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
    """The states of all partitions. Thread: reactor."""

    def __init__(self) -> None:
        self._states: dict[Place, tuple[Session, _State]] = {}

    def asked(self, place: Place, group: str, session: Session) -> None:
        """
        Note a request for the end of a partition's log.

        :param place: a configured partition.
        """
        if group == JOINING_GROUP:
            self._states[place] = session, _State.JOINING
            session.on_lost(self._lost)
        elif self._of(place, session) is not None:
            del self._states[place]

    def refused(self, place: Place) -> bool:
        """Note a refused record; returns whether later ones must be refused as well."""
        found = self._states.get(place)
        if found is not None:
            self._states[place] = found[0], _State.BROKEN
        return found is not None

    def is_broken(self, place: Place, session: Session) -> bool:
        """Whether a record must be refused because of an earlier one."""
        return self._of(place, session) is _State.BROKEN

    def _of(self, place: Place, session: Session) -> _State | None:
        found = self._states.get(place)
        return None if found is None or found[0] is not session else found[1]

    def _lost(self, session: Session) -> None:
        for place in [each for each, (owner, _) in self._states.items() if owner is session]:
            del self._states[place]
