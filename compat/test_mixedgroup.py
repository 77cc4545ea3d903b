"""
Consumers of the original and of ours in one group: they share all partitions without overlap, take
over from each other in any way a member can leave, and no message is lost.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections import Counter
from typing import Any, NamedTuple

from kazoo.exceptions import NoNodeError

from compat.clientcase import ClientCase, name, wait_until
from compat.samples import Sample, outcome, samples, send
from metamorphosis.client.group.balancing import assign_by_ring, sort_as_java
from tests.support import peers, zookeeper

PARTITIONS = 6
BATCH = 60
SESSION_MS = 2000
"""Of the members: so long the others wait for one that was killed."""
SETTLE_SECONDS = 40.0
TOPICS = ("handover", "killed", "expired", "strategy")


class Member(NamedTuple):
    """A consumer in a process."""

    driver: peers.Driver
    factory: str
    consumer: str
    call: peers.Call


_pythons: dict[tuple[str, int], peers.PythonDriver] = {}


def python(face: str, number: int = 0) -> peers.PythonDriver:
    """A process with our client, shared by the tests unless they have killed it."""
    found = _pythons.get((face, number))
    if found is None or found.process.poll() is not None:
        found = _pythons[face, number] = peers.PythonDriver(directory(), face)
    return found


def directory() -> str:
    """For a driver; removed at the end."""
    made = tempfile.mkdtemp(prefix="metamorphosis-driver-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


class MixedGroupBehaviour(ClientCase):
    """Each test has a topic of six partitions and a group of its own."""

    topic: str

    def setUp(self) -> None:
        """A broker and a producer."""
        topics = {each: {"numPartitions": PARTITIONS} for each in TOPICS}
        self.broker = self.kind(self.mktemp(), zookeeper.shared(), f"/{name('mixedgroup')}", topics)
        self.broker.start()
        self.addCleanup(self.broker.kill)
        self.members: list[Member] = []
        self.sent: set[Any] = set()
        self.group = name("mixed")
        self.topic = self._testMethodName.rpartition("_")[2]
        self.producing = self.producer(self.factory(self.broker), self.topic)

    # Members

    def join(self, driver: peers.Driver, **settings: str) -> Member:
        """A consumer more."""
        factory, consumer = name("factory"), name("consumer")
        driver.call(
            "open",
            factory=factory,
            zookeeper=self.broker.zookeeper.connect_string,
            root=self.broker.root,
            timeout=SESSION_MS,
        )
        call = driver.call(
            "consume",
            factory=factory,
            consumer=consumer,
            group=self.group,
            topic=self.topic,
            **settings,
        )
        member = Member(driver, factory, consumer, call)
        self.members.append(member)
        self.addCleanup(self.gone, member)
        return member

    def leave(self, member: Member) -> None:
        """In order."""
        member.driver.call("stop-consumer", consumer=member.consumer)
        member.driver.call("close", factory=member.factory)

    def gone(self, member: Member) -> None:
        """Close a member at the end of the test, however it ended."""
        if member.driver.process.poll() is None:
            try:
                member.driver.call("close", factory=member.factory)
            except peers.CallFailed:
                pass  # it left

    # The group

    def nodes(self, *path: str) -> dict[str, tuple[str, int]]:
        """The group's nodes there: data and session."""
        client = self.broker.zookeeper.client()
        try:
            parent = "/".join((f"{self.broker.root}/consumers/{self.group}", *path))
            found = {}
            for each in client.get_children(parent):
                data, stat = client.get(f"{parent}/{each}")
                found[each] = (data.decode(), stat.ephemeralOwner)
            return found
        except NoNodeError:
            return {}
        finally:
            client.stop()
            client.close()

    def shares(self) -> list[int]:
        """How many partitions each owner has."""
        owners = self.nodes("owners", self.topic).values()
        return sorted(Counter(owner for owner, _ in owners).values())

    def assertShared(self, *expected: int) -> None:
        """The partitions are owned in these shares, by running members."""
        wait_until(lambda: self.shares() == list(expected), f"shares of {expected}", SETTLE_SECONDS)
        owners = {owner for owner, _ in self.nodes("owners", self.topic).values()}
        self.assertEqual(owners, set(self.nodes("ids")))

    def assertRing(self, members: int) -> None:
        """The partitions are owned as the hash ring of this number of members says."""
        names = [f"0-{number}" for number in range(PARTITIONS)]

        def right() -> bool:
            ids = sort_as_java(self.nodes("ids"))
            expected = {p: me for me in ids for p in assign_by_ring(me, ids, names)}
            owners = {p: owner for p, (owner, _) in self.nodes("owners", self.topic).items()}
            return len(ids) == members and owners == expected

        wait_until(right, f"the shares of {members} members", SETTLE_SECONDS)

    def session(self, member: Member) -> int | None:
        """The session of a member, whose id contains its process."""
        pid = f"-{member.driver.process.pid}-"
        return next((at for each, (_, at) in self.nodes("ids").items() if pid in each), None)

    # Messages

    def send(self) -> list[Sample]:
        """A batch, to all partitions."""
        batch = samples(name("batch"), BATCH)
        self.assertSent(send(peers.driver(), self.producing, self.topic, batch), BATCH)
        self.sent |= {message.outcome for message in batch}
        return batch

    def received(self) -> Counter[Any]:
        """The messages of all members together, ended ones included."""
        return Counter(
            outcome(event) for member in self.members for event in member.call.named("message")
        )

    def assertNothingLost(self) -> None:
        """Every sent message arrives."""
        wait_until(lambda: set(self.received()) == self.sent, "everything arrives", SETTLE_SECONDS)

    def assertFlows(self, *members: Member) -> None:
        """While no member joins or leaves, each message arrives once, and every one of these
        members receives some."""
        before = [len(member.call.named("message")) for member in members]
        batch = self.send()
        self.assertNothingLost()
        counts = self.received()
        self.assertEqual({counts[message.outcome] for message in batch}, {1})
        got = [len(m.call.named("message")) - n for m, n in zip(members, before, strict=True)]
        self.assertEqual(sum(got), BATCH)
        self.assertGreater(min(got), 0)

    # Tests

    def test_join_and_leave_handover(self) -> None:
        """Java alone, then with one of ours, then with two; Java leaves and returns; ours leave.
        After each change all partitions are owned and positions are handed over; after an orderly
        leave no message is repeated."""
        java = self.join(peers.driver(1))
        self.assertShared(6)
        self.send()
        ours = self.join(python("tx"))
        self.assertShared(3, 3)
        self.assertNothingLost()
        self.assertFlows(java, ours)
        third = self.join(python("aio"))
        self.assertShared(2, 2, 2)
        self.assertFlows(java, ours, third)
        self.leave(java)
        self.assertShared(3, 3)
        self.assertFlows(ours, third)
        java = self.join(peers.driver(1))
        self.assertShared(2, 2, 2)
        self.assertFlows(java, ours, third)
        self.leave(ours)
        self.leave(third)
        self.assertShared(6)
        self.assertFlows(java)
        self.assertEqual(set(self.received().values()), {1})

    def test_consistent_hash_strategy(self) -> None:
        """With the other strategy all members compute the same shares, however uneven."""
        java = self.join(peers.driver(1), strategy="CONSIST")
        for members, face in ((2, "tx"), (3, "aio")):
            self.join(python(face), strategy="CONSIST")
            self.assertRing(members)
            self.send()
            self.assertNothingLost()
        self.assertEqual(set(self.received().values()), {1})
        self.leave(java)
        self.assertRing(2)
        self.send()
        self.assertNothingLost()

    def test_kill_9_of_either_killed(self) -> None:
        """A member that is killed is replaced when its session has expired: ours, then Java."""
        java_process = peers.JavaDriver(directory())
        self.addCleanup(java_process.end)
        java = self.join(java_process)
        ours = self.join(python("aio", 1))
        self.assertShared(3, 3)
        self.assertFlows(java, ours)
        self.send()
        ours.driver.end()
        self.send()
        self.assertShared(6)
        self.assertNothingLost()
        self.assertFlows(java)
        ours = self.join(python("tx", 1))
        self.assertShared(3, 3)
        self.send()
        java.driver.end()
        self.send()
        self.assertShared(6)
        self.assertNothingLost()
        self.assertFlows(ours)

    def test_session_of_either_expired(self) -> None:
        """A member whose session expires joins again with a new session, and the group is complete
        again."""
        java, ours = self.join(peers.driver(1)), self.join(python("tx"))
        self.assertShared(3, 3)
        for member in (ours, java):
            self.send()
            old = self.session(member)
            assert old is not None
            self.broker.zookeeper.expire(old)
            wait_until(
                lambda: self.session(member) not in (None, old), "a new session", SETTLE_SECONDS
            )
            self.assertShared(3, 3)
            self.assertNothingLost()
            self.assertFlows(java, ours)


class JavaBrokerTests(MixedGroupBehaviour):
    """On the original broker."""

    skip = peers.missing()
    kind = peers.JavaBroker


class OurBrokerTests(MixedGroupBehaviour):
    """On ours."""

    skip = peers.missing()
    kind = peers.OurBroker


del MixedGroupBehaviour
