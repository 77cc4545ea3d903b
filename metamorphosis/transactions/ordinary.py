"""
Records that are read without decoding each field, because they have the form that the original and
this broker write.

An APPEND is recognised by its first bytes and by the head line of its put. The messages that follow
it in the same transaction mostly differ only in id, checksum, opaque and body: they are recognised
by comparing the bytes between these. A commit, which every transaction has, is recognised by the
bytes around its key. All other records are left to ``records``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from metamorphosis.transactions.records import (
    COMMITS,
    LONGEST_MESSAGE,
    Operation,
    Placed,
    PutHead,
    around_id,
    encode_operation,
)

Span = tuple[int, int]
"""Start and end of a record in its file."""

_VARINT = rb"[\x80-\xff]{0,4}[\x00-\x7f]"
_ORDINARY = re.compile(
    rb".{4}\x08\x01\x12" + _VARINT + rb"\x08"
    rb"([\x80-\xff]{0,8}[\x00-\x7f]|[\x80-\xff]{9}\x01)\x12"
    + _VARINT  # the message id
    +
    # topic, partition, length of the body, flag
    rb"(put ([!-~]+) ([0-9]{1,9}) ([0-9]{1,9}) -?[0-9]+ )"
    # checksum, key, opaque
    rb"(-?[0-9]+ ([!-~]+) -?[0-9]+\r\n)",
    re.DOTALL,
)
_REST = re.compile(rb"-?[0-9]+ ([!-~]+) -?[0-9]+\r\n")


class Run(NamedTuple):
    """
    Consecutive records.

    :ivar head: the common fields of their put commands.
    :ivar spans: their positions.
    """

    head: PutHead
    spans: list[Span]


def read_run(data: bytes, position: int) -> Run | None:
    """
    The records from ``position`` on that are of one transaction, one partition and one size.

    One long function, because it makes as few calls as it can for each record.

    :returns: None: there is no such record, or it is damaged.
    """
    found = _ORDINARY.match(data, position)
    if found is None:
        return None
    message_id, line, topic, partition, body, rest, key = found.groups()
    id_length, rest_length = len(message_id), len(rest)
    head, middle = around_id(id_length, len(line) + rest_length + int(body))
    middle += line
    id_at = len(head)
    middle_at = id_at + id_length
    rest_at = middle_at + len(middle)
    size = rest_at + rest_length + int(body)
    if size > LONGEST_MESSAGE:
        return None
    mask, expected = _ends_of_numbers(id_length)
    spans: list[Span] = []
    whole, starts = len(data), data.startswith
    while (
        (end := position + size) <= whole
        and starts(head, position)
        and starts(middle, position + middle_at)
        and int.from_bytes(data[position + id_at : position + middle_at], "little") & mask
        == expected
        and (
            starts(rest, position + rest_at)
            or (
                (other := _REST.match(data, position + rest_at)) is not None
                and other[1] == key
                and other.end() == position + rest_at + rest_length
            )
        )
    ):
        spans.append((position, end))
        position = end
    return Run(PutHead(str(key, "ascii"), (topic, partition)), spans) if spans else None


def _ends_of_numbers(length: int) -> tuple[int, int]:
    """Mask of the bits that give a protobuf number's length, and their values for ``length``."""
    mask = int.from_bytes(b"\x80" * length, "little")
    last = 1 << 8 * (length - 1)
    if length == 10:  # 64 bits: the last byte has only one
        return mask | 0xFF * last, mask & ~(0x80 * last) | last
    return mask, mask & ~(0x80 * last)


_COMMIT = re.compile(
    # length, head, type, was_prepared, key, length of the locations
    rb".{4}\x08\x02\x12[\x80-\xff]?[\x00-\x7f]\x08([\x02\x04])\x10([\x00\x01])"
    rb"\x1a[\x80-\xff]?[\x00-\x7f]([!-~]+)\x20([\x80-\xff]{0,2}[\x00-\x7f])",
    re.DOTALL,
)


def read_commit(data: bytes, position: int) -> Placed | None:
    """
    The commit at ``position``.

    :returns: None: there is no commit in ordinary form, or it is damaged.
    """
    found = _COMMIT.match(data, position)
    if found is None:
        return None
    kind, prepared, key, encoded_length = found.groups()
    length, head, tail = _around_key(kind, prepared, len(key), encoded_length)
    at = position + len(head)
    end = at + len(key) + len(tail) + length
    if (
        data.startswith(head, position)
        and data.startswith(key, at)
        and data.startswith(tail, at + len(key))
        and end <= len(data)
    ):
        operation = Operation(_KINDS[kind], str(key, "ascii"), prepared == b"\x01", length)
        return Placed(position, operation, end)
    return None


_KINDS = {bytes((kind,)): kind for kind in COMMITS}


@lru_cache(1024)
def _around_key(
    kind: bytes, prepared: bytes, key_length: int, encoded_length: bytes
) -> tuple[int, bytes, bytes]:
    """Length of the locations, and the bytes before and after the key of a commit."""
    length = sum((byte & 127) << 7 * index for index, byte in enumerate(encoded_length))
    operation = Operation(_KINDS[kind], "k" * key_length, prepared == b"\x01")
    record = encode_operation(operation, bytes(length))
    tail = b"\x20" + encoded_length
    end = len(record) - length - len(tail)
    return length, record[: end - key_length], tail
