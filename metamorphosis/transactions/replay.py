"""
The contents of the redo files by transaction: pure, one file after the other.

Every file is read from its beginning, regardless of a checkpoint: the original's checkpoints can be
after records of unfinished transactions. The end of a record is given by its length and its
locations, also when its transaction is unknown.

When a key starts again in a later file, its records in earlier files are dropped: a crash during
compaction leaves them in both.

Source: ``JournalTransactionStore.recover``; section 10.4 of the specification of transactions.

Differs: the original starts at the checkpoint, and cuts a file at a commit of an unknown
transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from metamorphosis.errors import InvalidRecord
from metamorphosis.transactions.checkpoint import JournalLocation
from metamorphosis.transactions.locations import Location, decode_locations
from metamorphosis.transactions.ordinary import Span, read_commit, read_run
from metamorphosis.transactions.records import (
    COMMITS,
    Append,
    Operation,
    OperationType,
    PutHead,
    put_head,
    read_record,
)


class OpenTransaction:
    """
    A transaction without an outcome so far.

    :ivar number: number of its redo file.
    :ivar appends: its APPEND records there.
    :ivar targets: topic and number of each partition that its messages are for.
    """

    __slots__ = ("appends", "key", "number", "targets")

    def __init__(self, key: str, number: int) -> None:
        self.key = key
        self.number = number
        self.appends: list[Span] = []
        self.targets: set[tuple[bytes, bytes]] = set()

    def lacking(self, locations: list[Location]) -> list[str]:
        """Names of the partitions that none of ``locations`` names."""
        named = {location.name for location in locations}
        names = {_name(*target) for target in self.targets}
        return sorted(names - named - {""})


@lru_cache(4096)
def _name(topic: bytes, number: bytes) -> str:
    """The name of a partition in a location; empty if it is not a partition."""
    try:
        return f"{str(topic, 'utf-8')}-{int(number)}"
    except ValueError:
        return ""


class CommitFound(NamedTuple):
    """
    A commit to compare with the store.

    :ivar key: key of its transaction.
    :ivar number: number of its redo file.
    :ivar appends: the records of its messages.
    :ivar locations: the locations of its blocks.
    :ivar locations_at: position of the locations in the file.
    :ivar lacking: partitions with messages but without a location.
    :ivar was_prepared: its messages were forced with a prepare.
    """

    key: str
    number: int
    appends: list[Span]
    locations: list[Location]
    locations_at: int
    lacking: list[str]
    was_prepared: bool


class Damage(NamedTuple):
    """The records of a file end before the file: the position, the bytes left, and the reason."""

    position: int
    left: int
    reason: str


class Replay:
    """
    Follows the records of all redo files, in the order of the files' numbers.

    :param checkpoint: commits before it are known to be in the store.
    :ivar in_flight: transactions that were not prepared, oldest first.
    :ivar prepared: prepared ones without outcome, in the order in which they were prepared.
    :ivar position: the position reached in the last file.
    """

    def __init__(self, checkpoint: JournalLocation | None = None) -> None:
        self.in_flight: dict[str, OpenTransaction] = {}
        self.prepared: dict[str, OpenTransaction] = {}
        self.position = 0
        self._checkpoint = checkpoint

    def copy(self) -> Replay:
        """A copy of the present state: following a file does not change transactions of earlier
        ones."""
        copy = Replay(self._checkpoint)
        copy.in_flight.update(self.in_flight)
        copy.prepared.update(self.prepared)
        return copy

    def follow(self, number: int, data: bytes) -> Iterator[CommitFound | Damage]:
        """
        Follow a file; yields the commits after the checkpoint, and at its end the damage, if any.

        :param data: the whole file.
        """
        view = memoryview(data)
        position = self.position = 0
        try:
            while position < len(data):
                run = read_run(data, position)
                if run is not None:
                    self._append(run.head, number, run.spans)
                    position = self.position = run.spans[-1][1]
                    continue
                start, record, end = read_commit(data, position) or read_record(view, position)
                if isinstance(record, Append):
                    self._append(put_head(record.put_command), number, [(start, end)])
                elif record.type in COMMITS:
                    found = self._commit(number, record, view, start, end)
                    if found is not None:
                        yield found
                else:
                    self._step(record)
                position = self.position = end
        except InvalidRecord as error:
            yield Damage(position, len(view) - position, str(error))

    def _append(self, head: PutHead, number: int, spans: list[Span]) -> None:
        key, target = head
        transaction = self.in_flight.get(key)
        if transaction is None or transaction.number != number:
            prepared = self.prepared.get(key)
            if prepared is not None and prepared.number != number:
                del self.prepared[key]
            self.in_flight.pop(key, None)
            transaction = self.in_flight[key] = OpenTransaction(key, number)
        transaction.appends += spans
        transaction.targets.add(target)

    def _commit(
        self, number: int, record: Operation, view: memoryview, start: int, end: int
    ) -> CommitFound | None:
        locations_at = end - record.data_length
        locations = decode_locations(view[locations_at:end])
        tables = [self.in_flight, self.prepared]
        if record.was_prepared:
            tables.reverse()
        transaction = tables[0].pop(record.key, None) or tables[1].pop(record.key, None)
        if transaction is None or transaction.number != number:
            return None
        if self._checkpoint is not None and JournalLocation(number, start) < self._checkpoint:
            return None
        lacking = transaction.lacking(locations)
        appends = transaction.appends
        prepared = record.was_prepared
        return CommitFound(record.key, number, appends, locations, locations_at, lacking, prepared)

    def _step(self, record: Operation) -> None:
        """Apply a prepare or a rollback; no effect for an unknown transaction."""
        key = record.key
        if record.type is OperationType.XA_PREPARE:
            transaction = self.in_flight.pop(key, None)
            if transaction is not None:
                self.prepared[key] = transaction
        elif self.in_flight.pop(key, None) is None:
            # As in the original: puts after a prepare are kept apart; a rollback drops only them.
            self.prepared.pop(key, None)
