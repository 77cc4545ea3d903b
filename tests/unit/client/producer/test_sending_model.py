"""
Random sends and lists, answers, outages and closes: every message meets one fate, order and bound
hold; with brokers that keep the order of requests, and with others.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from metamorphosis.client.model import OutgoingMessage, Partition
from metamorphosis.client.producer.puts import OVERHEAD_BYTES
from metamorphosis.errors import MetaQError
from metamorphosis.wire.commands import PutCommand
from tests.support.producing import ProducingCase

MOST_UNDER_WAY = 8
STEPS = 120
BURST = 6
STALL = 45.0


class SendingModel(ProducingCase):
    """One broker with two partitions, which stores what it answers with 200."""

    def setUp(self) -> None:
        super().setUp()
        self.register(0, partitions=2)
        self.registered = True
        self.fates: dict[int, list[object]] = {}
        self.stored: dict[int, list[int]] = {0: [], 1: []}
        self.unanswered: list[Any] = []
        self.keeps_order = False
        self.repeats = False
        self.lists = False

    def choose(self, chance: random.Random) -> Partition | None:
        """The partition that a sender names; None: the selector chooses, or the broker."""
        return Partition(0, chance.randrange(2)) if chance.random() < 0.6 else None

    def send(self, sender: Any, number: int, chance: random.Random) -> None:
        """One message, whose fates are counted."""
        fates: list[object] = []
        self.fates[number] = fates
        options: dict[str, Any] = {"partition": self.choose(chance)}
        if self.keeps_order:
            options["timeout"] = STALL - 5  # only what is lost gets no answer in time
        future: Deferred[Any] = sender.send("test", b"%d" % number, **options)
        future.addBoth(fates.append)

    def send_some(self, sender: Any, numbers: range, chance: random.Random) -> None:
        """A list, whose fates are counted one by one."""
        partition = self.choose(chance)
        fates = [self.fates.setdefault(number, []) for number in numbers]

        def tell(found: Any) -> None:
            if isinstance(found, Failure):
                failed: Any = found.value
                found = [
                    Failure(each) if isinstance(each, Exception) else each
                    for each in failed.outcomes
                ]
            for each, fate in zip(fates, found, strict=True):
                each.append(fate)

        some = [OutgoingMessage("test", b"%d" % number) for number in numbers]
        options: dict[str, Any] = {"timeout": STALL - 5} if self.keeps_order else {}
        sender.send_many(some, partition=partition, **options).addBoth(tell)

    def take(self) -> None:
        """What has arrived at the broker."""
        if any(link.open for link in self.runtime.links):
            for command in self.commands():
                if isinstance(command, PutCommand):
                    self.unanswered.append(command)
                elif self.keeps_order:
                    self.say_order(command)

    def store(self, put: PutCommand) -> None:
        """Where it says; if that is nowhere, in any partition. Of repeats only the first counts."""
        if not self.repeats or int(put.body) not in self.stored[0] + self.stored[1]:
            number = put.opaque % 2 if put.partition < 0 else put.partition
            self.stored[number].append(int(put.body))

    def lose_answers(self, chance: random.Random) -> None:
        """The broker has executed some of what has arrived, and its answers do not come."""
        if self.repeats:
            for put in self.unanswered[: chance.randrange(len(self.unanswered) + 1)]:
                self.store(put)
        self.unanswered.clear()

    def answer_one(self, status: int) -> None:
        """The oldest put, in the order of arrival."""
        self.take()
        if self.unanswered:
            put = self.unanswered.pop(0)
            if status == 200:
                self.store(put)
            self.answer(put, status, None if status == 200 else "no")

    def lose(self, chance: random.Random) -> None:
        """The connection breaks, with whatever is on it."""
        self.take()
        self.lose_answers(chance)
        self.link().lose()

    def toggle(self, chance: random.Random) -> None:
        """The broker goes, or comes; one that keeps the order leaves out no request alone."""
        if self.direct:
            self.lose(chance)
        elif self.registered:
            self.take()
            if not self.keeps_order:
                self.unanswered.clear()
            self.unregister(0)
            if self.keeps_order and chance.random() < 0.5:
                self.lose(chance)
        else:
            self.register(0, partitions=2)
        self.registered = not self.registered

    def step(self, sender: Any, number: int, chance: random.Random) -> None:
        """Something happens."""
        what = chance.random()
        if what < 0.4:
            first = number * BURST
            some = chance.randrange(1, BURST) if self.keeps_order or self.lists else 1
            if self.lists and chance.random() < 0.5:
                self.send_some(sender, range(first, first + some), chance)
            else:
                for more in range(some):
                    self.send(sender, first + more, chance)
        elif what < 0.75:
            self.answer_one(chance.choice((200, 200, 200, 403, 500)))
        elif what < 0.80:
            self.lose(chance)
        elif what < 0.85:
            self.toggle(chance)
        elif what < 0.88:
            self.runtime.advance(STALL if self.keeps_order else chance.choice((1.0, 3.5)))
            if self.keeps_order:
                self.lose(chance)  # no request is left out alone
            else:
                self.lose_answers(chance)  # they have timed out
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
        for _ in range(2 * MOST_UNDER_WAY):
            self.runtime.advance(STALL)
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


class SendingModelTests(SendingModel):
    """Brokers come and go in ZooKeeper."""


class DirectModelTests(SendingModel):
    """The one broker chooses the partition where a sender names none."""

    direct = True


def _add(case: type[SendingModel], seed: int, kind: str, retries: int) -> None:
    """One test a seed, so that a failure names it."""

    def test(self: SendingModel) -> None:
        self.keeps_order = kind.startswith("pipelined")
        self.lists = kind.endswith("lists")
        self.repeats = kind == "pipelined_repeats"
        self.check(seed, not kind.startswith("any"), retries)

    test.__doc__ = f"Seed {seed}, {kind}, {retries} retries."
    setattr(case, f"test_{seed}_{kind}_{retries}", test)


ORDERED = ("ordered", "pipelined", "pipelined_lists", "pipelined_repeats")

for _seed in range(8):
    for _retries in (0, 3):
        for _kind in ("any", "any_lists", *ORDERED):
            _add(SendingModelTests, _seed, _kind, _retries)
        for _kind in ORDERED:
            _add(DirectModelTests, _seed, _kind, _retries)
