"""
The coordinator of two phases with resources in memory: each call of each of them fails in every
way, and the process ends at each step.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.model import Partition
from metamorphosis.client.transactions import coordinator as room
from metamorphosis.client.transactions.branches import Recovered
from metamorphosis.client.transactions.coordinator import Coordinator, Resolution, Step
from metamorphosis.client.transactions.decisionlog import DecisionLog
from metamorphosis.client.transactions.resolving import Pass
from metamorphosis.client.transactions.xa import (
    XA_HEURCOM,
    XA_HEURRB,
    XA_OK,
    XA_RBOTHER,
    XA_RDONLY,
    XAER_NOTA,
    XAER_RMERR,
    XAER_RMFAIL,
    Xid,
)
from metamorphosis.errors import (
    InvalidState,
    LocalStoreError,
    MetaQError,
    MixedOutcome,
    RequestTimeout,
    Unresolved,
    XAError,
)
from tests.unit.client.transactions.test_database import FakeServer

URL = "meta://b:1"


class Crash(BaseException):
    """The process ends."""


class Manager:
    """
    A resource manager in memory, in the place of a broker or a database.

    :ivar active: branches that are not prepared.
    :ivar prepared: branches that survive the process.
    :ivar done: branches that were committed, in order.
    :ivar faults: the number of a call -> what it raises, and whether it is done all the same.
    :ivar away: nothing is done.
    :ivar busy: so many times a prepared branch is denied.
    :ivar heuristic: branch -> code of an administrator's outcome.
    """

    def __init__(self) -> None:
        self.active: dict[Xid, int] = {}
        self.prepared: set[Xid] = set()
        self.done: list[Xid] = []
        self.calls: list[str] = []
        self.faults: dict[int, tuple[BaseException, bool]] = {}
        self.away = False
        self.busy = 0
        self.heuristic: dict[Xid, int] = {}
        self.crashed = False
        self.read_only = False

    def _call(self, name: str, perform: Callable[[], Any]) -> Any:
        if self.crashed:
            raise Crash
        self.calls.append(name)
        if self.away:
            raise XAError(XAER_RMFAIL, "away")
        fault, is_done = self.faults.get(len(self.calls), (None, True))
        result = perform() if is_done else None
        if fault is not None:
            raise fault
        return result

    def start(self, xid: Xid) -> object:
        """Begin."""
        return self._call("start", lambda: self.active.setdefault(xid, 0))

    def send(self, *args: Any, **options: Any) -> str:
        """Do some work."""
        self.sent = args, options
        return "the result"

    def end(self, xid: Xid) -> None:
        """No effect."""
        self._call("end", lambda: None)

    def prepare(self, xid: Xid) -> int:
        """Phase one."""

        def perform() -> int:
            if xid not in self.active:
                raise XAError(XAER_NOTA, "not there")
            del self.active[xid]
            if self.read_only:
                return XA_RDONLY
            self.prepared.add(xid)
            return XA_OK

        return self._call("prepare", perform)  # type: ignore[no-any-return]

    def commit(self, xid: Xid) -> None:
        """Phase two."""
        self._call("commit", lambda: self._take(xid, self.done.append))

    def rollback(self, xid: Xid) -> None:
        """Of anything."""
        self._call("rollback", lambda: self._take(xid, lambda _: None))

    def _take(self, xid: Xid, use: Callable[[Xid], object]) -> None:
        if xid in self.heuristic:
            raise XAError(self.heuristic[xid], "an administrator was here")
        if self.busy:
            self.busy -= 1
            raise XAError(XAER_NOTA, "its connection is not gone yet")
        if xid not in self.prepared and self.active.pop(xid, None) is None:
            raise XAError(XAER_NOTA, "not there")
        self.prepared.discard(xid)
        use(xid)

    def forget(self, xid: Xid) -> None:
        """The administrator's outcome."""
        self._call("forget", lambda: self.heuristic.pop(xid))

    def listed(self) -> list[Xid]:
        """What waits."""
        found: list[Xid] = self._call("recover", lambda: sorted({*self.prepared, *self.heuristic}))
        return found

    def ended(self) -> None:
        """The process is gone: so is what was not prepared."""
        self.crashed = False
        self.active.clear()
        self.faults.clear()


