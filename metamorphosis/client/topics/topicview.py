"""
Reads the nodes of a topic for producers in ZooKeeper, and watches them. Masters only; invalid nodes
are left out and logged.

Source: ``MetaZookeeper``.

Differs: no node is created; the original creates the topic's directory, and with it a mistyped
chroot.

Differs: the address of a broker is watched as well, and a broker that leaves between listing and
reading is left out; the original drops the whole update then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from metamorphosis.client.model import Partition
from metamorphosis.client.network.links import Log
from metamorphosis.cluster.model import Broker, TopicBroker, WatchEvent
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import NoNode
from metamorphosis.interfaces import IRegistry


class BrokerView(NamedTuple):
    """
    The entry in ZooKeeper of a master that has a topic.

    :ivar url: None while its registration is incomplete.
    """

    partitions: int
    url: str | None


class TopicView:
    """
    Reads and watches nodes. Every coroutine raises ``RegistryError`` when ZooKeeper does not reply.
    Thread: the loop's.

    :param registry: ``IRegistry`` with futures of the runtime.
    :param fired: called with every change of the view; each watch is set once.
    """

    def __init__(
        self, registry: IRegistry, paths: Paths, fired: Callable[[WatchEvent], None], log: Log
    ) -> None:
        self._registry = registry
        self._paths = paths
        self._listener = fired
        self._log = log
        self._armed: set[tuple[str, str]] = set()  # operation, path: watches that have not fired

    def forget_watches(self) -> None:
        """The connection was lost, and all watches with it."""
        self._armed.clear()

    async def partitions(self, topic: str) -> list[Partition]:
        """The writable partitions, sorted; none if the topic is unknown. Watches nothing."""
        try:
            names = await self._registry.children(self._paths.topics_pub(topic))
        except NoNode:
            return []
        found = {}
        for name in names:
            broker_id = master_id(name)
            if broker_id is not None:
                found[broker_id] = BrokerView(await self._count(topic, name), None)
        return partitions_in(found)

    async def brokers(self, topic: str) -> dict[int, BrokerView]:
        """The masters that have the topic. Watches the topic and those masters."""
        found = {}
        for name in await self._names(self._paths.topics_pub(topic)):
            broker_id = master_id(name)
            if broker_id is not None:
                partitions = await self._count(topic, name)
                found[broker_id] = BrokerView(partitions, await self._master_url(broker_id))
        return found

    async def _names(self, path: str) -> list[str]:
        """The children of a topic's directory; a missing directory is watched."""
        while True:
            try:
                return await self._watching("children", path)  # type: ignore[no-any-return]
            except NoNode:
                if await self._watching("exists", path) is None:
                    return []

    async def _count(self, topic: str, name: str) -> int:
        """The number of a broker's partitions; 0 without the node or with invalid data."""
        path = f"{self._paths.topics_pub(topic)}/{name}"
        try:
            return TopicBroker.parse((await self._registry.get(path))[0]).num_parts
        except NoNode:
            return 0  # the watch on the children reports it
        except ValueError as error:
            self._log.error("ZooKeeper node {path} is left out: {error}", path=path, error=error)
            return 0

    async def _master_url(self, broker_id: int) -> str | None:
        """The address of a master; None if it is not registered or invalid."""
        path = self._paths.master(broker_id)
        if await self._watching("exists", path) is None:
            return None
        try:
            data = (await self._registry.get(path))[0] or b""
            return Broker.parse(broker_id, data.decode("utf-8", "replace")).url
        except NoNode:
            return None
        except ValueError as error:
            self._log.error("ZooKeeper node {path} is left out: {error}", path=path, error=error)
            return None

    async def _watching(self, operation: str, path: str) -> Any:
        """Read with a watch, unless one is set."""
        perform = getattr(self._registry, operation)
        key = operation, path
        if key in self._armed:
            return await perform(path)
        self._armed.add(key)
        try:
            return await perform(path, partial(self._fire, key))
        except BaseException:
            self._armed.discard(key)
            raise

    def _fire(self, key: tuple[str, str], event: WatchEvent) -> None:
        self._armed.discard(key)
        self._listener(event)


def master_id(name: str) -> int | None:
    """The broker id in ``<id>-m``, the name of a master's node below a topic; None for others."""
    tokens = [token for token in name.split("-") if token]
    if len(tokens) == 2 and tokens[1] == "m" and tokens[0].isdecimal():
        return int(tokens[0])
    return None


def partitions_in(view: dict[int, BrokerView]) -> list[Partition]:
    """All partitions of the brokers, sorted by number."""
    return [
        Partition(broker_id, number)
        for broker_id in sorted(view)
        for number in range(view[broker_id].partitions)
    ]
