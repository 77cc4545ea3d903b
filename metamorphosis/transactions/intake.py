"""
Messages into transactions: into memory, and into the journal.

A message has been checked by then, and has its id. Its record collects in the journal over the
turn; if that cannot be written the message belongs to no transaction, and its put is refused.

Source: ``JournalTransactionStore``, ``Transaction``; section 9.1 of the specification of
transactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from metamorphosis.errors import JournalError
from metamorphosis.message import HEADER
from metamorphosis.store.batch import STORED
from metamorphosis.transactions import refusals
from metamorphosis.transactions.records import encode_append
from metamorphosis.transactions.redofile import Written
from metamorphosis.transactions.tables import OpenTransactions
from metamorphosis.transactions.transaction import OVERHEAD, Message, Transaction
from metamorphosis.wire.commands import PutCommand
from metamorphosis.wire.encoding import encode

if TYPE_CHECKING:
    from metamorphosis.transactions.redolog import RedoLog

MEMORY_SETTING = "max-transaction-bytes"

LONGEST = (1 << 31) - 1
"""Bytes of one transaction: the length of a block is an int32 in the commit record."""


class Intake:
    """
    Thread: reactor.

    :param max_bytes: memory of open transactions.
    :ivar max_bytes: see above.
    """

    def __init__(
        self, open_transactions: OpenTransactions, journal: RedoLog, max_bytes: int
    ) -> None:
        self.max_bytes = max_bytes
        self._open = open_transactions
        self._journal = journal
        self._unwritten: dict[Written, dict[Transaction, int]] = {}  # how many messages

    def check_memory(self, size: int) -> None:
        """
        :param size: bytes that are to be added.
        :raises BrokerError: so many are not left.
        """
        if self._open.bytes + size > self.max_bytes:
            raise refusals.out_of_memory(MEMORY_SETTING, self.max_bytes)

    def room(self, transaction: Transaction) -> int:
        """Bytes that the transaction may grow by; nothing is refused that stays below it."""
        return min(self.max_bytes - self._open.bytes, LONGEST - transaction.bytes)

    def put(
        self, transaction: Transaction, command: PutCommand, message_id: int, checksum: int
    ) -> Written:
        """
        Take one message.

        :param checksum: of its body.
        :returns: the write of its record.
        :raises BrokerError: no memory is left, or the journal takes nothing.
        """
        header = HEADER.pack(len(command.body), checksum, message_id, command.flag)
        record = encode_append(message_id, encode(command))
        self.check_memory(len(record) + OVERHEAD)
        if transaction.bytes + len(record) > LONGEST:
            raise refusals.too_long(transaction.id, LONGEST)
        return self.take(
            transaction, [((command.topic, command.partition), header, record)], [record]
        )

    def take(
        self, transaction: Transaction, messages: Sequence[Message], records: Sequence[bytes]
    ) -> Written:
        """
        Take messages for which there is room, all or none.

        :param records: those of the messages.
        :returns: the write of their records.
        :raises BrokerError: the journal takes nothing.
        """
        try:
            if transaction.file is None:
                transaction.file = self._journal.begin(transaction.key)
            written = self._journal.append_all(transaction.file, records)
        except JournalError as error:
            raise refusals.not_journaled_put(transaction.id, error) from error
        before = transaction.bytes
        transaction.add(messages, records)
        self._open.bytes += transaction.bytes - before
        unwritten = self._unwritten.get(written)
        if unwritten is None:
            unwritten = self._unwritten[written] = {}
            written.waiters.append(partial(self._decided, written))
        unwritten[transaction] = unwritten.get(transaction, 0) + len(messages)
        return written

    def _decided(self, written: Written) -> None:
        """What could not be written belongs to no transaction; its puts are refused."""
        unwritten = self._unwritten.pop(written)
        if written.state is STORED:
            return
        for transaction, count in unwritten.items():
            before = transaction.bytes
            transaction.take_back(count)
            self._open.bytes += transaction.bytes - before
