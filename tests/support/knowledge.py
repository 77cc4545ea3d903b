"""
The knowledge of a client about its transactions when the broker dies, and their possible outcomes.

Every step that was not answered may have happened or not; every answer is a promise.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum


class Known(Enum):
    """The client's knowledge of its transaction."""

    OPEN = "no outcome and no prepare was sent, or the rollback of an unprepared one"
    PREPARING = "prepare was sent"
    PREPARED = "prepare was answered"
    COMMITTING = "commit of an unprepared one was sent"
    DECIDING = "commit of a prepared one was sent"
    COMMITTED = "commit was answered"
    ROLLING_BACK = "rollback of a prepared one was sent"
    ROLLED_BACK = "rollback was answered"


WHOLE, NONE, LISTED = "whole", "none", "listed"

ALLOWED = {
    Known.OPEN: {NONE},
    Known.PREPARING: {NONE, LISTED},
    Known.PREPARED: {LISTED},
    Known.COMMITTING: {WHOLE, NONE},
    Known.DECIDING: {WHOLE, LISTED},
    Known.COMMITTED: {WHOLE},
    Known.ROLLING_BACK: {NONE, LISTED},
    Known.ROLLED_BACK: {NONE},
}

SEEN = {WHOLE: Known.COMMITTED, LISTED: Known.PREPARED, NONE: Known.ROLLED_BACK}
"""An outcome that was seen once must not change."""


class KnownTransaction:
    """
    The requests and replies of one client.

    :ivar bodies: of the puts that were answered, by partition, in order.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.known = Known.OPEN
        self.bodies: dict[Hashable, list[bytes]] = {}

    def __repr__(self) -> str:
        return f"<{self.key} {self.known.name} {self.bodies}>"

    def judge(self, stored: set[bool], is_listed: bool) -> None:
        """
        Compare the replies with the stored messages, after a start.

        :param stored: for every partition with messages, whether its block is there.
        :raises AssertionError: a promise was not kept.
        """
        if len(stored) > 1:
            raise AssertionError(f"in parts: {self}")
        whole = stored == {True}
        if whole and is_listed:
            raise AssertionError(f"stored and listed: {self}")
        outcome = WHOLE if whole else LISTED if is_listed else NONE
        if not self.bodies and outcome is NONE:
            return
        if outcome not in ALLOWED[self.known]:
            raise AssertionError(f"{outcome}: {self}")
        self.known = SEEN[outcome]


def block_stands(there: list[bytes], places: dict[bytes, int], bodies: list[bytes]) -> bool:
    """
    Whether these stand there in one piece.

    :param there: the bodies in a partition.
    :param places: their indices.
    :raises AssertionError: a part of them does.
    """
    at = places.get(bodies[0])
    if at is None:
        if any(body in places for body in bodies):
            raise AssertionError(f"a part of {bodies}")
        return False
    if there[at : at + len(bodies)] != bodies:
        raise AssertionError(f"torn: {bodies} in {there[at : at + len(bodies)]}")
    return True