class Database(Manager):
    """In the place of ``DatabaseResource``."""

    def start(self, xid: Xid) -> object:
        """What does not succeed ends with its connection."""
        try:
            return super().start(xid)
        except XAError:
            self.drop(xid)
            raise

    def recover(self) -> list[Xid]:
        """See there."""
        return self.listed()

    def commit(self, xid: Xid) -> None:
        """Its connection ends with it."""
        try:
            super().commit(xid)
        finally:
            self.drop(xid)

    def rollback(self, xid: Xid) -> None:
        """The same."""
        try:
            super().rollback(xid)
        finally:
            self.drop(xid)

    def drop(self, xid: Xid) -> None:
        """A connection ends."""
        self.active.pop(xid, None)

    def close(self) -> None:
        """All of them."""
        self.calls.append("close")


class Messages(Manager):
    """
    In the place of an ``XAProducer`` and its resources.

    :ivar targets: what every resource was asked for.
    :ivar failed: brokers that do not answer a recovery.
    """

    target = URL
    unique_qualifier = "q"

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str | None] = []
        self.failed: dict[str, MetaQError] = {}

    def resource(self, target: str | None) -> Messages:
        """Itself."""
        self.targets.append(target)
        return self

    def set_transaction_timeout(self, seconds: int) -> None:
        """No time passes here."""
        self.lifetime = seconds

    def recover(self) -> Recovered:
        """See ``XAResource``."""
        if self.away:
            self.calls.append("recover")
            return Recovered((), {URL: RequestTimeout("away")})
        return Recovered(self.listed(), self.failed)


class CoordinatorCase(SynchronousTestCase):
    """A coordinator that may end and begin again."""

    def setUp(self) -> None:
        self.patch(room, "AGAIN_SECONDS", 0.001)
        self.path = self.mktemp()
        self.messages, self.database = Messages(), Database()
        self.crash_at: Step | None = None
        self.steps: list[Step] = []
        self.coordinator = self.begin()
        self.addCleanup(lambda: self.coordinator.close())

    def begin(self) -> Coordinator:
        """A new life, before ``resolve``."""
        producer: Any = self.messages
        made = Coordinator(self.path, producer, lambda: None, on_step=self.reached)  # type: ignore
        made.database = self.database  # type: ignore[assignment]
        return made

    def reached(self, step: Step, transaction: str) -> None:
        """Die here, maybe."""
        self.steps.append(step)
        if step is self.crash_at:
            self.messages.crashed = self.database.crashed = True
            raise Crash

    def again(self) -> Resolution:
        """The process has ended; the next one resolves."""
        self.crash_at = None
        self.coordinator.close()
        for each in (self.messages, self.database):
            each.ended()
        self.coordinator = self.begin()
        return self.coordinator.resolve()

    def run_one(self) -> str:
        """A transaction that is committed; its id."""
        with self.coordinator.transaction() as self.transaction:
            self.transaction.send("t", b"x")
        return self.transaction.id

    def assertBoth(self, count: int) -> None:
        """So many transactions are in both, and nothing else is."""
        self.assertEqual(
            [each.gtrid for each in self.messages.done],
            [each.gtrid for each in self.database.done],
        )
        self.assertEqual(count, len(self.messages.done))
        for each in (self.messages, self.database):
            self.assertEqual((set(), {}), (each.prepared, each.active))
        self.assertEqual({}, self.coordinator.decisions.committed())


