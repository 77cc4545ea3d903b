"""The types of consumers and browsers for type checkers, on Twisted; see ``client.tx``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol, Self

from twisted.internet.defer import Deferred

from metamorphosis.client.consumer import browser, consumer
from metamorphosis.client.delivery.assigning import AssignmentListener
from metamorphosis.client.delivery.subscription import Filter, Listener, Reject
from metamorphosis.client.documented import documented
from metamorphosis.client.fetch.passing import PassedOverMessages, PassingListener
from metamorphosis.client.model import (
    ConsumerCounts,
    Lag,
    Partition,
    Position,
    ReceivedMessage,
    StoredOffset,
)
from metamorphosis.client.runtimes.txproducers import Closing
from metamorphosis.client.settings import ConsumerConfig


@documented(consumer.Consumer)
class Consumer(Closing, Protocol):
    """The type of ``consumer.Consumer`` on this face."""

    config: ConsumerConfig
    passed_over: PassedOverMessages

    @property
    def counts(self) -> ConsumerCounts: ...

    @property
    def group(self) -> str:
        """The name of its group."""

    @property
    def assignment(self) -> Mapping[tuple[str, Partition], Position]: ...

    def subscribe(
        self,
        topic: str,
        max_size: int = 1 << 20,
        listener: Listener | None = None,
        filter: Filter | None = None,
        *,
        batch: bool = False,
        auto_ack: bool = True,
    ) -> Self: ...

    def on_rejection(self, strategy: Reject) -> Self: ...

    def on_passed_over(self, listener: PassingListener) -> Self: ...

    def on_assigned(self, listener: AssignmentListener) -> Self: ...

    def on_revoked(self, listener: AssignmentListener) -> Self: ...

    @property
    def paused(self) -> frozenset[tuple[str, Partition]]: ...

    def pause(self, topic: str, partition: Partition) -> None: ...

    def resume(self, topic: str, partition: Partition) -> None: ...

    def complete_subscribe(self) -> Deferred[None]: ...

    def __aiter__(self) -> AsyncIterator[ReceivedMessage]: ...

    def messages(self, timeout: float | None = None) -> AsyncIterator[ReceivedMessage]: ...

    def poll(
        self, timeout: float | None = None, max: int = 500
    ) -> Deferred[list[ReceivedMessage]]: ...

    def ack(self, message: ReceivedMessage) -> None: ...

    def rollback(self, message: ReceivedMessage) -> None: ...

    def seek(self, topic: str, partition: Partition, offset: int) -> None: ...

    def commit(self) -> Deferred[bool]: ...

    def get(
        self,
        topic: str,
        partition: Partition,
        offset: int,
        max_size: int = 1 << 20,
        timeout: float = 10.0,
    ) -> Deferred[Sequence[ReceivedMessage] | None]: ...

    def offset(
        self, topic: str, partition: Partition, offset: int, timeout: float = 10.0
    ) -> Deferred[int]: ...

    def offset_at(
        self, topic: str, partition: Partition, milliseconds: int, timeout: float = 10.0
    ) -> Deferred[int]: ...

    def committed(
        self, topic: str, partition: Partition, timeout: float = 10.0
    ) -> Deferred[StoredOffset | None]: ...

    def end(self, topic: str, partition: Partition, timeout: float = 10.0) -> Deferred[int]: ...

    def lag(self, topic: str, timeout: float = 10.0) -> Deferred[dict[Partition, Lag]]: ...


@documented(browser.TopicBrowser)
class TopicBrowser(Closing, Protocol):
    """The type of ``browser.TopicBrowser`` on this face."""

    topic: str
    passed_over: PassedOverMessages

    def on_passed_over(self, listener: PassingListener) -> Self: ...

    def partitions(self) -> Deferred[list[Partition]]: ...

    def __aiter__(self) -> AsyncIterator[ReceivedMessage]: ...
