"""
The reason why no broker takes messages of a topic, found in ZooKeeper and told with the nodes that
were read. ZooKeeper is asked only when a topic has no partitions.

Differs: the original has one text for all cases, "maybe you don't publish it at first?", which is
true in one case of four.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from metamorphosis.client.model import Partition
from metamorphosis.client.topics.roots import known_roots
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import NoNode, NoPartition, NotPublished, UnknownTopic, WrongRoot
from metamorphosis.interfaces import IRegistry

MOST: Final = 20
"""Limit of brokers that are read and named."""


class Absence:
    """
    Finds the reason. Thread: the loop's.

    :param registry: results are futures of the runtime.
    :param connect: connect string of ZooKeeper, for the texts.
    """

    def __init__(self, registry: IRegistry, paths: Paths, connect: str) -> None:
        self._registry = registry
        self._paths = paths
        self._where = f"ZooKeeper at {connect}"
        self._chroot = connect.partition("/")[2].strip("/")

    async def reason(self, topic: str) -> NoPartition:
        """
        The error for a send to a topic that has no partitions now; it is ``retriable`` if that can
        change without the user.

        :raises RegistryError: ZooKeeper does not reply.
        """
        try:
            await self._registry.children("/")
        except NoNode:
            return WrongRoot(
                f"topic {topic}: {self._where} has no /{self._chroot}, the chroot that was given"
            )
        if await self._registry.exists(self._paths.broker_ids) is None:
            return await self._no_root(topic)
        return await self._no_master(topic)

    async def _no_root(self, topic: str) -> NoPartition:
        missing = f"there is no {self._paths.broker_ids} in {self._where}"
        roots = [root or "/" for root in await known_roots(self._registry)]
        if not roots:
            return NoPartition(f"topic {topic}: no broker has ever registered: {missing}")
        return WrongRoot(
            f"topic {topic}: {missing}; zookeeper_root is {self._paths.root or '/'}, brokers have"
            f" registered below {', '.join(roots)}"
        )

    async def _no_master(self, topic: str) -> NoPartition:
        directory = self._paths.topics_pub(topic)
        there = await self._registry.exists(directory) is not None
        masters = await self._masters()
        if not masters:
            return NoPartition(
                f"topic {topic}: no broker is registered at present: {self._paths.broker_ids} in"
                f" {self._where} has no master"
            )
        brokers = f"ids of the registered brokers: {_listed(masters)}"
        if there:
            return NoPartition(
                f"topic {topic}: no broker takes its messages at present: {directory} in"
                f" {self._where} names no master; {brokers}"
            )
        if await self._is_read(topic):
            return UnknownTopic(
                f"topic {topic}: it can be read, but no broker takes its messages"
                f" (acceptPublish=false): there is no {directory} in {self._where}; {brokers}"
            )
        return UnknownTopic(
            f"topic {topic}: no broker has ever had it: there is no {directory} in {self._where};"
            f" {brokers}"
        )

    async def _is_read(self, topic: str) -> bool:
        """Whether a broker offers the topic to consumers, who create its node themselves."""
        try:
            return bool(await self._registry.children(self._paths.topics_sub(topic)))
        except NoNode:
            return False

    async def _masters(self) -> list[int]:
        """Ids of the brokers whose masters are registered."""
        found = []
        for name in (await self._registry.children(self._paths.broker_ids))[:MOST]:
            if name.isascii() and name.isdecimal():
                if await self._registry.exists(self._paths.master(int(name))) is not None:
                    found.append(int(name))
        return sorted(found)

    def not_read(self, topic: str) -> NoPartition:
        """The error for a topic that could not be read yet."""
        fault = self._registry.fault()
        reason = "" if fault is None else f" ({fault.reason})"
        return NoPartition(
            f"topic {topic}: its partitions are not known yet: {self._where} has not told them"
            f"{reason}; it is asked on"
        )


def unregistered(topic: str, partition: Partition, paths: Paths, connect: str) -> NoPartition:
    """
    The error for a partition whose broker has no address.

    :param connect: connect string of ZooKeeper.
    """
    broker_id = partition.broker_id
    return NoPartition(
        f"topic {topic}, partition {partition}: broker {broker_id} is not registered at present:"
        f" there is no {paths.master(broker_id)} in ZooKeeper at {connect}"
    )


def not_published(topic: str, published: Iterable[str]) -> NotPublished:
    """The error for a topic that no producer of the session factory has published."""
    return NotPublished(
        f"topic {topic} has not been published: await publish({topic!r}) of its producer first;"
        f" published so far: {_listed(sorted(published))}"
    )


def _listed(items: Sequence[object]) -> str:
    more = f" and {len(items) - MOST} more" if len(items) > MOST else ""
    return (", ".join(map(str, items[:MOST])) or "nothing") + more
