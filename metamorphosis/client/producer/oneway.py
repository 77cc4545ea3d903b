"""
One-way sends: the sender gets no result, and never waits.

A sliding window bounds what is under way: ``max(1, length // 4096)`` units a message, 20000 in all.
A message that does not fit, or has no broker, is given to the *policy*. The factory's policy keeps
up to 500000 messages of each partition on this machine's disk and sends them later: when the topic
is published, and every ``recover_message_interval_ms``. Kept messages are forgotten when a broker
has confirmed them, so some may be stored twice. A message that is lost is counted, and told to the
program if it asks for it.

A sender that never lets the loop run fills the window, and then the memory with messages that wait
for the disk; ``await producer.ready()`` from time to time lets the brokers keep up.

Source: ``AsyncMetaMessageProducer``, ``SlidingWindow``, ``AsyncIgnoreMessageProcessor``.

Differs: a message that is lost on its way, or meets a temporary error, goes to the policy as well;
the original logs it. A message that a broker refuses for good is logged and lost, as there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from metamorphosis.client.checked import checked
from metamorphosis.client.model import ANY_PARTITION, OutgoingMessage, Partition, SendResult
from metamorphosis.client.network.flow import Event
from metamorphosis.client.network.opaques import next_opaque
from metamorphosis.client.network.replies import SUCCESS
from metamorphosis.client.producer.backlog import Backlog
from metamorphosis.client.producer.losses import Losses
from metamorphosis.client.producer.losses import LossListener as LossListener
from metamorphosis.client.producer.publisher import Publish, Publisher
from metamorphosis.client.producer.puts import Put, put_frame, too_large
from metamorphosis.client.producer.recovering import Recovering
from metamorphosis.client.producer.sending import Sending
from metamorphosis.client.topics.selectors import RoundRobinSelector, Selector
from metamorphosis.errors import ClientClosed, InvalidArgument, MetaQError

if TYPE_CHECKING:
    from metamorphosis.client.session import Session

WINDOW_UNITS: Final = 20000
UNIT_BYTES: Final = 4096
KEPT_MOST: Final = 500000

SOMEWHERE: Final = SendResult(-1, ANY_PARTITION, -1)

Policy = Callable[[OutgoingMessage, Partition], object]
"""Gets a message that is not sent, and its partition, ``ANY_PARTITION`` if none was chosen. If its
result can be awaited, it is; with an exception the message is lost."""


def units(length: int) -> int:
    """The units of the window that a body of this length takes."""
    return length // UNIT_BYTES or 1


class OneWayPut(Put):
    """A put without a result: only the status of its answer counts."""

    __slots__ = ()

    def answered(self, status: int, body: bytes, opaque: int) -> None:
        """The ``Waiter`` of the request."""
        if status == SUCCESS:
            self.owner.stored(self, SOMEWHERE)
        else:
            super().answered(status, body, opaque)


class KeepingPolicy:
    """
    The factory's policy: messages are kept on disk.

    :param limit: of each partition; further messages are lost.
    """

    def __init__(self, backlog: Backlog, losses: Losses, limit: int = KEPT_MOST) -> None:
        self._backlog = backlog
        self._losses = losses
        self._limit = limit

    def __call__(self, message: OutgoingMessage, partition: Partition) -> bool:
        """Whether the message is kept; a failure to write it is told later."""
        if self._backlog.count(message.topic, partition) >= self._limit:
            reason = f"{self._limit} messages are kept already"
            self._losses.not_kept(message, partition, reason)
            return False
        self._backlog.keep(message, partition, partial(self._written, message, partition))
        return True

    def _written(
        self, message: OutgoingMessage, partition: Partition, error: Exception | None
    ) -> None:
        if error is not None:
            self._losses.not_kept(message, partition, str(error))


class OneWayProducer(Publisher):
    """
    Sends without results. Made by the session factory. Thread: the loop's.

    :param selector: chooses the partition of a message; round robin unless given.
    :param window: units; 0 and less: 20000.
    :param policy: gets messages that are not sent; the factory's keeps them on disk.
    :ivar free: units of the window that are left.
    """

    def __init__(
        self,
        session: Session,
        selector: Selector | None = None,
        *,
        window: int = 0,
        policy: Policy | None = None,
    ) -> None:
        super().__init__(session)
        chosen = RoundRobinSelector() if selector is None else selector
        self.window = self.free = window if window > 0 else WINDOW_UNITS
        self._sending = Sending(
            session.runtime, session.log, session.directory, chosen, 0, 0.0, False, 16 << 20
        )
        self._select = self._sending.select
        self._losses = Losses(session.runtime, session.log)
        self._backlog: Backlog | None = None
        if policy is None:
            path = session.config.async_storage_path
            self._backlog = Backlog(session.runtime, path, session.log)
            policy = KeepingPolicy(self._backlog, self._losses)
        self._policy = policy
        self._room = Event(self._runtime)
        self._idle = Event(self._runtime)
        self._closing = Event(self._runtime)
        seconds = session.config.recover_message_interval_ms / 1000
        self._recovering = Recovering(self._runtime, self._closing, seconds, self._recover)
        self._policies_under_way = 0
        self._longest = session.config.max_body_bytes

    # -- sending

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
        """
        Send a message, or give it to the policy.

        Costs one request, whose answer is not awaited; the memory of the message until then.

        One long function, because it makes as few calls as it can for each message.

        :param timeout: seconds after which the window has its units back.
        :returns: id and offset -1, and the partition chosen, ``ANY_PARTITION`` if none could be;
            None if the message is invalid or the producer is closed, which is logged.
        :raises MessageTooLarge: longer than ``max_body_bytes``; nothing else is raised.
        """
        limit = self._timeout if timeout is None else timeout
        message = OutgoingMessage(topic, data, attribute, key)
        try:
            if self._closed:
                self._check_open()
            put = OneWayPut(self, message, partition, limit, None, None)
        except (InvalidArgument, ClientClosed) as error:
            self._losses.dropped(message, error)
            return None
        if len(put.body) > self._longest:
            raise too_large(topic, len(put.body), self._longest)
        try:
            broker = self._select(put)
            chosen = put.partition
            assert chosen is not None
            body = put.body
            size = len(body) // UNIT_BYTES or 1
            if size > self.free or not broker.writable:
                self._overflow(message, chosen)
            else:
                opaque = next_opaque()
                frame = put_frame(topic, chosen[1], body, put.flag, opaque)
                broker.request(opaque, frame, put.answered, limit)
                self.free -= size
        except InvalidArgument as error:
            self._losses.dropped(message, error)
            return None
        except Exception:
            chosen = ANY_PARTITION if partition is None else partition
            self._overflow(message, chosen)
        return SendResult(-1, chosen, -1)

    @property
    def lost(self) -> int:
        """Messages that were lost since this producer was made; each is in the log, or counted."""
        return self._losses.count

    @checked()
    def on_lost(self, listener: LossListener) -> Self:
        """
        ``listener`` is called with a ``LostMessage`` for each message that is lost from now on: it
        was invalid, a broker refused it for good, it could not be kept, or the policy failed.

        Costs nothing.

        :returns: this producer.
        :raises InvalidArgument: ``listener`` cannot be called.
        """
        self._losses.tell(listener)
        return self

    def ready(self) -> Awaitable[bool]:
        """
        Wait until at least half of the window is free.

        Costs the wait alone.

        :returns: True. Raises nothing.
        """
        if self._is_ready():
            self._room.set()
        else:
            self._room.clear()
        return self._room.wait()

    def _is_ready(self) -> bool:
        return self.free * 2 >= self.window

    # -- outcomes: ``Owner``

    def stored(self, put: Put, result: SendResult) -> None:
        """See ``Owner``."""
        self.free += len(put.body) // UNIT_BYTES or 1
        if self._closed or not self._room.is_set:
            self._note()

    def failed(self, put: Put, error: MetaQError) -> None:
        """See ``Owner``."""
        self.free += units(len(put.body))
        assert put.partition is not None
        if getattr(error, "retriable", False):
            self._overflow(put.message, put.partition)
        else:
            self._losses.dropped(put.message, error, put.partition)
        self._note()

    def _note(self) -> None:
        """There is more room in the window."""
        if not self._room.is_set and self._is_ready():
            self._room.set()
        if self._closed and self.free == self.window and not self._policies_under_way:
            self._idle.set()

    def _overflow(self, message: OutgoingMessage, partition: Partition) -> None:
        """Give a message that is not sent now to the policy."""
        try:
            outcome = self._policy(message, partition)
        except Exception:
            self._losses.policy_failed(message, partition)
            return
        if hasattr(outcome, "__await__"):
            self._policies_under_way += 1
            self._runtime.start(self._follow(message, partition, self._runtime.adopt(outcome)))

    async def _follow(
        self, message: OutgoingMessage, partition: Partition, outcome: Awaitable[object]
    ) -> None:
        try:
            await outcome
        except Exception:
            self._losses.policy_failed(message, partition)
        self._policies_under_way -= 1
        self._note()

    # -- kept messages

    async def _publish(self, topic: str, publish: Publish) -> None:
        try:
            await super()._publish(topic, publish)
        finally:
            await self._load(topic)

    async def _load(self, topic: str) -> None:
        if self._backlog is None or self._closed:
            return
        await self._backlog.load(topic)
        self._recovering.begin(topic)

    def recover(self) -> Awaitable[None]:
        """
        Send the kept messages now; returns at the end of that attempt.

        Costs a request for each, and reading and writing the files.

        :raises LocalStoreError: they cannot be read.
        """
        return self._recovering.now()

    async def _recover(self, topic: str | None) -> None:
        backlog = self._backlog
        if backlog is None:
            return
        for kept_topic, partition in backlog.kept():
            if topic in (None, kept_topic) and not self._closed:
                await backlog.drain(kept_topic, partition, self._resend, in_order=False)

    def _resend(self, message: OutgoingMessage) -> Awaitable[SendResult]:
        """
        A future of its result: unlike the first attempt, this one is confirmed.

        :raises Exception: it has failed already.
        """
        future: Awaitable[SendResult] = self._api.create_future()
        self._sending.submit(Put(self._sending, message, None, self._timeout, future, None))
        return future

    async def _end(self) -> None:
        """Wait for answers under way, for policies, and for the disk."""
        self._closing.set()
        self._note()
        await self._idle.wait()
        if self._backlog is not None:
            await self._backlog.close()
        await self._recovering.ended()
        self._losses.close()
