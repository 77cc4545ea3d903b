"""
Messages kept on the local disk until they can be delivered: a queue in a SQLite file.

A message is on the disk when ``append`` returns, and survives a crash of the process or the
machine. A removed message does not reappear, except for the last removals before a crash of the
machine.

Processes share a directory without seeing each other's messages. The file ``<name>.sqlite`` is
locked by the first process that opens it; the next process gets ``<name>~2.sqlite``, and so on.
Opening a name takes over the messages in files of that name that no process has open: so the
messages of a dead process are delivered by the next one.

Every method blocks: call them in a worker thread.

Source: ``MessageStore``, ``JournalStore``.

Differs: the format is our own, and stores of Java clients are not touched; processes may share a
directory, which destroys the original's stores.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from metamorphosis.errors import LocalStoreError

#: a page of ``items`` ends with the item that exceeds one of these
PAGE_ITEMS: Final = 500
PAGE_BYTES: Final = 8 << 20

_FILE: Final = re.compile(r"(?P<name>[^~]+)(?:~[0-9]+)?\.sqlite")

#: in exclusive mode the lock is taken with the first access and kept until the file is closed
_OPENING: Final = (
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "BEGIN EXCLUSIVE",
    "CREATE TABLE IF NOT EXISTS items"
    " (token INTEGER PRIMARY KEY AUTOINCREMENT, key INTEGER NOT NULL, value BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS items_key ON items (key)",
    "COMMIT",
)


class Item(NamedTuple):
    """A kept message: ``token`` for ``remove``, increasing in the order of arrival."""

    token: int
    key: int
    value: bytes


class LocalStore:
    """
    One queue. Created by ``open``. Thread: any; calls wait for each other.

    :ivar path: the file.
    :raises LocalStoreError: from every method, after an error of the disk or the file.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = Lock()
        self._closed = False
        self._count: int
        with self._doing("count"):
            (self._count,) = connection.execute("SELECT COUNT(*) FROM items").fetchone()

    @classmethod
    def open(cls, directory: Path | str, name: str) -> LocalStore:
        """
        The queue of that name, created if necessary, with the messages in files of that name that
        no process has open.

        :param name: any text; characters that are special in file names are escaped.
        """
        stem = _stem(name)
        number = 1
        path = Path(directory) / f"{stem}.sqlite"
        while (connection := _open_file(path)) is None:
            number += 1
            path = Path(directory) / f"{stem}~{number}.sqlite"
        store = cls(path, connection)
        for other in _files(Path(directory), stem):
            if other != path:
                store._take_over(other)
        return store

    @staticmethod
    def names(directory: Path | str) -> list[str]:
        """The names that have files in the directory, sorted."""
        found = (_FILE.fullmatch(path.name) for path in Path(directory).glob("*.sqlite"))
        return sorted({unquote(match["name"]) for match in found if match})

    def append(self, key: int, value: bytes) -> None:
        """
        Append an item. An item with the same key and value as an existing one is not stored
        twice.

        :param key: 64 bits, signed.
        """
        self.append_all([(key, value)])

    def append_all(self, items: Iterable[tuple[int, bytes]]) -> None:
        """Append all items or, with an error, none; with one flush of the disk for all of them."""
        with self._doing("append") as connection:
            before = connection.total_changes
            connection.executemany(
                "INSERT INTO items (key, value)"
                " SELECT new.key, new.value FROM (SELECT ? AS key, ? AS value) AS new"
                " WHERE NOT EXISTS (SELECT 1 FROM items"
                " WHERE items.key = new.key AND items.value = new.value)",
                items,
            )
            added = connection.total_changes - before
            connection.commit()
            self._count += added

    def items(self, after: int = 0) -> list[Item]:
        """
        The oldest items, a page at a time; an empty page is the end.

        :param after: the token of the last item of the previous page.
        """
        found: list[Item] = []
        size = 0
        with self._doing("read") as connection:
            for row in connection.execute(
                "SELECT token, key, value FROM items WHERE token > ? ORDER BY token", (after,)
            ):
                found.append(Item(*row))
                size += len(row[2])
                if len(found) >= PAGE_ITEMS or size >= PAGE_BYTES:
                    break
        return found

    def remove(self, token: int) -> None:
        """Remove an item; an unknown token is ignored."""
        self.remove_all([token])

    def remove_all(self, tokens: Iterable[int]) -> None:
        """Remove all of these items at once."""
        with self._doing("remove") as connection:
            before = connection.total_changes
            connection.executemany(
                "DELETE FROM items WHERE token = ?", [(token,) for token in tokens]
            )
            removed = connection.total_changes - before
            connection.commit()
            self._count -= removed

    def count(self) -> int:
        """The number of items, without access to the disk."""
        return self._count

    def close(self) -> None:
        """Close the file; repeated calls do nothing. An empty file shrinks."""
        if self._closed:
            return
        self._closed = True
        try:
            with self._doing("close") as connection:
                if not self._count:
                    connection.execute("VACUUM")
        finally:
            self._connection.close()

    def _take_over(self, path: Path) -> None:
        """Move the messages of a file that no process has open to the end of our own; the empty
        file stays."""
        connection = _open_file(path)
        if connection is None:
            return
        other = LocalStore(path, connection)
        try:
            while page := other.items():
                self.append_all((item.key, item.value) for item in page)
                other.remove_all(item.token for item in page)
        finally:
            other.close()

    def _doing(self, what: str) -> _Doing:
        return _Doing(self, what)


class _Doing:
    """Holds the lock for one operation, rolls it back on failure, and names the file in errors."""

    __slots__ = ("_store", "_what")

    def __init__(self, store: LocalStore, what: str) -> None:
        self._store = store
        self._what = what

    def __enter__(self) -> sqlite3.Connection:
        self._store._lock.acquire()
        return self._store._connection

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        store = self._store
        try:
            if error is not None and store._connection.in_transaction:
                store._connection.rollback()
        except sqlite3.Error:
            pass  # the first error is more informative
        finally:
            store._lock.release()
        if isinstance(error, sqlite3.ProgrammingError):
            raise LocalStoreError(f"{store.path}: {self._what}: closed") from error
        if isinstance(error, sqlite3.Error | OverflowError):
            raise LocalStoreError(f"{store.path}: {self._what}: {error}") from error


def _open_file(path: Path) -> sqlite3.Connection | None:
    """The connection to a file, locked; None if another process has it open."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=0, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise LocalStoreError(f"{path}: cannot be opened: {error}") from error
    try:
        for statement in _OPENING:
            connection.execute(statement)
    except sqlite3.Error as error:
        connection.close()
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return None
        raise LocalStoreError(
            f"{path}: {error}; if the file is damaged, move it away to begin a new one"
        ) from error
    return connection


def _stem(name: str) -> str:
    return quote(name, safe="@-").replace("~", "%7E").replace(".", "%2E")


def _files(directory: Path, stem: str) -> list[Path]:
    """The files of one name."""
    return sorted(
        path
        for path in directory.glob("*.sqlite")
        if path.name.removesuffix(".sqlite").partition("~")[0] == stem
    )
