"""
``async for message in consumer``: messages of all partitions, a fetched stretch of one partition
after a stretch of another. A request for the next message acknowledges the one before.

The original has no such iteration.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from metamorphosis.client.delivery.delivery import PartitionDelivery
from metamorphosis.client.delivery.progress import Progress
from metamorphosis.client.delivery.subscription import Rollback
from metamorphosis.client.model import Partition, ReceivedMessage
from metamorphosis.client.network.flow import Event
from metamorphosis.errors import InvalidState
from metamorphosis.interfaces import IRuntime


class Load:
    """
    Messages of one partition on their way through an ``Iteration``.

    :ivar progress: of the partition's delivery.
    :ivar taken: number of messages that the user has taken.
    :ivar done: number of them that are acknowledged, or would be with ``auto_ack``.
    :ivar finished: the delivery has got the messages back.
    """

    __slots__ = ("auto_ack", "done", "error", "finished", "messages", "progress", "taken")

    def __init__(
        self, progress: Progress, messages: list[ReceivedMessage], finished: Event
    ) -> None:
        self.progress = progress
        self.messages = messages
        self.taken = 0
        self.done = 0
        self.error: BaseException | None = None
        self.auto_ack = progress.auto_ack
        self.finished = finished


class Iteration:
    """
    The end of all deliveries whose topic has no listener. One coroutine at a time takes messages.

    Thread: the loop's.

    :param delivery_of: the present delivery of a partition; None: another member has it.
    """

    def __init__(
        self, runtime: IRuntime, delivery_of: Callable[[str, Partition], PartitionDelivery | None]
    ) -> None:
        self._runtime = runtime
        self._delivery_of = delivery_of
        self._loads: deque[Load] = deque()
        self._load: Load | None = None  # the source of ``_messages``
        self._messages: Iterator[ReceivedMessage] = iter(())
        self._held: ReceivedMessage | None = None  # taken, and not acknowledged
        self._held_load: Load | None = None
        self._arrived = Event(runtime)
        self._waiting = False
        self._closed = False

    # -- the user

    def __aiter__(self) -> Iteration:
        return self

    async def __anext__(self) -> ReceivedMessage:
        if self._held is not None:
            self._acknowledge(self._held)
        while True:
            for message in self._messages:
                self._take(message)
                return message
            if self._closed:
                raise StopAsyncIteration
            await self._next_load()

    def holds(self, message: ReceivedMessage) -> bool:
        """Whether this message was taken last and is neither acknowledged nor rolled back."""
        return message is self._held

    def ack(self, message: ReceivedMessage) -> None:
        """
        The message that was taken last is processed; a request for the next one implies this.

        :raises InvalidState: another message was taken last.
        """
        if message is not self._held:
            raise InvalidState(
                f"{message.topic} {message.partition} offset {message.offset} is not the message"
                " that was taken last"
            )
        self._acknowledge(message)

    def rollback(self, message: ReceivedMessage) -> None:
        """
        Deliver the message that was taken last once more; it counts as a failure.

        :raises InvalidState: another message was taken last.
        """
        load = self._held_load
        if message is not self._held or load is None:
            raise InvalidState(
                f"{message.topic} {message.partition} offset {message.offset} is not the message"
                " that was taken last"
            )
        self._held = self._held_load = None
        load.error = Rollback(message)
        self._end(load)

    # -- deliveries

    async def take(
        self, progress: Progress, messages: list[ReceivedMessage]
    ) -> tuple[int, BaseException | None]:
        """See ``Outlet``."""
        load = Load(progress, messages, Event(self._runtime))
        self._loads.append(load)
        self._arrived.pulse()
        await load.finished.wait()
        return load.done, load.error

    def revoke(self, progress: Progress) -> None:
        """
        See ``Outlet``. The user keeps the message that was taken last; its ``ack`` counts if the
        partition comes back to this consumer.
        """
        for load in [*self._loads, *filter(None, [self._load])]:
            if load.progress is progress:
                self._end(load)

    def close(self) -> None:
        """The iteration ends; the message that was taken last is not acknowledged."""
        self._closed = True
        self._held = self._held_load = None
        for load in [*self._loads, *filter(None, [self._load])]:
            self._end(load)
        self._arrived.abandon()

    # -- details

    def _take(self, message: ReceivedMessage) -> None:
        load = self._load
        assert load is not None
        load.taken += 1
        self._held = message
        self._held_load = load
        if not load.auto_ack:
            load.progress.hand(message)

    def _acknowledge(self, message: ReceivedMessage) -> None:
        load = self._held_load
        self._held = self._held_load = None
        assert load is not None
        if load.finished.is_set:
            self._acknowledge_late(load, message)
            return
        load.done = load.taken
        if load.auto_ack:
            position = load.progress.position
            position.offset = message.next_offset
            position.message_id = message.id
            position.modified = True

    def _acknowledge_late(self, load: Load, message: ReceivedMessage) -> None:
        """Its delivery has been stopped; the present delivery of the partition skips it."""
        now = self._delivery_of(message.topic, message.partition)
        if now is None or now.progress is load.progress or not load.auto_ack:
            return
        progress = now.progress
        if progress.position.offset == message.offset and not progress.is_abandoned:
            progress.remember([message])
            progress.position.offset = message.next_offset
            progress.position.message_id = message.id
            progress.position.modified = True
            for waiting in self._loads:
                if waiting.progress is progress and waiting.messages[0].offset == message.offset:
                    waiting.taken = waiting.done = 1

    async def _next_load(self) -> None:
        """Wait for messages, or for the end."""
        if self._waiting:
            raise InvalidState("another coroutine waits for the next message of this consumer")
        if self._load is not None:
            self._end(self._load)
        self._waiting = True
        try:
            while not self._loads and not self._closed:
                await self._arrived.wait()
        finally:
            self._waiting = False
        if self._loads:
            self._begin(self._loads.popleft())

    def _begin(self, load: Load) -> None:
        self._load = load
        self._messages = islice(load.messages, load.taken, None)

    def _end(self, load: Load) -> None:
        """Give the load back to its delivery."""
        if load is self._load:
            self._load = None
            self._messages = iter(())
        elif load in self._loads:
            self._loads.remove(load)
        load.finished.set()
