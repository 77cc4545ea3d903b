"""
One segment file: its opening at the start, and its descriptor while it is needed.

A segment does not choose threads: the store decides in which thread a method runs. Offsets are
those of the partition, positions those of the file.

Source: ``MessageStore.Segment``, ``FileMessageSet``.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.logger import Logger

from metamorphosis.errors import StoreError
from metamorphosis.store.disk import Disk
from metamorphosis.store.fields import SegmentFields
from metamorphosis.store.recovery import Recovered, recover

_log = Logger()


class Segment(SegmentFields):
    """
    A file of consecutive records; all but the last of a store never change again.

    The descriptor is opened when it is needed (``Descriptors``). Thread: reactor.

    :ivar start: the offset of its first byte.
    :ivar size: bytes appended; the file holds more only after a failed write that could not be
        undone.
    :ivar message_count: records appended or recovered, a block of records counts 1; 0 for a segment
        that was immutable at the start.
    :ivar fd: the descriptor, -1 while it is not open.
    :ivar used: it was read since the last ``close_if_idle``.
    :ivar unsynced_directories: directories that have to be synced with the file, because they got
        new entries for it.
    """

    __slots__ = (
        "_close",
        "_readers",
        "_writable",
        "path",
        "unsynced_directories",
        "used",
    )

    def __init__(
        self, start: int, path: str, size: int = 0, message_count: int = 0, fd: int = -1
    ) -> None:
        self.start = start
        self.path = path
        self.size = size
        self.message_count = message_count
        self.fd = fd
        self.used = False
        self.unsynced_directories: tuple[str, ...] = ()
        self._readers = 0
        self._writable = fd >= 0
        self._close: Callable[[int], None] | None = None

    def __repr__(self) -> str:
        return f"<Segment {self.path} of {self.size} bytes>"

    @property
    def end(self) -> int:
        """The offset after its last record."""
        return self.start + self.size

    def retain(self) -> None:
        """Keep the descriptor open until ``release``, even if the segment is removed."""
        self._readers += 1

    def release(self) -> None:
        """The reader is done."""
        self._readers -= 1
        if not self._readers and self._close is not None:
            self._close_now(self._close)

    def discard(self, close: Callable[[int], None]) -> None:
        """
        Pass the descriptor to ``close`` as soon as it is not read: the segment leaves its store.
        """
        if self._readers:
            self._close = close
        else:
            self._close_now(close)

    def keep(self) -> None:
        """Cancel a ``discard`` that was not carried out yet."""
        self._close = None

    def reopen(self) -> None:
        """
        Open the descriptor, for writing as well if it was before.

        :raises StoreError: naming the file.
        """
        mode = os.O_RDWR if self._writable else os.O_RDONLY
        try:
            self.fd = os.open(self.path, mode | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(f"Could not open file {self.path} ({error.strerror})") from error

    @property
    def in_use(self) -> bool:
        """Whether it is being read."""
        return self._readers > 0

    def close(self) -> None:
        """Close the descriptor; the next use opens it again."""
        self._close_now(os.close)

    def close_if_idle(self) -> None:
        """
        Close the descriptor if it was not used since the last call; the next reader opens it again.
        """
        if self.fd >= 0 and not self.used and not self._readers:
            self._close_now(os.close)
        self.used = False

    def _close_now(self, close: Callable[[int], None]) -> None:
        fd, self.fd = self.fd, -1
        self._close = None
        if fd >= 0:
            close(fd)


def open_last(disk: Disk, start: int, path: str, fast_boot: bool) -> tuple[Segment, bool]:
    """
    Open the segment that is appended to: it is kept up to its last valid record, the rest is cut
    off. Thread: any; blocks.

    :param fast_boot: take the file unchecked, with a message count of 0 (the original's
        ``meta.fast_boot``).
    :returns: the segment, and whether it is damaged before its last valid record.
    :raises StoreError: naming the file.
    """
    fd = -1
    try:
        fd = disk.open(path, writable=True)
        file_size = os.fstat(fd).st_size
        found = Recovered(file_size, 0) if fast_boot else recover(fd, file_size)
        if found.size < file_size:
            disk.truncate(fd, found.size)
        # If only the process died, these bytes may be in the page cache only; from now on they can
        # be read, so they must be durable.
        disk.sync(fd)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise StoreError(f"Could not open the last segment {path} ({error.strerror})") from error
    if found.damaged_bytes:
        _log.error("{damage}", damage=found.damage(path))
    if found.size < file_size:
        _log.warn(
            "{bytes} bytes truncated from {path} after {count} messages:"
            " no whole, valid message at position {size} or after it",
            bytes=file_size - found.size,
            path=path,
            count=found.message_count,
            size=found.size,
        )
    return Segment(start, path, found.size, found.message_count, fd), bool(found.damaged_bytes)
