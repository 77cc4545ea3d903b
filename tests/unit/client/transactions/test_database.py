"""MariaDB as a resource of X/Open XA: every statement, and the failure of every step."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import pymysql
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.transactions.database import CODES, DatabaseResource
from metamorphosis.client.transactions.xa import (
    XA_OK,
    XA_RBROLLBACK,
    XAER_DUPID,
    XAER_NOTA,
    XAER_RMERR,
    XAER_RMFAIL,
    Xid,
)
from metamorphosis.errors import XAError

XID = Xid(7, b"global", b"branch")
NAME = f"X'{b'global'.hex()}',X'{b'branch'.hex()}',7"

LOST = pymysql.err.OperationalError(2013, "Lost connection to server during query")


class FakeServer:
    """
    A server, and everything that its connections were asked.

    :ivar failing: step -> what it raises.
    :ivar statements: what was executed, in order.
    :ivar rows: the answer to XA RECOVER.
    """

    def __init__(self) -> None:
        self.failing: dict[str, Exception] = {}
        self.statements: list[str] = []
        self.rows: list[Any] = []
        self.opened: list[FakeConnection] = []

    def call(self, step: str) -> None:
        """A step that may be told to fail."""
        error = self.failing.get(step)
        if error is not None:
            raise error

    def connect(self) -> Any:
        """What ``pymysql.connect`` gives."""
        self.call("connect")
        connection = FakeConnection(self)
        self.opened.append(connection)
        return connection

    @property
    def left(self) -> int:
        """Connections that are open."""
        return sum(not each.closed for each in self.opened)


class FakeConnection:
    """One connection, and its cursor."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.closed = False
        self.commits: list[bool] = []

    def autocommit(self, value: bool) -> None:
        """Of PyMySQL: sends a statement."""
        self.server.call("autocommit")
        self.commits.append(value)

    def cursor(self) -> FakeConnection:
        """A cursor is a context manager."""
        self.server.call("cursor")
        return self

    def __enter__(self) -> FakeConnection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def execute(self, statement: str) -> None:
        """Of a cursor."""
        self.server.statements.append(statement)
        self.server.call(statement.split()[1])

    def fetchall(self) -> list[Any]:
        """Of a cursor."""
        self.server.call("fetchall")
        return self.server.rows

    def close(self) -> None:
        """Of a connection."""
        self.closed = True
        self.server.call("close")


class DatabaseTestCase(SynchronousTestCase):
    """A resource with a server."""

    def setUp(self) -> None:
        self.server = FakeServer()
        self.resource = DatabaseResource(self.server.connect, 7)

    def refused(self, step: Callable[[], object], code: int) -> XAError:
        """The error of a step."""
        error = self.assertRaises(XAError, step)
        self.assertEqual(code, error.code)
        return error

    def begun(self) -> None:
        """A branch that has been ended."""
        self.resource.start(XID)
        self.resource.end(XID)


class StepTests(DatabaseTestCase):
    """What the server is asked."""

    def test_two_phases(self) -> None:
        """All of a branch goes over one connection, which is closed at its end."""
        connection = self.resource.start(XID)
        self.assertIs(self.server.opened[0], connection)
        self.resource.end(XID)
        self.assertEqual(XA_OK, self.resource.prepare(XID))
        self.assertEqual(1, self.server.left)
        self.resource.commit(XID)
        expected = [f"XA {verb} {NAME}" for verb in ("START", "END", "PREPARE", "COMMIT")]
        self.assertEqual(expected, self.server.statements)
        self.assertEqual((1, 0), (len(self.server.opened), self.server.left))
        self.assertEqual([True], self.server.opened[0].commits)

    def test_roll_back(self) -> None:
        """Likewise."""
        self.begun()
        self.resource.rollback(XID)
        self.assertEqual(f"XA ROLLBACK {NAME}", self.server.statements[-1])
        self.assertEqual(0, self.server.left)

    def test_of_an_earlier_life(self) -> None:
        """A branch that this resource has not begun is ended over a new connection."""
        for end, verb in ((self.resource.commit, "COMMIT"), (self.resource.rollback, "ROLLBACK")):
            end(XID)
            self.assertEqual(f"XA {verb} {NAME}", self.server.statements[-1])
        self.assertEqual((2, 0), (len(self.server.opened), self.server.left))
        self.assertEqual([True], self.server.opened[0].commits, "else MariaDB says XAER_OUTSIDE")

    def test_recover(self) -> None:
        """Branches of our format, whatever the cursor makes of a row."""
        self.server.rows = [
            (7, 6, 6, "globalbranch"),
            {"formatID": 7, "gtrid_length": 1, "bqual_length": 2, "data": b"abb"},
            (8, 6, 6, "globalbranch"),
        ]
        self.assertEqual([XID, Xid(7, b"a", b"bb")], self.resource.recover())
        self.assertEqual(0, self.server.left)

    def test_drop_and_close(self) -> None:
        """Connections are closed, and nothing is sent; twice does nothing."""
        other = Xid(7, b"other", b"")
        self.begun()
        self.resource.start(other)
        sent = len(self.server.statements)
        self.resource.drop(XID)
        self.assertEqual(1, self.server.left)
        self.resource.drop(XID)
        self.resource.close()
        self.assertEqual((0, sent), (self.server.left, len(self.server.statements)))


