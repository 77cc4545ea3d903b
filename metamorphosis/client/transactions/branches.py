"""
The XA branches that one producer knows, and their brokers.

A branch can be prepared, committed and rolled back over any connection to its broker, but only at
that broker. All brokers are asked for a branch that this process has not begun.

Differs: the original sends commit and rollback to the broker of the resource that was called, which
need not have the branch, and gives ``XAER_NOTA``, "there is no such branch", for that.

Differs: no answer to a commit is ``XAER_RMFAIL`` with an unknown outcome; the original says
``XA_RBTIMEOUT``, "rolled back", although the broker may have committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.links import Log
from metamorphosis.client.network.replies import LOST, SUCCESS, TIMED_OUT, error_of
from metamorphosis.client.settings import normalise_url
from metamorphosis.client.transactions.enlisted import Enlisted
from metamorphosis.client.transactions.xa import (
    XA_HEURCOM,
    XA_HEURHAZ,
    XA_HEURRB,
    XAER_NOTA,
    XAER_RMERR,
    XAER_RMFAIL,
    Xid,
    code_of,
    recovered_xids,
)
from metamorphosis.errors import MetaQError, NoNode, ProtocolError, XAError
from metamorphosis.wire.commands import TransactionCommand, TransactionType
from metamorphosis.wire.transactionids import NULL_TRANSACTION_ID, TransactionId

if TYPE_CHECKING:
    from metamorphosis.client.session import Session

KEPT_CODES = {XAER_RMERR, XAER_RMFAIL, XA_HEURRB, XA_HEURCOM, XA_HEURHAZ}
"""After these the broker still has the branch, or may have it."""


class BranchState(Enum):
    """The state of a branch, as far as this process knows."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    ENDED = "ended"
    ROLLBACK_ONLY = "to be rolled back"  # ``end`` with TMFAIL
    PREPARED = "prepared"


class Branch:
    """
    A branch that this process has begun.

    :ivar messages: those sent into it.
    """

    __slots__ = ("messages", "state", "url", "xid")

    def __init__(self, xid: Xid, url: str, messages: Enlisted) -> None:
        self.xid = xid
        self.url = url
        self.messages = messages
        self.state = BranchState.ACTIVE


class Recovered(tuple[Xid, ...]):
    """
    The branches that are prepared, or were decided by an administrator, of all brokers.

    :ivar failed: URL -> why that broker did not answer; its branches are missing.
    """

    failed: Mapping[str, MetaQError]

    def __new__(cls, xids: Sequence[Xid] = (), failed: Mapping[str, MetaQError] = {}) -> Recovered:
        made = super().__new__(cls, xids)
        made.failed = dict(failed)
        return made


