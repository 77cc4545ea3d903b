"""
The records of a redo file, to and from bytes.

=====================  =======================================================================
int32 N                length of the message, at least 1
N bytes                ``TxCommand``: an APPEND with message id and put command, or an outcome
D bytes                after a commit only: locations of its blocks; D is in the message
=====================  =======================================================================

All records of one transaction are in one file. The encoding is byte-identical with the original's;
any legal protobuf encoding is read.

Source: ``TransactionCommands``, ``JournalStore``, ``JournalTransactionStore``; sections 7.1 to 7.3
of the specification of transactions.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from metamorphosis.errors import InvalidRecord
from metamorphosis.transactions.protobuf import fields, signed, varint

LENGTH = Struct(">i")
LENGTH_BYTES = LENGTH.size

LONGEST_HEAD = 1 << 20
"""The head line of a put command must end within this number of bytes."""

SHORT_HEAD = 256
"""The head line usually ends within this number of bytes."""

LONGEST_MESSAGE = 256 << 20
"""A greater length means damage: the longest put is far shorter."""


class OperationType(IntEnum):
    """The contents of a record about a transaction. The numbers are on disk."""

    XA_PREPARE = 1
    XA_COMMIT = 2
    XA_ROLLBACK = 3
    LOCAL_COMMIT = 4
    LOCAL_ROLLBACK = 5


COMMITS = frozenset({OperationType.XA_COMMIT, OperationType.LOCAL_COMMIT})


class Append(NamedTuple):
    """
    A message that a transaction will store.

    :ivar message_id: final since the put was answered.
    :ivar put_command: the put's wire form, head line and body.
    """

    message_id: int
    put_command: bytes | memoryview


class Operation(NamedTuple):
    """
    A step of a transaction.

    :ivar key: the transaction's canonical key.
    :ivar was_prepared: of a commit: the transaction had been prepared.
    :ivar data_length: bytes of locations that follow the message.
    """

    type: OperationType
    key: str
    was_prepared: bool = False
    data_length: int = 0


Record = Append | Operation

_APPEND_HEAD = b"\x08\x01\x12"
_OPERATION_HEAD = b"\x08\x02\x12"
_FORCE = b"\x18\x01"


def encode_append(message_id: int, put_command: bytes | bytearray | memoryview) -> bytes:
    """A framed APPEND record."""
    if message_id > 127:  # ids of a turn are consecutive: only their lowest bits differ
        encoded_id = _LOW_BITS[message_id & 127] + _high_bits(message_id >> 7)
    else:
        encoded_id = varint(message_id)
    head, middle = around_id(len(encoded_id), len(put_command))
    return b"".join((head, encoded_id, middle, put_command))


_LOW_BITS = [bytes((128 | value,)) for value in range(128)]
_high_bits = lru_cache(64)(varint)


@lru_cache(512)
def around_id(id_length: int, put_length: int) -> tuple[bytes, bytes]:
    """The bytes of an APPEND before the message id, and those between it and the put command."""
    middle = b"\x12" + varint(put_length)
    content = 1 + id_length + len(middle) + put_length
    head = _APPEND_HEAD + varint(content)
    return LENGTH.pack(len(head) + content) + head + b"\x08", middle


def encode_operation(operation: Operation, locations: bytes = b"") -> bytes:
    """
    A framed record of a step, with its locations.

    ``force`` is written by a prepare only and ``data_length`` by commits only, as the original
    does; ``operation.data_length`` is ignored.
    """
    key = operation.key.encode("utf-8")
    content = b"\x08%c\x10%c\x1a%b%b" % (
        operation.type,
        operation.was_prepared,
        varint(len(key)),
        key,
    )
    if operation.type in COMMITS:
        content += b"\x20" + varint(len(locations))
    message = b"%b%b%b" % (_OPERATION_HEAD, varint(len(content)), content)
    if operation.type is OperationType.XA_PREPARE:
        message += _FORCE
    return b"%b%b%b" % (LENGTH.pack(len(message)), message, locations)


def decode_message(message: memoryview) -> Record:
    """
    The record in one ``TxCommand``.

    :raises InvalidRecord: the message is not validly encoded, or lacks a required field.
    """
    kind: int | None = None
    content: memoryview | None = None
    for number, value in fields(message):
        if number == 1:
            kind = _number(value, "TxCommand.cmdType")
        elif number == 2:
            content = _bytes(value, "TxCommand.cmd_content")
    if kind is None or content is None:
        raise InvalidRecord("a journal message lacks its type or its content")
    if kind == 1:
        return _append(content)
    if kind == 2:
        return _operation(content)
    raise InvalidRecord(f"a journal message has the unknown type {kind}")


class Placed(NamedTuple):
    """A record in its file: its position, its contents, and the position after it."""

    position: int
    record: Record
    end: int


def read_records(data: bytes | memoryview) -> Iterator[Placed]:
    """
    The records of a redo file, in their order.

    :raises InvalidRecord: (from the iterator) the next bytes are not a record, or the file ends
        within one. The text names the position.
    """
    view = memoryview(data)
    position = 0
    while position < len(view):
        placed = read_record(view, position)
        yield placed
        position = placed.end


def read_record(view: memoryview, position: int) -> Placed:
    """
    The record at ``position``.

    :raises InvalidRecord: see ``read_records``.
    """
    try:
        return _placed(view, position)
    except InvalidRecord as error:
        raise InvalidRecord(f"no valid record at position {position}: {error}") from error


def _placed(view: memoryview, position: int) -> Placed:
    body = position + LENGTH_BYTES
    if body > len(view):
        raise InvalidRecord("its length is cut")
    size: int = LENGTH.unpack_from(view, position)[0]
    if not 1 <= size <= LONGEST_MESSAGE:
        raise InvalidRecord(f"its length is {size}")
    end = body + size
    if end > len(view):
        raise InvalidRecord(f"{end - len(view)} of its {size} bytes are missing")
    record = decode_message(view[body:end])
    if isinstance(record, Operation):
        end += record.data_length
        if end > len(view):
            raise InvalidRecord("its locations are cut")
    return Placed(position, record, end)


class PutHead(NamedTuple):
    """
    The fields of the head line of a put command in a transaction.

    :ivar key: key of the transaction.
    :ivar target: topic and number of the partition, as they are spelled.
    """

    key: str
    target: tuple[bytes, bytes]


def put_head(put_command: bytes | memoryview) -> PutHead:
    """
    The fields of a head line; the transaction key is the word before the opaque.

    :raises InvalidRecord: the line has no key.
    """
    line, end, _ = bytes(put_command[:SHORT_HEAD]).partition(b"\r\n")
    if not end:
        line = bytes(put_command[:LONGEST_HEAD]).partition(b"\r\n")[0]
    words = line.split(b" ")
    try:
        return PutHead(str(words[-2], "utf-8"), (words[1], words[2]))
    except (IndexError, UnicodeDecodeError) as error:
        raise InvalidRecord(f"a put command without transaction key: {line[:80]!r}") from error


def _append(content: memoryview) -> Append:
    message_id: int | None = None
    put_command: memoryview | None = None
    for number, value in fields(content):
        if number == 1:
            message_id = signed(_number(value, "AppendMessageCommand.message_id"), 64)
        elif number == 2:
            put_command = _bytes(value, "AppendMessageCommand.put_command")
    if message_id is None or put_command is None:
        raise InvalidRecord("an APPEND lacks its message id or its put command")
    return Append(message_id, put_command)


def _operation(content: memoryview) -> Operation:
    kind = key = prepared = None
    length = 0
    for number, value in fields(content):
        if number == 1:
            kind = _number(value, "TransactionOperation.type")
        elif number == 2:
            prepared = bool(_number(value, "TransactionOperation.was_prepared"))
        elif number == 3:
            key = _text(value)
        elif number == 4:
            length = signed(_number(value, "TransactionOperation.data_length"), 32)
    if kind is None or key is None or prepared is None:
        raise InvalidRecord("a step of a transaction lacks type, key or was_prepared")
    if length < 0:
        raise InvalidRecord(f"a commit claims {length} bytes of locations")
    try:
        return Operation(OperationType(kind), key, prepared, length)
    except ValueError as error:
        raise InvalidRecord(f"a step of a transaction has the unknown type {kind}") from error


def _number(value: int | memoryview, name: str) -> int:
    if isinstance(value, int):
        return value
    raise InvalidRecord(f"{name} is not a number")


def _bytes(value: int | memoryview, name: str) -> memoryview:
    if isinstance(value, memoryview):
        return value
    raise InvalidRecord(f"{name} is not a sequence of bytes")


def _text(value: int | memoryview) -> str:
    try:
        return str(_bytes(value, "TransactionOperation.transaction_id"), "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRecord("TransactionOperation.transaction_id is not UTF-8") from error
