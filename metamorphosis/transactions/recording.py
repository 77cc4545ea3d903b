"""
Passes the records of transactions to the journal.

A transaction that is neither prepared nor committed needs no record on the disk: the next start
would roll it back. So the records of its messages are *held* in memory, and written together with
its outcome, before it. A transaction beyond ``HELD_BYTES`` writes its held records, and each
further record in the turn of its put, so that the write of an outcome does not block the reactor
for long.

    records      event                               records
    held         prepare, commit, too many bytes     collect in the journal
    held         rollback in any way                 dropped without a write
    collecting   the write fails                     held again, if their puts were answered;
                                                     the others are refused, and gone

Differs: the original writes each record at its put.

Source: ``JournalTransactionStore``; sections 7 and 9.1 of the specification of transactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from metamorphosis.errors import JournalError
from metamorphosis.store.batch import STORED
from metamorphosis.transactions import refusals
from metamorphosis.transactions.redofile import Written
from metamorphosis.transactions.tables import OpenTransactions
from metamorphosis.transactions.transaction import OVERHEAD, Message, Transaction

if TYPE_CHECKING:
    from metamorphosis.transactions.redolog import RedoLog

HELD_BYTES = 64 * 1024
"""Memory of a transaction up to which its records are held; a write of this size costs little more
than a short one."""


class Unwritten:
    """
    The consequences of a failed write for the records of one transaction.

    :ivar held: the number of records that are held again.
    :ivar refused: the number of records after them that are removed.
    """

    __slots__ = ("held", "refused")

    def __init__(self) -> None:
        self.held = 0
        self.refused = 0


def _fitting(size: int, records: Sequence[bytes]) -> int:
    """
    The number of the records that are held.

    :param size: memory that their transaction takes without them.
    """
    if size + sum(map(len, records)) + OVERHEAD * len(records) <= HELD_BYTES:
        return len(records)
    fit = 0
    for record in records:
        size += len(record) + OVERHEAD
        if size > HELD_BYTES:
            break
        fit += 1
    return fit


class Recording:
    """
    Holds records, and writes them. Thread: reactor.
    """

    def __init__(self, open_transactions: OpenTransactions, journal: RedoLog) -> None:
        self._open = open_transactions
        self._journal = journal
        self._unwritten: dict[Written, dict[Transaction, Unwritten]] = {}

    def take(
        self, transaction: Transaction, messages: Sequence[Message], records: Sequence[bytes]
    ) -> tuple[int, Written | None]:
        """
        Take messages, all or none.

        :param records: the journal records of the messages.
        :returns: the number of the first ones that are held, and the write of the others.
        :raises BrokerError: the journal takes no records.
        """
        fit = _fitting(transaction.bytes, records)
        written = None
        try:
            if fit < len(records):
                written = self._write(transaction, records)
            else:
                self._journal.check()
        except JournalError as error:
            raise refusals.not_journaled_put(transaction.id, error) from error
        before = transaction.bytes
        transaction.add(messages, records)
        self._open.bytes += transaction.bytes - before
        if written is None:
            transaction.held += fit
        else:
            unwritten = self._expect(written, transaction)
            unwritten.held += fit
            unwritten.refused += len(records) - fit
        return fit, written

    def end(self, transaction: Transaction, record: bytes) -> Written:
        """
        Write an outcome, or a prepare, after the held records.

        :returns: the write or force that its reply has to wait for.
        :raises JournalError: the journal takes no records.
        """
        written = self._write(transaction, (record,))
        assert transaction.file is not None  # there is one after a write
        return self._journal.force(transaction.file, written)

    def _write(self, transaction: Transaction, records: Sequence[bytes]) -> Written:
        """
        Let held records, and then ``records``, collect in the journal.

        :raises JournalError: the journal takes no records.
        """
        file = transaction.file
        if file is None:
            file = transaction.file = self._journal.begin(transaction.key)
        held = transaction.held
        if held:
            records = [*transaction.records[-held:], *records]
        written = self._journal.append(file, records)
        if held:
            transaction.held = 0
            self._expect(written, transaction).held += held
        return written

    def _expect(self, written: Written, transaction: Transaction) -> Unwritten:
        """The consequences for a transaction if the write fails."""
        unwritten = self._unwritten.get(written)
        if unwritten is None:
            unwritten = self._unwritten[written] = {}
            written.waiters.append(partial(self._decided, written))
        if transaction not in unwritten:
            unwritten[transaction] = Unwritten()
        return unwritten[transaction]

    def _decided(self, written: Written) -> None:
        """Apply the outcome of a write. Called before all other waiters."""
        unwritten = self._unwritten.pop(written)
        if written.state is STORED:
            return
        for transaction, counts in unwritten.items():
            before = transaction.bytes
            transaction.take_back(counts.refused)
            self._open.bytes += transaction.bytes - before
            transaction.held += counts.held
