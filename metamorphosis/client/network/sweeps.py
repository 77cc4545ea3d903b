"""One timer for all time limits of a connection: a sweep looks at them when the first is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from metamorphosis.interfaces import IRuntime, Timer

SWEEP_SECONDS: Final = 0.05
"""The shortest time between two sweeps: limits that differ by less are swept together."""

NEVER: Final = float("inf")


class Sweeps:
    """
    Plans the next sweep. Thread: the loop's.

    :param sweep: called at the planned time; it plans the next one.
    :ivar planned: when, seconds; ``NEVER``: there is no plan.
    """

    __slots__ = ("_runtime", "_sweep", "_timer", "planned")

    def __init__(self, runtime: IRuntime, sweep: Callable[[], None]) -> None:
        self.planned = NEVER
        self._runtime = runtime
        self._sweep = sweep
        self._timer: Timer | None = None

    def plan(self, when: float) -> None:
        """Sweep at that time, or earlier if a sweep is planned earlier."""
        if when >= self.planned:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.planned = when
        delay = max(when - self._runtime.seconds(), SWEEP_SECONDS)
        self._timer = self._runtime.call_later(delay, self._due)

    def cancel(self) -> None:
        """Forget the plan."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.planned = NEVER

    def _due(self) -> None:
        self._timer = None
        self.planned = NEVER
        self._sweep()
