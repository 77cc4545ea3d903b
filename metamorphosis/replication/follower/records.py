"""
Finds the whole records at the front of bytes of a log: checked, not copied. Pure.

Only length and checksum are verified; the other fields are copied unchecked.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from metamorphosis.message import HEADER_BYTES, crc32

_LENGTH_AND_CHECKSUM: Final = Struct(">ii")


class Whole(NamedTuple):
    """
    The result.

    :ivar records: the number of whole records.
    :ivar size: their bytes; a part of a record follows, or damage.
    :ivar needed: bytes of the first incomplete record with its header; 0: not known yet, or no such
        record.
    :ivar fault: the reason why the next bytes are not a record; None: they may be one.
    """

    records: int
    size: int
    needed: int = 0
    fault: str | None = None


def whole_records(data: bytes | memoryview, longest: int) -> Whole:
    """
    Check ``data``, which begins with a record.

    :param longest: bytes of a body; a longer one is a fault.
    """
    view = memoryview(data)
    end = len(view)
    unpack = _LENGTH_AND_CHECKSUM.unpack_from
    position = records = 0
    while (start := position + HEADER_BYTES) <= end:
        length, expected = unpack(view, position)
        if not 0 <= length <= longest:
            fault = f"the length {length} of the record is not within 0 to {longest}"
            return Whole(records, position, fault=fault)
        stop = start + length
        if stop > end:
            return Whole(records, position, HEADER_BYTES + length)
        if crc32(view[start:stop]) & 0x7FFFFFFF != expected:
            fault = f"the checksum of the record of {length} bytes is wrong"
            return Whole(records, position, fault=fault)
        position = stop
        records += 1
    return Whole(records, position)


def complete_first(tail: bytes, body: bytes | memoryview) -> tuple[bytes, memoryview]:
    """
    A part of a record joined with its rest, and the bytes after it. This saves one copy of
    ``body``, a fifth of the cost of copying a log. (A new MiB costs a page fault for each of its
    pages.)

    :param tail: of the record, from its first byte.
    :param body: the bytes after it.
    """
    view = memoryview(body)
    head = tail if len(tail) >= HEADER_BYTES else tail + view[: HEADER_BYTES - len(tail)]
    if len(head) < HEADER_BYTES:
        return head, view[:0]
    size = HEADER_BYTES + max(int.from_bytes(head[:4], "big", signed=True), 0)
    taken = max(size - len(tail), 0)
    return tail + view[:taken], view[taken:]
