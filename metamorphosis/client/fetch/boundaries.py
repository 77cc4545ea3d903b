"""
Finds the records in a piece of a log that does not begin with one. Pure.

A search over much data takes time: the functions are generators that yield after a few milliseconds
of work, so that the loop can do other work, and return the result.

Source: none; the original reads the segment file again from its start.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from functools import lru_cache
from typing import Final, TypeVar

from metamorphosis.message import HEADER, HEADER_BYTES, crc32

T = TypeVar("T")
Steps = Generator[None, None, T]

SANE_LENGTH: Final = 256 << 20
"""A length from here on is damage, unless the consumer accepts longer bodies."""

_STEP_UNITS: Final = 4096
"""Work between two yields: places, and 2 KiB pieces of checksums."""
_UNIT_SHIFT: Final = 11
ID_SPAN: Final = 1 << 54
"""Greatest difference between the ids of two messages that follow each other: 50 days."""

_HEADER: Final = re.compile(rb"(?=[\x00-\x0f].{3}[\x00-\x7f])", re.DOTALL)
"""A length below ``SANE_LENGTH`` and a checksum that is not negative."""


def may_begin(data: bytes | bytearray, position: int, longest: int) -> bool:
    """
    Whether the bytes could be a record's header: a length up to ``longest``, a checksum that is not
    negative, and not zeros alone.
    """
    length, checksum, message_id, flag = HEADER.unpack_from(data, position)
    return (
        0 <= length <= longest and checksum >= 0 and bool(length or checksum or message_id or flag)
    )


def is_record(data: bytes | bytearray, position: int, max_body: int) -> bool:
    """
    Whether a whole record with a right checksum begins there. A record with an empty body does not
    count: any eight zero bytes look like one.
    """
    start = position + HEADER_BYTES
    if start > len(data):
        return False
    length, checksum, _, _ = HEADER.unpack_from(data, position)
    if not 0 < length <= max_body or length > len(data) - start:
        return False
    with memoryview(data) as view, view[start : start + length] as body:
        return bool(crc32(body) & 0x7FFFFFFF == checksum)


def is_empty(data: bytes | bytearray, position: int) -> bool:
    """Whether the bytes could be the header of a record without a body."""
    length, checksum, message_id, _ = HEADER.unpack_from(data, position)
    return bool(message_id) and not (length or checksum)


class RecordEnd:
    """
    The end of a record whose length is wrong and whose checksum is right: the first place where
    another record may begin and the checksum of the bytes before it fits.

    Places are distances from the beginning of the record.

    :param checksum: from its header.
    :ivar place: all places before this one were looked at.
    """

    def __init__(self, checksum: int) -> None:
        self.place = HEADER_BYTES
        self._checksum = checksum
        self._crc = 0

    @property
    def fits(self) -> bool:
        """Whether the checksum of the bytes before ``place`` is right, whatever is there."""
        return self._crc & 0x7FFFFFFF == self._checksum

    def find(self, data: bytes | bytearray, base: int, stop: int) -> Steps[int | None]:
        """
        Continue in data that begin at place ``base``, up to ``stop``. A record may begin at the end
        of the data; the four places before the end wait for more data.
        """
        end = base + len(data)
        if self.place > min(stop, end):
            return None
        work = 0
        with memoryview(data) as view:
            for match in _HEADER.finditer(data, self.place - base):
                place = base + match.start()
                if place >= stop:
                    break
                work += 1 + (place - self.place >> _UNIT_SHIFT)
                self._crc = self._crc_to(view, base, place)
                self.place = place
                if self._crc & 0x7FFFFFFF == self._checksum:
                    return place
                if work >= _STEP_UNITS:
                    work = 0
                    yield
            if end <= stop and self._crc_to(view, base, end) & 0x7FFFFFFF == self._checksum:
                return end
            rest = min(stop, end - 4)
            if rest > self.place:
                self._crc = self._crc_to(view, base, rest)
                self.place = rest
        return None

    def _crc_to(self, view: memoryview, base: int, place: int) -> int:
        with view[self.place - base : place - base] as piece:
            return crc32(piece, self._crc)


@lru_cache(maxsize=8)
def _beginning(max_body: int) -> re.Pattern[bytes]:
    """A length from 1 to ``max_body``, and a checksum that is not negative."""
    high, second = max_body >> 24, max_body >> 16 & 0xFF if max_body < 1 << 24 else 0xFF
    bounds = b"[\\x00-\\x%02x][\\x00-\\x%02x]" % (high, second)
    return re.compile(rb"(?!\x00{4})(?=" + bounds + rb".{2}[\x00-\x7f])", re.DOTALL)


def find_record(data: bytes | bytearray, start: int, stop: int, max_body: int) -> Steps[int | None]:
    """
    The first place from ``start`` on and below ``stop`` where a whole record with a body and a
    right checksum begins, or the first of the empty records directly before it.
    """
    work = 0
    for match in _beginning(max_body).finditer(data, start):
        position = match.start()
        if position >= stop or position + HEADER_BYTES >= len(data):
            break
        length: int = HEADER.unpack_from(data, position)[0]
        if is_record(data, position, max_body):
            return _with_empty_ones(data, start, position)
        work += 1 + (length >> _UNIT_SHIFT if length <= len(data) - position else 0)
        if work >= _STEP_UNITS:
            work = 0
            yield
    return None


def _with_empty_ones(data: bytes | bytearray, start: int, position: int) -> int:
    """Back over empty records, which count if their ids lead up to the next id."""
    next_id: int = HEADER.unpack_from(data, position)[2]
    while position - HEADER_BYTES >= start:
        message_id: int = HEADER.unpack_from(data, position - HEADER_BYTES)[2]
        if not is_empty(data, position - HEADER_BYTES) or not 0 <= next_id - message_id < ID_SPAN:
            break
        position -= HEADER_BYTES
        next_id = message_id
    return position


def begins_row(data: bytes | bytearray, position: int, max_body: int) -> bool:
    """Whether a record begins there, or empty ones whose ids lead up to one."""
    while not is_record(data, position, max_body):
        following = position + HEADER_BYTES
        if following + HEADER_BYTES > len(data) or not is_empty(data, position):
            return False
        ids = (HEADER.unpack_from(data, each)[2] for each in (following, position))
        if not 0 <= next(ids) - next(ids) < ID_SPAN:
            return False
        position = following
    return True


def leads_to_end(data: bytes | bytearray, position: int, max_body: int) -> bool:
    """Whether records with right checksums lie from ``position`` to the end without a gap."""
    while position + HEADER_BYTES <= len(data):
        if not is_empty(data, position) and not is_record(data, position, max_body):
            return False
        length: int = HEADER.unpack_from(data, position)[0]
        position += HEADER_BYTES + length
    return position == len(data)


def ends_early(data: bytes, max_body: int) -> Steps[bool]:
    """
    Whether the first record of ``data``, which is not whole by its length, ends by its checksum.
    The checksum of an empty body is 0, as zeros are: only whole records may follow then.
    """
    checksum: int = HEADER.unpack_from(data)[1]
    if checksum == 0:
        return leads_to_end(data, HEADER_BYTES, max_body)
    return (yield from RecordEnd(checksum).find(data, 0, len(data))) is not None


def holds_record(data: bytes, max_body: int) -> Steps[bool]:
    """Whether a whole record begins after the first byte."""
    return (yield from find_record(data, 1, len(data), max_body)) is not None
