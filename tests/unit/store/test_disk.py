"""Complete writes over a disk that takes a part of each call."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.store.disk import Disk, write_all, write_rest

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
