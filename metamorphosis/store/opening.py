"""
Finding and opening the partitions of the data paths, at the start and when the first put creates
one.

Everything except ``Loading`` is synchronous, blocks, and has no state: it runs in workers.

Source: ``MessageStoreManager``, ``MessageStore``.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from twisted.logger import Logger

from metamorphosis.errors import SegmentsInvalid, StoreClosed, StoreError
from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.store.disk import Disk
from metamorphosis.store.layout import (
    ensure_directory,
    find_segments,
    partition_directory,
    segment_name,
    split_directory_name,
)
from metamorphosis.store.recovery import recover
from metamorphosis.store.segment import Segment, open_last

JOURNAL = "transactions"
"""Name of the journal's directory, which lies among the partitions unless ``dataLogPath`` is
set."""

_log = Logger()


class Found(NamedTuple):
    """A partition directory that was found at start."""

    topic: str
    partition: int


def open_segments(
    data_path: str,
    topic: str,
    partition: int,
    fast_boot: bool = False,
    disk: Disk = Disk(),
    create_at: int = 0,
) -> list[Segment]:
    """
    The segments of a partition, the last one recovered and open; directory and first segment are
    made if there are none.

    Thread: any; blocks.

    :param create_at: start offset of a first segment.
    :raises StoreError: naming the file or directory.
    """
    ensure_directory(data_path)
    directory = partition_directory(data_path, topic, partition)
    ensure_directory(directory)
    try:
        return _open_files(directory, fast_boot, disk, create_at)
    except StoreError:
        with suppress(OSError):  # it holds files
            os.rmdir(directory)
        raise


def _open_files(directory: str, fast_boot: bool, disk: Disk, create_at: int) -> list[Segment]:
    """See ``open_segments``."""
    try:
        files = find_segments(directory)
    except OSError as error:
        raise StoreError(f"Could not read directory {directory} ({error.strerror})") from error
    if files:
        segments = [Segment(start, path, size) for start, path, size in files[:-1]]
        last, damaged = open_last(disk, files[-1].start, files[-1].path, fast_boot)
        segments.append(last)
        if damaged:
            _begin_anew(disk, directory, segments)
    else:
        segments = [_create(disk, directory, create_at)]
    # Also for existing files: the process that created them may have died before it synced.
    segments[-1].unsynced_directories = (directory, os.path.dirname(directory))
    return segments


def _create(disk: Disk, directory: str, start: int) -> Segment:
    """
    A new, empty segment.

    :raises StoreError: naming the file.
    """
    path = os.path.join(directory, segment_name(start))
    try:
        return Segment(start, path, 0, 0, disk.create(path))
    except OSError as error:
        raise StoreError(f"Could not create file {path} ({error.strerror})") from error


def _begin_anew(disk: Disk, directory: str, segments: list[Segment]) -> None:
    """
    Continue in a new file. A start checks the last file only, so the next start does not search the
    damage again, and a Java broker does not cut off the messages after it.
    """
    try:
        segments.append(_create(disk, directory, segments[-1].end))
    except StoreError as error:
        _log.warn("Messages go into the damaged file as well: {error}", error=error)


def find_damage(data_path: str, found: Found) -> str | None:
    """
    The fault of the last segment of a partition, in words; None if there is none. Changes no file,
    and does not report a torn tail: another broker may be writing it now. Thread: any; blocks.

    :raises StoreError: naming the file.
    :raises SegmentsInvalid: the partition cannot be opened.
    """
    files = find_segments(partition_directory(data_path, found.topic, found.partition))
    if not files:
        return None
    path = files[-1].path
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            recovered = recover(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)
    except OSError as error:
        raise StoreError(f"Could not read file {path} ({error.strerror})") from error
    return recovered.damage(path) if recovered.damaged_bytes else None


def find_partitions(data_path: str) -> list[Found]:
    """
    The partition directories in a data path, sorted; the data path is created if it is missing.
    Thread: any; blocks.

    :raises StoreError: the path is not usable.
    :raises SegmentsInvalid: the text after the last ``-`` of a directory's name is not a number.
    """
    path = os.path.abspath(data_path)
    try:
        if not os.path.exists(path):
            os.mkdir(path)
    except OSError as error:
        raise StoreError(f"Could not make data directory {path} ({error.strerror})") from error
    if not os.path.isdir(path) or not os.access(path, os.R_OK | os.X_OK):
        raise StoreError(f"Data path {path} is not a readable directory")
    found = []
    for name in sorted(os.listdir(path)):
        if name == JOURNAL:
            continue
        entry = os.path.join(path, name)
        if not os.path.isdir(entry):
            if name.startswith(".metamorphosis"):  # a file of this broker
                continue
            _log.warn("Ignore not directory path:{path}", path=entry)
            continue
        try:
            split = split_directory_name(name)
        except SegmentsInvalid as error:
            raise SegmentsInvalid(
                f"{error} ({entry}: a directory is named <topic>-<partition>)"
            ) from None
        if split is None:
            _log.warn("Ignore invlaid directory:{path}", path=entry)
        else:
            found.append(Found(*split))
    return sorted(set(found))


class Loading:
    """
    One run over the data paths. Thread: reactor; ``open_one`` runs in workers.
    """

    def __init__(
        self,
        open_one: Callable[[Found], list[Segment]],
        threads: IWorkerThreads,
        parallel: bool,
    ) -> None:
        self._open_one = open_one
        self._threads = threads
        self._parallel = parallel
        self._waiting: deque[Found] = deque()
        self._running = 0
        self._opened: dict[Found, list[Segment]] = {}
        self._error: BaseException | None = None

    def start(
        self,
        paths: list[str],
        done: Callable[[dict[Found, list[Segment]], BaseException | None], None],
    ) -> None:
        """Call ``done`` with the opened segments, and the first error."""
        self._done = done
        self._running = 1
        self._threads.submit(partial(_find_in_all, paths), self._found)

    def cancel(self) -> None:
        """Open no more partitions; ``done`` gets ``StoreClosed``."""
        if self._error is None:
            self._error = StoreClosed()

    def _found(self, found: list[Found] | None, error: BaseException | None) -> None:
        self._running -= 1
        self._error = self._error or error
        self._waiting.extend(found or ())
        self._next()

    def _next(self) -> None:
        while self._waiting and self._error is None and (self._parallel or not self._running):
            found = self._waiting.popleft()
            self._running += 1
            self._threads.submit(partial(self._open_one, found), partial(self._one_opened, found))
        if not self._running:
            self._running = -1
            self._done(self._opened, self._error)

    def _one_opened(
        self, found: Found, segments: list[Segment] | None, error: BaseException | None
    ) -> None:
        self._running -= 1
        if segments is not None:
            self._opened[found] = segments
        elif self._error is None:
            self._error = error
        self._next()


def _find_in_all(paths: list[str]) -> list[Found]:
    """The partitions in all paths. Thread: worker."""
    return sorted({found for path in paths for found in find_partitions(path)})
