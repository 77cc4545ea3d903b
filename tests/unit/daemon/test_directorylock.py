"""A data directory belongs to one broker."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.daemon.directorylock import FILE_NAME, DirectoryLock
from metamorphosis.errors import DirectoryLocked, StoreError

HOLDER = """
import sys
from metamorphosis.daemon.directorylock import DirectoryLock
DirectoryLock(sys.argv[1]).acquire()
print("locked", flush=True)
sys.stdin.read()
"""


class DirectoryLockTests(SynchronousTestCase):
    """Locks within this process, and one of another."""

    def setUp(self) -> None:
        """An empty data path."""
        self.path = os.path.abspath(self.mktemp())
        os.mkdir(self.path)

    def test_second_lock_is_refused(self) -> None:
        """The text names the directory and the process."""
        lock = DirectoryLock(self.path)
        lock.acquire()
        self.addCleanup(lock.release)
        error = self.assertRaises(DirectoryLocked, DirectoryLock(self.path).acquire)
        self.assertIn(self.path, str(error))
        self.assertIn(f"process {os.getpid()}", str(error))

    def test_release(self) -> None:
        """Afterwards another broker can take it; a second release has no effect."""
        lock = DirectoryLock(self.path)
        lock.acquire()
        lock.release()
        lock.release()
        other = DirectoryLock(self.path)
        other.acquire()
        other.release()

    def test_plain_file(self) -> None:
        """The Java broker ignores plain files in a data path."""
        lock = DirectoryLock(self.path)
        lock.acquire()
        self.addCleanup(lock.release)
        self.assertTrue(os.path.isfile(os.path.join(self.path, FILE_NAME)))

    def test_killed_owner(self) -> None:
        """The lock of another process holds while it lives and is free when it was killed."""
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            assert holder.stdout is not None
            self.assertEqual(holder.stdout.readline(), b"locked\n")
            error = self.assertRaises(DirectoryLocked, DirectoryLock(self.path).acquire)
            self.assertIn(f"process {holder.pid} ", str(error))
        finally:
            holder.kill()
            holder.communicate()
        lock = DirectoryLock(self.path)
        lock.acquire()
        lock.release()

    def test_file_that_cannot_be_created(self) -> None:
        """The error names the file."""
        os.mkdir(os.path.join(self.path, FILE_NAME))
        error = self.assertRaises(StoreError, DirectoryLock(self.path).acquire)
        self.assertIn(os.path.join(self.path, FILE_NAME), str(error))
