"""
What a user says about the messages of a topic, and what all deliveries of a consumer share.

Source: ``SubscribeInfo``, ``MessageListener``, ``ConsumerMessageFilter``,
``RejectConsumptionHandler``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from metamorphosis.client.delivery.duplicates import DuplicateCache
from metamorphosis.client.model import ReceivedMessage
from metamorphosis.client.network.flow import Slots
from metamorphosis.client.network.links import Log
from metamorphosis.errors import MetaQError
from metamorphosis.interfaces import IRuntime

if TYPE_CHECKING:
    from metamorphosis.client.delivery.delivery import PartitionDelivery

Listener = Callable[[Any], object]
"""
Takes a ``ReceivedMessage``, or a list of them. Returns nothing, or something to wait for: a
coroutine, a Deferred, an asyncio future.
"""
Filter = Callable[[str, ReceivedMessage], object]
"""Group and message -> whether the listener gets it."""
Reject = Callable[[ReceivedMessage], object]
"""Takes a message that failed too often; may return something to wait for."""


class Rollback(MetaQError):
    """
    Raised by a listener: deliver this message again. It counts as a failure, without a traceback in
    the log.

    Source: ``Message.setRollbackOnly``.

    :ivar message: listeners of batches: the first one that was not processed; None: the whole
        batch.
    """

    def __init__(self, message: ReceivedMessage | None = None) -> None:
        super().__init__("rolled back")
        self.message = message


@dataclass(frozen=True, slots=True)
class Subscription:
    """
    :ivar max_size: bytes of a fetch.
    :ivar listener: None: the messages are for ``async for``.
    :ivar batch: the listener takes lists.
    :ivar auto_ack: what the listener returned from is acknowledged.
    """

    topic: str
    max_size: int
    listener: Listener | None = None
    filter: Filter | None = None
    batch: bool = False
    auto_ack: bool = True


class Outlet(Protocol):
    """Where messages go that are not for a listener: ``iteration.Iteration``."""

    async def take(
        self, delivery: PartitionDelivery, messages: list[ReceivedMessage]
    ) -> tuple[int, BaseException | None]:
        """How many were processed, and what happened to the next one."""

    def revoke(self, delivery: PartitionDelivery) -> None:
        """Messages of this delivery are not for us any more; ``take`` returns."""


@dataclass(slots=True)
class DeliveryRules:
    """
    What all deliveries of a consumer have in common.

    :ivar max_retries: ``max_fetch_retries``.
    :ivar reject: what becomes of messages that failed more often.
    :ivar slots: listener calls at a time; None: as many as there are partitions.
    :ivar outlet: takes what is for ``async for``.
    """

    runtime: IRuntime
    group: str
    log: Log
    max_retries: int
    duplicates: DuplicateCache
    reject: Reject
    slots: Slots | None = None
    outlet: Outlet | None = None