class CommitTests(CoordinatorCase):
    """What goes well, or fails while the process lives."""

    def test_rollback_leaves_nothing(self) -> None:
        """Where both were rolled back, the next transaction begins without a look at the others."""
        with self.assertRaises(ZeroDivisionError), self.coordinator.transaction():
            raise ZeroDivisionError
        looks: list[int] = []
        self.patch(self.coordinator, "resolve", lambda: looks.append(1))
        for _ in range(2):
            self.assertTrue(self.coordinator.is_touchable(self.run_one()), "it is over")
        self.assertEqual([], looks)

    def test_order(self) -> None:
        """The decision stands between the phases."""
        self.run_one()
        self.assertEqual([each for each in Step if each is not Step.RESOLVED], self.steps)
        self.assertBoth(1)

    def test_block(self) -> None:
        """Left transactions are resolved before it; file and connections are closed after it."""
        with self.coordinator as entered:
            self.assertIs(self.coordinator, entered)
            self.assertEqual(["recover"], self.messages.calls, "once, where nothing is denied")
            self.assertNotIn("close", self.database.calls)
        self.assertEqual("close", self.database.calls[-1])
        self.assertRaises(LocalStoreError, self.coordinator.decisions.committed)
        self.coordinator = self.begin()

    def test_send(self) -> None:
        """The resource gets what the sender gives, and its result is the sender's."""
        with self.coordinator.transaction() as transaction:
            options: dict[str, Any] = {"key": "k", "partition": Partition(0, 1), "timeout": 3.0}
            sent: Any = transaction.send("test", b"x", "a", **options)
            self.assertEqual("the result", sent)
            self.assertEqual(60, self.messages.lifetime)
            self.assertEqual((("test", b"x", "a"), options), self.messages.sent)

    def test_exception_in_the_block(self) -> None:
        """Both are rolled back."""
        with self.assertRaises(KeyError), self.coordinator.transaction():
            raise KeyError
        self.assertBoth(0)

    def test_ended_in_the_block(self) -> None:
        """The end of the block ends nothing again."""
        for end in ("commit", "rollback"):
            with self.coordinator.transaction() as transaction:
                getattr(transaction, end)()
        self.assertBoth(1)

    def test_begin_fails(self) -> None:
        """There is no transaction then, and none stays under way."""
        refused = XAError(XAER_RMERR, "refused"), False
        for manager in (self.messages, self.database):
            manager.faults[len(manager.calls) + 1] = refused
            error = self.assertRaises(XAError, self.coordinator.transaction)
            self.assertEqual("refused", str(error))
        self.assertEqual(([], set()), (self.steps, self.coordinator._under_way))

    def test_rollback_that_fails(self) -> None:
        """It is logged, and done before the next transaction begins."""
        self.database.faults[3] = XAError(XAER_RMERR, "no"), False  # its prepare
        self.messages.faults[4] = XAError(XAER_RMERR, "disk full"), False  # its rollback
        with self.assertLogs("metamorphosis.client", "WARNING") as logged:
            self.assertRaises(XAError, self.run_one)
        (branch,) = self.messages.prepared
        text = f"Two phases: rollback of {branch} is left: disk full"
        self.assertEqual([text], [each.getMessage() for each in logged.records])
        self.run_one()
        self.assertBoth(1)

    def test_database(self) -> None:
        """Branches have the coordinators' format; ``close`` closes the connections."""
        server = FakeServer()
        producer: Any = self.messages
        with Coordinator(self.mktemp(), producer, server.connect) as coordinator:
            transaction = coordinator.transaction()
            name = f"X'{transaction.id.encode().hex()}',X'{room.DATABASE.hex()}',{0x4D51}"
            self.assertEqual(f"XA START {name}", server.statements[-1])
            self.assertEqual(1, server.left)
        self.assertEqual(0, server.left)

    def test_target(self) -> None:
        """All transactions are at this broker; a decided branch is looked for where it was."""
        self.coordinator.target = "b2:1"
        self.run_one()
        self.coordinator.decisions.commit(f"{self.coordinator.decisions.name}-1", URL)
        self.coordinator.resolve()
        self.assertEqual(["b2:1", URL], self.messages.targets)

    def test_read_only(self) -> None:
        """Without messages their branch is over at its prepare."""
        self.messages.read_only = True
        self.run_one()
        self.assertNotIn("commit", self.messages.calls)
        self.assertEqual(1, len(self.database.done))

    def test_every_call_that_fails(self) -> None:
        """
        Refused, or without an answer, done or not: both have it or neither, at the latest after
        ``resolve``.
        """
        refused = XAError(XAER_RMERR, "refused")
        lost = XAError(XAER_RMFAIL, "lost", False)
        cases = itertools.product(
            ("messages", "database"), range(1, 5), ((refused, False), (lost, False), (lost, True))
        )
        for name, number, fault in cases:
            self.path = self.mktemp()
            self.messages, self.database = Messages(), Database()
            self.coordinator.close()
            self.coordinator = self.begin()
            manager = getattr(self, name)
            manager.faults[number] = fault
            where = f"{name}, call {number}, {fault}"
            with self.assertRaises((XAError, Unresolved), msg=where) as caught:
                self.run_one()
            decided = isinstance(caught.exception, Unresolved)
            if decided:
                self.assertTrue(caught.exception.committed, where)
            self.assertEqual(decided, number == 4, where)
            manager.faults.clear()
            self.run_one()  # resolves first what was left
            self.assertBoth(1 + decided)

    def test_prepare_rolled_back(self) -> None:
        """A vote against it."""
        self.messages.faults[3] = XAError(XA_RBOTHER, "no"), False
        self.assertRaises(XAError, self.run_one)
        self.assertBoth(0)

    def test_ended_twice(self) -> None:
        """The second end is refused."""
        transaction = self.coordinator.transaction()
        transaction.rollback()
        self.assertRaises(InvalidState, transaction.commit)
        self.assertRaises(InvalidState, transaction.rollback)
        self.assertBoth(0)

    def test_resolve_leaves_alone_what_is_under_way(self) -> None:
        """Another thread's transaction may be prepared at this moment."""
        found = []
        self.coordinator.told = lambda step, _: (
            found.append(self.coordinator.resolve()) if step is Step.DATABASE_PREPARED else None
        )
        self.run_one()
        self.assertEqual([Resolution()], found)
        self.assertBoth(1)

    def test_ended_while_others_are_resolved(self) -> None:
        """
        Another thread decides, and ends without having committed everywhere, between the look at
        the decisions and the list of what is prepared: it is committed all the same.
        """
        coordinator, name = self.coordinator, f"{self.coordinator.decisions.name}-1"
        for manager, part in ((self.messages, room.MESSAGES), (self.database, room.DATABASE)):
            manager.prepared.add(Xid(room.FORMAT_ID, name.encode(), part))
        ended: list[str] = []

        found = Pass(
            coordinator.decisions,
            self.database,  # type: ignore[arg-type]
            coordinator.resource,
            ended.__contains__,
            lambda step, transaction: None,
            {},
        )
        coordinator.decisions.commit(name, URL)
        ended.append(name)
        found.run()
        self.assertEqual((1, 1), (len(self.messages.done), len(self.database.done)))
        self.assertEqual({name: URL}, coordinator.decisions.committed())
        coordinator.resolve()
        self.assertBoth(1)

    def test_under_way_when_others_are_resolved(self) -> None:
        """Its decision is not forgotten by a look that began before its end."""
        coordinator, name = self.coordinator, f"{self.coordinator.decisions.name}-1"
        coordinator.decisions.commit(name, URL)
        ended: list[str] = []
        found = Pass(
            coordinator.decisions,
            self.database,  # type: ignore[arg-type]
            coordinator.resource,
            ended.__contains__,
            lambda step, transaction: None,
            {},
        )
        ended.append(name)
        found.run()
        self.assertEqual({name: URL}, coordinator.decisions.committed())

    def test_other_coordinators(self) -> None:
        """What belongs to another file is not touched."""
        other = Xid(room.FORMAT_ID, b"other-1", room.DATABASE)
        self.database.prepared.add(other)
        strange = Xid(5, b"strange", b"")
        self.messages.prepared.add(strange)
        self.assertEqual(Resolution(), self.coordinator.resolve())
        self.assertEqual({other}, self.database.prepared)
        self.assertEqual({strange}, self.messages.prepared)

    def test_administrator(self) -> None:
        """The same outcome ends the transaction; another one is reported, and stays until an
        operator decides."""
        for code, error in ((XA_HEURCOM, None), (XA_HEURRB, MixedOutcome)):

            def decide(step: Step, transaction: str, code: int = code) -> None:
                if step is Step.DECIDED:
                    xid = Xid(room.FORMAT_ID, transaction.encode(), room.MESSAGES)
                    self.messages.prepared.discard(xid)
                    self.messages.heuristic[xid] = code

            self.coordinator.told = decide
            if error is None:
                self.run_one()
                self.assertEqual({}, self.messages.heuristic)
            else:
                self.assertRaises(error, self.run_one)
                found = self.again()
                self.assertIn("the decision is commit", str(found.left))
                self.assertEqual(1, len(self.coordinator.decisions.committed()))


