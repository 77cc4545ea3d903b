"""
What a member of a group has in ZooKeeper: its id, and a claim on every partition it reads. All of
them vanish with the session.

``cluster.ownership`` says whose a node is: one of a former session of this process is taken over,
one of any other session is waited for, be it with our own id in it. So a fixed consumer id survives
the quick restart of its process.

Source: ``ConsumerZooKeeper``.

Differs: the original takes a node with its own id in it for its own, and is dead for good when the
session of the process before it ends.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable
from typing import Any

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
    Partitions are still claimed by others, or the id is still used.

    :ivar paths: the nodes that have to go.
    :ivar keys: the partitions that are not free.
    """

    def __init__(self, occupied: list[Occupied], keys: Iterable[Key] = ()) -> None:
        self.paths = [each.path for each in occupied]
        self.keys = set(keys)
        more = f" and {len(occupied) - 1} more" if len(occupied) > 1 else ""
        super().__init__(f"{occupied[0]}{more}")


class Membership:
    """
    The nodes of one member.

    Thread: the loop's.

    :ivar registered: whether the id was there, in this session, when we last looked.
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
        # Nodes that may be there. The end of a session takes none from it: what was under way may
        # have become a node of the next one.
        self._claimed: set[str] = set()

    def session_began(self) -> None:
        """What this session makes is ours, also after its end."""
        self._own.remember(self._registry.session_id())

    async def register(self, topics: Iterable[str]) -> None:
        """
        Make the id known, with what it subscribes to.

        :raises Contested: another session has it: the one of our last run, or somebody else's.
        """
        try:
            await self._own.claim(self._id_path, ",".join(topics).encode("utf-8"))
        except Occupied as error:
            raise Contested([error]) from None
        self.registered = True

    async def claim(self, keys: Iterable[Key]) -> None:
        """
        Claim partitions, all at once.

        :raises Contested: some are not free; the others are ours now.
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
        """Give up every claim but those on ``keys``; also what an earlier error left behind."""
        kept = {self._path(key) for key in keys}
        await self._remove(sorted(self._claimed - kept))

    async def leave(self) -> None:
        """Remove everything; the id last, so that nobody waits for claims of a member that left."""
        await self._remove(sorted(self._claimed))
        if self.registered:
            await self._own.remove(self._id_path)
            self.registered = False

    async def wake_the_others(self, pause: Callable[[], Any]) -> None:
        """
        Let every member look at its partitions: those of the original only do so when the list of
        members changes. The one that comes and goes subscribes to nothing and so gets nothing.
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
        """:raises RegistryError: some may still be there; they are tried again the next time."""
        failure: Exception | None = None
        outcomes = await settle([self._runtime.start(self._own.remove(path)) for path in paths])
        for path, outcome in zip(paths, outcomes, strict=True):
            if outcome is None or isinstance(outcome, Occupied):  # gone, or somebody else's
                self._claimed.discard(path)
            elif isinstance(outcome, Exception):
                failure = outcome
        if failure is not None:
            raise failure
