"""
``metaq consume``: reads the messages of a topic as a member of a group; ``onepartition`` reads
those of one partition without a group.

A message counts as consumed when it has been written; after any end of the command the group
continues after the last such message. In ZooKeeper mode the partitions are shared with the other
members of the group, in any language; in direct mode all partitions of the one broker are read.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from zope.interface import implementer

from metamorphosis.cli.arguments import Start, StartKind
from metamorphosis.cli.cluster import Cluster
from metamorphosis.cli.console import Console, Ticker, UsageError
from metamorphosis.cli.offsets import offset_store
from metamorphosis.cli.onepartition import read_partition
from metamorphosis.cli.output import Output, passed_over_text
from metamorphosis.cli.reachable import check_readable
from metamorphosis.client.model import Partition, Position, ReceivedMessage, StoredOffset
from metamorphosis.errors import ClientClosed, MetaQError, NotBalanced, NotConnected, NotFound
from metamorphosis.interfaces import IOffsetStore

if TYPE_CHECKING:
    from metamorphosis.client.consumer.consumer import Consumer
    from metamorphosis.client.factory import SessionFactory

FETCH_BYTES = 1 << 20


@implementer(IOffsetStore)
class StartingAt:
    """
    Positions of a group with ``--from``: each partition starts at the given place when it is
    claimed for the first time, and later at the stored position, also of another member of the
    group.

    :param store: keeps the positions; its earlier position of a partition is replaced.
    :param starts: the first offsets of partitions, 0 for others; None: call ``ask`` then.
    :param ask: the first offset of a partition.
    :param before: the positions at the start; a different one now comes from another member.
    """

    def __init__(
        self,
        store: IOffsetStore,
        starts: Mapping[Partition, int | None],
        ask: Callable[[str, Partition], Awaitable[int]],
        before: Mapping[Partition, StoredOffset | None] = MappingProxyType({}),
    ) -> None:
        self._before = before
        self._store = store
        self._starts = starts
        self._ask = ask
        self._begun: set[Partition] = set()

    async def load(self, topic: str, group: str, partition: Partition) -> StoredOffset | None:
        """See ``IOffsetStore``."""
        if partition not in self._begun and not await self._was_begun(topic, group, partition):
            offset = self._starts.get(partition, 0)
            if offset is None:
                offset = await self._ask(topic, partition)
            await self._store.commit(group, [StoredOffset(topic, partition, offset)])
            self._begun.add(partition)
        return await self._store.load(topic, group, partition)

    async def _was_begun(self, topic: str, group: str, partition: Partition) -> bool:
        """Whether another member of the group has stored a position meanwhile."""
        if partition not in self._before:
            return False
        stored = await self._store.load(topic, group, partition)
        if stored == self._before[partition]:
            return False
        self._begun.add(partition)
        return True

    async def initialise(self, topic: str, group: str, partition: Partition, offset: int) -> None:
        """See ``IOffsetStore``."""
        await self._store.initialise(topic, group, partition, offset)

    async def commit(self, group: str, offsets: Sequence[StoredOffset]) -> None:
        """See ``IOffsetStore``."""
        await self._store.commit(group, offsets)

    async def close(self) -> None:
        """See ``IOffsetStore``."""
        await self._store.close()


async def consume(session: SessionFactory, console: Console, options: Namespace) -> None:
    """
    Write messages until the requested end. One long function: the steps of one run, in their order,
    around one ``finally``.

    :raises Interrupted: a signal has ended it.
    :raises MetaQError: it cannot continue.
    """
    if options.partition is not None:
        await read_partition(session, console, options)
        return
    if options.start.kind is StartKind.OFFSET:
        raise UsageError(
            f"--from {options.start.value}: an offset is a byte of one partition; name that with"
            " --partition instead of --group"
        )
    cluster = Cluster(session)
    is_there = await cluster.has(options.topic)
    if session.registry is not None:
        await check_readable(session, cluster, options.topic)
    store = offset_store(session)
    if options.start.kind is not StartKind.STORED:
        ends = await cluster.ends(options.topic)
        before = {each: await store.load(options.topic, options.group, each) for each in ends}
        store = StartingAt(store, *_starts(options.start, ends, cluster, lambda: consumer), before)
    output = Output(console, options)
    console.on_stop(output.over.set)
    consumer = session.create_consumer(options.group, store=store)
    consumer.subscribe(options.topic, FETCH_BYTES, output.take, batch=True)
    consumer.on_rejection(keep_trying)
    console.on_stop(consumer.close)  # also while it waits for its partitions
    ticker = Ticker(console, output.show)
    positions: list[Position] = []
    try:
        await _join(consumer, console)
        if not output.over.is_set and not is_there:
            console.complain(f"no broker has topic {options.topic} yet; waiting for its messages")
        await output.finish()
        if not output.over.is_set:
            await _check_readable(consumer, cluster, options.topic)
    finally:
        ticker.stop()
        positions += consumer.assignment.values()
        await consumer.close()
        await store.close()
    output.end(passed_over_text(consumer.passed_over) + _unstored(positions))


def _starts(
    start: Start,
    ends: Mapping[Partition, int | None],
    cluster: Cluster,
    consumer: Callable[[], Consumer],
) -> tuple[Mapping[Partition, int | None], Callable[[str, Partition], Awaitable[int]]]:
    """
    The first two parameters of ``StartingAt``.

    :param ends: of the existing partitions.
    :param consumer: returns the consumer, which is created later.
    """
    if start.kind is StartKind.LATEST:
        return ends, cluster.end_of
    if start.kind is StartKind.EARLIEST:
        return {}, cluster.end_of
    milliseconds = start.milliseconds(time.time())

    async def at_time(topic: str, partition: Partition) -> int:
        try:
            return await consumer().offset_at(topic, partition, milliseconds)
        except NotFound:  # it has no message yet
            return 0

    return dict.fromkeys(ends), at_time


def _unstored(positions: list[Position]) -> str:
    """The text about positions that the last commit did not store."""
    names = ", ".join(str(each.partition) for each in positions if each.modified)
    if not names:
        return ""
    return f", but the position in {names} could not be stored: some will come again"


async def _check_readable(consumer: Consumer, cluster: Cluster, topic: str) -> None:
    """
    Raise if no message has arrived because a broker is missing.

    :raises NotConnected: a broker does not reply.
    """
    ends = await cluster.ends(topic)
    silent = [p for _, p in consumer.assignment if p in ends and ends[p] is None]
    if silent:
        names = ", ".join(map(str, sorted(silent)))
        raise NotConnected(f"nothing came; no broker answers for {names} of topic {topic}")


def keep_trying(message: ReceivedMessage) -> None:
    """Reject no message: an unwritten message is delivered again."""
    raise MetaQError("it was not written")


async def _join(consumer: Consumer, console: Console) -> None:
    """Join the group; if that takes time, write a line and keep trying."""
    try:
        await consumer.complete_subscribe()
    except ClientClosed:
        if not console.stopped.is_set:
            raise
    except NotBalanced as error:
        console.complain(error)
