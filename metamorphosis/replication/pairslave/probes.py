"""
The probes of a master that was withdrawn from ZooKeeper because its slave has failed: ``sync`` of a
separate topic. After a 200 the master registers again, so a probe is answered after a test write to
the disk, and is not stored.

Differs: the original stores them, in a partition that later prevents its promotion to a master.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Final

from twisted.logger import Logger

from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.store.disk import Disk

FILE_NAME: Final = ".metamorphosis.probe"
SIZE: Final = 4096

Looked = Callable[[OSError | None], None]


class DiskLook:
    """
    Tests whether directories take new data. Thread: reactor.

    :param threads: for the test, which blocks.
    """

    _log = Logger()

    def __init__(self, threads: IWorkerThreads, disk: Disk = Disk()) -> None:
        self._threads = threads
        self._disk = disk
        self._waiting: list[Looked] = []
        self._failed = False  # the fault is logged

    def ask(self, path: str, others: Iterable[str], looked: Looked) -> None:
        """
        Call ``looked`` with the error or None. Calls during a test share its result, so a disk that
        hangs blocks only one thread.

        :param path: must exist.
        :param others: tested if they exist.
        """
        self._waiting.append(looked)
        if len(self._waiting) == 1:
            self._threads.submit(partial(self._look, path, {*others} - {path}), self._done)

    def _look(self, path: str, others: set[str]) -> None:
        """Thread: worker."""
        self._write(path)
        for other in sorted(others):
            if os.path.isdir(other):
                self._write(other)

    def _write(self, directory: str) -> None:
        path = os.path.join(directory, FILE_NAME)
        fd = self._disk.overwrite(path)
        try:
            if self._disk.write(fd, bytes(SIZE), 0) < SIZE:
                raise OSError(f"{path} was not written to its end; is the disk full?")
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)
            with suppress(OSError):
                self._disk.remove(path)

    def _done(self, result: None, error: BaseException | None) -> None:
        if error is not None and not self._failed:
            self._log.error(
                "A probe of the master is refused, and so are all until this ends: {error}",
                error=error,
            )
        self._failed = error is not None
        waiting, self._waiting = self._waiting, []
        for looked in waiting:
            looked(error if error is None or isinstance(error, OSError) else OSError(str(error)))
