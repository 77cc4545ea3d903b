"""
The times at which a producer sends its kept messages: when a topic is published, and every
``recover_message_interval_ms`` from then on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine

from metamorphosis.client.model import ANY_PARTITION, OutgoingMessage, Partition
from metamorphosis.client.network.flow import Event, settle
from metamorphosis.client.producer.backlog import Backlog
from metamorphosis.interfaces import IRuntime

Recover = Callable[[str | None], Coroutine[object, object, None]]
"""Sends the kept messages of a topic; None: of all topics."""


class Recovering:
    """
    Thread: the loop's.

    :param closing: set when the producer ends.
    :param seconds: between two passes over all topics.
    """

    def __init__(self, runtime: IRuntime, closing: Event, seconds: float, recover: Recover) -> None:
        self._runtime = runtime
        self._closing = closing
        self._seconds = seconds
        self._recover = recover
        self._loop: Awaitable[None] | None = None

    def begin(self, topic: str) -> None:
        """A topic has been published and its kept messages are loaded."""
        if self._loop is None:
            self._loop = self._runtime.start(self._often())
        else:
            self._runtime.start(self._recover(topic))

    async def _often(self) -> None:
        while True:
            await self._recover(None)
            if await self._closing.wait(self._seconds):
                return

    def now(self) -> Awaitable[None]:
        """One pass over all topics: a future of its end."""
        return self._runtime.start(self._recover(None))

    async def ended(self) -> None:
        """Wait for the end of the passes, after ``closing``."""
        if self._loop is not None:
            await self._loop


class OrderedReplay:
    """
    Sends kept messages in order, one pass of a partition at a time. Thread: the loop's.

    :param send: sends one of them; raises if it was not taken.
    """

    def __init__(
        self,
        runtime: IRuntime,
        backlog: Backlog,
        closing: Event,
        send: Callable[[OutgoingMessage], Awaitable[object]],
    ) -> None:
        self._runtime = runtime
        self._backlog = backlog
        self._closing = closing
        self._send = send
        self._running: set[tuple[str, Partition]] = set()

    async def all(self, topic: str | None) -> None:
        """Replay all partitions of a topic, or of all topics, at the same time."""
        under_way = [
            self._runtime.start(self._replay(*key))
            for key in self._backlog.kept()
            if topic in (None, key[0])
        ]
        await settle(under_way)

    def soon(self, topic: str, partition: Partition) -> None:
        """Begin to replay a partition, unless that is under way."""
        if (topic, partition) not in self._running:
            self._runtime.start(self._replay(topic, partition))

    async def _replay(self, topic: str, partition: Partition) -> None:
        """First the messages that were kept for no partition, then the partition's."""
        key = topic, partition
        if key in self._running or self._closing.is_set:
            return
        self._running.add(key)
        try:
            for each in dict.fromkeys((ANY_PARTITION, partition)):
                await self._backlog.drain(topic, each, self._send, in_order=True)
        finally:
            self._running.discard(key)
