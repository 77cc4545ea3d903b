"""
The check whether a database lacks acknowledged changes, made before its files are touched.

sqlite must not open such a database in the usual way: it deletes a log beside an empty file, and
when it closes a file it drops the part of the log after a damaged frame. Here the database is
opened read-only, which keeps both files for a rescue.

Differs: ZooKeeper starts with the contents of its snapshots and logs up to the first damaged
record.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from typing import Final
from urllib.parse import quote

from metamorphosis.zookeeper.marker import Acknowledged

LOG: Final = "-wal"
"""Suffix of the name of the write-ahead log."""

SET_ASIDE: Final = ".lost"
"""Suffix for the copy of a log whose loss was accepted."""


def find_loss(path: str, known: Acknowledged | None, patience: float) -> str | None:
    """
    The loss in words; None if nothing is missing.

    :param path: the database.
    :param known: the last acknowledged change, None if it is unknown.
    :param patience: seconds for which another process may have a lock.
    :raises sqlite3.Error: the file cannot be read.
    """
    if _size(path) == 0:
        there = "is empty" if os.path.exists(path) else "is gone"
        if known is not None:
            return f"it {there}, and changes up to zxid {known.zxid:#x} were acknowledged"
        if _size(path + LOG):
            return f"it {there}, and changes of it are in {path}{LOG}"
        return None
    if known is None:
        return None
    identity, zxid = _found(path, patience)
    if zxid < known.zxid and identity in (None, known.identity):
        return (
            f"it ends with zxid {zxid:#x}, and changes up to zxid {known.zxid:#x} were acknowledged"
        )
    if identity != known.identity:
        return f"it is another database than the one that acknowledged zxid {known.zxid:#x}"
    return None


def keep_log(path: str) -> str | None:
    """
    Copy the log aside, because the start overwrites or deletes it.

    :returns: the path of the copy, None if there is no log.
    :raises OSError: the copy could not be written.
    """
    log = path + LOG
    if not _size(log):
        return None
    shutil.copyfile(log, log + SET_ASIDE)
    return log + SET_ASIDE


def _size(path: str) -> int:
    """Bytes of a file, 0 if there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _found(path: str, patience: float) -> tuple[int | None, int]:
    """Identity and zxid from the file and its log."""
    database = sqlite3.connect(f"file:{quote(path)}?mode=ro", timeout=patience, uri=True)
    try:
        query = "SELECT name, value FROM state WHERE typeof(value) = 'integer'"
        values: dict[str, int] = dict(database.execute(query))
        return values.get("identity"), values.get("zxid", 0)
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):  # an empty database, or one of another program
            return None, 0
        raise
    finally:
        database.close()
