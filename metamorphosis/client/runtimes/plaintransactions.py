"""
Transactions with plain calls that wait. Thread: any but the loop's.
"""

from __future__ import annotations

from collections.abc import Iterable

from metamorphosis.client.documented import documented
from metamorphosis.client.model import OutgoingMessage, Partition, SendResult
from metamorphosis.client.runtimes.plain import Calls, Plain, Publishing, list_of
from metamorphosis.client.transactions import local, resource, xaproducer
from metamorphosis.client.transactions.branches import Recovered
from metamorphosis.client.transactions.local import TransactionState
from metamorphosis.client.transactions.xa import TMNOFLAGS, TMSTARTRSCAN, TMSUCCESS, Xid
from metamorphosis.errors import MetaQError


@documented(local.Transaction)
class Transaction(Plain[local.Transaction]):
    """``local.Transaction`` with plain calls; the ``with`` block ends it."""

    def __exit__(self, *reason: object) -> None:
        if reason[0] is None:
            if not self.is_ended:
                self.commit()
            return
        try:
            self.close()
        except MetaQError:
            pass  # the block's exception is what counts

    @property
    def is_ended(self) -> bool:
        return self._core.is_ended

    @property
    def state(self) -> TransactionState:
        """How far it is."""
        return self._core.state

    @property
    def target(self) -> str | None:
        return self._core.target

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> SendResult:
        return self._call(
            self._core.send,
            topic,
            data,
            attribute,
            key=key,
            partition=partition,
            timeout=timeout,
        )

    def send_many(
        self,
        messages: Iterable[OutgoingMessage],
        *,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> list[SendResult]:
        return self._call(
            self._core.send_many, list_of(messages), partition=partition, timeout=timeout
        )

    def commit(self) -> None:
        self._call(self._core.commit)

    def rollback(self) -> None:
        self._call(self._core.rollback)


@documented(xaproducer.XAProducer)
class XAProducer(Publishing[xaproducer.XAProducer]):
    """``xaproducer.XAProducer`` with plain calls."""

    @property
    def unique_qualifier(self) -> str:
        return self._core.unique_qualifier

    def resource(self, target: str | None = None) -> XAResource:
        return XAResource(self._thread, self._call(self._core.resource, target), self._factory)


@documented(resource.XAResource)
class XAResource(Calls[resource.XAResource]):
    """``resource.XAResource`` with plain calls; one thread at a time uses it."""

    def close(self) -> None:
        """Does nothing, costs nothing and raises nothing: the producer keeps the connection."""

    @property
    def target(self) -> str:
        """The URL of the broker that its branches begin on."""
        return self._core.target

    def send(
        self,
        topic: str,
        data: bytes,
        attribute: str | None = None,
        *,
        key: str | bytes | None = None,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> SendResult:
        return self._call(
            self._core.send,
            topic,
            data,
            attribute,
            key=key,
            partition=partition,
            timeout=timeout,
        )

    def send_many(
        self,
        messages: Iterable[OutgoingMessage],
        *,
        partition: Partition | None = None,
        timeout: float | None = None,
    ) -> list[SendResult]:
        return self._call(
            self._core.send_many, list_of(messages), partition=partition, timeout=timeout
        )

    def start(self, xid: Xid, flags: int = TMNOFLAGS) -> None:
        self._call(self._core.start, xid, flags)

    def end(self, xid: Xid, flags: int = TMSUCCESS) -> None:
        self._call(self._core.end, xid, flags)

    def prepare(self, xid: Xid) -> int:
        return self._call(self._core.prepare, xid)

    def commit(self, xid: Xid, one_phase: bool = False) -> None:
        self._call(self._core.commit, xid, one_phase)

    def rollback(self, xid: Xid) -> None:
        self._call(self._core.rollback, xid)

    def forget(self, xid: Xid) -> None:
        self._call(self._core.forget, xid)

    def recover(self, flags: int = TMSTARTRSCAN) -> Recovered:
        return self._call(self._core.recover, flags)

    def is_same_rm(self, other: XAResource) -> bool:
        return self._call(self._core.is_same_rm, other)

    def set_transaction_timeout(self, seconds: int) -> bool:
        return self._call(self._core.set_transaction_timeout, seconds)
