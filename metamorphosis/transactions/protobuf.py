"""
The part of the protobuf encoding that the journal uses: varints and length-delimited fields.

A library would need a generated module and two copies per message; the journal has four messages
with a fixed encoding, and every put in a transaction writes one.

Source: proto2 wire format, as ``TransactionCommands`` of the original writes it.
"""

from __future__ import annotations

from collections.abc import Iterator

from metamorphosis.errors import InvalidRecord

VARINT = 0
FIXED64 = 1
BYTES = 2
FIXED32 = 5

LONGEST_VARINT = 10
"""Bytes of a varint that holds 64 bits."""

_SMALL = [bytes((value,)) for value in range(128)]
_MASK64 = (1 << 64) - 1


def varint(value: int) -> bytes:
    """
    The encoding of a number.

    :param value: signed or unsigned, 64 bits; a negative one takes ten bytes, as proto2's
        ``int64`` does.
    """
    value &= _MASK64
    if value < 128:
        return _SMALL[value]
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """
    An unsigned 64-bit number, and the position after it.

    :raises InvalidRecord: the number does not end within ``data`` or within ten bytes.
    """
    value = shift = 0
    for at in range(position, min(position + LONGEST_VARINT, len(data))):
        byte = data[at]
        value |= (byte & 127) << shift
        if byte < 128:
            return value & _MASK64, at + 1
        shift += 7
    raise InvalidRecord(f"the number at byte {position} of a journal message does not end")


def signed(value: int, bits: int) -> int:
    """The two's complement number in the low ``bits`` of ``value``."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """
    (number, value) of each field: an unsigned int for a varint, a view for other types.

    :raises InvalidRecord: the message is cut, or has a wire type that proto2 does not define.
    """
    position = 0
    while position < len(data):
        key, position = read_varint(data, position)
        number, kind = key >> 3, key & 7
        if not number:
            raise InvalidRecord("a journal message has a field with number 0")
        if kind == VARINT:
            value, position = read_varint(data, position)
            yield number, value
            continue
        if kind == BYTES:
            length, position = read_varint(data, position)
        elif kind == FIXED64:
            length = 8
        elif kind == FIXED32:
            length = 4
        else:
            raise InvalidRecord(
                f"field {number} of a journal message has the unknown wire type {kind}"
            )
        end = position + length
        if end > len(data):
            raise InvalidRecord(f"field {number} of a journal message is cut")
        yield number, data[position:end]
        position = end
