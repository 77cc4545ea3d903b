"""
The tree and the sessions in a file: one sqlite database in a directory of its own.

A batch is one transaction: ``write`` opens it and puts the final state of every changed node and
session into it, ``commit`` ends it and waits for the disk. sqlite's write-ahead log is flushed by
every commit (``synchronous=FULL``), so that what was committed survives kill -9 and a power cut; it
is copied into the database whenever it has grown to 4 MiB.

Anything may read the file while the server runs, as ``sqlite3 zookeeper.sqlite3 .backup`` does.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from metamorphosis.errors import MetaQError
from metamorphosis.zookeeper.acl import OPEN, Acl
from metamorphosis.zookeeper.nodes import Node, parent_of
from metamorphosis.zookeeper.sessions import Session, Sessions
from metamorphosis.zookeeper.tree import Tree

FILE_NAME: Final = "zookeeper.sqlite3"

APPLICATION: Final = 0x4D51_5A4B
"""``MQZK``, what ``file`` shows and tells our databases from others."""

VERSION: Final = 1
"""Of the tables."""

PROBE_BYTES: Final = 1 << 20
"""What must fit onto a disk that is said to work again: the largest request."""

_TABLES: Final = """
    CREATE TABLE node (
        path TEXT PRIMARY KEY, data BLOB, acl TEXT,
        czxid INTEGER, ctime INTEGER, mzxid INTEGER, mtime INTEGER, pzxid INTEGER,
        version INTEGER, creates INTEGER, aversion INTEGER, owner INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE session (id INTEGER PRIMARY KEY, password BLOB, timeout INTEGER);
    CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
    CREATE TABLE probe (space BLOB);
    INSERT INTO state VALUES ('zxid', 0);
"""

_OF_THE_DISK: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)

_PUT_NODE: Final = f"REPLACE INTO node VALUES ({', '.join('?' * 12)})"
_DELETE_NODE: Final = "DELETE FROM node WHERE path = ?"
_PUT_SESSION: Final = "REPLACE INTO session VALUES (?, ?, ?)"
_DELETE_SESSION: Final = "DELETE FROM session WHERE id = ?"
_PUT_ZXID: Final = "UPDATE state SET value = ? WHERE name = 'zxid'"


class StorageError(MetaQError):
    """The database cannot be used; the text names the file."""


class Storage:
    """
    One open database. Thread: any, one at a time.

    :param directory: an existing one that nobody else writes to; see ``DirectoryLock``.
    :raises StorageError: the file cannot be opened, is damaged, or is something else.
    """

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(os.path.abspath(directory), FILE_NAME)
        try:
            # Transactions are begun and ended by us; other threads only ever commit.
            self._database = sqlite3.connect(
                self.path, timeout=1.0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise StorageError(f"Could not open {self.path} ({error})") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self.close()
            raise self._unusable(error) from error
        except StorageError:
            self.close()
            raise

    def _unusable(self, error: object) -> StorageError:
        reason = " ".join(str(error).split())
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OF_THE_DISK:
            advice = "the disk, not the file, needs attention"
        else:
            advice = (
                "if it is damaged, put a backup in its place,"
                " or move it away to begin with no nodes"
            )
        return StorageError(f"Could not use {self.path} ({reason}): {advice}")

    def _prepare(self) -> None:
        """Set the modes, make the tables or check that they are ours."""
        execute = self._database.execute
        if execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise StorageError(f"{self.path}: this file system cannot hold a write-ahead log")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA wal_autocheckpoint = 1000")
        execute("PRAGMA journal_size_limit = 16777216")
        (application,) = execute("PRAGMA application_id").fetchone()
        (version,) = execute("PRAGMA user_version").fetchone()
        empty = execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        if empty and not application and not version:
            self._database.executescript(
                f"BEGIN; {_TABLES} PRAGMA application_id = {APPLICATION};"
                f" PRAGMA user_version = {VERSION}; COMMIT"
            )
        elif application != APPLICATION:
            raise StorageError(f"{self.path} is a database, but none of an embedded ZooKeeper")
        elif version != VERSION:
            raise StorageError(
                f"{self.path} was written by another version: it has format {version}, this"
                f" version reads {VERSION}"
            )

    def load(self, tick: int) -> tuple[Tree, Sessions]:
        """
        What the disk holds.

        :param tick: milliseconds, for ``Sessions``.
        :raises StorageError: the file is damaged.
        """
        execute = self._database.execute
        try:
            for (finding,) in execute("PRAGMA quick_check(1)"):
                if finding != "ok":
                    raise self._unusable(finding)
            (zxid,) = execute("SELECT value FROM state WHERE name = 'zxid'").fetchone()
            nodes = {row[0]: _node(row) for row in execute("SELECT * FROM node")}
            stored = [Session(*row) for row in execute("SELECT id, password, timeout FROM session")]
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise self._unusable(error) from error
        for path in nodes:
            if path != "/" and parent_of(path) not in nodes:
                raise self._unusable(f"node {path} has no parent")
        return Tree(nodes, zxid), Sessions(stored, tick)

    def write(
        self,
        nodes: Mapping[str, Node | None],
        sessions: Mapping[int, Session | None],
        zxid: int,
    ) -> None:
        """
        Open a transaction that makes all this so; None removes.

        :raises sqlite3.Error: nothing of it will be on the disk.
        """
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        try:
            puts = [_row(path, node) for path, node in nodes.items() if node is not None]
            database.executemany(_PUT_NODE, puts)
            if len(puts) < len(nodes):
                database.executemany(_DELETE_NODE, _removed(nodes))
            if sessions:
                there = [s for s in sessions.values() if s is not None]
                database.executemany(_PUT_SESSION, [(s.id, s.password, s.timeout) for s in there])
                database.executemany(_DELETE_SESSION, _removed(sessions))
            database.execute(_PUT_ZXID, (zxid,))
        except BaseException:
            self._roll_back()
            raise

    def commit(self) -> None:
        """
        End the transaction; returns when it is on the disk.

        :raises sqlite3.Error: nothing of it counts.
        """
        try:
            self._database.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        # After an error of the disk sqlite has often done so itself. The database stays open: when
        # it was opened again after a failed flush, it would take what the kernel still has in
        # memory of the failed transaction, and may never write, for committed.
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def probe(self, zxid: int) -> None:
        """
        Find out whether the disk takes something again.

        :param zxid: the last one handed out, kept like those of a batch.
        :raises sqlite3.Error: it does not.
        """
        fill = f"INSERT INTO probe VALUES (zeroblob({PROBE_BYTES}))"
        for statement in (fill, "DELETE FROM probe"):
            self.write({}, {}, zxid)
            try:
                self._database.execute(statement)
            except BaseException:
                self._roll_back()
                raise
            self.commit()

    def close(self) -> None:
        """Copy the write-ahead log into the database and close it; what was committed stays."""
        self._database.close()


def _removed(changes: Mapping[Any, object]) -> Iterable[tuple[Any]]:
    return [(key,) for key, value in changes.items() if value is None]


def _row(path: str, node: Node) -> tuple[Any, ...]:
    return (
        path,
        node.data,
        None if node.acl is OPEN else _acl_text(node.acl),
        node.czxid,
        node.ctime,
        node.mzxid,
        node.mtime,
        node.pzxid,
        node.version,
        node.creates,
        node.aversion,
        node.owner,
    )


def _node(row: tuple[Any, ...]) -> Node:
    _, data, acl, *numbers = row
    return Node(data, OPEN if acl is None else _acl(acl), *numbers)


@lru_cache(1000)
def _acl_text(acl: Acl) -> str:
    return json.dumps(acl)


@lru_cache(1000)
def _acl(text: str) -> Acl:
    return tuple((int(permissions), scheme, name) for permissions, scheme, name in json.loads(text))
