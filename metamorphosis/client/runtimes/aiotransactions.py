# Made from txtransactions.py by tools/asyncio_faces.py: change that, run 'make faces'.
"""The types of transactions for type checkers, on asyncio; see ``client.aio``."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Iterable
from typing import Protocol, Self

from metamorphosis.client.model import OutgoingMessage, Partition, SendResult
from metamorphosis.client.transactions.branches import Recovered
from metamorphosis.client.transactions.local import TransactionState
from metamorphosis.client.transactions.xa import TMNOFLAGS, TMSTARTRSCAN, TMSUCCESS, Xid
from metamorphosis.wire.transactionids import LocalTransactionId


class Transaction(Protocol):
    """See ``client.transactions.local.Transaction``."""

    id: LocalTransactionId
    state: TransactionState

    @property
    def is_ended(self) -> bool:
        """See ``client.transactions.local.Transaction``."""

    @property
    def target(self) -> str | None:
        """See ``client.transactions.local.Transaction``."""

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Future[SendResult]:
        """See ``client.transactions.local.Transaction``."""

    def send_many(
        self,
        messages: Iterable[OutgoingMessage],
        *,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Future[list[SendResult]]:
        """See ``client.transactions.local.Transaction``."""

    def commit(self) -> Future[None]:
        """See ``client.transactions.local.Transaction``."""

    def rollback(self) -> Future[None]:
        """See ``client.transactions.local.Transaction``."""

    def close(self) -> Future[None]:
        """See ``client.transactions.local.Transaction``."""

    async def __aenter__(self) -> Self:
        """Itself."""

    async def __aexit__(self, kind: type[BaseException] | None, *reason: object) -> None:
        """``commit`` or ``rollback``."""


class XAResource(Protocol):
    """See ``client.transactions.resource.XAResource``."""

    target: str

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Future[SendResult]:
        """See ``client.transactions.resource.XAResource``."""

    def send_many(
        self,
        messages: Iterable[OutgoingMessage],
        *,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Future[list[SendResult]]:
        """See ``client.transactions.resource.XAResource``."""

    def start(self, xid: Xid, flags: int = TMNOFLAGS) -> Future[None]:
        """See ``client.transactions.resource.XAResource``."""

    def end(self, xid: Xid, flags: int = TMSUCCESS) -> Future[None]:
        """See ``client.transactions.resource.XAResource``."""

    def prepare(self, xid: Xid) -> Future[int]:
        """See ``client.transactions.resource.XAResource``."""

    def commit(self, xid: Xid, one_phase: bool = False) -> Future[None]:
        """See ``client.transactions.resource.XAResource``."""

    def rollback(self, xid: Xid) -> Future[None]:
        """See ``client.transactions.resource.XAResource``."""

    def forget(self, xid: Xid) -> Future[None]:
        """See ``client.transactions.resource.XAResource``."""

    def recover(self, flags: int = TMSTARTRSCAN) -> Future[Recovered]:
        """See ``client.transactions.resource.XAResource``."""

    def is_same_rm(self, other: XAResource) -> bool:
        """See ``client.transactions.resource.XAResource``."""

    def set_transaction_timeout(self, seconds: int) -> bool:
        """See ``client.transactions.resource.XAResource``."""
