"""
The open transactions by their ids: XA transactions of the broker, local ones of each connection.

Source: ``TransactionProcessor``, ``SessionContextImpl``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from metamorphosis.transactions.transaction import State, Transaction
from metamorphosis.wire.transactionids import LocalTransactionId, TransactionId, XATransactionId


class OpenTransactions:
    """
    Thread: reactor.

    :ivar bytes: memory that their messages take.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._xa: dict[XATransactionId, Transaction] = {}
        self._local: dict[Hashable, dict[LocalTransactionId, Transaction]] = {}

    def add(self, owner: Hashable, transaction: Transaction) -> None:
        """
        :param owner: the connection, of a local transaction.
        """
        self.bytes += transaction.bytes
        if isinstance(transaction.id, XATransactionId):
            self._xa[transaction.id] = transaction
        else:
            transaction.owner = owner
            self._local.setdefault(owner, {})[transaction.id] = transaction

    def get(self, owner: Hashable, transaction_id: TransactionId) -> Transaction | None:
        """Whatever state it is in."""
        if isinstance(transaction_id, XATransactionId):
            return self._xa.get(transaction_id)
        if isinstance(transaction_id, LocalTransactionId):
            return self._local.get(owner, {}).get(transaction_id)
        return None

    def usable(self, owner: Hashable, transaction_id: TransactionId) -> Transaction | None:
        """One that may take steps."""
        found = self.get(owner, transaction_id)
        return None if found is None or found.state is State.ENDING else found

    def remove(self, transaction: Transaction) -> None:
        """It is finished."""
        self.bytes -= transaction.bytes
        if isinstance(transaction.id, XATransactionId):
            del self._xa[transaction.id]
            return
        own = self._local[transaction.owner]
        del own[transaction.id]
        if not own:
            del self._local[transaction.owner]

    def of(self, owner: Hashable) -> list[Transaction]:
        """The local ones of a connection."""
        return list(self._local.get(owner, {}).values())

    @property
    def xa(self) -> list[Transaction]:
        """The XA transactions, in the order in which they were begun."""
        return list(self._xa.values())

    def __iter__(self) -> Iterator[Transaction]:
        """XA in the order of their BEGIN, then local ones."""
        yield from self._xa.values()
        for own in self._local.values():
            yield from own.values()
