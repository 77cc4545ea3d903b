"""Complete writes over a disk that takes a part of each call."""

from __future__ import annotations

import errno
import os
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.store.disk import MOST_AT_ONCE, Disk, write_all, write_directly, write_rest

DATA = b"0123456789"


class ShortDisk(Disk):
    """
    Writes a few bytes at a time, and at last nothing or an error.

    :param most: bytes of each call, in order; None: the call fails.
    """

    def __init__(self, *most: int | None) -> None:
        self._most = list(most)

    def write(self, fd: int, data: bytes | memoryview, position: int) -> int:
        """See ``Disk``."""
        most = self._most.pop(0)
        if most is None:
            raise OSError("no space")
        return super().write(fd, bytes(data[:most]), position)


class LoggingDisk(Disk):
    """
    Notes the length of each write.

    :ivar sizes: bytes.
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def write(self, fd: int, data: bytes | memoryview, position: int) -> int:
        """See ``Disk``."""
        self.sizes.append(len(data))
        return super().write(fd, data, position)


class WriteTests(SynchronousTestCase):
    """``write_all`` and ``write_rest``."""

    def setUp(self) -> None:
        """A file that has four bytes."""
        self.path = self.mktemp()
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, self.fd)
        os.write(self.fd, b"head")

    def content(self) -> bytes:
        """All bytes of the file."""
        return os.pread(self.fd, 100, 0)

    def test_pieces(self) -> None:
        """Each call continues where the last one has ended."""
        for data in (DATA, memoryview(DATA)):
            write_all(ShortDisk(3, 1, 6), self.fd, data, 4)
            self.assertEqual(b"head" + DATA, self.content())

    def test_error(self) -> None:
        """The error of a later call is raised; the bytes before it are written."""
        error = self.assertRaises(OSError, write_all, ShortDisk(3, None), self.fd, DATA, 4)
        self.assertEqual("no space", str(error))
        self.assertEqual(b"head012", self.content())

    def test_nothing_written(self) -> None:
        """A call that writes nothing is an error that names the position."""
        error = self.assertRaises(OSError, write_all, ShortDisk(3, 0), self.fd, DATA, 4)
        self.assertEqual("wrote nothing at position 7", str(error))

    def test_rest(self) -> None:
        """The rest begins after the written bytes, and their number is returned with the error."""
        self.assertEqual((10, None), write_rest(ShortDisk(4, 6), self.fd, DATA, 3, 4))
        done, error = write_rest(ShortDisk(2, None), self.fd, DATA, 3, 4)
        self.assertEqual((5, "no space"), (done, str(error)))

    def test_empty(self) -> None:
        """No bytes need no call."""
        write_all(ShortDisk(), self.fd, b"", 4)
        self.assertEqual(b"head", self.content())

    def test_long(self) -> None:
        """Long data take several calls: a page of the page cache is as long as a write."""
        data = os.urandom(2 * MOST_AT_ONCE + 10)
        disk = LoggingDisk()
        write_all(disk, self.fd, data, 4)
        self.assertEqual([MOST_AT_ONCE, MOST_AT_ONCE, 10], disk.sizes)
        self.assertEqual(data, os.pread(self.fd, len(data) + 1, 4))


class DirectWriteTests(SynchronousTestCase):
    """``write_directly``."""

    def setUp(self) -> None:
        """Calls of the system are noted."""
        self.fd = os.open(self.mktemp(), os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, self.fd)
        self.sizes: list[int] = []
        self.write = os.pwrite
        self.patch(os, "pwrite", self.note)

    def note(self, fd: int, data: bytes, position: int) -> int:
        """Instead of ``os.pwrite``."""
        self.sizes.append(len(data))
        return self.write(fd, data, position)

    def test_short(self) -> None:
        """One call, even if it takes a part only: the caller continues as after an error."""
        self.assertEqual((10, 0), write_directly(self.fd, DATA, 2))
        self.assertEqual([10], self.sizes)
        with mock.patch("os.pwrite", return_value=3):
            self.assertEqual((3, 0), write_directly(self.fd, DATA, 2))

    def test_long(self) -> None:
        """As many calls as it takes."""
        data = os.urandom(MOST_AT_ONCE + 1)
        self.assertEqual((len(data), 0), write_directly(self.fd, data, 0))
        self.assertEqual([MOST_AT_ONCE, 1], self.sizes)
        self.assertEqual(data, os.pread(self.fd, len(data) + 1, 0))

    def test_errors(self) -> None:
        """The written bytes, and the number of the error, in the first call or in a later one."""
        full = OSError(errno.ENOSPC, "full")
        for data, outcomes, expected in (
            (DATA, [full], (0, errno.ENOSPC)),
            (bytes(MOST_AT_ONCE + 1), [MOST_AT_ONCE, full], (MOST_AT_ONCE, errno.ENOSPC)),
            (bytes(MOST_AT_ONCE + 1), [7, OSError("unknown")], (7, errno.EIO)),
        ):
            with mock.patch("os.pwrite", side_effect=outcomes):
                self.assertEqual(expected, write_directly(self.fd, data, 0))
