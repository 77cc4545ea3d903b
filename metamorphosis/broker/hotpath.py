"""
The narrow seam of ``put`` and ``get``: a received buffer in; consumed bytes, records per partition
and replies out.

``scan`` takes the ordinary puts and gets from the front of what was received, and stops at the
first frame that is anything else: an incomplete one, another command, a transaction, an unknown or
closed partition, a wrong checksum, an odd but legal spelling (``+7``, a trailing space). The caller
decodes that one frame with ``wire.decoding``, the oracle that this module is tested against, and
scans on behind it. So nothing here decides what is right; it only does the common case with nothing
per message but what the message itself needs: one match, one CRC, one header, one reply text.

A compiled twin has to keep this function's contract; the tests of this module are written against
the contract alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from metamorphosis.errors import StoreError
from metamorphosis.message import HEADER, HEADER_BYTES, crc32
from metamorphosis.store.batch import PENDING, STORED

if TYPE_CHECKING:
    from metamorphosis.ids import MessageIds
    from metamorphosis.store.batch import Batch
    from metamorphosis.store.messagestore import MessageStore
    from metamorphosis.store.segment import Segment

# Numbers in canonical form only, and no wider than their type but for the last digit, which is
# checked apart: whatever does not match is not refused, it takes the slow path. One match costs 0.7
# us, less than split and the checks it saves.
_PUT = re.compile(
    rb"put ([^ \r]+) (\d{1,9}) (\d{1,9}) (-?\d{1,9}) (?:(-1|\d{1,10}) )?(-?[1-9]\d{0,9}|0)\r\n"
)
_GET = re.compile(
    rb"get ([^ \r]+) ([^ \r]*) (\d{1,9}) (\d{1,18}) ([1-9]\d{0,8}) (-?[1-9]\d{0,9}|0)"
    rb"(?: \d{1,9})?\r\n"  # how long it may wait, which it need not when there is something to read
)
_HEADER = HEADER.pack
_INT32_MIN, _INT32_MAX = -(1 << 31), (1 << 31) - 1
_P = ord("p")


class FileReply:
    """
    A ``value`` reply whose body is a range of a segment file.

    It keeps the file open, whatever retention does meanwhile, until ``release``.
    """

    __slots__ = ("head", "length", "position", "segment")

    def __init__(self, head: bytes, segment: Segment, position: int, length: int) -> None:
        self.head = head
        self.segment = segment
        self.position = position
        self.length = length
        segment.retain()

    def release(self) -> None:
        """The range was sent, or never will be."""
        self.segment.release()


class ReplyGroup:
    """
    The replies to one received chunk of a connection; they leave together.

    :ivar replies: encoded replies and file ranges, in request order.
    :ivar runs: (batch, index) for every run of replies that wait for the same batch; it goes on to
        the next run. A run of None waits for nothing.
    :ivar files: there is a ``FileReply`` among them.
    :ivar failed: a batch has failed.
    :ivar size: bytes of the requests that are answered here, for back-pressure.
    """

    __slots__ = ("failed", "files", "replies", "runs", "size")

    def __init__(self) -> None:
        self.replies: list[bytes | FileReply] = []
        self.runs: list[tuple[Batch | None, int]] = []
        self.files = False
        self.failed = False
        self.size = 0

    def add(self, reply: bytes | FileReply, batch: Batch | None = None) -> None:
        """One more reply, which waits for ``batch``."""
        runs = self.runs
        if runs[-1][0] is not batch if runs else batch is not None:
            runs.append((batch, len(self.replies)))
        self.replies.append(reply)

    def undecided(self) -> Batch | None:
        """The first batch that is neither stored nor failed; None settles ``failed``."""
        for batch, _ in self.runs:
            if batch is not None and batch.state != STORED:
                if batch.state == PENDING:
                    return batch
                self.failed = True
        return None


class Routes:
    """
    Where ordinary puts and gets go, by (topic, partition) as they are spelled on the wire.

    A store stands here only while its partition accepts plain puts (or gets without a filter), so
    that a hit needs no further check; the responders put it here and whoever changes the rules
    calls ``clear``.

    :ivar max_transfer: a get returns at most this many bytes.
    :ivar max_body: a longer body is not ordinary.
    """

    __slots__ = ("max_body", "max_transfer", "puts", "reads")

    def __init__(self, max_transfer: int, max_body: int) -> None:
        self.puts: dict[tuple[bytes, bytes], MessageStore] = {}
        self.reads: dict[tuple[bytes, bytes], MessageStore] = {}
        self.max_transfer = max_transfer
        self.max_body = max_body

    def clear(self) -> None:
        """Send every request the long way round until the rules have been asked again."""
        self.puts.clear()
        self.reads.clear()


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
    Take ordinary requests from ``data[start:end]``.

    Each put becomes a header and a body in the open batch of its store, and a reply that waits for
    the batch.

    :param data: what was received; lines are searched here.
    :param source: the same bytes; bodies are sliced from it, so with a memoryview the pieces are
        views of the receive buffer, and the caller must commit the batches or have them copied
        before it receives again.
    :param group: gets the replies.
    :returns: the position of the first byte that was not consumed: ``end``, or the start of a frame
        that is incomplete or not ordinary.
    """
    position = start
    next_id = ids.start_chunk()
    replies = group.replies
    runs = group.runs
    add = replies.append
    batch = runs[-1][0] if runs else None
    stores = routes.puts
    max_body = routes.max_body
    match = _PUT.match
    while position < end:
        if data[position] != _P:
            past = _read(data, position, end, routes, group)
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
        if given is not None and given != b"-1" and int(given) != checksum:
            break
        if len(opaque) > 9 and not _INT32_MIN <= int(opaque) <= _INT32_MAX:
            break
        collecting = store.batch
        if collecting is None:
            try:
                collecting = store.open_batch()
            except StoreError:
                break
        if collecting is not batch:
            batch = collecting
            runs.append((batch, len(replies)))
        pieces = collecting.pieces
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


def _read(
    data: bytes | bytearray, position: int, end: int, routes: Routes, group: ReplyGroup
) -> int:
    """One ordinary get whose offset holds data: the position behind it, or 0."""
    found = _GET.match(data, position, end)
    if found is None:
        return 0
    topic, _group, partition, offset, size, opaque = found.groups()
    store = routes.reads.get((topic, partition))
    if store is None:
        return 0
    if len(opaque) > 9 and not _INT32_MIN <= int(opaque) <= _INT32_MAX:
        return 0
    try:
        found_range = store.slice(int(offset), min(int(size), routes.max_transfer))
    except StoreError:
        return 0
    if found_range is None:
        return 0
    segment, at, length = found_range
    head = b"value %d %b\r\n" % (length, opaque)
    group.add(FileReply(head, segment, at, length))
    group.files = True
    store.get_count += 1
    return found.end()
