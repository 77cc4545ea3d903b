"""
One consumer under random acks, rollbacks, seeks, failures, damage, restarts of its fetch loops and
listeners that take their time.

What must hold at every moment: a position covers only messages that were processed, or cannot be
read; and who acknowledges a message has got all those that this acknowledges. What must hold when
it has calmed down: every message after the last seek was processed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.delivery.assigning import AssignmentNews
from metamorphosis.client.delivery.delivery import PartitionDelivery
from metamorphosis.client.delivery.duplicates import DuplicateCache
from metamorphosis.client.delivery.iteration import Iteration
from metamorphosis.client.delivery.subscription import DeliveryRules, Subscription
from metamorphosis.client.fetch.fetching import Fetching
from metamorphosis.client.fetch.passing import PassedOverMessages
from metamorphosis.client.model import FetchTarget, Partition, Position, ReceivedMessage
from metamorphosis.client.network.connections import Connections
from metamorphosis.client.network.flow import Slots
from metamorphosis.client.settings import ClientConfig, ConsumerConfig
from metamorphosis.errors import InvalidState
from metamorphosis.message import HEADER
from metamorphosis.testing.runtime import MemoryRuntime
from tests.support.memorybroker import Log, MemoryBroker
from tests.support.seeds import seeds

STEPS = 120
NUMBERS = (0, 1)  # of the partitions
KINDS = ("one", "batch", "iteration")


class Partitioned:
    """
    What is true of one partition.

    :ivar ends: offset -> next offset, of every message.
    :ivar damaged: offsets of those that cannot be read.
    :ivar done: offsets of those that were processed.
    :ivar got: offsets of those that the user got, and did not send back.
    :ivar floor: what lies before it was skipped by a seek.
    """

    def __init__(self, number: int, log: Log) -> None:
        self.log = log
        self.position = Position("t", Partition(0, number), 0)
        self.ends: dict[int, int] = {}
        self.damaged: set[int] = set()
        self.done: set[int] = set()
        self.got: set[int] = set()
        self.floor = 0

    def missing(self, end: int, known: set[int]) -> list[int]:
        """Readable messages between the floor and ``end`` that are not known."""
        known = known | self.damaged
        return [each for each in self.ends if self.floor <= each < end and each not in known]


class Model:
    """
    The consumer, its broker and its user.

    :ivar violations: of what must hold at every moment.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.kind = self.chance.choice(KINDS)
        self.manual = self.chance.random() < 0.5
        self.violations: list[str] = []
        self.history: list[str] = [f"{self.kind} {'manual' if self.manual else 'automatic'}"]
        self.runtime = MemoryRuntime()
        self.broker = MemoryBroker(self.runtime, limit=self.chance.choice([9000, 1 << 20]))
        self.parts = {n: Partitioned(n, self.broker.log("t", n)) for n in NUMBERS}
        self.kept: list[ReceivedMessage] = []
        self.waiting: list[tuple[list[ReceivedMessage], Deferred[None]]] = []
        self.stopping: Any = None
        self.next: Any = None  # what the iteration will give
        self.held: ReceivedMessage | None = None  # what it gave last
        self.calm = False
        self._build()

    def _build(self) -> None:
        chance = self.chance
        slots = Slots(self.runtime, 1) if chance.random() < 0.3 else None
        cache = DuplicateCache(chance.choice([0, 4096]))
        self.rules = DeliveryRules(
            self.runtime, "g", self.runtime.log, 1 << 30, cache, lambda message: None, slots
        )
        listener = None if self.kind == "iteration" else self.listen
        wanted = Subscription(
            "t",
            chance.choice([60, 300, 1 << 20]),
            listener,
            batch=self.kind == "batch",
            auto_ack=not self.manual,
        )
        client = ClientConfig(broker="b:1", heartbeat_idle_ms=10**9)
        self.connections = Connections(self.runtime, client, self.runtime.log)
        config = ConsumerConfig(group="g", max_delay_fetch_time_ms=1000, stop_timeout_ms=5000)
        self.fetching = Fetching(
            self.runtime,
            self.connections,
            config,
            1 << 18,
            lambda position: PartitionDelivery(self.rules, wanted, position),
            self.runtime.log,
            PassedOverMessages(self.runtime, self.runtime.log),
            AssignmentNews(self.runtime, self.runtime.log, config, self.rules.calls),
        )
        self.iteration = Iteration(self.runtime, self.fetching.delivery_of)
        self.rules.outlet = self.iteration
        for _ in range(30):
            self.append()
        self.start()

    # -- the user

    def listen(self, given: Any) -> Deferred[None]:
        """Takes its time."""
        messages = given if self.kind == "batch" else [given]
        self.gets(messages)
        future: Deferred[None] = Deferred()
        if self.calm:
            self.finish(messages, future, None)
        else:
            self.waiting.append((messages, future))
        return future

    def gets(self, messages: list[ReceivedMessage]) -> None:
        """These are in the user's hands now."""
        for message in messages:
            self.part(message).got.add(message.offset)
            self.kept.append(message)

    def finish(
        self, messages: list[ReceivedMessage], future: Deferred[None], error: Exception | None
    ) -> None:
        """A listener's call is over."""
        if error is not None:
            future.errback(error)
            return
        if not self.manual:
            for message in messages:
                self.part(message).done.add(message.offset)
        future.callback(None)

    def part(self, message: ReceivedMessage) -> Partitioned:
        """The message's."""
        return self.parts[message.partition.number]

    def take(self) -> None:
        """Ask the iteration on."""
        if self.kind != "iteration" or self.next is not None:
            return
        if self.held is not None and not self.manual:
            self.part(self.held).done.add(self.held.offset)
        self.held = None
        self.next = self.runtime.start(self.iteration.__anext__())
        self.next.addCallback(self._taken)

    def _taken(self, message: ReceivedMessage) -> None:
        self.next = None
        self.held = message
        self.gets([message])

    # -- what happens

    def step(self) -> None:
        """One thing at random, and some time."""
        happens: list[Callable[[], None]] = [
            *[self.return_] * 6,
            *[self.take] * 6,
            *[self.ack] * 3,
            self.rollback,
            self.seek,
            self.restart,
            self.append,
            self.fail,
        ]
        chosen = self.chance.choice(happens)
        self.history.append(chosen.__name__)
        chosen()
        self.check(chosen.__name__)
        if self.chance.random() < 0.7:
            self.let(self.chance.choice([0, 0.1, 1]))
            self.check(f"time after {chosen.__name__}")

    def let(self, seconds: float) -> None:
        """Time passes, the broker answers."""
        self.runtime.advance(seconds)
        if self.chance.random() < 0.8 or self.calm:
            self.broker.serve()

    def append(self) -> None:
        """A message, or a damaged one."""
        part = self.parts[self.chance.choice(NUMBERS)]
        log, before = part.log, part.log.end
        size = self.chance.choice([1, 10, 100, 70000])
        if self.chance.random() < 0.05:
            log.data += HEADER.pack(size, 1, 7, 0) + b"?" * size
            part.damaged.add(before)
        else:
            log.append(b"x" * size, first_id=before + 1)
        part.ends[before] = log.end
        for asked in self.broker.held:  # long polls end
            self.broker._links[-1].receive(b"result 404 0 %d\r\n" % asked.opaque)
        self.broker.held.clear()

    def return_(self) -> None:
        """A listener comes to its end."""
        if self.waiting:
            index = self.chance.randrange(len(self.waiting))
            self.finish(*self.waiting.pop(index), None)

    def fail(self) -> None:
        """A listener fails, or the iteration's message is rolled back."""
        if self.waiting:
            self.finish(*self.waiting.pop(0), ValueError("no"))
        elif self.held is not None and not self.manual:
            message, self.held = self.held, None
            self.iteration.rollback(message)

    def ack(self) -> None:
        """Acknowledge something that was got."""
        if not self.manual or not self.kept:
            return
        message = self.chance.choice(self.kept[-20:])
        delivery = self.fetching.delivery_of("t", message.partition)
        if delivery is None:
            return
        part = self.part(message)
        missing = part.missing(message.next_offset, part.done | part.got)
        try:
            delivery.ack(message)
        except InvalidState:
            return
        if missing:
            self.violations.append(f"ack of {message.offset} acknowledges {missing}")
        part.done.update(each for each in part.got if each <= message.offset)

    def rollback(self) -> None:
        """Send back what is not acknowledged."""
        if not self.manual or not self.kept:
            return
        message = self.chance.choice(self.kept[-20:])
        delivery = self.fetching.delivery_of("t", message.partition)
        if delivery is None:
            return
        try:
            delivery.rollback(message)
        except InvalidState:
            return
        self.part(message).got.clear()

    def seek(self) -> None:
        """Go elsewhere."""
        part = self.parts[self.chance.choice(NUMBERS)]
        delivery = self.fetching.delivery_of("t", part.position.partition)
        if delivery is None or self.chance.random() < 0.5:
            return
        part.floor = self.chance.choice([*part.ends, part.log.end])
        part.got.clear()
        delivery.seek(part.floor)

    def start(self) -> None:
        """Fetch again."""
        url = "meta://b:1"
        self.fetching.start(FetchTarget(each.position, url) for each in self.parts.values())
        self.broker.accept()

    def restart(self) -> None:
        """As when a broker has another address."""
        if self.stopping is not None:
            return
        self.stopping = self.runtime.start(self.fetching.stop())
        self.stopping.addCallback(self._stopped)

    def _stopped(self, _: object) -> None:
        self.stopping = None
        for part in self.parts.values():
            part.got.clear()
        self.start()

    # -- what must hold

    def check(self, what: str) -> None:
        """At every moment."""
        for number, part in self.parts.items():
            missing = part.missing(part.position.offset, part.done)
            if missing:
                self.violations.append(f"{what}: {number} is at {part.position}, not {missing}")

    def settle(self) -> list[str]:
        """Everything goes well from now on; what is missing in the end."""
        self.calm = True
        while self.waiting:
            self.finish(*self.waiting.pop(0), None)
        for _ in range(400):
            self.append_nothing()
            self.take()
            self.let(0.1)
            if self.manual:
                for message in self.kept[-100:]:
                    self.ack_quietly(message)
        self.check("end")
        return [
            f"{number}: {missing}"
            for number, part in self.parts.items()
            if (missing := part.missing(part.log.end, part.done))
        ]

    def append_nothing(self) -> None:
        """Long polls end."""
        for asked in self.broker.held:
            self.broker._links[-1].receive(b"result 404 0 %d\r\n" % asked.opaque)
        self.broker.held.clear()

    def ack_quietly(self, message: ReceivedMessage) -> None:
        """If it still waits for that."""
        delivery = self.fetching.delivery_of("t", message.partition)
        try:
            if delivery is not None:
                delivery.ack(message)
                part = self.part(message)
                part.done.update(each for each in part.got if each <= message.offset)
        except InvalidState:
            pass


class FetchingModelTests(SynchronousTestCase):
    """Random lives."""

    def test_random_lives(self) -> None:
        """Nothing is skipped, and nothing acknowledged that was not processed."""
        for seed in seeds(60):
            model = Model(seed)
            for _ in range(STEPS):
                model.step()
            missing = model.settle()
            story = f"seed {seed}: {model.history}"
            self.assertEqual([], model.violations, story)
            self.assertEqual([], missing, story)
