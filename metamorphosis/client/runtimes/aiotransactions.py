# Made from txtransactions.py by tools/asyncio_faces.py: change that, run 'make faces'.
"""The types of transactions for type checkers, on asyncio; see ``client.aio``."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Iterable
from typing import Protocol, Self

from metamorphosis.client.documented import documented
from metamorphosis.client.model import OutgoingMessage, Partition, SendResult
from metamorphosis.client.transactions import local, resource
from metamorphosis.client.transactions.branches import Recovered
from metamorphosis.client.transactions.local import TransactionState
from metamorphosis.client.transactions.xa import TMNOFLAGS, TMSTARTRSCAN, TMSUCCESS, Xid
from metamorphosis.wire.transactionids import LocalTransactionId


@documented(local.Transaction)
class Transaction(Protocol):
    """The type of ``local.Transaction`` on this face."""

    id: LocalTransactionId
    state: TransactionState

    @property
    def is_ended(self) -> bool: ...

    @property
    def target(self) -> str | None: ...

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Future[SendResult]: ...

    def send_many(
        self,
        messages: Iterable[OutgoingMessage],
        *,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Future[list[SendResult]]: ...

    def commit(self) -> Future[None]: ...

    def rollback(self) -> Future[None]: ...

    def close(self) -> Future[None]: ...

    async def __aenter__(self) -> Self:
        """Itself."""

    async def __aexit__(self, kind: type[BaseException] | None, *reason: object) -> None:
        """``commit`` or ``rollback``."""


@documented(resource.XAResource)
class XAResource(Protocol):
    """The type of ``resource.XAResource`` on this face."""

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
    ) -> Future[SendResult]: ...

    def send_many(
        self,
        messages: Iterable[OutgoingMessage],
        *,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Future[list[SendResult]]: ...

    def start(self, xid: Xid, flags: int = TMNOFLAGS) -> Future[None]: ...

    def end(self, xid: Xid, flags: int = TMSUCCESS) -> Future[None]: ...

    def prepare(self, xid: Xid) -> Future[int]: ...

    def commit(self, xid: Xid, one_phase: bool = False) -> Future[None]: ...

    def rollback(self, xid: Xid) -> Future[None]: ...

    def forget(self, xid: Xid) -> Future[None]: ...

    def recover(self, flags: int = TMSTARTRSCAN) -> Future[Recovered]: ...

    def is_same_rm(self, other: XAResource) -> bool: ...

    def set_transaction_timeout(self, seconds: int) -> bool: ...
