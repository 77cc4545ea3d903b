"""
The open transactions by their keys: XA transactions of the broker, local ones of each connection.

Source: ``TransactionProcessor``, ``SessionContextImpl``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from metamorphosis.transactions.transaction import State, Transaction
from metamorphosis.wire.transactionids import TransactionId

NONE: dict[bytes, Transaction] = {}


class OpenTransactions:
    """
    The open transactions of one broker. Thread: reactor.

    The keys are canonical, as bytes of the wire: a command with a canonical key finds its
    transaction without parsing the key.

    :ivar bytes: memory of the transactions and their messages.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._xa: dict[bytes, Transaction] = {}
        self._local: dict[Hashable, dict[bytes, Transaction]] = {}

    def add(self, owner: Hashable, transaction: Transaction) -> None:
        """
        Add a transaction.

        :param owner: the connection of a local transaction.
        """
        self.bytes += transaction.bytes
        key = wire_key(transaction.key)
        if transaction.is_xa:
            self._xa[key] = transaction
        else:
            transaction.owner = owner
            self._local.setdefault(owner, {})[key] = transaction

    def get(self, owner: Hashable, transaction_id: TransactionId) -> Transaction | None:
        """The transaction of an id, in any state."""
        return self.find(owner, wire_key(str(transaction_id)))

    def find(self, owner: Hashable, key: bytes) -> Transaction | None:
        """
        The transaction of a canonical key.

        :param key: any bytes.
        """
        return self._local.get(owner, NONE).get(key) or self._xa.get(key)

    def usable(self, owner: Hashable, transaction_id: TransactionId) -> Transaction | None:
        """The transaction of an id, if it is not ending."""
        found = self.get(owner, transaction_id)
        return None if found is None or found.state is State.ENDING else found

    def remove(self, transaction: Transaction) -> None:
        """Remove a finished transaction."""
        self.bytes -= transaction.bytes
        key = wire_key(transaction.key)
        if transaction.is_xa:
            del self._xa[key]
            return
        own = self._local[transaction.owner]
        del own[key]
        if not own:
            del self._local[transaction.owner]

    def of(self, owner: Hashable) -> list[Transaction]:
        """The local transactions of a connection."""
        return list(self._local.get(owner, NONE).values())

    @property
    def xa(self) -> list[Transaction]:
        """The XA transactions, in the order in which they were begun."""
        return list(self._xa.values())

    def __iter__(self) -> Iterator[Transaction]:
        """XA transactions in the order of their BEGIN, then local ones."""
        yield from self._xa.values()
        for own in self._local.values():
            yield from own.values()


def wire_key(key: str) -> bytes:
    """The bytes of a key; half a surrogate pair, which no client can send, is encoded too."""
    return key.encode("utf-8", "surrogatepass")
