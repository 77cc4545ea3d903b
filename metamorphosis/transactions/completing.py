"""
Commit records that name no place for one of their partitions.

Such a block is stored like one whose place says that it was not. First the record gets a place for
it, so that a crash in between leaves a place that says so, and the next recovery stores none twice.
The record becomes longer, so the file is written anew beside the old one and then takes its name.

Source: ``JournalTransactionStore.recover``; section 10.4 of the specification of transactions.

Differs: the original has no room for the place in the record, and writes it over what follows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from metamorphosis.message import checksum
from metamorphosis.transactions.journalfiles import write_all
from metamorphosis.transactions.locations import NOWHERE, Location, encode_locations
from metamorphosis.transactions.rebuilding import block_of
from metamorphosis.transactions.records import Operation, encode_operation, read_records
from metamorphosis.transactions.replay import CommitFound
from metamorphosis.transactions.stored import partition_of

if TYPE_CHECKING:
    from metamorphosis.store.disk import Disk


def complete(disk: Disk, path: str, data: bytes, commits: list[CommitFound]) -> None:
    """
    Give every commit a place for each of its partitions. Thread: worker.

    :param path: of the redo file.
    :param data: what is in it, whole records only.
    :raises OSError: the file is as it was.
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
    """The bytes of the file, in pieces."""
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
    Size and checksum are right already: only the offset is written later, so that a write of which
    a power cut has spared a part says nothing wrong.
    """
    partition = partition_of(name)
    block = b"" if partition is None else b"".join(block_of(commit, partition, data))
    return Location(name, NOWHERE, len(block), checksum(block))
