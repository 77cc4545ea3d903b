"""
One line of the log for the same event at many partitions, for instance a broker that does not
answer, or comes back without its latest messages.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from metamorphosis.client.model import Partition
from metamorphosis.client.network.links import Log
from metamorphosis.errors import MetaQError
from metamorphosis.interfaces import IRuntime, Timer

GATHER_SECONDS: Final = 1.0
"""After the first event of a kind: how long later ones are added to its line."""
SHOWN: Final = 5
"""Partitions named in one line."""

Tell = Callable[[list[str]], object]
"""Logs the line, with the gathered places."""


def some_of(places: list[str]) -> str:
    """The first of them, and how many more there are, for one line of the log."""
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return ", ".join(places[:SHOWN]) + more


class Gathering:
    """Lines that wait a moment for further partitions. Thread: the loop's."""

    def __init__(self, runtime: IRuntime) -> None:
        self._runtime = runtime
        self._gathered: dict[object, tuple[Timer, Tell, list[str]]] = {}

    def add(self, kind: object, place: str, tell: Tell) -> None:
        """
        The event happened at a place.

        :param kind: places of one kind are in one line.
        :param tell: logs the line; that of the first place is called.
        """
        if kind not in self._gathered:
            timer = self._runtime.call_later(GATHER_SECONDS, self._tell, kind)
            self._gathered[kind] = timer, tell, []
        self._gathered[kind][2].append(place)

    def close(self) -> None:
        """Log the gathered places."""
        for kind, (timer, _, _) in list(self._gathered.items()):
            timer.cancel()
            self._tell(kind)

    def _tell(self, kind: object) -> None:
        _, tell, places = self._gathered.pop(kind)
        tell(places)


class Complaints:
    """Of all fetch loops of a consumer. Thread: the loop's."""

    def __init__(self, gathering: Gathering, log: Log) -> None:
        self._gathering = gathering
        self._log = log

    def add(
        self,
        url: str,
        kind: object,
        topic: str,
        partition: Partition,
        offset: int,
        error: MetaQError,
    ) -> None:
        """
        A partition is not read.

        :param url: of the broker it should be read from.
        :param kind: of the error; the first error of a kind is logged for all.
        """
        place = f"{topic} {partition} at offset {offset}"
        self._gathering.add((url, kind), place, partial(self._tell, error))

    def _tell(self, error: MetaQError, places: list[str]) -> None:
        self._log.warn(
            "{places} {verb} not read: {error}; still trying",
            places=some_of(places),
            verb="is" if len(places) == 1 else "are",
            error=error,
        )
