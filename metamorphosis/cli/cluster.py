"""
Topics, partitions and groups as brokers and ZooKeeper show them: for ``metaq offsets`` and ``metaq
topics``, and for the first offsets of ``metaq consume``.

All values are read on request; no node is watched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from metamorphosis.client.consumer.direct import BROKER_ID
from metamorphosis.client.model import Partition
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.flow import settle
from metamorphosis.client.network.replies import SUCCESS, VALUE, error_of
from metamorphosis.cluster.model import Broker, TopicBroker
from metamorphosis.errors import CorruptRecord, MetaQError, NoNode, NotConnected, NotFound
from metamorphosis.message import HEADER, HEADER_BYTES, iterate_records
from metamorphosis.wire.commands import GetCommand, OffsetCommand, StatsCommand

if TYPE_CHECKING:
    from metamorphosis.client.factory import SessionFactory

END = (1 << 63) - 1
"""An offset beyond all others."""

GROUP = "metaq"
"""The group name in requests that do not come from a consumer group."""

LOOK_BYTES = 1 << 20
SHOWN_NAMES = 20

_RANGE = re.compile(r"(\S+) part (\d+) min_offset (-?\d+) max_offset (-?\d+)")
_COUNTS = re.compile(r"(\S+) partitions \d+ message_count (\d+) message_bytes (\d+) .*")


@dataclass(slots=True)
class PartitionState:
    """
    A partition.

    :ivar url: of its master; None while it is away.
    :ivar begin: offset of the oldest message.
    :ivar end: offset after the newest readable message.
    :ivar answers: whether the master has replied; both offsets are 0 otherwise.
    """

    url: str | None
    begin: int = 0
    end: int = 0
    answers: bool = True

    @property
    def ends(self) -> tuple[int | None, int | None]:
        """Begin and end for display."""
        return (self.begin, self.end) if self.answers else (None, None)


@dataclass(slots=True)
class TopicState:
    """
    A topic.

    :ivar messages: stored since its brokers started, or found then; the brokers count no others.
    :ivar size: bytes of the log.
    """

    messages: int = 0
    size: int = 0
    partitions: dict[Partition, PartitionState] = field(default_factory=dict)


class BrokerPlace(NamedTuple):
    """
    A broker in ZooKeeper.

    :ivar name: ``0`` for a master, ``0/slave1`` for its asynchronous slave.
    :ivar url: None while it is away.
    """

    name: str
    url: str | None


class Cluster:
    """
    The requests of the commands of ``metaq``. Thread: the loop's. One long class, because all
    commands share its requests.

    :ivar faults: the reasons of failed requests; shown with the results.
    """

    def __init__(self, session: SessionFactory) -> None:
        self.faults: list[str] = []
        self._patterns: set[str] = set()  # topic patterns in the brokers' configurations
        self._session = session
        self._registry: Any = session.registry  # None in direct mode
        self._paths = session.paths

    # Topics

    async def topics(self, wanted: Iterable[str] = ()) -> dict[str, TopicState]:
        """
        All topics, or those in ``wanted``, by name.

        :raises MetaQError: a topic does not exist, or ZooKeeper does not reply.
        """
        urls = await self.brokers()
        found: dict[str, TopicState] = {}
        if self._registry is not None:
            await self._registered(urls, found)
        asked = [(i, u) for i, u in sorted(urls.items()) if u is not None]
        replies = await settle(
            self._session.runtime.start(self._stores(i, u, found)) for i, u in asked
        )
        for (_, url), reply in zip(asked, replies, strict=True):
            if isinstance(reply, Exception):
                self.faults.append(str(reply))
                _mark_silent(url, found)
        names = sorted(set(wanted))
        if not names:
            return dict(sorted(found.items()))
        missing = [name for name in names if name not in found]
        if missing and not self.faults:
            raise MetaQError(self.no_such(missing, found))
        return {name: found[name] for name in names if name in found}

    def no_such(self, wanted: Iterable[str], found: Iterable[str]) -> str:
        """The text about topics that no broker has, with the existing topics."""
        if not found:
            return self.no_topics()
        if self._registry is None:
            where = f"broker {self._session.config.broker}"
        else:
            where = f"root {self._session.config.zookeeper_root}"
        names = shortened(found) or "none"
        return f"no such topic: {', '.join(wanted)}; topics of {where}: {names}"

    def no_topics(self) -> str:
        """The text about a cluster without topics."""
        if self._registry is None:
            return f"broker {self._session.config.broker} has no topic"
        root = self._session.config.zookeeper_root
        return f"no topic is registered below root {root}: its brokers are away"

    async def has(self, topic: str) -> bool:
        """
        Whether a broker has the topic; otherwise its first message will create it.

        :raises MetaQError: no broker will create it; the text names the existing topics.
        """
        if self._registry is not None and await self.children(self._paths.topics_sub(topic)):
            return True
        found = await self.topics()
        if topic in found:
            return True
        if self.faults:  # a broker that does not reply may have it
            self.faults.clear()
            return False
        if any(re.fullmatch(each.replace("*", ".*"), topic) for each in self._patterns):
            return False
        raise MetaQError(self.no_such([topic], found))

    async def brokers(self) -> dict[int, str | None]:
        """The masters: broker id -> url; None while a broker is away. In direct mode the one broker
        counts as broker 0."""
        if self._registry is None:
            return {BROKER_ID: self._session.config.broker}
        urls: dict[int, str | None] = {}
        for name in await self.children(self._paths.broker_ids):
            if name.isdecimal():
                urls[int(name)] = await self._registered_at(
                    int(name), self._paths.master(int(name))
                )
        return urls

    async def places(self) -> list[BrokerPlace]:
        """Masters and their asynchronous slaves, by number. In direct mode the one broker."""
        if self._registry is None:
            return [BrokerPlace(str(BROKER_ID), self._session.config.broker)]
        found = []
        for broker_id, url in sorted((await self.brokers()).items()):
            found.append(BrokerPlace(str(broker_id), url))
            node = above(self._paths.master(broker_id))
            for name in await self.children(node):
                if name.startswith("slave"):
                    slave = await self._registered_at(broker_id, f"{node}/{name}")
                    found.append(BrokerPlace(f"{broker_id}/{name}", slave))
        return found

    def no_brokers(self) -> str:
        """The text about a cluster without brokers."""
        root = self._session.config.zookeeper_root
        return f"no broker is or was registered below root {root}"

    async def _registered_at(self, broker_id: int, path: str) -> str | None:
        """The url in the node of a master or slave; None without the node."""
        try:
            data, _ = await self._registry.get(path)
            return Broker.parse(broker_id, (data or b"").decode("utf-8", "replace")).url
        except NoNode:
            return None
        except ValueError as error:
            self.faults.append(str(error))
            return None

    async def _registered(self, urls: dict[int, str | None], found: dict[str, TopicState]) -> None:
        """Add the partitions that masters have registered, with messages or without."""
        for path_of in (self._paths.topics_pub, self._paths.topics_sub):
            for topic in await self.children(above(path_of("x"))):
                for name in await self.children(path_of(topic)):
                    broker_id, _, kind = name.partition("-")
                    if kind != "m" or not broker_id.isdecimal():
                        continue
                    url = urls.get(int(broker_id))
                    state = found.setdefault(topic, TopicState())
                    for number in range(await self._count(f"{path_of(topic)}/{name}")):
                        partition = Partition(int(broker_id), number)
                        state.partitions.setdefault(partition, PartitionState(url))

    async def _count(self, path: str) -> int:
        try:
            return TopicBroker.parse((await self._registry.get(path))[0]).num_parts
        except NoNode:
            return 0
        except ValueError as error:
            self.faults.append(f"ZooKeeper node {path}: {error}")
            return 0

    async def _stores(self, broker_id: int, url: str, found: dict[str, TopicState]) -> None:
        """Add the partitions on the disk of one broker."""
        for line in _lines(await self._ask(url, StatsCommand("offsets"))):
            match = _RANGE.fullmatch(line)
            if match:
                state = found.setdefault(match[1], TopicState())
                partition = Partition(broker_id, int(match[2]))
                state.partitions[partition] = PartitionState(url, int(match[3]), int(match[4]))
        for line in _lines(await self._ask(url, StatsCommand("topics"))):
            match = _COUNTS.fullmatch(line)
            topic = line.removesuffix(" *Empty*")
            if match:
                state = found.setdefault(match[1], TopicState())
                state.messages += int(match[2])
                state.size += int(match[3])
            elif topic != line and "*" in topic:
                self._patterns.add(topic)
            elif topic != line:
                found.setdefault(topic, TopicState())

    # One partition

    async def ends(self, topic: str) -> dict[Partition, int | None]:
        """
        The present ends of a topic's partitions; None for a partition whose broker does not reply.

        :raises RegistryError: ZooKeeper does not reply.
        """
        state = (await self.topics()).get(topic, TopicState())
        silent = bool(self.faults)
        self.faults.clear()
        return {
            partition: None if there.url is None or (silent and not there.end) else there.end
            for partition, there in state.partitions.items()
        }

    async def end_of(self, topic: str, partition: Partition) -> int:
        """
        The present end of a partition; 0 before its first message.

        :raises MetaQError: no reply from its broker.
        """
        url = (await self.brokers()).get(partition.broker_id)
        if url is None:
            raise NotConnected(f"no broker serves partition {partition}")
        try:
            command = OffsetCommand(topic, GROUP, partition.number, END, 0)
            return int(await self._ask(url, command))
        except NotFound:
            return 0

    async def message_begins(
        self, url: str, topic: str, number: int, offset: int, end: int
    ) -> bool:
        """
        Whether a message begins at an offset, by its checksum; a message that is too long for that
        only has to fit before the ``end`` of the partition.

        :raises MetaQError: no reply from the broker.
        """
        piece = await self.piece(url, topic, number, offset, LOOK_BYTES)
        try:
            if next(iterate_records(piece, topic), None) is not None:
                return True
        except CorruptRecord:
            return False
        if len(piece) < HEADER_BYTES:
            return False
        length: int = HEADER.unpack_from(piece)[0]
        return len(piece) < HEADER_BYTES + length <= end - offset

    async def piece(self, url: str, topic: str, number: int, offset: int, size: int) -> bytes:
        """
        The bytes of a log from ``offset``, at most ``size``.

        :raises MetaQError: no such reply from the broker.
        """
        return await self._ask(url, GetCommand(topic, GROUP, number, offset, size, 0), VALUE)

    async def stats(self, url: str, item: str) -> str:
        """
        The text of ``stats <item>``.

        :raises MetaQError: no reply from the broker.
        """
        return (await self._ask(url, StatsCommand(item))).decode("utf-8", "replace")

    async def _ask(
        self, url: str, command: GetCommand | OffsetCommand | StatsCommand, right: int = SUCCESS
    ) -> bytes:
        """The body of a broker's reply."""
        user = object()
        try:
            connection = await reached(self._session, url, user)
            limit = self._session.config.stats_timeout_ms / 1000
            status, body = await connection.call(command, limit)
        finally:
            self._session.connections.release(url, user)
        if status != right:
            raise error_of(status, body, f"broker {url}")
        return bytes(body)

    async def children(self, path: str) -> list[str]:
        """The names below a node; none without the node."""
        try:
            return sorted(await self._registry.children(path))
        except NoNode:
            return []


