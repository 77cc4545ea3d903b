"""
Messages that a listener failed too often are kept on this machine's disk and given to it again
later, until it takes them.

Source: ``RecoverStorageManager``, ``LocalRecoverPolicy``, ``DropPolicy``.

Differs: a message that fails again does not hold up those behind it (1.4.6.2 ends the pass), and a
``Rollback`` counts as a failure: the original forgets the message then.

Differs: an own file format; queues are opened when their topic and group have a listener here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from struct import Struct
from struct import error as StructError
from typing import Any, Final

from metamorphosis.client.delivery.delivery import PartitionDelivery
from metamorphosis.client.delivery.subscription import DeliveryRules, Rollback, Subscription
from metamorphosis.client.localstore import Item, LocalStore
from metamorphosis.client.model import Partition, Position, ReceivedMessage
from metamorphosis.client.network.flow import Event, Slots, settle
from metamorphosis.client.network.links import Log
from metamorphosis.client.offsets import Worker
from metamorphosis.client.settings import ClientConfig
from metamorphosis.errors import ClientClosed
from metamorphosis.interfaces import IRuntime

FIRST_PASS_SECONDS: Final = 5.0

#: broker id, partition, offset, message id, flag; the body follows
_HEAD: Final = Struct(">iiqqi")

Take = Callable[[ReceivedMessage], Awaitable[None]]
"""Gives a message to its listener; raises what the listener raises."""


class RecoveredMessage(ReceivedMessage):
    """
    A message that is delivered again, outside of its partition's order.

    :ivar rolled_back: the user wants it once more.
    """

    __slots__ = ("rolled_back",)

    rolled_back: bool


def drop(message: ReceivedMessage) -> None:
    """A reject strategy: forget the message, which has its line in the log."""


def pack(message: ReceivedMessage) -> bytes:
    """What is kept of a message."""
    broker_id, number = message.partition
    head = _HEAD.pack(broker_id, number, message.offset, message.id, message.flag)
    return head + message.body


def unpack(topic: str, value: bytes) -> RecoveredMessage:
    """
    The message again.

    :raises ValueError: these bytes are none.
    """
    try:
        broker_id, number, offset, message_id, flag = _HEAD.unpack_from(value)
    except StructError:
        raise ValueError(f"{len(value)} bytes are no message") from None
    body = value[_HEAD.size :]
    message = RecoveredMessage(topic, Partition(broker_id, number), offset, message_id, flag, body)
    message.rolled_back = False
    return message


class Queue:
    """What is kept for one topic and group."""

    __slots__ = ("group", "idle", "store", "take", "topic")

    def __init__(self, runtime: IRuntime, topic: str, group: str) -> None:
        self.topic = topic
        self.group = group
        self.store: LocalStore | None = None
        self.take: Take | None = None  # None: nobody listens
        self.idle = Event(runtime)
        self.idle.set()


class Recovery:
    """
    The kept messages of a session factory. Thread: the loop's; disks are waited for in another.
    """

    def __init__(self, runtime: IRuntime, config: ClientConfig, log: Log) -> None:
        self._runtime = runtime
        self._path = config.recover_path
        self._pause = config.recover_message_interval_ms / 1000
        self._log = log
        self._slots = Slots(runtime, config.recover_thread_count)
        self._worker: Worker | None = None
        self._queues: dict[tuple[str, str], Queue] = {}
        self._closing = Event(runtime)
        self._loop: Any = None

    def listen(self, topic: str, group: str, take: Take) -> None:
        """From now on messages of this topic and group are taken there."""
        self._queue(topic, group).take = take
        if self._loop is None and not self._closing.is_set:
            self._loop = self._runtime.start(self._run())

    async def forget(self, topic: str, group: str, timeout: float | None) -> None:
        """
        Nobody listens any more; ends when the listener is not busy.

        :param timeout: seconds after which it ends all the same; the message under way stays then.
        """
        queue = self._queues.get((topic, group))
        if queue is not None:
            queue.take = None
            await queue.idle.wait(timeout)

    async def keep(self, message: ReceivedMessage, group: str) -> None:
        """
        It is on the disk when this ends. The default reject strategy.

        :raises LocalStoreError: it is not.
        """
        queue = self._queue(message.topic, group)
        value = pack(message)
        await self._do(lambda: self._opened(queue).append(message.id, value))

    async def count(self, topic: str, group: str) -> int:
        """How many messages are kept."""
        queue = self._queue(topic, group)
        found: int = await self._do(lambda: self._opened(queue).count())
        return found

    async def recover(self) -> None:
        """Give everything that is kept to its listener once."""
        await settle([self._runtime.start(self._pass(each)) for each in self._queues.values()])

    async def close(self) -> None:
        """To be called when nobody listens any more."""
        self._closing.set()
        self._slots.close()
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
        except Exception:
            self._log.failure(
                "Kept messages of {topic}, group {group}, cannot be read or removed; trying later",
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
        """Whether the message can be forgotten."""
        try:
            message = unpack(queue.topic, item.value)
        except ValueError as error:
            self._log.error(
                "Kept message {token} of {topic}, group {group}, is no message and stays: {error}",
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
        except Exception:
            self._log.failure(
                "The listener failed again on the kept message {topic} {partition} offset {offset},"
                " id {id}",
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
                id=message.id,
            )
            return False
        return not message.rolled_back

    # -- the disk

    def _queue(self, topic: str, group: str) -> Queue:
        key = (topic, group)
        if key not in self._queues:
            self._queues[key] = Queue(self._runtime, topic, group)
        return self._queues[key]

    def _do(self, work: Callable[[], Any]) -> Awaitable[Any]:
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
    Give a kept message to the listener; the filter and the duplicate cache are not asked.

    :raises Exception: what the listener raises.
    """
    listener, slots = subscription.listener, rules.slots
    if listener is None:
        await _to_outlet(rules, subscription, message)
        return
    if slots is not None and not await slots.acquire():
        raise Rollback(message)
    try:
        result = listener([message] if subscription.batch else message)
        if result is not None and hasattr(result, "__await__"):
            await rules.runtime.adopt(result)
    finally:
        if slots is not None:
            slots.release()


async def _to_outlet(
    rules: DeliveryRules, subscription: Subscription, message: ReceivedMessage
) -> None:
    assert rules.outlet is not None
    # A position of its own: how far the partition is, is no business of this message.
    position = Position(message.topic, message.partition, message.offset)
    delivery = PartitionDelivery(rules, subscription, position)
    done, error = await rules.outlet.take(delivery, [message])
    if not done:
        raise error or Rollback(message)
