"""A broker without network or threads that has a journal."""

from __future__ import annotations

import os
from typing import Any

from metamorphosis.store.disk import Disk
from metamorphosis.transactions.redolog import FlushMode, JournalEnvironment, RedoLog
from metamorphosis.transactions.transaction import Partition, Transaction
from metamorphosis.transactions.transactions import Transactions
from tests.unit.broker.serving import Broker


class TransactionalBroker(Broker):
    """
    :ivar lost: transactions whose commit is recorded and could not be stored.
    """

    def __init__(
        self,
        directory: str,
        mode: FlushMode = FlushMode.AT_COMMIT,
        journal_disk: Disk = Disk(),
        max_bytes: int = 1 << 20,
        capacity: int = 30000,
        **settings: Any,
    ) -> None:
        os.makedirs(os.path.join(directory, "transactions"))
        super().__init__(directory, **settings)
        self.lost: list[Transaction] = []
        self.broken: list[BaseException] = []
        environment = JournalEnvironment(
            self.threads,
            self.clock,
            self.turn.store_dirty,
            self.broken.append,
            journal_disk,
        )
        self.journal = RedoLog(os.path.join(directory, "transactions"), environment, mode)
        self.transactions = Transactions(
            self.journal,
            self._open,
            self.clock,
            lambda transaction, error: self.lost.append(transaction),
            lambda outcomes: None,
            max_timeout=60,
            capacity=capacity,
            max_bytes=max_bytes,
        )
        self.responders.answer_transactions(self.transactions)

    def _open(self, partition: Partition) -> Any:
        topic, number = partition
        return self.stores.get_or_create(self.config.topic(topic), number)

    def redo(self, number: int = 1) -> bytes:
        """What is in a redo file."""
        with open(os.path.join(self.journal.directory, f"redo.{number}"), "rb") as file:
            return file.read()
