"""
MariaDB or MySQL as a resource of X/Open XA, with PyMySQL.

A branch has a connection of its own. When that breaks before ``prepare`` the server rolls the
branch back; a prepared one waits for ``commit`` or ``rollback`` on any connection. MariaDB keeps it
over the end of its connection from 10.5 on, MySQL from 8.0 on.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import pymysql

from metamorphosis.client.transactions.xa import (
    XA_OK,
    XA_RBOTHER,
    XA_RBROLLBACK,
    XA_RBTIMEOUT,
    XAER_DUPID,
    XAER_INVAL,
    XAER_NOTA,
    XAER_OUTSIDE,
    XAER_PROTO,
    XAER_RMERR,
    XAER_RMFAIL,
    Xid,
)
from metamorphosis.errors import XAError

if TYPE_CHECKING:
    from pymysql.connections import Connection

    Database = Connection[Any]
    """A connection to the server, with cursors of any kind."""

CODES: Final = {
    1397: XAER_NOTA,
    1398: XAER_INVAL,
    1399: XAER_PROTO,
    1400: XAER_OUTSIDE,
    1401: XAER_RMERR,
    1402: XA_RBROLLBACK,
    1440: XAER_DUPID,
    1613: XA_RBTIMEOUT,
    1614: XA_RBOTHER,
}
"""The server's error -> that of X/Open."""


class DatabaseResource:
    """
    Thread: any; each branch is used by one thread at a time.

    :param connect: makes a connection, as ``lambda: pymysql.connect(...)`` does.
    :param format_id: of the branches that ``recover`` gives.
    """

    def __init__(self, connect: Callable[[], Database], format_id: int) -> None:
        self._connect = connect
        self._format_id = format_id
        self._connections: dict[Xid, Database] = {}
        self._lock = Lock()

    def start(self, xid: Xid) -> Database:
        """Begin a branch; its statements go over the returned connection."""
        connection = self._open(f"start of {xid}")
        try:
            self._run(connection, "START", xid)
        except XAError:
            _close(connection)
            raise
        with self._lock:
            self._connections[xid] = connection
        return connection

    def end(self, xid: Xid) -> None:
        """No further statements."""
        self._run(self._connections[xid], "END", xid)

    def prepare(self, xid: Xid) -> int:
        """The first phase."""
        self._run(self._connections[xid], "PREPARE", xid)
        return XA_OK

    def commit(self, xid: Xid) -> None:
        """The second phase; also of branches of earlier processes."""
        self._finish(xid, "COMMIT")

    def rollback(self, xid: Xid) -> None:
        """Roll back. A branch that is not prepared ends with its connection."""
        self._finish(xid, "ROLLBACK")

    def _finish(self, xid: Xid, verb: str) -> None:
        with self._lock:
            connection = self._connections.pop(xid, None)
        if connection is None:
            connection = self._open(f"{verb} of {xid}")
        try:
            self._run(connection, verb, xid)
        finally:
            _close(connection)

    def recover(self) -> list[Xid]:
        """The prepared branches with our format id, whose parts are plain ASCII."""
        connection = self._open("recover")
        try:
            with connection.cursor() as cursor:
                cursor.execute("XA RECOVER")
                rows = cursor.fetchall()
        except pymysql.Error as error:
            raise _xa_error("recover", error) from error
        finally:
            _close(connection)
        found = []
        for row in rows:
            format_id, length, _, data = row.values() if isinstance(row, dict) else row
            if format_id == self._format_id:
                text = data if isinstance(data, bytes) else data.encode("latin-1", "replace")
                found.append(Xid(format_id, text[:length], text[length:]))
        return found

    def drop(self, xid: Xid) -> None:
        """Close the connection of a branch; a prepared branch stays."""
        with self._lock:
            connection = self._connections.pop(xid, None)
        if connection is not None:
            _close(connection)

    def close(self) -> None:
        """Close all connections; prepared branches stay."""
        for xid in list(self._connections):
            self.drop(xid)

    def _open(self, what: str) -> Database:
        connection = None
        try:
            connection = self._connect()
            # Without it MariaDB refuses to end a branch of another connection (XAER_OUTSIDE).
            connection.autocommit(True)
            return connection
        except (pymysql.Error, OSError) as error:
            if connection is not None:
                _close(connection)
            raise XAError(XAER_RMFAIL, f"{what} in the database: not connected: {error}") from error

    def _run(self, connection: Database, verb: str, xid: Xid) -> None:
        name = f"X'{xid.gtrid.hex()}',X'{xid.bqual.hex()}',{xid.format_id}"
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"XA {verb} {name}")
        except (pymysql.Error, OSError) as error:
            raise _xa_error(f"{verb} of {xid}", error) from error


def _xa_error(what: str, error: Exception) -> XAError:
    number = error.args[0] if error.args else None
    code = CODES.get(number) if isinstance(number, int) else None
    text = f"{what} in the database: {error}"
    if code is None and isinstance(number, int) and 1000 <= number < 2000:
        return XAError(XAER_RMERR, text)
    if code is None:  # the connection
        return XAError(XAER_RMFAIL, f"{text}; whether it was done is not known", False)
    return XAError(code, text)


def _close(connection: Database) -> None:
    try:
        connection.close()
    except (pymysql.Error, OSError):
        pass  # it was broken
