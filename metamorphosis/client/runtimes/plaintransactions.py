"""
Transactions with plain calls that wait. Thread: any but the loop's.
"""

from __future__ import annotations

from collections.abc import Iterable

from metamorphosis.client.model import OutgoingMessage, Partition, SendResult
from metamorphosis.client.runtimes.plain import Calls, Plain, Publishing, list_of
from metamorphosis.client.transactions import local, resource, xaproducer
from metamorphosis.client.transactions.branches import Recovered
from metamorphosis.client.transactions.local import TransactionState
from metamorphosis.client.transactions.xa import TMNOFLAGS, TMSTARTRSCAN, TMSUCCESS, Xid
from metamorphosis.errors import MetaQError


class Transaction(Plain[local.Transaction]):
    """See ``client.transactions.local.Transaction``; the ``with`` block ends it."""

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
        """See ``client.transactions.local.Transaction``."""
        return self._core.is_ended

    @property
    def state(self) -> TransactionState:
        """See ``client.transactions.local.Transaction``."""
        return self._core.state

    @property
    def target(self) -> str | None:
        """See ``client.transactions.local.Transaction``."""
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
        """See ``client.transactions.local.Transaction``."""
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
        """See ``client.transactions.local.Transaction``."""
        return self._call(
            self._core.send_many, list_of(messages), partition=partition, timeout=timeout
        )

    def commit(self) -> None:
        """See ``client.transactions.local.Transaction``."""
        self._call(self._core.commit)

    def rollback(self) -> None:
        """See ``client.transactions.local.Transaction``."""
        self._call(self._core.rollback)


class XAProducer(Publishing[xaproducer.XAProducer]):
    """See ``client.transactions.xaproducer.XAProducer``."""

    @property
    def unique_qualifier(self) -> str:
        """See ``client.transactions.xaproducer.XAProducer``."""
        return self._core.unique_qualifier

    def resource(self, target: str | None = None) -> XAResource:
        """See ``client.transactions.xaproducer.XAProducer``."""
        return XAResource(self._thread, self._call(self._core.resource, target), self._factory)


class XAResource(Calls[resource.XAResource]):
    """See ``client.transactions.resource.XAResource``; one thread at a time uses it."""

    def close(self) -> None:
        """Nothing: the producer keeps the connection."""

    @property
    def target(self) -> str:
        """See ``client.transactions.resource.XAResource``."""
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
        """See ``client.transactions.resource.XAResource``."""
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
        """See ``client.transactions.resource.XAResource``."""
        return self._call(
            self._core.send_many, list_of(messages), partition=partition, timeout=timeout
        )

    def start(self, xid: Xid, flags: int = TMNOFLAGS) -> None:
        """See ``client.transactions.resource.XAResource``."""
        self._call(self._core.start, xid, flags)

    def end(self, xid: Xid, flags: int = TMSUCCESS) -> None:
        """See ``client.transactions.resource.XAResource``."""
        self._call(self._core.end, xid, flags)

    def prepare(self, xid: Xid) -> int:
        """See ``client.transactions.resource.XAResource``."""
        return self._call(self._core.prepare, xid)

    def commit(self, xid: Xid, one_phase: bool = False) -> None:
        """See ``client.transactions.resource.XAResource``."""
        self._call(self._core.commit, xid, one_phase)

    def rollback(self, xid: Xid) -> None:
        """See ``client.transactions.resource.XAResource``."""
        self._call(self._core.rollback, xid)

    def forget(self, xid: Xid) -> None:
        """See ``client.transactions.resource.XAResource``."""
        self._call(self._core.forget, xid)

    def recover(self, flags: int = TMSTARTRSCAN) -> Recovered:
        """See ``client.transactions.resource.XAResource``."""
        return self._call(self._core.recover, flags)

    def is_same_rm(self, other: XAResource) -> bool:
        """See ``client.transactions.resource.XAResource``."""
        return self._call(self._core.is_same_rm, other)

    def set_transaction_timeout(self, seconds: int) -> bool:
        """See ``client.transactions.resource.XAResource``."""
        return self._call(self._core.set_transaction_timeout, seconds)
