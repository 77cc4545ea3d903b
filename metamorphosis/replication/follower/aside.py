"""
Directories that leave the data path: nothing of a log is ever removed.

They lie beside the data path, because a Java broker that finds anything but partitions in it
forgets some of them at its start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from metamorphosis.errors import StoreError

SUFFIX = ".aside"


def move_aside(directory: str, now: Callable[[], float] = time.time) -> str:
    """
    Move the directory of a partition to ``<dataPath>.aside/<topic>-<partition>.<time>``, and make
    that durable. Thread: any; blocks.

    :param now: the time of day.
    :returns: where it is now.
    :raises StoreError: it is where it was; the text says what would help.
    """
    data_path, name = os.path.split(os.path.abspath(directory))
    beside = data_path + SUFFIX
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now()))
    target = os.path.join(beside, f"{name}.{stamp}")
    try:
        os.makedirs(beside, exist_ok=True)
        target = _free(target)
        os.rename(directory, target)
        for path in (beside, data_path):
            _sync(path)
    except OSError as error:
        raise StoreError(
            f"{directory} could not be moved to {target} ({error.strerror}); {beside} has to be a"
            " directory of the same file system: make it one, or move the directory yourself while"
            " the broker is down"
        ) from error
    return target


def _free(target: str) -> str:
    """A name that is not taken."""
    number, found = 1, target
    while os.path.lexists(found):
        number += 1
        found = f"{target}-{number}"
    return found


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