class FailureTests(DatabaseTestCase):
    """Each step fails in each way."""

    def test_not_connected(self) -> None:
        """No connection, or one that breaks at once: nothing was done, and nothing stays open."""
        steps = (
            lambda: self.resource.start(XID),
            lambda: self.resource.commit(XID),
            lambda: self.resource.rollback(XID),
            self.resource.recover,
        )
        for failing in ("connect", "autocommit"):
            for error in (LOST, ConnectionRefusedError(111, "Connection refused")):
                self.server.failing = {failing: error}
                for step in steps:
                    text = str(self.refused(step, XAER_RMFAIL))
                    self.assertIn("not connected", text)
        self.assertEqual((0, []), (self.server.left, self.server.statements))

    def test_start(self) -> None:
        """The server refuses the xid, or the connection breaks: no branch, no open connection."""
        for error, code in (
            (pymysql.err.OperationalError(1440, "XAER_DUPID"), XAER_DUPID),
            (LOST, XAER_RMFAIL),
        ):
            self.server.failing = {"START": error}
            self.refused(lambda: self.resource.start(XID), code)
            self.assertEqual(0, self.server.left)
        self.server.failing = {}
        self.resource.start(XID)
        self.assertEqual(1, self.server.left)

    def test_end_and_prepare(self) -> None:
        """The branch stays, so that it can be rolled back."""
        for verb, step in (("END", self.resource.end), ("PREPARE", self.resource.prepare)):
            self.resource.start(XID)
            for error, code in (
                (pymysql.err.InternalError(1402, "XA_RBROLLBACK"), XA_RBROLLBACK),
                (LOST, XAER_RMFAIL),
                (BrokenPipeError(32, "Broken pipe"), XAER_RMFAIL),
            ):
                self.server.failing = {verb: error}
                self.refused(lambda step=step: step(XID), code)
                self.assertEqual(1, self.server.left)
            self.server.failing = {}
            self.resource.rollback(XID)
            self.assertEqual(0, self.server.left)

    def test_unknown_outcome(self) -> None:
        """A commit or rollback without answer may have been done: the next one goes over a new
        connection, and the error says so."""
        for verb, end in (("COMMIT", self.resource.commit), ("ROLLBACK", self.resource.rollback)):
            self.begun()
            self.server.failing = {verb: LOST}
            error = self.refused(lambda end=end: end(XID), XAER_RMFAIL)
            self.assertIn("whether it was done is not known", str(error))
            self.assertFalse(error.outcome_known)
            self.assertEqual(0, self.server.left)
            self.server.failing = {verb: pymysql.err.OperationalError(1397, "XAER_NOTA")}
            self.refused(lambda end=end: end(XID), XAER_NOTA)
            self.assertEqual(0, self.server.left)
            self.server.failing = {}

    def test_recover(self) -> None:
        """Whatever fails, no connection stays open."""
        for failing in ("cursor", "RECOVER", "fetchall"):
            self.server.failing = {failing: LOST}
            self.refused(self.resource.recover, XAER_RMFAIL)
        self.server.failing = {"RECOVER": pymysql.err.OperationalError(1227, "Access denied")}
        self.refused(self.resource.recover, XAER_RMERR)
        self.assertEqual(0, self.server.left)

    def test_close_fails(self) -> None:
        """A connection that is broken already may fail to close: that is not an error."""
        for error in (pymysql.err.Error("Already closed"), OSError(9, "Bad file descriptor")):
            self.server.failing = {"close": error}
            self.begun()
            self.resource.prepare(XID)
            self.resource.commit(XID)
            self.begun()
            self.resource.close()
        self.assertEqual(0, self.server.left)

    def test_codes(self) -> None:
        """Each error of the server has its code; others of the server are XAER_RMERR."""
        self.begun()
        others = dict.fromkeys((1000, 1205, 1999), XAER_RMERR)
        for number, code in (CODES | others).items():
            self.server.failing = {"PREPARE": pymysql.err.OperationalError(number, "an error")}
            error = self.refused(lambda: self.resource.prepare(XID), code)
            self.assertIn("an error", str(error))
            self.assertTrue(error.outcome_known)
        for error in (
            pymysql.err.InterfaceError("no number"),
            pymysql.err.OperationalError(999, "none of the server's"),
            pymysql.err.OperationalError(2000, "the client's first"),
        ):
            self.server.failing = {"PREPARE": error}
            self.refused(lambda: self.resource.prepare(XID), XAER_RMFAIL)
