"""
Prepared transactions and blocks of messages, made again from the records of a redo file.

Source: ``JournalTransactionStore.recover``; section 10.4 of the specification of transactions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from metamorphosis.errors import JournalError, ProtocolError
from metamorphosis.message import HEADER, checksum
from metamorphosis.transactions.records import (
    Append,
    Operation,
    OperationType,
    encode_operation,
    read_records,
)
from metamorphosis.transactions.replay import CommitFound, OpenTransaction
from metamorphosis.transactions.transaction import Partition, State, Transaction
from metamorphosis.wire.commands import PutCommand
from metamorphosis.wire.decoding import FrameLimits, NeedMore, decode_frame
from metamorphosis.wire.transactionids import (
    LocalTransactionId,
    XATransactionId,
    parse_transaction_id,
)

_ANY_FRAME = FrameLimits(1 << 30, 1 << 30)


def read_file(path: str) -> bytes:
    """The contents of a file. Thread: worker."""
    with open(path, "rb") as file:
        return file.read()


def block_of(commit: CommitFound, partition: Partition, data: bytes) -> list[bytes]:
    """
    Headers and bodies of a commit's messages for one partition.

    :param data: the contents of its redo file.
    """
    pieces: list[bytes] = []
    for start, end in commit.appends:
        put, message_id = _put_of(data[start:end])
        if (put.topic, put.partition) == partition:
            body = put.body
            pieces.append(HEADER.pack(len(body), checksum(body), message_id, put.flag))
            pieces.append(body)
    return pieces


def _put_of(record: bytes) -> tuple[PutCommand, int]:
    """
    The put of an APPEND record, and its message id.

    :raises JournalError: the record holds no put.
    """
    (placed,) = read_records(record)
    assert isinstance(placed.record, Append)
    command = bytes(placed.record.put_command)
    try:
        frame = decode_frame(command, 0, len(command), _ANY_FRAME)
    except ProtocolError as error:
        raise JournalError(f"A record of the journal holds no put: {error}") from error
    if isinstance(frame, NeedMore) or not isinstance(frame[0], PutCommand):
        raise JournalError(f"A record of the journal holds no put: {command[:80]!r}")
    return frame[0], placed.record.message_id


def rebuilt(
    found: Iterable[OpenTransaction], path: str, now: float
) -> tuple[list[Transaction], list[str]]:
    """
    The prepared transactions of a file, restored, and the keys of those that cannot be, because
    records of theirs hold no put. Thread: worker.
    """
    transactions = []
    harmed = []
    with open(path, "rb") as file:
        for each in found:
            try:
                transactions.append(_rebuilt_one(each, file.fileno(), now))
            except JournalError:
                harmed.append(each.key)
    return transactions, harmed


def _rebuilt_one(found: OpenTransaction, fd: int, now: float) -> Transaction:
    transaction_id = parse_transaction_id(found.key)
    assert isinstance(transaction_id, LocalTransactionId | XATransactionId)
    transaction = Transaction(transaction_id, now)
    transaction.recovered = True
    transaction.state = State.PREPARED
    for start, end in found.appends:
        record = os.pread(fd, end - start, start)
        put, message_id = _put_of(record)
        header = HEADER.pack(len(put.body), checksum(put.body), message_id, put.flag)
        transaction.add([((put.topic, put.partition), header, record)], [record])
    return transaction


def open_records(transaction: Transaction) -> list[bytes]:
    """The records of a prepared transaction that a redo file must have."""
    prepare = encode_operation(Operation(OperationType.XA_PREPARE, transaction.key))
    return [*transaction.records, prepare]
