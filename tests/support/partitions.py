"""
One partition in a temporary directory, with a disk and a clock under control of the test.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.task import Clock

from metamorphosis.config.model import TopicConfig
from metamorphosis.message import HEADER, encode_record
from metamorphosis.store.batch import Batch
from metamorphosis.store.disk import Disk
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.messagestores import make_store
from metamorphosis.store.opening import open_segments
from metamorphosis.threads import SynchronousThreads
from tests.support.turnclock import TurnClock

# The vectors of the storage specification.
M1 = bytes.fromhex("000000053610a68600000000000000010000000068656c6c6f")
M2 = bytes.fromhex("000000053a771143000000000000000200000000776f726c64")
M3 = bytes.fromhex("0000000b0b14fafd000000000000000300000001000000046174747278797a")
M0 = bytes.fromhex("0000000000000000000000000000000400000000")
N0 = "00000000000000000000.meta"
N50 = "00000000000000000050.meta"

HUGE = 10**12
"""An interval, in ms, that never passes."""


class BreakableDisk(Disk):
    """
    The real disk, as long as the test wants it.

    :ivar room: bytes that can still be written, None: any number.
    :ivar broken: names of calls that fail with an I/O error.
    :ivar calls: names of the calls made, in order.
    """

    def __init__(self) -> None:
        self.room: int | None = None
        self.broken: set[str] = set()
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.broken:
            raise OSError(errno.EIO, f"{name} is broken")

    def _take(self, size: int) -> int:
        if self.room is None:
            return size
        if not self.room and size:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = min(size, self.room)
        self.room -= taken
        return taken

    def create(self, path: str) -> int:
        """See ``Disk``."""
        self._call("create")
        return super().create(path)

    def open(self, path: str, writable: bool) -> int:
        """See ``Disk``."""
        self._call("open")
        return super().open(path, writable)

    def write(self, fd: int, data: bytes | memoryview, position: int) -> int:
        """See ``Disk``; takes as much as there is room."""
        self._call("write")
        return super().write(fd, memoryview(data)[: self._take(len(data))], position)

    def truncate(self, fd: int, size: int) -> None:
        """See ``Disk``."""
        self._call("truncate")
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        """See ``Disk``."""
        self._call("sync")

    def sync_all(self, fd: int) -> None:
        """See ``Disk``."""
        self._call("sync_all")

    def sync_directory(self, path: str) -> None:
        """See ``Disk``."""
        self._call("sync_directory")

    def close(self, fd: int) -> None:
        """See ``Disk``."""
        self._call("close")
        super().close(fd)


class Partition:
    """
    Partition 0 of topic ``t`` in ``path``.

    :param gather: see ``StoreEnvironment``.
    :param topic: overrides of its ``TopicConfig``.
    """

    def __init__(
        self,
        path: str,
        max_segment_size: int = 1 << 30,
        flush_delay: float = 0,
        gather: bool = False,
        **topic: Any,
    ) -> None:
        self.path = os.path.abspath(path)
        self.directory = os.path.join(self.path, "t-0")
        self.clock = TurnClock() if gather else Clock()
        self.clock.advance(1385000000)
        self.threads = SynchronousThreads()
        self.disk = BreakableDisk()
        self.dirty: list[MessageStore] = []
        self.environment = StoreEnvironment(
            threads=self.threads,
            clock=self.clock,
            schedule=FlushSchedule(self.clock),
            on_dirty=self.dirty.append,
            max_segment_size=max_segment_size,
            flush_delay=flush_delay,
            disk=self.disk,
            gather=gather,
        )
        topic.setdefault("unflush_interval", HUGE)
        self.topic = TopicConfig("t", **topic)

    def fill(self, **files: bytes) -> Partition:
        """Put segment files there; ``n50=data`` is the file that starts at offset 50."""
        os.makedirs(self.directory, exist_ok=True)
        for name, data in files.items():
            self.put(f"{int(name[1:]):020d}.meta", data)
        return self

    def put(self, name: str, data: bytes) -> Partition:
        """Put a file of that name into the partition's directory."""
        os.makedirs(self.directory, exist_ok=True)
        with open(os.path.join(self.directory, name), "wb") as file:
            file.write(data)
        return self

    def open(self, fast_boot: bool = False) -> MessageStore:
        """Open the store as a broker does."""
        segments = open_segments(self.path, "t", 0, fast_boot, self.disk)
        self.disk.calls.clear()
        return make_store(self.topic, 0, segments, self.environment)

    def read(self, name: str = N0) -> bytes:
        """The content of a file in the partition's directory."""
        with open(os.path.join(self.directory, name), "rb") as file:
            return file.read()

    def files(self) -> dict[str, bytes]:
        """Every file in the partition's directory."""
        return {name: self.read(name) for name in sorted(os.listdir(self.directory))}


def record(size: int, number: int = 1) -> bytes:
    """A stored message of ``size`` bytes in all, with that id."""
    return encode_record(number, 0, bytes([number % 251]) * (size - 20))


def put(store: MessageStore, *records: bytes) -> Batch:
    """Append records to the batch that collects, without committing."""
    batch = store.batch or store.open_batch()
    for one in records:
        _, checksum, number, flag = HEADER.unpack_from(one)
        store.add(number, flag, checksum, one[20:])
    return batch


def stored(store: MessageStore, offset: int = 0, size: int = 1 << 40) -> bytes | None:
    """The bytes that a get returns at an offset."""
    found = store.slice(offset, size)
    if found is None:
        return None
    data = os.pread(found.segment.fd, found.length, found.position)
    assert len(data) == found.length
    return data
