"""What ``resolve`` makes of a branch that cannot get its outcome, and of an administrator's."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.transactions.coordinator import Resolution, Step
from metamorphosis.client.transactions.resolving import finish
from metamorphosis.client.transactions.xa import (
    XA_RBOTHER,
    XAER_NOTA,
    XAER_RMERR,
    XAER_RMFAIL,
    Xid,
)
from metamorphosis.errors import RequestTimeout, XAError
from tests.unit.client.transactions.test_coordinator import URL, CoordinatorCase, Crash

A = Xid(5, b"a", b"")


class Refusing:
    """A resource that refuses both ends with one code."""

    def __init__(self, code: int) -> None:
        self._code = code

    def commit(self, xid: Xid) -> None:
        """No."""
        raise XAError(self._code, "no")

    rollback = commit


class FinishTests(SynchronousTestCase):
    """One branch."""

    def test_refused(self) -> None:
        """Neither end is taken for done."""
        for commit in (True, False):
            self.assertRaises(XAError, finish, Refusing(XAER_RMERR), A, commit)

    def test_rolled_back_there(self) -> None:
        """That is what a rollback wants, and no commit."""
        self.assertTrue(finish(Refusing(XA_RBOTHER), A, False))
        self.assertRaises(XAError, finish, Refusing(XA_RBOTHER), A, True)

    def test_not_there(self) -> None:
        """It is said to whoever has seen it in a list."""
        for commit in (True, False):
            self.assertFalse(finish(Refusing(XAER_NOTA), A, commit))


class LeftTests(CoordinatorCase):
    """Branches that cannot get their outcome now."""

    def next_life(self) -> None:
        """As ``again``, before ``resolve``."""
        self.crash_at = None
        self.coordinator.close()
        for each in (self.messages, self.database):
            each.ended()
        self.coordinator = self.begin()
        self.steps.clear()

    def test_refused(self) -> None:
        """It is named with the reason, counts as nothing that was done, and is tried again."""
        self.crash_at = Step.MESSAGES_PREPARED
        self.assertRaises(Crash, self.run_one)
        self.next_life()
        refused = XAError(XAER_RMERR, "disk full"), False
        self.messages.faults[len(self.messages.calls) + 2] = refused  # behind "recover"
        found = self.coordinator.resolve()
        (branch,) = self.messages.prepared
        self.assertEqual(Resolution((), (), {str(branch): "disk full"}), found)
        self.assertEqual([], self.steps)
        found = self.coordinator.resolve()
        self.assertEqual(Resolution((), (branch.gtrid.decode(),)), found)
        self.assertBoth(0)

    def test_brokers_cannot_be_asked(self) -> None:
        """The brokers of decided transactions are named, without any the messages; decisions are
        kept."""
        name = f"{self.coordinator.decisions.name}-1"
        for decisions, what in (({}, "messages"), ({name: URL}, URL)):
            for each in decisions.items():
                self.coordinator.decisions.commit(*each)
            away = XAError(XAER_RMFAIL, "no broker can be asked"), False
            self.messages.faults[len(self.messages.calls) + 1] = away
            found = self.coordinator.resolve()
            self.assertEqual(Resolution((), (), {what: "no broker can be asked"}), found)
            self.assertEqual(decisions, self.coordinator.decisions.committed())

    def test_broker_has_moved(self) -> None:
        """Its branch is found at another address: the decision need not wait for the old one."""
        self.crash_at = Step.DECIDED
        self.assertRaises(Crash, self.run_one)
        self.next_life()
        self.messages.failed = {URL: RequestTimeout("away")}
        found = self.coordinator.resolve()
        self.assertEqual({URL: "away"}, dict(found.left))
        self.assertBoth(1)
