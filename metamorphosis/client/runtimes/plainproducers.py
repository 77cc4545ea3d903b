"""
Producers with plain calls that wait. Thread: any but the loop's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Self

from metamorphosis.client.checked import checked
from metamorphosis.client.documented import documented
from metamorphosis.client.model import OutgoingMessage, Partition, SendResult
from metamorphosis.client.network.flow import settle
from metamorphosis.client.producer import oneway, ordered, producer
from metamorphosis.client.producer.losses import LossListener
from metamorphosis.client.runtimes.loopthread import LoopThread
from metamorphosis.client.runtimes.plain import Publishing, list_of
from metamorphosis.client.runtimes.plainlater import LaterSends
from metamorphosis.client.runtimes.plaintransactions import Transaction
from metamorphosis.errors import InvalidMessage

SEND_WINDOW = 1000
"""Messages under way in ``send_all``."""


@documented(producer.Producer)
class Producer(Publishing[producer.Producer]):
    """``producer.Producer`` with plain calls."""

    def __init__(
        self,
        thread: LoopThread,
        core: producer.Producer,
        factory: object,
        max_outstanding_bytes: int = 64 << 20,
    ) -> None:
        super().__init__(thread, core, factory)
        self._later = LaterSends(thread, core, max_outstanding_bytes)

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
        return self._call(
            self._core.send,
            topic,
            data,
            attribute,
            key=key,
            partition=partition,
            timeout=timeout,
        )

    @checked(error=InvalidMessage)
    def send_later(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Future[SendResult]:
        """
        Send a message without waiting for its fate: a ``concurrent.futures.Future`` of its
        ``SendResult``, or of the error that ``send`` would raise. ``flush`` waits for all of them.

        It costs some 40 us, a fifth of a ``send``; ``send_many`` costs less. It waits only while
        the messages under way fill ``max_outstanding_bytes``. Messages of one thread keep their
        order. The future cannot be cancelled; its callbacks run in the thread of the loop, and must
        neither block nor call the client.

        :param attribute: is sent and stored with the message; brokers filter by it.
        :param key: messages with the same key go to the same partition.
        :param partition: the message goes exactly there.
        :param timeout: seconds for the answer to each attempt; ``send_timeout_ms`` unless given.
        :returns: where the broker has stored it, by the future.
        :raises InvalidMessage: at once: an argument is wrong. All other errors come by the future.
        :raises ClientClosed: at once: the factory has been closed.
        """
        return self._later.send(topic, data, attribute, key, partition, timeout)

    @checked()
    def flush(self, timeout: float | None = None) -> None:
        """
        Wait until every message that was given to ``send_later`` before has met its fate. Costs the
        wait alone.

        :param timeout: seconds; None: as long as it takes, which ``delivery_timeout_ms`` limits.
        :raises MetaQError: the error of the first message that failed since the last ``flush``,
            after all have met their fate; the futures have those of the others.
        :raises RequestTimeout: some have none yet; they are still under way.
        :raises ClientClosed: the factory has been closed.
        """
        self._later.flush(timeout)

    def send_many(
        self,
        messages: Iterable[OutgoingMessage],
        *,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> list[SendResult]:
        """Waits for the fate of the last one."""
        return self._call(
            self._core.send_many, list_of(messages), partition=partition, timeout=timeout
        )

    @checked()
    def send_all(
        self, topic: str, bodies: Iterable[bytes], attribute: str | None = None
    ) -> Iterator[SendResult]:
        """
        Send many messages, a thousand at a time, as their results are asked for.

        Costs a round trip for each thousand.

        :param bodies: may be an iterator; it is read as the results are.
        :returns: an iterator of the results, in the order of the messages. It raises the first
            error; messages after it, of the same thousand, may have been stored.
        :raises InvalidArgument: no name of a topic, or one message in place of many.
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
        core = self._call(self._core.transaction, lifetime, target=target, timeout=timeout)
        return Transaction(self._thread, core, self._factory)

    async def _send_window(
        self, topic: str, bodies: list[bytes], attribute: str | None
    ) -> list[SendResult | Exception]:
        return await settle([self._core.send(topic, body, attribute) for body in bodies])


@documented(oneway.OneWayProducer)
class OneWayProducer(Publishing[oneway.OneWayProducer]):
    """``oneway.OneWayProducer`` with plain calls."""

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
        return self._call(
            self._core.send,
            topic,
            data,
            attribute,
            key=key,
            partition=partition,
            timeout=timeout,
        )

    @property
    def lost(self) -> int:
        return self._call(lambda: self._core.lost)

    def on_lost(self, listener: LossListener) -> Self:
        """The listener runs in the loop's thread and must not block."""
        self._call(self._core.on_lost, listener)
        return self

    def ready(self) -> bool:
        """Waits until there is room."""
        return self._call(self._core.ready)

    def recover(self) -> None:
        self._call(self._core.recover)


@documented(ordered.OrderedProducer)
class OrderedProducer(Publishing[ordered.OrderedProducer]):
    """``ordered.OrderedProducer`` with plain calls."""

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        timeout: float | None = None,
    ) -> SendResult:
        return self._call(self._core.send, topic, data, attribute, key=key, timeout=timeout)

    def local_count(self, topic: str, partition: Partition) -> int:
        return self._call(self._core.local_count, topic, partition)

    def recover(self) -> None:
        self._call(self._core.recover)
