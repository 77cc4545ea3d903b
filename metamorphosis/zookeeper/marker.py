"""
The last acknowledged change, in a separate file, so that a start notices when the database has
less.

sqlite cannot detect that: if the database file is missing or empty, it deletes the write-ahead log
beside it, and it reads the log only up to a damaged frame. The file ``zookeeper.acknowledged``
holds the identity of the database and the zxid of the newest batch that was committed.

Order: a batch is on the disk (``COMMIT``), then its zxid is written here, then it is acknowledged.
So the marker is never ahead of the database, at whatever moment the process is killed, and never
behind an acknowledged change. It costs one ``pwrite`` of 40 bytes per batch and no flush: written
bytes survive the end of the process, even a crash. ``sync`` is called about once a second, for a
power cut: then the marker may be a second behind; a start is not refused, and a loss of the last
second is not noticed.

Two slots, a page each, are written in turn, with a number and a checksum. The newest valid slot
counts, so a torn write leaves the previous one.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import Final

FILE_NAME: Final = "zookeeper.acknowledged"

SLOT_BYTES: Final = 4096
"""Distance of the slots: never in the same page or sector."""

_SLOTS: Final = 2
_MAGIC: Final = b"MQZKack1"
_SLOT: Final = struct.Struct(">8sQQQ")  # magic, number of the write, identity, zxid
_CHECKSUM: Final = struct.Struct(">I")
_LENGTH: Final = _SLOT.size + _CHECKSUM.size


class MarkerDamaged(Exception):
    """The file exists, and no slot of it is valid."""


@dataclass(frozen=True)
class Acknowledged:
    """
    The last acknowledged change.

    :ivar identity: identity of the database.
    :ivar zxid: zxid of the newest batch that may have been acknowledged.
    """

    identity: int
    zxid: int


class Marker:
    """
    The file. Thread: any, one at a time.

    :param directory: the directory of the database.
    :ivar path: the path of the file.
    """

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(os.path.abspath(directory), FILE_NAME)
        self._fd = -1
        self._identity = 0
        self._number = 0
        self._synced = True

    def read(self) -> Acknowledged | None:
        """
        The contents of the file; None if there is no file.

        :raises MarkerDamaged: no slot is valid.
        :raises OSError: the file cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                data = file.read(_SLOTS * SLOT_BYTES)
        except FileNotFoundError:
            return None
        starts = range(0, _SLOTS * SLOT_BYTES, SLOT_BYTES)
        slots = [slot for slot in (_parse(data[at : at + _LENGTH]) for at in starts) if slot]
        if not slots:
            raise MarkerDamaged(f"{self.path} is damaged")
        self._number, identity, zxid = max(slots)
        return Acknowledged(identity, zxid)

    def begin(self, known: Acknowledged, new: bool) -> None:
        """
        Open the file for ``write``.

        :param known: its contents, present or new.
        :param new: create the file, replacing an existing one atomically.
        :raises OSError: the file could not be written.
        """
        self._identity = known.identity
        if new:
            self._make(known)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)

    def _make(self, known: Acknowledged) -> None:
        self._number = 1
        slot = _pack(1, known.identity, known.zxid).ljust(SLOT_BYTES, b"\0")
        temporary = f"{self.path}.new"
        with open(temporary, "wb") as file:
            file.write(slot * _SLOTS)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        directory = os.open(os.path.dirname(self.path), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def write(self, zxid: int) -> None:
        """
        Record a batch that is on the disk and about to be acknowledged.

        :raises OSError: the batch must not be acknowledged.
        """
        number = self._number + 1
        slot = _pack(number, self._identity, zxid)
        if os.pwrite(self._fd, slot, number % _SLOTS * SLOT_BYTES) != len(slot):
            raise OSError(0, "short write", self.path)
        self._number = number
        self._synced = False

    def sync(self) -> None:
        """
        Wait until the written bytes are on the disk.

        :raises OSError: they may not be.
        """
        if not self._synced:
            self._synced = True
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file; its contents stay."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def _pack(number: int, identity: int, zxid: int) -> bytes:
    slot = _SLOT.pack(_MAGIC, number, identity, zxid)
    return slot + _CHECKSUM.pack(zlib.crc32(slot))


def _parse(data: bytes) -> tuple[int, int, int] | None:
    """Number, identity and zxid of a slot, None if it is not valid."""
    if len(data) < _LENGTH or not data.startswith(_MAGIC):
        return None
    slot, checksum = data[: _SLOT.size], data[_SLOT.size :]
    if _CHECKSUM.pack(zlib.crc32(slot)) != checksum:
        return None
    _, number, identity, zxid = _SLOT.unpack(slot)
    return number, identity, zxid
