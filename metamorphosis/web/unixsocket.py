"""
The Unix socket of the administration: its path, and its name for the kernel.

It is a hidden file in the data path: the broker that locks the directory owns it, and a Java broker
ignores it. The kernel limits the path of a socket to 107 bytes; a longer one is reached through an
open descriptor of its directory.
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
"""Limit of the bytes of a path in a ``sockaddr_un``."""


def socket_path(data_path: str) -> str:
    """The path of a broker's socket."""
    return os.path.join(os.path.abspath(data_path), FILE_NAME)


@contextmanager
def reachable(path: str) -> Iterator[str]:
    """
    A name of the socket that the kernel accepts, valid within the context.

    :raises OSError: the directory does not exist.
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
    Remove the socket of a killed broker. The caller holds the lock of the directory.

    :raises MetaQError: another kind of file has this name.
    :raises OSError: it cannot be removed.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise MetaQError(f"{path} is in the way: it is not a socket. Move it elsewhere")
    os.unlink(path)
