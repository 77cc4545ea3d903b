"""
Storing blocks of committed transactions that a crash has left out of the store.

First the journal records their new locations, then they are stored. So after a crash in between,
the next recovery finds each block at its location or not, and stores none twice.

The records of messages have no checksum, but a location has that of its block. So a commit is
*harmed* if its messages are not those that it was to store: a power cut before its force has left
any part of them on the disk. It was not answered then, and is dropped.

Any part of a block that was being written at a power cut may be in the log. That part is removed:
cut off at the end of the log, made unreadable if other messages follow.

Source: ``JournalTransactionStore.recover``; section 10.4 of the specification of transactions.

Differs: the original stores the block first, and leaves the partial one; it stores a harmed commit
as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from metamorphosis.errors import JournalError
from metamorphosis.message import checksum
from metamorphosis.store.disk import Disk, write_all
from metamorphosis.transactions.locations import Location, encode_locations
from metamorphosis.transactions.rebuilding import block_of
from metamorphosis.transactions.stored import Missing

if TYPE_CHECKING:
    from metamorphosis.store.messagestore import MessageStore


def without_harmed(missing: Sequence[Missing], data: bytes) -> tuple[list[Missing], list[str]]:
    """
    The blocks of all commits that are not harmed, and the keys of the others. Thread: worker.

    :param missing: blocks of one redo file.
    :param data: the redo file.
    """
    harmed = {
        each.commit.locations_at: each.commit.key for each in missing if _is_harmed(each, data)
    }
    left = [each for each in missing if each.commit.locations_at not in harmed]
    return left, list(harmed.values())


def _is_harmed(missing: Missing, data: bytes) -> bool:
    """
    Whether the messages are not those of the location. After a prepare they were forced before, and
    a location without an offset tells nothing: the original may have recorded a wrong size and
    checksum.
    """
    commit, location, partition = missing
    try:
        block = b"".join(block_of(commit, partition, data))
    except JournalError:
        return True
    if commit.was_prepared or location is None or location.offset < 0:
        return False
    return (location.length, location.checksum) != (len(block), checksum(block))


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
    Record the new locations of the blocks, sizes and checksums first, because the commit counts as
    harmed as long as only its offset is right. Thread: worker.

    :param path: the redo file.
    :param data: its contents.
    """
    sized: dict[int, list[Location]] = {}
    changed: dict[int, list[Location]] = {}
    for (commit, location, partition), offset in zip(missing, offsets, strict=True):
        if location is None or location.offset == offset:
            continue
        block = b"".join(block_of(commit, partition, data))
        right = location._replace(length=len(block), checksum=checksum(block))
        place = commit.locations.index(location)
        if right != location:  # recorded by the original
            sized.setdefault(commit.locations_at, list(commit.locations))[place] = right
        locations = changed.setdefault(commit.locations_at, list(commit.locations))
        locations[place] = right._replace(offset=offset)
    if not changed:
        return
    fd = disk.open(path, writable=True)
    try:
        for step in filter(None, (sized, changed)):
            for position, locations in step.items():
                write_all(disk, fd, encode_locations(locations), position)
            disk.sync(fd)
    finally:
        disk.close(fd)
