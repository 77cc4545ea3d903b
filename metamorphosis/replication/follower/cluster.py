"""
The part of an asynchronous slave in ZooKeeper: it reads the master of its broker id and the topics
that the master offers to consumers, and has a node as member of its group.

All nodes are read together: at the start, when a watched node changes, when the session is
restored, and every few seconds while a node is missing or after a failure.

Source: ``SlaveZooKeeper``, ``SlaveConsumerZooKeeper``. Differs: the original begins when one of two
nodes changes, and gives up if a node is missing then.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from metamorphosis.client.network.flow import settle
from metamorphosis.client.network.links import Log
from metamorphosis.cluster.model import (
    Broker,
    NodeStat,
    SessionEvent,
    SessionState,
    TopicBroker,
    WatchEvent,
)
from metamorphosis.cluster.ownership import OwnNodes
from metamorphosis.cluster.paths import Paths
from metamorphosis.config.hostname import own_address
from metamorphosis.errors import NoNode, RegistryError
from metamorphosis.interfaces import IRegistry, IRuntime, Timer

T = TypeVar("T")
Watch = Callable[[WatchEvent], None]

SOON_SECONDS: Final = 0.05
"""Changes within this time are read together."""

RETRY_SECONDS: Final = 2.0
"""Until the next read after a failure, or while a node is missing."""

LOOK_SECONDS: Final = 30.0
"""Until the next read otherwise, in case a watch is lost."""

LANES: Final = 32
"""Topics that are read at a time."""


MOST_PARTITIONS: Final = 10_000
"""Limit per topic; a larger number is a mistake, and would fill the memory."""


@dataclass(frozen=True, slots=True)
class MasterView:
    """
    The master as ZooKeeper shows it.

    :ivar url: of the master; None: it is not registered.
    :ivar checksum: of its configuration file, as in the node.
    :ivar topics: those that it offers to consumers, with their numbers of partitions.
    """

    url: str | None = None
    checksum: bytes | None = None
    topics: Mapping[str, int] = field(default_factory=dict)


class MasterWatch:
    """
    Reads the master's nodes, and watches them. Thread: reactor.

    :param changed: called with each view that differs from the last one.
    """

    def __init__(
        self,
        runtime: IRuntime,
        registry: IRegistry,
        paths: Paths,
        broker_id: int,
        member: GroupMember,
        changed: Callable[[MasterView], None],
        log: Log,
    ) -> None:
        self.view = MasterView()
        self._runtime = runtime
        self._registry = registry
        self._paths = paths
        self._broker_id = broker_id
        self._member = member
        self._changed = changed
        self._log = log
        self._watched: set[tuple[str, str]] = set()
        self._connection = 0  # watches of an earlier one are gone
        self._connected = False
        self._reading = False
        self._again = False
        self._timer: Timer | None = None
        self._stopped = False
        self._reported: set[str] = set()

    def start(self) -> None:
        """Read the nodes as soon as a session exists."""
        self._registry.on_session(self._session_changed)
        if self._registry.session_id():
            self._session_changed(SessionEvent(SessionState.CONNECTED, new_session=True))

    async def stop(self) -> None:
        """Leave the group and end the watch. Never fails."""
        self._stopped = True
        self._plan(None)
        try:
            await self._member.leave()
        except RegistryError as error:
            self._log.info("The group's node goes with the session ({error})", error=error)

    def _session_changed(self, event: SessionEvent) -> None:
        self._connection += 1
        self._watched.clear()
        self._connected = event.state is SessionState.CONNECTED
        if event.new_session:
            self._member.session_began()
        if self._connected:
            self.wake()

    def wake(self) -> None:
        """Read the nodes again soon."""
        if self._reading:
            self._again = True
        elif self._connected and not self._stopped:
            self._plan(SOON_SECONDS)

    def _plan(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None and not self._stopped:
            self._timer = self._runtime.call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._connected and not self._reading and not self._stopped:
            self._reading, self._again = True, False
            self._runtime.start(self._read())

    async def _read(self) -> None:
        delay = RETRY_SECONDS
        try:
            view = await self._view()
            if view != self.view and not self._stopped:
                self.view = view
                self._changed(view)
            await self._member.show(view.topics)
            if view.url is not None and view.topics:
                delay = LOOK_SECONDS
            self._reported.discard("failed")
        except RegistryError as error:
            self._report("failed", f"cannot be read ({error}); still trying")
        except Exception:
            self._log.failure("Looking for the master failed")
        self._reading = False
        self._plan(SOON_SECONDS if self._again else delay)

    async def _view(self) -> MasterView:
        """:raises RegistryError: ZooKeeper cannot be read."""
        master = await self._data(self._paths.master(self._broker_id))
        checksum = await self._data(self._paths.checksum(self._broker_id))
        try:
            directory = self._paths.topics_sub("").rstrip("/")
            names = await self._watching("children", directory, self._registry.children)
        except NoNode:
            await self._watching("exists", directory, self._registry.exists)
            names = []
        topics: dict[str, int] = {}
        for some in _in_groups(names, LANES):
            outcomes = await settle([self._runtime.start(self._count(name)) for name in some])
            for name, count in zip(some, outcomes, strict=True):
                if isinstance(count, Exception):
                    raise count
                if count:
                    topics[name] = count
        return MasterView(self._url(master), checksum, topics)

    async def _count(self, topic: str) -> int:
        """Partitions of a topic on the master; 0: it does not offer the topic."""
        path = f"{self._paths.topics_sub(topic)}/{self._broker_id}-m"
        data = await self._data(path)
        if data is None:
            return 0
        try:
            count = TopicBroker.parse(data).num_parts
            if count > MOST_PARTITIONS:
                raise ValueError(f"{count} partitions are more than {MOST_PARTITIONS}")
        except ValueError as error:
            self._report(path, f"{path} is passed over: {error}")
            return 0
        return count

    def _url(self, data: bytes | None) -> str | None:
        text = (data or b"").decode("utf-8", "replace").strip()
        if not text:
            return None
        try:
            return Broker.parse(self._broker_id, text).url
        except ValueError as error:
            self._report(text, f"{self._paths.master(self._broker_id)}: {error}")
            return None

    async def _data(self, path: str) -> bytes | None:
        """The data of a node; None without the node. It is watched in both cases."""
        try:
            data, _ = await self._watching("data", path, self._registry.get)
            return data or b""
        except NoNode:
            stat: NodeStat | None = await self._watching("exists", path, self._registry.exists)
            if stat is not None:
                self._again = True  # it was created meanwhile
            return None

    async def _watching(
        self, kind: str, path: str, read: Callable[[str, Watch | None], Awaitable[T]]
    ) -> T:
        """Read with a watch, unless one of this kind is set; each fires once."""
        key = kind, path
        if key in self._watched:
            return await read(path, None)
        self._watched.add(key)
        connection = self._connection

        def fired(event: WatchEvent) -> None:
            if connection == self._connection:
                self._watched.discard(key)
                self.wake()

        try:
            return await read(path, fired)
        except Exception:
            self._watched.discard(key)
            raise

    def _report(self, key: str, text: str) -> None:
        """Log a fault once, until it is over."""
        if key not in self._reported:
            self._reported.add(key)
            self._log.error("The master's nodes in ZooKeeper: {text}", text=text)


class GroupMember:
    """
    The node of the slave in its consumer group, with the topics that it reads. It claims no
    partition and commits no offset. Thread: reactor.

    :ivar consumer_id: the name of the node.
    """

    def __init__(self, registry: IRegistry, paths: Paths, group: str) -> None:
        self.consumer_id = f"{group}_{own_address()}-{os.getpid()}-{uuid.uuid4()}"
        self._registry = registry
        self._own = OwnNodes(registry)
        self._path = f"{paths.consumer_ids(group)}/{self.consumer_id}"

    def session_began(self) -> None:
        """Treat the nodes of this session as our own."""
        self._own.remember(self._registry.session_id())

    async def show(self, topics: Iterable[str]) -> None:
        """
        Write the node with these topics; remove it without topics.

        :raises RegistryError: the node may be wrong.
        """
        text = ",".join(sorted(topics))
        if text:
            await self._own.claim(self._path, text.encode(), look_first=True)
        else:
            await self.leave()

    async def leave(self) -> None:
        """:raises RegistryError: the node may still be there."""
        await self._own.remove(self._path)


def _in_groups(names: list[str], size: int) -> Iterator[list[str]]:
    for first in range(0, len(names), size):
        yield names[first : first + size]
