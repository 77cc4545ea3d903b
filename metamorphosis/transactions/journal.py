"""
What the journal of a Java broker still holds: transactions that were prepared and have no outcome.

Their messages exist in the journal only. A broker without transactions cannot bring them to an end,
so it says that they are there before it serves.

Source: ``JournalTransactionStore``. A checkpoint says where the original begins to read; records
before it can belong to a transaction without outcome all the same, so that every file is read from
its beginning.
"""

from __future__ import annotations

import os

from twisted.logger import Logger

from metamorphosis.errors import InvalidRecord, StoreError
from metamorphosis.transactions.records import Append, OperationType, put_key, read_records

DIRECTORY = "transactions"
REDO = "redo."
SHOWN = 5
"""Transactions that an error names."""

_log = Logger()


def journal_directory(data_log_path: str, data_path: str) -> str:
    """Where the journal of a configuration is."""
    return os.path.join(os.path.abspath(data_log_path or data_path), DIRECTORY)


def prepared_transactions(directory: str) -> list[str]:
    """
    The keys of prepared transactions without outcome, in the order in which they were prepared.

    A file is read up to its first invalid record, as the original does; that is where it was
    written last when the process ended. Thread: any; blocks.

    :raises StoreError: a file cannot be read; the text names it.
    """
    prepared: dict[str, None] = {}
    for path in _redo_files(directory):
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise StoreError(f"Could not read file {path} ({error.strerror})") from error
        try:
            _follow(data, prepared)
        except InvalidRecord as error:
            _log.warn(
                "Of the transaction journal {path} only the beginning was read: {error}",
                path=path,
                error=error,
            )
    return list(prepared)


def refuse_prepared(directory: str) -> None:
    """
    Keep a broker that cannot end them from starting on prepared transactions. Thread: any; blocks.

    :raises StoreError: there are some, or a file cannot be read; the text says how to go on.
    """
    prepared = prepared_transactions(directory)
    if prepared:
        shown = ", ".join(prepared[:SHOWN]) + (", ..." if len(prepared) > SHOWN else "")
        raise StoreError(
            f"The transaction journal {directory} holds prepared transactions ({len(prepared)}:"
            f" {shown}). This broker has no transactions yet and cannot end them. Start the Java"
            " broker and commit them or roll them back; or set ignore-prepared-transactions=true"
            " in [store] of metamorphosis.ini, and their messages stay in the journal"
        )


def _redo_files(directory: str) -> list[str]:
    """In the order of their numbers."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"Could not read directory {directory} ({error.strerror})") from error
    numbers = [name.removeprefix(REDO) for name in names if name.startswith(REDO)]
    numbers = [number for number in numbers if number.isascii() and number.isdigit()]
    return [os.path.join(directory, REDO + number) for number in sorted(numbers, key=int)]


def _follow(data: bytes, prepared: dict[str, None]) -> None:
    """
    Add and remove what the records of a file say.

    The original takes further puts of a prepared transaction and keeps them apart, without ever
    committing them; their rollback leaves the prepared one as it is.
    """
    apart: set[str] = set()
    for _, record, _ in read_records(data):
        if isinstance(record, Append):
            key = put_key(record.put_command)
            if key in prepared:
                apart.add(key)
        elif record.type is OperationType.XA_PREPARE:
            prepared[record.key] = None
        elif record.type is OperationType.XA_ROLLBACK and record.key in apart:
            apart.discard(record.key)
        else:
            prepared.pop(record.key, None)
