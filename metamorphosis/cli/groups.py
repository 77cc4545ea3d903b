"""Consumer groups in ZooKeeper. All values are read on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from metamorphosis.cli.cluster import Cluster, above
from metamorphosis.client.model import Partition
from metamorphosis.errors import NoNode

if TYPE_CHECKING:
    from metamorphosis.client.factory import SessionFactory


class Kept(NamedTuple):
    """
    The node of a position.

    :ivar committed: the time of the last commit, ms since 1970 by the clock of ZooKeeper.
    """

    path: str
    data: bytes | None
    committed: int


class Groups:
    """
    Reads groups from ZooKeeper. Thread: the loop's.

    :param cluster: collects the faults.
    """

    def __init__(self, session: SessionFactory, cluster: Cluster) -> None:
        self._cluster = cluster
        self._registry: Any = session.registry
        self._paths = session.paths

    async def names(self) -> list[str]:
        """The groups in ZooKeeper."""
        return await self._cluster.children(above(above(self._paths.consumer_ids("x"))))

    async def members(self, group: str) -> list[str]:
        """The present members of a group."""
        return await self._cluster.children(self._paths.consumer_ids(group))

    async def topics(self, group: str) -> list[str]:
        """The topics for which a group has positions."""
        return await self._cluster.children(above(above(self._paths.offset(group, "x", "y"))))

    async def kept(self, group: str, topic: str) -> list[Partition]:
        """The partitions for which a group has positions."""
        names = await self._cluster.children(above(self._paths.offset(group, topic, "x")))
        found = []
        for name in names:
            try:
                found.append(Partition.parse(name))
            except ValueError as error:
                self._cluster.faults.append(f"group {group}, topic {topic}: {error}")
        return found

    async def owner(self, group: str, topic: str, partition: Partition) -> str | None:
        """The member that reads a partition, by its name in ZooKeeper."""
        try:
            data, _ = await self._registry.get(self._paths.owner(group, topic, str(partition)))
        except NoNode:
            return None
        return (data or b"").decode("utf-8", "replace")

    async def position(self, group: str, topic: str, partition: Partition) -> Kept | None:
        """The node of a position; None if there is none."""
        path = self._paths.offset(group, topic, str(partition))
        try:
            data, stat = await self._registry.get(path)
        except NoNode:
            return None
        return Kept(path, data, int(stat.modified_ms))
