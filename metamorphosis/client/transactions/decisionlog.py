"""
The decisions of a coordinator of transactions in two phases, in a SQLite file.

Presumed abort: only commits are written. A prepared branch whose transaction is not in the log is
to be rolled back. A decision stays until every branch has been committed.

One process at a time has the file; a second one would roll back the branches of the first.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

from metamorphosis.errors import LocalStoreError

APPLICATION: Final = 0x4D515431
"""Marks the file as one of ours."""

_TABLES: Final = (
    "CREATE TABLE coordinator (name TEXT NOT NULL, qualifier TEXT NOT NULL)",
    "CREATE TABLE decision (id TEXT PRIMARY KEY, broker TEXT NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION}",
)


class DecisionLog:
    """
    Thread: any, several at a time. Every write is on the disk when its call returns.

    :param path: made if it is new; its directory must be there.
    :param qualifier: of the XA producer. Under another one brokers do not list the prepared
        branches, and a decision would be forgotten: it is refused.
    :raises LocalStoreError: from all methods; the text names the file.
    :ivar name: of the coordinator, made with the file: its transactions begin with it.
    """

    def __init__(self, path: str | os.PathLike[str], qualifier: str) -> None:
        self.path = os.fspath(path)
        self._qualifier = qualifier
        self._lock = Lock()
        self._broken: str | None = None
        try:
            self._db = sqlite3.connect(
                self.path, timeout=0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise LocalStoreError(f"decisions in {self.path}: {error}") from error
        try:
            self.name = self._open()
        except sqlite3.Error as error:
            self._db.close()
            hint = ""
            if "locked" in str(error):
                hint = "; another coordinator uses the file, each needs its own"
            raise LocalStoreError(f"decisions in {self.path}: {error}{hint}") from error
        except LocalStoreError:
            self._db.close()
            raise

    def _open(self) -> str:
        run = self._db.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA synchronous = EXTRA")  # the directory as well
        run("BEGIN EXCLUSIVE")
        (application,) = run("PRAGMA application_id").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION:
            if tables:
                raise LocalStoreError(
                    f"decisions in {self.path}: the file belongs to another program"
                )
            for statement in _TABLES:
                run(statement)
            run("INSERT INTO coordinator VALUES (?, ?)", (uuid.uuid4().hex[:16], self._qualifier))
        name, qualifier = run("SELECT name, qualifier FROM coordinator").fetchone()
        run("COMMIT")
        if qualifier != self._qualifier:
            raise LocalStoreError(
                f"decisions in {self.path}: they are of unique_qualifier {qualifier!r}, and the"
                f" producer has {self._qualifier!r}; use the same, or another file"
            )
        return str(name)

    def commit(self, transaction: str, broker: str) -> None:
        """
        Write that a transaction is to be committed.

        When this fails, the contents of the file after a crash are unknown: nothing is written any
        more, and only the next start of the coordinator reads the decision.

        :param broker: URL of the broker that has a branch of it.
        """
        with self._access(writing=True):
            self._db.execute("INSERT INTO decision VALUES (?, ?)", (transaction, broker))

    def forget(self, transaction: str) -> None:
        """All branches have been committed."""
        with self._access(writing=True):
            self._db.execute("DELETE FROM decision WHERE id = ?", (transaction,))

    def committed(self) -> dict[str, str]:
        """The transactions to commit: transaction -> URL of its broker."""
        with self._access():
            return dict(self._db.execute("SELECT id, broker FROM decision").fetchall())

    @contextmanager
    def _access(self, writing: bool = False) -> Iterator[None]:
        with self._lock:
            if self._broken is not None:
                raise LocalStoreError(f"decisions in {self.path}: {self._broken} before")
            try:
                yield
            except sqlite3.Error as error:
                if writing:
                    self._broken = str(error)
                raise LocalStoreError(f"decisions in {self.path}: {error}") from error

    def close(self) -> None:
        """Another process may have the file."""
        with self._lock:
            self._broken = self._broken or "closed"
            self._db.close()
