"""
One segment file: its recovery at start, and its descriptor while somebody needs it.

A segment knows nothing of threads: the store decides who calls what. Offsets are those of the
partition, positions those of the file.

Source: ``MessageStore.Segment``, ``FileMessageSet``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

from twisted.logger import Logger

from metamorphosis.errors import StoreError
from metamorphosis.message import HEADER_BYTES, crc32
from metamorphosis.store.disk import Disk

READ_SIZE = 4 << 20
"""Bytes that the recovery reads at once."""

_log = Logger()
_length_and_checksum = Struct(">ii").unpack_from


class Segment:
    """
    A file of consecutive records; all but the last of a store never change again.

    The descriptor of an older segment is opened when somebody reads it. Thread: reactor.

    :ivar start: offset of its first byte.
    :ivar size: bytes appended; the file holds more only after a failed write that could not be
        undone.
    :ivar message_count: records appended or recovered, a block of records counts 1; 0 for what was
        immutable at start.
    :ivar fd: the descriptor, -1 while it is not open.
    :ivar used: somebody read it since ``close_if_idle`` was called last.
    :ivar unsynced_directories: directories that have to be synced with the file, because they got
        new entries for it.
    """

    __slots__ = (
        "_close",
        "_readers",
        "fd",
        "message_count",
        "path",
        "size",
        "start",
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
        self._close: Callable[[int], None] | None = None

    def __repr__(self) -> str:
        return f"<Segment {self.path} of {self.size} bytes>"

    @property
    def end(self) -> int:
        """The offset behind its last record."""
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
        Give the descriptor to ``close`` as soon as nobody reads: the segment leaves its store.
        """
        if self._readers:
            self._close = close
        else:
            self._close_now(close)

    def keep(self) -> None:
        """Take a ``discard`` back that was not carried out yet."""
        self._close = None

    def reopen(self) -> None:
        """
        Open the descriptor for reading.

        :raises StoreError: naming the file.
        """
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(f"Could not read file {self.path} ({error.strerror})") from error

    def close_if_idle(self) -> None:
        """
        Close the descriptor if nobody used it since the last call; the next reader opens it again.
        """
        if self.fd >= 0 and not self.used and not self._readers:
            self._close_now(os.close)
        self.used = False

    def _close_now(self, close: Callable[[int], None]) -> None:
        fd, self.fd = self.fd, -1
        self._close = None
        if fd >= 0:
            close(fd)


class Recovered(NamedTuple):
    """What a scan found: bytes and number of whole, valid records at the front of the file."""

    size: int
    message_count: int


def open_last(disk: Disk, start: int, path: str, fast_boot: bool) -> Segment:
    """
    The segment that is appended to: whole, valid records are kept, the rest is cut off. Thread:
    any; blocks.

    :param fast_boot: take the file as it is, with a message count of 0 (the original's
        ``meta.fast_boot``).
    :raises StoreError: naming the file.
    """
    fd = -1
    try:
        fd = disk.open(path, writable=True)
        file_size = os.fstat(fd).st_size
        size, count = (file_size, 0) if fast_boot else recover(fd, file_size)
        if size < file_size:
            disk.truncate(fd, size)
        # What we found may be in the page cache only, if just the process died; readers now see it.
        disk.sync(fd)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise StoreError(f"Could not open the last segment {path} ({error.strerror})") from error
    if size < file_size:
        _log.warn(
            "{bytes} bytes truncated from {path} behind {count} messages:"
            " no whole, valid message at position {size}",
            bytes=file_size - size,
            path=path,
            count=count,
            size=size,
        )
    return Segment(start, path, size, count, fd)


def recover(fd: int, file_size: int) -> Recovered:
    """
    Walk over the records; the first bad one ends the log. Thread: any; blocks.

    A record is bad if it is incomplete, its length is negative, or its checksum differs in any of
    32 bits. Zero bytes are valid empty messages (D-6). Reads instead of a map of the file: a disk
    error then is an exception, not a signal.
    """
    buffer = bytearray(min(READ_SIZE, file_size))
    view = memoryview(buffer)
    base = 0  # position of buffer[0] in the file
    filled = 0
    at = 0  # position of the next record in the buffer
    count = 0
    while True:
        at, counted, missing = _walk(view, at, filled, file_size - base)
        count += counted
        if not missing:
            return Recovered(base + at, count)
        if at == 0 and filled == len(buffer):
            skip = _check_long_record(fd, base, view)
            if not skip:
                return Recovered(base, count)
            base += skip
            count += 1
            filled = at = 0
        else:
            left = filled - at
            buffer[:left] = buffer[at:filled]
            base += at
            filled, at = left, 0
        got = os.preadv(fd, [view[filled:]], base + filled)
        if not got and base + filled < file_size:
            return Recovered(base, count)  # somebody has cut the file meanwhile
        filled += got


def _walk(view: memoryview, at: int, filled: int, limit: int) -> tuple[int, int, bool]:
    """
    Pass the valid records of ``view[at:filled]``.

    :param limit: where the file ends, as a position in the view.
    :returns: position behind them, their number, and whether more of the file is needed to go on.
    """
    count = 0
    unpack, crc = _length_and_checksum, crc32
    while True:
        body = at + HEADER_BYTES
        if body > filled:
            return at, count, body <= limit
        length, checksum = unpack(view, at)
        end = body + length
        if end > limit or length < 0:
            return at, count, False
        if end > filled:
            return at, count, True
        if crc(view[body:end]) & 0x7FFFFFFF != checksum:
            return at, count, False
        at = end
        count += 1


def _check_long_record(fd: int, position: int, view: memoryview) -> int:
    """
    The length of a record that does not fit into the buffer, which holds its beginning; 0 if its
    checksum is wrong. The caller knows that it lies within the file.
    """
    length, checksum = _length_and_checksum(view, 0)
    end: int = HEADER_BYTES + length
    found = crc32(view[HEADER_BYTES:])
    done = len(view)
    while done < end:
        piece = os.pread(fd, min(end - done, READ_SIZE), position + done)
        if not piece:
            return 0
        found = crc32(piece, found)
        done += len(piece)
    return end if found & 0x7FFFFFFF == checksum else 0
