"""What an administrator sees of transactions, and does to them: T28 to T31, T48."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from metamorphosis.errors import InvalidArgument, JournalError
from metamorphosis.store.disk import Disk
from metamorphosis.transactions.administration import (
    AlreadyDecided,
    NotDecided,
    NotPrepared,
    TransactionAdministration,
    UnknownTransaction,
)
from metamorphosis.transactions.heuristiclog import Heuristic, parse_heuristic_log
from metamorphosis.transactions.views import RedoFileView
from metamorphosis.wire.transactionids import XATransactionId
from tests.unit.transactions.test_recovery import RecoveryTestCase
from tests.unit.transactions.test_redolog import BreakingDisk
from tests.unit.transactions.test_steps import LOCAL, XA, XA2

T = TypeVar("T")
XID = XATransactionId(1, b"\xaa", b"\xbb", "app")
NOBODY = "XID:9:00:00:nobody"


class AdministrationTestCase(RecoveryTestCase):
    """A broker with one prepared transaction."""

    def start(self, **settings: Any) -> None:
        """With its administration."""
        super().start(**settings)
        self.administration = TransactionAdministration(self.broker.service, self.broker.clock)

    def setUp(self) -> None:
        super().setUp()
        self.fill(XA, b"one", b"two")
        self.step(XA, "PREPARE")

    def done(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of what ends within the turn."""
        deferred = Deferred.fromCoroutine(work)
        self.broker.clock.advance(0)
        result: T = self.successResultOf(deferred)
        return result

    def refused(self, kind: type[Exception], work: Coroutine[Any, Any, object]) -> str:
        """Why something was not done."""
        deferred = Deferred.fromCoroutine(work)
        self.broker.clock.advance(0)
        return str(self.failureResultOf(deferred, kind).value)

    def remembered(self) -> dict[XATransactionId, Heuristic]:
        """What ``heuristic.log`` says."""
        return parse_heuristic_log(Path(self.journal, "heuristic.log").read_bytes())


class KnowingTests(AdministrationTestCase):
    """Lists and numbers."""

    def test_list(self) -> None:
        """Everything about a transaction, and only the state that was asked for."""
        self.broker.clock.advance(5)
        self.step(LOCAL, "BEGIN", 30)
        self.fill(XA2, b"open")
        self.broker.transactions.heuristic[XID] = Heuristic.ROLLED_BACK
        prepared, in_use, local, decided = self.administration.transactions()
        self.assertEqual(
            (XA, "xa", "prepared", 5, False, 2, ("test-0",), None, 1),
            (
                prepared.key,
                prepared.kind,
                prepared.state,
                prepared.age_seconds,
                prepared.recovered,
                prepared.messages,
                prepared.partitions,
                prepared.timeout_seconds,
                prepared.redo_file,
            ),
        )
        self.assertEqual(("in use", XA2), (in_use.state, in_use.key))
        self.assertEqual(
            ("local", "started", 30, None),
            (local.kind, local.state, local.timeout_seconds, local.redo_file),
        )
        self.assertEqual("heuristically rolled back", decided.state)
        for state, expected in (
            ("prepared", [prepared]),
            ("open", [in_use, local]),
            ("heuristic", [decided]),
        ):
            self.assertEqual(expected, self.administration.transactions(state))
        self.assertRaises(InvalidArgument, self.administration.transactions, "lost")

    def test_one(self) -> None:
        """By its key, however its digits are written."""
        self.assertEqual(2, self.administration.transaction(XA).messages)
        self.assertEqual(XA, self.administration.transaction(XA.replace("aa", "AA")).key)
        self.assertRaises(UnknownTransaction, self.administration.transaction, NOBODY)
        self.assertRaises(UnknownTransaction, self.administration.transaction, LOCAL)
        for key in ("nonsense", "XID:1", "", "XID:x:aa:bb:c"):
            self.assertRaises(InvalidArgument, self.administration.transaction, key)

    def test_recovered(self) -> None:
        """A transaction that was prepared before the start is marked; its age counts from the
        start."""
        self.restart()
        self.broker.clock.advance(7)
        (view,) = self.administration.transactions("prepared")
        self.assertTrue(view.recovered)
        self.assertLess(view.age_seconds or 0, 30)

    def test_journal(self) -> None:
        """Its files and numbers."""
        self.fill(XA2, b"open")
        self.broker.transactions.heuristic[XID] = Heuristic.COMMITTED
        view = self.administration.journal()
        size = Path(self.journal, "redo.1").stat().st_size
        self.assertEqual((RedoFileView(1, size, 1),), view.files)  # the open one has no record
        self.assertEqual((1, 1, 1, 1), (view.open, view.prepared, view.heuristic, view.flush_mode))
        self.assertEqual((None, 1 << 20), (view.broken, view.max_bytes))
        self.assertEqual(self.broker.transactions.open.bytes, view.bytes)
        self.assertEqual(1, view.forces)


