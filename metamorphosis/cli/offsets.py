"""
``metaq offsets``: shows positions of groups and their unread bytes; or sets the position of a group
that does not run.

Positions are those in ZooKeeper. In direct mode they are those of ``metaq consume --broker`` on
this machine, in ``~/.meta_offsets``.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from metamorphosis.cli.cluster import Cluster, PartitionState, TopicState, shortened
from metamorphosis.cli.console import Console, UsageError
from metamorphosis.cli.groups import Groups
from metamorphosis.cli.table import table
from metamorphosis.client.model import Partition, StoredOffset
from metamorphosis.client.offsets.localfile import LocalFileOffsetStore
from metamorphosis.client.offsets.zookeeper import ZooKeeperOffsetStore, position_in
from metamorphosis.errors import MetaQError, OffsetStoreError
from metamorphosis.interfaces import IOffsetStore

if TYPE_CHECKING:
    from metamorphosis.client.factory import SessionFactory

HEAD = ("GROUP", "TOPIC", "PARTITION", "OFFSET", "END", "LAG", "OWNER", "STATE")


class State(Enum):
    """The unusual states of a group in a partition."""

    NOT_BEGUN = "not-begun"
    """No position is stored: a member begins at the place in its settings."""
    UNREADABLE = "unreadable"
    """The stored value is not a position; the partition is not read."""
    BEYOND_END = "beyond-end"
    """The position is after the last message: it belongs to another or a deleted log."""
    BEFORE_BEGIN = "before-begin"
    """Messages were deleted before the group read them."""
    NO_BROKER = "no-broker"
    """No broker serves the partition."""
    NO_ANSWER = "no-answer"
    """Its broker does not reply with the begin and end of the partition."""
    NO_OWNER = "no-owner"
    """The group has members, but none of them reads the partition."""
    NO_MEMBER = "no-member"
    """No member of the group is running."""


class Row(NamedTuple):
    """
    A group in a partition.

    :ivar offset: the position; None: not stored, or unknown.
    :ivar end: of the partition; None: unknown.
    :ivar lag: unread bytes; None: unknown.
    :ivar owner: the member that reads it now.
    :ivar state: the values of ``State`` that hold, most important first.
    """

    group: str
    topic: str
    partition: str
    offset: int | None
    end: int | None
    lag: int | None
    owner: str | None
    state: tuple[str, ...]

    def cells(self) -> tuple[object, ...]:
        """For a table: one word for the state."""
        return (*self[:-1], ",".join(self.state) or "ok")


def offset_store(session: SessionFactory) -> IOffsetStore:
    """The store of the positions of groups."""
    if session.registry is not None:
        return ZooKeeperOffsetStore(session.registry, session.paths)
    return LocalFileOffsetStore(session.runtime)


async def offsets(session: SessionFactory, console: Console, options: Namespace) -> None:
    """
    Show positions, and with ``--to`` change them first.

    :raises MetaQError: a request or a change failed.
    """
    positions = Positions(session)
    try:
        if options.to is not None:
            await positions.change(options.group, options.topic, options.partition, options.to)
        rows = await positions.rows(options.group, options.topic, options.partition)
    finally:
        await positions.close()
    if options.json:
        for row in rows:
            await console.print(row._asdict(), True)
    elif rows:
        await console.print(table(HEAD, [row.cells() for row in rows]), False)
    for fault in positions.faults[1:]:
        console.complain(fault)
    if positions.faults:
        raise MetaQError(positions.faults[0])
    if not rows:
        raise MetaQError(await positions.nothing(options.group))


class Positions:
    """The positions of groups in the partitions of a cluster. Thread: the loop's."""

    def __init__(self, session: SessionFactory) -> None:
        self._direct = session.registry is None
        self.cluster = Cluster(session)
        self.groups = Groups(session, self.cluster)
        self._store = offset_store(session)
        self._topics: dict[str, TopicState] | None = None
        self._committed: dict[tuple[str, str, str], int] = {}

    @property
    def faults(self) -> list[str]:
        """The reasons of failed requests."""
        return self.cluster.faults

    def broker_of(self, row: Row) -> str | None:
        """The url of the master of a row's partition; None while it is away."""
        there = (self._topics or {}).get(row.topic, TopicState()).partitions
        state = there.get(Partition.parse(row.partition))
        return None if state is None else state.url

    def committed(self, row: Row) -> int | None:
        """The time of the last commit of a row's position, ms since 1970 by the clock of ZooKeeper;
        None: never, or the position is not in ZooKeeper."""
        return self._committed.get((row.group, row.topic, row.partition))

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    async def nothing(self, group: str | None) -> str:
        """The line in place of a table without rows."""
        if group is None:
            return "no group has a position"
        fault = f"group {group} has neither a position nor a topic"
        if self._direct:
            return fault
        return f"{fault}; groups there are: {shortened(await self.groups.names()) or 'none'}"

    # Showing

    async def rows(self, group: str | None, topic: str | None, only: str | None) -> list[Row]:
        """The rows of one group or all, for one topic or all with positions."""
        if group is None and self._direct:
            raise UsageError("--group is needed with --broker")
        topics = await self._all_topics()
        if topic is not None and topic not in topics and not self.faults:
            raise MetaQError(self.cluster.no_such([topic], topics))
        found = []
        for name in [group] if group is not None else await self.groups.names():
            for each in [topic] if topic is not None else await self._topics_of(name):
                found += await self._rows(name, each, topics.get(each, TopicState()))
        return [row for row in found if only in (None, row.partition)]

    async def _all_topics(self) -> dict[str, TopicState]:
        if self._topics is None:
            self._topics = await self.cluster.topics()
        return self._topics

    async def _topics_of(self, group: str) -> list[str]:
        if not self._direct:
            return await self.groups.topics(group)
        found = []
        for name, state in (await self._all_topics()).items():
            stored = [await self._load(name, group, each) for each in state.partitions]
            if any(each is not None for each in stored):
                found.append(name)
        return found

    async def _rows(self, group: str, topic: str, state: TopicState) -> list[Row]:
        kept = [] if self._direct else await self.groups.kept(group, topic)
        members = [] if self._direct else await self.groups.members(group)
        rows = []
        for partition in sorted({*state.partitions, *kept}):
            there = state.partitions.get(partition)
            stored = await self._load(topic, group, partition)
            states = list(_position_states(stored, there))
            owner = None
            if not self._direct:
                owner = await self.groups.owner(group, topic, partition)
                if owner is None:
                    states.append(State.NO_OWNER if members else State.NO_MEMBER)
            rows.append(_row(group, topic, partition, there, stored, owner, states))
        return rows

    async def _load(
        self, topic: str, group: str, partition: Partition
    ) -> StoredOffset | State | None:
        try:
            stored = await self._stored(topic, group, partition)
        except OffsetStoreError as error:
            self.faults.append(str(error))
            return State.UNREADABLE
        if stored is not None and stored.offset < 0:
            self.faults.append(
                f"group {group}, topic {topic}, partition {partition}: the position is"
                f" {stored.offset}; metaq offsets --to sets it"
            )
            return State.UNREADABLE
        return stored

    async def _stored(self, topic: str, group: str, partition: Partition) -> StoredOffset | None:
        if self._direct:
            stored: StoredOffset | None = await self._store.load(topic, group, partition)
            return stored
        kept = await self.groups.position(group, topic, partition)
        if kept is None:
            return None
        self._committed[group, topic, str(partition)] = kept.committed
        return position_in(kept.path, kept.data, topic, partition)

    # Changing

    async def change(self, group: str | None, topic: str | None, only: str | None, to: str) -> None:
        """
        Set the positions of a group in a topic: all of them or, after a fault, none.

        :param only: just this partition.
        :param to: ``earliest``, ``latest`` or a number.
        """
        if group is None or topic is None:
            raise UsageError("--to needs a topic and --group")
        if not self._direct:
            members = await self.groups.members(group)
            if members:
                raise MetaQError(
                    f"group {group} is running and would overwrite it; stop {', '.join(members)}"
                )
        state = (await self._all_topics()).get(topic)
        if self.faults:
            raise MetaQError(f"{self.faults.pop(0)}; nothing was changed")
        if state is None or not state.partitions:
            raise MetaQError(self.cluster.no_such([topic], await self._all_topics()))
        chosen = [p for p in sorted(state.partitions) if only in (None, str(p))]
        if not chosen:
            there = ", ".join(map(str, sorted(state.partitions)))
            raise UsageError(f"topic {topic} has no partition {only}; it has {there}")
        if to not in ("earliest", "latest") and len(chosen) > 1:
            raise UsageError(f"--to {to} is for one partition; say which, with --partition")
        targets = [
            StoredOffset(topic, p, await self._target(topic, p, state.partitions[p], to))
            for p in chosen
        ]
        await self._store.commit(group, targets)

    async def _target(
        self, topic: str, partition: Partition, there: PartitionState, to: str
    ) -> int:
        if there.url is None:
            raise MetaQError(f"no broker serves partition {partition}; nothing was changed")
        if to == "earliest":
            return there.begin
        if to == "latest":
            return there.end
        offset = int(to)
        if not there.begin <= offset <= there.end:
            raise UsageError(
                f"--to {to}: partition {partition} goes from {there.begin} to {there.end}"
            )
        if offset < there.end and not await self.cluster.message_begins(
            there.url, topic, partition.number, offset, there.end
        ):
            raise UsageError(f"--to {to}: no message begins there in partition {partition}")
        return offset


def _position_states(
    stored: StoredOffset | State | None, there: PartitionState | None
) -> Iterator[State]:
    """The states of a position relative to its partition."""
    if stored is None:
        yield State.NOT_BEGUN
    elif isinstance(stored, State):
        yield stored
    if there is None or there.url is None:
        yield State.NO_BROKER
    elif not there.answers:
        yield State.NO_ANSWER
    elif isinstance(stored, StoredOffset):
        if stored.offset > there.end:
            yield State.BEYOND_END
        elif stored.offset < there.begin:
            yield State.BEFORE_BEGIN


def _row(
    group: str,
    topic: str,
    partition: Partition,
    there: PartitionState | None,
    stored: StoredOffset | State | None,
    owner: str | None,
    states: list[State],
) -> Row:
    offset = stored.offset if isinstance(stored, StoredOffset) else None
    end = lag = None
    if there is not None and there.url is not None and there.answers:
        end = there.end
        if not {State.UNREADABLE, State.BEYOND_END} & {*states}:
            lag = end - max(there.begin, offset or 0)
    names = tuple(each.value for each in states)
    return Row(group, topic, str(partition), offset, end, lag, owner, names)
