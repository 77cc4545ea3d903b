"""
The Unix socket of the administration, and how it is found.

It stands in the data path, as a hidden file: the broker that locks the directory owns it, and a
Java broker passes it over. The kernel bounds the path of a socket to 107 bytes; a longer one is
reached through an open descriptor of its directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from metamorphosis.errors import MetaQError

FILE_NAME = ".metamorphosis.admin"
MODE = 0o600
LONGEST = 107
"""Bytes of a path that fit into a ``sockaddr_un``."""


def socket_path(data_path: str) -> str:
    """Where the socket of a broker is."""
    return os.path.join(os.path.abspath(data_path), FILE_NAME)


@contextmanager
def reachable(path: str) -> Iterator[str]:
    """
    The socket under a name that the kernel takes, for as long as the context lasts.

    :raises OSError: there is no such directory.
    """
    if len(os.fsencode(path)) <= LONGEST:
        yield path
        return
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def remove_stale(path: str) -> None:
    """
    Remove the socket that a killed broker has left. The caller holds the lock of the directory.

    :raises MetaQError: there is something else of this name.
    :raises OSError: it cannot be removed.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise MetaQError(f"{path} is in the way: it is not a socket. Move it elsewhere")
    os.unlink(path)
