"""
Partitions whose broker has left ZooKeeper and still answers. Producers use such a broker until they
notice, and the last messages would otherwise be read only when it is back.

Differs: the original stops reading from a broker when its nodes go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from metamorphosis.client.group.clusterview import ClusterView
from metamorphosis.client.group.committing import Key

LINGER_SECONDS = 10.0
"""Such a partition is read this long; a broker closes its port after ``zk.zkSyncTimeMs``, 5 s."""


class Leaving:
    """
    The partitions that a member reads on. Thread: the loop's.

    :param is_answered: whether the broker that a partition was last read from is still connected.
    :param changed: called when this may have changed for one of them.
    """

    def __init__(self, is_answered: Callable[[Key], bool], changed: Callable[[], None]) -> None:
        self._is_answered = is_answered
        self._changed = changed
        self._until: dict[Key, float] = {}

    def connection_changed(self) -> None:
        """A connection to some broker has come or gone."""
        if self._until:
            self._changed()

    @property
    def keys(self) -> set[Key]:
        """The partitions that were read on at the last look."""
        return set(self._until)

    @property
    def next_end(self) -> float:
        """When the first of them ends, seconds; infinite without any."""
        return min(self._until.values(), default=float("inf"))

    def look(self, view: ClusterView, held: Iterable[Key], now: float) -> None:
        """Find the partitions of ``held`` that ZooKeeper does not list and whose broker answers."""
        found: dict[Key, float] = {}
        for key in held:
            topic, partition = key
            if topic not in view.topics or str(partition) in view.partitions.get(topic, ()):
                continue
            until = self._until.get(key, now + LINGER_SECONDS)
            if now < until and self._is_answered(key):
                found[key] = until
        self._until = found
