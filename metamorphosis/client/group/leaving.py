"""
Partitions whose broker has left ZooKeeper and still answers. It takes messages until its clients
have let go of it, and what was put last would otherwise be read only when it is back.

Differs: the original lets go of a broker with its nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from metamorphosis.client.group.clusterview import ClusterView
from metamorphosis.client.group.committing import Key

LINGER_SECONDS = 10.0
"""How long such a partition is read on; a broker closes its port after ``zk.zkSyncTimeMs``, 5 s."""


class Leaving:
    """
    What a member goes on reading. Thread: the loop's.

    :param is_answered: whether the broker that a partition was last read from is still connected.
    :param changed: called when that may have changed for one of these.
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
        """What was read on at the last look."""
        return set(self._until)

    @property
    def next_end(self) -> float:
        """When the first of them ends, seconds; infinite without any."""
        return min(self._until.values(), default=float("inf"))

    def look(self, view: ClusterView, held: Iterable[Key], now: float) -> None:
        """Find those of ``held`` that ZooKeeper does not list any more and that are read on."""
        found: dict[Key, float] = {}
        for key in held:
            topic, partition = key
            if topic not in view.topics or str(partition) in view.partitions.get(topic, ()):
                continue
            until = self._until.get(key, now + LINGER_SECONDS)
            if now < until and self._is_answered(key):
                found[key] = until
        self._until = found
