"""
What many partitions have to complain of at the same time, as one line of the log: a broker that
stands still is one event, however many of its partitions are read.
"""

from __future__ import annotations

from typing import Final

from metamorphosis.client.model import Partition
from metamorphosis.client.network.links import Log
from metamorphosis.errors import MetaQError
from metamorphosis.interfaces import IRuntime, Timer

GATHER_SECONDS: Final = 1.0
"""How long after the first complaint of a kind the others may come."""
SHOWN: Final = 5
"""Partitions named in one line."""


def some_of(places: list[str]) -> str:
    """The first of them, and how many more there are, for one line of the log."""
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return ", ".join(places[:SHOWN]) + more


class Complaints:
    """Of all fetch loops of a consumer. Thread: the loop's."""

    def __init__(self, runtime: IRuntime, log: Log) -> None:
        self._runtime = runtime
        self._log = log
        self._gathered: dict[tuple[str, object], tuple[Timer, MetaQError, list[str]]] = {}

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
        :param kind: of the error; the first one of a kind speaks for all.
        """
        key = url, kind
        if key not in self._gathered:
            timer = self._runtime.call_later(GATHER_SECONDS, self._tell, key)
            self._gathered[key] = timer, error, []
        self._gathered[key][2].append(f"{topic} {partition} at offset {offset}")

    def close(self) -> None:
        """Say what has been gathered."""
        for key, (timer, _, _) in list(self._gathered.items()):
            timer.cancel()
            self._tell(key)

    def _tell(self, key: tuple[str, object]) -> None:
        _, error, places = self._gathered.pop(key)
        self._log.warn(
            "{places} {verb} not read: {error}; still trying",
            places=some_of(places),
            verb="is" if len(places) == 1 else "are",
            error=error,
        )
