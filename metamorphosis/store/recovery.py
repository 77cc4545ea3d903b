"""
The state of the last segment of a partition at a start: the end of its valid records, and the
damage before that end.

A crash while records are appended leaves a torn tail without a valid record after it; the tail is
cut off. A bad byte in the middle of the file is different: the messages after it were acknowledged,
so the file stays up to its last valid record, and consumers skip the damage.

Differs: the original cuts off everything from the first bad record on.

Source: ``FileMessageSet.recover``.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import NamedTuple

from metamorphosis.message import HEADER, HEADER_BYTES, crc32
from metamorphosis.store.damage import DamageSearch, SearchTooLong, may_be_message

READ_SIZE = 4 << 20
"""Bytes of one read."""

_length_and_checksum = Struct(">ii").unpack_from
_header = HEADER.unpack_from


class Recovered(NamedTuple):
    """
    The result of a scan.

    :ivar size: bytes up to the end of the last valid record; the rest of the file is a torn tail.
    :ivar message_count: valid records in them.
    :ivar damaged_at: position of the first damage.
    :ivar damaged_bytes: bytes of all damage.
    :ivar damaged_places: their number.
    :ivar messages_after: valid records after the first damage.
    :ivar gave_up: the search for valid records was ended early, and ``size`` is that of the file.
    """

    size: int
    message_count: int
    damaged_at: int = 0
    damaged_bytes: int = 0
    damaged_places: int = 0
    messages_after: int = 0
    gave_up: bool = False

    def damage(self, path: str) -> str:
        """The damage in words, for an operator."""
        places = f" in {self.damaged_places} places" if self.damaged_places > 1 else ""
        after = f"{self.messages_after} valid messages after it"
        if self.gave_up:
            after = f"at least {after}; the search for them was broken off"
        return (
            f"{path} is damaged from position {self.damaged_at} on: {self.damaged_bytes}"
            f" bytes{places} are no valid messages, with {after}. The file stays as it is and"
            " consumers pass over the damage"
        )


def recover(fd: int, file_size: int) -> Recovered:
    """
    Find the end of the last valid record, and all damage before it. Thread: any; blocks.

    A record is bad if it is incomplete, its length is negative, or its checksum differs in any of
    32 bits. Zero bytes are valid empty messages (D-6) as long as no message follows them: a file
    system may leave zeros in place of unwritten data. The file is read, not mapped, so that a disk
    error is an exception, not a signal.
    """
    walk = _Walk(fd, file_size)
    end, count = walk.run(0)
    search = DamageSearch(fd, file_size)
    first, damaged, places, after = -1, 0, 0, 0
    gave_up = False
    while not gave_up and walk.certain_end + HEADER_BYTES < file_size:
        bad = walk.certain_end
        try:
            found = search.next_record(bad, walk.last_id)
        except SearchTooLong:
            found, gave_up = file_size, True
        if found is None:
            break
        first = bad if first < 0 else first
        damaged += found - bad
        places += 1
        end, counted = walk.run(found)
        after += counted
    if not places:
        return Recovered(end, count)
    return Recovered(end, count + after, first, damaged, places, after, gave_up)


class _Walk:
    """
    Walks over valid records.

    :ivar certain_end: position after the last certain record; zeros, and a header that begins with
        zeros of a gap, are not certain.
    :ivar last_id: the id of that record.
    """

    def __init__(self, fd: int, file_size: int) -> None:
        self._fd = fd
        self._file_size = file_size
        self._buffer = bytearray(min(READ_SIZE, file_size))
        self.certain_end = 0
        self.last_id: int | None = None

    def run(self, start: int) -> tuple[int, int]:
        """The position after the last of the valid records from ``start`` on, and their number."""
        fd, file_size, buffer = self._fd, self._file_size, self._buffer
        view = memoryview(buffer)
        base = self.certain_end = start  # position of buffer[0] in the file
        filled = 0
        at = 0  # position of the next record in the buffer
        count = 0
        while True:
            passed = _pass_valid(view, at, filled, file_size - base, self.last_id)
            count += passed.records
            at = passed.end
            if passed.last >= 0:
                self._certain(view, base, passed.last)
            if not passed.missing:
                return base + at, count
            if at == 0 and filled == len(buffer):
                skip = _check_long_record(fd, base, view)
                if not skip:
                    return base, count
                self._certain(view, base, 0)
                base += skip
                count += 1
                filled = at = 0
            else:
                left = filled - at
                buffer[:left] = buffer[at:filled]
                base += at
                filled, at = left, 0
            got = os.preadv(fd, [view[filled:]], base + filled)
            if not got and base + filled < file_size:
                return base, count  # the file was cut meanwhile
            filled += got

    def _certain(self, view: memoryview, base: int, at: int) -> None:
        """Note that the record at ``at`` is certain."""
        length, _, self.last_id, _ = _header(view, at)
        self.certain_end = base + at + HEADER_BYTES + length


class _Passed(NamedTuple):
    """
    The result of ``_pass_valid``.

    :ivar end: position after the records.
    :ivar records: their number.
    :ivar missing: whether more of the file is needed to go on.
    :ivar last: position of the last certain record, -1: none is.
    """

    end: int
    records: int
    missing: bool
    last: int


def _pass_valid(view: memoryview, at: int, filled: int, limit: int, last_id: int | None) -> _Passed:
    """
    Walk over the valid records of ``view[at:filled]``.

    :param limit: the end of the file, as a position in the view.
    :param last_id: id of the last certain record before them.
    """
    count = 0
    last = -1
    unpack, crc = _length_and_checksum, crc32
    while True:
        body = at + HEADER_BYTES
        if body > filled:
            return _Passed(at, count, body <= limit, last)
        length, checksum = unpack(view, at)
        end = body + length
        if end > limit or length < 0:
            return _Passed(at, count, False, last)
        if end > filled:
            return _Passed(at, count, True, last)
        if crc(view[body:end]) & 0x7FFFFFFF != checksum:
            return _Passed(at, count, False, last)
        if length or _is_message(view, at, last, last_id):
            last = at
        at = end
        count += 1


def _is_message(view: memoryview, at: int, last: int, last_id: int | None) -> bool:
    """Whether a valid record without a body is a message, by its flag and id."""
    if last >= 0:
        last_id = _header(view, last)[2]
    _, _, message_id, flag = _header(view, at)
    return may_be_message(message_id, flag, last_id)


def _check_long_record(fd: int, position: int, view: memoryview) -> int:
    """
    The length of a record that does not fit into the buffer, which holds its beginning; 0 if its
    checksum is wrong. It lies within the file; the caller has checked that.
    """
    length, checksum = _length_and_checksum(view, 0)
    end: int = HEADER_BYTES + length
    found = crc32(view[HEADER_BYTES:])
    done = len(view)
    while done < end:
        piece = os.pread(fd, min(end - done, READ_SIZE), position + done)
        if not piece:
            return 0
        found = crc32(piece, found)
        done += len(piece)
    return end if found & 0x7FFFFFFF == checksum else 0