class CrashTests(CoordinatorCase):
    """The process ends."""

    def test_at_each_step(self) -> None:
        """Neither has it before the decision, both from then on."""
        decided = count = 0
        for step in Step:
            if step is Step.RESOLVED:
                continue
            self.crash_at = step
            self.assertRaises(Crash, self.run_one)
            decided += step is Step.DECIDED
            count += decided
            self.assertEqual({}, dict(self.again().left))
            self.assertBoth(count)

    def test_while_resolving(self) -> None:
        """Each life ends after one branch."""
        for step, count in ((Step.DATABASE_PREPARED, 0), (Step.DECIDED, 1)):
            self.crash_at = step
            self.assertRaises(Crash, self.run_one)
            for _ in range(2):
                self.coordinator.close()
                for each in (self.messages, self.database):
                    each.ended()
                self.coordinator = self.begin()
                self.crash_at = Step.RESOLVED
                self.assertRaises(Crash, self.coordinator.resolve)
            self.again()
            self.assertBoth(count)

    def test_broker_away_at_the_next_start(self) -> None:
        """The decision is kept, and named as left, until the broker is back."""
        self.crash_at = Step.DECIDED
        self.assertRaises(Crash, self.run_one)
        self.messages.away = True
        with self.assertLogs("metamorphosis.client", "WARNING") as logged:
            found = self.again()
        self.assertEqual({URL: "away"}, dict(found.left))
        text = f"Two phases: {URL} is left: away"
        self.assertEqual([text], [each.getMessage() for each in logged.records])
        self.assertEqual(1, len(self.coordinator.decisions.committed()))
        self.messages.away = False
        self.run_one()  # resolves first what was left
        self.assertBoth(2)

    def test_database_away_at_the_next_start(self) -> None:
        """The same."""
        self.crash_at = Step.DECIDED
        self.assertRaises(Crash, self.run_one)
        self.database.away = True
        self.assertEqual(["database"], list(self.again().left))
        self.database.away = False
        self.coordinator.resolve()
        self.assertBoth(1)

    def test_start_that_fails(self) -> None:
        """What is not expected ends the block before it begins, and the file is free again."""

        def fail(*_: object) -> None:
            raise ZeroDivisionError("on purpose")

        self.patch(self.coordinator, "resolve", fail)
        self.assertRaises(ZeroDivisionError, self.coordinator.__enter__)
        self.begin().close()
        self.assertEqual({}, dict(self.again().left))

    def test_database_has_not_noticed(self) -> None:
        """
        A branch whose dead connection still has it is denied and listed: it is not taken for done.
        """
        self.crash_at = Step.DECIDED
        self.assertRaises(Crash, self.run_one)
        self.database.busy = 3
        naps: list[float] = []
        self.patch(room.time, "sleep", naps.append)
        self.assertEqual({}, dict(self.again().left))
        self.assertEqual([room.AGAIN_SECONDS] * 3, naps)
        self.assertBoth(1)

    def test_database_does_not_notice(self) -> None:
        """After a while it is left for later, with its decision."""
        self.patch(room, "PATIENCE_SECONDS", 0.01)
        self.crash_at = Step.DECIDED
        self.assertRaises(Crash, self.run_one)
        self.database.busy = 1 << 30
        self.steps.clear()
        self.assertIn("cannot be reached yet", str(self.again().left))
        self.assertEqual([Step.RESOLVED], self.steps, "that of the messages alone")
        self.assertEqual(1, len(self.coordinator.decisions.committed()))
        self.database.busy = 0
        self.coordinator.resolve()
        self.assertBoth(1)


