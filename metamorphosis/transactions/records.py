"""
The records of a redo file: a length of four bytes, a protobuf message, and after the record of a
commit the positions of its messages in the store.

Only the reading side, and of the fields only those that say how a transaction stands.

Source: ``JournalStore``, ``TransactionCommands``.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from struct import Struct
from typing import NamedTuple

from metamorphosis.errors import CorruptRecord

_APPEND = 1
_OPERATION = 2
_length = Struct(">i").unpack_from


class Operation(Enum):
    """What a record says of a transaction; the numbers are those of the file."""

    APPEND = 0
    XA_PREPARE = 1
    XA_COMMIT = 2
    XA_ROLLBACK = 3
    LOCAL_COMMIT = 4
    LOCAL_ROLLBACK = 5


class Record(NamedTuple):
    """One record: what it says, the key of its transaction, and the position after it."""

    operation: Operation
    key: str
    end: int


def read_records(data: bytes | memoryview) -> Iterator[Record]:
    """
    The records of a redo file, in their order.

    :raises CorruptRecord: the bytes from here on are no record; the end of the file within a record
        counts as that, too. The text names the position.
    """
    view = memoryview(data)
    at = 0
    while at < len(view):
        try:
            record = _record(view, at)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise CorruptRecord(f"no valid record at position {at}") from error
        yield record
        at = record.end


def _record(view: memoryview, at: int) -> Record:
    body = at + 4
    if body > len(view):
        raise ValueError("the length is cut")
    size = _length(view, at)[0]
    end = body + size
    if size < 1 or end > len(view):
        raise ValueError("the length leads behind the end")
    command = _fields(view[body:end])
    content = _fields(_bytes(command[2]))
    if command[1] == _APPEND:
        return Record(Operation.APPEND, _put_key(bytes(_bytes(content[2]))), end)
    if command[1] != _OPERATION:
        raise ValueError("unknown type of record")
    end += _number(content.get(4, 0))
    if end > len(view):
        raise ValueError("the positions are cut")
    operation = Operation(_number(content[1]))
    return Record(operation, str(_bytes(content[3]), "utf-8"), end)


def _put_key(command: bytes) -> str:
    """The transaction key of a ``put``: the word before the opaque."""
    line = command.split(b"\r\n", 1)[0]
    return str(line.rsplit(b" ", 2)[1], "utf-8")


def _fields(view: memoryview) -> dict[int, int | memoryview]:
    """The fields of a protobuf message by number, the last one of each."""
    fields: dict[int, int | memoryview] = {}
    at = 0
    while at < len(view):
        tag, at = _varint(view, at)
        kind = tag & 7
        if kind == 0:
            fields[tag >> 3], at = _varint(view, at)
            continue
        size = 8 if kind == 1 else 4
        if kind == 2:
            size, at = _varint(view, at)
        elif kind not in (1, 5):
            raise ValueError("unknown kind of field")
        if at + size > len(view):
            raise ValueError("a field leads behind the end")
        fields[tag >> 3] = view[at : at + size]
        at += size
    return fields


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """The number at a position, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number has no end")


def _number(field: int | memoryview) -> int:
    if not isinstance(field, int) or field >= 1 << 31:
        raise ValueError("a number is needed")
    return field


def _bytes(field: int | memoryview) -> memoryview:
    if isinstance(field, int):
        raise ValueError("bytes are needed")
    return field
