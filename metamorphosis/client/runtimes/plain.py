"""
Producers, consumers and browsers whose core is behind a ``LoopThread``: plain calls that wait.

Thread: any but the loop's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from metamorphosis.client.checked import checked
from metamorphosis.client.delivery.subscription import Filter, Listener, Reject
from metamorphosis.client.fetch.passing import PassedOverMessages, PassingListener
from metamorphosis.client.model import (
    Partition,
    PassedOver,
    Position,
    ReceivedMessage,
    SendResult,
)
from metamorphosis.client.network.flow import settle
from metamorphosis.client.runtimes.loopthread import LoopThread
from metamorphosis.errors import ClientClosed

if TYPE_CHECKING:
    from metamorphosis.client.runtimes.plaintransactions import Transaction

SEND_WINDOW = 1000
"""Messages under way in ``send_all``."""


class Plain:
    """Something of the core's behind a loop."""

    def __init__(self, thread: LoopThread, core: Any, factory: object) -> None:
        """:param factory: is kept, so that it is not dropped while this is used."""
        self._thread = thread
        self._core = core
        self._factory = factory

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        return self._thread.call(getattr(self._core, method), *args, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def close(self) -> None:
        """See the core's class; waits for the end, and may be called again."""
        try:
            self._call("close")
        except ClientClosed:
            pass  # the factory was closed first, and closed this as well


class Publishing(Plain):
    """See ``client.publisher.Publisher``."""

    def publish(self, topic: str) -> None:
        """See ``client.publisher.Publisher``."""
        self._call("publish", topic)

    def set_default_topic(self, topic: str) -> None:
        """See ``client.publisher.Publisher``."""
        self._call("set_default_topic", topic)


class Producer(Publishing):
    """See ``client.producer.Producer``."""

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> SendResult:
        """See ``client.producer.Producer``."""
        options = {"key": key, "partition": partition, "timeout": timeout}
        found: SendResult = self._call("send", topic, data, attribute, **options)
        return found

    @checked()
    def send_all(
        self, topic: str, bodies: Iterable[bytes], attribute: str | None = None
    ) -> Iterator[SendResult]:
        """
        Send many messages, ``SEND_WINDOW`` at a time; the results in order. The iterator raises the
        first error; messages behind it, up to the window's end, may have been stored.
        """
        rest = iter(bodies)
        while True:
            window = [body for _, body in zip(range(SEND_WINDOW), rest)]
            if not window:
                return
            for outcome in self._thread.call(self._send_window, topic, window, attribute):
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome

    def transaction(
        self, lifetime: int | None = None, *, target: str | None = None, timeout: float = 5.0
    ) -> Transaction:
        """See ``client.producer.Producer``."""
        from metamorphosis.client.runtimes.plaintransactions import Transaction

        core = self._call("transaction", lifetime, target=target, timeout=timeout)
        return Transaction(self._thread, core, self._factory)

    async def _send_window(
        self, topic: str, bodies: list[bytes], attribute: str | None
    ) -> list[SendResult | Exception]:
        return await settle([self._core.send(topic, body, attribute) for body in bodies])


class OneWayProducer(Publishing):
    """See ``client.oneway.OneWayProducer``."""

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> SendResult | None:
        """See ``client.oneway.OneWayProducer``."""
        options = {"key": key, "partition": partition, "timeout": timeout}
        return self._call("send", topic, data, attribute, **options)  # type: ignore[no-any-return]

    def ready(self) -> bool:
        """See ``client.oneway.OneWayProducer``; waits until there is room."""
        return self._call("ready")  # type: ignore[no-any-return]

    def recover(self) -> None:
        """See ``client.oneway.OneWayProducer``."""
        self._call("recover")


class OrderedProducer(Publishing):
    """See ``client.ordered.OrderedProducer``."""

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        timeout: float | None = None,
    ) -> SendResult:
        """See ``client.ordered.OrderedProducer``."""
        return self._call("send", topic, data, attribute, key=key, timeout=timeout)  # type: ignore

    def local_count(self, topic: str, partition: Partition) -> int:
        """See ``client.ordered.OrderedProducer``."""
        return self._call("local_count", topic, partition)  # type: ignore[no-any-return]

    def recover(self) -> None:
        """See ``client.ordered.OrderedProducer``."""
        self._call("recover")


