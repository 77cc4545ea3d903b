"""The steps of a local transaction at its broker, and the meaning of the answers."""

from __future__ import annotations

from enum import Enum
from typing import Final

from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.replies import LOST, NOT_SENT, SUCCESS, TIMED_OUT, error_of
from metamorphosis.client.transactions.xa import XA_RBOTHER, code_of
from metamorphosis.errors import BrokerError, MetaQError, NotConnected
from metamorphosis.wire.commands import TransactionCommand, TransactionType
from metamorphosis.wire.transactionids import LocalTransactionId

UNKNOWN_TEXT: Final = "has not been started."
"""The end of a broker's text about a transaction that it does not have."""


class Commit(Enum):
    """The outcome of a commit."""

    DONE = "done"
    REFUSED = "refused"  # the broker still has the transaction, or may have it
    GONE = "gone"  # the broker does not have it
    UNKNOWN = "unknown"


class LocalSteps:
    """
    :param lifetime: seconds after which the broker rolls back; 0: never.
    :param timeout: seconds for each answer.
    """

    def __init__(
        self, transaction: LocalTransactionId, session_id: str, lifetime: int, timeout: float
    ) -> None:
        self._transaction = transaction
        self._session_id = session_id
        self._lifetime = lifetime
        self._timeout = timeout

    async def connected(self, broker: BrokerConnection) -> None:
        """
        Wait until there is a connection.

        :raises NotConnected: there is none in time.
        """
        if not await broker.ready(self._timeout):
            raise NotConnected(
                f"transaction {self._transaction} at {broker.url}: not begun, there is no"
                " connection"
            )

    async def begin(self, broker: BrokerConnection) -> None:
        """:raises MetaQError: it was refused, or not answered."""
        status, body = await self._ask(broker, TransactionType.BEGIN, self._lifetime)
        if status != SUCCESS:
            raise error_of(status, body, f"begin of transaction {self._transaction}")

    async def commit(self, broker: BrokerConnection) -> tuple[Commit, MetaQError | None]:
        """The outcome, and the error that explains it."""
        status, body = await self._ask(broker, TransactionType.COMMIT_ONE_PHASE)
        if status == SUCCESS:
            return Commit.DONE, None
        error = error_of(status, body, f"commit of transaction {self._transaction}")
        found = code_of(str(error))
        if status in (LOST, TIMED_OUT) or found is not None and found[0] == XA_RBOTHER:
            return Commit.UNKNOWN, error
        if status == NOT_SENT or is_unknown(error):
            return Commit.GONE, error
        return Commit.REFUSED, error

    async def roll_back(self, broker: BrokerConnection) -> MetaQError | None:
        """The error if the transaction may still be there; it ends with a lost connection."""
        status, body = await self._ask(broker, TransactionType.ROLLBACK)
        if status in (SUCCESS, LOST, NOT_SENT):
            return None
        error = error_of(status, body, f"rollback of transaction {self._transaction}")
        return None if is_unknown(error) else error

    async def _ask(
        self, broker: BrokerConnection, step: TransactionType, lifetime: int = 0
    ) -> tuple[int, bytes]:
        command = TransactionCommand(self._transaction, self._session_id, step, 0, lifetime)
        return await broker.call(command, self._timeout)


def is_unknown(error: Exception) -> bool:
    """Whether the broker says that it does not have the transaction."""
    return isinstance(error, BrokerError) and str(error).endswith(UNKNOWN_TEXT)
