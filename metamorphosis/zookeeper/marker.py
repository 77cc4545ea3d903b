"""
The last acknowledged change, in a file of its own, so that a start notices when the database has
less.

sqlite cannot know: a database file that is gone or empty makes it delete the write-ahead log beside
it, and a damaged frame of that log ends the log. The file ``zookeeper.acknowledged`` holds the
identity of the database and the zxid of the newest batch that was committed.

Order: a batch is on the disk (``COMMIT``), then its zxid is written here, then it is acknowledged.
So the marker is never ahead of the database, wherever a kill falls, and never behind what anybody
was told. It costs one ``pwrite`` of 40 bytes a batch and no flush: what is written survives the end
of the process, however it ends. ``sync`` is called about once a second, for a power cut: then the
marker may be that much behind, which refuses nothing, and a loss of the last second is not noticed.

Two slots are written in turn, a page each, with a number and a checksum. The newest whole one
counts, so that a torn write leaves the one before.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import Final

FILE_NAME: Final = "zookeeper.acknowledged"

SLOT_BYTES: Final = 4096
"""From one slot to the next: never in the same page or sector."""

_SLOTS: Final = 2
_MAGIC: Final = b"MQZKack1"
_SLOT: Final = struct.Struct(">8sQQQ")  # magic, number of the write, identity, zxid
_CHECKSUM: Final = struct.Struct(">I")
_LENGTH: Final = _SLOT.size + _CHECKSUM.size


class MarkerDamaged(Exception):
    """The file is there, and no slot of it is whole."""


@dataclass(frozen=True)
class Acknowledged:
    """
    The last change that clients were told of.

    :ivar identity: of the database.
    :ivar zxid: of the newest batch that may have been acknowledged.
    """

    identity: int
    zxid: int


class Marker:
    """
    The file. Thread: any, one at a time.

    :param directory: where the database is.
    :ivar path: of the file.
    """

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(os.path.abspath(directory), FILE_NAME)
        self._fd = -1
        self._identity = 0
        self._number = 0
        self._synced = True

    def read(self) -> Acknowledged | None:
        """
        What the file says; None if there is no file.

        :raises MarkerDamaged: it says nothing.
        :raises OSError: it cannot be read.
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

        :param known: what it says, or is to say.
        :param new: make the file, in place of what may be there, in one step.
        :raises OSError: the disk does not take it.
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
        A batch is on the disk, and about to be acknowledged.

        :raises OSError: it must not be acknowledged.
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

        :raises OSError: it has not.
        """
        if not self._synced:
            self._synced = True
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file; it stays as it is."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def _pack(number: int, identity: int, zxid: int) -> bytes:
    slot = _SLOT.pack(_MAGIC, number, identity, zxid)
    return slot + _CHECKSUM.pack(zlib.crc32(slot))


def _parse(data: bytes) -> tuple[int, int, int] | None:
    """Number, identity and zxid of a slot, None if it is not whole."""
    if len(data) < _LENGTH or not data.startswith(_MAGIC):
        return None
    slot, checksum = data[: _SLOT.size], data[_SLOT.size :]
    if _CHECKSUM.pack(zlib.crc32(slot)) != checksum:
        return None
    _, number, identity, zxid = _SLOT.unpack(slot)
    return number, identity, zxid