class Branches:
    """
    Thread: the loop's.

    :ivar begun: the branches of this process that have not been finished.
    :ivar unique_qualifier: of all of them.
    """

    def __init__(self, session: Session, unique_qualifier: str, timeout: float) -> None:
        """:param timeout: seconds for the answer to each step."""
        self.begun: dict[Xid, Branch] = {}
        self.unique_qualifier = unique_qualifier
        self.timeout = timeout
        self.session_id = session.next_session_id().replace(":", "-")
        self._session = session
        self._log: Log = session.log
        self._holders: dict[Xid, str] = {}  # found by recovery: URL
        self._urls: set[str] = set()  # of the connections that are kept

    # -- brokers

    def connection(self, url: str) -> BrokerConnection:
        """The connection to a broker, kept until ``close``."""
        url = normalise_url(url)
        self._urls.add(url)
        return self._session.connections.acquire(url, self)

    def close(self) -> None:
        """Release the connections."""
        urls, self._urls = self._urls, set()
        for url in urls:
            self._session.connections.release(url, self)

    async def all_urls(self) -> list[str]:
        """
        The URLs of all masters that are registered, and of all brokers that a connection is kept
        to: those of resources, of branches of this process, and of branches that were found.

        :raises RegistryError: ZooKeeper does not answer.
        """
        found = set(self._urls)
        session = self._session
        if session.config.broker is not None:
            found.add(session.config.broker)
        else:
            found |= set(await self._masters())
        return sorted(found)

    async def _masters(self) -> list[str]:
        registry, paths = self._session.registry, self._session.paths
        assert registry is not None  # this is not direct mode
        try:
            names = await registry.children(paths.broker_ids)
        except NoNode:
            return []
        found = []
        for name in names:
            if name.isascii() and name.isdecimal():
                try:
                    data, _ = await registry.get(paths.master(int(name)))
                except NoNode:
                    continue  # a slave alone
                found.append(normalise_url((data or b"").decode("utf-8", "replace")))
        return found

    # -- steps

    async def ask(self, xid: Xid, step: TransactionType, url: str, lifetime: int = 0) -> bytes:
        """
        The body of a broker's answer to one step.

        :raises XAError: it refused, or did not answer.
        """
        broker = self.connection(url)
        what = f"{step.value} of {xid} at {broker.url}"
        await broker.ready(self.timeout)
        key = xid.with_qualifier(self.unique_qualifier)
        status, body = await broker.call(self._command(key, step, lifetime), self.timeout)
        if status == SUCCESS:
            return body
        error = error_of(status, body, what)
        if status in (LOST, TIMED_OUT):
            raise XAError(XAER_RMFAIL, f"{error}; whether it was done is not known", False)
        found = code_of(str(error))
        if found is not None:
            raise XAError(*found)
        raise XAError(XAER_RMFAIL if status < 0 else XAER_RMERR, str(error))

    def end(self, xid: Xid, url: str) -> None:
        """Tell the broker that a branch gets no more messages; there is no answer."""
        broker = self.connection(url)
        if broker.is_connected:
            key = xid.with_qualifier(self.unique_qualifier)
            broker.call(self._command(key, TransactionType.END, 0), self.timeout)

    def _command(
        self, key: TransactionId, step: TransactionType, lifetime: int
    ) -> TransactionCommand:
        return TransactionCommand(key, self.session_id, step, 0, lifetime, self.unique_qualifier)

    # -- whose branch it is

    async def holder(self, xid: Xid) -> str:
        """
        The URL of the broker that has a branch.

        :raises XAError: no broker has it, or one that may have it does not answer.
        """
        branch = self.begun.get(xid)
        if branch is not None:
            return branch.url
        if xid not in self._holders:
            found = await self.recover()
            if xid not in self._holders:
                if found.failed:
                    raise XAError(XAER_RMFAIL, f"{xid} may be at {_named(found.failed)}")
                raise XAError(XAER_NOTA, f"no broker has {xid}, or it is not prepared")
        return self._holders[xid]

    def forget(self, xid: Xid) -> None:
        """The branch is finished."""
        self.begun.pop(xid, None)
        self._holders.pop(xid, None)

    async def recover(self) -> Recovered:
        """
        Ask all brokers for their branches.

        :raises XAError: none of them answered.
        """
        try:
            urls = await self.all_urls()
        except MetaQError as error:
            raise XAError(XAER_RMFAIL, f"the brokers are not known: {error}") from error
        found: dict[Xid, None] = {}
        failed: dict[str, MetaQError] = {}
        answers = [self._session.runtime.start(self._prepared_at(url)) for url in urls]
        for url, answer in zip(urls, answers, strict=True):
            try:
                for xid in await answer:
                    found[xid] = None
                    self._holders[xid] = url
            except MetaQError as error:
                failed[url] = error
        if failed:
            self._log.warn("Recovery is not complete: {failed}", failed=_named(failed))
        if len(failed) == len(urls):
            raise XAError(XAER_RMFAIL, f"no broker can be asked: {_named(failed)}")
        return Recovered(tuple(found), failed)

    async def _prepared_at(self, url: str) -> list[Xid]:
        broker = self.connection(url)
        what = f"recover at {broker.url}"
        await broker.ready(self.timeout)
        command = self._command(NULL_TRANSACTION_ID, TransactionType.RECOVER, 0)
        status, body = await broker.call(command, self.timeout)
        if status != SUCCESS:
            raise error_of(status, body, what)
        try:
            return recovered_xids(body, self.unique_qualifier)
        except ProtocolError as error:
            raise XAError(XAER_RMERR, f"{what}: {error}") from error


def _named(failed: Mapping[str, MetaQError]) -> str:
    return "; ".join(f"{url}: {error}" for url, error in failed.items()) or "none is registered"
