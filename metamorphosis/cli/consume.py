"""
``metaq consume``: the messages of a topic, as a member of a group.

A message counts as consumed when it has been written; whatever ends the command, the group goes on
after the last such message. In ZooKeeper mode the partitions are shared with the other members of
the group, of whatever language; in direct mode all partitions of the one broker are read.
"""

from __future__ import annotations

import base64
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from zope.interface import implementer

from metamorphosis.cli.cluster import Cluster
from metamorphosis.cli.console import Console, Interrupted, Ticker, amount, json_text
from metamorphosis.cli.offsets import offset_store
from metamorphosis.cli.reachable import check_readable
from metamorphosis.client.delivery.subscription import Rollback
from metamorphosis.client.fetch.passing import PassedOverMessages
from metamorphosis.client.model import Partition, Position, ReceivedMessage, StoredOffset
from metamorphosis.client.network.flow import Event
from metamorphosis.errors import ClientClosed, MetaQError, NotBalanced, NotConnected
from metamorphosis.interfaces import IOffsetStore

if TYPE_CHECKING:
    from metamorphosis.client.consumer.consumer import Consumer
    from metamorphosis.client.factory import SessionFactory

STORED, EARLIEST, LATEST = "stored", "earliest", "latest"

FETCH_BYTES = 1 << 20


@implementer(IOffsetStore)
class StartingAt:
    """
    Positions of a group that begins anew: each partition starts at one end of the log when it is
    claimed for the first time, and from then on where it was left, also by another member of the
    group.

    :param store: where the positions are kept; what it had of a partition is replaced.
    :param starts: where partitions start, others at 0; None: ``ask`` at the time.
    :param ask: the end of a partition.
    :param before: what was stored when this began; what differs now comes from another member.
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
        """Whether another member of the group has read the partition meanwhile."""
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


class Output:
    """
    Writes messages until there have been enough, or none for a while.

    :ivar over: there is nothing more to do.
    :ivar error: why the output ended.
    """

    def __init__(self, console: Console, most: int | None, idle: float | None, raw: bool) -> None:
        self.count = 0
        self.size = 0
        self.error: MetaQError | None = None
        self.over = Event(console.runtime)
        self._console = console
        self._runtime = console.runtime
        self._most = most
        self._idle = idle
        self._line_of = body_line if raw else json_line
        self._taken = 0
        self._began = self._latest = self._runtime.seconds()

    async def take(self, messages: list[ReceivedMessage]) -> None:
        """A listener of batches: what it returns from has been written."""
        wanted = messages
        if self._most is not None:
            wanted = messages[: self._most - self._taken]
        if self.error is not None or not wanted:
            raise Rollback(messages[0])
        self._taken += len(wanted)
        self._latest = self._runtime.seconds()
        data = b"".join(map(self._line_of, wanted))
        try:
            await self._console.write(data)
        except MetaQError as error:
            self.error = error
            self.over.set()
            raise Rollback(messages[0]) from error
        self._latest = self._runtime.seconds()
        self.count += len(wanted)
        self.size += len(data)
        if self.count == self._most:
            self.over.set()
        if len(wanted) < len(messages):
            raise Rollback(messages[len(wanted)])

    async def finish(self) -> None:
        """Wait until it is over."""
        while not self.over.is_set:
            left = None
            if self._idle is not None:
                left = self._latest + self._idle - self._runtime.seconds()
                if left <= 0:
                    return
            await self.over.wait(left)

    def show(self) -> None:
        """Progress."""
        self._console.progress(self.amount)

    @property
    def amount(self) -> str:
        """How much was written."""
        return amount(self.count, self.size, self._runtime.seconds() - self._began)


async def consume(session: SessionFactory, console: Console, options: Namespace) -> None:
    """
    Write messages as long as it was asked for.

    One long function: the steps of one run, in their order, around one ``finally``.

    :raises Interrupted: it was ended from outside.
    :raises MetaQError: it cannot go on.
    """
    cluster = Cluster(session)
    is_there = await cluster.has(options.topic)
    if session.registry is not None:
        await check_readable(session, cluster, options.topic)
    store = offset_store(session)
    if options.start != STORED:
        ends = await cluster.ends(options.topic)
        before = {each: await store.load(options.topic, options.group, each) for each in ends}
        starts = ends if options.start == LATEST else {}
        store = StartingAt(store, starts, cluster.end_of, before)
    output = Output(console, options.max, options.idle, not options.json)
    console.on_stop(output.over.set)
    consumer = session.create_consumer(options.group, store=store)
    consumer.subscribe(options.topic, FETCH_BYTES, output.take, batch=True)
    consumer.on_rejection(keep_trying)
    console.on_stop(consumer.close)  # also while it waits for its place in the group
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
    console.clear_progress(output.amount)
    if output.error is not None:
        raise output.error
    passed_over = _passed_over(consumer.passed_over)
    outcome = f"{output.count} consumed{passed_over}{_unstored(positions)}"
    if console.stopped.is_set:
        raise Interrupted(f"interrupted; {outcome}")
    if passed_over or _unstored(positions):
        raise MetaQError(outcome)


def _passed_over(messages: PassedOverMessages) -> str:
    """The messages that were not written, because they cannot be."""
    reasons = []
    if messages.damaged:
        reasons.append(f"{messages.damaged} passed over because they are damaged")
    if messages.too_long:
        reasons.append(
            f"{messages.too_long} passed over because they are too long: --max-body-bytes takes"
            " longer ones"
        )
    return "".join(f", {each}" for each in reasons)


def _unstored(positions: list[Position]) -> str:
    """The text about positions that the last commit did not store."""
    names = ", ".join(str(each.partition) for each in positions if each.modified)
    if not names:
        return ""
    return f", but the position in {names} could not be stored: some will come again"


async def _check_readable(consumer: Consumer, cluster: Cluster, topic: str) -> None:
    """
    Raise if no message comes because a broker is missing.

    :raises NotConnected: there is one that does not answer.
    """
    ends = await cluster.ends(topic)
    silent = [p for _, p in consumer.assignment if p in ends and ends[p] is None]
    if silent:
        names = ", ".join(map(str, sorted(silent)))
        raise NotConnected(f"nothing came; no broker answers for {names} of topic {topic}")


def keep_trying(message: ReceivedMessage) -> None:
    """Reject no message: one that was not written is tried again."""
    raise MetaQError("it was not written")


async def _join(consumer: Consumer, console: Console) -> None:
    """Take a place in the group; where that takes time, a line says so and it keeps trying."""
    try:
        await consumer.complete_subscribe()
    except ClientClosed:
        if not console.stopped.is_set:
            raise
    except NotBalanced as error:
        console.complain(error)


def body_line(message: ReceivedMessage) -> bytes:
    """The data of the message, and a line end."""
    return message.data + b"\n"


def json_line(message: ReceivedMessage) -> bytes:
    """
    The message as a JSON object; a body that is not UTF-8 is there as ``body_base64``, and ``body``
    is null.
    """
    data = message.data
    value: dict[str, object] = {
        "topic": message.topic,
        "partition": str(message.partition),
        "offset": message.offset,
        "id": message.id,
        "attribute": message.attribute,
    }
    try:
        value["body"] = data.decode("utf-8")
    except UnicodeDecodeError:
        value["body"] = None
        value["body_base64"] = base64.b64encode(data).decode("ascii")
    return json_text(value).encode() + b"\n"
