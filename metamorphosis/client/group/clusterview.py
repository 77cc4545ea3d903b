"""
A group as ZooKeeper shows it: the members and their topics, the partitions of these topics, and
the addresses of the brokers. Read as a whole, and watched.

Every member must see the same lists, so they are computed exactly as the original does: members in
the order of Java's strings, partitions of masters and slaves together in the order of texts.

Source: ``ConsumerZooKeeper``, ``MetaZookeeper``.

Differs: a change of only a broker's addresses is detected, because the nodes below its id are
watched; the original waits for the next change of members or topics.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from metamorphosis.client.group.balancing import sort_as_java
from metamorphosis.client.network.flow import settle
from metamorphosis.client.network.links import Log
from metamorphosis.cluster.model import Broker, NodeStat, TopicBroker, WatchEvent
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import NodeExists, NoNode
from metamorphosis.interfaces import IRegistry
from metamorphosis.wire.numbers import shown

T = TypeVar("T")
Watch = Callable[[WatchEvent], None]
Lists = tuple[list[str] | None, list[str] | None]
"""Consumers and partitions of a topic, sorted."""

READS = 5  # attempts, when listed nodes are deleted before they are read


async def all_of(awaitables: Iterable[Awaitable[T]]) -> list[T]:
    """
    The results of pending futures, in their order.

    :raises Exception: the first error, after all have ended.
    """
    results: list[T] = []
    for outcome in await settle(awaitables):
        if isinstance(outcome, Exception):
            raise outcome
        results.append(outcome)
    return results


@dataclass(frozen=True, slots=True)
class BrokerUrls:
    """The present addresses of a broker and its slaves."""

    master: str | None = None
    slaves: tuple[str, ...] = ()

    def choose(self, present: str | None = None) -> str | None:
        """
        The master, else a slave: the present one while it is registered, else any.

        :returns: None without a master and slaves.
        """
        if self.master is not None:
            return self.master
        if present in self.slaves:
            return present
        return random.choice(self.slaves) if self.slaves else None


@dataclass(frozen=True, slots=True)
class ClusterView:
    """
    The lists that determine a balance.

    :ivar registered: whether the node of our own id exists and belongs to the present session.
    :ivar topics: those of our own id.
    :ivar consumers: topic -> its subscribers in the group, sorted; topics without any are left out.
    :ivar partitions: topic of ours -> its partitions as texts, sorted; topics without any are left
        out.
    :ivar brokers: id -> addresses, of every broker that has one of these partitions.
    """

    registered: bool
    topics: tuple[str, ...]
    consumers: dict[str, list[str]]
    partitions: dict[str, list[str]]
    brokers: dict[int, BrokerUrls]

    def lists(self, topic: str) -> Lists:
        """Consumers and partitions of a topic; None for an empty list."""
        return self.consumers.get(topic), self.partitions.get(topic)


class ClusterReader:
    """
    Reads views, and reports changes. Thread: the loop's.

    :param consumer_id: the id of this member.
    :param changed: called for each event of a watched node.
    """

    def __init__(
        self,
        registry: IRegistry,
        paths: Paths,
        group: str,
        consumer_id: str,
        changed: Callable[[], None],
        log: Log,
    ) -> None:
        self._registry = registry
        self._paths = paths
        self._group = group
        self._consumer_id = consumer_id
        self._changed = changed
        self._log = log
        self._watched: set[tuple[str, str]] = set()
        self._connection = 0
        self._reported: set[str] = set()
        self._absent: set[str] = set()

    def forget_watches(self) -> None:
        """The connection is lost with its watches: the next view sets new ones."""
        self._watched.clear()
        self._connection += 1

    async def read(self) -> ClusterView:
        """
        The present view, in a few round trips. Its nodes are watched from now on.

        :raises RegistryError: ZooKeeper cannot be read, or changes faster than it is read.
        """
        for _ in range(READS):
            try:
                return await self._read()
            except NoNode as error:
                vanished = error
        raise vanished

    async def _read(self) -> ClusterView:
        members = await self._members()
        mine = members.get(self._consumer_id)
        topics = () if mine is None else tuple(dict.fromkeys(mine[0]))
        consumers: dict[str, list[str]] = {}
        for member in sort_as_java(members):
            for topic in members[member][0]:
                consumers.setdefault(topic, []).append(member)
        partitions = {topic: await self._partitions(topic) for topic in topics}
        self._report_absent({topic for topic, names in partitions.items() if not names})
        partitions = {topic: names for topic, names in partitions.items() if names}
        ids = {int(name.partition("-")[0]) for names in partitions.values() for name in names}
        brokers = {broker_id: await self._broker(broker_id) for broker_id in sorted(ids)}
        owner = 0 if mine is None else mine[1].owner
        registered = mine is not None and owner == self._registry.session_id()
        return ClusterView(registered, topics, consumers, partitions, brokers)

    async def _members(self) -> dict[str, tuple[list[str], NodeStat]]:
        """Id -> its topics and its node; ``NoNode`` when a member leaves meanwhile."""
        directory = self._paths.consumer_ids(self._group)
        names = await self._children(directory)
        found = await all_of([self._registry.get(f"{directory}/{name}") for name in names])
        return {
            name: (_topics_of(data), stat) for name, (data, stat) in zip(names, found, strict=True)
        }

    async def _partitions(self, topic: str) -> list[str]:
        """The partitions that masters and slaves offer to consumers, sorted as texts."""
        directory = self._paths.topics_sub(topic)
        try:
            names = await self._children(directory)
        except NoNode:
            await self.ensure(directory)
            names = await self._children(directory)
        brokers = []
        for name in names:
            tokens = [token for token in name.split("-") if token]
            if len(tokens) == 2 and tokens[0].isascii() and tokens[0].isdecimal():
                brokers.append((tokens[0], f"{directory}/{name}"))
            else:
                self._report(f"{directory}/{shown(name)}: <brokerId>-m or <brokerId>-s<n> expected")
        found = await all_of([self._registry.get(path) for _, path in brokers])
        partitions: set[str] = set()
        for (broker_id, path), (data, _) in zip(brokers, found, strict=True):
            try:
                count = TopicBroker.parse(data).num_parts
            except ValueError as error:
                self._report(f"{path} is skipped: {error}")
            else:
                partitions.update(f"{broker_id}-{number}" for number in range(count))
        return sorted(partitions)

    async def _broker(self, broker_id: int) -> BrokerUrls:
        """The addresses of a broker; none without its node."""
        directory = self._paths.broker(broker_id)
        try:
            names = await self._children(directory)
        except NoNode:
            await self._watching("exists", directory, self._registry.exists)
            return BrokerUrls()
        master = await self._url(broker_id, "master") if "master" in names else None
        slaves = [await self._url(broker_id, name) for name in names if _is_slave(name)]
        return BrokerUrls(master, tuple(url for url in slaves if url))

    async def _url(self, broker_id: int, name: str) -> str | None:
        path = f"{self._paths.broker(broker_id)}/{name}"
        try:
            data, _ = await self._registry.get(path)
        except NoNode:
            return None  # it was deleted meanwhile, and its parent is watched
        text = (data or b"").decode("utf-8", "replace").strip()
        if not text:
            return None
        try:
            return Broker.parse(broker_id, text).url
        except ValueError as error:
            self._report(f"{path} is skipped: {error}")
            return None

    async def owners(self, topic: str) -> dict[str, int]:
        """Partition -> the session of its present claim."""
        directory = self._paths.owners(self._group, topic)
        try:
            names = await self._registry.children(directory)
        except NoNode:
            return {}
        stats = await all_of([self._registry.exists(f"{directory}/{name}") for name in names])
        return {name: stat.owner for name, stat in zip(names, stats, strict=True) if stat}

    async def watch_node(self, path: str) -> bool:
        """Whether a node exists; its changes are watched."""
        return await self._watching("exists", path, self._registry.exists) is not None

    async def ensure(self, directory: str) -> None:
        """Create a persistent node, if it does not exist."""
        try:
            await self._registry.create(directory, None, False)
        except NodeExists:
            pass

    async def _children(self, path: str) -> list[str]:
        return await self._watching("children", path, self._registry.children)

    async def _watching(
        self, kind: str, path: str, read: Callable[[str, Watch | None], Awaitable[T]]
    ) -> T:
        """Read with a watch, unless one of this kind is set; each fires once."""
        key = kind, path
        if key in self._watched:
            return await read(path, None)
        self._watched.add(key)
        try:
            return await read(path, partial(self._fired, key, self._connection))
        except Exception:
            self._watched.discard(key)
            raise

    def _fired(self, key: tuple[str, str], connection: int, event: WatchEvent) -> None:
        if connection == self._connection:
            self._watched.discard(key)
            self._changed()

    def _report_absent(self, topics: set[str]) -> None:
        """Log topics that begin to lack a broker: a mistyped one would be waited for in silence."""
        for topic in sorted(topics - self._absent):
            self._log.warn(
                "Group {group}: no broker has topic {topic}, {path} in ZooKeeper names none;"
                " waiting for one",
                group=self._group,
                topic=topic,
                path=self._paths.topics_sub(topic),
            )
        self._absent = topics

    def _report(self, text: str) -> None:
        """Log each text once: a broken node is read again at every balance."""
        if text not in self._reported:
            self._reported.add(text)
            self._log.error("ZooKeeper node {text}", text=text)


def _topics_of(data: bytes | None) -> list[str]:
    """The topics in a member's node; empty ones at the end do not count, as with Java's split."""
    text = (data or b"").decode("utf-8", "replace")
    return text.rstrip(",").split(",") if text.strip().strip(",") else []


def _is_slave(name: str) -> bool:
    number = name.removeprefix("slave")
    return number != name and number.isascii() and number.isdecimal()
