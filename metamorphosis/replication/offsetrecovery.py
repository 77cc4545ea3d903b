"""
The positions of consumer groups after a change of the master: each is looked up in the new master's
log by the id of the group's last message, and corrected in ZooKeeper.

A failure here does not prevent a broker's registration: a position that cannot be read or written
is reported and left unchanged. A position is never set to 0, and a group without a stored id is
left unchanged.

Source: ``OffsetRecoverer``; section 6 of the specification.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from twisted.logger import Logger

from metamorphosis.client.offsets.zookeeper import parse_offset
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import NoNode, RegistryError, StoreError
from metamorphosis.interfaces import IRegistry
from metamorphosis.partitions import Partition
from metamorphosis.replication.idsearch import Place, Position, search

_log = Logger()

Searching = Callable[[], dict[Position, Place]]

RunBlocking = Callable[[Searching], Awaitable[dict[Position, Place]]]
"""Calls a blocking function in a thread, and returns its result."""


class LocalLog(NamedTuple):
    """A partition of this broker, and the directory of its segments."""

    topic: str
    number: int
    directory: str


class Stored(NamedTuple):
    """A position as stored in ZooKeeper."""

    group: str
    log: LocalLog
    path: str
    position: Position


class Change(NamedTuple):
    """A correction; its text names the old and the new value."""

    stored: Stored
    place: Place

    def __str__(self) -> str:
        old, new = self.stored.position, self.place.position
        return (
            f"group {self.stored.group}, {self.stored.log.topic}-{self.stored.log.number}:"
            f" {old.message_id}-{old.offset} becomes {new.message_id}-{new.offset}:"
            f" {self.place.basis.value}"
        )


@dataclass(slots=True)
class Recovered:
    """
    The result of a run.

    :ivar changes: the corrections, made or to be made.
    :ivar right: the number of positions that were right, or could not be improved.
    :ivar faults: nodes and logs that could not be read or written.
    """

    changes: list[Change] = field(default_factory=list)
    right: int = 0
    faults: list[str] = field(default_factory=list)


class OffsetRecovery:
    """
    One run. Thread: the loop's.

    :param registry: its results can be awaited by the caller of ``run``.
    :param logs: the partitions of this broker; others are ignored.
    :param run_blocking: reads segments.
    """

    def __init__(
        self,
        registry: IRegistry,
        paths: Paths,
        broker_id: int,
        logs: Iterable[LocalLog],
        run_blocking: RunBlocking,
    ) -> None:
        self._registry = registry
        self._paths = paths
        self._broker_id = broker_id
        self._logs = {(log.topic, log.number): log for log in logs}
        self._run_blocking = run_blocking
        self._recovered = Recovered()

    async def run(self, change: bool = True) -> Recovered:
        """
        Check the positions of all groups, and correct them. Never fails.

        :param change: False: only report what would be done.
        """
        stored = await self._read_all()
        by_log: dict[LocalLog, list[Stored]] = {}
        for each in stored:
            by_log.setdefault(each.log, []).append(each)
        for log, positions in sorted(by_log.items()):
            for correction in await self._look_up(log, positions):
                if not change or await self._correct(correction):
                    self._recovered.changes.append(correction)
        changed = len(self._recovered.changes)
        self._recovered.right = len(stored) - changed
        return self._recovered

    async def _read_all(self) -> list[Stored]:
        """The positions of all groups in the partitions of this broker."""
        found: list[Stored] = []
        try:
            groups = await self._children(f"{self._paths.root}/consumers")
        except RegistryError as error:
            self._recovered.faults.append(f"the groups cannot be read: {error!r}")
            return []
        for group in groups:
            try:
                found += await self._read_group(group)
            except RegistryError as error:
                self._recovered.faults.append(f"group {group} cannot be read: {error!r}")
        return found

    async def _read_group(self, group: str) -> list[Stored]:
        found = []
        topics = {topic for topic, _ in self._logs}
        there = await self._children(f"{self._paths.root}/consumers/{group}/offsets")
        for topic in sorted(topics.intersection(there)):
            for name in await self._children(
                f"{self._paths.root}/consumers/{group}/offsets/{topic}"
            ):
                try:
                    partition = Partition.parse(name)
                except ValueError:
                    continue  # not the name of a partition
                log = self._logs.get((topic, partition.number))
                if log is not None and partition.broker_id == self._broker_id:
                    found += await self._read_position(group, log, str(partition))
        return found

    async def _read_position(self, group: str, log: LocalLog, name: str) -> list[Stored]:
        """The position as a list of one; empty without an id, by which it would be looked up."""
        path = self._paths.offset(group, log.topic, name)
        try:
            position = await self._position(path)
        except NoNode:
            return []
        except ValueError as error:
            self._recovered.faults.append(f"{path} holds {error}")
            return []
        return [] if position.message_id == -1 else [Stored(group, log, path, position)]

    async def _position(self, path: str) -> Position:
        data, _ = await self._registry.get(path)
        return Position(*parse_offset((data or b"").decode("utf-8", "replace").strip()))

    async def _children(self, path: str) -> list[str]:
        try:
            return await self._registry.children(path)
        except NoNode:
            return []

    async def _look_up(self, log: LocalLog, stored: list[Stored]) -> list[Change]:
        wanted = [each.position for each in stored]
        try:
            places = await self._run_blocking(partial(search, log.directory, wanted))
        except (OSError, StoreError) as error:
            fault = f"{log.topic}-{log.number} cannot be searched: {error}"
            self._recovered.faults.append(fault)
            return []
        return [Change(each, places[each.position]) for each in stored if each.position in places]

    async def _correct(self, change: Change) -> bool:
        """Correct a position; False if it was changed meanwhile."""
        path = change.stored.path
        try:
            if await self._position(path) != change.stored.position:
                return False
            new = change.place.position
            await self._registry.set_data(path, b"%d-%d" % (new.message_id, new.offset))
        except (RegistryError, ValueError) as error:
            self._recovered.faults.append(f"{path} cannot be corrected: {error!r}")
            return False
        return True


def log_recovered(recovered: Recovered) -> None:
    """Log one line for each change, and for each fault."""
    for change in recovered.changes:
        _log.warn("Offset recovered: {change}", change=change)
    for fault in recovered.faults:
        _log.warn("Offset not recovered: {fault}", fault=fault)
    _log.info(
        "Offsets of consumers: {changed} corrected, {right} left as they were",
        changed=len(recovered.changes),
        right=recovered.right,
    )
