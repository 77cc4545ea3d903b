"""
The nodes of a group's member in ZooKeeper: its id, and a claim on every partition that it reads.
They are deleted with the session.

``cluster.ownership`` finds the owner of a node: a node of an earlier session of this process is
taken over, a node of any other session is waited for, even with our own id in it. So a fixed
consumer id works across a quick restart of its process.

Source: ``ConsumerZooKeeper``.

Differs: the original treats any node with its id as its own, and stops for good when the session of
its previous process ends.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Awaitable, Callable, Iterable

from metamorphosis.client.group.committing import Key
from metamorphosis.client.network.flow import settle
from metamorphosis.client.settings import ConsumerConfig
from metamorphosis.cluster.ownership import Occupied, OwnNodes
from metamorphosis.cluster.paths import Paths
from metamorphosis.config.hostname import own_address
from metamorphosis.errors import RegistryError
from metamorphosis.interfaces import IRegistry, IRuntime


def make_consumer_id(config: ConsumerConfig, host: Callable[[], str] = own_address) -> str:
    """``<group>_<consumerId>``, or ``<group>_<host>-<pid>-<uuid>`` without a configured id."""
    own = config.consumer_id or f"{host()}-{os.getpid()}-{uuid.uuid4()}"
    return f"{config.group}_{own}"


class Contested(RegistryError):
    """
    Partitions are still claimed by other members, or the id is still used.

    :ivar paths: the nodes of others.
    :ivar keys: the partitions that are not free.
    """

    def __init__(self, occupied: list[Occupied], keys: Iterable[Key] = ()) -> None:
        self.paths = [each.path for each in occupied]
        self.keys = set(keys)
        more = f" and {len(occupied) - 1} more" if len(occupied) > 1 else ""
        super().__init__(f"{occupied[0]}{more}")


class Membership:
    """
    The nodes of one member. Thread: the loop's.

    :ivar registered: whether the node of the id existed, in this session, at the last look.
    """

    def __init__(
        self, runtime: IRuntime, registry: IRegistry, paths: Paths, consumer_id: str, group: str
    ) -> None:
        self.registered = False
        self._runtime = runtime
        self._registry = registry
        self._paths = paths
        self._group = group
        self._data = consumer_id.encode("utf-8")
        self._id_path = f"{paths.consumer_ids(group)}/{consumer_id}"
        self._own = OwnNodes(registry)
        # Nodes that may exist. The end of a session removes none from the set: a pending request
        # may have created a node of the next session.
        self._claimed: set[str] = set()

    def session_began(self) -> None:
        """Treat the nodes of this session as our own, also after its end."""
        self._own.remember(self._registry.session_id())

    async def register(self, topics: Iterable[str]) -> None:
        """
        Create the node of the id, with its topics.

        :raises Contested: it belongs to another session: of our last run, or of another member.
        """
        try:
            await self._own.claim(self._id_path, ",".join(topics).encode("utf-8"))
        except Occupied as error:
            raise Contested([error]) from None
        self.registered = True

    async def claim(self, keys: Iterable[Key]) -> None:
        """
        Claim partitions, all at once.

        :raises Contested: some are not free; the others are claimed now.
        """
        paths = {key: self._path(key) for key in keys}
        self._claimed.update(paths.values())
        outcomes = await settle(
            [self._runtime.start(self._own.claim(path, self._data)) for path in paths.values()]
        )
        occupied: dict[Key, Occupied] = {}
        for key, outcome in zip(paths, outcomes, strict=True):
            if isinstance(outcome, Occupied):
                self._claimed.discard(paths[key])
                occupied[key] = outcome
            elif isinstance(outcome, Exception):
                raise outcome
        if occupied:
            raise Contested(list(occupied.values()), occupied)

    async def release_others(self, keys: Iterable[Key]) -> None:
        """Release every claim except on ``keys``, including claims left by an earlier error."""
        kept = {self._path(key) for key in keys}
        await self._remove(sorted(self._claimed - kept))

    async def leave(self) -> None:
        """Remove all nodes; the id last, so that its claims go before the others balance."""
        await self._remove(sorted(self._claimed))
        if self.registered:
            await self._own.remove(self._id_path)

    async def wake_the_others(self, pause: Callable[[], Awaitable[object]]) -> None:
        """
        Make every member check its partitions: members of the original do so only when the list of
        members changes. A node without topics, which gets no partition, is created and deleted.
        """
        path = f"{self._paths.consumer_ids(self._group)}/{self._group}_wake-{uuid.uuid4()}"
        self._claimed.add(path)
        await self._own.claim(path, b"")
        await pause()
        await self._remove([path])

    def _path(self, key: Key) -> str:
        topic, partition = key
        return self._paths.owner(self._group, topic, str(partition))

    async def _remove(self, paths: list[str]) -> None:
        """:raises RegistryError: some may still exist; the next call tries them again."""
        failure: Exception | None = None
        outcomes = await settle([self._runtime.start(self._own.remove(path)) for path in paths])
        for path, outcome in zip(paths, outcomes, strict=True):
            if outcome is None or isinstance(outcome, Occupied):  # deleted, or of another session
                self._claimed.discard(path)
            elif isinstance(outcome, Exception):
                failure = outcome
        if failure is not None:
            raise failure
