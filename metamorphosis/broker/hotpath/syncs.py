"""
The hot path of ``sync`` in Python, which the master of a pair sends to its slave; ``contract`` has
the rules.

It is ``pure.scan`` with the id of the request line instead of a new one. It is a separate function,
because one more case would cost time for every put of a plain broker, and only the connection of a
pair's master needs it (``Session.scan``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from metamorphosis.errors import StoreError
from metamorphosis.message import HEADER, HEADER_BYTES, crc32

if TYPE_CHECKING:
    from metamorphosis.broker.hotpath.contract import Routes
    from metamorphosis.broker.replies import ReplyGroup
    from metamorphosis.ids import MessageIds
    from metamorphosis.store.batch import Batch

# As in ``pure``; the form without a checksum is that of masters before 1.4.4.
_SYNC = re.compile(
    rb"sync ([^ \r]+) (\d{1,9}) (\d{1,9}) (-?\d{1,9}) (-?[1-9]\d{0,18}|0)"
    rb" (?:(-1|\d{1,10}) )?(-?[1-9]\d{0,9}|0)\r\n"
)
_HEADER = HEADER.pack
_INT32_MIN, _INT32_MAX = -(1 << 31), (1 << 31) - 1
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


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

    One long function, because it makes as few calls as it can for each record.
    """
    position = start
    replies = group.replies
    runs = group.runs
    add = replies.append
    batch: Batch | None = None
    stores = routes.syncs
    refuse = routes.refuse
    max_body = routes.max_body
    match = _SYNC.match
    while position < end:
        found = match(data, position, end)
        if found is None:
            break
        topic, partition, length_text, flag, message_id, given, opaque = found.groups()
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
        if given is not None and given != b"-1" and int(given) != checksum:
            break
        if len(opaque) > 9 and not _INT32_MIN <= int(opaque) <= _INT32_MAX:
            break
        number = int(message_id)
        if not _INT64_MIN <= number <= _INT64_MAX:
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
        pieces.append(_HEADER(length, checksum, number, int(flag)))
        pieces.append(body)
        offset = store.next_offset
        store.next_offset = offset + HEADER_BYTES + length
        text = b"%b %b %d" % (message_id, partition, offset)
        add(b"result 200 %d %b\r\n%b" % (len(text), opaque, text))
        position = past
    return position
