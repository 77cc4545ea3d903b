"""
The files of a journal directory, and the work on them before the journal is open.

Everything here blocks and has no state: it runs in workers.

Source: ``JournalStore``, ``Checkpoint``; sections 7, 8 and 12 of the specification of transactions.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from typing import NamedTuple

from twisted.logger import Logger

from metamorphosis.errors import InvalidRecord, JournalError
from metamorphosis.store.disk import Disk, write_all
from metamorphosis.store.opening import JOURNAL as DIRECTORY
from metamorphosis.transactions.checkpoint import JournalLocation, parse_checkpoint
from metamorphosis.transactions.heuristiclog import (
    Heuristic,
    encode_heuristic_log,
    parse_heuristic_log,
)
from metamorphosis.wire.transactionids import XATransactionId

REDO = "redo."
CHECKPOINT = "checkpoint."
HEURISTIC_LOG = "heuristic.log"
ASIDE = "damaged-"
"""Prefix for the names of kept damaged files; the original ignores such names."""

Outcomes = dict[XATransactionId, Heuristic]
"""The outcomes that administrators decided."""

_log = Logger()


def journal_directory(data_log_path: str, data_path: str) -> str:
    """The directory of a configuration's journal."""
    return os.path.join(os.path.abspath(data_log_path or data_path), DIRECTORY)


class JournalFiles(NamedTuple):
    """
    The files of a journal directory.

    :ivar redo: (number, path) of each redo file, in the order of the numbers.
    :ivar checkpoint: the newest that can be read.
    :ivar heuristic: outcomes that administrators decided.
    """

    redo: list[tuple[int, str]]
    checkpoint: JournalLocation | None
    heuristic: dict[XATransactionId, Heuristic]

    @property
    def next_number(self) -> int:
        """A number above all that were used here."""
        last = self.redo[-1][0] if self.redo else 0
        return max(last, self.checkpoint.number if self.checkpoint else 0) + 1


def find_files(disk: Disk, directory: str) -> JournalFiles:
    """
    The files of the directory, which is created durably if it is missing.

    :raises JournalError: naming the file or directory that cannot be read.
    """
    try:
        os.makedirs(directory, exist_ok=True)
        disk.sync_directory(directory)
        disk.sync_directory(os.path.dirname(os.path.abspath(directory)))
        return _look(directory, _heuristic)
    except OSError as error:
        raise unreadable(directory, error) from error


def find_files_only(directory: str) -> JournalFiles:
    """
    The files of the directory, without creating or changing any; an invalid ``heuristic.log``
    counts as empty.

    :raises JournalError: naming the file or directory that cannot be read.
    """
    try:
        return _look(directory, _readable_heuristic)
    except FileNotFoundError:
        return JournalFiles([], None, {})
    except OSError as error:
        raise unreadable(directory, error) from error


def unreadable(directory: str, error: OSError) -> JournalError:
    """The error of a journal that cannot be read."""
    return JournalError(f"Could not read the transaction journal in {directory} ({error.strerror})")


def _look(directory: str, read_heuristic: Callable[[str], Outcomes]) -> JournalFiles:
    names = os.listdir(directory)
    checkpoint = _newest_checkpoint(directory, names)
    heuristic = read_heuristic(os.path.join(directory, HEURISTIC_LOG))
    return JournalFiles(_numbered(directory, names, REDO), checkpoint, heuristic)


def _numbered(directory: str, names: Iterable[str], prefix: str) -> list[tuple[int, str]]:
    """Files ``<prefix><number>``, in the order of the numbers; others are not of the journal."""
    numbers = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    numbers = [text for text in numbers if text.isascii() and text.isdigit()]
    return sorted((int(text), os.path.join(directory, prefix + text)) for text in numbers)


def _newest_checkpoint(directory: str, names: Iterable[str]) -> JournalLocation | None:
    for _, path in reversed(_numbered(directory, names, CHECKPOINT)):
        with open(path, "rb") as file:
            data = file.read(4096)
        try:
            location = parse_checkpoint(data)
        except ValueError as error:
            _log.warn("Checkpoint {path} is passed over: {error}", path=path, error=error)
            continue
        if location is not None:
            return location
    return None


def _readable_heuristic(path: str) -> Outcomes:
    try:
        with open(path, "rb") as file:
            return parse_heuristic_log(file.read())
    except (FileNotFoundError, InvalidRecord):
        return {}


def _heuristic(path: str) -> Outcomes:
    """
    Differs: an unreadable file keeps the original from starting. The outcomes themselves are in the
    redo files; only the record that an administrator decided them is lost.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return {}
    try:
        return parse_heuristic_log(data)
    except InvalidRecord as error:
        aside = set_aside(path)
        _log.error(
            "{path} cannot be read and was moved to {aside}: {error}. Transactions that were"
            " decided by hand are answered as unknown from now on",
            path=path,
            aside=aside,
            error=error,
        )
        return {}


def set_aside(path: str, copy: bool = False) -> str:
    """Keep a damaged file under another name, copied or renamed; returns the name."""
    directory, name = os.path.split(path)
    number = 1
    while os.path.exists(aside := os.path.join(directory, f"{ASIDE}{name}.{number}")):
        number += 1
    if copy:
        shutil.copyfile(path, aside)
    else:
        os.rename(path, aside)
    return aside


def write_heuristic_log(
    disk: Disk, directory: str, outcomes: dict[XATransactionId, Heuristic]
) -> None:
    """Replace the file; a crash leaves the old one or the new one."""
    temporary = os.path.join(directory, f".{HEURISTIC_LOG}.new")
    fd = disk.overwrite(temporary)
    try:
        write_all(disk, fd, encode_heuristic_log(outcomes), 0)
        disk.sync(fd)
    finally:
        disk.close(fd)
    disk.replace(os.path.join(directory, HEURISTIC_LOG), temporary)
    disk.sync_directory(directory)


def compact(
    disk: Disk, directory: str, number: int, records: Iterable[bytes], old: Iterable[str]
) -> tuple[int, int]:
    """
    Replace all redo files by a new one with the records of the open transactions.

    The file gets its name when it is complete, because for each transaction only the latest file
    counts. A crash during this leaves a transaction in two files, or a file that is never read.

    :param number: number of the new file.
    :param old: paths of the others.
    :returns: descriptor and size of the new file.
    :raises OSError: the older files still exist.
    """
    path = os.path.join(directory, f"{REDO}{number}")
    temporary = os.path.join(directory, f".{REDO}new")
    fd, made = disk.overwrite(temporary), temporary
    try:
        size = 0
        for record in records:
            write_all(disk, fd, record, size)
            size += len(record)
        disk.sync(fd)
        disk.replace(path, temporary)
        made = path
        disk.sync_directory(directory)
    except OSError:
        disk.close(fd)
        disk.remove(made)
        raise
    for each in old:
        disk.remove(each)
    return fd, size
