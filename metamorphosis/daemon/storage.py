"""
The parts of a broker on its disks, from the lock of the directories to retention: the parts of the
daemon that start before its port opens and stop after it has closed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from metamorphosis.broker.topics import TopicRules
from metamorphosis.broker.turn import Turn
from metamorphosis.config.model import BrokerConfig, Settings
from metamorphosis.daemon.built import Stored
from metamorphosis.daemon.directorylock import DirectoryLock
from metamorphosis.daemon.parts import Part, nothing
from metamorphosis.daemon.process import file_shares
from metamorphosis.errors import JournalError
from metamorphosis.ids import FILE_NAME as IDS_FILE
from metamorphosis.ids import RETRY_SECONDS, IdCeiling, MessageIds
from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.replication.follower.aside import move_aside
from metamorphosis.store.descriptors import Descriptors
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.flushthreads import flush_threads
from metamorphosis.store.layout import ensure_directory
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.messagestores import MessageStores
from metamorphosis.store.retention import Retention
from metamorphosis.transactions.journalfiles import journal_directory
from metamorphosis.transactions.service import TransactionService
from metamorphosis.transactions.transaction import Partition
from metamorphosis.transactions.unfinished import find_unfinished, of_stores

RETENTION_THREADS = 2

MakeThreads = Callable[[Any, int, str], IWorkerThreads]
"""Takes the reactor, how many threads and their name."""


class BrokerStorage:
    """
    Directories, message ids, stores, journal and retention. Thread: reactor.

    :param broken: called with the reason when the journal can no longer be trusted.
    :param has_transactions: False: the journal is only checked, see ``unfinished``.
    :ivar parts: in the order of their start.
    :ivar threads: run blocking calls; set by ``prepare``.
    :ivar turn: commits the stores, and drains the connections.
    :ivar stored: the parts that were built; None until all have started.
    :ivar cancel_start: cancels a running load of the stores.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        config: BrokerConfig,
        settings: Settings,
        make_threads: MakeThreads,
        broken: Callable[[str], None],
        has_transactions: bool = True,
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._settings = settings
        self._make_threads = make_threads
        self._broken = broken
        self._has_transactions = has_transactions
        self._locks: dict[str, DirectoryLock] = {}
        self._ids_timer: IDelayedCall | None = None
        self.turn = Turn(reactor.callLater)
        self.stored: Stored | None = None
        self.cancel_start: Callable[[], None] = nothing
        self.parts = [
            Part("the data directories", stop=self.unlock),
            Part("the message ids", self._await_ids, self._stop_ids),
            Part("the worker threads", stop=lambda: self.threads.stop()),
            *self._stores_and_journal(),
            Part("retention", self._start_retention, self._stop_retention),
        ]

    def _stores_and_journal(self) -> tuple[Part, ...]:
        """The parts of stores and journal: the journal is recovered after the stores are open, and
        closed after they have flushed their last messages."""
        stores = Part("the message stores", self._load_stores, lambda: self._stores.close())
        if not self._has_transactions:
            return stores, Part("the unused journal", self._look_into_journal)
        return (
            Part("the transaction journal", self._make_journal, lambda: self._journal.close()),
            stores,
            Part("the transactions", lambda: self._journal.start(), lambda: self._journal.stop()),
        )

    def prepare(self) -> None:
        """
        Lock the directories and read the last message id, before the reactor runs.

        :raises MetaQError: a directory cannot be locked, or the id not read; the text names it.
        :raises OSError: a directory cannot be made.
        """
        self.threads = self._flush_threads("store")
        self.lock(self._config)
        self._ids = MessageIds(
            self._config.broker_id,
            IdCeiling(os.path.join(self._config.data_path, IDS_FILE)),
            self.threads,
            on_fault=lambda text: self._log.error("{text}", text=text),
            on_end=lambda text: self._log.info("{text}", text=text),
        )

    def _flush_threads(self, name: str) -> IWorkerThreads:
        """Threads that flush; replies to what they have flushed leave at once."""
        count = self._settings.sync_threads
        workers = self._make_threads(self._reactor, count, name)
        return flush_threads(workers, self._reactor, count, self.turn)

    def reconfigure(self, config: BrokerConfig) -> None:
        """Apply a reload; ``lock`` was called with this configuration before."""
        self._config = config
        self._stores.reconfigure(config)
        self._retention.reconfigure(config)

    # Directories

    def lock(self, config: BrokerConfig) -> None:
        """
        Lock every data path of ``config`` that is not yet locked.

        :raises MetaQError: another process has one of them.
        :raises OSError: one cannot be made.
        """
        paths = {config.data_path, *(topic.data_path for topic in config.topics.values())}
        journal = self._journal_directory
        if self._has_transactions and journal not in self._locks:
            # Only one level, as the original does, so that the path of an unmounted disk is not
            # created.
            ensure_directory(os.path.dirname(journal))
        if self._has_transactions or os.path.isdir(journal):
            paths.add(journal)
        for path in sorted(os.path.abspath(path) for path in paths if path):
            if path not in self._locks:
                ensure_directory(path)
                lock = DirectoryLock(path)
                lock.acquire()
                self._locks[path] = lock

    def unlock(self) -> None:
        """Release the locks of all directories."""
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()

    # Message ids

    def _await_ids(self) -> None:
        """Try to write the last message id until that succeeds; reads are served meanwhile."""
        self._ids_timer = None
        if not self._ids.ready:
            self._ids.prepare()
            self._ids_timer = self._reactor.callLater(RETRY_SECONDS, self._await_ids)

    def _stop_ids(self) -> None:
        if self._ids_timer is not None:
            self._ids_timer.cancel()
        self._ids.stop()

    # Stores

    def _load_stores(self) -> Deferred[None]:
        environment = StoreEnvironment(
            threads=self.threads,
            clock=self._reactor,
            schedule=FlushSchedule(self._reactor),
            on_dirty=self.turn.store_dirty,
            max_segment_size=self._config.max_segment_size,
            flush_delay=self._settings.flush_delay_ms / 1000,
            descriptors=Descriptors(file_shares().segments),
            gather=True,
        )
        self._stores = MessageStores(
            self._config,
            environment,
            self._settings.fast_boot,
            partial(self._flush_threads, "disk"),
            self._settings.writes_in_threads,
        )
        self.cancel_start = self._stores.cancel_load
        return self._stores.load()

    def _open_store(self, partition: Partition) -> MessageStore:
        topic, number = partition
        return self._stores.get_or_create(self._config.topic(topic), number)

    # Transactions

    @property
    def _journal_directory(self) -> str:
        return journal_directory(self._config.data_log_path, self._config.data_path)

    def _make_journal(self) -> None:
        rules = TopicRules(self._config, self._settings)

        def known(partition: Partition) -> bool:
            topic, number = partition
            if self._stores.get(topic, number) is not None:
                return True
            return rules.accepts(topic) and 0 <= number < rules.partition_count(topic)

        self._journal = TransactionService(
            self._journal_directory,
            self._config,
            self._settings,
            self._open_store,
            known,
            self.threads,
            self._reactor,
            self.turn.store_dirty,
            self._broken,
            gather=True,
        )

    def _look_into_journal(self) -> None:
        """
        Move a finished journal aside unless it is empty: the log of a slave may be replaced, and a
        later start with transactions would then store the messages of the journal again, as
        missing. Differs: the original does that.

        :raises JournalError: it holds transactions that only a start with transactions can finish.
        :raises StoreError: it cannot be moved.
        """
        directory = self._journal_directory
        found = find_unfinished(
            directory, of_stores(lambda partition: self._stores.get(*partition))
        )
        refusal = found.refusal(directory)
        if refusal is not None:
            raise JournalError(refusal)
        if found.size:
            aside = move_aside(directory)
            self._log.warn(
                "The transaction journal in {directory} is finished and was moved to {aside},"
                " because this broker takes no transactions",
                directory=directory,
                aside=aside,
            )

    # Retention

    def _start_retention(self) -> None:
        # Separate threads, because compressing a segment takes many seconds, and no flush may wait
        # for it.
        self._retention_threads = self._make_threads(self._reactor, RETENTION_THREADS, "retention")
        self._retention = Retention(
            self._stores, self._config, self._reactor, self._retention_threads
        )
        self._retention.start()
        journal = self._journal if self._has_transactions else None
        self.stored = Stored(self._ids, self._stores, journal, self._retention)

    async def _stop_retention(self) -> None:
        await self._retention.stop()
        await self._retention_threads.stop()
