"""
Consumers and browsers with plain calls that wait. Thread: any but the loop's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Self, TypeVar

from metamorphosis.client.consumer import browser, consumer
from metamorphosis.client.delivery.subscription import Filter, Listener, Reject
from metamorphosis.client.fetch.passing import PassedOverMessages, PassingListener
from metamorphosis.client.model import (
    Lag,
    Partition,
    PassedOver,
    Position,
    ReceivedMessage,
    StoredOffset,
)
from metamorphosis.client.runtimes.aio import AsyncioThreads
from metamorphosis.client.runtimes.loopthread import LoopThread
from metamorphosis.client.runtimes.plain import Plain
from metamorphosis.errors import ClientClosed

T = TypeVar("T")


class Consumer(Plain[consumer.Consumer]):
    """See ``client.consumer.consumer.Consumer``; one thread at a time iterates."""

    def __init__(
        self,
        thread: LoopThread,
        core: consumer.Consumer,
        factory: object,
        listeners: AsyncioThreads,
    ) -> None:
        super().__init__(thread, core, factory)
        self._listeners = listeners
        self._taker: Taker | None = None

    @property
    def group(self) -> str:
        """See ``client.consumer.consumer.Consumer``."""
        return self._core.group

    @property
    def assignment(self) -> Mapping[tuple[str, Partition], Position]:
        """See ``client.consumer.consumer.Consumer``; a copy."""
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
        """See ``client.consumer.consumer.Consumer``; the listener runs in a thread and may block,
        the filter must not."""
        takes = self._threaded(listener) if callable(listener) else listener
        self._call(
            self._core.subscribe, topic, max_size, takes, filter, batch=batch, auto_ack=auto_ack
        )
        return self

    def on_rejection(self, strategy: Reject) -> Self:
        """See ``client.consumer.consumer.Consumer``; runs in a thread and may block."""
        takes = self._threaded(strategy) if callable(strategy) else strategy
        self._call(self._core.on_rejection, takes)
        return self

    def on_passed_over(self, listener: PassingListener) -> Self:
        """See ``client.fetch.passing.PassesOver``; runs in a thread and may block."""
        takes: PassingListener = listener
        if callable(listener):

            def takes(message: PassedOver) -> None:
                self._listeners.submit(lambda: listener(message), _told)

        self._call(self._core.on_passed_over, takes)
        return self

    @property
    def passed_over(self) -> PassedOverMessages:
        """See ``client.fetch.passing.PassesOver``."""
        return self._core.passed_over

    def complete_subscribe(self) -> None:
        """See ``client.consumer.consumer.Consumer``."""
        self._call(self._core.complete_subscribe)

    def __iter__(self) -> Iterator[ReceivedMessage]:
        messages = self._thread.call(self._core.__aiter__)
        if self._taker is None:
            self._taker = Taker(self._thread, messages)
        return messages_of(self._taker)

    def ack(self, message: ReceivedMessage) -> None:
        """See ``client.consumer.consumer.Consumer``."""
        self._call(self._core.ack, message)

    def rollback(self, message: ReceivedMessage) -> None:
        """See ``client.consumer.consumer.Consumer``."""
        self._call(self._core.rollback, message)

    def seek(self, topic: str, partition: Partition, offset: int) -> None:
        """See ``client.consumer.consumer.Consumer``."""
        self._call(self._core.seek, topic, partition, offset)

    def commit(self) -> bool:
        """See ``client.consumer.consumer.Consumer``."""
        return self._call(self._core.commit)

    def get(
        self,
        topic: str,
        partition: Partition,
        offset: int,
        max_size: int = 1 << 20,
        timeout: float = 10.0,
    ) -> Sequence[ReceivedMessage] | None:
        """See ``client.consumer.consumer.Consumer``."""
        return self._call(self._core.get, topic, partition, offset, max_size, timeout)

    def offset(self, topic: str, partition: Partition, offset: int, timeout: float = 10.0) -> int:
        """See ``client.consumer.consumer.Consumer``."""
        return self._call(self._core.offset, topic, partition, offset, timeout)

    def offset_at(
        self, topic: str, partition: Partition, milliseconds: int, timeout: float = 10.0
    ) -> int:
        """See ``client.consumer.consumer.Consumer``."""
        return self._call(self._core.offset_at, topic, partition, milliseconds, timeout)

    def committed(
        self, topic: str, partition: Partition, timeout: float = 10.0
    ) -> StoredOffset | None:
        """See ``client.consumer.consumer.Consumer``."""
        return self._call(self._core.committed, topic, partition, timeout)

    def end(self, topic: str, partition: Partition, timeout: float = 10.0) -> int:
        """See ``client.consumer.consumer.Consumer``."""
        return self._call(self._core.end, topic, partition, timeout)

    def lag(self, topic: str, timeout: float = 10.0) -> dict[Partition, Lag]:
        """See ``client.consumer.consumer.Consumer``."""
        return self._call(self._core.lag, topic, timeout)

    def _threaded(self, function: Callable[[T], object]) -> Callable[[T], asyncio.Future[object]]:
        """The function, called in a listener thread of the factory."""
        loop = self._thread.loop

        def call(argument: T) -> asyncio.Future[object]:
            future: asyncio.Future[object] = loop.create_future()

            def done(result: object, error: BaseException | None) -> None:
                if future.done():
                    return
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

            self._listeners.submit(lambda: function(argument), done)
            return future

        return call


class TopicBrowser(Plain[browser.TopicBrowser]):
    """See ``client.consumer.browser.TopicBrowser``; every ``for`` begins anew."""

    @property
    def topic(self) -> str:
        """See ``client.consumer.browser.TopicBrowser``."""
        return self._core.topic

    def on_passed_over(self, listener: PassingListener) -> Self:
        """See ``client.fetch.passing.PassesOver``; the listener must not block."""
        self._call(self._core.on_passed_over, listener)
        return self

    @property
    def passed_over(self) -> PassedOverMessages:
        """See ``client.fetch.passing.PassesOver``."""
        return self._core.passed_over

    def partitions(self) -> list[Partition]:
        """See ``client.consumer.browser.TopicBrowser``."""
        return self._call(self._core.partitions)

    def __iter__(self) -> Iterator[ReceivedMessage]:
        return messages_of(Taker(self._thread, self._core.__aiter__()))


def _told(result: object, error: BaseException | None) -> None:
    if error is not None:
        logging.getLogger("metamorphosis.client").error(
            "The listener for messages that are passed over failed", exc_info=error
        )


class _End(Enum):
    """The iterator has ended."""

    END = "end"


Taken = ReceivedMessage | _End


class Taker:
    """
    Takes messages of an asynchronous iterator, one call into the loop for each. A message that
    comes after its call was interrupted (Ctrl-C) is kept for the next call: to the iterator it
    counts as processed as soon as the next one is asked for.
    """

    def __init__(self, thread: LoopThread, messages: AsyncIterator[ReceivedMessage]) -> None:
        self._thread = thread
        self._messages = messages
        self._taking: asyncio.Future[Taken] | None = None  # not handed out yet

    def take(self) -> Taken:
        """The next message, or the end."""
        try:
            message = self._thread.call(self._wait)
        except Exception:
            self._taking = None
            raise
        self._taking = None
        return message

    async def _wait(self) -> Taken:
        if self._taking is None:
            self._taking = asyncio.ensure_future(self._next())
        return await self._taking

    async def _next(self) -> Taken:
        try:
            return await self._messages.__anext__()
        except StopAsyncIteration:
            return _End.END


def messages_of(taker: Taker) -> Iterator[ReceivedMessage]:
    """Messages until the end, or until the factory is closed."""
    while True:
        try:
            message = taker.take()
        except ClientClosed:
            return
        if isinstance(message, _End):
            return
        yield message
