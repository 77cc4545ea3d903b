"""
``sync`` frames out of records, and the slave's answers out of bytes; both many at a time. Pure.

``frames_of`` and ``accepted`` run in C where that part is built; ``frames_in_python`` and
``accepted_in_python`` are the references.

Source: ``SyncCommand``, ``BooleanCommand``.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Final

from metamorphosis.message import HEADER, HEADER_BYTES
from metamorphosis.native import compiled

OPAQUES: Final = (1 << 31) - 11
"""Frames are numbered below this and then from 0 again. Questions have negative opaques, so that
the answers to both can be told apart on one connection."""

NO_CHECKSUM: Final = -1

_ACCEPTED: Final = b"result 200 "
_TOKENS: Final = 6
"""Of one answer that accepts a record: 200, length, opaque, id, partition, offset."""

LONGEST_ACCEPTED: Final = 128
"""No such answer is longer: 20 digits for each number."""

Pieces = Sequence[bytes | memoryview]
"""Header, body, header, body, ..."""

Answers = tuple[list[int], list[int], int, bool]
"""The opaques and the offsets of records that were accepted, in the order of their answers; how
many bytes these are; and whether what follows may be the start of another such answer."""


def head_of(topic: str, partition: int) -> bytes:
    """What the lines of the frames of a partition begin with."""
    return b"sync %b %d " % (topic.encode(), partition)


def frames_of(
    head: bytes, pieces: Pieces, number: int, unchecked: Container[int] = ()
) -> tuple[bytes, list[int]]:
    """
    The frames of records, and the sizes that these have in the log.

    :param head: of their partition, from ``head_of``.
    :param number: of the first frame; the others follow it.
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


def accepted_in_python(data: bytes) -> Answers:
    """
    The answers at the front of ``data`` that accept a record. Where something else is between them
    it may find none: the careful reader has to look at all of it then.

    All of them are taken apart by a few calls, whatever their number: 0.4 us an answer, a third of
    what one after the other costs.
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
    """Where the last answer ends that is complete."""
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


def offset_in(body: bytes) -> int | None:
    """The offset in the body of such an answer, ``<id> <partition> <offset>``; None: it is none."""
    words = body.split(b" ")
    return int(words[2]) if len(words) == 3 and words[2].isdigit() else None
