"""
The user's part of a delivery: listener, filter and reject strategy of a topic; and the settings
that all deliveries of a consumer share.

Source: ``SubscribeInfo``, ``MessageListener``, ``ConsumerMessageFilter``,
``RejectConsumptionHandler``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import CoroutineType
from typing import Any, Final, Protocol

from metamorphosis.client.delivery.duplicates import DuplicateCache
from metamorphosis.client.delivery.progress import Progress
from metamorphosis.client.delivery.repeated import Repeated
from metamorphosis.client.model import ReceivedMessage
from metamorphosis.client.network.flow import Slots
from metamorphosis.client.network.links import Log
from metamorphosis.client.network.recurrences import Recurrences
from metamorphosis.errors import InvalidState, MetaQError
from metamorphosis.interfaces import IRuntime

Listener = Callable[[Any], object]
"""
Takes a ``ReceivedMessage``, or a list of them: ``batch`` of the subscription decides which, so the
argument has no type here. Returns nothing, or something to wait for: a coroutine, a Deferred, an
asyncio future.
"""
Filter = Callable[[str, ReceivedMessage], object]
"""Takes group and message; a true result gives the message to the listener."""
Reject = Callable[[ReceivedMessage], object]
"""Takes a message that failed too often; may return something to wait for."""


INSIDE: Final = (
    "close was called in a listener, and waits for the listener's end: let the listener return, and"
    " close from elsewhere"
)
"""The text of the error."""


class Rollback(MetaQError):
    """
    A listener raises it to get the message again. It counts as a failure, without a traceback in
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
    A topic that a consumer reads.

    :ivar max_size: bytes of a fetch.
    :ivar listener: None: the messages are for ``async for``.
    :ivar batch: the listener takes lists.
    :ivar auto_ack: a message is acknowledged when the listener returns.
    """

    topic: str
    max_size: int
    listener: Listener | None = None
    filter: Filter | None = None
    batch: bool = False
    auto_ack: bool = True


class UserCalls:
    """
    The calls of a consumer's listeners that are awaited, for whose end ``close`` waits. Thread: the
    loop's.

    :ivar awaited: the coroutines of listeners.
    :ivar ends: what ``close`` has given.
    """

    __slots__ = ("awaited", "ends")

    def __init__(self) -> None:
        self.awaited: set[CoroutineType[Any, Any, object]] = set()
        self.ends: list[Awaitable[None]] = []

    def is_inside(self) -> bool:
        """Whether the code that is running was called by one of the coroutines."""
        return any(each.cr_running for each in self.awaited)

    def waits_for_itself(self, result: object) -> bool:
        """Whether a listener has returned the end that waits for the listener."""
        return any(result is each for each in self.ends)


@dataclass(slots=True)
class DeliveryCounts:
    """The part of ``ConsumerCounts`` that deliveries know."""

    delivered: int = 0
    bytes: int = 0
    failed: int = 0
    rejected: int = 0
    repeated: int = 0


class Outlet(Protocol):
    """Takes the messages of topics without a listener: ``iteration.Iteration``."""

    async def take(
        self, progress: Progress, messages: list[ReceivedMessage]
    ) -> tuple[int, BaseException | None]:
        """The number of messages that were processed, and the error of the next one."""

    def revoke(self, progress: Progress) -> None:
        """The messages of this partition are not delivered any more; ``take`` returns."""

    def hold_back(self, progress: Progress) -> None:
        """The same, but those that the user has can still be acknowledged; ``take`` returns when
        they are."""


@dataclass(slots=True)
class DeliveryRules:
    """
    Settings and parts that all deliveries of a consumer share.

    :ivar max_retries: ``max_fetch_retries``.
    :ivar reject: called with each message that failed more often.
    :ivar slots: listener calls at a time; None: one for each partition.
    :ivar outlet: takes the messages for ``async for``.
    :ivar calls: the listeners that are awaited.
    :ivar counts: of all deliveries.
    :ivar repeated: told of the messages that are left out because they were processed before.
    :ivar recurrences: of what can happen to every message.
    """

    runtime: IRuntime
    group: str
    log: Log
    max_retries: int
    duplicates: DuplicateCache
    reject: Reject
    slots: Slots | None = None
    outlet: Outlet | None = None
    calls: UserCalls = field(default_factory=UserCalls)
    counts: DeliveryCounts = field(default_factory=DeliveryCounts)
    repeated: Repeated = field(init=False)
    recurrences: Recurrences = field(init=False)

    def __post_init__(self) -> None:
        self.repeated = Repeated(self.runtime, self.log)
        self.recurrences = Recurrences(self.runtime, self.log)


async def finish(runtime: IRuntime, result: object, calls: UserCalls) -> None:
    """Wait for the result of a user's function, if it can be waited for."""
    if type(result) is CoroutineType:
        awaited = calls.awaited
        awaited.add(result)
        try:
            await result  # awaited here: this takes a fifth of the time of a future
        finally:
            awaited.discard(result)
    elif hasattr(result, "__await__"):
        if calls.waits_for_itself(result):
            raise InvalidState(INSIDE)
        await runtime.adopt(result)
