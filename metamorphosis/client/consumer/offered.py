"""
Reads the partitions of a topic that are offered to consumers, and the broker of each, from
ZooKeeper, without creating or watching nodes.
"""

from __future__ import annotations

from metamorphosis.client.group.clusterview import BrokerUrls
from metamorphosis.client.model import Partition
from metamorphosis.cluster.model import Broker, TopicBroker
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import NoNode
from metamorphosis.interfaces import IRegistry


class Offers:
    """
    Every coroutine raises ``RegistryError`` when ZooKeeper does not reply. Invalid nodes are left
    out; the members of groups log them. Thread: the loop's.
    """

    def __init__(self, registry: IRegistry, paths: Paths) -> None:
        self._registry = registry
        self._paths = paths

    async def partitions(self, topic: str) -> dict[Partition, str | None]:
        """Partition -> address of its master, else of a slave, else None; empty without topic."""
        directory = self._paths.topics_sub(topic)
        counts: dict[int, int] = {}
        for name in await self._children(directory):
            broker_id, _, kind = name.partition("-")
            if kind and broker_id.isascii() and broker_id.isdecimal():
                count = await self._count(f"{directory}/{name}")
                counts[int(broker_id)] = max(count, counts.get(int(broker_id), 0))
        found: dict[Partition, str | None] = {}
        for broker, count in sorted(counts.items()):
            url = await self._url(broker)
            found.update({Partition(broker, number): url for number in range(count)})
        return found

    async def _count(self, path: str) -> int:
        try:
            return TopicBroker.parse((await self._registry.get(path))[0]).num_parts
        except (NoNode, ValueError):
            return 0

    async def _url(self, broker_id: int) -> str | None:
        directory = self._paths.broker(broker_id)
        urls: dict[str, str] = {}
        for name in await self._children(directory):
            try:
                data, _ = await self._registry.get(f"{directory}/{name}")
                text = (data or b"").decode("utf-8", "replace").strip()
                urls[name] = Broker.parse(broker_id, text).url
            except (NoNode, ValueError):
                pass
        master = urls.pop("master", None)
        return BrokerUrls(master, tuple(urls.values())).choose()

    async def _children(self, path: str) -> list[str]:
        try:
            return await self._registry.children(path)
        except NoNode:
            return []
