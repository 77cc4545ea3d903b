"""
The tree and the sessions in a file: one sqlite database in a separate directory.

A batch is one transaction: ``begin`` opens it, ``write`` puts the final state of every changed node
and session into it, ``commit`` ends it and waits for the disk. sqlite's write-ahead log is flushed
by every commit (``synchronous=FULL``), so that committed batches survive kill -9 and a power cut;
it is copied into the database whenever it has grown to 4 MiB. A ``Marker`` records the last commit,
and a database that has less is refused.

Other processes may read the file while the server runs, as ``sqlite3 zookeeper.sqlite3 .backup``
does. If one has a lock, ``begin`` returns False, and ``wait_and_begin`` waits for its end.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Final, TypeVar

from metamorphosis.zookeeper.databaseerrors import StorageError, is_locked, unusable
from metamorphosis.zookeeper.marker import Marker
from metamorphosis.zookeeper.nodes import Node
from metamorphosis.zookeeper.nodetable import NodeTable
from metamorphosis.zookeeper.opening import LOCK_SECONDS, open_database, page_bytes, state
from metamorphosis.zookeeper.rows import check_relations, session_of, session_row
from metamorphosis.zookeeper.sessions import Session, Sessions
from metamorphosis.zookeeper.tree import Tree

K = TypeVar("K", str, int)

FILE_NAME: Final = "zookeeper.sqlite3"

PROBE_BYTES: Final = 1 << 20
"""Bytes that must fit onto a disk before it counts as working again: the largest request."""

SLOW_SECONDS: Final = 1.0
"""A commit that takes longer is counted, as ZooKeeper does with its ``fsync``."""

KEPT_BYTES: Final = 1 << 20
"""Free pages that a database may always keep; it may also keep a quarter of all its pages."""

VACUUM_BYTES: Final = 4 << 20
"""Free pages that one ``tidy`` returns to the file system."""

_PUT_SESSION: Final = "REPLACE INTO session VALUES (?, ?, ?)"
_DELETE_SESSION: Final = "DELETE FROM session WHERE id = ?"
_PUT_ZXID: Final = "UPDATE state SET value = ? WHERE name = 'zxid'"

__all__ = ["FILE_NAME", "Storage", "StorageError"]


class Storage:
    """
    One open database. Thread: any, one at a time.

    :param directory: an existing directory to which no other program writes; see ``DirectoryLock``.
    :param accept_loss: continue with the contents of the files, although more was acknowledged.
    :ivar accepted: the loss that was accepted, in words; None if nothing was missing.
    :ivar untidy: whether ``tidy`` has work to do.
    :ivar slow_commits: the number of commits that took longer than ``SLOW_SECONDS``.
    :raises StorageError: the file cannot be opened, is damaged, is not one of ours, or has less
        than was acknowledged.
    """

    def __init__(self, directory: str, accept_loss: bool = False) -> None:
        self.path = os.path.join(os.path.abspath(directory), FILE_NAME)
        self.untidy = False
        self.slow_commits = 0
        self._zxid = 0  # zxid of the open batch
        self._patience = LOCK_SECONDS * 1000  # milliseconds for which sqlite waits for a lock
        self._marker = Marker(directory)
        self._database, self.accepted = open_database(self.path, self._marker, accept_loss)
        self._page_bytes = page_bytes(self._database)
        self._nodes = NodeTable(self._database)

    def load(self, tick: int) -> tuple[Tree, Sessions]:
        """
        The contents of the disk.

        :param tick: milliseconds, for ``Sessions``.
        :raises StorageError: the file is damaged.
        """
        execute = self._database.execute
        try:
            (finding,) = execute("PRAGMA quick_check(1)").fetchone()
            if finding != "ok":
                raise ValueError(finding)
            zxid = state(self._database, "zxid")
            nodes = self._nodes.load()
            with closing(execute("SELECT * FROM session")) as rows:
                stored = [session_of(row) for row in rows]
            sessions = Sessions(stored, tick)
            check_relations(nodes, sessions.by_id)
        except (sqlite3.Error, ValueError) as error:
            raise unusable(self.path, error) from error
        return Tree(nodes, zxid), sessions

    # Batches

    def begin(self) -> bool:
        """
        Open a transaction, without waiting.

        :returns: whether it is open; False: another process has a lock on the database.
        :raises sqlite3.Error: the disk does not work.
        """
        return self._begin(0)

    def wait_and_begin(self) -> float:
        """
        Open a transaction as soon as no other process has a lock. Blocks for at most
        ``LOCK_SECONDS``.

        :returns: the seconds that it took.
        :raises sqlite3.Error: the disk does not work.
        :raises StorageError: the other process still has its lock.
        """
        began = time.monotonic()
        if not self._begin(LOCK_SECONDS * 1000):
            raise StorageError(f"another process has had a lock on it for {LOCK_SECONDS} s")
        return time.monotonic() - began

    def _begin(self, patience: int) -> bool:
        self._set_patience(patience)
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_locked(error):
                raise
            return False
        return True

    def _set_patience(self, milliseconds: int) -> None:
        """Set the time for which sqlite waits for the lock of another process."""
        if milliseconds != self._patience:
            self._database.execute(f"PRAGMA busy_timeout = {milliseconds}")
            self._patience = milliseconds

    def write(
        self,
        nodes: Mapping[str, Node | None],
        sessions: Mapping[int, Session | None],
        zxid: int,
    ) -> None:
        """
        Write these states in the open transaction; None removes.

        :raises sqlite3.Error: none of them will be on the disk.
        """
        database = self._database
        try:
            self._nodes.write(nodes)
            if sessions:
                there = [session_row(s) for s in sessions.values() if s is not None]
                database.executemany(_PUT_SESSION, there)
                database.executemany(_DELETE_SESSION, _removed(sessions))
            database.execute(_PUT_ZXID, (zxid,))
        except BaseException:
            self._give_up()
            raise
        self._zxid = zxid

    def commit(self) -> float:
        """
        End the transaction; returns when it is on the disk and may be acknowledged.

        :returns: the duration in seconds.
        :raises sqlite3.Error: the transaction was not committed.
        :raises OSError: it was committed, but the marker could not be written.
        """
        began = time.monotonic()
        try:
            self._database.execute("COMMIT")
        except BaseException:
            self._give_up()
            raise
        seconds = time.monotonic() - began
        if seconds > SLOW_SECONDS:
            self.slow_commits += 1
        self._marker.write(self._zxid)
        self.untidy = True
        return seconds

    def _give_up(self) -> None:
        """The open batch has failed."""
        self._roll_back()
        self._nodes.rolled_back()

    def _roll_back(self) -> None:
        # After an error of the disk sqlite has often rolled back itself. The database stays open:
        # if it were opened again after a failed flush, it would treat the failed transaction as
        # committed, because the kernel still has it in memory, although it may never be written.
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def probe(self, zxid: int) -> None:
        """
        Check whether the disk works again.

        :param zxid: the last zxid in use, stored as with a batch.
        :raises sqlite3.Error: it does not work.
        """
        fill = f"INSERT INTO probe VALUES (zeroblob({PROBE_BYTES}))"
        for statement in (fill, "DELETE FROM probe"):
            self.wait_and_begin()
            self.write({}, {}, zxid)
            try:
                self._database.execute(statement)
            except BaseException:
                self._give_up()
                raise
            self.commit()

    # Between batches

    def tidy(self) -> None:
        """
        Flush the marker, and return some free pages to the file system if there are many: a few
        milliseconds.

        :raises OSError: the disk does not work.
        """
        self.untidy = False
        self._marker.sync()
        execute = self._database.execute
        (free,) = execute("PRAGMA freelist_count").fetchone()
        (pages,) = execute("PRAGMA page_count").fetchone()
        if free > max(KEPT_BYTES // self._page_bytes, pages // 4):
            self._shrink()

    def _shrink(self) -> None:
        vacuum = VACUUM_BYTES // self._page_bytes
        try:
            self._set_patience(0)
            # A script, because ``execute`` would run one step of this, which returns one page.
            self._database.executescript(
                f"BEGIN IMMEDIATE; PRAGMA incremental_vacuum({vacuum}); COMMIT;"
                " PRAGMA wal_checkpoint(PASSIVE)"  # makes the file shorter
            )
        except sqlite3.Error:
            self._roll_back()  # tried again after the next batch, which reports the error
        else:
            self.untidy = True

    def close(self) -> None:
        """Copy the write-ahead log into the database and close it; committed batches stay."""
        self._database.close()
        self._marker.close()


def _removed(changes: Mapping[K, object]) -> Iterable[tuple[K]]:
    return [(key,) for key, value in changes.items() if value is None]
