"""
Commit records without a location for one of their partitions.

Such a block is stored like one whose location marks it as not stored. First the record gets such a
location, so that after a crash in between the next recovery stores no block twice. The record
becomes longer, so a new file is written and then replaces the old one.

Source: ``JournalTransactionStore.recover``; section 10.4 of the specification of transactions.

Differs: the original has no space for the location in the record, and overwrites the bytes after
it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from metamorphosis.errors import JournalError
from metamorphosis.message import checksum
from metamorphosis.store.disk import Disk, write_all
from metamorphosis.transactions.locations import NOWHERE, Location, encode_locations
from metamorphosis.transactions.rebuilding import block_of
from metamorphosis.transactions.records import Operation, encode_operation, read_records
from metamorphosis.transactions.replay import CommitFound
from metamorphosis.transactions.stored import partition_of


def complete(disk: Disk, path: str, data: bytes, commits: list[CommitFound]) -> None:
    """
    Give every commit a location for each of its partitions. Thread: worker.

    :param path: the redo file.
    :param data: its contents, whole records only.
    :raises OSError: the file is unchanged.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.new")
    fd = disk.overwrite(temporary)
    try:
        position = 0
        for piece in _completed(data, commits):
            write_all(disk, fd, piece, position)
            position += len(piece)
        disk.sync(fd)
    finally:
        disk.close(fd)
    disk.replace(path, temporary)
    disk.sync_directory(directory)


def _completed(data: bytes, commits: list[CommitFound]) -> Iterator[bytes]:
    """The bytes of the new file, in pieces."""
    lacking = {commit.locations_at: commit for commit in commits if commit.lacking}
    done = 0
    for start, record, end in read_records(data):
        if not isinstance(record, Operation):
            continue
        commit = lacking.get(end - record.data_length)
        if commit is not None:
            added = [_nowhere(name, commit, data) for name in commit.lacking]
            yield data[done:start]
            yield encode_operation(record, encode_locations([*commit.locations, *added]))
            done = end
    yield data[done:]


def _nowhere(name: str, commit: CommitFound, data: bytes) -> Location:
    """
    A location without an offset. Size and checksum are already correct: only the offset is written
    later, so that a partial write at a power cut leaves no wrong values.
    """
    partition = partition_of(name)
    try:
        block = b"" if partition is None else b"".join(block_of(commit, partition, data))
    except JournalError:  # the commit is harmed, see ``restoring``
        block = b""
    return Location(name, NOWHERE, len(block), checksum(block))
