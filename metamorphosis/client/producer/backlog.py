"""
Messages that producers keep on this machine's disk, by topic and partition, until a broker takes
them.

Disk work runs in one thread. Messages kept in a burst are written together, with one flush of the
disk.

Source: ``LocalMessageStorageManager``, ``OrderedLocalMessageStorageManager``.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from pathlib import Path
from struct import Struct
from typing import Final, TypeVar

from metamorphosis.client.localstore import Item, LocalStore
from metamorphosis.client.model import ANY_PARTITION, OutgoingMessage, Partition
from metamorphosis.client.network.complaints import Gathering, some_of
from metamorphosis.client.network.flow import Event, settle
from metamorphosis.client.network.links import Log
from metamorphosis.client.offsets import Worker
from metamorphosis.errors import LocalStoreError
from metamorphosis.interfaces import IRuntime
from metamorphosis.message import ATTRIBUTE_FLAG, encode_body, split_body

T = TypeVar("T")
Done = Callable[[Exception | None], object]
Send = Callable[[OutgoingMessage], Awaitable[object]]

WIDTH: Final = 64
"""Messages under way when no order has to be kept."""

#: flags, length of the key; the key and a message's body follow
_HEAD: Final = Struct(">bi")
_KEY, _TEXT_KEY = 2, 4


def pack(message: OutgoingMessage) -> bytes:
    """The kept fields of a message; its topic is in the store's name."""
    flags = 0 if message.attribute is None else ATTRIBUTE_FLAG
    key = b""
    if isinstance(message.key, str):
        flags |= _KEY | _TEXT_KEY
        key = message.key.encode("utf-8", "surrogatepass")
    elif message.key is not None:
        flags |= _KEY
        key = message.key
    return _HEAD.pack(flags, len(key)) + key + encode_body(message.data, message.attribute)


def unpack(topic: str, value: bytes) -> OutgoingMessage:
    """The message again."""
    flags, length = _HEAD.unpack_from(value)
    body = _HEAD.size + length
    attribute, data = split_body(flags & ATTRIBUTE_FLAG, value[body:])
    key: str | bytes | None = None
    if flags & _KEY:
        key = value[_HEAD.size : body]
        if flags & _TEXT_KEY:
            key = key.decode("utf-8", "surrogatepass")
    return OutgoingMessage(topic, data, None if attribute is None else attribute.decode(), key)


class Queue:
    """The kept messages of one partition."""

    __slots__ = (
        "complaint",
        "idle",
        "partition",
        "store",
        "stored",
        "topic",
        "unwritten",
        "writing",
        "written",
    )  # fmt: skip

    def __init__(self, runtime: IRuntime, topic: str, partition: Partition) -> None:
        self.topic = topic
        self.partition = partition
        self.store: LocalStore | None = None  # belongs to the thread
        self.stored = 0  # as reported by the thread
        self.unwritten: list[tuple[int, bytes, Done]] = []
        self.writing = 0  # given to the thread, which has not answered yet
        self.written = Event(runtime)  # nothing is being written to it
        self.written.set()
        self.idle = Event(runtime)  # nothing is being sent from it
        self.idle.set()
        self.complaint = ""  # why sending from it ended last

    @property
    def count(self) -> int:
        """How many are kept, those included that are not written yet."""
        return self.stored + self.writing + len(self.unwritten)

    @property
    def name(self) -> str:
        """Of the store."""
        return f"{self.topic}@{self.partition}"


