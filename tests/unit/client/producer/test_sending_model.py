"""Random sends, answers, outages and closes: every message meets one fate, order and bound hold."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from metamorphosis.client.model import Partition
from metamorphosis.client.producer.puts import OVERHEAD_BYTES
from metamorphosis.errors import MetaQError
from tests.support.producing import ProducingCase

MOST_UNDER_WAY = 4
STEPS = 120


class SendingModelTests(ProducingCase):
    """One broker with two partitions, which stores what it answers with 200."""

    def setUp(self) -> None:
        super().setUp()
        self.register(0, partitions=2)
        self.registered = True
        self.fates: dict[int, list[object]] = {}
        self.stored: dict[int, list[int]] = {0: [], 1: []}
        self.unanswered: list[Any] = []

    def send(self, sender: Any, number: int, chance: random.Random) -> None:
        """One message, whose fates are counted."""
        fates: list[object] = []
        self.fates[number] = fates
        partition = Partition(0, chance.randrange(2))
        future: Deferred[Any] = sender.send("test", b"%d" % number, partition=partition)
        future.addBoth(fates.append)

    def take(self) -> None:
        """What has arrived at the broker."""
        if any(link.open for link in self.runtime.links):
            self.unanswered += self.puts()

    def answer_one(self, status: int) -> None:
        """The oldest put, in the order of arrival."""
        self.take()
        if self.unanswered:
            put = self.unanswered.pop(0)
            if status == 200:
                self.stored[put.partition].append(int(put.body))
            self.answer(put, status, None if status == 200 else "no")

    def lose(self) -> None:
        """The connection breaks, with whatever is on it."""
        self.take()
        self.unanswered.clear()
        self.link().lose()

    def toggle(self) -> None:
        """The broker goes, or comes."""
        if self.registered:
            self.take()
            self.unanswered.clear()
            self.unregister(0)
        else:
            self.register(0, partitions=2)
        self.registered = not self.registered

    def step(self, sender: Any, number: int, chance: random.Random) -> None:
        """Something happens."""
        what = chance.random()
        if what < 0.4:
            self.send(sender, number, chance)
        elif what < 0.75:
            self.answer_one(chance.choice((200, 200, 200, 403, 500)))
        elif what < 0.80:
            self.lose()
        elif what < 0.85:
            self.toggle()
        elif what < 0.88:
            self.runtime.advance(chance.choice((1.0, 3.5)))
            self.unanswered.clear()  # they have timed out
        else:
            self.runtime.advance(chance.choice((0.0, 0.05, 0.2)))
        while self.runtime.attempts:
            self.runtime.accept()
        if sender._sending._outstanding > MOST_UNDER_WAY * (OVERHEAD_BYTES + 8):
            self.fail(f"{sender._sending._outstanding} bytes under way")

    def live(self, seed: int, in_order: bool, retries: int) -> Any:
        """A producer's life up to its end."""
        chance = random.Random(seed)
        sender = self.producer(
            "test",
            in_order=in_order,
            retries=retries,
            max_outstanding_bytes=MOST_UNDER_WAY * OVERHEAD_BYTES,
        )
        sender._create_future = Deferred
        for number in range(STEPS):
            self.step(sender, number, chance)
        if chance.random() < 0.5:
            for _ in range(60):
                self.runtime.advance(0.5)
                self.answer_one(200)
        closing = sender.close()
        ready = sender.ready()
        self.runtime.advance(10)
        self.runtime.result(closing)
        self.assertTrue(ready.called)
        return sender

    def check(self, seed: int, in_order: bool, retries: int) -> None:
        """What has to hold whatever happened."""
        sender = self.live(seed, in_order, retries)
        sending = sender._sending
        lanes, due = sending._lanes._lanes, sending._retrying._due
        left = sending._outstanding, len(sending._waiting), len(lanes), len(due)
        self.assertEqual((0, 0, 0, 0), left)
        confirmed = set()
        for number, fates in self.fates.items():
            self.assertEqual(1, len(fates), number)
            if isinstance(fates[0], Failure):
                self.assertIsInstance(fates[0].value, MetaQError)
            else:
                confirmed.add(number)
        stored = self.stored[0] + self.stored[1]
        self.assertEqual(set(), confirmed - set(stored))
        if in_order:
            for numbers in self.stored.values():
                self.assertEqual(sorted(numbers), numbers)


def _add(seed: int, in_order: bool, retries: int) -> None:
    """One test a seed, so that a failure names it."""

    def test(self: SendingModelTests) -> None:
        self.check(seed, in_order, retries)

    test.__doc__ = f"Seed {seed}, {'in order' if in_order else 'any order'}, {retries} retries."
    setattr(SendingModelTests, f"test_{seed}_{'ordered' if in_order else 'any'}_{retries}", test)


for _seed in range(12):
    for _in_order in (False, True):
        for _retries in (0, 3):
            _add(_seed, _in_order, _retries)
