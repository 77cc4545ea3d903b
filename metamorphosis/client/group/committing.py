"""
The positions of a group's member, and their commits: periodically, before every change of
partitions and at the end. A commit that failed is repeated.

A position moves only past processed messages: a late or repeated commit may repeat messages but
never skips one.

A position whose partition was lost without a commit (the session ended, ZooKeeper or the database
was unreachable) is set aside. It is used again with the partition, if the store was not changed in
between; and it is stored under the same condition, so that the next owner of the partition begins
there.

Source: ``ConsumerZooKeeper``, ``OffsetStorage``.

Differs: a failed commit leaves the position dirty and is tried again; the original clears the mark
first and loses the position. After the end of a session, and between the tries of a rebalance, the
original drops all positions, and messages processed since the last commit are delivered again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from metamorphosis.client.model import Partition, Position, StoredOffset
from metamorphosis.client.network.complaints import some_of
from metamorphosis.client.network.flow import Event, Slots, sleep, within
from metamorphosis.client.network.links import Log
from metamorphosis.client.settings import AT_TIME, MAX_OFFSET, ConsumerConfig
from metamorphosis.errors import OffsetsNotStorable, OffsetStoreError
from metamorphosis.interfaces import IRuntime, OffsetStore

STORE_SECONDS = 30.0  # for one call of a store; ours have shorter limits of their own
RETRY_SECONDS = 1.0  # after a failed commit, unless the period is shorter; doubles up to it
FLUSH_PAUSES = (0.2, 0.5)  # between the tries of ``flush``
FLUSH_SECONDS = 5.0
UNSURE = 64  # latest commits of a partition whose outcome is unknown

Key = tuple[str, Partition]
"""Topic and partition."""
T = TypeVar("T")


@dataclass(slots=True)
class Tracked:
    """
    A position and its value in the store.

    :ivar committed: the offset in the store by our last commit; without one, the first offset.
    :ivar unsure: offsets of the latest commits whose outcome is unknown.
    """

    position: Position
    committed: int
    unsure: deque[int] = field(default_factory=lambda: deque(maxlen=UNSURE))

    def matches(self, offset: int) -> bool:
        """Whether the store, which holds ``offset``, was last written by this member."""
        return offset == self.committed or offset in self.unsure


class Committing:
    """
    The positions of one member.

    Thread: the loop's. One commit at a time.

    :param store: its methods may return plain values, or anything that can be awaited.
    :ivar commits: writes to the store so far.
    :ivar failed_commits: those that failed.
    """

    def __init__(
        self, runtime: IRuntime, store: OffsetStore, config: ConsumerConfig, log: Log
    ) -> None:
        self.commits = 0
        self.failed_commits = 0
        self._runtime = runtime
        self._store = store
        self._config = config
        self._group = config.group
        self._period = config.commit_offset_period_ms / 1000
        self._log = log
        self._tracked: dict[Key, Tracked] = {}
        self._aside: dict[Key, Tracked] = {}
        self._turn = Slots(runtime, 1)
        self._closing = Event(runtime)
        self._loop: Awaitable[None] | None = None
        self._failing: type[Exception] | None = None  # of the last commit, as the log says
        self._unrescued: type[Exception] | None = None  # of the last rescue, as the log says
        self._start_unstored = False  # the start of a partition, and the log says so

    # -- periodically

    def start(self) -> None:
        """Commit every period from now on."""
        if self._loop is None and not self._closing.is_set:
            self._loop = self._runtime.start(self._run())

    async def stop(self) -> None:
        """End the periodic commits, after a pending one."""
        self._closing.set()
        loop, self._loop = self._loop, None
        if loop is not None:
            await loop

    async def _run(self) -> None:
        pause = self._period
        while not await self._closing.wait(pause):
            if await self.commit():
                pause = self._period
            else:
                pause = min(self._period, RETRY_SECONDS if pause >= self._period else 2 * pause)

    # -- positions

    async def take(self, topic: str, partition: Partition) -> Position:
        """
        The position of a partition that was just claimed: the one that was set aside, else the
        stored one, else the configured start. From now on it is committed.

        :raises OffsetStoreError: the store cannot be read, so that the start is unknown; or it
            cannot keep positions.
        """
        key = topic, partition
        where = f"offset of {topic} {partition}, group {self._group}"
        try:
            stored = await self._ask(where, self._store.load(topic, self._group, partition))
        except OffsetStoreError:
            raise
        except Exception as error:
            raise OffsetStoreError(f"{where}: {type(error).__name__}: {error}") from error
        begin = self._config.start if stored is None else stored.offset
        if stored is None and begin != AT_TIME:  # the start is stored when its offset is known
            await self._initialise(topic, partition, begin)
        aside = self._aside.pop(key, None)
        if aside is not None and aside.matches(begin):
            self._tracked[key] = aside
            return aside.position
        message_id = -1 if stored is None else stored.message_id
        offset = MAX_OFFSET if self._config.always_consume_from_max_offset else begin
        position = Position(topic, partition, offset, message_id)
        self._tracked[key] = Tracked(position, begin)
        return position

    async def _initialise(self, topic: str, partition: Partition, offset: int) -> None:
        try:
            stored = self._store.initialise(topic, self._group, partition, offset)
            await self._ask("initialise", stored)
        except OffsetsNotStorable:
            raise  # the first commit will fail, too
        except Exception as error:  # the first commit creates the entry
            if self._start_unstored:
                return  # logged, of another partition
            self._start_unstored = True
            self._log.warn(
                "Group {group}: the start of {topic} {partition} at {offset} is not stored:"
                " {error}",
                group=self._group,
                topic=topic,
                partition=partition,
                offset=offset,
                error=error,
            )
        else:
            self._start_unstored = False

    def drop(self, keys: Iterable[Key]) -> None:
        """Drop the positions of partitions that other members own now; called after a commit."""
        unstored = []
        for key in keys:
            dropped = self._tracked.pop(key, None)
            if dropped is not None and dropped.position.modified:
                place = f"{key[0]} {key[1]} at offset {dropped.position.offset}"
                unstored.append(f"{place}, but {dropped.committed} is stored")
        if unstored:
            self._log.error(
                "Group {group}: given away: {places}: the next owner gets the messages in between"
                " again",
                group=self._group,
                places=some_of(unstored),
            )

    def set_aside(self, keys: Iterable[Key] | None = None) -> None:
        """Set the positions of these partitions, or of all, aside: they may be claimed again."""
        for key in list(self._tracked if keys is None else keys):
            tracked = self._tracked.pop(key, None)
            if tracked is not None:
                self._aside[key] = tracked

    def forget_aside(self) -> None:
        """The balance is complete: partitions that were not claimed again have another owner."""
        self._aside.clear()

    async def rescue(self) -> None:
        """
        Store the positions that were set aside, if the store still has our last value. A position
        that cannot be stored stays aside.
        """
        for (topic, partition), tracked in list(self._aside.items()):
            position = tracked.position
            if not position.modified:
                continue
            offset, message_id = position.offset, position.message_id
            try:
                stored = await self._ask("load", self._store.load(topic, self._group, partition))
                found = self._config.start if stored is None else stored.offset
                if not tracked.matches(found):
                    del self._aside[topic, partition]  # its new owner has stored a position
                    continue
                offsets = [StoredOffset(topic, partition, offset, message_id)]
                await self._ask("commit", self._store.commit(self._group, offsets))
            except Exception as error:
                if type(error) is not self._unrescued:
                    self._unrescued = type(error)
                    self._log.info(
                        "Group {group}: {topic} {partition} at {offset} is not stored yet: {error}",
                        group=self._group,
                        topic=topic,
                        partition=partition,
                        offset=offset,
                        error=error,
                    )
                return
            tracked.committed, position.modified = offset, False
            self._unrescued = None

    # -- committing

    async def flush(self) -> bool:
        """Commit, with a few tries; returns whether no position is dirty now."""
        end = self._runtime.seconds() + FLUSH_SECONDS
        for pause in FLUSH_PAUSES:
            if await self.commit():
                return True
            if self._runtime.seconds() >= end:
                return False  # the store hangs
            await sleep(self._runtime, pause)
        return await self.commit()

    async def commit(self) -> bool:
        """Store every dirty position; returns whether none is left. Errors leave them dirty."""
        await self._turn.acquire()
        try:
            return await self._commit()
        finally:
            self._turn.release()

    async def _commit(self) -> bool:
        dirty = [each for each in self._tracked.values() if each.position.modified]
        if not dirty:
            return True
        offsets = []
        for each in dirty:
            position = each.position
            position.modified = False
            offsets.append(
                StoredOffset(
                    position.topic, position.partition, position.offset, position.message_id
                )
            )
        self.commits += 1
        try:
            await self._ask("commit", self._store.commit(self._group, offsets))
        except Exception as error:
            self.failed_commits += 1
            self._failed(dirty, offsets, error)
            return False
        for each, stored in zip(dirty, offsets, strict=True):
            each.committed = stored.offset
            each.unsure.clear()
        if self._failing is not None:
            self._failing = None
            self._log.info("Group {group}: offsets are stored again", group=self._group)
        return True

    def _failed(self, dirty: list[Tracked], offsets: list[StoredOffset], error: Exception) -> None:
        for each, stored in zip(dirty, offsets, strict=True):
            each.position.modified = True
            each.unsure.append(stored.offset)
        if type(error) is self._failing:
            return
        self._failing = type(error)
        places = [f"{each[0]} {each[1]} at {each[2]}" for each in offsets]
        self._log.warn(
            "Group {group}: offsets are not stored and will be tried again ({error}): {positions}",
            group=self._group,
            error=error,
            positions=some_of(places),
        )

    async def _ask(self, what: str, result: Awaitable[T] | T) -> T:
        """
        The result of a call of the store, which may be plain or an awaitable.

        :raises RequestTimeout: no result within ``STORE_SECONDS``.
        """
        if not isinstance(result, Awaitable):
            return result
        adopted = self._runtime.adopt(result)
        return await within(self._runtime, adopted, STORE_SECONDS, f"offset store, {what}")
