"""The attempts of a member to balance: their pauses, and the lines of those that fail."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from metamorphosis.client.group import audit, balance, rebalance
from metamorphosis.client.group.membership import Contested
from metamorphosis.client.model import Partition
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.cluster.ownership import Occupied
from metamorphosis.errors import NotEmpty, RegistryUnavailable
from tests.support.group import PATHS, Member
from tests.unit.client.group.test_rebalance import RebalanceCase


class PauseTests(RebalanceCase):
    """The times of the attempts; what is random is as long as it can be."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(rebalance.random, "uniform", lambda least, most: most)
        self.attempts: list[float] = []

    def failing(self, name: str = "a") -> Member:
        """A member whose attempts fail in ZooKeeper."""
        member = self.group.member(name)

        def fail(operation: str, path: str) -> Exception | None:
            if operation == "create" and "/ids/" in path:
                self.attempts.append(round(self.group.runtime.seconds(), 3))
                return NotEmpty("strange")
            return None

        member.registry.faults = fail
        return member

    def test_failures(self) -> None:
        """Each pause is twice the one before, up to the sync time."""
        member = self.failing()
        member.join()
        self.group.advance(30)
        self.failureResultOf(member.registering, NotEmpty)
        pauses = [b - a for a, b in zip(self.attempts, self.attempts[1:], strict=False)]
        first = rebalance.FIRST_RETRY_SECONDS
        least = rebalance.LEAST_PAUSE_SECONDS
        expected = [min(first * 2**n, 5.0) + least for n in range(len(pauses))]
        self.assertEqual([round(each, 3) for each in expected], [round(n, 3) for n in pauses])
        self.assertGreater(len(pauses), 5)

    def test_error_of_the_registration(self) -> None:
        """The third failure is told, and the member goes on."""
        member = self.failing()
        member.join()
        while not member.registering.called:
            self.group.advance(0.01)
        self.failureResultOf(member.registering, NotEmpty)
        self.assertEqual(3, len(self.attempts))

    def test_changes_without_end(self) -> None:
        """A member that is woken all the time tries twenty times a second at most."""
        member = self.failing()
        fail = member.registry.faults

        def changing(operation: str, path: str) -> Exception | None:
            if len(self.attempts) < 1000:
                member.rebalance.refresh()
            return fail(operation, path)

        member.registry.faults = changing
        member.join()
        self.group.advance(1.01)
        self.assertEqual(21, len(self.attempts))
        member.registry.faults = lambda operation, path: None
        self.group.advance(30)
        member.registering.addErrback(lambda _: None)

    def test_audits(self) -> None:
        """Others are woken at the second audit that finds a partition without a claim."""
        self.foreign("/meta/consumers/g/ids/g_java", b"test")
        self.group.joined("a")
        self.group.advance(balance.AUDIT_SECONDS - 1 - self.group.runtime.seconds())
        self.assertEqual([], self.log.texts("warn"))
        waking = []
        for _ in range(3):
            self.group.advance(audit.WAKE_SECONDS * 0.9)
            waking.append(len(self.group.ids()) > 2)
        self.assertEqual([False, True, False], waking)
        text = "Group g: unclaimed partitions: test 0-2, test 0-3; waking all members"
        self.assertEqual([text], self.log.texts("warn"))

    def test_contested(self) -> None:
        """Three attempts release everything for a claim that is not free, the next one is content
        with the rest; so it is again after a balance that succeeded."""
        member = self.group.joined("a")
        for broker_id in (1, 2):
            owner = self.foreign(PATHS.owner("g", "test", f"{broker_id}-0"), b"g_x")
            self.log.lines.clear()
            self.group.broker(broker_id, test=1)
            self.group.advance(60)
            failed = ["not balanced yet" in text for text in self.log.texts("info")]
            self.assertEqual([False, *[True] * balance.RELEASING_TRIES, False], failed[:5])
            self.assertIn("(attempt 7)", self.log.texts("warn")[0], "from now on it is unusual")
            owner.stop()
            self.group.advance(10)
            self.assertIn(f"{broker_id}-0", member.reads())

    def test_contested_claim_that_is_free_meanwhile(self) -> None:
        """A node that is gone before it is watched is claimed without a pause."""
        path = PATHS.owner("g", "test", "1-0")
        owner = self.foreign(path, b"g_x")
        member = self.group.joined("a")

        def stop(operation: str, place: str) -> None:
            if (operation, place) == ("exists", path):
                owner.stop()

        member.registry.faults = stop
        self.group.broker(1, test=1)
        self.group.advance(rebalance.LEAST_PAUSE_SECONDS)
        self.assertIn("1-0", member.reads())

    def test_nodes_of_others(self) -> None:
        """What another member has, or got from this one, is left alone from then on."""
        owner = self.foreign(PATHS.owner("g", "test", "0-0"), b"g_x")
        member = self.group.member("a")
        member.join()
        member.registering.addErrback(lambda _: None)
        self.group.advance(60)
        self.assertEqual(["0-1", "0-2", "0-3"], member.reads())
        self.group.joined("b")
        self.assertEqual(["0-1"], member.reads())
        member.registry.calls.clear()
        self.result(member.leave())
        touched = {path[-3:] for _, path in member.registry.calls if "/owners/" in path}
        self.assertEqual({"0-1"}, touched)
        owner.stop()

    def test_soonest_audit(self) -> None:
        """After half of the longest time."""
        self.patch(rebalance.random, "uniform", lambda least, most: least)
        self.group.joined("a")
        self.group.tree.delete(PATHS.owner("g", "test", "0-1"))
        self.group.advance(balance.AUDIT_SECONDS - self.group.runtime.seconds() - 0.1)
        self.assertNotIn("0-1", self.group.owners())
        self.group.advance(0.2)
        self.assertEqual("g_a", self.group.owners()["0-1"])

    def test_waking_that_stays(self) -> None:
        """A node that could not be removed goes with the member."""
        self.foreign("/meta/consumers/g/ids/g_java", b"test")
        member = self.group.joined("a")
        member.registry.faults = lambda operation, path: (
            RegistryUnavailable("no") if operation == "delete" and "g_wake-" in path else None
        )
        self.group.advance(balance.AUDIT_SECONDS)
        self.assertEqual(3, len(self.group.ids()))
        member.registry.faults = lambda operation, path: None
        self.result(member.runtime.start(member.rebalance.unregister()))
        self.assertEqual(["g_java"], list(self.group.ids()))


