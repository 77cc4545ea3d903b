"""
For how many events a connection stays slow, before the turn in C serves it again.

A connection whose requests are mostly not ordinary would change between C and Python all the time.
So each time that the turn leaves bytes after taking little, the connection stays slow for twice as
many events.
"""

from __future__ import annotations

LONGEST = 63
"""The most events for which a connection stays slow."""

WORTH = 1024
"""If the turn took at least this many bytes of requests, it was worth making the connection
plain."""


class SlowSpells:
    """The connections whose last requests were not ordinary. Pure."""

    def __init__(self) -> None:
        self._spells: dict[int, list[int]] = {}  # remaining events, and their first number

    def left(self, descriptor: int, taken: int) -> None:
        """The turn has left bytes of this socket, after ``taken`` bytes of requests."""
        if taken >= WORTH:
            self.forget(descriptor)
            return
        spell = self._spells.setdefault(descriptor, [0, 0])
        spell[0] = spell[1] = min(2 * spell[1] + 1, LONGEST)

    def goes_on(self, descriptor: int) -> bool:
        """Whether the connection is served in Python at this event, too."""
        spell = self._spells.get(descriptor)
        if spell is None or spell[0] == 0:
            return False
        spell[0] -= 1
        return True

    def forget(self, descriptor: int) -> None:
        """The next spell is a short one again."""
        self._spells.pop(descriptor, None)
