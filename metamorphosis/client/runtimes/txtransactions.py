"""The types of transactions for type checkers, on Twisted; see ``client.tx``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, Self

from twisted.internet.defer import Deferred

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
    ) -> Deferred[SendResult]: ...

    def send_many(
        self,
        messages: Iterable[OutgoingMessage],
        *,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Deferred[list[SendResult]]: ...

    def commit(self) -> Deferred[None]: ...

    def rollback(self) -> Deferred[None]: ...

    def close(self) -> Deferred[None]: ...

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
    ) -> Deferred[SendResult]: ...

    def send_many(
        self,
        messages: Iterable[OutgoingMessage],
        *,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> Deferred[list[SendResult]]: ...

    def start(self, xid: Xid, flags: int = TMNOFLAGS) -> Deferred[None]: ...

    def end(self, xid: Xid, flags: int = TMSUCCESS) -> Deferred[None]: ...

    def prepare(self, xid: Xid) -> Deferred[int]: ...

    def commit(self, xid: Xid, one_phase: bool = False) -> Deferred[None]: ...

    def rollback(self, xid: Xid) -> Deferred[None]: ...

    def forget(self, xid: Xid) -> Deferred[None]: ...

    def recover(self, flags: int = TMSTARTRSCAN) -> Deferred[Recovered]: ...

    def is_same_rm(self, other: XAResource) -> bool: ...

    def set_transaction_timeout(self, seconds: int) -> bool: ...
