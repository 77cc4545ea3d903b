"""
A group under random joins, leaves, crashes, lost and suspended sessions, slow and failing
ZooKeeper, listeners that take their time, topics and brokers that come and go.

What must hold at every moment: no two members whose sessions live read the same partition, and
nobody begins, or stores, after what somebody has processed. What must hold when it has calmed
down: every partition is read by the member to whom the strategy gives it, and claimed by it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.group.balancing import STRATEGIES, sort_as_java
from metamorphosis.client.group.committing import Key
from metamorphosis.client.model import Partition
from metamorphosis.client.offsets.zookeeper import parse_offset
from metamorphosis.cluster.model import WatchEvent
from metamorphosis.errors import RegistryUnavailable
from metamorphosis.testing.registry import MemoryRegistry
from tests.support.group import PATHS, Group, Member
from tests.support.seeds import seeds

STEPS = 60
CALM_SECONDS = 400.0  # a held listener, a patient retry and two audits


class SlowRegistry(MemoryRegistry):
    """
    Operations and watches take random times; some fail, some of these after they have happened.

    :ivar smooth: nothing fails any more.
    """

    def __init__(self, group: Group, chance: random.Random) -> None:
        super().__init__(group.tree)
        self.smooth = False
        self._chance = chance
        self._runtime = group.runtime

    def _run(self, operation: str, path: str, work: Callable[[], Any]) -> Deferred[Any]:
        def uncertain() -> Any:
            dice = 1.0 if self.smooth else self._chance.random()
            if dice < 0.01:
                raise RegistryUnavailable("refused by the dice")
            result = work()
            if dice < 0.02:
                raise RegistryUnavailable("done, but the answer was lost")
            return result

        self.hold()
        answer = super()._run(operation, path, uncertain)
        self._runtime.call_later(self._chance.uniform(0, 0.05), self._perform)
        return answer

    def _perform(self) -> None:
        if self._held:
            self._held.pop(0)[0]()

    def _watch(self, path: str, of_children: bool, watch: Any) -> None:
        if watch is None:
            return

        def later(event: WatchEvent) -> None:
            self._runtime.call_later(self._chance.uniform(0, 0.2), watch, event)

        super()._watch(path, of_children, later)


class Model:
    """
    The group, what happens to it, and what was seen.

    :ivar done: how far each partition was processed by anybody.
    :ivar ended: sessions that the server has ended.
    :ivar violations: of what must hold at every moment.
    """

    def __init__(self, seed: int) -> None:
        random.seed(seed)  # the pauses of the members
        self.chance = random.Random(seed)
        self.group = Group()
        self.strategy = self.chance.choice(sorted(STRATEGIES))
        self.members: list[Member] = []
        self.brokers: dict[int, MemoryRegistry] = {}
        self.done: dict[Key, int] = {}
        self.ended: set[int] = set()
        self.suspended: set[Member] = set()
        self.excused: dict[Member, set[Key]] = {}  # claims it does not know to be gone
        self.sessions: dict[Member, int] = {}  # in which a member began to read
        self.count = 0
        self.history: list[str] = []
        self.violations: list[str] = []
        self.start_broker()

    # -- what happens

    def step(self) -> None:
        """One thing at random, and some time."""
        self.chance.choice(
            [
                *[self.join] * 3,
                self.leave,
                self.crash,
                self.expire,
                self.suspend,
                *[self.resume] * 2,
                *[self.process] * 6,
                self.hold,
                *[self.let_go] * 2,
                self.start_broker,
                self.stop_broker,
                self.lose_claim,
            ]
        )()
        self.group.advance(self.chance.choice([0, 0.01, 0.1, 1, 3]))

    def join(self) -> None:
        """Add a member, of one topic or both."""
        if len(self.members) >= 6:
            return
        self.count += 1
        topics = self.chance.choice([["one"], ["two"], ["one", "two"]])
        member = self.group.member(
            f"m{self.count}",
            topics=topics,
            registry=SlowRegistry(self.group, self.chance),
            load_balance_strategy=self.strategy,
        )
        member.fetching.changed = lambda: self.check(member)
        self.members.append(member)
        member.join()
        member.registering.addErrback(lambda _: None)  # it goes on trying
        self.history.append(f"join m{self.count} {topics}")

    def pick(self) -> Member | None:
        """Any member."""
        return self.chance.choice(self.members) if self.members else None

    def leave(self) -> None:
        """A member goes in order."""
        member = self.pick()
        if member is not None and member not in self.suspended:
            member.fetching.let_go()
            self.members.remove(member)
            session = member.registry.session_id()
            member.leave().addCallback(lambda _: self.ended.add(session))
            self.history.append(f"leave {member.rebalance.consumer_id}")

    def crash(self) -> None:
        """A process dies; the server notices later."""
        member = self.pick()
        if member is not None:
            self.members.remove(member)
            self.suspended.discard(member)
            session = member.crash()
            member.rebalance._closing.set()
            self.group.runtime.call_later(self.chance.uniform(0, 30), self.end, session)
            self.history.append(f"crash {member.rebalance.consumer_id}")

    def end(self, session: int) -> None:
        """The server ends a session."""
        if session not in self.ended:
            self.ended.add(session)
            self.group.tree.end_session(session)

    def expire(self) -> None:
        """A member loses its session and gets another."""
        member = self.pick()
        if member is not None and member not in self.suspended:
            self.end(member.registry.session_id())
            member.registry.expire()
            self.history.append(f"expire {member.rebalance.consumer_id}")

    def suspend(self) -> None:
        """A member loses its connection."""
        member = self.pick()
        if member is not None and member not in self.suspended:
            self.suspended.add(member)
            member.registry.suspend()
            self.history.append(f"suspend {member.rebalance.consumer_id}")

    def resume(self) -> None:
        """A member gets its connection back, with or without its session."""
        if not self.suspended:
            return
        member = self.chance.choice(sorted(self.suspended, key=self.members.index))
        self.suspended.discard(member)
        if self.chance.random() < 0.5:
            self.end(member.registry.session_id())
            self.group.advance(self.chance.choice([0, 1, 5]))
            member.registry.lose()
        member.registry.resume()
        self.history.append(f"resume {member.rebalance.consumer_id}")

    def process(self) -> None:
        """A member processes something."""
        member = self.pick()
        if member is None or not member.fetching.reading:
            return
        key = self.chance.choice(sorted(member.fetching.reading))
        position = member.fetching.reading[key].position
        position.offset += self.chance.randrange(1, 100)
        position.modified = True
        self.done[key] = max(self.done.get(key, 0), position.offset)

    def hold(self) -> None:
        """A listener does not return."""
        member = self.pick()
        if member is not None:
            member.fetching.held = True

    def let_go(self) -> None:
        """All listeners return."""
        for member in self.members:
            member.fetching.let_go()

    def start_broker(self) -> None:
        """A broker with some partitions of each topic."""
        broker_id = self.chance.randrange(3)
        if broker_id not in self.brokers:
            one, two = self.chance.randrange(1, 13), self.chance.randrange(4)
            self.brokers[broker_id] = self.group.broker(broker_id, one=one, two=two)
            self.history.append(f"broker {broker_id}: {one} {two}")

    def stop_broker(self) -> None:
        """A broker goes, with its partitions."""
        if len(self.brokers) > 1:
            self.brokers.pop(self.chance.choice(sorted(self.brokers))).stop()
            self.history.append("broker stops")

    def lose_claim(self) -> None:
        """A claim is deleted by hand."""
        claims = [path for path in self.group.tree.nodes if "/owners/" in path and "-" in path]
        if not claims or self.chance.random() < 0.8:
            return
        path = self.chance.choice(sorted(claims))
        reader = self.group.data(path)
        self.group.tree.delete(path)
        self.history.append(f"deleted {path} of {reader}")
        topic, partition = path.split("/")[-2:]
        for member in self.members:
            if member.rebalance.consumer_id == reader:
                excused = self.excused.setdefault(member, set())
                excused.add((topic, Partition.parse(partition)))

    # -- what must hold

    def check(self, member: Member) -> None:
        """A partition begins or ends to be read."""
        for key, target in member.fetching.reading.items():
            offset = target.position.offset
            if offset > self.done.get(key, 0):
                self.violations.append(f"{key} begins at {offset}, processed {self.done.get(key)}")
        if member.fetching.reading and not self.sessions.get(member):
            self.sessions[member] = member.registry.session_id()
        if not member.fetching.reading:
            self.sessions[member] = 0
        if self.sessions[member] in self.ended:
            return  # it is being told, and stops
        for other in self.members:
            if other is member or self.sessions.get(other) in self.ended:
                continue
            both = member.fetching.reading.keys() & other.fetching.reading.keys()
            both -= self.excused.get(other, set()) | self.excused.get(member, set())
            if both:
                names = member.rebalance.consumer_id, other.rebalance.consumer_id
                self.violations.append(f"{sorted(both)} read by {names}")

    def calm_down(self) -> None:
        """Everything works again, for a long time."""
        while self.suspended:
            self.resume()
        self.let_go()
        for member in self.members:
            registry: Any = member.registry
            registry.smooth = True
        for _ in range(4):
            self.group.advance(CALM_SECONDS / 4)
            self.let_go()
            if not self.violations:
                self._check_reading_of_the_dead()

    def _check_reading_of_the_dead(self) -> None:
        """A member whose session has ended has stopped reading, or begun again in the next
        session."""
        for member in self.members:
            if member.fetching.reading and self.sessions[member] in self.ended:
                self.violations.append(f"{member.rebalance.consumer_id} reads without a session")

    def check_quiet(self) -> None:
        """Exactly the strategy's assignment is read and claimed, and no position is ahead of the
        work."""
        assert not self.violations, self.violations
        for topic in ("one", "two"):
            partitions = sorted(self._partitions(topic))
            consumers = sort_as_java(
                each.rebalance.consumer_id for each in self.members if topic in each.topics
            )
            claimed = {}
            for member in self.members:
                me = member.rebalance.consumer_id
                mine = STRATEGIES[self.strategy](me, consumers, partitions)
                read = sorted(str(part) for name, part in member.fetching.reading if name == topic)
                assert sorted(mine) == read, f"{me} reads {read} of {topic} instead of {mine}"
                claimed.update(dict.fromkeys(mine, me))
            owners = self.group.owners(topic)
            assert claimed == owners, f"claims of {topic}: {owners} instead of {claimed}"
        for member in self.members:
            for (topic, partition), target in member.fetching.reading.items():
                stored = parse_offset(self.group.offset(str(partition), topic) or "0")[1]
                offset = target.position.offset
                # more is stored where the one before it could still do that
                assert stored >= offset, f"{topic} {partition} at {offset}, stored at {stored}"
                done = self.done.get((topic, partition), 0)
                assert stored <= done, f"{topic} {partition} stored at {stored}, done {done}"

    def _partitions(self, topic: str) -> set[str]:
        directory = PATHS.topics_sub(topic)
        found: set[str] = set()
        for name in self.group.tree.nodes[directory].children:
            count = int((self.group.data(f"{directory}/{name}") or "").split(":")[1].split(",")[0])
            found.update(f"{name.split('-')[0]}-{number}" for number in range(count))
        return found


class ModelTests(SynchronousTestCase):
    """Many short lives."""

    def run_model(self, seed: int, steps: int = STEPS) -> None:
        """One life."""
        model = Model(seed)
        try:
            for _ in range(steps):
                model.step()
            model.calm_down()
            model.check_quiet()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}; {model.history}") from error
        failures = model.group.runtime.log.texts("failure")
        self.assertEqual([], failures, f"seed {seed}")

    def test_random_lives(self) -> None:
        """Two strategies, forty seeds."""
        for seed in seeds(40):
            self.run_model(seed)
