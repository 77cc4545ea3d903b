"""Random outages and restarts of ordered producers: what was taken is stored, in order."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from metamorphosis.client.model import SendResult
from metamorphosis.client.producer.ordered import OrderedProducer
from metamorphosis.client.settings import ClientConfig
from tests.support.producing import ProducingCase
from tests.unit.client.producer.test_ordered import by_attribute

STEPS = 150


class OrderedModelTests(ProducingCase):
    """One broker with two partitions, which stores what it answers with 200."""

    def config(self, **settings: Any) -> ClientConfig:
        """With the configured partitions."""
        return super().config(**settings, partitions_info={"test": "0:2"})

    def setUp(self) -> None:
        super().setUp()
        self.register(0, partitions=2)
        self.registered = True
        self.sent: dict[int, list[tuple[int, list[Any]]]] = {0: [], 1: []}
        self.stored: dict[int, list[int]] = {0: [], 1: []}
        self.unanswered: list[Any] = []
        self.begin()

    def begin(self) -> None:
        """A process starts."""
        self.producer_ = OrderedProducer(self.session, by_attribute)
        publishing = self.producer_.publish("test")
        self.connect()
        self.runtime.advance(10.1)
        self.runtime.result(publishing)

    def restart(self) -> None:
        """It ends, and another one takes over its files."""
        closing = self.producer_.close()
        self.runtime.advance(10)
        self.unanswered.clear()
        self.runtime.result(closing)
        self.begin()

    def connect(self) -> None:
        """The broker accepts all connections."""
        while self.runtime.attempts:
            self.runtime.accept()

    def send(self, number: int, chance: random.Random) -> None:
        """One message, whose fates are noted."""
        partition = chance.randrange(2)
        fates: list[Any] = []
        self.sent[partition].append((number, fates))
        future: Deferred[Any] = self.producer_.send("test", b"%d" % number, f"0-{partition}")
        future.addBoth(fates.append)

    def take(self) -> None:
        """What has arrived at the broker."""
        if any(link.open for link in self.runtime.links):
            self.unanswered += self.puts()

    def answer_one(self, status: int) -> None:
        """The oldest put; an answer that comes too late is dropped."""
        self.take()
        if self.unanswered:
            put = self.unanswered.pop(0)
            if status == 200:
                self.stored[put.partition].append(int(put.body[7:]))
            self.answer(put, status, None if status == 200 else "no")

    def lose(self) -> None:
        """The connection breaks, with whatever is on it."""
        self.take()
        self.unanswered.clear()
        if self.runtime.links:
            self.link().lose()

    def toggle(self) -> None:
        """The broker goes, or comes."""
        self.take()
        self.unanswered.clear()
        if self.registered:
            self.unregister(0)
        else:
            self.register(0, partitions=2)
        self.registered = not self.registered

    def step(self, number: int, chance: random.Random) -> None:
        """Something happens."""
        what = chance.random()
        if what < 0.4:
            self.send(number, chance)
        elif what < 0.75:
            self.answer_one(chance.choice((200, 200, 200, 403, 500)))
        elif what < 0.78:
            self.lose()
        elif what < 0.84:
            self.toggle()
        elif what < 0.86:
            self.restart()
        else:
            self.runtime.advance(chance.choice((0.0, 0.1, 0.3)))
        self.connect()

    def finish(self) -> None:
        """The broker is back and takes everything; no send keeps waiting."""
        if not self.registered:
            self.toggle()
        for _ in range(3 * STEPS):
            self.producer_.recover()
            self.connect()
            self.answer_one(200)
            self.runtime.advance(0.2)

    def check(self, seed: int) -> None:
        """What has to hold whatever happened."""
        chance = random.Random(seed)
        for number in range(STEPS):
            self.step(number, chance)
        self.finish()
        for partition, sent in self.sent.items():
            self.assertEqual({1}, {len(fates) for _, fates in sent})
            taken = [number for number, fates in sent if isinstance(fates[0], SendResult)]
            failed = [fates[0] for _, fates in sent if isinstance(fates[0], Failure)]
            self.assertEqual(len(sent), len(taken) + len(failed))
            arrived = list(dict.fromkeys(self.stored[partition]))
            self.assertEqual(taken, [number for number in arrived if number in set(taken)])


def _add(seed: int) -> None:
    """One test a seed, so that a failure names it."""

    def test(self: OrderedModelTests) -> None:
        self.check(seed)

    test.__doc__ = f"Seed {seed}."
    setattr(OrderedModelTests, f"test_{seed}", test)


for _seed in range(16):
    _add(_seed)
