"""Random accidents in random order, from a seed; in the end everything is right."""

from __future__ import annotations

import random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cluster.model import Broker, TopicRegistration
from metamorphosis.cluster.nodes import BrokerNodes
from metamorphosis.cluster.paths import Paths
from metamorphosis.cluster.registration import BrokerRegistration, RegistrationStatus
from metamorphosis.errors import RegistryError, RegistryUnavailable
from metamorphosis.testing.registry import MemoryRegistry, MemoryTree

BROKER = Broker(0, "10.1.1.1", 8123)
NODES = BrokerNodes(Paths(), BROKER)
FOREIGN_NODES = BrokerNodes(Paths(), Broker(0, "10.9.9.9", 8123))
TOPICS = ("a", "b", "c")
SEEDS = 150
STEPS = 40


class Story:
    """A broker, a tree and everything that may happen to them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.tree = MemoryTree()
        self.connected = False
        self.dead: list[int] = []  # sessions of crashed runs that have not expired
        self.foreign: dict[str, int] = {}  # nodes of another broker with our id
        self.foreign_session = 0x900000
        self.checksum = 1
        self.topics: dict[str, TopicRegistration] = {}
        self.begin()

    def begin(self) -> None:
        """A run of the broker."""
        self.registry = MemoryRegistry(self.tree, reachable=False)
        self.connected = False
        self.registration = BrokerRegistration(
            self.registry, self.clock, Paths(), BROKER, self.checksum
        )
        self.registration.start(self.topics.values())
        self.registry.start()

    def step(self) -> None:
        """One accident or one wish."""
        names = [name for name in dir(self) if name.startswith("do_")]
        getattr(self, self.random.choice([*names, "do_connect", "do_connect", "do_heal"]))()
        self.clock.advance(self.random.choice([0, 0, 0.05, 1, 6]))

    def do_connect(self) -> None:
        """The connection comes."""
        if not self.connected:
            self.connected = True
            self.registry.resume()

    def do_suspend(self) -> None:
        """The connection goes."""
        if self.connected:
            self.connected = False
            self.registry.suspend()

    def do_expire(self) -> None:
        """The session ends and the next begins."""
        if self.connected:
            self.registry.expire()

    def do_lose(self) -> None:
        """The session ends and no other begins yet."""
        if self.registry.session_id():
            self.connected = False
            self.registry.lose()

    def do_hold(self) -> None:
        """ZooKeeper stops answering."""
        if self.connected:
            self.registry.hold()

    def do_release(self) -> None:
        """ZooKeeper answers again."""
        self.registry.release()

    def do_faults(self) -> None:
        """Some operations fail, before or after they happened."""
        dice = random.Random(self.random.random())

        def fault(operation: str, path: str) -> Exception | None:
            if dice.random() > 0.2:
                return None
            if operation == "create" and dice.random() < 0.3 and self.registry.session_id():
                data = b"%d" % dice.randrange(3)
                if path not in self.tree.nodes:
                    self.tree.create(path, data, self.registry.session_id())
                return RegistryUnavailable("lost answer")
            return dice.choice([RegistryError("no"), RegistryUnavailable("no")])

        self.registry.faults = fault

    def do_heal(self) -> None:
        """Operations work again."""
        self.registry.faults = lambda operation, path: None

    def do_topic(self) -> None:
        """A topic's first message."""
        topic = TopicRegistration(self.random.choice(TOPICS), 1)
        self.topics.setdefault(topic.topic, topic)
        self.registration.register_topic(topic)

    def do_reload(self) -> None:
        """Another partition count, other flags, another checksum."""
        name = self.random.choice(TOPICS)
        flags = [self.random.random() < 0.7 for _ in range(2)]
        self.topics[name] = TopicRegistration(name, self.random.randrange(1, 4), *flags)
        self.checksum += 1
        self.registration.update_topics([self.topics[name]])
        self.registration.set_checksum(self.checksum)

    def do_crash(self) -> None:
        """The process dies and is started again; its session stays for a while."""
        session = self.registry.crash()
        if session:
            self.dead.append(session)
        for call in self.clock.getDelayedCalls():
            call.cancel()
        self.begin()

    def do_end_of_dead(self) -> None:
        """A dead run's session expires."""
        if self.dead:
            self.tree.end_session(self.dead.pop(0))

    def do_foreign(self) -> None:
        """Another broker with our id takes the nodes that are free."""
        wanted = [(FOREIGN_NODES.own, FOREIGN_NODES.url)]
        wanted += FOREIGN_NODES.of_topic(TopicRegistration(self.random.choice(TOPICS), 7))
        for path, data in wanted:
            if path not in self.tree.nodes:
                self.tree.create(path, data, self.foreign_session)
                self.foreign[path] = self.foreign_session

    def do_foreign_end(self) -> None:
        """The other broker's session ends."""
        session, self.foreign_session = self.foreign_session, self.foreign_session + 1
        self.foreign.clear()
        self.tree.end_session(session)

    def do_stolen(self) -> None:
        """A node of ours is deleted by hand; it is noticed with the next connection."""
        mine = [p for p, n in self.tree.nodes.items() if n.owner == self.registry.session_id() != 0]
        if mine:
            self.do_suspend()
            self.tree.delete(self.random.choice(mine))

    def settle(self) -> None:
        """Faults and other brokers end, and some time passes."""
        self.do_heal()
        self.do_release()
        self.do_foreign_end()
        while self.dead:
            self.do_end_of_dead()
        self.do_connect()
        self.clock.pump([1.0] * 12)

    def expected(self) -> dict[str, bytes]:
        """Every ephemeral node there should be."""
        nodes = {NODES.own: NODES.url, NODES.checksum: b"%d" % self.checksum}
        for topic in self.topics.values():
            nodes |= {path: data for path, data in NODES.of_topic(topic) if data is not None}
        return nodes


class RandomStoryTests(SynchronousTestCase):
    """The same invariants after every step of every story."""

    def test_stories(self) -> None:
        """Nodes of others are never touched; in the end ours are complete and of one session."""
        blocked = 0
        for seed in range(SEEDS):
            story = Story(seed)
            for number in range(STEPS):
                story.step()
                where = f"seed {seed}, step {number}"
                for path, owner in story.foreign.items():
                    node = story.tree.nodes.get(path)
                    self.assertEqual(node and node.owner, owner, f"{path}, {where}")
                blocked += story.registration.status is RegistrationStatus.BLOCKED
            story.settle()
            self.assertIs(story.registration.status, RegistrationStatus.REGISTERED, f"seed {seed}")
            session = story.registry.session_id()
            found = {p: n.data for p, n in story.tree.nodes.items() if n.owner == session}
            self.assertEqual(found, story.expected(), f"seed {seed}")
            self.assertEqual(story.tree.nodes[NODES.parent].data, NODES.url, f"seed {seed}")
            self.successResultOf(story.registration.stop())
            self.assertEqual([n for n in story.tree.nodes.values() if n.owner], [], f"seed {seed}")
            self.assertEqual(story.clock.getDelayedCalls(), [], f"seed {seed}")
        self.assertGreater(blocked, SEEDS)  # the stories do meet the other broker
