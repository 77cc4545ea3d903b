"""
The recovery of journal and store at the start, before clients are served.

Theory of operation. The partitions are open. Each redo file is read and followed in a worker
(``replay``), which also compares the blocks of its commits with the segments. A block that is
missing at its location is stored now, and its location corrected. Then transactions in flight are
dropped, prepared ones are kept, and all open ones move to a new redo file (``compact``).

A crash is allowed at every moment, also of the recovery: a second recovery continues the first one.

Source: ``JournalTransactionStore.recover``; section 10.4 of the specification of transactions.

Differs: the original appends a block again when retention has deleted its segment; cuts a file at a
record with an unknown topic; opens partitions a second time after the replay.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from metamorphosis.errors import JournalError
from metamorphosis.transactions.completing import complete
from metamorphosis.transactions.heuristiclog import Heuristic
from metamorphosis.transactions.journalfiles import (
    JournalFiles,
    compact,
    find_files,
    set_aside,
)
from metamorphosis.transactions.progress import Progress
from metamorphosis.transactions.rebuilding import block_of, open_records, read_file, rebuilt
from metamorphosis.transactions.redofile import RedoFile
from metamorphosis.transactions.replay import (
    CommitFound,
    Damage,
    OpenTransaction,
    Replay,
)
from metamorphosis.transactions.restoring import correct, plan, without_harmed
from metamorphosis.transactions.stored import (
    Missing,
    SegmentView,
    missing_blocks,
    partition_of,
    sync_segments,
)
from metamorphosis.transactions.transaction import Partition, Transaction
from metamorphosis.wire.transactionids import (
    XATransactionId,
)

if TYPE_CHECKING:
    from metamorphosis.interfaces import IWorkerThreads
    from metamorphosis.store.disk import Disk
    from metamorphosis.store.messagestore import MessageStore

T = TypeVar("T")

SMALL_CUT = 256 * 1024
"""Limit of bytes that are cut off the last redo file without a copy: a torn write is smaller."""


class Recovered(NamedTuple):
    """
    The state with which the journal continues.

    :ivar files: open redo files.
    :ivar take_more: transactions may begin in the last one. False if it has unfinished ones: their
        messages would be attributed to a later transaction with the same key.
    :ivar next_number: number of the next file.
    :ivar prepared: transactions that wait for their outcome.
    :ivar heuristic: outcomes that administrators decided.
    """

    files: list[RedoFile]
    next_number: int
    prepared: list[Transaction]
    heuristic: dict[XATransactionId, Heuristic]
    take_more: bool = True


class Partitions(NamedTuple):
    """
    The part of the store that recovery uses. Thread: reactor.

    :ivar find: returns the store of a partition, created if its directory is missing; None if the
        configuration does not have the partition.
    """

    find: Callable[[Partition], MessageStore | None]


class Recovery:
    """
    One recovery. Thread: reactor.

    One long class: its steps follow each other once, over the same files and stores.

    :param directory: the directory of the journal.
    :param threads: run the blocking steps.
    :param clock: the timers' clock.
    """

    _log = Logger()

    def __init__(
        self,
        directory: str,
        partitions: Partitions,
        threads: IWorkerThreads,
        clock: IReactorTime,
        disk: Disk,
    ) -> None:
        self._directory = directory
        self._partitions = partitions
        self._threads = threads
        self._clock = clock
        self._disk = disk
        self._stores: dict[Partition, MessageStore | None] = {}
        self._restored = 0

    async def run(self) -> Recovered:
        """
        Recover journal and store.

        :raises JournalError: journal or store cannot be read or written; the text names the file.
        """
        try:
            return await self._run()
        except OSError as error:
            raise JournalError(
                f"Could not recover the transaction journal in {self._directory}: {error}"
            ) from error

    async def _run(self) -> Recovered:
        files = await self._work(partial(find_files, self._disk, self._directory))
        replay = Replay(files.checkpoint)
        self._progress = Progress(self._clock, [path for _, path in files.redo])
        try:
            for number, path in files.redo:
                self._progress.next_file()
                last = path == files.redo[-1][1]
                replay = await self._recover_file(replay, number, path, last)
        finally:
            self._progress.stop()
        if self._restored:
            self._log.info(
                "Recovered the transaction journal in {directory}: {count} blocks of committed"
                " transactions were missing in the store and have been stored",
                directory=self._directory,
                count=self._restored,
            )
        views = [view[-1] for view in map(self._view, self._stores) if view is not None]
        await self._work(partial(sync_segments, self._disk, views))
        return await self._compacted(files, replay)

    def _work(self, work: Callable[[], T]) -> Deferred[T]:
        """Run in a worker."""
        done: Deferred[Any] = Deferred()

        def finished(result: T | None, error: BaseException | None) -> None:
            if error is not None:
                done.errback(error)
            else:
                done.callback(result)

        self._threads.submit(work, finished)
        return done

    # One redo file

    async def _recover_file(self, before: Replay, number: int, path: str, last: bool) -> Replay:
        """Recover one file; returns the replay after it."""
        replay, data, commits = await self._follow(before, number, path, last)
        if any(commit.lacking for commit in commits):
            await self._work(partial(complete, self._disk, path, data, commits))
            replay, data, commits = await self._follow(before, number, path, last)
        views = self._views(commits)
        counted = self._progress.counting(commits, "commits are compared with the store")
        missing = await self._work(lambda: list(missing_blocks(counted, views)))
        missing, harmed = await self._work(partial(without_harmed, missing, data))
        if harmed:
            await self._work(partial(self._dropped, path, harmed))
        if missing:
            await self._restore_all(missing, path, data)
        return replay

    async def _follow(
        self, before: Replay, number: int, path: str, last: bool
    ) -> tuple[Replay, bytes, list[CommitFound]]:
        """Follow one file: returns its whole records and its commits; cuts off the rest."""
        replay = before.copy()
        self._progress.reading(os.path.getsize(path), lambda: replay.position)
        data = await self._work(partial(self._read, path))
        found = await self._work(lambda: list(replay.follow(number, data)))
        for damage in found:
            if isinstance(damage, Damage):
                await self._work(partial(self._cut, path, damage, last))
                data = data[: damage.position]
        return replay, data, [each for each in found if isinstance(each, CommitFound)]

    def _read(self, path: str) -> bytes:
        """
        The contents of a redo file, forced first, because the process that wrote it may have been
        killed before its force, and the store is about to be changed by it. Thread: worker.
        """
        fd = self._disk.open(path, writable=True)
        try:
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)
        return read_file(path)

    def _cut(self, path: str, damage: Damage, last: bool) -> None:
        """Cut a file after its last whole record. Thread: worker."""
        aside = None
        if not last or damage.left > SMALL_CUT:
            aside = set_aside(path, copy=True)
        fd = self._disk.open(path, writable=True)
        try:
            self._disk.truncate(fd, damage.position)
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)
        if aside is None:
            self._log.warn(
                "{bytes} bytes truncated from {path} at position {position}, a record that was not"
                " written to its end: {reason}",
                bytes=damage.left,
                path=path,
                position=damage.position,
                reason=damage.reason,
            )
        else:
            self._log.error(
                "Damaged: {bytes} bytes truncated from {path} at position {position} ({reason});"
                " the whole file was copied to {aside}. Transactions that were prepared or"
                " committed after this position may be lost",
                bytes=damage.left,
                path=path,
                position=damage.position,
                reason=damage.reason,
                aside=aside,
            )

    def _dropped(self, path: str, keys: list[str]) -> None:
        """Keep the file of transactions that are dropped. Thread: worker."""
        self._log.error(
            "Damaged: {count} transactions in {path} are dropped, because their messages have"
            " changed; the whole file was copied to {aside}: {keys}",
            count=len(keys),
            path=path,
            aside=set_aside(path, copy=True),
            keys=", ".join(keys),
        )

    def _views(self, commits: list[CommitFound]) -> dict[Partition, list[SegmentView] | None]:
        """The segments of every partition that the commits name; None for unknown ones."""
        views: dict[Partition, list[SegmentView] | None] = {}
        for commit in commits:
            for location in commit.locations:
                partition = partition_of(location.name)
                if partition is not None and partition not in views:
                    views[partition] = self._view(partition)
        return views

    def _view(self, partition: Partition) -> list[SegmentView] | None:
        if partition not in self._stores:
            store = self._stores[partition] = self._partitions.find(partition)
            if store is None:
                topic, number = partition
                self._log.warn(
                    "The transaction journal has messages of {topic}-{number}, which the"
                    " configuration does not have; they count as stored",
                    topic=topic,
                    number=number,
                )
        store = self._stores[partition]
        if store is None:
            return None
        return [SegmentView(segment.start, segment.end, segment.path) for segment in store.segments]

    # Missing blocks

    async def _restore_all(self, missing: list[Missing], path: str, data: bytes) -> None:
        """Store the missing blocks of one file; see ``restoring``."""
        stores = [self._store(each.partition) for each in missing]
        offsets = plan(list(zip(missing, stores, strict=True)), data)
        await self._work(partial(correct, self._disk, path, missing, offsets, data))
        ends: dict[MessageStore, int] = {}
        every = list(zip(missing, stores, offsets, strict=True))
        for each, store, offset in self._progress.counting(every, "missing blocks are stored"):
            block = store.append([b"".join(block_of(each.commit, each.partition, data))])
            if block.offset != offset:
                break  # an earlier one has failed
            ends[store] = offset + block.size
            self._restored += 1
        for store, end in ends.items():
            await self._flushed(store, end)
        for store, offset in zip(stores, offsets, strict=True):
            if store.max_offset <= offset:
                raise JournalError(f"{store!r} cannot be written or flushed")

    def _store(self, partition: Partition) -> MessageStore:
        store = self._stores[partition]
        assert store is not None  # unknown partitions have no missing blocks
        return store

    def _flushed(self, store: MessageStore, end: int) -> Deferred[None]:
        """Fires when everything below ``end`` is on the disk, or its write has failed."""
        done: Deferred[None] = Deferred()

        def look(_: MessageStore) -> None:
            if store.max_offset >= end or store.next_offset < end:
                store.on_readable = None
                if not done.called:
                    done.callback(None)

        store.await_flush(look)
        store.flush()
        look(store)
        return done

    # Open transactions

    async def _compacted(self, files: JournalFiles, replay: Replay) -> Recovered:
        """Move open transactions to one new file, or leave them if it cannot be made."""
        paths = dict(files.redo)
        prepared = []
        found = sorted(replay.prepared.values(), key=lambda each: (each.number, each.appends))
        for number, group in groupby(found, key=lambda each: each.number):
            work = partial(rebuilt, tuple(group), paths[number], self._clock.seconds())
            transactions, harmed = await self._work(work)
            prepared += [each for each in transactions if self._is_open(each, files)]
            if harmed:
                await self._work(partial(self._dropped, paths[number], harmed))
        records = [record for transaction in prepared for record in open_records(transaction)]
        number = files.next_number
        if not records and len(files.redo) == 1 and not os.path.getsize(files.redo[0][1]):
            return self._as_it_is(files, {}, [], number)  # nothing to gain
        try:
            fd, size = await self._work(
                partial(compact, self._disk, self._directory, number, records, list(paths.values()))
            )
        except OSError as error:
            self._log.error(
                "Could not make redo file {number} in {directory}: {error}; the older ones stay",
                number=number,
                directory=self._directory,
                error=error,
            )
            return self._as_it_is(files, replay.prepared, prepared, number)
        path = os.path.join(self._directory, f"redo.{number}")
        file = RedoFile(self._disk, number, path, fd, size, unsynced=False)
        for transaction in prepared:
            transaction.file = file
            file.references += 1
        return Recovered([file], number + 1, prepared, files.heuristic)

    def _is_open(self, transaction: Transaction, files: JournalFiles) -> bool:
        """
        Whether a transaction is still open. The original does not journal a completion by hand; any
        other recorded outcome belongs to an earlier transaction with the same xid.
        """
        xid = transaction.id
        if not isinstance(xid, XATransactionId):
            return True
        if files.heuristic.get(xid) is not Heuristic.COMPLETED:
            return True
        self._log.info("Transaction {key} was completed by hand and stays so", key=transaction.key)
        return False

    def _as_it_is(
        self,
        files: JournalFiles,
        found: dict[str, OpenTransaction],
        prepared: list[Transaction],
        next_number: int,
    ) -> Recovered:
        opened = {}
        for number, path in files.redo:
            fd = self._disk.open(path, writable=True)
            size = os.fstat(fd).st_size
            opened[number] = RedoFile(self._disk, number, path, fd, size, unsynced=False)
        for transaction in prepared:
            file = transaction.file = opened[found[transaction.key].number]
            file.references += 1
        fresh = not any(file.size for file in opened.values())
        return Recovered(list(opened.values()), next_number, prepared, files.heuristic, fresh)
