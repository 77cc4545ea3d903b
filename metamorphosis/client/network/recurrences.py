"""
Lines of the log about what can happen to every message: one when it begins, then how often it came
again, and one when it is over.
"""

from __future__ import annotations

from metamorphosis.client.network.links import Log
from metamorphosis.interfaces import IRuntime
from metamorphosis.seldom import FIRST_SECONDS, Recurring


class Recurrences(Recurring):
    """
    See ``Recurring``. Thread: the loop's.

    :param free: how often each is logged before it is counted.
    :param pause: seconds from the first line to the second.
    """

    def __init__(
        self, runtime: IRuntime, log: Log, free: int = 1, pause: float = FIRST_SECONDS
    ) -> None:
        super().__init__(
            runtime.seconds, runtime.call_later, self._tell_again, self._tell_over, free, pause
        )
        self._log = log

    def _tell_again(self, what: str, count: int, seconds: float, place: str) -> None:
        self._log.warn(
            "{count} times more within {seconds:g} s: {what}{place}",
            count=count,
            seconds=seconds,
            what=what,
            place=f"; the last one: {place}" if place else "",
        )

    def _tell_over(self, what: str, count: int, seconds: float) -> None:
        self._log.info(
            "Not again for {seconds:g} s, after {count} times: {what}",
            count=count,
            seconds=seconds,
            what=what,
        )
