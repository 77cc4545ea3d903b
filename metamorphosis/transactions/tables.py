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
    Thread: reactor.

    The keys are canonical, as bytes of the wire: a command that spells its key so finds its
    transaction without reading the key.

    :ivar bytes: memory that their messages take.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._xa: dict[bytes, Transaction] = {}
        self._local: dict[Hashable, dict[bytes, Transaction]] = {}

    def add(self, owner: Hashable, transaction: Transaction) -> None:
        """
        :param owner: the connection, of a local transaction.
        """
        self.bytes += transaction.bytes
        key = wire_key(transaction.key)
        if transaction.is_xa:
            self._xa[key] = transaction
        else:
            transaction.owner = owner
            self._local.setdefault(owner, {})[key] = transaction

    def get(self, owner: Hashable, transaction_id: TransactionId) -> Transaction | None:
        """Whatever state it is in."""
        return self.find(owner, wire_key(str(transaction_id)))

    def find(self, owner: Hashable, key: bytes) -> Transaction | None:
        """
        The same by its canonical key.

        :param key: may be anything.
        """
        return self._local.get(owner, NONE).get(key) or self._xa.get(key)

    def usable(self, owner: Hashable, transaction_id: TransactionId) -> Transaction | None:
        """One that may take steps."""
        found = self.get(owner, transaction_id)
        return None if found is None or found.state is State.ENDING else found

    def remove(self, transaction: Transaction) -> None:
        """It is finished."""
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
        """The local ones of a connection."""
        return list(self._local.get(owner, NONE).values())

    @property
    def xa(self) -> list[Transaction]:
        """The XA transactions, in the order in which they were begun."""
        return list(self._xa.values())

    def __iter__(self) -> Iterator[Transaction]:
        """XA in the order of their BEGIN, then local ones."""
        yield from self._xa.values()
        for own in self._local.values():
            yield from own.values()


def wire_key(key: str) -> bytes:
    """Half a surrogate pair, which no client can send, is a key like any other."""
    return key.encode("utf-8", "surrogatepass")
