"""
Message ids: wall clock, unique, and increasing over restarts and clock steps.

An id is ``(ms - 1303895660503) << 22 | broker_id << 12 | sequence``.

Differs: the original takes ``ms`` from a clock that starts with the machine, so its ids are
negative, and repeat after a reboot; clients that remember ids then drop new messages as duplicates
(O-2). While the clock stands still, goes back or shows an impossible time, the original waits or
refuses the put; here ids continue from the last one, without blocking. ``IdCeiling`` keeps on disk
an upper limit of all ids so far.

Source: ``IdWorker``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from math import inf
from time import time
from typing import Protocol, TypeVar

from metamorphosis.errors import StoreError

EPOCH_MS = 1303895660503
"""27 April 2011, as in the original."""
MILLISECOND = 1 << 22
"""The step of ids in a millisecond."""
LAST_SEQUENCE = 0xFFF
MAX_BROKER_ID = 1023
FILE_NAME = ".metamorphosis.ids"
AHEAD = 60_000 * MILLISECOND
"""
The ceiling on disk is up to a minute ahead, so it is written every half minute, and only while
messages arrive.
"""
RETRY_SECONDS = 1
END = 1 << 63
"""Above every id: ids are stored as int64."""
LATEST = END - 365 * 86_400_000 * MILLISECOND
"""
Ids end on 1 January 2081. A clock within a year of that, or later, is wrong and ignored: ids then
continue without it. The ids that are left then are more than a broker can use up.
"""


T = TypeVar("T")


class Submits(Protocol):
    """The part of ``IWorkerThreads`` that ids use."""

    def submit(
        self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        """See ``IWorkerThreads.submit``."""


class IdCeiling:
    """
    A file with an id that is higher than that of every message. Thread: reactor, except ``write``.

    Without the file the clock alone decides, as on a new data path. An invalid file is an error: a
    guess could lead to ids that consumers treat as duplicates.

    :param path: plain text, one decimal number; in a data path, where the Java broker ignores it.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> int:
        """
        The ceiling, 0 without a file.

        A ceiling above all ids was written while the clock was past their end. No id was taken
        then, so it counts as missing.

        :raises StoreError: the file is unreadable or does not hold a number.
        """
        try:
            with open(self.path, encoding="ascii") as file:
                text = file.read(64)
            if not text.strip().isdigit():
                raise ValueError(f"it holds {text!r}")
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise StoreError(
                f"Could not read the last message id from {self.path}: {error}. It should hold"
                " one number. If the clock of this machine is right and was not set back since"
                " the broker ran last, remove the file."
            ) from error
        ceiling = int(text)
        return ceiling if ceiling < END else 0

    def write(self, ceiling: int) -> None:
        """
        Replace the file; the new one survives a power cut. Thread: any, one at a time.

        :raises OSError: it could not be written; the old ceiling stays.
        """
        new = self.path + ".new"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            text = b"%d\n" % ceiling
            if os.write(fd, text) != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), new)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(new, self.path)
        directory = os.open(os.path.dirname(os.path.abspath(self.path)), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class MessageIds:
    """
    The ids of one broker. Thread: reactor.

    While the ceiling on disk cannot be raised (full disk), ids continue below it without the clock:
    a minute has 245 million of them, so no put is refused. If it cannot be written at the start, no
    id may be taken until it is.

    :ivar next_id: the id of the next message; the hot path reads it and writes it back.
    :ivar ready: whether ids may be taken.
    :param broker_id: 0 to 1023.
    :param ceiling: the file with the limit of earlier ids; None: only the clock counts.
    :param threads: write the ceiling without blocking the reactor.
    :param clock: seconds since 1970.
    :param on_fault: called with a text for the log when the ceiling cannot be written; once, until
        ``on_end``.
    :param on_end: called with a text when it can be written again.
    :raises StoreError: the ceiling cannot be read.
    :raises ValueError: broker id out of range.
    """

    def __init__(
        self,
        broker_id: int,
        ceiling: IdCeiling | None,
        threads: Submits,
        clock: Callable[[], float] = time,
        on_fault: Callable[[str], None] = lambda text: None,
        on_end: Callable[[str], None] = lambda text: None,
    ) -> None:
        if not 0 <= broker_id <= MAX_BROKER_ID:
            raise ValueError("worker Id can't be greater than 1023 or less than 0")
        self._bits = broker_id << 12
        self._clock = clock
        self._threads = threads
        self._on_fault = on_fault
        self._on_end = on_end
        self._file = ceiling
        last = ceiling.read() if ceiling is not None else 0
        # The first id is positive even if the clock shows 1970, and above the last id of any
        # earlier run.
        floor = self._floor()
        after = (last // MILLISECOND + 1) * MILLISECOND | self._bits
        self.next_id = max(floor, after) if floor < LATEST else after
        self.ready = True
        self._ceiling = self._raise_at = END
        self._raising = False
        self._failing = False
        self._failed_at = -inf  # time of the last failure to raise the ceiling
        if ceiling is not None:
            self._write_first(ceiling)

    def _write_first(self, file: IdCeiling) -> None:
        try:
            file.write(self.next_id + AHEAD)
        except OSError as error:
            self.ready = False
            self._ceiling = self._raise_at = 0
            self._failing = True
            self._on_fault(
                f"Could not write the last message id to {file.path}: {error}."
                " Messages can be read; puts are refused until it can be written"
            )
        else:
            self._set_ceiling(self.next_id + AHEAD)

    def _set_ceiling(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._raise_at = ceiling - AHEAD // 2

    def prepare(self) -> None:
        """Try again, in a worker, to write the ceiling; called every ``RETRY_SECONDS`` until
        ``ready``."""
        if not self.ready:
            self._failed_at = -inf
            self._raise(self.next_id + AHEAD)

    def _floor(self) -> int:
        return (int(self._clock() * 1000) - EPOCH_MS) << 22 | self._bits

    def start_chunk(self) -> int:
        """Raise ``next_id`` to the clock; called once per received chunk. Returns it."""
        floor = (int(self._clock() * 1000) - EPOCH_MS) << 22 | self._bits
        if floor > self.next_id:
            if floor < self._raise_at:
                self.next_id = floor
            else:
                self._near_ceiling(floor)
        return self.next_id

    def carry(self, overflowed: int) -> int:
        """
        The id after the last sequence number of a millisecond: the first of the next.

        :param overflowed: that last id plus one, which has carried into the broker's bits.
        """
        self.next_id = ((overflowed - 1) // MILLISECOND + 1) * MILLISECOND | self._bits
        if self.next_id >= self._raise_at:
            self._raise(self.next_id + AHEAD)
        return self.next_id

    def take(self) -> int:
        """One id, for a message outside the hot path."""
        taken = self.start_chunk()
        self.next_id = taken + 1
        if not self.next_id & LAST_SEQUENCE:
            self.carry(self.next_id)
        return taken

    def stop(self) -> None:
        """
        Write the exact last id for the next start. Blocks for one sync; called when no more ids are
        taken and the threads have stopped.
        """
        if self._file is None:
            return
        try:
            self._file.write(self.next_id)
        except OSError as error:
            # The file still has a higher ceiling, which is safe.
            self._on_fault(f"Could not write the last message id to {self._file.path}: {error}")

    def _near_ceiling(self, floor: int) -> None:
        """
        The clock is near the ceiling: raise the ceiling, and do not pass it before it is written.
        An impossible clock is ignored.
        """
        if floor >= LATEST:
            return
        self._raise(floor + AHEAD)
        if floor < self._ceiling:
            self.next_id = floor

    def _raise(self, ceiling: int) -> None:
        file = self._file
        if self._raising or file is None or 0 <= self._clock() - self._failed_at < RETRY_SECONDS:
            return
        self._raising = True

        def done(_: object, error: BaseException | None) -> None:
            self._raising = False
            if error is None:
                self._raised(ceiling)
                return
            self._failed_at = self._clock()
            if not self._failing:
                self._failing = True
                self._on_fault(
                    f"Could not raise the last message id in {file.path}, ids go on below it:"
                    f" {error}"
                )

        self._threads.submit(lambda: file.write(ceiling), done)

    def _raised(self, ceiling: int) -> None:
        """The new ceiling is in the file."""
        self._set_ceiling(ceiling)
        self.ready = True
        if self._failing and self._file is not None:
            self._failing = False
            self._on_end(f"The last message id can be written again to {self._file.path}")
