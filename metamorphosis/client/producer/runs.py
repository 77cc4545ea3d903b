"""
Runs: messages of a list that go to one broker together.

All frames of a run are made and handed to the connection at once, and its messages have no ``Put``
each: what they share is in the run, and an answer that says stored becomes a result at once. A
message that meets anything else gets its ``Put`` then, and goes on as if it had been sent alone.
"""

from __future__ import annotations

from itertools import repeat
from typing import Protocol

from metamorphosis.client.model import ANY_PARTITION, OutgoingMessage, Partition, SendResult
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.opaques import next_opaques
from metamorphosis.client.network.replies import SUCCESS
from metamorphosis.client.producer.many import MessageList, Outcomes
from metamorphosis.client.producer.puts import (
    OVERHEAD_BYTES,
    Owner,
    Put,
    frame_of,
    place_of,
    token_of,
)
from metamorphosis.client.topics.published import PublishedTopic
from metamorphosis.message import ATTRIBUTE_FLAG

RUN_BYTES = 1 << 16
"""Of the bodies of a run, about: the broker begins with them while the next run is made."""


class RunOwner(Owner, Protocol):
    """The producer of a list."""

    def published(self, topic: str) -> PublishedTopic:
        """Its brokers and partitions, or raise."""

    def choose(self, published: PublishedTopic, message: OutgoingMessage) -> Partition:
        """Choose a partition, or raise."""

    def broker_of(
        self, published: PublishedTopic, partition: Partition, topic: str
    ) -> BrokerConnection:
        """The broker of a partition, or raise."""

    def unplaced(self, put: Put, error: Exception) -> None:
        """A message has no partition or no broker."""

    def attempt(self, put: Put) -> object:
        """Send a message by itself."""

    def landed(self, outcomes: Outcomes, index: int, result: SendResult, cost: int) -> None:
        """The broker has a message of the list."""


class Run:
    """
    Messages of a list that go to one broker. Thread: the loop's.

    :param topic: as it is sent.
    :ivar partitions: of the messages, by their index in the list, in the order of their frames.
    """

    __slots__ = (
        "_broker",
        "_indices",
        "_outcomes",
        "_owner",
        "_places",
        "_some",
        "_topic",
        "partitions",
    )

    def __init__(
        self,
        owner: RunOwner,
        broker: BrokerConnection,
        topic: bytes,
        some: MessageList,
        outcomes: Outcomes,
    ) -> None:
        self.partitions: dict[int, Partition] = {}
        self._owner = owner
        self._broker = broker
        self._indices: dict[int, int] = {}  # by opaque
        self._topic = topic
        self._some = some
        self._outcomes = outcomes
        self._places: dict[int, Partition] = {}  # those that answers have named, by number

    def send(self) -> None:
        """
        Make all frames and hand them to the connection.

        :raises Exception: nothing was sent: one of the frames cannot be made.
        """
        partitions = self.partitions
        messages, bodies = self._some.messages, self._some.bodies
        opaques = next_opaques(len(partitions))
        made = map(
            frame_of,
            repeat(self._topic),
            [each[1] for each in partitions.values()],
            [bodies[each] for each in partitions],
            [0 if messages[each][2] is None else ATTRIBUTE_FLAG for each in partitions],
            opaques,
        )
        frames = dict(zip(opaques, made, strict=True))
        self._indices = dict(zip(opaques, partitions, strict=True))
        self._broker.request_all(frames, self._answered, self._some.timeout)

    def _answered(self, status: int, body: bytes, opaque: int) -> None:
        """The ``Waiter`` of each message."""
        index = self._indices[opaque]
        try:
            place = place_of(body) if status == SUCCESS else None
        except ValueError:
            place = None
        if place is None:
            put = self.put(index)
            put.answered(status, body, opaque)
            return
        message_id, number, offset = place
        partition = self._places.get(number)
        if partition is None:
            broker_id = self.partitions[index][0]
            partition = self._places[number] = Partition(broker_id, number)
        result = _new(SendResult, (message_id, partition, offset))
        cost = len(self._some.bodies[index]) + OVERHEAD_BYTES
        self._owner.landed(self._outcomes, index, result, cost)

    def put(self, index: int) -> Put:
        """A message of the run by itself, which has had this attempt, or has it now."""
        put = self._some.put(index, self._outcomes.callback(index))
        put.partition = self.partitions[index]
        put.broker = self._broker
        return put


class _Route:
    """
    Where the messages of a topic go while a list is taken in.

    :ivar runs: what has come together, by broker.
    """

    __slots__ = ("published", "runs", "topic")

    def __init__(self, published: PublishedTopic, topic: bytes) -> None:
        self.published = published
        self.topic = topic
        self.runs: dict[int, Run] = {}


class Runs:
    """The runs of one list while it is taken in. Thread: the loop's."""

    def __init__(self, owner: RunOwner, some: MessageList, outcomes: Outcomes) -> None:
        self._owner = owner
        self._some = some
        self._outcomes = outcomes
        self._routes: dict[str, _Route] = {}
        self._most = max(1, RUN_BYTES * len(some.bodies) // (sum(map(len, some.bodies)) + 1))

    def take(self, count: int) -> None:
        """Send the first so many messages of the list; the owner has counted them."""
        if self._some.topics == 1 and self._take_fixed(count):
            return
        messages, given, choose = self._some.messages, self._some.partition, self._owner.choose
        topic: str | None = None
        for index in range(count):
            message = messages[index]
            name = message[0]
            try:
                if name is not topic:
                    topic = None
                    route = self._routes.get(name) or self._begin_route(name)
                    topic = name
                partition = given or choose(route.published, message)
                run = route.runs.get(partition[0]) or self._begin_run(route, partition, name)
            except Exception as error:  # selectors may raise anything
                self._send_all()
                put = self._some.put(index, self._outcomes.callback(index))
                self._owner.unplaced(put, error)
                continue
            run.partitions[index] = partition
            if len(run.partitions) >= self._most:
                del route.runs[partition[0]]
                self._send(run)
        self._send_all()

    def _take_fixed(self, count: int) -> bool:
        """Send messages of one partition without a loop over them; False: they have several."""
        try:
            topic = self._some.messages[0][0]
            route = self._begin_route(topic)
            partition = self._some.partition
            if partition is None:
                partition = route.published.partitions[0]
                if partition is not ANY_PARTITION:
                    return False
            broker = self._owner.broker_of(route.published, partition, topic)
        except Exception:
            return False  # the loop in ``take`` gives this error to each message
        for first in range(0, count, self._most):
            run = Run(self._owner, broker, route.topic, self._some, self._outcomes)
            indices = range(first, min(first + self._most, count))
            run.partitions = dict.fromkeys(indices, partition)
            self._send(run)
        return True

    def _begin_route(self, topic: str) -> _Route:
        route = _Route(self._owner.published(topic), token_of(topic))
        self._routes[topic] = route
        return route

    def _begin_run(self, route: _Route, partition: Partition, topic: str) -> Run:
        broker = self._owner.broker_of(route.published, partition, topic)
        run = Run(self._owner, broker, route.topic, self._some, self._outcomes)
        route.runs[partition[0]] = run
        return run

    def _send_all(self) -> None:
        for route in self._routes.values():
            runs, route.runs = route.runs, {}
            for run in runs.values():
                self._send(run)

    def _send(self, run: Run) -> None:
        try:
            run.send()
        except Exception:  # one of its messages cannot be sent: by itself it gets its error
            for index in run.partitions:
                self._owner.attempt(run.put(index))


_new = tuple.__new__
