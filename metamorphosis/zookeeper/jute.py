"""
Jute, the serialisation of ZooKeeper: big-endian numbers, strings, buffers and vectors with a length
before them; the length -1 stands for null.

Memory is allocated for the bytes that have arrived, not for a claimed length: a string of 2^30
bytes or a vector of 2^30 strings is a ``MalformedRequest`` in a shorter frame.

Differs: ZooKeeper replaces bytes that are not UTF-8 by replacement characters; here such a string
is malformed, because two different names would become one node.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

_INT: Final = struct.Struct(">i")
_LONG: Final = struct.Struct(">q")
_MULTI_HEADER: Final = struct.Struct(">i?i")

_read_int = _INT.unpack_from
_pack_int = _INT.pack
_NULL: Final = _pack_int(-1)


class MalformedRequest(Exception):
    """The bytes are not the arguments of the operation."""


class Reader:
    """
    Takes values from the front of a frame.

    Every method raises ``MalformedRequest`` if the frame does not have the value.
    """

    __slots__ = ("frame", "position")

    def __init__(self, frame: bytes, position: int = 0) -> None:
        self.frame = frame
        self.position = position

    def integer(self) -> int:
        """A signed number of 32 bits."""
        position = self.position
        try:
            (value,) = _read_int(self.frame, position)
        except struct.error:
            raise MalformedRequest(f"no number at byte {position}") from None
        self.position = position + 4
        number: int = value
        return number

    def long(self) -> int:
        """A signed number of 64 bits."""
        position = self.position
        try:
            (value,) = _LONG.unpack_from(self.frame, position)
        except struct.error:
            raise MalformedRequest(f"no long number at byte {position}") from None
        self.position = position + 8
        number: int = value
        return number

    def boolean(self) -> bool:
        """One byte; any value except 0 is true."""
        position = self.position
        try:
            value = self.frame[position]
        except IndexError:
            raise MalformedRequest(f"no boolean at byte {position}") from None
        self.position = position + 1
        return value != 0

    def buffer(self) -> bytes | None:
        """Bytes, or None for null."""
        position = self.position
        try:
            (length,) = _read_int(self.frame, position)
        except struct.error:
            raise MalformedRequest(f"no length at byte {position}") from None
        start = position + 4
        if length < 0:
            if length != -1:
                raise MalformedRequest(f"length {length} at byte {position}")
            self.position = start
            return None
        self.position = end = start + length
        if end > len(self.frame):
            raise MalformedRequest(f"length {length} at byte {position} is beyond the end")
        return self.frame[start:end]

    def string(self) -> str:
        """A string that may not be null."""
        value = self.buffer()
        if value is None:
            raise MalformedRequest("null in place of a string")
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise MalformedRequest("a string that is not UTF-8") from None

    def text(self) -> str | None:
        """A string, or None for null."""
        start = self.position + len(_NULL)
        if self.frame[self.position : start] == _NULL:
            self.position = start
            return None
        return self.string()

    def count(self) -> int:
        """
        The length of a vector whose elements take four bytes or more; a null vector is -1.
        """
        count = self.integer()
        if count < -1 or count * 4 > len(self.frame) - self.position:
            raise MalformedRequest(f"{count} elements claimed")
        return count

    def strings(self) -> list[str]:
        """A vector of strings; null reads as empty."""
        return [self.string() for _ in range(self.count())]

    def multi_header(self) -> tuple[int, bool]:
        """The opcode of the next operation of a multi, and whether the multi ends here."""
        position = self.position
        try:
            opcode, done, _ = _MULTI_HEADER.unpack_from(self.frame, position)
        except struct.error:
            raise MalformedRequest(f"no header of an operation at byte {position}") from None
        self.position = position + _MULTI_HEADER.size
        return opcode, done


def pack_integer(value: int) -> bytes:
    """A signed number of 32 bits."""
    return _pack_int(value)


def pack_buffer(value: bytes | None) -> bytes:
    """Bytes with their length, or null."""
    if value is None:
        return _NULL
    return _pack_int(len(value)) + value


def pack_string(value: str | None) -> bytes:
    """A string with its length, or null."""
    if value is None:
        return _NULL
    encoded = value.encode()
    return _pack_int(len(encoded)) + encoded


def pack_strings(values: Iterable[str]) -> bytes:
    """A vector of strings."""
    parts = [pack_string(value) for value in values]
    return _pack_int(len(parts)) + b"".join(parts)


def pack_multi_header(opcode: int, done: bool, error: int) -> bytes:
    """The headers before each result of a multi, and the one that ends them."""
    return _MULTI_HEADER.pack(opcode, done, error)
