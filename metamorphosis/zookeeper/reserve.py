"""
Space on the disk that is reserved for a start.

sqlite needs 32 KiB for the index of its write-ahead log even to read a database, and each session
of a client is written. A file of zeros reserves that space; a start on a full disk removes it, so
that the database can be read, and clients can connect until the space is used up.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from twisted.logger import Logger

from metamorphosis.zookeeper.databaseerrors import Kind, StorageError, kind_of
from metamorphosis.zookeeper.storage import Storage

FILE_NAME: Final = "zookeeper.reserve"

RESERVE_BYTES: Final = 1 << 20
"""Enough for the index and some thousand small batches."""

NEEDED_BYTES: Final = 64 << 10
"""With less space the database cannot be opened."""

_log = Logger()


def open_storage(directory: str, accept_loss: bool) -> Storage:
    """
    Open the storage; on a full disk with the reserved space.

    :raises StorageError: see ``Storage``; for a full disk the text has the space that is needed.
    """
    path = os.path.join(os.path.abspath(directory), FILE_NAME)
    try:
        storage = Storage(directory, accept_loss)
    except StorageError as error:
        if kind_of(error.__cause__) is not Kind.DISK or _free(directory) >= NEEDED_BYTES:
            raise
        if not _release(path):
            raise StorageError(
                f"{error}: {_free(directory)} bytes are free in {directory}, {NEEDED_BYTES} are"
                " needed to start; make room, and start again"
            ) from error
        storage = Storage(directory, accept_loss)
        _log.warn(
            "The disk of {path} is full: started with the {size} KiB that were kept for this; make"
            " room soon",
            path=storage.path,
            size=RESERVE_BYTES >> 10,
        )
    else:
        _keep(path)
    return storage


def _free(directory: str) -> int:
    """Free bytes of the disk."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _release(path: str) -> bool:
    """Free the reserved space; returns whether there was any."""
    try:
        os.remove(path)
    except OSError:
        return False
    return True


def _keep(path: str) -> None:
    """Reserve the space, unless it is reserved already or the disk is nearly full."""
    with suppress(OSError):  # the next start tries again
        if os.path.exists(path) and os.path.getsize(path) == RESERVE_BYTES:
            return
        if _free(os.path.dirname(path)) < 4 * RESERVE_BYTES:
            return
        with open(path, "wb") as file:
            file.write(bytes(RESERVE_BYTES))
