"""
The opening of the database: no acknowledged change is missing, the tables are ours, the modes are
set.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from contextlib import suppress
from typing import Final

from metamorphosis.zookeeper.databaseerrors import StorageError, unusable
from metamorphosis.zookeeper.losses import LOG, find_loss, keep_log
from metamorphosis.zookeeper.marker import Acknowledged, Marker, MarkerDamaged
from metamorphosis.zookeeper.rows import COLUMNS, state_value

APPLICATION: Final = 0x4D51_5A4B
"""``MQZK``, the number that identifies our databases; ``file`` shows it."""

VERSION: Final = 2
"""Version of the tables."""

_OF_PATHS: Final = 1
"""The version whose nodes had no ids and were sorted by path. It is rewritten, once."""

LOCK_SECONDS: Final = 10
"""The longest time for which another process may have a lock on the database."""

PAGE_BYTES: Final = 1024
"""
Of a new database. A batch writes every page that it changes, and the nodes of different clients lie
in different pages: with 16 clients that create nodes, pages of 4 KiB, sqlite's default, took a
quarter of the rate. A database that has them keeps them.
"""

LOG_BYTES: Final = 4 << 20
"""The write-ahead log is copied into the database whenever it has grown to this."""

_NODE: Final = """
    CREATE TABLE node (
        id INTEGER PRIMARY KEY, path TEXT, data BLOB, acl TEXT,
        czxid INTEGER, ctime INTEGER, mzxid INTEGER, mtime INTEGER, pzxid INTEGER,
        version INTEGER, creates INTEGER, aversion INTEGER, owner INTEGER
    );
"""

_TABLES: Final = f"""
    {_NODE}
    CREATE TABLE session (id INTEGER PRIMARY KEY, password BLOB, timeout INTEGER);
    CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
    CREATE TABLE probe (space BLOB);
    INSERT INTO state VALUES ('zxid', 0);
"""

_NUMBER_NODES: Final = f"""
    ALTER TABLE node RENAME TO former;
    {_NODE}
    INSERT INTO node SELECT NULL, * FROM former ORDER BY path;
    DROP TABLE former;
