"""A clock with turns."""

from __future__ import annotations

from twisted.internet.task import Clock


class TurnClock(Clock):
    """Like a reactor: a call planned for now during a turn runs in the next turn."""

    def advance(self, amount: float) -> None:
        """Run one turn after ``seconds``."""
        self.rightNow += amount
        for call in [each for each in self.calls if each.getTime() <= self.seconds()]:
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)
