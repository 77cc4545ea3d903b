"""
The system calls of the store that can fail, in one place, so that a test can pass in a disk that is
full or broken.
"""

from __future__ import annotations

import errno
import os
from typing import Final

MOST_AT_ONCE: Final = 512 << 10
"""
Bytes of one write. From a write of 2 MiB the page cache takes pages of 2 MiB; in a virtual machine
that hands free memory back to its host in such pieces (free page reporting), all of these must be
fetched again: 28 us for each 8 KiB, and 2 us in smaller pages, which are seldom handed back.
"""


class Disk:
    """
    The real disk. Every method may block and may raise ``OSError``; see the callers for their
    threads.
    """

    __slots__ = ()

    def create(self, path: str) -> int:
        """
        A descriptor of a new, empty file, for reading and writing.

        An existing empty file counts as new: a crash left it.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if os.fstat(fd).st_size:
            os.close(fd)
            raise FileExistsError(f"{path} exists and is not empty")
        return fd

    def overwrite(self, path: str) -> int:
        """A descriptor of an empty file, for writing; the former contents are lost."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)

    def open(self, path: str, writable: bool) -> int:
        """A descriptor of an existing file."""
        return os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)

    def write(self, fd: int, data: bytes | memoryview, position: int) -> int:
        """Write at ``position``; returns the number of bytes written."""
        return os.pwrite(fd, data, position)

    def free(self, path: str) -> int:
        """Bytes that can still be written on the disk that has this file."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize

    def size(self, fd: int) -> int:
        """Bytes of an open file."""
        return os.fstat(fd).st_size

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file off."""
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Wait until the data, and the size, are on the disk."""
        os.fdatasync(fd)

    def sync_all(self, fd: int) -> None:
        """Wait until data and all metadata are on the disk."""
        os.fsync(fd)

    def sync_directory(self, path: str) -> None:
        """
        Wait until the entries of a directory are on the disk: without it a new file may be lost in
        a crash.
        """
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self, fd: int) -> None:
        """Close; slow for the last descriptor of a big deleted file."""
        os.close(fd)

    def remove(self, path: str) -> None:
        """Delete a file."""
        os.unlink(path)

    def replace(self, path: str, by: str) -> None:
        """Rename ``by`` to ``path``; at any moment ``path`` is the old or the new file."""
        os.replace(by, path)


def write_directly(fd: int, data: bytes, position: int) -> tuple[int, int]:
    """
    Write to the real disk, for a store that allows it, see ``Appender.begin``.

    :returns: the number of written bytes, and the errno; 0: none.
    """
    if len(data) > MOST_AT_ONCE:
        done, failure = write_rest(Disk(), fd, data, 0, position)
        return done, 0 if failure is None else failure.errno or errno.EIO
    try:
        return os.pwrite(fd, data, position), 0
    except OSError as error:
        return 0, error.errno or errno.EIO


def write_rest(
    disk: Disk, fd: int, data: bytes | memoryview, done: int, position: int
) -> tuple[int, OSError | None]:
    """
    Continue a write until all bytes are written or an error occurs, ``MOST_AT_ONCE`` at a time.

    :param done: the number of bytes that are written already.
    :param position: of the first byte of ``data`` in the file.
    :returns: the number of written bytes, and the error.
    """
    view = memoryview(data)  # its slices are no copies
    while done < len(view):
        try:
            written = disk.write(fd, view[done : done + MOST_AT_ONCE], position + done)
        except OSError as error:
            return done, error
        if not written:
            return done, OSError(f"wrote nothing at position {position + done}")
        done += written
    return done, None


def write_all(disk: Disk, fd: int, data: bytes | memoryview, position: int) -> None:
    """
    Write all of ``data``.

    :raises OSError: only a part of it, or nothing, was written.
    """
    _, error = write_rest(disk, fd, data, 0, position)
    if error is not None:
        raise error
