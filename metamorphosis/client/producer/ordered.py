"""
Strict order per partition, through outages: a message whose partition cannot be written now is kept
on this machine's disk, and so are those that follow it, until the kept ones have been sent in
order.

Which partition a message belongs to depends on the configured partitions (``partitions_info``), not
on those that happen to be available. Of each partition one message is dealt with at a time:

1. If it is not writable, the message is kept.
2. Kept messages of the partition are sent first. If they are few, the message waits for them, three
   times 100 ms; after that, or with more than 20, it is kept after them.
3. If none is kept, the message is sent. If the partition is closed (403), it is kept; other errors
   go to the sender, or with ``ordered_save_to_local_when_failed`` the message is kept.

Kept messages are sent when the topic is published, when a message of their partition comes, and
every ``recover_message_interval_ms``; one that fails stays, with all after it. A message is
forgotten when the broker has confirmed it, so one may be stored twice.

Source: ``OrderedMessageProducer``, ``OrderedMessageSender``,
``OrderedLocalMessageStorageManager``.

Differs: a message refused with 403, and with any error where that is asked for, is kept for its
partition and not for ``-1--1``, so that later ones cannot overtake it.

Differs: sends of one partition wait for each other; the original orders those of one thread.

Differs: a producer that ends keeps the messages that wait; the next one sends them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from metamorphosis.client.checked import as_future, checked
from metamorphosis.client.model import ANY_PARTITION, OutgoingMessage, Partition, SendResult
from metamorphosis.client.network.flow import Event
from metamorphosis.client.network.recurrences import Recurrences
from metamorphosis.client.partitionsinfo import parse_partitions_info
from metamorphosis.client.producer.backlog import Backlog
from metamorphosis.client.producer.publisher import Publish, Publisher
from metamorphosis.client.producer.puts import Put, too_large
from metamorphosis.client.producer.recovering import OrderedReplay, Recovering
from metamorphosis.client.producer.sending import Sending, waited_in_vain
from metamorphosis.client.topics.selectors import OrderedSelector, Selector
from metamorphosis.errors import (
    Forbidden,
    InvalidMessage,
    MetaQError,
    NoPartition,
    PartitionNotWritable,
    RequestTimeout,
)
from metamorphosis.message import encode_body

if TYPE_CHECKING:
    from metamorphosis.client.session import Session

LOOKS: Final = 3
LOOK_SECONDS: Final = 0.1
FEW: Final = 20

Lane = deque[tuple[OutgoingMessage, float, float, Awaitable[SendResult]]]
"""Messages of a partition, their time limits, when they came, futures; the first is under way."""


class OrderedProducer(Publisher):
    """
    Sends in order. Made by the session factory. Thread: the loop's.

    :param selector: picks one of the configured partitions, that of the key unless given; an
        ``OrderedSelector`` brings its own configuration.
    """

    def __init__(
        self, session: Session, selector: OrderedSelector | Selector | None = None
    ) -> None:
        if not isinstance(selector, OrderedSelector):
            configured = parse_partitions_info(session.config.partitions_info)
            selector = OrderedSelector(configured, selector)
        super().__init__(session)
        self._selector = selector
        self._direct = session.config.direct
        self._keep_whatever_fails = session.config.ordered_save_to_local_when_failed
        self._sending = Sending(
            session.runtime, session.log, session.directory, selector, 0, 0.0, False, 64 << 20
        )
        self._backlog = Backlog(session.runtime, session.config.local_message_path, session.log)
        self._lines = Recurrences(session.runtime, session.log)
        self._lanes: dict[tuple[str, Partition], Lane] = {}
        self._closing = Event(self._runtime)
        self._replay = OrderedReplay(self._runtime, self._backlog, self._closing, self._resend)
        seconds = session.config.recover_message_interval_ms / 1000
        self._recovering = Recovering(self._runtime, self._closing, seconds, self._replay.all)
        self._idle = Event(self._runtime)

    # -- sending

    @checked(as_future, InvalidMessage)
    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        timeout: float | None = None,
    ) -> Awaitable[SendResult]:
        """
        Send a message after those of its partition. Where the result is a future, nothing is raised
        here.

        Costs one round trip; while its partition cannot be written, a row in a file of this
        machine.

        :param key: messages with the same key go to the same partition.
        :param timeout: seconds for the broker's answer.
        :returns: where the broker has stored it; not ``is_stored`` if it was kept to be sent later.
        :raises InvalidMessage: blank topic, data that are no bytes.
        :raises MessageTooLarge: longer than ``max_body_bytes``; it is not kept either.
        :raises NoPartition: the topic is not configured.
        :raises LocalStoreError: it could be neither sent nor kept.
        :raises MetaQError: it failed under way, as with ``Producer``.
        """
        future: Awaitable[SendResult] = self._api.create_future()
        try:
            self._check_open()
            message = OutgoingMessage(topic, bytes(data), attribute, key)
            length = len(encode_body(message.data, attribute))
            if length > self._session.config.max_body_bytes:
                raise too_large(topic, length, self._session.config.max_body_bytes)
            partition = ANY_PARTITION if self._direct else self._selector.choose(topic, message)
            limit = self._timeout if timeout is None else timeout
            lane = self._lanes.get((topic, partition))
            if lane is None:
                lane = self._lanes[topic, partition] = deque()
                self._runtime.call_soon(self._start, topic, partition, lane)
            lane.append((message, limit, self._runtime.seconds(), future))
        except Exception as error:
            self._api.reject(future, error)
        return future

    def _start(self, topic: str, partition: Partition, lane: Lane) -> None:
        self._runtime.start(self._work_off(topic, partition, lane))

    async def _work_off(self, topic: str, partition: Partition, lane: Lane) -> None:
        """The lane's messages, one after the other."""
        while lane:
            message, limit, _, future = lane[0]
            result: SendResult | None = None
            failure: Exception | None = None
            try:
                await self._backlog.load(topic)
                result = await self._handle(message, partition, limit)
            except Exception as error:
                failure = error
            lane.popleft()
            self._tell(future, result, failure)
            if isinstance(failure, RequestTimeout):
                self._expire(lane, partition)
        del self._lanes[topic, partition]
        if self._closed and not self._lanes:
            self._idle.set()

    def _tell(
        self,
        future: Awaitable[SendResult],
        result: SendResult | None,
        failure: Exception | None,
    ) -> None:
        if self._api.is_called(future):
            return  # cancelled by the sender
        if result is not None:
            self._api.resolve(future, result)
        elif failure is not None:
            self._api.reject(future, failure)

    def _expire(self, lane: Lane, partition: Partition) -> None:
        """The broker does not answer: messages that have waited for their time limit fail."""
        now = self._runtime.seconds()
        while lane and lane[0][2] + lane[0][1] <= now:
            message, _, since, future = lane.popleft()
            self._tell(future, None, waited_in_vain(message.topic, partition, now - since))

    async def _handle(
        self, message: OutgoingMessage, partition: Partition, limit: float
    ) -> SendResult:
        for look in range(1, LOOKS + 1):
            if self._closed or not self._is_writable(message.topic, partition):
                break
            count = self._backlog.count(message.topic, partition)
            if count == 0:
                return await self._send(message, partition, limit)
            self._replay.soon(message.topic, partition)
            if count > FEW or look == LOOKS:
                break
            await self._closing.wait(LOOK_SECONDS)
        return await self._keep(message, partition)

    def _is_writable(self, topic: str, partition: Partition) -> bool:
        """
        :raises NoPartition: the selector chose a partition that does not exist.
        """
        try:
            published = self._directory.topic_for(topic)
        except NoPartition:
            return False
        if self._direct:
            return True
        try:
            self._selector.check(topic, partition, published.listed)
        except PartitionNotWritable:
            return False
        return partition.broker_id in published.brokers

    async def _send(
        self, message: OutgoingMessage, partition: Partition, limit: float
    ) -> SendResult:
        try:
            return await self._put(message, partition, limit)
        except MetaQError as error:
            if not isinstance(error, Forbidden) and not self._keep_whatever_fails:
                raise
            place = f"topic {message.topic}, partition {partition}"
            if self._lines.begins(f"messages are kept locally: {type(error).__name__}", place):
                self._log.warn(
                    "A message of topic {topic}, partition {partition} is kept locally: {error}",
                    topic=message.topic,
                    partition=partition,
                    error=error,
                )
        return await self._keep(message, partition)

    def _put(
        self, message: OutgoingMessage, partition: Partition, limit: float
    ) -> Awaitable[SendResult]:
        """
        A future of the result.

        :raises MetaQError: it has failed already.
        """
        future: Awaitable[SendResult] = self._api.create_future()
        self._sending.submit(Put(self._sending, message, partition, limit, future, None))
        return future

    async def _keep(self, message: OutgoingMessage, partition: Partition) -> SendResult:
        future: Awaitable[None] = self._api.create_future()

        def kept(error: Exception | None) -> None:
            if error is None:
                self._api.resolve(future, None)
            else:
                self._api.reject(future, error)

        self._backlog.keep(message, partition, kept)
        await future
        return SendResult(-1, partition, -1)

    # -- kept messages

    @checked()
    def local_count(self, topic: str, partition: Partition) -> int:
        """
        How many messages of a partition are kept on this machine.

        Costs nothing.

        :returns: the number.
        :raises InvalidArgument: no topic or partition.
        """
        return self._backlog.count(topic, partition)

    def recover(self) -> Awaitable[None]:
        """
        Send the kept messages now; returns at the end of that attempt.

        Costs a round trip for each, and reading and writing the files.

        :raises LocalStoreError: they cannot be read.
        """
        return self._recovering.now()

    async def _publish(self, topic: str, publish: Publish) -> None:
        try:
            await super()._publish(topic, publish)
        finally:
            if not self._closed:
                await self._backlog.load(topic)
                self._recovering.begin(topic)

    async def _resend(self, message: OutgoingMessage) -> SendResult:
        """
        :raises MetaQError: it was not taken.
        """
        topic = message.topic
        published = self._directory.topic_for(topic)
        partition = ANY_PARTITION
        if not self._direct:
            partition = self._selector(topic, published.listed, message)
        return await self._put(message, partition, self._timeout)

    async def _end(self) -> None:
        """Keep the messages that wait; wait for the answers to those under way."""
        self._closing.set()
        if not self._lanes:
            self._idle.set()
        await self._idle.wait()
        await self._backlog.close()
        await self._recovering.ended()
        self._lines.close()
