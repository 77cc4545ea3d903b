"""
Encodes records as ``sync`` frames, and decodes the slave's replies; both many at a time. Pure.

``frames_of`` and ``accepted`` run in C if that part is built; ``frames_in_python`` and
``accepted_in_python`` are the reference implementations. A *run* is whole records that follow each
other in one piece of memory, as in the log.

Source: ``SyncCommand``, ``BooleanCommand``.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Final

from metamorphosis.message import HEADER, HEADER_BYTES
from metamorphosis.native import compiled
from metamorphosis.replication.pairmaster.carving import carve

OPAQUES: Final = (1 << 31) - 11
"""Limit of the frames' opaques, which start again from 0. Other requests have negative opaques, so
that the replies to both can be distinguished on one connection."""

NO_CHECKSUM: Final = -1

_ACCEPTED: Final = b"result 200 "
_TOKENS: Final = 6
"""Words of one reply that accepts a record: 200, length, opaque, id, partition, offset."""

LONGEST_ACCEPTED: Final = 128
"""Limit of such a reply: 20 digits for each number."""

Pieces = Sequence[bytes | memoryview]
"""Header, body, header, body, ..."""

Answers = tuple[list[int], list[int], int, bool]
"""The opaques and offsets of accepted records in the order of their replies; the bytes of these
replies; and whether the next bytes may begin another such reply."""


def head_of(topic: str, partition: int) -> bytes:
    """The common beginning of the lines of a partition's frames."""
    return b"sync %b %d " % (topic.encode(), partition)


def frames_of(
    head: bytes, pieces: Pieces, number: int, unchecked: Container[int] = ()
) -> tuple[bytes, list[int]]:
    """
    The frames of records, and the sizes of the records in the log.

    :param head: of their partition, from ``head_of``.
    :param number: of the first frame; the others count up from it.
    :param unchecked: records whose producer gave no checksum, counted from 0.
    """
    if compiled is None or unchecked:
        return frames_in_python(head, pieces, number, unchecked)
    made: tuple[bytes, list[int]] = compiled.sync_frames(head, pieces, number % OPAQUES, OPAQUES)
    return made


def frames_in_python(
    head: bytes, pieces: Pieces, number: int, unchecked: Container[int] = ()
) -> tuple[bytes, list[int]]:
    """See ``frames_of``."""
    frames: list[bytes | memoryview] = []
    sizes: list[int] = []
    add = frames.append
    add_size = sizes.append
    opaque = number % OPAQUES
    line = head.replace(b"%", b"%%") + b"%d %d %d %d %d\r\n"
    bodies = pieces[1::2]
    for at, (length, checksum, message_id, flag) in enumerate(
        HEADER.iter_unpack(b"".join(pieces[::2]))
    ):
        if unchecked and at in unchecked:
            checksum = NO_CHECKSUM
        add(line % (length, flag, message_id, checksum, opaque))
        add(bodies[at])
        add_size(HEADER_BYTES + length)
        opaque += 1
        if opaque == OPAQUES:
            opaque = 0
    return b"".join(frames), sizes


def frames_of_run(
    head: bytes, run: bytes, count: int, number: int, unchecked: Container[int] = ()
) -> bytes:
    """
    The frames of the records of a run.

    :param count: the number of records.
    :param number: see ``frames_of``, as the other parameters.
    """
    if compiled is None or unchecked:
        return frames_in_python(head, carve(run, verify=False).pieces, number, unchecked)[0]
    made: bytes = compiled.run_frames(head, run, count, number % OPAQUES, OPAQUES)
    return made


def sizes_in(run: bytes) -> list[int]:
    """The sizes of the records of a run."""
    sizes = []
    position, end = 0, len(run)
    while position < end:
        size = HEADER_BYTES + int.from_bytes(run[position : position + 4], "big")
        sizes.append(size)
        position += size
    return sizes


def _none_of_run(
    data: bytes, position: int, run: bytes, at: int, opaque: int, opaques: int, offset: int
) -> tuple[int, int, int]:
    return 0, at, position


def accepted_in_python(data: bytes) -> Answers:
    """
    The replies at the front of ``data`` that accept a record. With another reply between them it
    may find none: then the general reader has to read all of the data.

    All of them are split by a few calls, whatever their number: 0.4 us per reply, a third of the
    cost of splitting them one by one.
    """
    if not data.startswith(_ACCEPTED):
        return [], [], 0, _may_become_accepted(data)
    end = _end_of_last(data)
    tokens = data[:end].replace(b"result", b" ").split()
    count = len(tokens) // _TOKENS
    if len(tokens) != count * _TOKENS or tokens[::_TOKENS].count(b"200") != count:
        return [], [], 0, False
    try:
        opaques, offsets = list(map(int, tokens[2::_TOKENS])), list(map(int, tokens[5::_TOKENS]))
    except ValueError:
        return [], [], 0, False
    return opaques, offsets, end, _may_become_accepted(data[end:])


def _end_of_last(data: bytes) -> int:
    """The end of the last complete reply."""
    last = data.rfind(_ACCEPTED)
    line_end = data.find(b"\r\n", last)
    if line_end < 0:
        return last
    length = data[last + len(_ACCEPTED) : line_end].partition(b" ")[0]
    end = line_end + 2 + int(length) if length.isdigit() else last
    return end if end <= len(data) else last


def _may_become_accepted(data: bytes) -> bool:
    size = min(len(data), len(_ACCEPTED))
    return len(data) < LONGEST_ACCEPTED and data[:size] == _ACCEPTED[:size]


accepted: Callable[[bytes], Answers] = accepted_in_python if compiled is None else compiled.accepted
"""The implementation that this process uses."""

accepted_of_run: Callable[[bytes, int, bytes, int, int, int, int], tuple[int, int, int]] = (
    _none_of_run if compiled is None else compiled.run_accepted
)
"""
Finds the replies that accept the next records of a run, each at its offset. Without the part in C
it finds none: ``accepted`` finds them.

Its arguments: ``data``, the ``position`` of the replies in it, ``run``, where the next record
begins in the run, the opaque of its frame, ``OPAQUES``, and the offset at which it belongs. It
returns the number of such replies, the position in the run after their records, and the position in
``data`` after them.
"""


def offset_in(body: bytes) -> int | None:
    """The offset in the body of such a reply, ``<id> <partition> <offset>``; None for others."""
    words = body.split(b" ")
    return int(words[2]) if len(words) == 3 and words[2].isdigit() else None
