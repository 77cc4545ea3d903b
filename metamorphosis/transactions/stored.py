"""
The check whether the blocks of committed transactions are in the store at their locations.

Source: ``JournalTransactionStore.recover``; section 10.4 of the specification of transactions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from metamorphosis.message import crc32
from metamorphosis.store.layout import split_directory_name
from metamorphosis.transactions.locations import Location
from metamorphosis.transactions.replay import CommitFound
from metamorphosis.transactions.transaction import Partition

if TYPE_CHECKING:
    from metamorphosis.store.disk import Disk

READ_SIZE = 4 << 20


class SegmentView(NamedTuple):
    """The values of one segment, for a worker."""

    start: int
    end: int
    path: str


class Missing(NamedTuple):
    """A commit with a block that is missing at its location."""

    commit: CommitFound
    location: Location | None
    partition: Partition


@lru_cache(4096)
def partition_of(name: str) -> Partition | None:
    """The partition of a location's name; None if the name is invalid."""
    try:
        return split_directory_name(name)
    except Exception:
        return None


def missing_blocks(
    commits: Iterable[CommitFound], views: dict[Partition, list[SegmentView] | None]
) -> Iterator[Missing]:
    """The blocks that are not in the store. Thread: worker."""
    opened: dict[str, int] = {}
    try:
        for commit in commits:
            for location in commit.locations:
                partition = partition_of(location.name)
                segments = views.get(partition) if partition is not None else None
                if partition is None or segments is None:
                    continue
                if not _is_stored(location, segments, opened):
                    yield Missing(commit, location, partition)
    finally:
        for fd in opened.values():
            os.close(fd)


def _is_stored(location: Location, segments: list[SegmentView], opened: dict[str, int]) -> bool:
    """Whether the block is at its location, or was deleted with its segment."""
    if location.offset < 0 or location.length <= 0:
        return False
    if segments and location.offset < segments[0].start:
        return True
    for start, end, path in segments:
        if start <= location.offset and location.offset + location.length <= end:
            fd = opened.get(path)
            if fd is None:
                fd = opened[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            return _checksum(fd, location.offset - start, location.length) == location.checksum
    return False


def _checksum(fd: int, position: int, length: int) -> int:
    value = 0
    while length > 0:
        piece = os.pread(fd, min(length, READ_SIZE), position)
        if not piece:
            return -1
        value = crc32(piece, value)
        position += len(piece)
        length -= len(piece)
    return value & 0x7FFFFFFF


def sync_segments(disk: Disk, segments: Iterable[SegmentView]) -> None:
    """
    Flush the segments, so that blocks found in them survive a power cut: the process that wrote
    them may have been killed before its flush. Thread: worker.
    """
    for segment in segments:
        fd = disk.open(segment.path, writable=True)
        try:
            disk.sync(fd)
        finally:
            disk.close(fd)
        directory = os.path.dirname(segment.path)
        disk.sync_directory(directory)
        disk.sync_directory(os.path.dirname(directory))
