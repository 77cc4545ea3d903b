"""Bytes of a log -> the headers and bodies of the whole records at their front. Pure."""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from metamorphosis.message import HEADER_BYTES, checksum

_LENGTH_AND_CHECKSUM: Final = Struct(">ii")


class Carved(NamedTuple):
    """
    The result.

    :ivar pieces: header, body, header, body, ...
    :ivar size: their bytes.
    :ivar needed: bytes of the first incomplete record; 0 if not known yet.
    :ivar fault: the reason why the next bytes are not a record; None: they may be one.
    """

    pieces: list[bytes]
    size: int
    needed: int = 0
    fault: str | None = None


def carve(data: bytes, verify: bool) -> Carved:
    """
    Split whole records into headers and bodies.

    :param data: begins with a record.
    :param verify: compare the checksums.
    """
    pieces: list[bytes] = []
    position = 0
    unpack = _LENGTH_AND_CHECKSUM.unpack_from
    while (start := position + HEADER_BYTES) <= len(data):
        length, expected = unpack(data, position)
        if length < 0:
            return Carved(pieces, position, fault=f"the length {length} is below 0")
        end = start + length
        if end > len(data):
            return Carved(pieces, position, HEADER_BYTES + length)
        body = data[start:end]
        if verify and checksum(body) != expected:
            return Carved(pieces, position, fault="the checksum of its body is wrong")
        pieces.append(data[position:start])
        pieces.append(body)
        position = end
    return Carved(pieces, position)
