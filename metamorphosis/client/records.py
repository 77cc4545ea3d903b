"""
A fetched piece of a partition's log turned into messages, and what to do at a record that cannot
be read. Pure.

Source: ``MessageIterator``, ``MessageUtils``.

Differs: at a record that cannot be read the original asks the broker for an offset, which is the
start of the segment file, and reads that file again and again. Ours passes over the record if its
length makes sense, else goes on at the next record of the piece whose checksum is right.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from metamorphosis.client.model import Partition, ReceivedMessage
from metamorphosis.message import HEADER, HEADER_BYTES, JUMP_CHECKSUM, JUMP_FLAG, crc32

SANE_LENGTH: Final = 256 << 20
"""A body longer than this is no body but damage."""

_NOT_ZERO: Final = re.compile(rb"[^\x00]")


class Damage(NamedTuple):
    """
    A record that cannot be read.

    :ivar offset: where it begins, in the partition.
    :ivar reason: for the log.
    :ivar skip_to: where reading can go on, None if that has to be looked for.
    :ivar claimed_end: then, where the record ends if its length is right, which is to be checked;
        None if it cannot be.
    """

    offset: int
    reason: str
    skip_to: int | None
    claimed_end: int | None = None


class FetchedRecords:
    """
    The records of one answer, read a stretch at a time.

    :ivar next_offset: where the first record begins that was not read, in the partition.
    :ivar jumped: that is not where the last message ends: the broker leaves out what stands in
        between, because the group's filter rejects it.
    :ivar damage: the record there cannot be read.
    :ivar exhausted: nothing whole is left.
    """

    __slots__ = (
        "_data",
        "_max_body",
        "_offset",
        "_partition",
        "_topic",
        "_view",
        "damage",
        "exhausted",
        "jumped",
        "next_offset",
    )

    def __init__(
        self, topic: str, partition: Partition, offset: int, data: bytes, max_body: int
    ) -> None:
        """
        :param offset: of the first byte of ``data`` in the partition.
        :param max_body: longest body accepted, bytes.
        """
        self.next_offset = offset
        self.damage: Damage | None = None
        self.exhausted = False
        self.jumped = False
        self._topic = topic
        self._partition = partition
        self._offset = offset
        self._data = data
        self._view = memoryview(data)
        self._max_body = max_body

    @property
    def needed(self) -> int:
        """Bytes that the record at ``next_offset`` has in all, 0 while its header is incomplete."""
        position = self.next_offset - self._offset
        if len(self._data) - position < HEADER_BYTES:
            return 0
        length: int = HEADER.unpack_from(self._data, position)[0]
        return HEADER_BYTES + length

    def read(self, limit: int) -> list[ReceivedMessage]:
        """At most so many messages; none when ``exhausted``, or at a ``damage``."""
        topic, partition, origin = self._topic, self._partition, self._offset
        data, view, max_body = self._data, self._view, self._max_body
        unpack, check, make = HEADER.unpack_from, crc32, ReceivedMessage
        messages: list[ReceivedMessage] = []
        append = messages.append
        last_header = len(data) - HEADER_BYTES
        position = self.next_offset - origin
        for _ in range(limit):
            if position > last_header:
                self.exhausted = True
                break
            length, checksum, message_id, flag = unpack(data, position)
            start = position + HEADER_BYTES
            end = start + length
            if not 0 <= length <= max_body:
                self._damaged(position, f"its length is {length}, at most {max_body} is accepted")
                break
            if start > last_header + HEADER_BYTES - length:
                self.exhausted = True
                break
            if check(view[start:end]) & 0x7FFFFFFF != checksum:
                if (length, checksum, flag) == (0, JUMP_CHECKSUM, JUMP_FLAG):
                    self.jumped = self.exhausted = True
                    self.next_offset = message_id
                    return messages
                self._damaged(position, f"the checksum of its {length} bytes is wrong")
                break
            if not (length or message_id or flag):
                self._zeros(position)
                break
            append(make(topic, partition, origin + position, message_id, flag, data, start, end))
            position = end
        self.next_offset = origin + position
        if position > last_header:
            self.exhausted = True
        return messages

    def _damaged(self, position: int, reason: str) -> None:
        """Behind the record if something like a record follows, else where one really begins."""
        length: int = HEADER.unpack_from(self._data, position)[0]
        end = position + HEADER_BYTES + length
        if length >= 0 and end <= len(self._data) and self._may_begin(end):
            self._end(position, reason, end)
        elif self._max_body < length <= SANE_LENGTH:
            self._end(position, reason, None, self._offset + end)
        else:
            self._end(position, reason, find_record(self._data, position + 1, self._max_body))

    def _zeros(self, position: int) -> None:
        """Zero bytes look like empty messages; a file system leaves them behind after a crash."""
        found = _NOT_ZERO.search(self._data, position)
        # the last three bytes may begin the length of a record that is not there yet
        last = len(self._data) - 4 if found is None else found.start() - 3
        beginning = find_record(self._data, max(last, position + 1), self._max_body)
        if beginning is None and found is None:
            beginning = len(self._data) - 3
        self._end(position, "there are only zero bytes", beginning)

    def _end(
        self, position: int, reason: str, skip_to: int | None, claimed_end: int | None = None
    ) -> None:
        origin = self._offset
        skip_to = None if skip_to is None else origin + skip_to
        self.damage = Damage(origin + position, reason, skip_to, claimed_end)
        self.exhausted = True

    def _may_begin(self, position: int) -> bool:
        """Whether what is there of the header could be one."""
        if position > len(self._data) - HEADER_BYTES:
            return True
        length: int
        checksum: int
        length, checksum, _, _ = HEADER.unpack_from(self._data, position)
        return 0 <= length <= self._max_body and checksum >= 0


@lru_cache(maxsize=8)
def _beginning(max_body: int) -> re.Pattern[bytes]:
    """Where a record may begin: a length up to that, and a checksum that is not negative."""
    high, second = max_body >> 24, max_body >> 16 & 0xFF if max_body < 1 << 24 else 0xFF
    form = rb"(?=[\x00-\x%02x][\x00-\x%02x].{2}[\x00-\x7f])" % (high, second)
    return re.compile(form, re.DOTALL)


def find_record(data: bytes, start: int, max_body: int) -> int | None:
    """
    The first place from ``start`` on where a whole record lies whose checksum is right. Records
    with an empty body do not count: any eight zero bytes look like one.
    """
    view = memoryview(data)
    size = len(data)
    for match in _beginning(max_body).finditer(data, start):
        position = match.start()
        if position + HEADER_BYTES >= size:
            break
        length, checksum, _, _ = HEADER.unpack_from(data, position)
        body = position + HEADER_BYTES
        if not 0 < length <= max_body or length > size - body:
            continue
        if crc32(view[body : body + length]) & 0x7FFFFFFF == checksum:
            return position
    return None
