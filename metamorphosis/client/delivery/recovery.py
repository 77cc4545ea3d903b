"""
Messages that a listener failed too often are kept on this machine's disk and delivered to it again
later, until it processes them.

Source: ``RecoverStorageManager``, ``LocalRecoverPolicy``, ``DropPolicy``.

Differs: a message that fails again does not hold up the messages after it (1.4.6.2 ends the pass),
and a ``Rollback`` counts as a failure; the original forgets the message.

Differs: the file format is our own; a queue is opened when its topic and group have a listener.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from struct import Struct
from struct import error as StructError
from typing import Final, TypeVar

from metamorphosis.client.delivery.progress import Progress
from metamorphosis.client.delivery.subscription import (
    DeliveryRules,
    Outlet,
    Rollback,
    Subscription,
    finish,
)
from metamorphosis.client.localstore import Item, LocalStore
from metamorphosis.client.model import Partition, Position, ReceivedMessage
from metamorphosis.client.network.flow import Event, Slots, settle
from metamorphosis.client.network.links import Log
from metamorphosis.client.network.recurrences import Recurrences
from metamorphosis.client.offsets import Worker
from metamorphosis.client.settings import ClientConfig
from metamorphosis.errors import ClientClosed
from metamorphosis.interfaces import IRuntime

T = TypeVar("T")

FIRST_PASS_SECONDS: Final = 5.0

#: broker id, partition, offset, message id, flag; the body follows
_HEAD: Final = Struct(">iiqqi")

Take = Callable[[ReceivedMessage], Awaitable[None]]
"""Delivers a message to its listener; the listener's exceptions come out."""


class RecoveredMessage(ReceivedMessage):
    """
    A message that is delivered again, outside of its partition's order.

    :ivar rolled_back: ``Consumer.rollback`` was called; the message stays in the queue.
    """

    __slots__ = ("rolled_back",)

    rolled_back: bool


def drop(message: ReceivedMessage) -> None:
    """A reject strategy: forget the message; the log has a line about it."""


def pack(message: ReceivedMessage) -> bytes:
    """The bytes that are kept of a message."""
    broker_id, number = message.partition
    head = _HEAD.pack(broker_id, number, message.offset, message.id, message.flag)
    return head + message.body


def unpack(topic: str, value: bytes) -> RecoveredMessage:
    """
    The message of these bytes.

    :raises ValueError: they are too short.
    """
    try:
        broker_id, number, offset, message_id, flag = _HEAD.unpack_from(value)
    except StructError:
        raise ValueError(f"{len(value)} bytes are too short for a message") from None
    body = value[_HEAD.size :]
    message = RecoveredMessage(topic, Partition(broker_id, number), offset, message_id, flag, body)
    message.rolled_back = False
    return message


class Queue:
    """The kept messages of one topic and group."""

    __slots__ = ("group", "idle", "store", "take", "topic")

    def __init__(self, runtime: IRuntime, topic: str, group: str) -> None:
        self.topic = topic
        self.group = group
        self.store: LocalStore | None = None
        self.take: Take | None = None  # None: there is no listener
        self.idle = Event(runtime)
        self.idle.set()