class DecidingTests(AdministrationTestCase):
    """Outcomes by hand."""

    def test_t28_commit(self) -> None:
        """The messages are there, the manager is told until it forgets, over restarts."""
        view = self.done(self.administration.commit(XA))
        self.assertEqual("heuristically committed", view.state)
        self.assertEqual([b"one", b"two"], self.messages())
        self.assertEqual({XID: Heuristic.COMMITTED}, self.remembered())
        for _ in range(2):
            text = f"XA transaction '{XA}' has been heuristically committed."
            for kind in ("PREPARE", "COMMIT_ONE_PHASE", "COMMIT_TWO_PHASE", "ROLLBACK"):
                self.assertXa(self.step(XA, kind), 7, text)
            self.assertEqual([XA], self.recovered())
            self.restart()
        self.assertEqual([b"one", b"two"], self.messages())
        self.assertOk(self.step(XA, "FORGET"))
        self.assertEqual(([], {}), (self.recovered(), self.remembered()))
        self.assertIn("committed by hand", self.logged(LogLevel.warn)[-1])

    def test_t29_roll_back(self) -> None:
        """Nothing is visible."""
        view = self.done(self.administration.roll_back(XA))
        self.assertEqual("heuristically rolled back", view.state)
        self.restart()
        self.assertIn("code=6", self.step(XA, "COMMIT_TWO_PHASE")[1])
        self.assertEqual(([], [XA]), (self.messages(), self.recovered()))

    def test_t30_complete(self) -> None:
        """Is journaled as a rollback: listed once, never visible, also after a restart."""
        self.done(self.administration.complete(XA))
        self.assertEqual("XA_ROLLBACK", self.records()[-1])
        for _ in range(2):
            self.restart()
            self.assertIn("code=8", self.step(XA, "COMMIT_TWO_PHASE")[1])
            self.assertEqual(([], [XA]), (self.messages(), self.recovered()))
        self.done(self.administration.forget(XA))
        self.restart()
        self.assertEqual([], self.recovered())

    def test_refused(self) -> None:
        """Each for its reason, and nothing changes."""
        self.step(LOCAL, "BEGIN")
        self.fill(XA2, b"open")
        for decide in (
            self.administration.commit,
            self.administration.roll_back,
            self.administration.complete,
        ):
            self.assertIn("in use", self.refused(NotPrepared, decide(XA2)))
            self.refused(NotPrepared, decide(LOCAL))
            self.assertIn(NOBODY, self.refused(UnknownTransaction, decide(NOBODY)))
            self.refused(InvalidArgument, decide("nonsense"))
        self.done(self.administration.roll_back(XA))
        text = self.refused(AlreadyDecided, self.administration.commit(XA))
        self.assertIn("rolled back", text)
        self.refused(NotDecided, self.administration.forget(XA2))
        self.refused(UnknownTransaction, self.administration.forget(NOBODY))
        self.refused(UnknownTransaction, self.administration.forget(LOCAL))
        self.done(self.administration.forget(XA))
        self.refused(UnknownTransaction, self.administration.forget(XA))

    def test_while_a_client_commits(self) -> None:
        """The client was first."""
        self.broker.threads.hold()
        self.client.send(f"transaction {XA} s COMMIT_TWO_PHASE 7\r\n".encode())
        text = self.refused(NotPrepared, self.administration.roll_back(XA))
        self.assertIn("ending", text)
        self.broker.threads.release()
        self.broker.clock.advance(0)
        self.assertEqual([b"one", b"two"], self.messages())

    def test_used_again(self) -> None:
        """An xid whose outcome was decided may be used for another transaction."""
        self.done(self.administration.roll_back(XA))
        self.fill(XA, b"again")
        self.step(XA, "PREPARE")
        self.assertEqual("prepared", self.administration.transaction(XA).state)
        self.done(self.administration.commit(XA))
        self.assertEqual({XID: Heuristic.COMMITTED}, self.remembered())
        self.assertEqual([b"again"], self.messages())

    def test_checkpoint(self) -> None:
        """A new file once nothing needs the old one."""
        self.assertFalse(self.administration.checkpoint())
        self.done(self.administration.commit(XA))
        self.assertTrue(self.administration.checkpoint())
        self.assertEqual(["redo.2"], self.redo_names())
        self.assertFalse(self.administration.checkpoint())


