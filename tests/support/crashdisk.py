"""
A disk whose process dies at the n-th call, with or without a power cut of its machine.

Writes of a process stay when it dies. After a power cut only synced data is certain: of the rest
any page may be on the disk, and a new name or a removal may be or not.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from contextlib import suppress

from metamorphosis.store.disk import Disk

PAGE = 16
"""Small, so that a record is more than one page."""


class Killed(BaseException):
    """The process is dead; none of its calls reaches the disk."""


class Platters:
    """
    What is certain to be on the disk, over the lives of several processes.

    :ivar contents: of files, as last synced.
    :ivar names: of directories, as last synced.
    """

    def __init__(self, root: str, rng: random.Random) -> None:
        self.root = root
        self.contents: dict[str, bytes] = {}
        self.names: dict[str, set[str]] = {}
        self._rng = rng

    def synced(self, path: str) -> None:
        """Mark the data of a file as certain."""
        with open(path, "rb") as file:
            self.contents[path] = file.read()

    def directory_synced(self, path: str) -> None:
        """Mark the names in a directory as certain."""
        self.names[path] = set(os.listdir(path))

    def cut_power(self) -> None:
        """Change the files to a possible state after a power cut; that state is certain then."""
        for path, directories, names in os.walk(self.root):
            certain = self.names.get(path, set())
            for name in [*directories]:
                if name not in certain and self._rng.random() < 0.5:
                    shutil.rmtree(os.path.join(path, name))
                    directories.remove(name)
            for name in {*names, *certain} - set(directories):
                self._lose(os.path.join(path, name), name in certain)
        for path, directories, names in os.walk(self.root):
            self.names[path] = {*names, *directories}
            for name in names:
                self.synced(os.path.join(path, name))

    def _lose(self, path: str, certain: bool) -> None:
        there = os.path.exists(path)
        if certain is not there and self._rng.random() < 0.5:
            there = not there
        if not there:
            if os.path.exists(path):
                os.unlink(path)
            return
        kept = self.contents.get(path, b"")
        written = kept
        if os.path.exists(path):
            with open(path, "rb") as file:
                written = file.read()
        with open(path, "wb") as file:
            file.write(self._mixed(kept, written))

    def _mixed(self, kept: bytes, written: bytes) -> bytes:
        """The unsynced data with a random choice of its changed pages."""
        if kept == written:
            return kept
        size = self._rng.choice((len(kept), len(written)))
        pieces = []
        for start in range(0, size, PAGE):
            end = min(start + PAGE, size)
            source = self._rng.choice((kept, written))
            pieces.append(source[start:end].ljust(end - start, b"\0"))
        return b"".join(pieces)


class CrashDisk(Disk):
    """
    The disk of one process.

    :param platters: shared by all processes.
    :param die_at: number of the call that is not made any more; 0: none.
    :param torn: a write that is the last call, or that fails, is made in part.
    :param fail_at: number of the call that fails; 0: none.
    :param fill_at: number of the call from which on nothing can be written any more; 0: none.
    :param honest: a full disk says that it is, when it is asked for its room.
    :ivar calls: names of the calls and of their files.
    :ivar full: writes fail; until a test sets it to false.
    """

    __slots__ = (
        "_die_at",
        "_fail_at",
        "_fill_at",
        "_honest",
        "_open",
        "_platters",
        "_torn",
        "calls",
        "dead",
        "full",
    )

    def __init__(
        self,
        platters: Platters,
        die_at: int = 0,
        torn: bool = False,
        fail_at: int = 0,
        fill_at: int = 0,
        honest: bool = True,
    ) -> None:
        self.calls: list[str] = []
        self.dead = False
        self.full = False
        self._fill_at = fill_at
        self._honest = honest
        self._platters = platters
        self._die_at = die_at
        self._torn = torn
        self._fail_at = fail_at
        self._open: dict[int, str] = {}

    def end(self) -> None:
        """Close the open files of the process; stores close some files without their disk."""
        self.dead = True
        for fd, path in self._open.items():
            with suppress(OSError):
                if _path(fd) == path:
                    os.close(fd)
        self._open.clear()

    def _call(self, name: str, path: str) -> None:
        if not self.dead:
            self.calls.append(f"{name} {os.path.relpath(path, self._platters.root)}")
            self.dead = len(self.calls) == self._die_at
        if self.dead:
            raise Killed()
        if len(self.calls) == self._fail_at:
            raise OSError(errno.EIO, f"{name} is broken")
        if len(self.calls) == self._fill_at:
            self.full = True
        if self.full and name in ("create", "overwrite", "write"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def free(self, path: str) -> int:
        """See ``Disk``."""
        return 0 if self.full and self._honest else 64 << 20  # so little that it is always asked

    def create(self, path: str) -> int:
        """See ``Disk``."""
        self._call("create", path)
        return self._opened(super().create(path), path)

    def overwrite(self, path: str) -> int:
        """See ``Disk``."""
        self._call("overwrite", path)
        return self._opened(super().overwrite(path), path)

    def open(self, path: str, writable: bool) -> int:
        """See ``Disk``."""
        return self._opened(super().open(path, writable), path)

    def _opened(self, fd: int, path: str) -> int:
        self._open[fd] = path
        return fd

    def write(self, fd: int, data: bytes | memoryview, position: int) -> int:
        """See ``Disk``."""
        dead = self.dead
        try:
            self._call("write", _path(fd))
        except (Killed, OSError):
            if self._torn and not dead:
                super().write(fd, bytes(data)[: len(data) // 2], position)
            raise
        return super().write(fd, data, position)

    def truncate(self, fd: int, size: int) -> None:
        """See ``Disk``."""
        self._call("truncate", _path(fd))
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        """See ``Disk``."""
        path = _path(fd)
        self._call("sync", path)
        self._platters.synced(path)

    def sync_all(self, fd: int) -> None:
        """See ``Disk``."""
        self.sync(fd)

    def sync_directory(self, path: str) -> None:
        """See ``Disk``."""
        self._call("sync_directory", path)
        self._platters.directory_synced(path)

    def close(self, fd: int) -> None:
        """See ``Disk``."""
        self._open.pop(fd, None)
        with suppress(OSError):
            os.close(fd)

    def remove(self, path: str) -> None:
        """See ``Disk``."""
        self._call("remove", path)
        super().remove(path)

    def replace(self, path: str, by: str) -> None:
        """See ``Disk``; the data goes with the name."""
        self._call("replace", path)
        super().replace(path, by)
        self._platters.contents[path] = self._platters.contents.pop(by, b"")


def _path(fd: int) -> str:
    """Of an open file; a store opens segments again without its disk."""
    return os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")