class FailingFile:
    """In the place of an SQLite connection: what is written fails, or what is given."""

    def __init__(self, real: sqlite3.Connection, *failing: str) -> None:
        self.real = real
        self._failing = failing or ("INSERT", "DELETE")

    def execute(self, statement: str, *values: Any) -> Any:
        """The rest works."""
        if statement.startswith(self._failing):
            raise sqlite3.OperationalError("disk I/O error")
        return self.real.execute(statement, *values)

    def close(self) -> None:
        """The real one."""
        self.real.close()


class Noted(sqlite3.Connection):
    """A connection that knows whether it was closed."""

    closed = False

    def close(self) -> None:
        """See there."""
        self.closed = True
        super().close()


class DecisionLogTests(CoordinatorCase):
    """The file."""

    def test_write_fails(self) -> None:
        """
        Nothing is rolled back: the file may say either after a crash. The next life does what it
        says.
        """
        real = self.coordinator.decisions._db
        self.coordinator.decisions._db = FailingFile(real)  # type: ignore[assignment]
        error = self.assertRaises(Unresolved, self.run_one)
        self.assertEqual((None, False), (error.committed, error.outcome_known))
        self.assertIn("disk I/O error", str(error))
        self.assertEqual(1, len(self.messages.prepared))
        self.assertRaises(LocalStoreError, self.coordinator.resolve)
        self.assertRaises(Unresolved, self.run_one)
        self.again()
        self.assertBoth(0)

    def test_read_fails(self) -> None:
        """That says nothing of the file: it is read, and written, when that is possible again."""
        log = self.coordinator.decisions
        real = log._db
        log._db = FailingFile(real, "SELECT")  # type: ignore[assignment]
        self.assertRaises(LocalStoreError, log.committed)
        log._db = real
        self.assertEqual({}, log.committed())
        self.run_one()
        self.assertBoth(1)

    def test_delete_fails(self) -> None:
        """Nothing is written any more, as after any other write that fails."""
        log = self.coordinator.decisions
        real = log._db
        log._db = FailingFile(real, "DELETE")  # type: ignore[assignment]
        self.assertRaises(LocalStoreError, log.forget, "t")
        log._db = real
        error = self.assertRaises(LocalStoreError, log.commit, "t", URL)
        self.assertIn("disk I/O error before", str(error))

    def test_write_that_arrived(self) -> None:
        """The same, and the file has it."""
        self.run_one()
        log = self.coordinator.decisions
        insert = log._db.execute

        class Arriving(FailingFile):
            def execute(self, statement: str, *values: Any) -> Any:
                """Done, and not said."""
                insert(statement, *values)
                return super().execute(statement, *values)

        log._db = Arriving(log._db)  # type: ignore[assignment]
        self.assertRaises(Unresolved, self.run_one)
        self.assertEqual(1, len(self.messages.done))
        self.again()
        self.assertBoth(2)

    def test_one_process(self) -> None:
        """A second one is refused with the reason; after the end of the first it may have it."""
        error = self.assertRaises(LocalStoreError, DecisionLog, self.path, "q")
        self.assertIn(self.path, str(error))
        self.assertIn("another coordinator", str(error))
        name = self.coordinator.decisions.name
        self.coordinator.close()
        self.coordinator = self.begin()
        self.assertEqual(name, self.coordinator.decisions.name)

    def test_names(self) -> None:
        """Each file has one of its own, with which the ids of its transactions begin: a coordinator
        leaves the branches of another one alone."""
        other = DecisionLog(self.mktemp(), "q")
        self.addCleanup(other.close)
        name = self.coordinator.decisions.name
        self.assertNotEqual(name, other.name)
        self.assertRegex(name, "^[0-9a-f]{16}$")
        self.assertEqual(f"{name}-", self.run_one()[:17])

    def test_any_thread(self) -> None:
        """One thread opens it, others use it."""
        with ThreadPoolExecutor(1) as threads:
            threads.submit(self.run_one).result(30)
        self.assertBoth(1)

    def test_other_qualifier(self) -> None:
        """Brokers would not list what was prepared, and its decision would be forgotten."""
        self.coordinator.close()
        error = self.assertRaises(LocalStoreError, DecisionLog, self.path, "other")
        self.assertIn("unique_qualifier 'q', and the producer has 'other'", str(error))
        self.coordinator = self.begin()

    def test_strange_files(self) -> None:
        """Named, and left as they are."""
        text, other, missing = self.mktemp(), self.mktemp(), f"{self.mktemp()}/x"
        with open(text, "wb") as file:
            file.write(b"important notes " * 100)
        with sqlite3.connect(other) as database:
            database.execute("CREATE TABLE mine (x)")
        database.close()
        opened: list[Noted] = []

        def connect(path: str, **options: Any) -> sqlite3.Connection:
            self.assertEqual(0, options["timeout"], "a file in use is refused at once")
            opened.append(real(path, factory=Noted, **options))
            return opened[-1]

        real = sqlite3.connect
        self.patch(sqlite3, "connect", connect)
        for path in (text, other, missing):
            error = self.assertRaises(LocalStoreError, DecisionLog, path, "q")
            self.assertIn(path, str(error))
        self.assertEqual([True, True], [each.closed for each in opened])
        with open(text, "rb") as file:
            self.assertEqual(b"important notes " * 100, file.read())

    def test_survives_power_cuts(self) -> None:
        """Each decision is flushed, with the directory that has its journal."""
        log = DecisionLog(self.mktemp(), "q")
        self.assertEqual((3,), log._db.execute("PRAGMA synchronous").fetchone())
        log.close()

    def test_closed(self) -> None:
        """Every call raises an error."""
        log = DecisionLog(self.mktemp(), "q")
        log.close()
        error = self.assertRaises(LocalStoreError, log.commit, "t", URL)
        self.assertIn(": closed before", str(error))
