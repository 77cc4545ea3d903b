"""
The locations of the blocks of a committed transaction: the attachment of a commit record.

One entry per partition: int64 offset, int32 length, int32 checksum, int32 length of the name, the
name ``<topic>-<partition>``. The size does not depend on the offsets, so a location is rewritten in
place.

Differs: the original measures the attachment in characters, so that a commit to a topic with a
non-ASCII name fails; here bytes are counted.

Source: ``AddMsgLocationUtils``; section 7.4 of the specification of transactions.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

from metamorphosis.errors import InvalidRecord

_HEAD = Struct(">qiii")

NOWHERE = -1
"""Offset that the original journals for a block whose append failed."""


class Location(NamedTuple):
    """
    One block.

    :ivar name: ``<topic>-<partition>``.
    :ivar offset: offset of its first byte in the partition, ``NOWHERE`` if it was not stored.
    :ivar length: bytes, headers included.
    :ivar checksum: CRC-32 of the block without its top bit.
    """

    name: str
    offset: int
    length: int
    checksum: int


def encode_locations(locations: Iterable[Location]) -> bytes:
    """The attachment."""
    encoded = bytearray()
    for name, offset, length, checksum in locations:
        raw = name.encode("utf-8")
        encoded += _HEAD.pack(offset, length, checksum, len(raw))
        encoded += raw
    return bytes(encoded)


def decode_locations(data: memoryview) -> list[Location]:
    """
    The locations in an attachment.

    :raises InvalidRecord: an entry is cut, or its name is not UTF-8.
    """
    locations = []
    position = 0
    while position < len(data):
        start = position + _HEAD.size
        if start > len(data):
            raise InvalidRecord(f"a location is cut after {len(data) - position} bytes")
        offset, length, checksum, size = _HEAD.unpack_from(data, position)
        position = start + size
        if size < 0 or position > len(data):
            raise InvalidRecord(f"the name of a location has {size} bytes, beyond its record's end")
        try:
            name = str(data[start:position], "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRecord("the name of a location is not UTF-8") from error
        locations.append(Location(name, offset, length, checksum))
    return locations
