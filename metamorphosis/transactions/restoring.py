"""
Storing blocks of committed transactions that a crash has left out of the store.

First the journal records their new locations, then they are stored. So after a crash in between,
the next recovery finds each block at its location or not, and stores none twice.

Any part of a block that was being written at a power cut may be in the log. That part is removed:
cut off at the end of the log, made unreadable if other messages follow.

Source: ``JournalTransactionStore.recover``; section 10.4 of the specification of transactions.

Differs: the original stores the block first, and leaves the partial one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from metamorphosis.message import checksum
from metamorphosis.store.disk import Disk, write_all
from metamorphosis.transactions.locations import Location, encode_locations
from metamorphosis.transactions.rebuilding import block_of
from metamorphosis.transactions.stored import Missing

if TYPE_CHECKING:
    from metamorphosis.store.messagestore import MessageStore


def plan(missing: Sequence[tuple[Missing, MessageStore]], data: bytes) -> list[int]:
    """
    The new offsets of the blocks of one redo file. Partial blocks are removed.

    :param data: the redo file.
    :raises StoreError: a segment cannot be read or written.
    """
    offsets: list[int] = []
    ends: dict[MessageStore, int] = {}
    for (commit, location, partition), store in missing:
        pieces = block_of(commit, partition, data)
        if location is not None and location.offset >= 0:
            _remove_rest(store, location.offset, pieces, store in ends)
        offset = ends.get(store, store.next_offset)
        offsets.append(offset)
        ends[store] = offset + sum(map(len, pieces))
    return offsets


def _remove_rest(store: MessageStore, offset: int, pieces: list[bytes], planned: bool) -> None:
    """Remove the messages of a partial block at its location."""
    found = []
    at = offset
    for header, body in zip(pieces[::2], pieces[1::2], strict=True):
        record = header + body
        if store.bytes_at(at, len(record)) == record:
            found.append((at, len(record)))
        at += len(record)
    if not found:
        return
    if not planned and store.last.start <= offset and store.next_offset <= at:
        store.cut_back(offset)
        return
    for start, length in found:
        store.blot_out(start, length)


def correct(
    disk: Disk, path: str, missing: Sequence[Missing], offsets: Sequence[int], data: bytes
) -> None:
    """
    Record the new locations of the blocks. Thread: worker.

    :param path: the redo file.
    :param data: its contents.
    """
    changed: dict[int, list[Location]] = {}
    for (commit, location, partition), offset in zip(missing, offsets, strict=True):
        if location is None or location.offset == offset:
            continue
        block = b"".join(block_of(commit, partition, data))
        locations = changed.setdefault(commit.locations_at, list(commit.locations))
        # The original may have recorded a wrong size and checksum.
        locations[commit.locations.index(location)] = Location(
            location.name, offset, len(block), checksum(block)
        )
    if not changed:
        return
    fd = disk.open(path, writable=True)
    try:
        for position, locations in changed.items():
            write_all(disk, fd, encode_locations(locations), position)
        disk.sync(fd)
    finally:
        disk.close(fd)