async def reached(session: SessionFactory, url: str, user: object) -> BrokerConnection:
    """
    The open connection to a broker; the caller releases ``user`` in any case.

    :raises NotConnected: no connection in time; after a refusal there is no wait.
    """
    connection = session.connections.acquire(url, user)
    limit = session.config.publish_connect_timeout_ms / 1000
    patience = session.config.refused_timeout_ms / 1000
    if not await connection.reached(limit, patience):
        fault = connection.fault
        reason = f" within {limit:g} s" if fault is None else f": {fault.reason}"
        raise NotConnected(f"broker {url}: no connection{reason}")
    return connection


def _mark_silent(url: str, found: dict[str, TopicState]) -> None:
    """Mark the partitions of a broker that does not reply."""
    for state in found.values():
        for partition in state.partitions.values():
            if partition.url == url and not partition.end:
                partition.answers = False


def shortened(names: Iterable[str]) -> str:
    """The first ``SHOWN_NAMES`` in order, and the number of others."""
    ordered = sorted(names)
    more = len(ordered) - SHOWN_NAMES
    return ", ".join(ordered[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def above(path: str) -> str:
    """The parent of a node."""
    return path.rpartition("/")[0]


def _lines(body: bytes) -> list[str]:
    return body.decode("utf-8", "replace").split("\r\n")
