"""The broker is killed while clients run transactions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.faults.transactionkills import TransactionKillRun
from tests.support.knowledge import Known, KnownTransaction, block_stands

KILLS = 20
SEED = 20260102


class TransactionKillTests(SynchronousTestCase):
    """``kill -9`` at random moments; ``make transaction-kills`` does this 500 times."""

    timeout = 600

    def test_kills_under_load(self) -> None:
        """Each transaction is stored once and completely, or not at all, or is prepared and
        listed."""
        run = TransactionKillRun(self.mktemp(), SEED)
        self.addCleanup(run.broker.kill)
        run.broker.start()
        for _ in range(KILLS):
            run.kill_once()
        self.assertGreater(run.committed, KILLS)
        self.assertGreater(run.listed, 0)


class KnowledgeTests(SynchronousTestCase):
    """The checks of those runs detect every fault."""

    def transaction(self, known: Known) -> KnownTransaction:
        """One with messages."""
        made = KnownTransaction("XID:1:aa:bb:q")
        made.known = known
        made.bodies = {0: [b"a", b"b"]}
        return made

    def test_outcomes(self) -> None:
        """The allowed outcomes for each state of knowledge."""
        for known, stored, listed in (
            (Known.COMMITTED, False, False),
            (Known.COMMITTED, False, True),
            (Known.PREPARED, False, False),
            (Known.PREPARED, True, False),
            (Known.ROLLED_BACK, True, False),
            (Known.OPEN, True, False),
            (Known.DECIDING, False, False),
            (Known.DECIDING, True, True),
        ):
            with self.assertRaises(AssertionError):
                self.transaction(known).judge({stored}, listed)
        with self.assertRaises(AssertionError):
            self.transaction(Known.COMMITTING).judge({True, False}, False)

    def test_seen_once(self) -> None:
        """An outcome that was seen once is known."""
        transaction = self.transaction(Known.COMMITTING)
        transaction.judge({True}, False)
        with self.assertRaises(AssertionError):
            transaction.judge({False}, False)

    def test_blocks(self) -> None:
        """A complete block, an absent one, a torn one."""

        def stands(*there: bytes) -> bool:
            places = {body: index for index, body in enumerate(there)}
            return block_stands(list(there), places, [b"a", b"b"])

        self.assertTrue(stands(b"x", b"a", b"b", b"y"))
        self.assertFalse(stands(b"x", b"y"))
        for torn in ((b"a",), (b"b",), (b"a", b"x", b"b"), (b"b", b"a")):
            with self.assertRaises(AssertionError):
                stands(*torn)
