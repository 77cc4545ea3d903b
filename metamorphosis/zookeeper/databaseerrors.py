"""
The meaning of an error of the database, and the remedy for an operator.

Only an error that shows a fault of the file itself advises to replace it: a full disk, or a lock of
another program, is no reason to move a valid database away.
"""

from __future__ import annotations

import sqlite3
from enum import Enum
from typing import Final

from metamorphosis.errors import MetaQError


class StorageError(MetaQError):
    """The database cannot be used; the text names the file."""


class Kind(Enum):
    """Kinds of errors, each with its advice."""

    DISK = "the disk, not the file, needs attention"
    ACCESS = (
        "it cannot be opened, which says nothing about what is in it: see the permissions of the"
        " file and its directory, and whether it is a file"
    )
    LOCKED = "another process has a lock on it: end that process; the file needs no attention"
    MEMORY = "the machine has no memory left; the file needs no attention"
    DAMAGED = (
        "if it is damaged, put a backup in its place, or move it away to begin with no nodes, and"
        " start once with --accept-loss"
    )


_KINDS: Final = {
    sqlite3.SQLITE_FULL: Kind.DISK,
    sqlite3.SQLITE_IOERR: Kind.DISK,
    sqlite3.SQLITE_READONLY: Kind.DISK,
    sqlite3.SQLITE_CANTOPEN: Kind.ACCESS,
    sqlite3.SQLITE_PERM: Kind.ACCESS,
    sqlite3.SQLITE_AUTH: Kind.ACCESS,
    sqlite3.SQLITE_BUSY: Kind.LOCKED,
    sqlite3.SQLITE_LOCKED: Kind.LOCKED,
    sqlite3.SQLITE_PROTOCOL: Kind.LOCKED,
    sqlite3.SQLITE_NOMEM: Kind.MEMORY,
}


def primary_code(error: object) -> int:
    """The primary code of sqlite's error; 0 if it is not one of sqlite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def kind_of(error: object) -> Kind:
    """
    The meaning of an error, or of a finding in the file.

    :param error: an error of sqlite or of the system, or a text.
    """
    if isinstance(error, OSError):
        return Kind.ACCESS if isinstance(error, PermissionError) else Kind.DISK
    return _KINDS.get(primary_code(error), Kind.DAMAGED)


def is_locked(error: sqlite3.Error) -> bool:
    """Whether another process has a lock, so that another try may succeed."""
    return kind_of(error) is Kind.LOCKED


def unusable(path: str, error: object) -> StorageError:
    """The error of a file that cannot be used, in one line with the advice for its kind."""
    reason = " ".join(str(error).split())
    return StorageError(f"Could not use {path} ({reason}): {kind_of(error).value}")
