"""
The lock that gives a data directory to one broker, or to one embedded ZooKeeper.

Differs: two Java brokers can open, and destroy, the same directory. The lock is a plain file, which
the Java broker ignores with a warning; it does not test the lock.
"""

from __future__ import annotations

import fcntl
import os

from metamorphosis.errors import DirectoryLocked, StoreError

FILE_NAME = ".metamorphosis.lock"


class DirectoryLock:
    """
    Held from ``acquire`` to ``release``, or to the end of the process, even a crash. The file
    stays; it holds the process id of its last owner. Thread: any, one at a time; does not block.

    :param directory: an existing data path.
    :param owner: the kind of program that may hold the lock, for the error.
    """

    def __init__(self, directory: str, owner: str = "broker") -> None:
        self.directory = os.path.abspath(directory)
        self._owner = owner
        self._fd = -1

    def acquire(self) -> None:
        """
        Take the lock.

        :raises DirectoryLocked: another process has it; the text names the directory and that
            process.
        :raises StoreError: the file cannot be created.
        """
        path = os.path.join(self.directory, FILE_NAME)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"Could not create the lock file {path} ({error.strerror})") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise DirectoryLocked(
                f"Data directory {self.directory} is in use by another {self._owner},"
                f" process {owner} ({path})"
            ) from None
        except OSError as error:
            os.close(fd)
            raise StoreError(f"Could not lock {path} ({error.strerror})") from error
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except OSError:
            pass  # a full disk: the lock also works without the process id
        self._fd = fd

    def release(self) -> None:
        """Release the lock."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