"""

_INCREMENTAL: Final = 2  # the value of auto_vacuum that lets free pages be returned


def open_database(
    path: str, marker: Marker, accept_loss: bool
) -> tuple[sqlite3.Connection, str | None]:
    """
    Open the database, or make it, and its marker. Blocks for at most ``LOCK_SECONDS`` while another
    process has a lock.

    :param path: the database.
    :param marker: the marker, which is opened too.
    :param accept_loss: continue with the contents of the files, although more was acknowledged.
    :returns: the database; the loss that was accepted in words, None if nothing is missing.
    :raises StorageError: the file cannot be opened, is damaged, is not one of ours, or has less
        than was acknowledged. The files are unchanged then.
    """
    try:
        known, accepted = _known(path, marker, accept_loss)
        # Transactions are begun and ended explicitly; other threads only commit.
        database = sqlite3.connect(
            path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
    except (sqlite3.Error, OSError) as error:
        raise unusable(path, error) from error
    try:
        _prepare(database, path)
        _mark(database, marker, known)  # the last step: the marker is open only if all is well
    except BaseException as error:
        database.close()
        if isinstance(error, (sqlite3.Error, OSError, ValueError)):
            raise unusable(path, error) from error
        raise
    return database, accepted


def state(database: sqlite3.Connection, name: str) -> int:
    """
    A number of the table ``state``.

    :raises BadRow: it is missing, or not a number.
    """
    row = database.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
    return state_value(name, row)


def page_bytes(database: sqlite3.Connection) -> int:
    """The size of its pages."""
    (size,) = database.execute("PRAGMA page_size").fetchone()
    return int(size)


def _known(path: str, marker: Marker, accept_loss: bool) -> tuple[Acknowledged | None, str | None]:
    """
    The acknowledged change (None: unknown, or not to be checked), and the accepted loss.

    :raises StorageError: the files have less, and that is not accepted.
    """
    try:
        known = marker.read()
        loss = find_loss(path, known, LOCK_SECONDS)
    except MarkerDamaged as error:
        known = None
        loss = f"{error}, so that it is unknown whether the database is complete"
    if loss is None:
        return known, None
    if not accept_loss:
        raise StorageError(
            f"{path} has less than was acknowledged: {loss}. Put the files back, or a backup; to go"
            " on with what is there, start once with --accept-loss"
        )
    kept = keep_log(path)
    return None, loss if kept is None else f"{loss}; a copy of its log is {kept}"


def _prepare(database: sqlite3.Connection, path: str) -> None:
    """Set the modes, and create or check the tables."""
    execute = database.execute
    (application,) = execute("PRAGMA application_id").fetchone()
    (version,) = execute("PRAGMA user_version").fetchone()
    empty = execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    new = empty and not application and not version
    if new:
        # Both count before the first page is written.
        execute(f"PRAGMA page_size = {PAGE_BYTES}")
        execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
    elif application != APPLICATION:
        raise StorageError(f"{path} is a database, but none of an embedded ZooKeeper")
    elif version not in (VERSION, _OF_PATHS):
        raise StorageError(
            f"{path} was written by another version: it has format {version}, this version reads"
            f" {VERSION}"
        )
    if execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise StorageError(f"{path}: this file system cannot hold a write-ahead log")
    execute("PRAGMA synchronous = FULL")
    execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // page_bytes(database)}")
    execute("PRAGMA journal_size_limit = 16777216")
    _empty_log(database, path)
    if new:
        _change(database, f"{_TABLES} PRAGMA application_id = {APPLICATION};")
    elif version == _OF_PATHS:
        _change(database, _NUMBER_NODES)
    _check_columns(database)
    _let_it_shrink(database)


def _empty_log(database: sqlite3.Connection, path: str) -> None:
    """
    Copy the log into the database, so that the next batch begins a new one.

    A process that was killed after a failed flush leaves a batch that the kernel still shows and
    may never write. Behind it, acknowledged batches would be lost in a power cut. On a disk that is
    nearly full the room is left to the next batches.
    """
    with suppress(FileNotFoundError):  # there is none
        if shutil.disk_usage(os.path.dirname(path)).free <= 2 * os.path.getsize(path + LOG):
            return
        with suppress(sqlite3.Error):  # the next batch reports it
            database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def _change(database: sqlite3.Connection, statements: str) -> None:
    """Bring the tables to the present version, or change nothing."""
    database.executescript(f"BEGIN; {statements} PRAGMA user_version = {VERSION}; COMMIT")


def _check_columns(database: sqlite3.Connection) -> None:
    for table, columns in COLUMNS.items():
        found = tuple(row[1] for row in database.execute(f"PRAGMA table_info({table})"))
        if found != columns:
            raise ValueError(
                f"table {table} has the columns {', '.join(found) or '-'}, not {', '.join(columns)}"
            )


def _let_it_shrink(database: sqlite3.Connection) -> None:
    """Rewrite, once, a database of an earlier release, which cannot return free pages."""
    if database.execute("PRAGMA auto_vacuum").fetchone() != (_INCREMENTAL,):
        database.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
        try:
            database.execute("VACUUM")
        except sqlite3.Error:
            pass  # no room for a second copy: the file keeps its size


def _mark(database: sqlite3.Connection, marker: Marker, known: Acknowledged | None) -> None:
    """Open the marker; create it for a database that is new, of an earlier release, or a backup."""
    if known is not None:
        marker.begin(known, new=False)
        return
    database.execute("INSERT OR IGNORE INTO state VALUES ('identity', ?)", (secrets.randbits(63),))
    marker.begin(Acknowledged(state(database, "identity"), state(database, "zxid")), new=True)
