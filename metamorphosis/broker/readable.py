"""
Where a whole message begins in a log: the answer to a Java consumer of a group with a filter that
cannot read the start of a reply.

The Java client reads no further at a damaged record, or at a body above 2 MiB: it asks the broker
with ``offset`` for the next place. The search below answers with the next place where a message can
be read. No readable message lies before that place, except inside the damaged bytes.

Differs: the original answers with the start of the segment, and its consumer reads the segment
again and again.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from metamorphosis.errors import CorruptRecord, MetaQError
from metamorphosis.message import HEADER, HEADER_BYTES, MAX_BODY_BYTES, crc32, iterate_records

if TYPE_CHECKING:
    from metamorphosis.store.messagestore import MessageStore

LONGEST: Final = HEADER_BYTES + MAX_BODY_BYTES
"""Bytes of the longest record that a Java consumer accepts."""
SEARCHED_BYTES: Final = 2 * LONGEST
"""Bytes read in one search. The next search continues after them."""
CHECKED_BYTES: Final = 32 << 20
"""Bytes of bodies whose checksum is computed in one search, about 30 ms of the reactor's time."""

_HEADER: Final = re.compile(
    rb"(?!\x00{4})(?=\x00[\x00-\x1f].{2}[\x00-\x7f]|\x00\x20\x00\x00[\x00-\x7f])", re.DOTALL
)
"""A length of 1 to ``MAX_BODY_BYTES`` and a checksum that is not negative."""


def holds_message(store: MessageStore, offset: int) -> bool:
    """Whether a whole message that a consumer accepts begins at ``offset``."""
    try:
        return next(iterate_records(_piece(store, offset, LONGEST)), None) is not None
    except (OSError, MetaQError):
        return False


def next_message(store: MessageStore, offset: int) -> int | None:
    """
    The place to continue after the damaged or too long record at ``offset``.

    Thread: reactor. One read of ``SEARCHED_BYTES``.

    :returns: the next place where a message begins, or a place before it from which to ask again;
        ``None``: the log cannot be read at ``offset``, or ends inside of its first record.
    """
    try:
        data = _piece(store, offset, SEARCHED_BYTES)
        if len(data) < HEADER_BYTES:
            return None
        length, checksum, _, _ = HEADER.unpack_from(data)
        end: int = offset + HEADER_BYTES + length
        if length >= 0 and checksum >= 0 and _is_border(store, offset, data, end):
            return end
        return offset + _search(data, len(data) >= SEARCHED_BYTES)
    except (OSError, CorruptRecord, MetaQError):
        return None


def _piece(store: MessageStore, offset: int, size: int) -> bytes:
    """The log from ``offset`` on, up to the end of its segment; empty where the log has no
    bytes."""
    found = store.slice(offset, size)
    if found is None:
        return b""
    segment, position, length = found
    return os.pread(segment.fd, length, position)


def _is_border(store: MessageStore, offset: int, data: bytes, end: int) -> bool:
    """Whether the record at ``offset`` can end at ``end``: a message follows, or the segment
    ends."""
    if end == offset + len(data) and len(data) < SEARCHED_BYTES:
        return True
    return end < store.max_offset and holds_message(store, end)


def _search(data: bytes, is_cut: bool) -> int:
    """
    The first whole record after the first byte of ``data``, else the end.

    :param is_cut: more data follow; a record that reaches beyond the end may be whole.
    """
    last = len(data) - LONGEST if is_cut else len(data)
    checked = 0
    with memoryview(data) as view:
        for match in _HEADER.finditer(data, 1):
            place = match.start()
            if place >= last or place + HEADER_BYTES > len(data):
                break
            length, checksum, _, _ = HEADER.unpack_from(data, place)
            start = place + HEADER_BYTES
            if length > len(data) - start:
                continue
            checked += length
            if checked > CHECKED_BYTES:
                return place
            with view[start : start + length] as body:
                if crc32(body) & 0x7FFFFFFF == checksum:
                    return place
    return last
