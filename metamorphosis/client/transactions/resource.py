"""
One broker as a resource of X/Open XA: the calls of a transaction manager, and ``send``.

One branch at a time is associated with a resource, between ``start`` and ``end``; messages go into
that one. The calls after ``end`` work on any resource of the producer: they go to the broker that
has the branch.

Source: ``TransactionContext``.

Differs: joining and resuming work; in the original they always fail.

Differs: ``recover`` gives everything when a scan starts and nothing when it goes on, as X/Open has
it; the original gives everything each time, to a caller that waits for an empty list.

Differs: a branch into which a message could not be sent is not prepared or committed in one phase,
but rolled back: ``XA_RBROLLBACK``.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from metamorphosis.client.checked import as_future, checked
from metamorphosis.client.producer.puts import Put
from metamorphosis.client.topics.selectors import Selector
from metamorphosis.client.transactions.branches import (
    KEPT_CODES,
    Branch,
    Branches,
    BranchState,
    Recovered,
)
from metamorphosis.client.transactions.enlisted import Enlisted
from metamorphosis.client.transactions.placement import Placement
from metamorphosis.client.transactions.sends import Sends
from metamorphosis.client.transactions.xa import (
    TMENDRSCAN,
    TMFAIL,
    TMJOIN,
    TMNOFLAGS,
    TMRESUME,
    TMSTARTRSCAN,
    TMSUCCESS,
    TMSUSPEND,
    XA_OK,
    XA_RBROLLBACK,
    XA_RDONLY,
    XAER_DUPID,
    XAER_INVAL,
    XAER_NOTA,
    XAER_PROTO,
    XAER_RMERR,
    Xid,
)
from metamorphosis.errors import InvalidState, XAError
from metamorphosis.wire.commands import TransactionType

if TYPE_CHECKING:
    from metamorphosis.client.session import Session

_ENDS = {
    TMSUCCESS: BranchState.ENDED,
    TMSUSPEND: BranchState.SUSPENDED,
    TMFAIL: BranchState.ROLLBACK_ONLY,
}


class Target(Protocol):
    """A resource of any face."""

    @property
    def target(self) -> str:
        """The URL of its broker."""


class XAResource(Sends):
    """
    Made by ``XAProducer.resource``. Thread: the loop's.

    One long class, because X/Open gives a resource all of these calls; the brokers and the states
    of the branches are in ``Branches``.

    :ivar target: URL of the broker that branches begin on.
    """

    def __init__(
        self,
        session: Session,
        branches: Branches,
        target: str,
        selector: Selector,
        in_order: bool,
        send_timeout: float,
    ) -> None:
        super().__init__(session, send_timeout)
        self.target = target
        self._branches = branches
        self._in_order = in_order
        self._lifetime = 0
        self._associated: Branch | None = None
        broker = branches.connection(target)
        self._placement = Placement(session.directory, selector, broker)

    # -- messages

    def _enlisted(self) -> Enlisted | None:
        return None if self._associated is None else self._associated.messages

    def _enlist(self, put: Put) -> None:
        branch = self._associated
        if branch is None:
            raise InvalidState("no branch is started: await start(xid) first")
        failure = branch.messages.failure
        if failure is not None:
            raise XAError(XA_RBROLLBACK, f"{branch.xid} can only be rolled back: {failure}")
        put.partition, _ = self._placement.place(put.message, put.partition)
        branch.messages.add(put)

    def _refused(self, error: Exception) -> None:
        if self._associated is not None:
            self._associated.messages.fail(error)

    # -- the work of a branch

    @checked(as_future)
    def start(self, xid: Xid, flags: int = TMNOFLAGS) -> Awaitable[None]:
        """
        Begin a branch on the broker ``target``, and associate it. Costs one request.

        :param flags: ``TMJOIN`` or ``TMRESUME``: the branch was begun by this producer before, on
            the same broker, and gets further messages; ``TMRESUME`` after ``end`` with
            ``TMSUSPEND``.
        :raises XAError: the code says why not.
        """
        return self._runtime.start(self._start(xid, flags))

    async def _start(self, xid: Xid, flags: int) -> None:
        if flags not in (TMNOFLAGS, TMJOIN, TMRESUME):
            raise XAError(XAER_INVAL, f"start of {xid}: TMNOFLAGS, TMJOIN or TMRESUME expected")
        known = self._branches.begun.get(xid)
        if flags == TMNOFLAGS and known is not None:
            raise XAError(XAER_DUPID, f"start of {xid}: it has been begun, and is {_state(known)}")
        if self._associated is not None:
            raise XAError(
                XAER_PROTO, f"start of {xid}: {self._associated.xid} has not been ended here"
            )
        if flags != TMNOFLAGS:
            self._associate_again(xid, flags, known)
            return
        key = xid.with_qualifier(self._branches.unique_qualifier)
        messages = Enlisted(self._runtime, key, self._in_order)
        branch = Branch(xid, self.target, messages)
        self._branches.begun[xid] = self._associated = branch
        try:
            await self._branches.ask(xid, TransactionType.BEGIN, self.target, self._lifetime)
        except BaseException as error:
            self._associated = None
            messages.fail(XAError(XA_RBROLLBACK, f"{xid} has not been begun"))
            if isinstance(error, XAError) and error.outcome_known:
                self._branches.forget(xid)
            else:  # it may be there, and expires or is rolled back
                branch.state = BranchState.ROLLBACK_ONLY
            raise
        assert self._placement.broker is not None
        messages.begin(self._placement.broker)

    def _associate_again(self, xid: Xid, flags: int, branch: Branch | None) -> None:
        if branch is None or branch.url != self.target:
            raise XAError(XAER_NOTA, f"start of {xid}: it has not been begun here")
        wanted = {BranchState.SUSPENDED}
        if flags == TMJOIN:
            wanted = {BranchState.ENDED}
        if branch.state not in wanted:
            raise XAError(XAER_PROTO, f"start of {xid}: it is {_state(branch)}")
        branch.state = BranchState.ACTIVE
        self._associated = branch

    @checked(as_future)
    def end(self, xid: Xid, flags: int = TMSUCCESS) -> Awaitable[None]:
        """
        The branch gets no further messages here. Costs the wait for the answers to its messages.

        :param flags: ``TMSUCCESS``, ``TMSUSPEND`` (until ``start`` with ``TMRESUME``), or
            ``TMFAIL``: the branch can only be rolled back.
        :raises XAError: the code says why not.
        """
        return self._runtime.start(self._end(xid, flags))

    async def _end(self, xid: Xid, flags: int) -> None:
        state = _ENDS.get(flags)
        if state is None:
            raise XAError(XAER_INVAL, f"end of {xid}: TMSUCCESS, TMSUSPEND or TMFAIL expected")
        branch = self._branches.begun.get(xid)
        if branch is None:
            raise XAError(XAER_NOTA, f"end of {xid}: it has not been begun here")
        suspended = branch.state is BranchState.SUSPENDED and state is not BranchState.SUSPENDED
        if self._associated is not branch and not suspended:
            raise XAError(XAER_PROTO, f"end of {xid}: it is not associated here")
        branch.state = state
        if self._associated is branch:
            self._associated = None
        await branch.messages.settled()
        self._branches.end(xid, branch.url)

    # -- its outcome

    @checked(as_future)
    def prepare(self, xid: Xid) -> Awaitable[int]:
        """
        The first phase. Costs one request, and the broker a forced write.

        :returns: ``XA_OK``, or ``XA_RDONLY`` where there is nothing to commit: it is forgotten
            then.
        :raises XAError: the code says why not; the branch is rolled back where the code says so.
        """
        return self._runtime.start(self._prepare(xid))

    async def _prepare(self, xid: Xid) -> int:
        branch = await self._ready(xid, "prepare")
        url = await self._branches.holder(xid) if branch is None else branch.url
        body = await self._step(xid, TransactionType.PREPARE, url)
        if body == b"%d" % XA_RDONLY:
            self._branches.forget(xid)
            return XA_RDONLY
        if body != b"%d" % XA_OK:
            raise XAError(
                XAER_RMERR, f"prepare of {xid} at {url}: {body[:40]!r} is not a vote", False
            )
        if branch is not None:
            branch.state = BranchState.PREPARED
        return XA_OK

    @checked(as_future)
    def commit(self, xid: Xid, one_phase: bool = False) -> Awaitable[None]:
        """
        The second phase, or the only one. Costs one request, and the broker a forced write.

        :raises XAError: the code says why not. Where ``outcome_known`` is false the branch may have
            been committed; a second ``commit`` then gives ``XAER_NOTA`` if it was.
        """
        return self._runtime.start(self._commit(xid, one_phase))

    async def _commit(self, xid: Xid, one_phase: bool) -> None:
        branch = self._branches.begun.get(xid)
        if branch is None or branch.state is not BranchState.PREPARED:
            branch = await self._ready(xid, "commit")
            if branch is not None and not one_phase:
                raise XAError(XAER_PROTO, f"commit of {xid}: it has not been prepared")
        url = await self._branches.holder(xid)
        step = TransactionType.COMMIT_ONE_PHASE if one_phase else TransactionType.COMMIT_TWO_PHASE
        await self._step(xid, step, url)
        self._branches.forget(xid)

    @checked(as_future)
    def rollback(self, xid: Xid) -> Awaitable[None]:
        """
        Undo the branch, which may still be associated. Costs one request.

        :raises XAError: the code says why not.
        """
        return self._runtime.start(self._rollback(xid))

    async def _rollback(self, xid: Xid) -> None:
        branch = self._branches.begun.get(xid)
        if branch is not None:
            if self._associated is branch:
                self._associated = None
            branch.messages.fail(XAError(XA_RBROLLBACK, f"{xid} is being rolled back"))
            await branch.messages.settled()
        url = await self._branches.holder(xid)
        await self._step(xid, TransactionType.ROLLBACK, url)
        self._branches.forget(xid)

    @checked(as_future)
    def forget(self, xid: Xid) -> Awaitable[None]:
        """
        Let the broker forget a branch whose outcome an administrator has decided. Costs one
        request.

        :raises XAError: the code says why not.
        """
        return self._runtime.start(self._forget(xid))

    async def _forget(self, xid: Xid) -> None:
        url = await self._branches.holder(xid)
        await self._branches.ask(xid, TransactionType.FORGET, url)
        self._branches.forget(xid)

    async def _ready(self, xid: Xid, step: str) -> Branch | None:
        """
        A branch whose messages have all been answered; None: this process has not begun it.

        :raises XAError: it is in use, or it can only be rolled back and now is.
        """
        branch = self._branches.begun.get(xid)
        if branch is None:
            return None
        if branch.state in (BranchState.ACTIVE, BranchState.SUSPENDED):
            raise XAError(XAER_PROTO, f"{step} of {xid}: it is {_state(branch)}; end it first")
        await branch.messages.settled()
        failure = branch.messages.failure
        if failure is not None or branch.state is BranchState.ROLLBACK_ONLY:
            reason = "it was ended with TMFAIL" if failure is None else str(failure)
            await self._rollback(xid)
            raise XAError(XA_RBROLLBACK, f"{step} of {xid}: rolled back, for {reason}") from failure
        return branch

    async def _step(self, xid: Xid, step: TransactionType, url: str) -> bytes:
        """Ask the broker; a branch that it does not have any more is forgotten here, too."""
        try:
            return await self._branches.ask(xid, step, url)
        except XAError as error:
            if error.code not in KEPT_CODES and error.code != XAER_PROTO:
                self._branches.forget(xid)
            raise

    # -- others

    @checked(as_future)
    def recover(self, flags: int = TMSTARTRSCAN) -> Awaitable[Recovered]:
        """
        The branches with this producer's qualifier that are prepared, or decided by an
        administrator, at any broker. Costs one request to each.

        :param flags: without ``TMSTARTRSCAN`` the rest of the scan, which is empty.
        :returns: a tuple of ``Xid``, whose ``failed`` names the brokers that did not answer.
        :raises XAError: ``XAER_RMFAIL``: no broker answered.
        """
        return self._runtime.start(self._recover(flags))

    async def _recover(self, flags: int) -> Recovered:
        if flags & ~(TMSTARTRSCAN | TMENDRSCAN):
            raise XAError(XAER_INVAL, "recover: TMSTARTRSCAN, TMENDRSCAN or TMNOFLAGS expected")
        if not flags & TMSTARTRSCAN:
            return Recovered()
        return await self._branches.recover()

    @checked()
    def is_same_rm(self, other: Target) -> bool:
        """
        Costs nothing.

        :returns: whether both begin branches on the same broker.
        :raises InvalidArgument: ``other`` is no resource.
        """
        return self.target == other.target

    @checked()
    def set_transaction_timeout(self, seconds: int) -> bool:
        """
        Limit the time of branches begun from now on: the broker rolls back what has not been
        prepared by then. Costs nothing.

        :param seconds: 0: no limit.
        :returns: True, as X/Open has it.
        :raises InvalidArgument: no number of seconds.
        """
        self._lifetime = seconds
        return True


def _state(branch: Branch) -> str:
    return branch.state.value
