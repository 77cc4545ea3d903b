"""
The fetch loops of the claimed partitions: ask, deliver, pause; the next batch is under way while
one is delivered. Answers and pauses are treated as in the original, with these differences.

Source: ``SimpleFetchManager``, ``FetchRequestQueue``.

Differs: every partition has its loop and at most two answers in memory, each of a share of
``max_buffered_bytes``; in the original ``fetchRunnerCount`` threads share all partitions, and a
broker that hangs stops them all. The setting has no effect here.

Differs: after a 301 the next fetch begins at once; the original pauses.

Differs: the start ``MAX_OFFSET`` is resolved before the first read, to 0 in a partition without
messages; the original misses the first message of such a partition.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable

from metamorphosis.client.delivery.assigning import AssignmentNews
from metamorphosis.client.delivery.delivery import PartitionDelivery
from metamorphosis.client.fetch.gets import FetchRules
from metamorphosis.client.fetch.partitionfetch import PartitionFetch
from metamorphosis.client.fetch.passing import PassingListener
from metamorphosis.client.model import FetchTarget, Partition, Position
from metamorphosis.client.network.complaints import some_of
from metamorphosis.client.network.connections import Connections
from metamorphosis.client.network.flow import Event, settle
from metamorphosis.client.network.links import Log
from metamorphosis.client.settings import ConsumerConfig
from metamorphosis.interfaces import IRuntime

LEAST_SHARE = 32 << 10
"""Least bytes of a fetch, with any number of partitions."""
PATIENCE_SECONDS = 10.0
"""Time between two log lines that name a listener which holds up a stop."""


class Fetching:
    """
    The fetch loops of one consumer. Thread: the loop's.

    :ivar connection_changed: called when a connection to a broker is made or lost.
    :param max_body: longest message accepted, bytes, where a subscription's size is not larger.
    :param delivery: makes the delivery of a position, with the topic's subscription.
    :param passed_over: called with each message that cannot be delivered.
    :param news: tells the program about its partitions.
    """

    def __init__(
        self,
        runtime: IRuntime,
        connections: Connections,
        config: ConsumerConfig,
        max_body: int,
        delivery: Callable[[Position], PartitionDelivery],
        log: Log,
        passed_over: PassingListener,
        news: AssignmentNews,
    ) -> None:
        self._runtime = runtime
        self._connections = connections
        self._config = config
        self._delivery = delivery
        self._log = log
        self._max_body = max_body
        self._rules = FetchRules(runtime, config, log, passed_over)
        self._news = news
        self._running: dict[tuple[str, Partition], PartitionFetch] = {}
        self._paused: set[tuple[str, Partition]] = set()  # by the program
        self._untold: set[tuple[str, Partition]] = set()  # until the program knows of them
        self._ends: list[Awaitable[None]] = []
        self._urls: set[str] = set()
        self.connection_changed: Callable[[], None] = lambda: None

    def start(self, targets: Iterable[FetchTarget]) -> None:
        """
        Fetch exactly these partitions; call it after ``stop``. Those that are new are delivered
        from when the program has been told.
        """
        found = list(targets)
        keys = {(position.topic, position.partition) for position, _ in found}
        self._paused &= keys
        new = keys - self._news.known
        self._news.known |= new
        if self._news.on_assigned is not None:
            self._untold |= new
        wanted = [target for target in found if target.url is not None]
        self._use({target.url for target in wanted if target.url is not None})
        share = self._config.max_buffered_bytes // (2 * max(len(wanted), 1))
        for position, url in wanted:
            assert url is not None
            self._start(position, url, max(share, LEAST_SHARE))
        if new:
            self._runtime.start(self._tell_assigned(new))

    def _start(self, position: Position, url: str, share: int) -> None:
        delivery = self._delivery(position)
        wanted_size = delivery.subscription.max_size
        size = min(wanted_size, share)
        longest = max(wanted_size, self._max_body)
        connection = self._connections.acquire(url, self)
        fetch = PartitionFetch(self._rules, delivery, connection, size, longest)
        key = position.topic, position.partition
        if key in self._paused or key in self._untold:
            fetch.pause()
        self._running[key] = fetch
        self._ends.append(self._runtime.start(fetch.run()))

    async def _tell_assigned(self, keys: set[tuple[str, Partition]]) -> None:
        await self._news.assigned(keys)
        self._untold -= keys
        for key in keys - self._paused:
            if key in self._running:
                self._running[key].resume()

    async def stop(self, leaving: Collection[tuple[str, Partition]] = ()) -> None:
        """
        Stop reading; ends when all delivered messages have been processed or taken back. No message
        is acknowledged after that.

        :param leaving: partitions that are given away; the program is told.
        """
        running = list(self._running.values())
        for fetch in running:
            fetch.stop()
        stopped = Event(self._runtime)
        self._runtime.start(self._watch(running, stopped))
        ends, self._ends = self._ends, []
        await settle(ends)
        stopped.set()
        await self._news.revoked(leaving)
        self._running.clear()

    @property
    def paused(self) -> frozenset[tuple[str, Partition]]:
        """The partitions that the program has paused."""
        return frozenset(self._paused)

    def pause(self, topic: str, partition: Partition) -> None:
        """Deliver no message of it before ``resume``."""
        self._paused.add((topic, partition))
        fetch = self._running.get((topic, partition))
        if fetch is not None:
            fetch.pause()

    def resume(self, topic: str, partition: Partition) -> None:
        """Deliver its messages again, unless the program does not know of it yet."""
        key = topic, partition
        self._paused.discard(key)
        fetch = self._running.get(key)
        if fetch is not None and key not in self._untold:
            fetch.resume()

    def delivery_of(self, topic: str, partition: Partition) -> PartitionDelivery | None:
        """The delivery of a partition; None: another member has it."""
        fetch = self._running.get((topic, partition))
        return None if fetch is None else fetch.delivery

    def answers(self, url: str) -> bool:
        """Whether this broker is read from and connected now."""
        connection = self._connections.connection_of(url)
        return url in self._urls and connection is not None and connection.is_connected

    def _connection_changed(self) -> None:
        self.connection_changed()

    @property
    def partitions(self) -> list[tuple[str, Partition]]:
        """The partitions that are fetched at present."""
        return list(self._running)

    def close(self) -> None:
        """Release the connections, which ``stop`` keeps for the next ``start``."""
        self._rules.gathering.close()
        self._use(set())

    def _use(self, urls: set[str]) -> None:
        for url in urls - self._urls:
            self._connections.acquire(url, self).changes.watch(self, self._connection_changed)
        for url in self._urls - urls:
            connection = self._connections.connection_of(url)
            if connection is not None:
                connection.changes.unwatch(self)
            self._connections.release(url, self)
        self._urls = urls

    async def _watch(self, running: list[PartitionFetch], stopped: Event) -> None:
        """Log the listeners that hold up the stop; abandon them after the configured time."""
        waited = 0.0
        limit = self._config.stop_timeout_ms / 1000
        while not stopped.is_set:
            pause = PATIENCE_SECONDS
            if limit:
                pause = min(pause, limit - waited)
            if await stopped.wait(pause):
                return
            waited += pause
            given_up = bool(limit) and waited >= limit
            busy = [each.delivery.under_way for each in running if not each.ended.is_set]
            places = [
                f"{m.topic} {m.partition} at offset {m.offset}" for m in busy if m is not None
            ]
            if places:
                self._log.warn(
                    "Listeners have been busy for {seconds:g} s, {places} cannot be given back"
                    "{outcome}",
                    seconds=waited,
                    places=some_of(places),
                    outcome="; not waiting longer" if given_up else "",
                )
            if given_up:
                for fetch in running:
                    fetch.abandon()
                return
