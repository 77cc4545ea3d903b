"""
The contents of a journal that only a broker with transactions can finish: prepared transactions,
and committed messages that are not in the store. The check writes nothing.

A slave, and a master with a slave, take no transactions. Such a broker must not start with an
unfinished journal: a prepared transaction would wait without end, and the next start with
transactions would store the missing messages after later ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from metamorphosis.store.layout import find_segments, partition_directory
from metamorphosis.transactions.heuristiclog import Heuristic
from metamorphosis.transactions.journalfiles import find_files_only, unreadable
from metamorphosis.transactions.rebuilding import read_file
from metamorphosis.transactions.replay import CommitFound, Replay
from metamorphosis.transactions.stored import SegmentView, missing_blocks, partition_of
from metamorphosis.transactions.transaction import Partition
from metamorphosis.wire.transactionids import XATransactionId, parse_transaction_id

if TYPE_CHECKING:
    from metamorphosis.store.messagestore import MessageStore

SHOWN = 3

FindSegments = Callable[[Partition], list[SegmentView]]
"""Returns the segments of a partition; empty if there is no such partition."""


def of_stores(find: Callable[[Partition], MessageStore | None]) -> FindSegments:
    """Find segments in a broker that has loaded its partitions."""

    def segments(partition: Partition) -> list[SegmentView]:
        store = find(partition)
        found = () if store is None else store.segments
        return [SegmentView(segment.start, segment.end, segment.path) for segment in found]

    return segments


def of_directories(data_path: Callable[[str], str]) -> FindSegments:
    """
    Find segments on the disk.

    :param data_path: returns the data path of a topic.
    """

    def segments(partition: Partition) -> list[SegmentView]:
        directory = partition_directory(data_path(partition[0]), *partition)
        if not os.path.isdir(directory):
            return []
        found = find_segments(directory)
        return [SegmentView(start, start + size, path) for start, path, size in found]

    return segments


class Unfinished(NamedTuple):
    """
    The unfinished transactions of a journal.

    :ivar prepared: keys of transactions that wait for their outcome.
    :ivar not_stored: keys of committed ones whose messages are not all in the store.
    :ivar size: bytes of all redo files.
    """

    prepared: list[str]
    not_stored: list[str]
    size: int

    def refusal(self, directory: str) -> str | None:
        """The reason why a broker without transactions must not start with this journal, and the
        remedy; None: it may."""
        if not self.prepared and not self.not_stored:
            return None
        return (
            f"the transaction journal in {directory} holds {self}, and a broker in a pair and a"
            " slave take no transactions. Start this broker once as a plain one, end what is"
            " prepared (metaq tx), and stop it; or, if these messages are wanted no longer, move"
            f" {directory} away"
        )

    def __str__(self) -> str:
        """The transactions in words, such as "1 transaction prepared (XID:...)"."""
        found = []
        for keys, kind in (
            (self.prepared, "prepared"),
            (self.not_stored, "committed and not completely stored"),
        ):
            if keys:
                more = ", ..." if len(keys) > SHOWN else ""
                shown = ", ".join(keys[:SHOWN]) + more
                plural = "" if len(keys) == 1 else "s"
                found.append(f"{len(keys)} transaction{plural} {kind} ({shown})")
        return " and ".join(found)


def find_unfinished(directory: str, find: FindSegments) -> Unfinished:
    """
    Search the redo files of a journal directory, which need not exist. Called before any store
    takes messages. Thread: that of ``find``; blocks.

    :raises JournalError: naming the file that cannot be read.
    """
    files = find_files_only(directory)
    replay = Replay(files.checkpoint)
    not_stored: list[str] = []
    size = 0
    try:
        for number, path in files.redo:
            data = read_file(path)
            size += len(data)
            found = replay.follow(number, data)
            commits = [each for each in found if isinstance(each, CommitFound)]
            missing = missing_blocks(commits, _views(commits, find))
            not_stored += dict.fromkeys(each.commit.key for each in missing)
    except OSError as error:
        raise unreadable(directory, error) from error
    prepared = [key for key in replay.prepared if not _is_completed(key, files.heuristic)]
    return Unfinished(prepared, not_stored, size)


def _is_completed(key: str, heuristic: dict[XATransactionId, Heuristic]) -> bool:
    """Whether a transaction was completed by hand, which the original does not journal."""
    xid = parse_transaction_id(key)
    return isinstance(xid, XATransactionId) and heuristic.get(xid) is Heuristic.COMPLETED


def _views(
    commits: list[CommitFound], find: FindSegments
) -> dict[Partition, list[SegmentView] | None]:
    """The segments of every partition that the commits name."""
    partitions = {partition_of(each.name) for commit in commits for each in commit.locations}
    return {partition: find(partition) for partition in partitions if partition is not None}
