"""
A disk with a shadow: what would be there after a power cut, and what the kernel has forgotten.

Pages that are not flushed are dropped when a sync fails, as the kernel may do with them; what is
read there then is what was flushed before, or zeros. The n-th call can be made to fail, to be
short, or to hang.
"""

from __future__ import annotations

import errno
import os
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from metamorphosis.store.disk import Disk
from metamorphosis.threads import SynchronousThreads

PAGE = 64
"""Small, so that a few messages are many pages."""

FAIL, SHORT, HANG = KINDS = ("fail", "short", "hang")


class Hung(BaseException):
    """A call does not return; see ``HangingThreads``."""


class HangingThreads(SynchronousThreads):
    """
    Workers one of which may hang: its work is done, from the call that hung on, at ``thaw``.

    :ivar inside: a worker is at work.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inside = False
        self._hung: deque[tuple[Callable[[], Any], Callable[..., None]]] = deque()

    @property
    def hung(self) -> int:
        """Workers that hang."""
        return len(self._hung)

    def submit(self, work: Callable[[], Any], done: Callable[[Any, Any], None]) -> None:
        """See ``IWorkerThreads``."""
        outer, self.inside = self.inside, True
        result: Any = None
        failed: BaseException | None = None
        try:
            result = work()
        except Hung:
            self._hung.append((work, done))
            return
        except Exception as error:
            failed = error
        finally:
            self.inside = outer
        done(result, failed)

    def thaw(self) -> None:
        """Everything that hung goes on."""
        hung, self._hung = self._hung, deque()
        for work, done in hung:
            self.submit(work, done)


class ShadowDisk(Disk):
    """
    See the module.

    :param in_worker: whether a call comes from a worker: only such may hang.
    :param rng: decides which pages are dropped.
    :ivar fault_at: number of the first call that goes wrong, 0: none does.
    :ivar fault_count: how many go wrong, from there on.
    :ivar kind: what they do.
    :ivar calls: names of the calls, in order.
    """

    __slots__ = (
        "_durable",
        "_in_worker",
        "_paths",
        "_rng",
        "calls",
        "fault_at",
        "fault_count",
        "kind",
    )

    def __init__(self, in_worker: Callable[[], bool], rng: random.Random) -> None:
        self._in_worker = in_worker
        self._rng = rng
        self._paths: dict[int, str] = {}
        self._durable: dict[str, bytes] = {}
        self.fault_at = 0
        self.fault_count = 1
        self.kind = FAIL
        self.calls: list[str] = []

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        self.fault_at = 0

    def after_power_cut(self) -> dict[str, bytes]:
        """What is found on the disk then, by path."""
        return dict(self._durable)

    def _call(self, name: str) -> str | None:
        """What happens to this call; None: it works."""
        self.calls.append(name)
        if not self.fault_at or not 0 <= len(self.calls) - self.fault_at < self.fault_count:
            return None
        if self.kind == HANG:
            if not self._in_worker():
                return None
            self.fault_count = 1  # the others wait for it
            raise Hung()
        if self.kind == SHORT:
            return SHORT
        raise OSError(errno.EIO, f"{name} is broken")

    def create(self, path: str) -> int:
        """See ``Disk``."""
        self._call("create")
        fd = super().create(path)
        self._paths[fd] = path
        self._durable.setdefault(path, b"")
        return fd

    def open(self, path: str, writable: bool) -> int:
        """See ``Disk``."""
        fd = super().open(path, writable)
        self._paths[fd] = path
        return fd

    def write(self, fd: int, data: bytes | memoryview, position: int) -> int:
        """See ``Disk``."""
        if self._call("write") == SHORT:
            data = memoryview(data)[: len(data) // 2 or 1]
        return super().write(fd, data, position)

    def truncate(self, fd: int, size: int) -> None:
        """See ``Disk``."""
        self._call("truncate")
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        """See ``Disk``."""
        self._sync("sync", fd)

    def sync_all(self, fd: int) -> None:
        """See ``Disk``."""
        self._sync("sync_all", fd)

    def _sync(self, name: str, fd: int) -> None:
        path = self._paths[fd]
        try:
            self._call(name)
        except OSError:
            self._forget(fd, self._durable.get(path, b""))
            raise
        with open(path, "rb") as file:
            self._durable[path] = file.read()

    def _forget(self, fd: int, durable: bytes) -> None:
        """The kernel drops any of the pages that are not on the disk."""
        size = os.fstat(fd).st_size
        for start in range(0, size, PAGE):
            if self._rng.random() < 0.5:
                end = min(start + PAGE, size)
                os.pwrite(fd, durable[start:end].ljust(end - start, b"\0"), start)

    def sync_directory(self, path: str) -> None:
        """See ``Disk``."""
        self._call("sync_directory")

    def close(self, fd: int) -> None:
        """See ``Disk``."""
        self._paths.pop(fd, None)
        super().close(fd)
