"""
Takes messages into transactions, as far as there is memory for them.

A message has been checked before, and has its id. ``recording`` decides what becomes of its record.

Source: ``JournalTransactionStore``, ``Transaction``; section 9.1 of the specification of
transactions.
"""

from __future__ import annotations

from metamorphosis.message import HEADER
from metamorphosis.transactions import refusals
from metamorphosis.transactions.recording import Recording
from metamorphosis.transactions.records import encode_append
from metamorphosis.transactions.redofile import Written
from metamorphosis.transactions.tables import OpenTransactions
from metamorphosis.transactions.transaction import OVERHEAD, Transaction
from metamorphosis.wire.commands import PutCommand
from metamorphosis.wire.encoding import encode

MEMORY_SETTING = "max-transaction-bytes"

LONGEST = (1 << 31) - 1
"""Bytes of one transaction: the length of a block is an int32 in the commit record."""


class Intake:
    """
    Takes the messages of one broker's transactions. Thread: reactor.

    :param max_bytes: limit of the memory of open transactions.
    :ivar max_bytes: the same.
    :ivar take: takes messages for which there is room; see ``Recording.take``.
    """

    def __init__(
        self, open_transactions: OpenTransactions, recording: Recording, max_bytes: int
    ) -> None:
        self.max_bytes = max_bytes
        self._open = open_transactions
        self.take = recording.take

    def check_memory(self, size: int) -> None:
        """
        :param size: bytes to be added.
        :raises BrokerError: fewer bytes are left.
        """
        if self._open.bytes + size > self.max_bytes:
            raise refusals.out_of_memory(MEMORY_SETTING, self.max_bytes)

    def room(self, transaction: Transaction) -> int:
        """Bytes by which the transaction may grow without a refusal."""
        return min(self.max_bytes - self._open.bytes, LONGEST - transaction.bytes)

    def put(
        self, transaction: Transaction, command: PutCommand, message_id: int, checksum: int
    ) -> Written | None:
        """
        Take one message.

        :param checksum: the checksum of its body.
        :returns: the write of its record; None: it is held.
        :raises BrokerError: no memory is left, or the journal takes no records.
        """
        header = HEADER.pack(len(command.body), checksum, message_id, command.flag)
        record = encode_append(message_id, encode(command))
        self.check_memory(len(record) + OVERHEAD)
        if transaction.bytes + len(record) > LONGEST:
            raise refusals.too_long(transaction.id, LONGEST)
        message = (command.topic, command.partition), header, record
        _, written = self.take(transaction, [message], [record])
        return written