class Recovery:
    """
    The kept messages of a session factory. Thread: the loop's; a thread of its own reads and writes
    the disk.
    """

    def __init__(self, runtime: IRuntime, config: ClientConfig, log: Log) -> None:
        self._runtime = runtime
        self._path = config.recover_path
        self._pause = config.recover_message_interval_ms / 1000
        self._log = log
        self._recurrences = Recurrences(runtime, log, pause=2 * self._pause)
        self._slots = Slots(runtime, config.recover_thread_count)
        self._worker: Worker | None = None
        self._queues: dict[tuple[str, str], Queue] = {}
        self._closing = Event(runtime)
        self._loop: Awaitable[None] | None = None

    def listen(self, topic: str, group: str, take: Take) -> None:
        """From now on ``take`` gets the kept messages of this topic and group."""
        self._queue(topic, group).take = take
        if self._loop is None and not self._closing.is_set:
            self._loop = self._runtime.start(self._run())

    async def forget(self, topic: str, group: str, timeout: float | None) -> None:
        """
        Remove the listener; ends when its call has ended.

        :param timeout: seconds of the wait; after it, the message under way stays in the queue.
        """
        queue = self._queues.get((topic, group))
        if queue is not None:
            queue.take = None
            await queue.idle.wait(timeout)

    async def keep(self, message: ReceivedMessage, group: str) -> None:
        """
        Write the message to the disk. The default reject strategy.

        :raises LocalStoreError: the message is not on the disk.
        """
        queue = self._queue(message.topic, group)
        value = pack(message)
        await self._do(lambda: self._opened(queue).append(message.id, value))

    async def count(self, topic: str, group: str) -> int:
        """The number of kept messages."""
        queue = self._queue(topic, group)
        return await self._do(lambda: self._opened(queue).count())

    async def recover(self) -> None:
        """Deliver each kept message once."""
        await settle([self._runtime.start(self._pass(each)) for each in self._queues.values()])

    async def close(self) -> None:
        """End; no queue may have a listener."""
        self._closing.set()
        self._slots.close()
        self._recurrences.close()
        if self._worker is not None:
            await self._worker.close(self._close_stores)

    # -- passes

    async def _run(self) -> None:
        pause = FIRST_PASS_SECONDS
        while not await self._closing.wait(pause):
            await self.recover()
            pause = self._pause

    async def _pass(self, queue: Queue) -> None:
        if queue.take is None or not queue.idle.is_set or not await self._slots.acquire():
            return
        queue.idle.clear()
        try:
            await self._offer_all(queue)
        except Exception as error:
            if self._begins(queue, f"cannot be read or removed: {type(error).__name__}"):
                self._log.failure(
                    "Kept messages of {topic}, group {group}, cannot be read or removed; trying"
                    " later",
                    topic=queue.topic,
                    group=queue.group,
                )
        finally:
            queue.idle.set()
            self._slots.release()

    async def _offer_all(self, queue: Queue) -> None:
        last = 0
        while queue.take is not None:
            page = await self._do(lambda: self._opened(queue).items(last))
            if not page:
                return
            for item in page:
                last = item.token
                if queue.take is None:
                    return
                if await self._taken(queue, item):
                    token = item.token
                    await self._do(lambda: self._opened(queue).remove(token))

    async def _taken(self, queue: Queue, item: Item) -> bool:
        """Whether the message was processed and can be removed."""
        try:
            message = unpack(queue.topic, item.value)
        except ValueError as error:
            if self._begins(queue, "cannot be read and stay", f"message {item.token}"):
                self._log.error(
                    "Kept message {token} of {topic}, group {group}, cannot be read and stays:"
                    " {error}",
                    token=item.token,
                    topic=queue.topic,
                    group=queue.group,
                    error=error,
                )
            return False
        assert queue.take is not None
        try:
            await queue.take(message)
        except Rollback:
            return False
        except Exception as error:
            place = f"partition {message.partition} offset {message.offset}, id {message.id}"
            if self._begins(queue, f"fail again with {type(error).__name__}", place):
                self._log.failure(
                    "The listener failed again on the kept message {topic} {partition} offset"
                    " {offset}, id {id}",
                    topic=message.topic,
                    partition=message.partition,
                    offset=message.offset,
                    id=message.id,
                )
            return False
        return not message.rolled_back

    def _begins(self, queue: Queue, what: str, place: str = "") -> bool:
        name = f"kept messages of {queue.topic}, group {queue.group}, {what}"
        return self._recurrences.begins(name, place)

    # -- the disk

    def _queue(self, topic: str, group: str) -> Queue:
        key = (topic, group)
        if key not in self._queues:
            self._queues[key] = Queue(self._runtime, topic, group)
        return self._queues[key]

    def _do(self, work: Callable[[], T]) -> Awaitable[T]:
        if self._worker is None:
            if self._closing.is_set:
                raise ClientClosed("The session factory has been closed.")
            self._worker = Worker(self._runtime, "recovery")
        return self._worker.run(work)

    def _opened(self, queue: Queue) -> LocalStore:
        """Thread: the worker."""
        if queue.store is None:
            queue.store = LocalStore.open(self._path, f"{queue.topic}@{queue.group}")
        return queue.store

    def _close_stores(self) -> None:
        """Thread: the worker."""
        for queue in self._queues.values():
            if queue.store is not None:
                queue.store.close()


async def deliver_recovered(
    rules: DeliveryRules, subscription: Subscription, message: ReceivedMessage
) -> None:
    """
    Deliver a kept message to the listener, without filter and duplicate cache.

    :raises Exception: the listener's.
    """
    listener, slots = subscription.listener, rules.slots
    if listener is None:
        assert rules.outlet is not None
        await _to_outlet(rules.outlet, rules, subscription, message)
        return
    if slots is not None and not await slots.acquire():
        raise Rollback(message)
    try:
        given = [message] if subscription.batch else message
        await finish(rules.runtime, listener(given), rules.calls)
    finally:
        if slots is not None:
            slots.release()


async def _to_outlet(
    outlet: Outlet, rules: DeliveryRules, subscription: Subscription, message: ReceivedMessage
) -> None:
    # A position of its own: this message does not move the partition's.
    position = Position(message.topic, message.partition, message.offset)
    progress = Progress(position, subscription.auto_ack, rules.duplicates)
    done, error = await outlet.take(progress, [message])
    if not done:
        raise error or Rollback(message)
