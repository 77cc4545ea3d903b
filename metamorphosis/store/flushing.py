"""
The timers of background flushes, and the work of a flush itself.

A store with unflushed messages asks for its next flush: normally it joins the next of
``FlushRounds``; otherwise stores that ask for the same delay share one timer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from metamorphosis.store.disk import Disk, write_all
from metamorphosis.store.fields import TotalFields
from metamorphosis.store.flushrounds import FlushRounds

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from metamorphosis.store.unflushed import Pieces


class FlushSchedule(TotalFields):
    """
    Timers of later flushes. Thread: reactor.

    :param clock: the reactor.
    :ivar rounds: for flushes in the background.
    :ivar unflushed: bytes that all stores together keep until they are flushed.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.rounds = FlushRounds(clock)
        self.unflushed = 0
        self._clock = clock
        self._waiting: dict[float, list[Callable[[], None]]] = {}
        self._calls: dict[float, IDelayedCall] = {}

    def request(self, flush: Callable[[], None], delay: float) -> None:
        """Call ``flush`` within ``delay`` seconds."""
        waiting = self._waiting.get(delay)
        if waiting is not None:
            waiting.append(flush)
            return
        self._waiting[delay] = [flush]
        self._calls[delay] = self._clock.callLater(delay, self._run, delay)

    def stop(self) -> None:
        """Cancel the planned flushes; closing stores flush by themselves."""
        for call in self._calls.values():
            call.cancel()
        self._calls.clear()
        self._waiting.clear()
        self.rounds.stop()

    def _run(self, delay: float) -> None:
        del self._calls[delay]
        for flush in self._waiting.pop(delay):
            flush()


class Rolled(NamedTuple):
    """
    The outcome of the worker's part of a roll.

    :ivar fd: the descriptor of the new segment, -1 if there is none.
    :ivar sync_error: the error of the flush of the old segment; nothing else was tried then.
    :ivar create_error: the error of the creation of the new segment.
    """

    fd: int = -1
    sync_error: BaseException | None = None
    create_error: BaseException | None = None


@contextmanager
def _opened(disk: Disk, fd: int, path: str) -> Iterator[int]:
    """``fd``, or a descriptor of the file if that is -1."""
    if fd >= 0:
        yield fd
        return
    own = disk.open(path, writable=True)
    try:
        yield own
    finally:
        disk.close(own)


def sync_segment(
    disk: Disk, fd: int, path: str, directories: Iterable[str], again: Pieces = ()
) -> None:
    """
    Make a segment's data, and the directory entries that lead to it, durable. Thread: worker.

    :param fd: -1: the worker opens ``path`` for itself, because descriptors are scarce. The errors
        of a file that was closed meanwhile are reported to the next open.
    :param directories: the directories that got a new entry for this segment.
    :param again: bytes to write again first, because an earlier sync has failed: after such an
        error the kernel marks the pages as clean, and a second sync would report success without
        writing them.
    :raises OSError: none of the data may be considered durable.
    """
    with _opened(disk, fd, path) as opened:
        for position, data in again:
            write_all(disk, opened, data, position)
        disk.sync(opened)
    for path in directories:
        disk.sync_directory(path)


class Sync:
    """
    Work: wait until the data of an open file, and its size, are on the disk. ``flushthreads`` has
    threads that do this without the interpreter.

    :param fd: stays open until the work is completed.
    """

    __slots__ = ("disk", "fd")

    def __init__(self, disk: Disk, fd: int) -> None:
        self.disk = disk
        self.fd = fd

    def __call__(self) -> float:
        """Returns the duration in seconds. Thread: any."""
        began = time.monotonic()
        self.disk.sync(self.fd)
        return time.monotonic() - began


def timed_sync(disk: Disk, fd: int, path: str, directories: Iterable[str]) -> Callable[[], float]:
    """The work of ``sync_segment``, which returns its duration in seconds."""
    if fd >= 0 and not directories:
        return Sync(disk, fd)

    def work() -> float:
        began = time.monotonic()
        sync_segment(disk, fd, path, directories)
        return time.monotonic() - began

    return work


def roll_segment(
    disk: Disk, old: int, old_path: str, path: str, directories: Iterable[str]
) -> Rolled:
    """
    Flush the old segment for good, then create its successor. Thread: worker.

    :param old: descriptor of the old segment, -1: the worker opens it.
    :param path: file of the new segment, whose directory is synced with its first flush.
    :param directories: the directories that have to be synced for the old segment.
    """
    try:
        with _opened(disk, old, old_path) as opened:
            disk.sync_all(opened)
        for directory in directories:
            disk.sync_directory(directory)
    except OSError as error:
        return Rolled(sync_error=error)
    try:
        return Rolled(fd=disk.create(path))
    except OSError as error:
        return Rolled(create_error=error)