class LeavingTests(RebalanceCase):
    """The end of a member during an attempt."""

    def test_while_positions_are_loaded(self) -> None:
        """The attempt ends before: it does not begin to read what was given up."""

        class Slow(MemoryOffsetStore):
            """Answers when the test does."""

            def load(self, topic: str, group: str, partition: Partition) -> Any:
                """See ``IOffsetStore``."""
                waiting.append(Deferred())
                return waiting[-1]

        waiting: list[Deferred[None]] = []
        member = self.group.member("a", store=Slow())
        member.join()
        leaving = member.leave()
        self.group.advance(1)
        self.assertNoResult(leaving)
        self.assertEqual(4, len(waiting))
        for each in waiting:
            each.callback(None)
        self.group.advance(1)
        self.result(leaving)
        self.result(member.registering)
        self.assertEqual([], member.reads())
        self.assertEqual(({}, {}), (self.group.ids(), self.group.owners()))


class LineTests(RebalanceCase):
    """What an operator reads."""

    def test_contested(self) -> None:
        """The first node that is in the way, and the number of the others."""
        nodes = [Occupied(f"/owners/{name}", b"g_b", 0x1001) for name in "abc"]
        first = "/owners/a holds 'g_b' and belongs to session 0x1001"
        self.assertEqual(first, str(Contested(nodes[:1])))
        for count in (2, 3):
            self.assertEqual(f"{first} and {count - 1} more", str(Contested(nodes[:count])))

    def test_fetching_that_does_not_stop(self) -> None:
        """A member leaves all the same, and says so."""
        member = self.group.joined("a")

        async def fail(leaving: object = ()) -> None:
            raise ZeroDivisionError("on purpose")

        self.patch(member.fetching, "stop", fail)
        self.result(member.runtime.start(member.rebalance.unregister()))
        self.assertEqual(({}, {}), (self.group.ids(), self.group.owners()))
        text = "Group g: fetching did not stop: ZeroDivisionError on purpose"
        self.assertEqual([text], self.log.texts("failure"))
        self.log.lines.clear()

    def test_left_without_a_commit(self) -> None:
        """The messages that the next owner gets again are named."""
        member = self.group.joined("a")
        member.fetching.process("test", "0-3", 100)
        member.registry.faults = lambda operation, path: (
            RegistryUnavailable("no") if "/offsets/" in path else None
        )
        leaving = member.leave()
        self.group.advance(15)
        self.result(leaving)
        (line,) = self.log.texts("error")
        self.assertIn("given away: test 0-3 at offset 100, but 0 is stored", line)
