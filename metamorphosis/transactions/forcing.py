"""
Forcing redo files to the disk: one ``fdatasync`` in a worker covers all records that were written
before it began; later records wait for the next.

A force that fails leaves the outcome of its records unknown: the kernel may mark the pages as
clean, so that a second ``fdatasync`` proves nothing. The journal is *broken* then, and the waiting
requests are never acknowledged.

For a single client the reactor thread itself forces: see ``lone``.

Source: ``DataFile.force``, ``JournalStore``; section 7.5 of the specification of transactions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.lone import LoneClient
from metamorphosis.store.disk import Disk
from metamorphosis.store.flushing import Sync
from metamorphosis.transactions.redofile import RedoFile, Written

SYNC_SECONDS = 1.0
"""Seconds between two forces in flush mode 2."""


class Forces:
    """
    The forces of all redo files. Thread: reactor.

    :param directory: the directory of the files.
    :param on_forced: called with a file after a force, if none of its records waits for another.
    :param on_broken: called once, with the error that makes outcomes unknown.
    :param gather: the reactor thread may force for a single client.
    :ivar count: ``fdatasync`` calls since the start.
    :ivar broken: the error after which outcomes are unknown; None while forces succeed.
    """

    _log = Logger()

    def __init__(
        self,
        directory: str,
        threads: IWorkerThreads,
        clock: IReactorTime,
        disk: Disk,
        on_forced: Callable[[RedoFile], None],
        on_broken: Callable[[BaseException], None],
        gather: bool = False,
    ) -> None:
        self.count = 0
        self.broken: BaseException | None = None
        self._directory = directory
        self._threads = threads
        self._clock = clock
        self._disk = disk
        self._on_forced = on_forced
        self._on_broken = on_broken
        self._timer: IDelayedCall | None = None
        self._soon: dict[RedoFile, None] = {}
        self._syncing: set[RedoFile] = set()
        self._quiet: list[Deferred[None]] = []
        self._lone = LoneClient(gather)

    def at_once(self, file: RedoFile) -> None:
        """Force the written records; if a force runs, after it."""
        if file in self._syncing or self.broken is not None:
            return
        self._syncing.add(file)
        self._soon.pop(file, None)
        self.count += 1
        directory = self._directory if file.unsynced else None
        forced = file.take_forces()
        work = _force(self._disk, file.fd, directory)
        if not self._lone.flush_here(sum(len(each.waiters) for each in forced)):
            self._threads.submit(work, partial(self._forced, file, forced))
            return
        try:
            seconds = work()
        except OSError as error:
            self._forced(file, forced, None, error)
        else:
            self._forced(file, forced, seconds, None)

    def within_a_second(self, file: RedoFile) -> None:
        """Force the written records within ``SYNC_SECONDS``, together with those written until
        then."""
        self._soon[file] = None
        if self._timer is None:
            self._timer = self._clock.callLater(SYNC_SECONDS, self._second_over)

    def _second_over(self) -> None:
        self._timer = None
        for file in tuple(self._soon):
            self.at_once(file)
        if self._soon and self.broken is None:  # the last force has not ended yet
            self._timer = self._clock.callLater(SYNC_SECONDS, self._second_over)

    def _forced(
        self,
        file: RedoFile,
        forced: list[Written],
        seconds: float | None,
        error: BaseException | None,
    ) -> None:
        self._syncing.discard(file)
        if error is None:
            self._lone.flush_seconds = seconds or 0.0
            file.unsynced = False
            for each in forced:
                each.complete()
            if file.wants_force:
                self.at_once(file)
            else:
                self._on_forced(file)
        elif self.broken is None:
            self._log.critical(
                "Could not flush {path}: {error}. Whether the last transactions are committed is"
                " unknown until the broker is started again",
                path=file.path,
                error=error,
            )
            self.give_up(error)
        self._tell_if_quiet()

    def give_up(self, error: BaseException) -> None:
        """The outcome of the last records is unknown: stop forcing."""
        self.broken = error
        self._on_broken(error)

    def busy(self, file: RedoFile) -> bool:
        """Whether a force of the file runs, or a reply waits for one."""
        return file in self._syncing or file.wants_force

    def quiet(self) -> Deferred[None]:
        """Fires when no file is being forced."""
        done: Deferred[None] = Deferred()
        self._quiet.append(done)
        self._tell_if_quiet()
        return done

    def _tell_if_quiet(self) -> None:
        if self._quiet and not self._syncing:
            quiet, self._quiet = self._quiet, []
            for done in quiet:
                done.callback(None)

    def forget(self, file: RedoFile) -> None:
        """Forget a file that is being deleted."""
        self._soon.pop(file, None)

    def stop(self) -> None:
        """Force no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._soon.clear()


def _force(disk: Disk, fd: int, directory: str | None) -> Callable[[], float]:
    """
    The work that syncs the file, and its directory if given; it returns the duration in seconds.
    """
    sync = Sync(disk, fd)
    if directory is None:
        return sync

    def work() -> float:
        began = time.monotonic()
        sync()
        disk.sync_directory(directory)
        return time.monotonic() - began

    return work
