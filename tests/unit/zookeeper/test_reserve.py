"""The room that is kept for a start on a full disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper import reserve
from metamorphosis.zookeeper.databaseerrors import StorageError, unusable
from metamorphosis.zookeeper.storage import Storage


class ReserveTests(SynchronousTestCase):
    """A disk that is full while ``full`` is set, unless the room has been given back."""

    def setUp(self) -> None:
        """There is plenty."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.path = os.path.join(self.directory, reserve.FILE_NAME)
        self.free = 1 << 30
        self.code = sqlite3.SQLITE_FULL
        self.patch(reserve, "_free", lambda directory: self.free)
        self.patch(reserve, "Storage", self.storage)

    def storage(self, directory: str, accept_loss: bool) -> Storage:
        """Cannot be opened while the disk is full."""
        if self.free < reserve.NEEDED_BYTES and os.path.exists(self.path):
            self.fail_to_open()
        if self.free == 1:
            self.fail_to_open()
        return Storage(directory, accept_loss)

    def fail_to_open(self) -> None:
        """As sqlite does."""
        error: Any = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = self.code
        raise unusable(self.directory, error) from error

    def open(self) -> None:
        """A start, and its end."""
        reserve.open_storage(self.directory, False).close()

    def test_kept_and_given_back(self) -> None:
        """A start with room keeps it, one without takes it, the next one with room keeps it."""
        for _ in range(2):
            self.open()
            self.assertEqual(reserve.RESERVE_BYTES, os.path.getsize(self.path))
        self.free = 0
        with capturedLogs() as lines:
            self.open()
        (line,) = map(formatEvent, lines)
        self.assertIn("is full: started with the 1024 KiB that were kept", line)
        self.assertFalse(os.path.exists(self.path))
        self.free = 4 * reserve.RESERVE_BYTES - 1
        self.open()
        self.assertFalse(os.path.exists(self.path))
        self.free = 4 * reserve.RESERVE_BYTES
        self.open()
        self.assertTrue(os.path.exists(self.path))

    def test_half_kept(self) -> None:
        """What a full disk has cut off is made whole."""
        with open(self.path, "wb") as file:
            file.write(b"x")
        self.open()
        self.assertEqual(reserve.RESERVE_BYTES, os.path.getsize(self.path))

    def test_not_kept(self) -> None:
        """The line says how much is missing."""
        self.free = 1
        error = self.assertRaises(StorageError, self.open)
        self.assertIn(f": 1 bytes are free in {self.directory}, 65536 are needed", str(error))

    def test_other_faults(self) -> None:
        """The room stays where it would not help: the file is damaged, or the disk has as much as
        is needed."""
        self.open()
        self.free, self.code = 0, sqlite3.SQLITE_CORRUPT
        self.assertRaises(StorageError, self.open)
        self.assertTrue(os.path.exists(self.path))
        self.code, self.free = sqlite3.SQLITE_FULL, reserve.NEEDED_BYTES
        self.patch(reserve, "Storage", lambda *arguments: self.fail_to_open())
        self.assertRaises(StorageError, self.open)
        self.assertTrue(os.path.exists(self.path))


class FreeTests(SynchronousTestCase):
    """The space of the disk."""

    def test_free(self) -> None:
        """In bytes, as every program sees it."""
        self.assertAlmostEqual(reserve._free("."), shutil.disk_usage(".").free, delta=1 << 30)
