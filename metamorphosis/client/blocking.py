"""
The client for scripts: plain calls that wait, no event loop in sight.

::

    with MessageSessionFactory(zookeeper="localhost:2181") as factory:
        with factory.create_producer("test") as producer:
            result = producer.send("test", b"hello")

        with factory.create_consumer("readers") as consumer:
            consumer.subscribe("test").complete_subscribe()
            for message in consumer:
                ...

An asyncio loop runs in a thread of its own; every call goes there, and the caller waits. Listeners
run in further threads, so that they may block and call the client. Thread: any but the loop's,
several at a time if need be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from threading import current_thread
from typing import Any, Self, TypeVar

from metamorphosis.client.brokerstats import Stats
from metamorphosis.client.flow import settle
from metamorphosis.client.model import Partition, Position, ReceivedMessage, SendResult
from metamorphosis.client.runtimes.aio import AsyncioRuntime
from metamorphosis.client.selectors import Selector
from metamorphosis.client.session import SessionFactory, client_config
from metamorphosis.client.settings import ClientConfig, ConsumerConfig
from metamorphosis.client.subscription import Filter, Listener, Reject
from metamorphosis.errors import ClientClosed, InvalidState
from metamorphosis.threads import start_daemon

T = TypeVar("T")

LISTENER_THREADS = 8
"""Listeners that run at the same time, of all consumers of a factory."""

SEND_WINDOW = 1000
"""Messages under way in ``send_all``."""


class LoopThread:
    """An asyncio loop in a thread, and calls into it."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._calls: set[asyncio.Task[None]] = set()  # the loop itself only has weak references
        self._thread = start_daemon(self._run, name)

    def _run(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        loop.run_forever()
        rest = asyncio.all_tasks(loop)
        for task in rest:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """
        The result of ``function(...)``, called in the loop; if that can be awaited, what comes of
        it.

        :raises InvalidState: the caller is the loop itself, which would wait for ever.
        :raises ClientClosed: the loop has ended.
        """
        if current_thread() is self._thread:
            raise InvalidState("a blocking call in the event loop's own thread would never return")
        outcome: Future[Any] = Future()

        async def perform() -> None:
            try:
                result = function(*args, **options)
                if isinstance(result, Awaitable):
                    result = await result
            except asyncio.CancelledError:
                outcome.set_exception(ClientClosed("The session factory has been closed."))
            except BaseException as error:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        try:
            self.loop.call_soon_threadsafe(self._start, perform)
        except RuntimeError:  # the loop is closed
            raise ClientClosed("The session factory has been closed.") from None
        return outcome.result()

    def _start(self, perform: Callable[[], Any]) -> None:
        task = self.loop.create_task(perform())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def stop(self) -> None:
        """End loop and thread; calls that still wait are cancelled."""
        try:
            self.loop.call_soon_threadsafe(self.loop.stop)
        except RuntimeError:
            pass  # somebody else was faster
        self._thread.join()


class _Blocking:
    """Something of the core's behind a loop."""

    def __init__(self, thread: LoopThread, core: Any) -> None:
        self._thread = thread
        self._core = core

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


class Producer(_Blocking):
    """See ``client.producer.Producer``."""

    def publish(self, topic: str) -> None:
        """See ``client.producer.Producer``."""
        self._call("publish", topic)

    def set_default_topic(self, topic: str) -> None:
        """See ``client.producer.Producer``."""
        self._call("set_default_topic", topic)

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

    async def _send_window(
        self, topic: str, bodies: list[bytes], attribute: str | None
    ) -> list[SendResult | Exception]:
        return await settle([self._core.send(topic, body, attribute) for body in bodies])


class Consumer(_Blocking):
    """See ``client.consumer.Consumer``; one thread at a time iterates."""

    def __init__(self, thread: LoopThread, core: Any, listeners: Any) -> None:
        super().__init__(thread, core)
        self._listeners = listeners

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

    def complete_subscribe(self) -> None:
        """See ``client.consumer.Consumer``."""
        self._call("complete_subscribe")

    def __iter__(self) -> Iterator[ReceivedMessage]:
        messages = self._thread.call(self._core.__aiter__)
        return _messages(self._thread, messages)

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

    def offset(
        self, topic: str, partition: Partition, offset: int, timeout: float = 10.0
    ) -> int:
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


class TopicBrowser(_Blocking):
    """See ``client.browser.TopicBrowser``; every ``for`` begins anew."""

    @property
    def topic(self) -> str:
        """See ``client.browser.TopicBrowser``."""
        return self._core.topic  # type: ignore[no-any-return]

    def partitions(self) -> list[Partition]:
        """See ``client.browser.TopicBrowser``."""
        return self._call("partitions")  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[ReceivedMessage]:
        return _messages(self._thread, self._core.__aiter__())


class MessageSessionFactory:
    """
    Makes producers, consumers and browsers.

    :param settings: of ``ClientConfig``; they take precedence over ``config``.
    :raises InvalidConfig: a setting is wrong.
    """

    def __init__(
        self,
        zookeeper: str | None = None,
        broker: str | None = None,
        config: ClientConfig | None = None,
        **settings: Any,
    ) -> None:
        settings = {"zookeeper": zookeeper, "broker": broker, **settings}
        self._config = client_config(config, settings)
        self._thread = LoopThread("metamorphosis-client")
        self._core: SessionFactory = self._thread.call(self._make)
        self._listeners: Any = self._thread.call(
            self._core.runtime.threads, LISTENER_THREADS, "metamorphosis-listener"
        )

    def _make(self) -> SessionFactory:
        """Thread: the loop's."""
        return SessionFactory(AsyncioRuntime(), self._config)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def start(self) -> None:
        """See ``SessionFactory``."""
        self._thread.call(self._core.start)

    def close(self) -> None:
        """See ``SessionFactory``; ends the threads as well."""
        try:
            self._thread.call(self._core.close)
            self._thread.call(self._listeners.stop)
        except ClientClosed:
            return
        self._thread.stop()

    def create_producer(
        self,
        topic: str | None = None,
        selector: Selector | None = None,
        *,
        retries: int = 0,
        in_order: bool = False,
        max_outstanding_bytes: int = 64 << 20,
    ) -> Producer:
        """See ``SessionFactory``; the selector must not block."""
        core = self._thread.call(
            self._core.create_producer,
            topic,
            selector,
            retries=retries,
            in_order=in_order,
            max_outstanding_bytes=max_outstanding_bytes,
        )
        return Producer(self._thread, core)

    def create_consumer(
        self,
        group: str | None = None,
        config: ConsumerConfig | None = None,
        store: Any = None,
        **settings: Any,
    ) -> Consumer:
        """See ``SessionFactory``."""
        core = self._thread.call(self._core.create_consumer, group, config, store, **settings)
        return Consumer(self._thread, core, self._listeners)

    def create_broadcast_consumer(
        self,
        group: str | None = None,
        config: ConsumerConfig | None = None,
        store: Any = None,
        **settings: Any,
    ) -> Consumer:
        """See ``SessionFactory``."""
        create = self._core.create_broadcast_consumer
        core = self._thread.call(create, group, config, store, **settings)
        return Consumer(self._thread, core, self._listeners)

    def create_topic_browser(
        self, topic: str, max_size: int = 1 << 20, timeout: float = 5.0
    ) -> TopicBrowser:
        """See ``SessionFactory``."""
        core = self._thread.call(self._core.create_topic_browser, topic, max_size, timeout)
        return TopicBrowser(self._thread, core)

    def get_stats(self, target: str | None = None, item: str | None = None) -> Stats:
        """See ``SessionFactory``."""
        return self._thread.call(self._core.get_stats, target, item)  # type: ignore[no-any-return]

    def get_partitions_for_topic(self, topic: str) -> list[Partition]:
        """See ``SessionFactory``."""
        found: list[Partition] = self._thread.call(self._core.get_partitions_for_topic, topic)
        return found


_END = object()


def _messages(thread: LoopThread, messages: Any) -> Iterator[ReceivedMessage]:
    """An asynchronous iterator's messages, one call into the loop for each."""

    async def take() -> Any:
        try:
            return await messages.__anext__()
        except StopAsyncIteration:
            return _END

    while True:
        try:
            message = thread.call(take)
        except ClientClosed:
            return
        if message is _END:
            return
        yield message
