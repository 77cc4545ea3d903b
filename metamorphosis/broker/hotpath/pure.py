"""
The hot path in Python; ``contract`` has the rules.

A message costs one match, one CRC, one header and one reply text. ``scan`` is one long function for
that reason: a call costs 60 ns, and the loop is fast because its names are local; split into parts,
it would pass a dozen of them per message.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from metamorphosis.broker.hotpath.contract import ORDINARY_LINE
from metamorphosis.broker.replies import FileReply, ReplyGroup
from metamorphosis.errors import StoreError
from metamorphosis.message import HEADER, HEADER_BYTES, crc32

if TYPE_CHECKING:
    from metamorphosis.broker.hotpath.contract import Routes
    from metamorphosis.ids import MessageIds
    from metamorphosis.store.batch import Batch

# Canonical numbers only. A number may be too large for its type by its last digit, which is checked
# separately. A request that does not match is not refused: it takes the slow path. One match costs
# 0.7 us, less than ``split`` and the checks that it replaces.
_PUT = re.compile(
    rb"put ([^ \r]+) (\d{1,9}) (\d{1,9}) (-?\d{1,9}) (?:(-1|\d{1,10}) )?(-?[1-9]\d{0,9}|0)\r\n"
)
_GET = re.compile(
    rb"get ([^ \r]+) ([^ \r]*) (\d{1,9}) (\d{1,18}) ([1-9]\d{0,8}) (-?[1-9]\d{0,9}|0)"
    rb"(?: \d{1,9})?\r\n"  # the time to wait for data; unused when there is data
)
_HEADER = HEADER.pack
_INT32_MIN, _INT32_MAX = -(1 << 31), (1 << 31) - 1
PUT = ord("p")
"""A request with this first byte is a put, or not ordinary."""


def scan(
    data: bytes | bytearray,
    source: bytes | memoryview,
    start: int,
    end: int,
    routes: Routes,
    ids: MessageIds,
    group: ReplyGroup,
) -> int:
    """
    See ``contract.Scan``.

    One long function, because it makes as few calls as it can for each put.
    """
    position = start
    next_id = ids.start_chunk()
    replies = group.replies
    runs = group.runs
    add = replies.append
    batch: Batch | None = None
    stores = routes.puts
    refuse = routes.refuse
    max_body = routes.max_body
    checked_only = routes.checked_only
    match = _PUT.match
    while position < end:
        if data[position] != PUT:
            past = take_get(data, position, end, routes, group)
            if not past:
                break
            position = past
            batch = None
            continue
        found = match(data, position, end)
        if found is None:
            break
        topic, partition, length_text, flag, given, opaque = found.groups()
        store = stores.get((topic, partition))
        if store is None:
            break
        body_at = found.end()
        length = int(length_text)
        past = body_at + length
        if past > end or length > max_body:
            break
        body = source[body_at:past]
        checksum = crc32(body) & 0x7FFFFFFF
        if given is None or given == b"-1":
            if checked_only:
                break
        elif int(given) != checksum:
            break
        if len(opaque) > 9 and not _INT32_MIN <= int(opaque) <= _INT32_MAX:
            break
        collecting = store.batch
        if collecting is None:
            try:
                collecting = store.open_batch()
            except StoreError:
                break
        pieces = collecting.pieces
        if collecting is not batch:
            batch = collecting
            runs.append((batch, len(replies), collecting.count, refuse))
        # MessageStore.add, inlined: a call is a tenth of what a message costs here.
        pieces.append(_HEADER(length, checksum, next_id, int(flag)))
        pieces.append(body)
        offset = store.next_offset
        store.next_offset = offset + HEADER_BYTES + length
        text = b"%d %b %d" % (next_id, partition, offset)
        add(b"result 200 %d %b\r\n%b" % (len(text), opaque, text))
        next_id += 1
        if not next_id & 0xFFF:
            next_id = ids.carry(next_id)
        position = past
    ids.next_id = next_id
    return position


def take_get(
    data: bytes | bytearray, position: int, end: int, routes: Routes, group: ReplyGroup
) -> int:
    """One ordinary get whose offset holds data: the position after it, or 0."""
    found = _GET.match(data, position, end)
    if found is None or found.end() - position > ORDINARY_LINE:
        return 0
    topic, _group, partition, offset, size, opaque = found.groups()
    store = routes.reads.get((topic, partition))
    if store is None:
        return 0
    if len(opaque) > 9 and not _INT32_MIN <= int(opaque) <= _INT32_MAX:
        return 0
    try:
        wanted = int(size)
        found_range = store.slice(int(offset), min(wanted, routes.max_transfer))
    except StoreError:
        return 0
    if found_range is None:
        return 0
    segment, at, length = found_range
    if length == routes.max_transfer < wanted:
        return 0  # the record may be longer
    head = b"value %d %b\r\n" % (length, opaque)
    group.add(FileReply(head, segment, at, length))
    store.get_count += 1
    return found.end()
