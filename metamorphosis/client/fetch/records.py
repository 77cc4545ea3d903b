"""
A fetched piece of a partition's log turned into messages, up to a record that cannot be read. Pure.

Only length and body of a record are checked: the checksum does not cover id and flag, so that a
changed bit in one of these is delivered.

Source: ``MessageIterator``, ``MessageUtils``.
"""

from __future__ import annotations

from typing import NamedTuple

from metamorphosis.client.model import Partition, ReceivedMessage
from metamorphosis.message import HEADER, HEADER_BYTES, JUMP_CHECKSUM, JUMP_FLAG, crc32
from metamorphosis.native import compiled


class Damage(NamedTuple):
    """
    A record that cannot be read, or is longer than accepted.

    :ivar offset: where it begins, in the partition.
    :ivar reason: for the log.
    :ivar length: of its body, by its header; None: not to be believed.
    :ivar checksum: by its header; None: not known.
    """

    offset: int
    reason: str
    length: int | None = None
    checksum: int | None = None


class FetchedRecords:
    """
    The records of one answer, read a stretch at a time.

    :ivar next_offset: offset of the first record that was not read.
    :ivar jumped: ``next_offset`` is not the end of the last message: the broker leaves out messages
        in between, because the group's filter rejects them.
    :ivar damage: the record at ``next_offset`` cannot be read.
    :ivar max_body: longest body accepted, bytes.
    :ivar exhausted: no whole record is left.
    """

    __slots__ = (
        "_data",
        "_offset",
        "_partition",
        "_topic",
        "_view",
        "damage",
        "exhausted",
        "jumped",
        "max_body",
        "next_offset",
    )

    def __init__(
        self, topic: str, partition: Partition, offset: int, data: bytes, max_body: int
    ) -> None:
        """
        :param offset: of the first byte of ``data`` in the partition.
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
        self.max_body = max_body

    @property
    def needed(self) -> int:
        """Total length of the record at ``next_offset``; 0 while its header is incomplete."""
        position = self.next_offset - self._offset
        if len(self._data) - position < HEADER_BYTES:
            return 0
        length: int = HEADER.unpack_from(self._data, position)[0]
        return HEADER_BYTES + length

    @property
    def rest(self) -> bytes:
        """A copy of the bytes from ``next_offset`` on."""
        return self._data[self.next_offset - self._offset :]

    def read(self, limit: int) -> list[ReceivedMessage]:
        """
        At most ``limit`` messages; none when ``exhausted``, or at a ``damage``.

        One long function, because it makes no call for each record but the checksum's. The part in
        C, if there is one, reads up to the first record that is not readable.
        """
        if self.exhausted:
            return []
        topic, partition, origin = self._topic, self._partition, self._offset
        data, view, max_body = self._data, self._view, self.max_body
        unpack, check, make = HEADER.unpack_from, crc32, ReceivedMessage
        messages: list[ReceivedMessage] = []
        append = messages.append
        last_header = len(data) - HEADER_BYTES
        position = self.next_offset - origin
        if compiled is not None:
            where = position, limit, max_body, origin
            position = compiled.read_records(data, *where, make, topic, partition, messages)
        for _ in range(limit - len(messages)):
            if position > last_header:
                self.exhausted = True
                break
            length, checksum, message_id, flag = unpack(data, position)
            start = position + HEADER_BYTES
            end = start + length
            if not 0 <= length <= max_body:
                self._damaged(
                    position,
                    f"its length is {length}, at most {max_body} is accepted",
                    length,
                    checksum,
                )
                break
            if start > last_header + HEADER_BYTES - length:
                self.exhausted = True
                break
            if check(view[start:end]) & 0x7FFFFFFF != checksum:
                if (length, checksum, flag) == (0, JUMP_CHECKSUM, JUMP_FLAG):
                    self.jumped = self.exhausted = True
                    self.next_offset = message_id
                    return messages
                self._damaged(
                    position, f"the checksum of its {length} bytes is wrong", length, checksum
                )
                break
            if not (length or message_id or flag):
                # They look like an empty message; a file system leaves zeros after a crash.
                self._damaged(position, "there are only zero bytes", length, None)
                break
            append(make(topic, partition, origin + position, message_id, flag, data, start, end))
            position = end
        self.next_offset = origin + position
        if position > last_header:
            self.exhausted = True
        return messages

    def cut_off(self) -> None:
        """The log or the segment ends inside the record at ``next_offset``: it is damaged."""
        position = self.next_offset - self._offset
        count = len(self._data) - position
        checksum = None
        if count >= HEADER_BYTES:
            checksum = HEADER.unpack_from(self._data, position)[1]
        self._damaged(position, f"the log ends after {count} bytes of it", None, checksum)

    def _damaged(
        self, position: int, reason: str, length: int | None, checksum: int | None
    ) -> None:
        self.damage = Damage(self._offset + position, reason, length, checksum)
        self.exhausted = True
