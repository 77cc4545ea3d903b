"""
The search for the record that follows a damage in a segment file.

Its time is bounded: the bytes after the damage are searched once, at the speed of memory, and all
further comparisons are counted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from metamorphosis.message import HEADER, HEADER_BYTES, crc32

READ_SIZE = 4 << 20
"""Bytes of one read."""
SEARCH_WORK = 8 << 30
"""
Limit of a search, in compared bytes: about 5 s. The logs that brokers write stay far below it; a
file constructed for the purpose could otherwise take hours.
"""
CANDIDATE_WORK = 512
"""The cost of a check of one place."""
READ_WORK = 4096
"""The fixed cost of a read."""
ID_SPAN = 10 * 365 * 86_400_000 << 22
"""Ids of ten years. Two messages of a segment are always closer than that."""

_nonzero = re.compile(rb"[^\0]")
_FLAG_AT = 16  # within a header; 0 or 1 in everything that clients send


class SearchTooLong(Exception):
    """The search has taken ``SEARCH_WORK``."""


class _Header(NamedTuple):
    """The fields of a record's header, and its position."""

    position: int
    length: int
    checksum: int
    message_id: int
    flag: int

    @property
    def body(self) -> int:
        """Position of the body."""
        return self.position + HEADER_BYTES

    @property
    def end(self) -> int:
        """Position after the record."""
        return self.body + self.length


class DamageSearch:
    """
    Looks for the record that follows a damage.

    Not every valid record in the bytes after a bad one is a message of this log: the body of a
    message that was torn may hold copies of others. Those were stored before it, so their ids are
    smaller. A record counts as following if

    * the bad record, whose body only is damaged, ends where it begins; or
    * its id is greater than that of the bad record; or
    * the checksum of the bad record says that its body ends there: its length is damaged; or
    * the header of the bad record is none of a message, so that nothing is known.
    """

    def __init__(self, fd: int, file_size: int) -> None:
        self._fd = fd
        self._file_size = file_size
        self._work = SEARCH_WORK

    def next_record(self, bad: int, last_id: int | None) -> int | None:
        """
        The position of the record that follows the bad one, None if the bad one is the torn tail.

        :param bad: position of the bad record; a whole header stands there.
        :param last_id: id of the last record before it.
        :raises SearchTooLong: the search would take too long.
        """
        header = self._header(bad)
        if header is None:
            return None
        known = may_be_message(header.message_id, header.flag, last_id)
        if header.length >= 0 and header.end < self._file_size:
            following = self._header(header.end)
            before = header.message_id if known else last_id
            if following is not None and self._is_record(following, before):
                return following.position
        if known:
            return self._next_newer(header)
        found = None
        if last_id is not None:
            found = self._first(
                bad, lambda one: may_be_message(one.message_id, one.flag, last_id), last_id
            )
        return self._first(bad, lambda one: True, last_id) if found is None else found

    def _next_newer(self, header: _Header) -> int | None:
        """The record after one whose header has at least a usable id."""
        extent = _Extent(header, self)

        def follows(one: _Header) -> bool:
            newer = may_be_message(one.message_id, one.flag, header.message_id)
            return newer or extent.ends_at(one.position)

        return self._first(header.position, follows, header.message_id)

    def _first(
        self, bad: int, follows: Callable[[_Header], bool], last_id: int | None
    ) -> int | None:
        """The first valid record that follows."""
        for candidate in self._candidates(bad + 1):
            if follows(candidate) and self._is_record(candidate, last_id):
                return candidate.position
        return None

    def _candidates(self, start: int) -> Iterator[_Header]:
        """The bytes that look like the header of a message, from a position on."""
        at = start
        unpack = HEADER.unpack_from
        while at + HEADER_BYTES <= self._file_size:
            chunk = os.pread(self._fd, READ_SIZE, at)
            if len(chunk) < HEADER_BYTES:
                return
            left = self._file_size - at - HEADER_BYTES  # for a body, from place 0 on
            zeros = chunk.find(b"\0\0\0", _FLAG_AT, len(chunk) - 1)
            while zeros >= 0:
                self.spend(CANDIDATE_WORK)
                place = zeros - _FLAG_AT
                length, checksum, message_id, flag = unpack(chunk, place)
                if message_id:
                    if flag < 2 and checksum >= 0 and 0 <= length <= left - place:
                        yield _Header(at + place, length, checksum, message_id, flag)
                elif not (length or checksum or flag):
                    # Within a run of zeros: skip to the first header with an id.
                    found = _nonzero.search(chunk, zeros)
                    zeros = found.start() if found else len(chunk)
                zeros = chunk.find(b"\0\0\0", zeros + 1, len(chunk) - 1)
            at += len(chunk) - HEADER_BYTES + 1

    def _is_record(self, header: _Header, last_id: int | None) -> bool:
        """
        Whether the header belongs to a valid record. Eight zero bytes are also length and checksum
        of an empty body, which proves nothing: then flag and id must fit the next message of this
        log.
        """
        if header.length < 0 or header.end > self._file_size:
            return False
        if not header.length and (
            last_id is None or not may_be_message(header.message_id, header.flag, last_id)
        ):
            return False
        return self.checksum(header.body, header.end) & 0x7FFFFFFF == header.checksum

    def checksum(self, start: int, end: int, before: int = 0) -> int:
        """CRC-32 of a range of the file, continued from ``before``, the CRC of the bytes before
        it."""
        self.spend(READ_WORK + end - start)
        while start < end:
            piece = os.pread(self._fd, min(end - start, READ_SIZE), start)
            if not piece:
                return -1
            before = crc32(piece, before)
            start += len(piece)
        return before

    def spend(self, work: int) -> None:
        """
        Count the cost of a search.

        :raises SearchTooLong: the limit is exceeded.
        """
        self._work -= work
        if self._work < 0:
            raise SearchTooLong

    def _header(self, position: int) -> _Header | None:
        data = os.pread(self._fd, HEADER_BYTES, position)
        return _Header(position, *HEADER.unpack(data)) if len(data) == HEADER_BYTES else None


class _Extent:
    """The end of a record with a damaged length, found by its checksum."""

    def __init__(self, header: _Header, search: DamageSearch) -> None:
        self._checksum = header.checksum
        self._search = search
        self._done = header.body
        self._found = 0

    def ends_at(self, position: int) -> bool:
        """Whether the record ends at ``position``; positions must not decrease."""
        if position < self._done:
            return False
        self._found = self._search.checksum(self._done, position, self._found)
        self._done = position
        return self._found & 0x7FFFFFFF == self._checksum


def may_be_message(message_id: int, flag: int, last_id: int | None) -> bool:
    """
    Whether a client sends such a flag, and the id may be that of a message after the one with
    ``last_id``.
    """
    if flag not in (0, 1) or not message_id:
        return False
    return last_id is None or last_id < message_id < last_id + ID_SPAN
