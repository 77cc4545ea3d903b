"""
The transactions of a broker from the recovery of their journal to its last record.

Source: ``TransactionProcessor``, ``JournalTransactionStore``; sections 10 and 12 of the
specification of transactions.

Differs: checkpoints are never written; instead a quiet journal starts a new file, and at every
start and orderly stop the open transactions move to one. So a Java broker never finds records that
it handles wrongly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from metamorphosis.errors import JournalError
from metamorphosis.store.disk import Disk
from metamorphosis.transactions import redolog
from metamorphosis.transactions.journalfiles import compact
from metamorphosis.transactions.outcomes import OutcomeFile
from metamorphosis.transactions.rebuilding import open_records
from metamorphosis.transactions.recovery import Partitions, Recovery
from metamorphosis.transactions.redolog import FlushMode, JournalEnvironment, RedoLog
from metamorphosis.transactions.transaction import Partition, State, Transaction
from metamorphosis.transactions.transactions import Transactions

if TYPE_CHECKING:
    from metamorphosis.config.model import BrokerConfig, Settings
    from metamorphosis.interfaces import IWorkerThreads
    from metamorphosis.store.messagestore import MessageStore


class TransactionService:
    """
    The transactions of one broker. Thread: reactor.

    :param directory: the directory of the journal, locked by the caller.
    :param open_store: returns the store of a partition, created if it is new; raises
        ``StoreError``.
    :param known: whether the configuration has a partition.
    :param on_dirty: called when the journal has records to write in this turn.
    :param on_broken: called, once or more, with the reason when the outcome of a transaction is
        unknown, or decided and not stored: the broker must stop.
    :ivar transactions: set by ``start``.
    :ivar journal: set by ``start``.
    :ivar outcomes: the file of the outcomes that administrators decided.
    """

    _log = Logger()

    transactions: Transactions
    journal: RedoLog

    def __init__(
        self,
        directory: str,
        config: BrokerConfig,
        settings: Settings,
        open_store: Callable[[Partition], MessageStore],
        known: Callable[[Partition], bool],
        threads: IWorkerThreads,
        clock: IReactorTime,
        on_dirty: Callable[[RedoLog], None],
        on_broken: Callable[[str], None],
        disk: Disk = Disk(),
        gather: bool = False,
    ) -> None:
        self._directory = directory
        self._config = config
        self._settings = settings
        self._open_store = open_store
        self._known = known
        self._threads = threads
        self._clock = clock
        self._on_dirty = on_dirty
        self._on_broken = on_broken
        self._disk = disk
        self._gather = gather
        self._timer: IDelayedCall | None = None
        self._recovered = False
        self.outcomes = OutcomeFile(directory, threads, disk)

    async def start(self) -> None:
        """
        Recover, and take transactions from then on.

        One long function, because most of it passes settings on, each by its name.

        :raises JournalError: naming the file that cannot be read or written.
        """
        partitions = Partitions(self._find)
        recovery = Recovery(self._directory, partitions, self._threads, self._clock, self._disk)
        recovered = await recovery.run()
        environment = JournalEnvironment(
            self._threads, self._clock, self._on_dirty, self._broken, self._disk, self._gather
        )
        config = self._config
        self.journal = RedoLog(
            self._directory,
            environment,
            FlushMode(config.flush_tx_log_at_commit),
            recovered.files,
            recovered.next_number,
            redolog.FILE_LIMIT,
            recovered.take_more,
        )
        self.transactions = Transactions(
            self.journal,
            self._open_store,
            self._clock,
            self._lost,
            self.outcomes,
            config.max_tx_timeout_in_seconds,
            config.max_tx_timeout_timer_capacity,
            self._settings.max_transaction_bytes,
        )
        self.transactions.heuristic.update(recovered.heuristic)
        for transaction in recovered.prepared:
            self.transactions.open.add(None, transaction)
        if recovered.prepared:
            self._log.info(
                "Prepared transactions that wait for their outcome: {count}",
                count=len(recovered.prepared),
            )
        self._recovered = True
        self._later()

    def _find(self, partition: Partition) -> MessageStore | None:
        return self._open_store(partition) if self._known(partition) else None

    # Faults that must stop the broker

    def _broken(self, error: BaseException) -> None:
        self._on_broken(f"the transaction journal in {self._directory} is broken: {error}")

    def _lost(self, transaction: Transaction, error: BaseException | None) -> None:
        self._on_broken(
            f"transaction {transaction.key} is committed and its messages could not be stored:"
            f" {error}. The next start stores them"
        )

    # Periodic work

    def _later(self) -> None:
        self._timer = self._clock.callLater(self._config.checkpoint_interval / 1000, self._tidy)

    def _tidy(self) -> None:
        self._later()
        self.checkpoint()

    def checkpoint(self) -> bool:
        """Delete records that are no longer needed; returns whether there were any."""
        try:
            return self.journal.roll_if_finished()
        except JournalError as error:
            self._log.error("{error}", error=error)
            return False

    # The end

    async def stop(self) -> None:
        """
        Write and force all records. Called when every connection has ended and the stores still
        take messages.
        """
        if self._timer is not None:
            self._timer.cancel()
        self.transactions.stop()
        if self.journal.broken is None:
            self.journal.commit()
            await self.journal.quiet()
        if self.journal.broken is not None:
            self.transactions.endings.abandon(self.journal.broken)

    async def close(self) -> None:
        """
        Leave one redo file with the prepared transactions. Called when the stores have flushed
        their last messages; harmless if the start has failed.

        Files with a block that is not stored, or not on the disk, stay for the next start.
        """
        if not self._recovered:
            return
        finished = all(file.flush_blocks() for file in self.journal.files)
        if self.journal.broken is None and finished and not self.transactions.endings.undecided:
            await self._compact()
        self.journal.close()

    async def _compact(self) -> None:
        prepared = [t for t in self.transactions.open.xa if t.state is State.PREPARED]
        files = self.journal.files
        if not prepared and len(files) == 1 and not files[0].size:
            return
        work = partial(
            compact,
            self._disk,
            self._directory,
            self.journal.next_number,
            [record for transaction in prepared for record in open_records(transaction)],
            [file.path for file in files],
        )
        done: Deferred[None] = Deferred()

        def finished(made: tuple[int, int] | None, error: BaseException | None) -> None:
            if made is not None:
                self._disk.close(made[0])
            elif error is not None:
                self._log.warn("The redo files stay as they are: {error}", error=error)
            done.callback(None)

        self._threads.submit(work, finished)
        await done
