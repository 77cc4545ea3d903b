"""
A consumer of one broker without ZooKeeper: it has all partitions, without sharing them in a group.

The original delivers nothing in this mode (a null ZooKeeper object fails inside its rebalance),
though its configuration has a partition for it.

Differs: ours works; without a configured partition it reads all partitions of the broker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping

from metamorphosis.client.fetch.fetching import Fetching
from metamorphosis.client.group.committing import Committing, Key
from metamorphosis.client.model import FetchTarget, Partition, Position
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.flow import Event
from metamorphosis.client.network.links import Log
from metamorphosis.client.network.replies import SUCCESS, error_of
from metamorphosis.client.settings import MAX_OFFSET, ConsumerConfig
from metamorphosis.errors import InvalidState
from metamorphosis.interfaces import IRuntime, OffsetStore
from metamorphosis.wire.commands import StatsCommand

BROKER_ID = 0
"""Used as the id of the broker, which the protocol does not report."""
LOOK_SECONDS = 5.0
"""Time between two requests for the broker's partitions."""
ASK_SECONDS = 5.0


async def known_partitions(
    connection: BrokerConnection, timeout: float
) -> dict[str, list[Partition]]:
    """
    The partitions in which a broker has messages: topic -> sorted.

    :raises MetaQError: the broker refused or did not reply.
    """
    status, body = await connection.call(StatsCommand("offsets"), timeout)
    if status != SUCCESS:
        raise error_of(status, body, f"stats of {connection.url}")
    found: dict[str, list[Partition]] = {}
    for line in body.decode("utf-8", "replace").split("\r\n"):
        words = line.split(" ")
        # <topic> part <number> min_offset <offset> max_offset <offset>
        if len(words) == 7 and words[1] == "part" and words[2].isdecimal():
            found.setdefault(words[0], []).append(Partition(BROKER_ID, int(words[2])))
    return {topic: sorted(partitions) for topic, partitions in found.items()}


class DirectAssignment:
    """
    Takes the place of ``Rebalance`` without a group. Thread: the loop's.

    :param subscriptions: the topics; they may change.
    :ivar committing: stores the positions.
    """

    def __init__(
        self,
        runtime: IRuntime,
        connection: BrokerConnection,
        config: ConsumerConfig,
        subscriptions: Collection[str],
        store: OffsetStore,
        fetching: Fetching,
        log: Log,
    ) -> None:
        self.committing = Committing(runtime, store, config, log)
        self._runtime = runtime
        self._connection = connection
        self._config = config
        self._subscriptions = subscriptions
        self._fetching = fetching
        self._log = log
        self._positions: dict[Key, Position] = {}
        self._wake = Event(runtime)
        self._closing = False
        self._first: dict[str, set[Key]] = {}  # topic: its partitions at the first look
        self._loop: Awaitable[None] | None = None

    @property
    def assignment(self) -> Mapping[Key, Position]:
        """The partitions that are read, and their positions; a copy."""
        return dict(self._positions)

    async def register(self) -> None:
        """
        Begin to read.

        :raises InvalidState: a second time.
        :raises MetaQError: the broker or the store did not reply; further attempts follow.
        """
        if self._loop is not None or self._closing:
            raise InvalidState("the consumer is registered already")
        self.committing.start()
        try:
            await self._look()
        finally:
            self._loop = self._runtime.start(self._run())

    def refresh(self) -> None:
        """The subscribed topics have changed."""
        self._wake.set()

    async def unregister(self) -> None:
        """Stop fetching and commit. Never fails."""
        self._closing = True
        self._wake.set()
        loop, self._loop = self._loop, None
        if loop is not None:
            await loop
        await self._fetching.stop(list(self._positions))
        await self.committing.stop()
        await self.committing.flush()
        self.committing.drop(list(self._positions))
        self._positions.clear()

    async def _run(self) -> None:
        failing = False
        while not self._closing:
            await self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            if self._closing:
                return
            try:
                await self._look()
                failing = False
            except Exception as error:
                if not failing:
                    self._log.warn("No partitions are known ({error}); still trying", error=error)
                failing = True

    async def _look(self) -> None:
        """Find the partitions, and begin again if they have changed."""
        wanted = await self._wanted()
        for topic in {topic for topic, _ in wanted} - self._first.keys():
            self._first[topic] = {key for key in wanted if key[0] == topic}
        if self._closing or wanted == set(self._positions):
            return
        gone = set(self._positions) - wanted
        await self._fetching.stop(gone)
        await self.committing.flush()
        self.committing.drop(gone)
        for key in gone:
            del self._positions[key]
        try:
            for key in sorted(wanted - set(self._positions)):
                self._positions[key] = await self._begin(*key)
        finally:
            url = self._connection.url
            if not self._closing:
                self._fetching.start(FetchTarget(each, url) for each in self._positions.values())

    async def _wanted(self) -> set[Key]:
        if self._config.partition is not None:
            only = Partition.parse(self._config.partition)
            return {(topic, only) for topic in self._subscriptions}
        if not await self._connection.ready(ASK_SECONDS):
            raise error_of(-1, b"", f"stats of {self._connection.url}")
        known = await known_partitions(self._connection, ASK_SECONDS)
        # For a topic without messages the partition that most likely gets the first one.
        first = [Partition(BROKER_ID, 0)]
        return {
            (topic, partition)
            for topic in self._subscriptions
            for partition in known.get(topic, first) + first
        }

    async def _begin(self, topic: str, partition: Partition) -> Position:
        position = await self.committing.take(topic, partition)
        if position.offset == MAX_OFFSET and (topic, partition) not in self._first[topic]:
            # The partition is younger than the consumer: all its messages are new.
            position.offset = 0
        return position