class Consumer(Plain):
    """See ``client.consumer.Consumer``; one thread at a time iterates."""

    def __init__(self, thread: LoopThread, core: Any, factory: object, listeners: Any) -> None:
        super().__init__(thread, core, factory)
        self._listeners = listeners
        self._taker: Taker | None = None

    @property
    def group(self) -> str:
        """See ``client.consumer.Consumer``."""
        return self._core.group  # type: ignore[no-any-return]

    @property
    def assignment(self) -> Mapping[tuple[str, Partition], Position]:
        """See ``client.consumer.Consumer``; a copy."""
        found: Mapping[tuple[str, Partition], Position] = self._thread.call(
            lambda: dict(self._core.assignment)
        )
        return found

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
        """See ``client.consumer.Consumer``; the listener runs in a thread and may block, the filter
        must not."""
        takes = self._threaded(listener) if callable(listener) else listener
        self._call("subscribe", topic, max_size, takes, filter, batch=batch, auto_ack=auto_ack)
        return self

    def on_rejection(self, strategy: Reject) -> Self:
        """See ``client.consumer.Consumer``; runs in a thread and may block."""
        takes = self._threaded(strategy) if callable(strategy) else strategy
        self._call("on_rejection", takes)
        return self

    def on_passed_over(self, listener: PassingListener) -> Self:
        """See ``client.passing.PassesOver``; runs in a thread and may block."""
        takes: PassingListener = listener
        if callable(listener):

            def takes(message: PassedOver) -> None:
                self._listeners.submit(lambda: listener(message), _told)

        self._call("on_passed_over", takes)
        return self

    @property
    def passed_over(self) -> PassedOverMessages:
        """See ``client.passing.PassesOver``."""
        return self._core.passed_over  # type: ignore[no-any-return]

    def complete_subscribe(self) -> None:
        """See ``client.consumer.Consumer``."""
        self._call("complete_subscribe")

    def __iter__(self) -> Iterator[ReceivedMessage]:
        messages = self._thread.call(self._core.__aiter__)
        if self._taker is None:
            self._taker = Taker(self._thread, messages)
        return messages_of(self._taker)

    def ack(self, message: ReceivedMessage) -> None:
        """See ``client.consumer.Consumer``."""
        self._call("ack", message)

    def rollback(self, message: ReceivedMessage) -> None:
        """See ``client.consumer.Consumer``."""
        self._call("rollback", message)

    def seek(self, topic: str, partition: Partition, offset: int) -> None:
        """See ``client.consumer.Consumer``."""
        self._call("seek", topic, partition, offset)

    def commit(self) -> bool:
        """See ``client.consumer.Consumer``."""
        return self._call("commit")  # type: ignore[no-any-return]

    def get(
        self,
        topic: str,
        partition: Partition,
        offset: int,
        max_size: int = 1 << 20,
        timeout: float = 10.0,
    ) -> Sequence[ReceivedMessage] | None:
        """See ``client.consumer.Consumer``."""
        return self._call("get", topic, partition, offset, max_size, timeout)  # type: ignore

    def offset(self, topic: str, partition: Partition, offset: int, timeout: float = 10.0) -> int:
        """See ``client.consumer.Consumer``."""
        return self._call("offset", topic, partition, offset, timeout)  # type: ignore

    def offset_at(
        self, topic: str, partition: Partition, milliseconds: int, timeout: float = 10.0
    ) -> int:
        """See ``client.consumer.Consumer``."""
        return self._call("offset_at", topic, partition, milliseconds, timeout)  # type: ignore

    def _threaded(self, function: Callable[[Any], object]) -> Callable[[Any], asyncio.Future[Any]]:
        """The function, called in a thread of the factory's."""
        loop = self._thread.loop

        def call(argument: Any) -> asyncio.Future[Any]:
            future = loop.create_future()

            def done(result: Any, error: BaseException | None) -> None:
                if future.done():
                    return
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

            self._listeners.submit(lambda: function(argument), done)
            return future

        return call


class TopicBrowser(Plain):
    """See ``client.browser.TopicBrowser``; every ``for`` begins anew."""

    @property
    def topic(self) -> str:
        """See ``client.browser.TopicBrowser``."""
        return self._core.topic  # type: ignore[no-any-return]

    def on_passed_over(self, listener: PassingListener) -> Self:
        """See ``client.passing.PassesOver``; the listener must not block."""
        self._call("on_passed_over", listener)
        return self

    @property
    def passed_over(self) -> PassedOverMessages:
        """See ``client.passing.PassesOver``."""
        return self._core.passed_over  # type: ignore[no-any-return]

    def partitions(self) -> list[Partition]:
        """See ``client.browser.TopicBrowser``."""
        return self._call("partitions")  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[ReceivedMessage]:
        return messages_of(Taker(self._thread, self._core.__aiter__()))


def _told(result: object, error: BaseException | None) -> None:
    if error is not None:
        logging.getLogger("metamorphosis.client").error(
            "The listener for messages that are passed over failed", exc_info=error
        )


_END = object()


class Taker:
    """
    Takes messages of an asynchronous iterator, one call into the loop for each. What comes when the
    call was interrupted (Ctrl-C) is there for the next one: the iterator takes it for processed
    when it is asked on.
    """

    def __init__(self, thread: LoopThread, messages: Any) -> None:
        self._thread = thread
        self._messages = messages
        self._taking: asyncio.Future[Any] | None = None  # what nobody has got yet

    def take(self) -> Any:
        """The next message, or ``_END``."""
        try:
            message = self._thread.call(self._wait)
        except Exception:
            self._taking = None
            raise
        self._taking = None
        return message

    async def _wait(self) -> Any:
        if self._taking is None:
            self._taking = asyncio.ensure_future(self._next())
        return await self._taking

    async def _next(self) -> Any:
        try:
            return await self._messages.__anext__()
        except StopAsyncIteration:
            return _END


def messages_of(taker: Taker) -> Iterator[ReceivedMessage]:
    """Until the end, or until the factory was closed."""
    while True:
        try:
            message = taker.take()
        except ClientClosed:
            return
        if message is _END:
            return
        yield message
