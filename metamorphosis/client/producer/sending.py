"""
The way of messages from ``send`` to their brokers: who may go, who waits, who is tried again.

What is under way is bounded in bytes; others wait for room, first come, first served. In order,
each partition has a *lane*, whose first message alone is under way.

In order, a message that no partition could be chosen for waits in a lane of its topic, and those
that follow it wait behind it: nobody knows yet whom they would overtake.

Nothing here is done per message that is not needed for it; waiting, lanes and pauses cost those who
use them.

Source: ``SimpleMessageProducer``.

Differs: the original makes one attempt, and has no bound but that of the sockets. Ours tries for
two minutes unless a number of attempts is asked for, and leaves brokers that are not connected out.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from metamorphosis.client.checks import require
from metamorphosis.client.model import ANY_PARTITION, OutgoingMessage, Partition, SendResult
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.flow import Event
from metamorphosis.client.network.links import Log
from metamorphosis.client.network.opaques import next_opaque
from metamorphosis.client.producer.puts import Put, put_frame
from metamorphosis.client.topics.directory import PartitionDirectory, PublishedTopic
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

RETRY_SECONDS: Final = 0.1
"""Before the first repeated attempt; doubled for each further one."""
RETRY_SECONDS_MOST: Final = 1.0
DOUBLINGS: Final = 8


class Sending:
    """
    The ``Owner`` of a producer's puts. Thread: the loop's.

    :param retries: further attempts after the first; None: as many as there is time for.
    :param budget: seconds after which a message is given up, whatever the number of attempts.
    :param in_order: one message of a partition at a time.
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
        self._api = runtime.api
        self._is_called = runtime.api.is_called
        self._fire = runtime.api.resolve
        self._directory = directory
        self._topics = directory.topics
        self._selector = selector
        self._retries = retries
        self._budget = budget
        self._by_key = isinstance(selector, KeyHashSelector | OrderedSelector)
        self._in_order = in_order
        self._max_outstanding = max_outstanding
        self._outstanding = 0  # cost of what is under way, lanes and pauses included
        self._waiting: deque[Put] = deque()  # for room
        # The first one is under way; without a partition: one is looked for.
        self._lanes: dict[tuple[str, Partition | None], deque[Put]] = {}
        self._paused: dict[Put, Exception] = {}  # before a repeated attempt
        self._due: dict[float, tuple[Any, list[Put]]] = {}  # when, to 10 ms: timer, attempts
        self._room = Event(runtime)
        self._idle = Event(runtime)
        self._ending = False

    @property
    def is_full(self) -> bool:
        """A new message would wait."""
        return bool(self._waiting)

    def ready(self) -> Any:
        """A future that fires when nobody waits for room."""
        if self._waiting:
            self._room.clear()
        else:
            self._room.set()
        return self._room.wait()

    async def end(self) -> None:
        """Try nothing again, and wait for the fate of what there is."""
        self._ending = True
        for timer, _ in self._due.values():
            timer.cancel()
        paused, self._paused, self._due = self._paused, {}, {}
        for put, error in paused.items():
            self._give_up(put, error)
        self._note_idle()
        await self._idle.wait()

    def submit(self, put: Put) -> None:
        """
        Take a new message in.

        :raises Exception: it has failed already.
        """
        broker: BrokerConnection | None = None
        if not self._stands_behind(put):
            try:
                broker = self.select(put)
            except NoPartition as error:
                if self._retries == 0 or not error.retriable:
                    raise
        cost = put.cost
        if self._waiting or self._outstanding + cost > self._max_outstanding and self._outstanding:
            put.since = self._runtime.seconds()
            self._waiting.append(put)
        elif self._in_order:
            self._outstanding += cost
            self._enter_lane(put)
        elif broker is None:
            self._outstanding += cost
            self._attempt(put)
        else:
            self._request(put, broker)
            self._outstanding += cost

    def _stands_behind(self, put: Put) -> bool:
        """Whether a partition for an earlier message of the topic is still being looked for."""
        lanes = self._lanes
        return bool(lanes) and put.partition is None and (put.message[0], None) in lanes

    def select(self, put: Put) -> BrokerConnection:
        """
        Choose partition and broker, or the broker of the partition that was chosen before.

        :raises NoPartition: there is none. What the selector raises goes through.
        """
        topic = put.message[0]
        published = self._topics.get(topic)
        if published is None or not published.partitions:
            require("topic", topic, InvalidMessage)
            published = self._directory.topic_for(topic)
        partition = put.partition
        if partition is None or put.attempts and not put.pinned:
            partition = put.partition = self._choose(published, put.message)
            put.pinned = self._in_order
        broker = published.brokers.get(partition[0])
        if broker is None:
            if published.partitions[0] is not ANY_PARTITION:
                raise self._directory.unregistered(topic, partition)
            broker = published.brokers[ANY_PARTITION.broker_id]
        return broker

    def _choose(self, published: PublishedTopic, message: OutgoingMessage) -> Partition:
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
        frame = put_frame(put.message[0], partition[1], put.body, put.flag, opaque)
        broker.request(opaque, frame, put.answered, put.timeout)

    # -- fates

    def stored(self, put: Put, result: SendResult) -> None:
        """See ``Owner``."""
        self._outstanding -= put.cost
        if self._in_order:
            self._leave_lane(put)
        if self._waiting:
            self._admit()
        self._resolve(put, result, None)

    def failed(self, put: Put, error: Exception) -> None:
        """See ``Owner``."""
        if not getattr(error, "outcome_known", True):
            put.unsure = True
        if getattr(error, "retriable", False) and not self._ending and self._has_time(put, error):
            self._try_again(put, error)
        else:
            self._give_up(put, error)

    def _has_time(self, put: Put, error: Exception) -> bool:
        """Whether there is to be another attempt."""
        if self._retries is not None and put.attempts >= self._retries:
            return False
        now = self._runtime.seconds()
        if not put.deadline:
            # Of the call of ``send``, which is not noted for each message: it cost more than it is
            # worth.
            began = put.since or now - (put.timeout if isinstance(error, RequestTimeout) else 0.0)
            put.deadline = began + self._budget
        return bool(now + _pause(put) < put.deadline)

    def _give_up(self, put: Put, error: Exception) -> None:
        if put.attempts and isinstance(error, MetaQError):
            _say_attempts(put, error)
        self._outstanding -= put.cost
        late = isinstance(error, RequestTimeout)
        if self._in_order:
            self._leave_lane(put, late)
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
            except Exception:
                self._log.failure(
                    "The callback of a message of topic {topic} failed", topic=put.message.topic
                )
        elif self._is_called(future):
            pass  # cancelled by the sender
        elif error is None:
            self._fire(future, result)
        else:
            self._api.reject(future, error)
        if self._ending:
            self._note_idle()

    def _try_again(self, put: Put, error: Exception) -> None:
        delay = _pause(put)
        put.attempts += 1
        self._paused[put] = error
        when = round(self._runtime.seconds() + delay, 2)
        due = self._due.get(when)
        if due is None:
            timer = self._runtime.call_later(delay, self._pause_over, when)
            due = self._due[when] = timer, []
        due[1].append(put)

    def _pause_over(self, when: float) -> None:
        """What failed together is tried together, in the same order."""
        for put in self._due.pop(when)[1]:
            del self._paused[put]
            self._attempt(put)

    def _attempt(self, put: Put) -> None:
        """Its pause is over, its turn in the lane has come, or there is room for it."""
        if self._in_order:
            unplaced = self._lanes.get((put.message[0], None))
            if unplaced is not None and unplaced[0] is put:
                self._place(put.message[0], unplaced)
                return
        try:
            self._request(put, self.select(put))
        except Exception as error:  # also whatever a selector raises
            self._runtime.call_soon(self.failed, put, error)

    def _place(self, topic: str, unplaced: deque[Put]) -> None:
        """Move messages from the lane without a partition to those of their partitions."""
        while unplaced:
            put = unplaced[0]
            try:
                self.select(put)
            except Exception as error:  # also whatever a selector raises
                if put.partition is None:
                    self._runtime.call_soon(self.failed, put, error)
                    return
            unplaced.popleft()
            if not unplaced:
                del self._lanes[topic, None]
            self._enter_lane(put)

    # -- waiting

    def _admit(self) -> None:
        """Let those in who wait for room."""
        waiting = self._waiting
        while waiting:
            put = waiting[0]
            if self._outstanding and self._outstanding + put.cost > self._max_outstanding:
                return
            waiting.popleft()
            self._outstanding += put.cost
            if self._in_order:
                self._enter_lane(put)
            else:
                self._attempt(put)
        self._room.pulse()

    def _enter_lane(self, put: Put) -> None:
        key = put.message.topic, put.partition
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = deque((put,))
            self._attempt(put)
        else:
            put.since = self._runtime.seconds()
            lane.append(put)

    def _leave_lane(self, put: Put, late: bool = False) -> None:
        """The first of the lane met its fate: the next one's turn."""
        key = put.message.topic, put.partition
        lane = self._lanes.get(key)
        if lane is None or lane[0] is not put:
            return
        lane.popleft()
        if late:
            self._expire(lane, 1)
        if lane:
            self._attempt(lane[0])
        else:
            del self._lanes[key]

    def _expire(self, queue: deque[Put], counted: int) -> None:
        """
        A broker did not answer: those who have waited behind others for their own time limit are
        not to wait for the same again.

        :param counted: 1 if they are part of ``_outstanding``.
        """
        now = self._runtime.seconds()
        while queue and queue[0].since + self._patience(queue[0]) <= now:
            put = queue.popleft()
            self._outstanding -= put.cost * counted
            error = waited_in_vain(put.message.topic, put.partition, now - put.since)
            self._runtime.call_soon(self._resolve, put, None, error)

    def _patience(self, put: Put) -> float:
        """How long a message waits behind others, seconds."""
        return self._budget if self._retries is None else put.timeout

    def _note_idle(self) -> None:
        if not self._outstanding and not self._waiting:
            self._idle.set()


def _pause(put: Put) -> float:
    """Before the next attempt, seconds."""
    return min(RETRY_SECONDS * 2.0 ** min(put.attempts, DOUBLINGS), RETRY_SECONDS_MOST)


def _say_attempts(put: Put, error: MetaQError) -> None:
    """The last error stands for all attempts: their number, and what is known of the outcome."""
    error.args = (f"{error}; given up after {put.attempts + 1} attempts",)
    if put.unsure and error.outcome_known:
        error.args = (f"{error}, of which an earlier one may have stored the message",)
        error.outcome_known = False


def waited_in_vain(topic: str, partition: Partition | None, seconds: float) -> NotConnected:
    """The error for a message that was not sent because those before it got no answer."""
    return NotConnected(
        f"message of topic {topic} to partition {partition}: not sent, it waited {seconds:.1f} s"
        " behind others and the broker does not answer"
    )
