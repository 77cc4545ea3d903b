"""
``async for message in consumer`` and ``poll``: messages of all partitions, a fetched stretch of one
partition after a stretch of another. A request for the next messages acknowledges those before.

The original has no such iteration.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from metamorphosis.client.delivery.delivery import PartitionDelivery
from metamorphosis.client.delivery.progress import Progress
from metamorphosis.client.delivery.subscription import Rollback
from metamorphosis.client.model import Partition, ReceivedMessage
from metamorphosis.client.network.flow import Event
from metamorphosis.errors import ClientClosed, InvalidState
from metamorphosis.interfaces import IRuntime


class Taken(NamedTuple):
    """
    Messages that the user has, of one load, in their order.

    :ivar messages: at least one.
    """

    load: Load
    messages: list[ReceivedMessage]


class Load:
    """
    Messages of one partition on their way through an ``Iteration``.

    :ivar progress: of the partition's delivery.
    :ivar position: of the progress.
    :ivar taken: number of messages that the user has taken.
    :ivar done: number of them that are acknowledged, or would be with ``auto_ack``.
    :ivar finished: the delivery has got the messages back.
    """

    __slots__ = (
        "auto_ack",
        "done",
        "error",
        "finished",
        "messages",
        "position",
        "progress",
        "taken",
    )

    def __init__(
        self, progress: Progress, messages: list[ReceivedMessage], finished: Event
    ) -> None:
        self.progress = progress
        self.position = progress.position
        self.messages = messages
        self.taken = 0
        self.done = 0
        self.error: BaseException | None = None
        self.auto_ack = progress.auto_ack
        self.finished = finished


class Iteration:
    """
    The end of all deliveries whose topic has no listener. One coroutine at a time takes messages.

    One long class, because the messages in hand, their loads and the waiting loads change together.
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
        self._held: ReceivedMessage | None = None  # taken last, and not acknowledged
        self._held_load: Load | None = None
        self._polled: list[Taken] = []  # by ``poll``, and not acknowledged; ends with ``_held``
        self._arrived = Event(runtime)
        self._waiting = False
        self._closed = False

    # -- the user

    def __aiter__(self) -> Iteration:
        return self

    async def __anext__(self) -> ReceivedMessage:
        load = self._load
        if load is not None and load is self._held_load and not self._polled:
            # Within a load: what ``_acknowledge`` and ``_take`` do, without the calls, which would
            # be a third of the time of a message.
            held = self._held
            assert held is not None
            for message in self._messages:
                taken = load.done = load.taken
                load.taken = taken + 1
                self._held = message
                if load.auto_ack:
                    position = load.position
                    position.offset = held.next_offset
                    position.message_id = held.id
                    position.modified = True
                else:
                    load.progress.hand(message)
                return message
        if self._held is not None:
            self._acknowledge(self._held)
        while True:
            for message in self._messages:
                self._take(message)
                return message
            if self._closed:
                raise StopAsyncIteration
            await self._next_load(None)

    async def poll(self, timeout: float | None, most: int) -> list[ReceivedMessage]:
        """
        Messages that are there, of as many partitions as needed; those of the last request are
        acknowledged.

        :param timeout: seconds to wait for the first message, then the list is empty; None: without
            end.
        :raises ClientClosed: the consumer is closed.
        """
        if self._held is not None:
            self._acknowledge(self._held)
        deadline = None if timeout is None else self._runtime.seconds() + timeout
        taken: list[ReceivedMessage] = []
        while len(taken) < most:
            stretch = list(islice(self._messages, most - len(taken)))
            if stretch:
                taken += stretch
                self._take_all(stretch)
            elif taken:
                if not self._loads:
                    break
                self._begin(self._loads.popleft())  # the one before ends when it is acknowledged
            elif self._closed:
                raise ClientClosed("Consumer has been shutdown")
            elif not await self._next_load(deadline):
                break
        return taken

    def holds(self, message: ReceivedMessage) -> bool:
        """Whether the last request gave this message, and it is neither acknowledged nor rolled
        back."""
        polled = (each for taken in self._polled for each in taken.messages)
        return message is self._held or any(each is message for each in polled)

    def ack(self, message: ReceivedMessage) -> None:
        """
        This message is processed, and those before it in the list of the last ``poll``; the next
        request implies this for all.

        :raises InvalidState: the last request did not give it.
        """
        index = self._index_of(message)
        if message is self._held:
            self._acknowledge(message)
            return
        done, self._polled = self._polled[: index + 1], self._polled[index:]
        load, messages = done[-1]
        count = messages.index(message) + 1
        done[-1] = Taken(load, messages[:count])
        self._polled[0] = Taken(load, messages[count:])
        if not self._polled[0].messages:
            del self._polled[0]
        self._acknowledge_all(done)

    def rollback(self, message: ReceivedMessage) -> None:
        """
        Deliver this message once more; it counts as a failure. Of the list of the last ``poll``,
        the messages before it are processed, and those after it come again, too.

        :raises InvalidState: the last request did not give it.
        """
        index = self._index_of(message)
        polled, load = self._polled, self._held_load
        self._held = self._held_load = None
        self._polled = []
        if polled:
            load, messages = polled[index]
            self._acknowledge_all(polled[:index])
            before = messages[: messages.index(message)]
            if before and not load.finished.is_set:
                load.done += len(before)
                self._move(load, before[-1])
            for each, _ in polled[index + 1 :]:
                self._end(each)
        assert load is not None
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
        See ``Outlet``. The user keeps the messages that were taken last; their ``ack`` counts if
        the partition comes back to this consumer.
        """
        for load in self._loads_of(progress):
            self._end(load)

    def hold_back(self, progress: Progress) -> None:
        """See ``Outlet``."""
        held = {*(each.load for each in self._polled), self._held_load}
        for load in self._loads_of(progress):
            if load in held:
                load.messages = load.messages[: load.taken]
                if load is self._load:
                    self._messages = iter(())
            else:
                self._end(load)

    def close(self) -> None:
        """The iteration ends; the messages that were taken last are not acknowledged."""
        self._closed = True
        polled, self._polled = self._polled, []
        self._held = self._held_load = None
        for load in [*self._loads, *filter(None, [self._load]), *(each.load for each in polled)]:
            self._end(load)
        self._arrived.abandon()

    # -- details

    def _loads_of(self, progress: Progress) -> list[Load]:
        loads = [*self._loads, *filter(None, [self._load]), *(each.load for each in self._polled)]
        return [each for each in dict.fromkeys(loads) if each.progress is progress]

    def _take(self, message: ReceivedMessage) -> None:
        load = self._load
        assert load is not None
        load.taken += 1
        self._held = message
        self._held_load = load
        if not load.auto_ack:
            load.progress.hand(message)

    def _take_all(self, messages: list[ReceivedMessage]) -> None:
        load = self._load
        assert load is not None
        load.taken += len(messages)
        self._polled.append(Taken(load, messages))
        self._held = messages[-1]
        self._held_load = load
        if not load.auto_ack:
            for message in messages:
                load.progress.hand(message)

    def _index_of(self, message: ReceivedMessage) -> int:
        """Where in ``_polled`` a message is; 0 for the one that the iteration gave."""
        for index, taken in enumerate(self._polled):
            if any(each is message for each in taken.messages):
                return index
        if message is self._held:
            return 0
        raise InvalidState(
            f"{message.topic} {message.partition} offset {message.offset} is not of the messages"
            " that were taken last"
        )

    def _acknowledge(self, message: ReceivedMessage) -> None:
        """All messages of the last request, of which this is the last."""
        load = self._held_load
        self._held = self._held_load = None
        if self._polled:
            polled, self._polled = self._polled, []
            self._acknowledge_all(polled)
            return
        assert load is not None
        if load.finished.is_set:
            self._acknowledge_late(load, [message])
            return
        load.done = load.taken
        self._move(load, message)

    def _acknowledge_all(self, polled: list[Taken]) -> None:
        for load, messages in polled:
            if load.finished.is_set:
                self._acknowledge_late(load, messages)
                continue
            load.done += len(messages)
            self._move(load, messages[-1])
            if load is not self._load and load.done == len(load.messages):
                self._end(load)

    def _move(self, load: Load, last: ReceivedMessage) -> None:
        """The position after a message, so that a commit in the middle of the load includes it."""
        if load.auto_ack:
            position = load.position
            position.offset = last.next_offset
            position.message_id = last.id
            position.modified = True

    def _acknowledge_late(self, load: Load, messages: list[ReceivedMessage]) -> None:
        """Their delivery has been stopped; the present delivery of the partition skips them."""
        first, last = messages[0], messages[-1]
        now = self._delivery_of(first.topic, first.partition)
        if now is None or now.progress is load.progress or not load.auto_ack:
            return
        progress = now.progress
        if progress.position.offset == first.offset and not progress.is_abandoned:
            progress.remember(messages)
            progress.position.offset = last.next_offset
            progress.position.message_id = last.id
            progress.position.modified = True
            for waiting in self._loads:
                if waiting.progress is progress and waiting.messages[0].offset == first.offset:
                    known = sum(each.offset <= last.offset for each in waiting.messages)
                    waiting.taken = waiting.done = known

    async def _next_load(self, deadline: float | None) -> bool:
        """Wait for messages, or for the end; False: the deadline has passed before."""
        if self._waiting:
            raise InvalidState("another coroutine waits for the next message of this consumer")
        if self._load is not None:
            self._end(self._load)
        self._waiting = True
        try:
            while not self._loads and not self._closed:
                left = None if deadline is None else deadline - self._runtime.seconds()
                if left is not None and left <= 0:
                    return False
                await self._arrived.wait(left)
        finally:
            self._waiting = False
        if self._loads:
            self._begin(self._loads.popleft())
        return True

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


class LimitedIteration:
    """
    An iteration that ends when no message has come for a while. Thread: the loop's.

    :param timeout: seconds.
    """

    def __init__(self, iteration: Iteration, timeout: float) -> None:
        self._iteration = iteration
        self._timeout = timeout

    def __aiter__(self) -> LimitedIteration:
        return self

    async def __anext__(self) -> ReceivedMessage:
        try:
            messages = await self._iteration.poll(self._timeout, 1)
        except ClientClosed:
            raise StopAsyncIteration from None
        if not messages:
            raise StopAsyncIteration
        return messages[0]
