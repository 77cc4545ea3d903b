"""
Consumers and browsers with plain calls that wait. Thread: any but the loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Self

from metamorphosis.client import checks
from metamorphosis.client.checked import checked
from metamorphosis.client.consumer import browser, consumer
from metamorphosis.client.delivery.assigning import AssignmentListener
from metamorphosis.client.delivery.subscription import Filter, Listener, Reject
from metamorphosis.client.documented import documented
from metamorphosis.client.fetch.passing import PassedOverMessages, PassingListener
from metamorphosis.client.model import (
    ConsumerCounts,
    Lag,
    Partition,
    Position,
    ReceivedMessage,
    StoredOffset,
)
from metamorphosis.client.runtimes.listenerthreads import ListenerThreads
from metamorphosis.client.runtimes.loopthread import LoopThread
from metamorphosis.client.runtimes.plain import Plain
from metamorphosis.errors import ClientClosed


@documented(consumer.Consumer)
class Consumer(Plain[consumer.Consumer]):
    """``consumer.Consumer`` with plain calls; one thread at a time iterates."""

    def __init__(
        self,
        thread: LoopThread,
        core: consumer.Consumer,
        factory: object,
        listeners: ListenerThreads,
    ) -> None:
        super().__init__(thread, core, factory)
        self._listeners = listeners
        self._taker = Taker(thread)

    @property
    def group(self) -> str:
        """The name of its group."""
        return self._core.group

    @property
    def counts(self) -> ConsumerCounts:
        return self._call(lambda: self._core.counts)

    @property
    def assignment(self) -> Mapping[tuple[str, Partition], Position]:
        """A copy."""
        return self._call(lambda: dict(self._core.assignment))

    def subscribe(
        self,
        topic: str,
        max_size: int = 1 << 20,
        listener: Listener | None = None,
        filter: Filter | None = None,
        *,
        batch: bool = False,
        auto_ack: bool = True,
    ) -> Self:
        """The listener runs in a thread and may block, the filter must not."""
        takes = self._listeners.awaited(self, listener) if callable(listener) else listener
        self._call(
            self._core.subscribe, topic, max_size, takes, filter, batch=batch, auto_ack=auto_ack
        )
        return self

    def on_rejection(self, strategy: Reject) -> Self:
        """Runs in a thread and may block."""
        takes = self._listeners.awaited(self, strategy) if callable(strategy) else strategy
        self._call(self._core.on_rejection, takes)
        return self

    def on_assigned(self, listener: AssignmentListener) -> Self:
        """Runs in a thread and may block."""
        takes = self._listeners.awaited(self, listener) if callable(listener) else listener
        self._call(self._core.on_assigned, takes)
        return self

    def on_revoked(self, listener: AssignmentListener) -> Self:
        """Runs in a thread and may block."""
        takes = self._listeners.awaited(self, listener) if callable(listener) else listener
        self._call(self._core.on_revoked, takes)
        return self

    @property
    def paused(self) -> frozenset[tuple[str, Partition]]:
        return self._call(lambda: self._core.paused)

    def pause(self, topic: str, partition: Partition) -> None:
        self._call(self._core.pause, topic, partition)

    def resume(self, topic: str, partition: Partition) -> None:
        self._call(self._core.resume, topic, partition)

    def close(self) -> None:
        self._listeners.check_not_inside(self)
        super().close()

    def on_passed_over(self, listener: PassingListener) -> Self:
        """Runs in a thread and may block."""
        takes: PassingListener = listener
        if callable(listener):
            takes = self._listeners.told(self, listener, "messages that are passed over")
        self._call(self._core.on_passed_over, takes)
        return self

    @property
    def passed_over(self) -> PassedOverMessages:
        """The numbers of messages that were not delivered: ``damaged`` and ``too_long``."""
        return self._core.passed_over

    def complete_subscribe(self) -> None:
        self._call(self._core.complete_subscribe)

    def __iter__(self) -> Iterator[ReceivedMessage]:
        return self.messages()

    def messages(self, timeout: float | None = None) -> Iterator[ReceivedMessage]:
        self._call(self._core.messages, timeout)  # whether it is possible
        core = self._core
        return messages_of(lambda: self._taker.take(lambda: core.poll(timeout, 1), timeout))

    @checked(timeout=checks.patience)
    def poll(self, timeout: float | None = None, max: int = 500) -> list[ReceivedMessage]:
        core = self._core
        return self._taker.take(lambda: core.poll(timeout, max), timeout, max)

    def ack(self, message: ReceivedMessage) -> None:
        self._call(self._core.ack, message)

    def rollback(self, message: ReceivedMessage) -> None:
        self._call(self._core.rollback, message)

    def seek(self, topic: str, partition: Partition, offset: int) -> None:
        self._call(self._core.seek, topic, partition, offset)

    def commit(self) -> bool:
        return self._call(self._core.commit)

    def get(
        self,
        topic: str,
        partition: Partition,
        offset: int,
        max_size: int = 1 << 20,
        timeout: float = 10.0,
    ) -> Sequence[ReceivedMessage] | None:
        return self._call(self._core.get, topic, partition, offset, max_size, timeout)

    def offset(self, topic: str, partition: Partition, offset: int, timeout: float = 10.0) -> int:
        return self._call(self._core.offset, topic, partition, offset, timeout)

    def offset_at(
        self, topic: str, partition: Partition, milliseconds: int, timeout: float = 10.0
    ) -> int:
        return self._call(self._core.offset_at, topic, partition, milliseconds, timeout)

    def committed(
        self, topic: str, partition: Partition, timeout: float = 10.0
    ) -> StoredOffset | None:
        return self._call(self._core.committed, topic, partition, timeout)

    def end(self, topic: str, partition: Partition, timeout: float = 10.0) -> int:
        return self._call(self._core.end, topic, partition, timeout)

    def lag(self, topic: str, timeout: float = 10.0) -> dict[Partition, Lag]:
        return self._call(self._core.lag, topic, timeout)


@documented(browser.TopicBrowser)
class TopicBrowser(Plain[browser.TopicBrowser]):
    """``browser.TopicBrowser`` with plain calls; every ``for`` begins anew."""

    @property
    def topic(self) -> str:
        """The topic that it reads."""
        return self._core.topic

    def on_passed_over(self, listener: PassingListener) -> Self:
        """The listener must not block."""
        self._call(self._core.on_passed_over, listener)
        return self

    @property
    def passed_over(self) -> PassedOverMessages:
        """The numbers of messages that were not delivered: ``damaged`` and ``too_long``."""
        return self._core.passed_over

    def partitions(self) -> list[Partition]:
        return self._call(self._core.partitions)

    def __iter__(self) -> Iterator[ReceivedMessage]:
        messages, taker = self._core.__aiter__(), Taker(self._thread)

        async def next_message() -> list[ReceivedMessage]:
            async for message in messages:
                return [message]
            return []

        return messages_of(lambda: taker.take(next_message))


class Taker:
    """
    Takes messages, one call into the loop at a time. Messages that come after their call was
    interrupted (Ctrl-C) are kept for the next call: to the core they count as processed as soon as
    others are asked for.
    """

    def __init__(self, thread: LoopThread) -> None:
        self._thread = thread
        self._taking: asyncio.Future[list[ReceivedMessage]] | None = None  # not handed out yet
        self._rest: list[ReceivedMessage] = []

    def take(
        self,
        ask: Callable[[], Awaitable[list[ReceivedMessage]]],
        timeout: float | None = None,
        most: int = 1,
    ) -> list[ReceivedMessage]:
        """
        The next messages; none at the end, or when none has come in time.

        :param ask: asks the core for them.
        :param timeout: seconds; of a call that was interrupted.
        """
        if not self._rest:
            try:
                self._rest = self._thread.call(self._wait, ask, timeout)
            except Exception:
                self._taking = None
                raise
            if self._taking is not None and self._taking.done():
                self._taking = None
        taken, self._rest = self._rest[:most], self._rest[most:]
        return taken

    async def _wait(
        self, ask: Callable[[], Awaitable[list[ReceivedMessage]]], timeout: float | None
    ) -> list[ReceivedMessage]:
        if self._taking is None:
            self._taking = asyncio.ensure_future(ask())
        elif not (await asyncio.wait([self._taking], timeout=timeout))[0]:
            return []
        return await self._taking


def messages_of(take: Callable[[], list[ReceivedMessage]]) -> Iterator[ReceivedMessage]:
    """Messages until there are none, or until the factory is closed."""
    while True:
        try:
            messages = take()
        except ClientClosed:
            return
        if not messages:
            return
        yield from messages