class Backlog:
    """
    Thread: the loop's.

    :param directory: of the files.
    """

    def __init__(self, runtime: IRuntime, directory: Path, log: Log) -> None:
        self._runtime = runtime
        self._directory = directory
        self._log = log
        self._worker: Worker | None = None
        self._queues: dict[tuple[str, Partition], Queue] = {}
        self._loaded: dict[str, Event] = {}
        self._gathering = Gathering(runtime)
        self._keys = count(time.time_ns())
        self._closed = False

    def count(self, topic: str, partition: Partition) -> int:
        """How many messages are kept, of those loaded; those being written count."""
        queue = self._queues.get((topic, partition))
        return 0 if queue is None else queue.count

    def kept(self) -> list[tuple[str, Partition]]:
        """The partitions with kept messages."""
        return [key for key, queue in self._queues.items() if queue.count]

    async def load(self, topic: str) -> None:
        """
        Find the messages of a topic that an earlier process kept; once.

        :raises LocalStoreError: it cannot be read; the next call tries again.
        """
        while (loaded := self._loaded.get(topic)) is not None:
            if loaded.is_set:
                return
            await loaded.wait()  # for the attempt of another call, which may fail
        loaded = self._loaded[topic] = Event(self._runtime)
        try:
            for partition in await self._do(partial(_partitions, self._directory, topic)):
                queue = self._queue(topic, partition)
                queue.stored = await self._do(partial(self._append, queue, []))
        except BaseException:  # cancelled as well
            del self._loaded[topic]
            raise
        finally:
            loaded.set()

    def keep(self, message: OutgoingMessage, partition: Partition, done: Done) -> None:
        """Keep a message; ``done(None)`` when it is on the disk, ``done(error)`` if it is not."""
        if self._closed:
            self._runtime.call_soon(done, LocalStoreError("the producer has been closed"))
            return
        queue = self._queue(message.topic, partition)
        queue.unwritten.append((next(self._keys), pack(message), done))
        if queue.written.is_set:
            queue.written.clear()
            self._runtime.call_soon(self._start_writing, queue)

    async def drain(self, topic: str, partition: Partition, send: Send, in_order: bool) -> None:
        """
        Send the kept messages, and forget those that the broker took; errors are logged. If another
        call does so already, wait for that.

        :param in_order: one at a time, up to the first failure; else ``WIDTH`` at a time, and those
            that fail stay; it ends when no broker takes any of them, if only for now.
        """
        queue = self._queues.get((topic, partition))
        if queue is None or not queue.count:
            return
        if not queue.idle.is_set:
            await queue.idle.wait()
            return
        queue.idle.clear()
        try:
            await self._send_all(queue, send, in_order)
            queue.complaint = ""
        except Exception as error:
            if str(error) != queue.complaint:
                queue.complaint = str(error)
                place = f"{queue.count} of partition {partition}"
                tell = partial(self._tell_waiting, topic, error)
                self._gathering.add((topic, type(error)), place, tell)
        finally:
            queue.idle.set()

    async def close(self) -> None:
        """Write the messages that wait for the disk, and close the files; called once."""
        self._closed = True
        for queue in list(self._queues.values()):
            await queue.idle.wait()
            await queue.written.wait()
        if self._worker is not None:
            await self._worker.close(self._close_stores)
        self._gathering.close()

    # -- inside

    def _queue(self, topic: str, partition: Partition) -> Queue:
        queue = self._queues.get((topic, partition))
        if queue is None:
            queue = self._queues[topic, partition] = Queue(self._runtime, topic, partition)
        return queue

    async def _do(self, work: Callable[[], T]) -> T:
        if self._worker is None:
            self._worker = Worker(self._runtime, "kept-messages")
        return await self._worker.run(work)

    def _opened(self, queue: Queue) -> LocalStore:
        """Thread: the worker's."""
        if queue.store is None:
            queue.store = LocalStore.open(self._directory, queue.name)
        return queue.store

    def _close_stores(self) -> None:
        """Thread: the worker's."""
        for queue in self._queues.values():
            if queue.store is not None:
                queue.store.close()

    def _start_writing(self, queue: Queue) -> None:
        self._runtime.start(self._write(queue))

    async def _write(self, queue: Queue) -> None:
        while queue.unwritten:
            batch, queue.unwritten = queue.unwritten, []
            queue.writing = len(batch)
            error: Exception | None = None
            try:
                items = [(key, value) for key, value, _ in batch]
                queue.stored = await self._do(partial(self._append, queue, items))
            except Exception as failure:
                error = failure
            queue.writing = 0
            for _, _, done in batch:
                done(error)
        queue.written.set()

    def _append(self, queue: Queue, items: list[tuple[int, bytes]]) -> int:
        """How many there are then. Thread: the worker's."""
        store = self._opened(queue)
        if items:
            store.append_all(items)
        return store.count()

    async def _send_all(self, queue: Queue, send: Send, in_order: bool) -> None:
        """
        :raises Exception: what made it end early.
        """
        width = 1 if in_order else WIDTH
        after = sent = 0
        while page := await self._do(lambda: self._opened(queue).items(after)):
            for start in range(0, len(page), width):
                if self._closed:
                    return
                some = page[start : start + width]
                sent += await self._send_some(queue, some, send, in_order)
                after = some[-1].token
        if sent:
            place = f"{sent} of partition {queue.partition}"
            self._gathering.add(queue.topic, place, partial(self._tell_sent, queue.topic))

    def _tell_waiting(self, topic: str, error: Exception, places: list[str]) -> None:
        self._log.warn(
            "Kept messages of topic {topic} wait, {places}: {error}",
            topic=topic,
            places=some_of(places),
            error=error,
        )

    def _tell_sent(self, topic: str, places: list[str]) -> None:
        self._log.info(
            "Kept messages of topic {topic} were sent: {places}",
            topic=topic,
            places=some_of(places),
        )

    async def _send_some(self, queue: Queue, some: list[Item], send: Send, in_order: bool) -> int:
        """
        How many the broker took.

        :raises Exception: it took none, and later ones would fail as well, or must not overtake
            them.
        """
        under_way = [self._runtime.start(_send(send, queue.topic, item)) for item in some]
        outcomes = await settle(under_way)
        taken = [
            item.token
            for item, outcome in zip(some, outcomes, strict=True)
            if not isinstance(outcome, Exception)
        ]
        if taken:
            queue.stored = await self._do(partial(self._remove, queue, taken))
        elif in_order or any(getattr(each, "retriable", False) for each in outcomes):
            raise next(each for each in outcomes if isinstance(each, Exception))
        return len(taken)

    def _remove(self, queue: Queue, tokens: list[int]) -> int:
        """How many there are then. Thread: the worker's."""
        store = self._opened(queue)
        store.remove_all(tokens)
        return store.count()


async def _send(send: Send, topic: str, item: Item) -> None:
    await send(unpack(topic, item.value))


def _partitions(directory: Path, topic: str) -> list[Partition]:
    """Those of a topic that have files."""
    found = []
    for name in LocalStore.names(directory):
        of_topic, _, text = name.rpartition("@")
        if of_topic == topic:
            try:
                found.append(ANY_PARTITION if text == str(ANY_PARTITION) else Partition.parse(text))
            except ValueError:
                pass  # not a file of ours
    return sorted(found)
