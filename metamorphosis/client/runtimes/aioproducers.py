# Made from txproducers.py by tools/asyncio_faces.py: change that, run 'make faces'.
"""The types of producers for type checkers, on asyncio; see ``client.aio``."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Iterable
from typing import Protocol, Self

from metamorphosis.client.documented import documented
from metamorphosis.client.model import OutgoingMessage, Partition, SendResult
from metamorphosis.client.producer import oneway, ordered, producer, publisher
from metamorphosis.client.producer.oneway import LossListener
from metamorphosis.client.producer.puts import Callback
from metamorphosis.client.runtimes.aiotransactions import Transaction, XAResource
from metamorphosis.client.transactions import xaproducer


class Closing(Protocol):
    """Everything that ends."""

    def close(self) -> Future[None]:
        """
        End it, when what is under way has met its fate. It may be called again.

        Costs the time of what is under way.

        Gives an ``asyncio.Future``, which has the errors as well.

        :raises InvalidState: of a consumer: one of its listeners calls it.
        :raises ClientError: of a producer: a step failed; it is closed all the same.
        """

    async def __aenter__(self) -> Self:
        """Itself."""

    async def __aexit__(self, *reason: object) -> None:
        """``close``."""


@documented(publisher.Publisher)
class Publishing(Closing, Protocol):
    """The type of ``publisher.Publisher`` on this face."""

    def publish(self, topic: str) -> Future[None]: ...

    def set_default_topic(self, topic: str) -> Future[None]: ...


@documented(producer.Producer)
class Producer(Publishing, Protocol):
    """The type of ``producer.Producer`` on this face."""

    @property
    def is_full(self) -> bool: ...

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Future[SendResult]: ...

    def send_many(
        self,
        messages: Iterable[OutgoingMessage],
        *,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Future[list[SendResult]]: ...

    def send_with_callback(
        self,
        callback: Callback,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> None: ...

    def ready(self) -> Future[bool]: ...

    def transaction(
        self, lifetime: int | None = None, *, target: str | None = None, timeout: float = 5.0
    ) -> Transaction: ...


@documented(oneway.OneWayProducer)
class OneWayProducer(Publishing, Protocol):
    """The type of ``oneway.OneWayProducer`` on this face."""

    window: int
    free: int
    lost: int

    def on_lost(self, listener: LossListener) -> Self: ...

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> SendResult | None: ...

    def ready(self) -> Future[bool]: ...

    def recover(self) -> Future[None]: ...


@documented(ordered.OrderedProducer)
class OrderedProducer(Publishing, Protocol):
    """The type of ``ordered.OrderedProducer`` on this face."""

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        timeout: float | None = None,
    ) -> Future[SendResult]: ...

    def local_count(self, topic: str, partition: Partition) -> int: ...

    def recover(self) -> Future[None]: ...


@documented(xaproducer.XAProducer)
class XAProducer(Publishing, Protocol):
    """The type of ``xaproducer.XAProducer`` on this face."""

    @property
    def unique_qualifier(self) -> str: ...

    def resource(self, target: str | None = None) -> XAResource: ...
