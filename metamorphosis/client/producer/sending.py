"""
The way of messages from ``send`` to their brokers.

The bytes under way are bounded; further messages wait for room in the order of their calls. Each
message costs only the work that every message needs; waiting, lanes and pauses cost only the
messages that use them. See ``lanes`` for the order, ``retrying`` for further attempts.

Source: ``SimpleMessageProducer``.

Differs: the original has no bound but that of the sockets. Ours bounds the bytes under way, and
chooses no partition of a broker that is not connected.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable

from metamorphosis.client.checks import require
from metamorphosis.client.model import ANY_PARTITION, OutgoingMessage, Partition, SendResult
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.flow import Event
from metamorphosis.client.network.links import Log
from metamorphosis.client.network.opaques import next_opaque
from metamorphosis.client.network.recurrences import Recurrences
from metamorphosis.client.producer.lanes import Lanes
from metamorphosis.client.producer.many import MessageList, Outcomes
from metamorphosis.client.producer.puts import OVERHEAD_BYTES, Put, frame_of, token_of
from metamorphosis.client.producer.retrying import Retrying, say_attempts
from metamorphosis.client.producer.runs import Runs
from metamorphosis.client.topics.directory import PartitionDirectory
from metamorphosis.client.topics.published import PublishedTopic
from metamorphosis.client.topics.selectors import KeyHashSelector, OrderedSelector, Selector
from metamorphosis.errors import (
    InvalidMessage,
    MetaQError,
    NoPartition,
    NotConnected,
    NothingSelected,
    RequestTimeout,
)
from metamorphosis.interfaces import IRuntime


class Sending:
    """
    The ``Owner`` of a producer's puts. Thread: the loop's.

    One long class, because every method changes what is under way.

    :param retries: further attempts after the first; None: as many as there is time for.
    :param budget: seconds after which a message is given up, whatever the number of attempts.
    :param in_order: keep the order through further attempts; see ``lanes``.
    :param max_outstanding: bytes, by ``Put.cost``.
    """

    def __init__(
        self,
        runtime: IRuntime,
        log: Log,
        directory: PartitionDirectory,
        selector: Selector,
        retries: int | None,
        budget: float,
        in_order: bool,
        max_outstanding: int,
    ) -> None:
        self._runtime = runtime
        self._log = log
        self._recurrences = Recurrences(runtime, log)
        self._api = runtime.api
        self._is_called = runtime.api.is_called
        self._fire = runtime.api.resolve
        self._directory = directory
        self._topics = directory.topics
        self._selector = selector
        self._retries = retries
        self._by_key = isinstance(selector, KeyHashSelector | OrderedSelector)
        self._in_order = in_order
        self._max_outstanding = max_outstanding
        self._outstanding = 0  # cost of what is under way, lanes and pauses included
        self._waiting: deque[Put] = deque()  # for room
        self._retrying = Retrying(runtime, retries, budget, self._attempt)
        self._lanes = Lanes(runtime, self, directory.is_direct)
        self._room = Event(runtime)
        self._idle = Event(runtime)
        self._ending = False

    @property
    def is_full(self) -> bool:
        """Whether a new message would wait."""
        return bool(self._waiting)

    def ready(self) -> Awaitable[bool]:
        """A future that fires when no message waits for room."""
        if self._waiting:
            self._room.clear()
        else:
            self._room.set()
        return self._room.wait()

    async def end(self) -> None:
        """Make no further attempts, and wait for the outcome of those under way."""
        self._ending = True
        for put, error in {**self._retrying.end(), **self._lanes.end()}.items():
            self.give_up(put, error)
        self._note_idle()
        await self._idle.wait()
        self._recurrences.close()

    def submit(self, put: Put) -> None:
        """
        Take a new message in.

        :raises Exception: it has failed already.
        """
        broker: BrokerConnection | None = None
        if not self._in_order or not self._lanes.hold_up(put):
            try:
                broker = self.select(put)
            except NoPartition as error:
                if self._retries == 0 or not error.retriable:
                    raise
        cost = put.cost
        if self._waiting or self._outstanding + cost > self._max_outstanding and self._outstanding:
            put.since = put.since or self._runtime.seconds()
            self._waiting.append(put)
        elif self._in_order:
            self._outstanding += cost
            self._lanes.enter(put)
        elif broker is None:
            self._outstanding += cost
            self._attempt(put)
        else:
            self._request(put, broker)
            self._outstanding += cost

    def submit_all(self, some: MessageList, outcomes: Outcomes) -> None:
        """Take a list in; ``outcomes`` is told of each message. What has to wait for room, or for
        others of its lane, goes as if it had been sent alone."""
        outcomes.expect(len(some.messages))
        count = 0 if self._in_order or self._waiting else self._fitting(some)
        if count:
            self._outstanding += some.cost_of(count)
            Runs(self, some, outcomes).take(count)
        outcomes.take(some, count, self.submit)

    def _fitting(self, some: MessageList) -> int:
        """How many messages of a list have room."""
        left = self._max_outstanding - self._outstanding
        if some.cost <= left:
            return len(some.bodies)
        for count, body in enumerate(some.bodies):
            left -= len(body) + OVERHEAD_BYTES
            if left < 0 and (count or self._outstanding):
                return count
        return len(some.bodies)

    def unplaced(self, put: Put, error: Exception) -> None:
        """See ``runs.RunOwner``."""
        if isinstance(error, NoPartition) and error.retriable and self._retries != 0:
            self.attempt(put)
        else:
            self.give_up(put, error)

    def landed(self, outcomes: Outcomes, index: int, result: SendResult, cost: int) -> None:
        """See ``runs.RunOwner``."""
        self._outstanding -= cost
        if self._waiting:
            self._admit()
        outcomes.stored(index, result)
        if self._ending:
            self._note_idle()

    def select(self, put: Put) -> BrokerConnection:
        """
        Choose partition and broker, or the broker of the partition that was chosen before.

        :raises NoPartition: there is none. What the selector raises goes through.
        """
        published = self._topics.get(put.message[0])
        if published is None or not published.partitions:
            published = self.published(put.message[0])
        partition = put.partition
        if partition is None or put.attempts and not put.pinned:
            partition = put.partition = self.choose(published, put.message)
            put.pinned = self._in_order
        return published.brokers.get(partition[0]) or self.broker_of(
            published, partition, put.message[0]
        )

    def published(self, topic: str) -> PublishedTopic:
        """See ``runs.RunOwner``."""
        found = self._topics.get(topic)
        if found is None or not found.partitions:
            require("topic", topic, InvalidMessage)
            found = self._directory.topic_for(topic)
        return found

    def broker_of(
        self, published: PublishedTopic, partition: Partition, topic: str
    ) -> BrokerConnection:
        """See ``runs.RunOwner``."""
        broker = published.brokers.get(partition[0])
        if broker is None:
            if published.partitions[0] is not ANY_PARTITION:
                raise self._directory.unregistered(topic, partition)
            broker = published.brokers[ANY_PARTITION.broker_id]
        return broker

    def choose(self, published: PublishedTopic, message: OutgoingMessage) -> Partition:
        """See ``runs.RunOwner``."""
        partitions = published.partitions
        if partitions[0] is ANY_PARTITION:
            return ANY_PARTITION
        if message[3] is not None or self._by_key:
            partitions = published.listed
        partition = self._selector(published.name, partitions, message)
        if partition is None:
            raise NothingSelected(f"the selector found no partition for topic {message.topic}")
        if type(partition) is not Partition:
            require("partition", partition)
        return partition

    def _request(self, put: Put, broker: BrokerConnection) -> None:
        opaque = next_opaque()
        partition = put.partition
        assert partition is not None
        put.broker = broker
        put.opaque = opaque
        frame = frame_of(token_of(put.message[0]), partition[1], put.body, put.flag, opaque)
        broker.request(opaque, frame, put.answered, put.timeout)

    # -- outcomes

    def stored(self, put: Put, result: SendResult) -> None:
        """See ``Owner``."""
        self._outstanding -= put.cost
        if self._in_order:
            self._lanes.stored(put)
        if self._waiting:
            self._admit()
        future = put.future
        if future is None or self._ending:
            self._resolve(put, result, None)
        elif not self._is_called(future):  # the usual case of ``_resolve``, without the call
            self._fire(future, result)

    def failed(self, put: Put, error: Exception) -> None:
        """See ``Owner``."""
        if self._in_order and self._lanes.is_early(put, error):
            return
        if not getattr(error, "outcome_known", True):
            put.unsure = True
        if not self.may_retry(put, error):
            self.give_up(put, error)
        elif self._in_order:
            self._lanes.failed(put, error)
        else:
            self._retrying.later(put, error)

    def may_retry(self, put: Put, error: Exception) -> bool:
        """Whether a message whose attempt failed with this error gets another one."""
        retriable = getattr(error, "retriable", False) and not self._ending
        return bool(retriable) and self._retrying.has_time(put, error)

    def try_later(self, put: Put, error: Exception) -> None:
        """See ``lanes.Sender``."""
        self._retrying.later(put, error)

    def give_up(self, put: Put, error: Exception) -> None:
        """A message has failed for good."""
        if put.attempts and isinstance(error, MetaQError):
            say_attempts(put, error)
        self._outstanding -= put.cost
        late = isinstance(error, RequestTimeout)
        if self._in_order:
            self._lanes.given_up(put, late)
        if self._waiting:
            if late:
                self._expire(self._waiting, 0)
            self._admit()
        self._resolve(put, None, error)

    def _resolve(self, put: Put, result: SendResult | None, error: Exception | None) -> None:
        future = put.future
        if put.callback is not None:
            try:
                put.callback(result, error)
            except Exception as failure:
                what = f"callbacks of messages fail with {type(failure).__name__}"
                if self._recurrences.begins(what, f"topic {put.message.topic}"):
                    self._log.failure(
                        "The callback of a message of topic {topic} failed",
                        topic=put.message.topic,
                    )
        elif future is None or self._is_called(future):
            pass  # cancelled by the sender
        elif result is not None:
            self._fire(future, result)
        elif error is not None:
            self._api.reject(future, error)
        if self._ending:
            self._note_idle()

    def _attempt(self, put: Put) -> None:
        """Send a message: its pause is over, or there is room."""
        if self._in_order:
            self._lanes.attempt(put)
        else:
            self.attempt(put)

    def attempt(self, put: Put) -> BrokerConnection | None:
        """See ``lanes.Sender``."""
        try:
            broker = self.select(put)
            self._request(put, broker)
        except Exception as error:  # also whatever a selector raises
            self._runtime.call_soon(self.failed, put, error)
            return None
        return broker

    # -- waiting

    def _admit(self) -> None:
        """Send the messages that wait for room, as far as there is room."""
        waiting = self._waiting
        while waiting:
            put = waiting[0]
            if self._outstanding and self._outstanding + put.cost > self._max_outstanding:
                return
            waiting.popleft()
            self._outstanding += put.cost
            if self._in_order:
                self._lanes.enter(put)
            else:
                self._attempt(put)
        self._room.pulse()

    def _expire(self, queue: deque[Put], counted: int) -> None:
        """
        A broker did not answer: messages that have waited for others as long as their own time
        limit fail, so that they do not wait for the same again.

        :param counted: 1 if they are part of ``_outstanding``.
        """
        now = self._runtime.seconds()
        while queue and queue[0].since + self._retrying.patience(queue[0]) <= now:
            put = queue.popleft()
            self._outstanding -= put.cost * counted
            error = waited_in_vain(put.message.topic, put.partition, now - put.since)
            if put.attempts:
                put.attempts -= 1  # none was made since
                say_attempts(put, error)
            self._runtime.call_soon(self._resolve, put, None, error)

    def expire(self, waiting: deque[Put]) -> None:
        """See ``lanes.Sender``; messages in lanes are part of ``_outstanding``."""
        self._expire(waiting, 1)

    def _note_idle(self) -> None:
        if not self._outstanding and not self._waiting:
            self._idle.set()


def waited_in_vain(topic: str, partition: Partition | None, seconds: float) -> NotConnected:
    """The error for a message that was not sent because an earlier one got no answer."""
    return NotConnected(
        f"message of topic {topic} to partition {partition}: not sent, it waited {seconds:.1f} s"
        " behind others and the broker does not answer"
    )