class BrokenDiskTests(AdministrationTestCase):
    """The journal cannot be written while an administrator decides."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = BreakingDisk()
        self.restart(journal_disk=self.disk)

    def test_record(self) -> None:
        """It stays prepared; the text is one for people."""
        for decide in (self.administration.commit, self.administration.complete):
            self.disk.failing["write"] = 1
            text = self.refused(JournalError, decide(XA))
            self.assertIn("stays prepared", text)
            self.assertNotIn("XAException", text)
            self.assertEqual("prepared", self.administration.transaction(XA).state)
        self.done(self.administration.commit(XA))
        self.assertEqual([b"one", b"two"], self.messages())

    def test_store(self) -> None:
        """A commit that the store refuses."""
        self.patch(Disk, "free", lambda self, path: 10)
        text = self.refused(JournalError, self.administration.commit(XA))
        self.assertIn("No space left", text)
        self.assertNotIn("XAException", text)
        self.assertEqual("prepared", self.administration.transaction(XA).state)

    def test_memory_of_it(self) -> None:
        """It was decided; that it will be forgotten by the next start is said."""
        self.disk.failing["sync_directory"] = 1
        text = self.refused(JournalError, self.administration.roll_back(XA))
        self.assertIn("was rolled back, but", text)
        self.assertIn("code=6", self.step(XA, "COMMIT_TWO_PHASE")[1])

    def test_forget(self) -> None:
        """What cannot be written down is refused, and remembered as before, by file and broker."""
        self.done(self.administration.roll_back(XA))
        forget = f"transaction {XA} s FORGET 7\r\n".encode()
        for failing in ("overwrite", "write", "sync", "replace"):
            self.disk.failing[failing] = 1
            status, text = self.step(XA, "FORGET")
            self.assertEqual(500, status, failing)
            self.assertIn(f"XAException:code=-3,msg=Transaction '{XA}' cannot be jour", text)
            self.disk.failing[failing] = 1
            text = self.refused(JournalError, self.administration.forget(XA))
            self.assertIn("stays remembered", text)
            self.assertEqual([XA], self.recovered())
            self.assertEqual({XID: Heuristic.ROLLED_BACK}, self.remembered())
        self.broker.threads.hold()
        self.assertEqual(b"", self.client.send(forget), "answered before it is written")
        self.broker.threads.release()
        self.broker.clock.advance(0)
        self.assertEqual(b"result 200 0 7\r\n", self.client.received())
        self.restart()
        self.assertEqual(([], {}), (self.recovered(), self.remembered()))

    def test_forget_beside_a_decision(self) -> None:
        """A decision that waits for the write of a FORGET that fails is not written without it."""
        self.done(self.administration.roll_back(XA))
        self.fill(XA2, b"other")
        self.step(XA2, "PREPARE")
        self.broker.threads.hold()
        self.disk.failing["overwrite"] = 1
        self.client.send(f"transaction {XA} s FORGET 7\r\n".encode())
        decided = Deferred.fromCoroutine(self.administration.complete(XA2))
        self.broker.clock.advance(0)
        self.broker.threads.release()
        self.broker.clock.advance(0)
        self.successResultOf(decided)
        self.assertIn(b"result 500 ", self.client.received())
        self.assertEqual(
            {Heuristic.ROLLED_BACK, Heuristic.COMPLETED}, {*self.remembered().values()}
        )
        self.assertEqual({XA, XA2}, {*self.recovered()})
