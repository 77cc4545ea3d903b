"""
Partitions whose broker has left ZooKeeper and still replies. Producers use such a broker until they
notice, and the last messages would otherwise be read only after its return.

Differs: the original stops reading from a broker when its nodes are deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from metamorphosis.client.group.clusterview import ClusterView
from metamorphosis.client.group.committing import Key

LINGER_SECONDS = 10.0
"""Such a partition is read this long; a broker closes its port after ``zk.zkSyncTimeMs``, 5 s."""


class Leaving:
    """
    The partitions that a member continues to read. Thread: the loop's.

    :param is_answered: whether the last broker of a partition is still connected.
    :param changed: called when this may have changed for one of them.
    """

    def __init__(self, is_answered: Callable[[Key], bool], changed: Callable[[], None]) -> None:
        self._is_answered = is_answered
        self._changed = changed
        self._until: dict[Key, float] = {}

    def connection_changed(self) -> None:
        """A connection to a broker has changed."""
        if self._until:
            self._changed()

    @property
    def keys(self) -> set[Key]:
        """The partitions that were continued at the last look."""
        return set(self._until)

    @property
    def next_end(self) -> float:
        """The end of the first of them, seconds; infinite without any."""
        return min(self._until.values(), default=float("inf"))

    def look(self, view: ClusterView, held: Iterable[Key], now: float) -> None:
        """Find the partitions of ``held`` that ZooKeeper does not list and whose broker replies."""
        found: dict[Key, float] = {}
        for key in held:
            topic, partition = key
            if topic not in view.topics or str(partition) in view.partitions.get(topic, ()):
                continue
            until = self._until.get(key, now + LINGER_SECONDS)
            if now < until and self._is_answered(key):
                found[key] = until
        self._until = found
