"""Offsets that end with the process: for tests, and for consumers that keep no position."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from metamorphosis.client.checked import checked
from metamorphosis.client.model import Partition, StoredOffset
from metamorphosis.interfaces import IOffsetStore


@implementer(IOffsetStore)
class MemoryOffsetStore:
    """
    Offsets in a dictionary.

    :ivar offsets: (group, topic, partition) -> the last commit, for tests.
    """

    def __init__(self) -> None:
        self.offsets: dict[tuple[str, str, Partition], StoredOffset] = {}

    @checked()
    async def load(self, topic: str, group: str, partition: Partition) -> StoredOffset | None:
        """See ``IOffsetStore``."""
        return self.offsets.get((group, topic, partition))

    @checked()
    async def initialise(self, topic: str, group: str, partition: Partition, offset: int) -> None:
        """See ``IOffsetStore``; does nothing, as in ZooKeeper."""

    @checked()
    async def commit(self, group: str, offsets: Sequence[StoredOffset]) -> None:
        """See ``IOffsetStore``."""
        for each in offsets:
            self.offsets[group, each.topic, each.partition] = each

    async def close(self) -> None:
        """See ``IOffsetStore``; the offsets stay, for the next consumer in this process."""
