"""
Moves directories out of the data path: a log is never deleted.

They are moved next to the data path, because a Java broker with other directories in its data path
misses some partitions at its start. If the data path is the root of a mount, its neighbour is on
another file system: the directory is copied there and flushed, and only then removed.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable

from twisted.logger import Logger

from metamorphosis.errors import StoreError

SUFFIX = ".aside"
UNFINISHED = ".unfinished"
"""Suffix of the name of an incomplete copy; the next copy of that directory removes it."""

_log = Logger()


def move_aside(directory: str, now: Callable[[], float] = time.time) -> str:
    """
    Move the directory of a partition to ``<dataPath>.aside/<topic>-<partition>.<time>``, durably.
    Thread: any; blocks, for the duration of a copy if one is needed.

    :param now: the time of day.
    :returns: the new path.
    :raises StoreError: it was not moved; the text names the remedy.
    """
    data_path, name = os.path.split(os.path.abspath(directory))
    beside = data_path + SUFFIX
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now()))
    target = os.path.join(beside, f"{name}.{stamp}")
    try:
        os.makedirs(beside, exist_ok=True)
        target = _free(target)
        _move(directory, target)
        for path in (beside, data_path):
            _sync(path)
    except OSError as error:
        raise StoreError(
            f"{directory} could not be moved to {target} ({error.strerror or error}): make room"
            f" there, or make {beside} a directory or a link that can be written to, or move the"
            " directory yourself while the broker is down"
        ) from error
    return target


def _free(target: str) -> str:
    """The target, or with a number the first free name."""
    number, found = 1, target
    while os.path.lexists(found):
        number += 1
        found = f"{target}-{number}"
    return found


def _move(directory: str, target: str) -> None:
    try:
        os.rename(directory, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(directory, target)
        # The oldest segments first: after a crash the remaining part of the log has no hole.
        for each in sorted(os.scandir(directory), key=lambda each: each.name):
            if not each.is_dir():
                os.remove(each.path)
        shutil.rmtree(directory)


def _copy(directory: str, target: str) -> None:
    """Copy the files of a directory to another file system, all or nothing."""
    beside, name = os.path.dirname(target), os.path.basename(directory)
    for each in os.listdir(beside):
        if each.startswith(f"{name}.") and each.endswith(UNFINISHED):
            shutil.rmtree(os.path.join(beside, each))
    sizes = [os.path.getsize(os.path.join(directory, each)) for each in os.listdir(directory)]
    free = shutil.disk_usage(beside).free
    if sum(sizes) > free:
        text = f"it has {sum(sizes)} bytes, and that other file system has room for {free}"
        raise OSError(errno.ENOSPC, text)
    _log.info(
        "{directory} is copied to {target}, because that is another file system: {size} bytes",
        directory=directory,
        target=target,
        size=sum(sizes),
    )
    unfinished = target + UNFINISHED
    try:
        shutil.copytree(directory, unfinished)
        for each in os.listdir(unfinished):
            _sync(os.path.join(unfinished, each))
        _sync(unfinished)
        os.rename(unfinished, target)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
