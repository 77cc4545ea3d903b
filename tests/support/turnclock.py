"""A clock with turns."""

from __future__ import annotations

from twisted.internet.task import Clock


class TurnClock(Clock):
    """As a reactor: what a call plans for now is made in the next turn, not in this one."""

    def advance(self, amount: float) -> None:
        """One turn, so many seconds later."""
        self.rightNow += amount
        for call in [each for each in self.calls if each.getTime() <= self.seconds()]:
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)
