"""
The places of consumers in a log, found by the ids of their last messages.

After a change of the master, the message at a group's stored offset may have another offset in the
new master's log, or be missing from it. ``search`` finds the place of each such position;
``offsetrecovery`` corrects it in ZooKeeper.

Segments are read in pieces, newest first, only as far back as needed. Thread: any; blocks.

Source: ``RecoverManager``, ``OffsetRecoverer``; section 6 of the specification.

Differs: the original compares ids by their order, which is wrong after a reboot of the master's
host, ignores negative ids, which today's ids all are, and resets a group to 0 if it does not find
its message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from metamorphosis.message import HEADER, HEADER_BYTES
from metamorphosis.store.layout import SegmentFile, find_segments
from metamorphosis.store.recovery import recover

PIECE_BYTES: Final = 1 << 20
"""Bytes of a segment in memory at once."""


class Position(NamedTuple):
    """The last message that a group has processed: its id, and the offset after it."""

    message_id: int
    offset: int


class Basis(Enum):
    """The evidence for a new position."""

    SAME_ID = "the message with that id ends there"
    SMALLER_ID = "no message has that id, and the one before it ends there"
    BOUNDARY = "no message has that id, and the last one below the old offset ends there"


class Place(NamedTuple):
    """The place at which a group is to continue."""

    position: Position
    basis: Basis


@dataclass(slots=True)
class _Segment:
    """
    A segment that was read.

    :ivar ordered: its ids ascend and have one sign, and it consists only of records.
    """

    file: SegmentFile
    first_id: int
    last_id: int
    ordered: bool


def search(directory: str, wanted: Iterable[Position]) -> dict[Position, Place]:
    """
    The place of each position in the log of a partition. Positions that are right, or for which no
    better place is known, are not in the result.

    :raises StoreError: the directory, or a file in it, cannot be read.
    :raises OSError: likewise.
    """
    log = _Log(find_segments(directory))
    pending = {each for each in wanted if each.message_id != -1}
    found = log.same_ids(pending)
    for position in pending - found.keys():
        place = log.smaller_id(position) or log.boundary(position)
        if place is not None:
            found[position] = place
    return {old: place for old, place in found.items() if place.position.offset != old.offset}


class _Log:
    """The segments of a partition, and the ids found in them."""

    def __init__(self, files: list[SegmentFile]) -> None:
        self._files = files
        self._read: list[_Segment] = []  # those with records, newest first

    def same_ids(self, wanted: set[Position]) -> dict[Position, Place]:
        """The positions whose message is in the log; reads backwards until all are found."""
        by_id: dict[int, list[Position]] = {}
        for position in wanted:
            by_id.setdefault(position.message_id, []).append(position)
        found: dict[Position, Place] = {}
        for file in reversed(self._files):
            if not by_id:
                break
            for message_id, end in self._records(file, by_id.keys()):
                for old in by_id[message_id]:
                    there = found.get(old)
                    # An id may occur twice: then the stored offset is kept.
                    if there is None or there.position.offset != old.offset:
                        found[old] = Place(Position(message_id, end), Basis.SAME_ID)
            for message_id in {old.message_id for old in found} & by_id.keys():
                del by_id[message_id]
        return found

    def _records(self, file: SegmentFile, ids: Iterable[int]) -> list[tuple[int, int]]:
        """Id and end of the records of a segment that have one of ``ids``."""
        ids = set(ids)
        found: list[tuple[int, int]] = []
        first: int | None = None
        last, ordered, end = 0, True, 0
        for message_id, end in record_ends(file):
            if first is None:
                first = message_id
            elif message_id <= last or (message_id < 0) != (last < 0):
                ordered = False
            last = message_id
            if message_id in ids:
                found.append((message_id, file.start + end))
        if first is not None:
            whole = end == file.size or file is self._files[-1]  # whose tail may be torn
            self._read.append(_Segment(file, first, last, ordered and whole))
        return found

    def smaller_id(self, position: Position) -> Place | None:
        """
        The message with the greatest smaller id. Only if all ids, including the wanted one, have
        one sign and ascend; otherwise their order proves nothing.
        """
        wanted = position.message_id
        segments = self._read
        if not all(each.ordered for each in segments):
            return None
        if any(older.last_id >= newer.first_id for newer, older in zip(segments, segments[1:])):
            return None
        if any((each.last_id < 0) != (wanted < 0) for each in segments):
            return None
        for segment in segments:
            if segment.first_id < wanted:
                smaller = [each for each in record_ends(segment.file) if each[0] < wanted]
                message_id, end = smaller[-1]
                return Place(Position(message_id, segment.file.start + end), Basis.SMALLER_ID)
        return None

    def boundary(self, position: Position) -> Place | None:
        """
        The last message that ends at or below the old offset. None without one, or if bytes below
        the old offset are not records: the boundary is then unknown.
        """
        for file in reversed(self._files):
            if file.start >= position.offset:
                continue
            last: tuple[int, int] | None = None
            for message_id, end in record_ends(file):
                if file.start + end > position.offset:
                    break
                last = message_id, end
            else:
                if self._is_damaged(file, last, position.offset):
                    return None
            if last is not None:
                return Place(Position(last[0], file.start + last[1]), Basis.BOUNDARY)
        return None

    def _is_damaged(self, file: SegmentFile, last: tuple[int, int] | None, offset: int) -> bool:
        """Whether the records end before the file and the offset, other than by a torn tail."""
        end = 0 if last is None else last[1]
        if end >= min(file.size, offset - file.start):
            return False
        if file is not self._files[-1]:
            return True
        with open(file.path, "rb") as segment:
            return recover(segment.fileno(), file.size).damaged_bytes > 0


def record_ends(file: SegmentFile) -> Iterator[tuple[int, int]]:
    """
    Id and end, as a position in the file, of each record; stops at bytes that are not a record.
    """
    at = 0
    with open(file.path, "rb", buffering=0) as segment:
        while at + HEADER_BYTES <= file.size:
            segment.seek(at)
            piece = segment.read(min(PIECE_BYTES, file.size - at))
            inside = 0
            while inside + HEADER_BYTES <= len(piece):
                length, _, message_id, _ = HEADER.unpack_from(piece, inside)
                inside += HEADER_BYTES + length
                if length < 0 or at + inside > file.size:
                    return
                yield message_id, at + inside
            if not inside:
                return  # the file was truncated meanwhile
            at += inside
