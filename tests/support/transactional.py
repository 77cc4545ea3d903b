"""A broker without network or threads that has a journal, and can be killed and started again."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred

from metamorphosis.config.model import Settings
from metamorphosis.store.disk import Disk
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.transactions.redolog import RedoLog
from metamorphosis.transactions.service import TransactionService
from metamorphosis.transactions.transaction import Partition
from metamorphosis.transactions.transactions import Transactions
from tests.support.serving import Broker


class TransactionalBroker(Broker):
    """
    :param directory: may have the files of an earlier one.
    :ivar broken: the reason for which the broker should have stopped.
    """

    def __init__(
        self,
        directory: str,
        mode: int = 1,
        journal_disk: Disk = Disk(),
        max_bytes: int = 1 << 20,
        capacity: int = 30000,
        **system: Any,
    ) -> None:
        super().__init__(
            directory,
            settings=Settings(max_transaction_bytes=max_bytes),
            flush_tx_log_at_commit=mode,
            max_tx_timeout_timer_capacity=capacity,
            **system,
        )
        self.broken: list[str] = []
        self.stores.load()
        self.service = TransactionService(
            os.path.join(directory, "transactions"),
            self.config,
            self.settings,
            self._open,
            self._known,
            self.threads,
            self.clock,
            self.turn.store_dirty,
            self.broken.append,
            journal_disk,
        )
        outcome: list[Any] = []
        Deferred.fromCoroutine(self.service.start()).addBoth(outcome.append)
        for _ in range(100):  # flushes of blocks that are stored take timers
            if not outcome:
                self.clock.advance(0.1)
        if outcome[0] is not None:
            outcome[0].raiseException()
        self.responders.answer_transactions(self.service.transactions)
        if system.get("slow"):
            self.responders.routes.steps = None

    @property
    def transactions(self) -> Transactions:
        """The open transactions."""
        return self.service.transactions

    @property
    def journal(self) -> RedoLog:
        """Its journal."""
        return self.service.journal

    def _open(self, partition: Partition) -> MessageStore:
        topic, number = partition
        return self.stores.get_or_create(self.config.topic(topic), number)

    def _known(self, partition: Partition) -> bool:
        if self.stores.get(*partition) is not None:
            return True
        rules = self.responders.rules
        return rules.accepts(partition[0]) and partition[1] < rules.partition_count(partition[0])

    def redo(self) -> bytes:
        """The content of the newest redo file."""
        with open(self.journal.files[-1].path, "rb") as file:
            return file.read()

    def stop(self) -> None:
        """Stop in order: connections, journal, stores."""
        for connection in tuple(self.factory.connections):
            connection.connectionLost()
        self.clock.advance(0)
        Deferred.fromCoroutine(self.service.stop())
        self.stores.close()
        self.clock.advance(1)
        Deferred.fromCoroutine(self.service.close())
        self.clock.advance(1)
