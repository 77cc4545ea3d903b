"""
One redo file: records that collect over a turn, are written with one call, and are forced for all
replies that wait.

After a failed write the file is cut back to its last whole record, and every record of that write
is refused. If the cut fails too, the file is *damaged*: no write happens until a cut succeeds. If
whole records of that write may stand in a file that cannot be cut, the next start would find them:
their requests get no answer instead of a refusal, and the journal is given up.

Differs: the original leaves the partial record, and its next start loses the records after it.

Source: ``DataFile``; sections 7.5 and 7.6 of the specification of transactions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from metamorphosis.store.batch import FAILED, PENDING, STORED, Outcome
from metamorphosis.store.disk import Disk, write_all


class Written:
    """
    The records of one write, or a force of them: the outcome that replies to their requests wait
    for.

    :ivar state: ``STORED`` when the records are in the file, of a force when they are on the disk.
    :ivar error: the reason of a failure.
    :ivar waiters: called once each when the state changes.
    """

    __slots__ = ("error", "state", "waiters")

    def __init__(self) -> None:
        self.state: Outcome = PENDING
        self.error: BaseException | None = None
        self.waiters: list[Callable[[], None]] = []

    def complete(self, error: BaseException | None = None) -> None:
        """Set the outcome and call all waiters."""
        self.error = error
        self.state = STORED if error is None else FAILED
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()


class OutcomeUnknown(Exception):
    """Records could not be written, and may be found in the file by the next start."""


class Flushable(Protocol):
    """
    A store that holds blocks of committed messages.

    :ivar max_offset: everything below it is on the disk.
    """

    @property
    def max_offset(self) -> int:
        """See the class."""

    def flush(self) -> None:
        """Ask for a flush in the background."""


class RedoFile:
    """
    A file ``redo.<number>`` that is open. Thread: reactor.

    :ivar size: bytes of whole records in the file, without those that collect.
    :ivar references: the number of unfinished transactions whose first record is in this file.
    :ivar keys: keys of transactions that have records here and no outcome; also of those that were
        given up because their rollback could not be recorded.
    :ivar unsynced: the directory's entry of this file may not be on the disk.
    """

    __slots__ = (
        "_collecting",
        "_damaged",
        "_disk",
        "_end",
        "_forces",
        "_unflushed",
        "_write",
        "fd",
        "keys",
        "number",
        "path",
        "references",
        "size",
        "unsynced",
    )

    def __init__(
        self, disk: Disk, number: int, path: str, fd: int, size: int, unsynced: bool
    ) -> None:
        self.number = number
        self.path = path
        self.fd = fd
        self.size = size
        self.references = 0
        self.keys: set[str] = set()
        self.unsynced = unsynced
        self._disk = disk
        self._collecting: list[bytes] = []
        self._end = size
        self._write: Written | None = None
        self._forces: dict[Written, Written] = {}  # write: the force of its records
        self._damaged = False
        self._unflushed: dict[Flushable, int] = {}  # the offset to flush to

    @property
    def end(self) -> int:
        """The position of the next record."""
        return self._end

    def append(self, records: Iterable[bytes], size: int) -> Written:
        """
        Collect records at ``end``; returns the write that they are part of.

        No callback announces the file as dirty: see ``RedoLog.append``.

        :param size: bytes of all records.
        """
        self._collecting += records
        self._end += size
        if self._write is None:
            self._write = Written()
        return self._write

    def force(self, write: Written) -> Written:
        """The force that completes when the records of ``write``, which is still to come, are on
        the disk."""
        forced = self._forces.get(write)
        if forced is None:
            forced = self._forces[write] = Written()
        return forced

    def write(self) -> BaseException | None:
        """
        Write the collected records; returns the error of a failed write.

        :raises OutcomeUnknown: the requests must not be refused; no more can be written.
        """
        write, self._write = self._write, None
        if write is None:
            return None
        records, self._collecting = self._collecting, []
        try:
            if self._damaged:
                self._cut()
            self._write_all(records)
        except OSError as error:
            self._end = self.size
            self._refuse(write, error)
            return error
        self.size = self._end
        write.complete()
        return None

    def _write_all(self, records: list[bytes]) -> None:
        data = b"".join(records)
        try:
            write_all(self._disk, self.fd, data, self.size)
        except OSError as error:
            self._damaged = True
            try:
                self._cut()
            except OSError:
                # Otherwise the cut is tried again before the next write; the first error is the
                # more useful one.
                if self._may_hold(records[0]):
                    raise OutcomeUnknown(str(error)) from error
            raise

    def _may_hold(self, record: bytes) -> bool:
        """Whether the failed write may have left its first record whole in the file."""
        try:
            return self._disk.size(self.fd) >= self.size + len(record)
        except OSError:
            return True

    def _cut(self) -> None:
        self._disk.truncate(self.fd, self.size)
        self._damaged = False

    def _refuse(self, write: Written, error: OSError) -> None:
        forced = self._forces.pop(write, None)
        write.complete(error)
        if forced is not None:
            forced.complete(error)

    def take_forces(self) -> list[Written]:
        """The forces whose records are written, to be completed by the caller's sync."""
        ready = [forced for write, forced in self._forces.items() if write.state is STORED]
        self._forces = {w: forced for w, forced in self._forces.items() if w.state is PENDING}
        return ready

    @property
    def wants_force(self) -> bool:
        """Whether a reply waits for a force of written records."""
        return any(write.state is STORED for write in self._forces)

    # Blocks that its commits have stored

    def stands_in(self, store: Flushable, end: int) -> None:
        """A block of a commit is written, up to ``end``; until it is flushed the file is needed."""
        if store.max_offset < end:
            self._unflushed[store] = end

    def flush_blocks(self) -> bool:
        """Whether every block is on the disk; asks for the flush of the others."""
        if self._unflushed:
            self._unflushed = {
                store: end for store, end in self._unflushed.items() if store.max_offset < end
            }
            for store in self._unflushed:
                store.flush()
        return not self._unflushed
