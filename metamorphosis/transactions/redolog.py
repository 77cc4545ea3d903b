"""
The journal: the redo files, the choice of the file for a new transaction, and their forces.

Theory of operation. A record collects in its file (``append``) and is written with all others of
the turn (``commit``, called by the broker's turn). In flush mode 1 a prepare, commit or rollback is
forced (``forcing``). All records of a transaction go to the file of its first one.

Differs: a file is deleted only when the blocks of its commits are flushed too.

Source: ``JournalStore``; sections 7.5, 7.6 and 12.4 of the specification of transactions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import partial
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from metamorphosis.errors import JournalError
from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.store.disk import Disk
from metamorphosis.transactions.forcing import Forces
from metamorphosis.transactions.journalfiles import REDO
from metamorphosis.transactions.redofile import OutcomeUnknown, RedoFile, Written
from metamorphosis.transactions.writefaults import WriteFaults

FILE_LIMIT = 64 << 20
"""A larger redo file, in bytes, takes no new transaction (``meta.tx_journal_file_size``)."""

RETIRE_SECONDS = 1.0
"""Seconds after which a finished file is checked again if its blocks were not flushed."""


class FlushMode(IntEnum):
    """``flushTxLogAtCommit``."""

    NEVER = 0
    AT_COMMIT = 1
    EVERY_SECOND = 2


class JournalEnvironment(NamedTuple):
    """
    The parts of the broker that the journal uses.

    :ivar threads: for forces, deletes and compaction.
    :ivar clock: the timers' clock.
    :ivar on_dirty: called when records begin to collect; ``RedoLog.commit`` must follow in this
        turn.
    :ivar on_broken: called once when the outcome of records is unknown; the broker must stop.
    :ivar disk: the system calls.
    :ivar gather: forces adapt to the behaviour of clients; see ``forcing``.
    """

    threads: IWorkerThreads
    clock: IReactorTime
    on_dirty: Callable[[RedoLog], None]
    on_broken: Callable[[BaseException], None]
    disk: Disk = Disk()
    gather: bool = False


class RedoLog:
    """
    The open redo files. Thread: reactor.

    One long class, because intake, writing and deletion work on the same few files.

    :param directory: the existing directory of the journal.
    :param files: the files left by recovery, in the order of their numbers.
    :param next_number: a number above all that were ever used here.
    :param limit: size in bytes above which a file takes no new transaction.
    :param take_more: transactions may begin in the last of ``files``.
    :ivar writes: number of writes since the start.
    """

    _log = Logger()

    def __init__(
        self,
        directory: str,
        environment: JournalEnvironment,
        mode: FlushMode,
        files: Iterable[RedoFile] = (),
        next_number: int = 1,
        limit: int = FILE_LIMIT,
        take_more: bool = True,
    ) -> None:
        self.directory = directory
        self.mode = mode
        self.writes = 0
        self._environment = environment
        self._forces = Forces(
            directory,
            environment.threads,
            environment.clock,
            environment.disk,
            self._retire,
            environment.on_broken,
            environment.gather,
        )
        self._limit = limit
        self._files = {file.number: file for file in files}
        self._next_number = next_number
        self._dirty: dict[RedoFile, None] = {}
        self._faults = WriteFaults()
        self._retiring: IDelayedCall | None = None
        self._current = self._newest() if self._files else self._create()
        if not take_more:
            self._current = None

    @property
    def files(self) -> list[RedoFile]:
        """The open files, oldest first."""
        return list(self._files.values())

    @property
    def next_number(self) -> int:
        """The number of the next redo file."""
        return self._next_number

    @property
    def forces(self) -> int:
        """``fdatasync`` calls since the start."""
        return self._forces.count

    @property
    def broken(self) -> BaseException | None:
        """The error after which no records are taken; None while the journal works."""
        return self._forces.broken

    def quiet(self) -> Deferred[None]:
        """Fires when no file is being forced."""
        return self._forces.quiet()

    def _newest(self) -> RedoFile | None:
        """The last file; None if it takes no more transactions."""
        newest = next(reversed(self._files.values()))
        return newest if newest.size <= self._limit else None

    def _create(self) -> RedoFile:
        """
        Create a new, empty file.

        :raises JournalError: naming the file.
        """
        number = self._next_number
        path = os.path.join(self.directory, f"{REDO}{number}")
        disk = self._environment.disk
        try:
            fd = disk.create(path)
        except OSError as error:
            raise JournalError(f"Could not create file {path} ({error.strerror})") from error
        self._next_number = number + 1
        file = self._files[number] = RedoFile(disk, number, path, fd, 0, unsynced=True)
        return file

    # Records in

    def begin(self, key: str) -> RedoFile:
        """
        The file for the first record of a transaction; counts a reference.

        Differs: a file never has two open transactions with the same key, which occur on two
        connections with the same local key, or after a transaction that was given up. A start would
        join their messages.

        :param key: the key of the transaction.
        :raises JournalError: a new file is due and cannot be made, or the journal is broken.
        """
        self.check()
        current = self._current
        if current is None or current.end > self._limit or key in current.keys:
            self._current = self._create()
            if current is not None:
                self._retire(current)
            current = self._current
        current.references += 1
        current.keys.add(key)
        return current

    def append(self, file: RedoFile, records: Sequence[bytes]) -> Written:
        """
        Collect records.

        :returns: the write that they are part of.
        :raises JournalError: the journal is broken.
        """
        self.check()
        written = file.append(records, sum(map(len, records)))
        if not self._dirty:
            self._environment.on_dirty(self)
        self._dirty[file] = None
        return written

    def force(self, file: RedoFile, written: Written) -> Written:
        """
        Let the records of a write reach the disk, as the flush mode says.

        :param written: is to come.
        :returns: what a reply to them has to wait for.
        """
        if self.mode is FlushMode.AT_COMMIT:
            return file.force(written)
        if self.mode is FlushMode.EVERY_SECOND:
            self._forces.within_a_second(file)
        return written

    def release(self, file: RedoFile, key: str | None) -> None:
        """
        A transaction that began in ``file`` is finished.

        :param key: its key, if its outcome is written; None: no other transaction with its key may
            use this file.
        """
        file.references -= 1
        if key is not None:
            file.keys.discard(key)
        self._retire(file)

    def check(self) -> None:
        """
        :raises JournalError: the journal is broken.
        """
        if self.broken is not None:
            raise JournalError(f"The transaction journal is broken: {self.broken}")

    # Writing and forcing

    def commit(self) -> None:
        """Write the collected records, and start the force that some wait for."""
        dirty, self._dirty = self._dirty, {}
        for file in dirty:
            self.writes += 1
            try:
                error = file.write()
            except OutcomeUnknown as unknown:
                self._faults.unknown(file, unknown)
                self._forces.give_up(unknown)
                return
            self._faults.written(file, error)
            if file.wants_force:
                self._forces.at_once(file)

    # Files out

    def _retire(self, file: RedoFile) -> None:
        """Delete a file that takes no more transactions and has no unfinished one."""
        if file is self._current and file.size <= self._limit:
            return
        if file.number not in self._files or not self._is_finished(file):
            return
        if not file.flush_blocks():
            self._retire_later()
            return
        if file is self._current and not self._make_next():
            return
        self._delete(file)

    def _is_finished(self, file: RedoFile) -> bool:
        """Whether no transaction needs the file, and no write or force of it is pending."""
        return not (file.references > 0 or file in self._dirty or self._forces.busy(file))

    def _make_next(self) -> bool:
        """Create a new current file; if that fails, the old one stays in use."""
        try:
            self._current = self._create()
        except JournalError as error:
            self._log.warn("{error}; the full one is used until this works", error=error)
            return False
        return True

    def _retire_later(self) -> None:
        """Check finished files again when the stores should have flushed."""
        if self._retiring is None:
            self._retiring = self._environment.clock.callLater(RETIRE_SECONDS, self._retire_all)

    def _retire_all(self) -> None:
        self._retiring = None
        for file in self.files:
            self._retire(file)

    def roll_if_finished(self) -> bool:
        """
        Start a new file if every transaction of the current one is finished, and delete the old
        one, so that a quiet broker does not keep finished records for years.

        :returns: whether it was done.
        :raises JournalError: the new file cannot be made.
        """
        file = self._current
        if file is None or not file.size or not self._is_finished(file):
            return False
        if not file.flush_blocks():
            return False
        self._current = self._create()
        self._delete(file)
        return True

    def _delete(self, file: RedoFile) -> None:
        del self._files[file.number]
        self._forces.forget(file)
        self._environment.threads.submit(
            partial(_remove, self._environment.disk, file.fd, file.path), self._deleted
        )

    def _deleted(self, _: object, error: BaseException | None) -> None:
        if error is not None:
            self._log.warn("Could not delete a redo file: {error}", error=error)

    def close(self) -> None:
        """Close the files without further writes; waiting requests are never answered."""
        self._forces.stop()
        if self._retiring is not None:
            self._retiring.cancel()
            self._retiring = None
        for file in self._files.values():
            self._environment.disk.close(file.fd)
        self._files.clear()


def _remove(disk: Disk, fd: int, path: str) -> None:
    """Close and delete a file. Thread: worker."""
    try:
        disk.close(fd)
    finally:
        disk.remove(path)
