"""
The rest of transactions in two phases: prepared branches get the outcome that was decided.

A branch that is listed and then said not to exist does not count as finished: a database answers so
until it notices the end of the connection that prepared the branch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from metamorphosis.client.transactions.database import DatabaseResource
from metamorphosis.client.transactions.decisionlog import DecisionLog
from metamorphosis.client.transactions.xa import (
    ROLLED_BACK,
    XA_HEURCOM,
    XA_HEURHAZ,
    XA_HEURRB,
    XAER_NOTA,
    Xid,
)
from metamorphosis.errors import MixedOutcome, XAError

FORMAT_ID: Final = 0x4D51
"""Of the branches of all coordinators."""
MESSAGES: Final = b"messages"
DATABASE: Final = b"database"
DECIDED_ELSEWHERE: Final = {XA_HEURCOM, XA_HEURRB, XA_HEURHAZ}


class Step(Enum):
    """The steps of a transaction that were just done, in this order."""

    BEGUN = "begun"
    ENDED = "ended"
    MESSAGES_PREPARED = "messages prepared"
    DATABASE_PREPARED = "database prepared"
    DECIDED = "decided"
    MESSAGES_COMMITTED = "messages committed"
    DATABASE_COMMITTED = "database committed"
    FORGOTTEN = "forgotten"
    RESOLVED = "resolved"  # a branch of an earlier life


@dataclass(frozen=True)
class Resolution:
    """
    The result of ``resolve``.

    :ivar committed: transactions, branches of which it has committed.
    :ivar rolled_back: the same, rolled back.
    :ivar left: what could not be done -> why; it is tried again by the next ``resolve``.
    """

    committed: tuple[str, ...] = ()
    rolled_back: tuple[str, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)


class Pass:
    """
    One pass over all prepared branches.

    :param resource: makes an XA resource of a broker, or of any (None).
    :param is_touchable: whether a transaction is one of the coordinator's, and not under way.
    :param told: of each branch that gets its outcome.
    :param outcomes: transaction -> committed or not; filled.
    :ivar left: what could not be done -> why.
    :ivar denied: a branch was listed, and then was said not to be there.
    """

    def __init__(
        self,
        decisions: DecisionLog,
        database: DatabaseResource,
        resource: Callable[[str | None], Any],
        is_touchable: Callable[[str], bool],
        told: Callable[[Step, str], object],
        outcomes: dict[str, bool],
    ) -> None:
        self.left: dict[str, str] = {}
        self.denied = False
        self._log = decisions
        self._database = database
        self._resource = resource
        self._is_touchable = is_touchable
        self._told = told
        self._outcomes = outcomes
        # Those of transactions that are ended now, before anything is listed: others may be ended
        # in the meantime, with branches that no list has.
        committed = decisions.committed().items()
        self._decisions = {name: broker for name, broker in committed if is_touchable(name)}
        self._stuck: set[str] = set()  # transactions with a branch that is left
        self._sent: set[str] = set()  # transactions whose messages were committed just now

    def run(self) -> None:
        """Give every branch its outcome; forget the decisions that are not needed any more."""
        for xid, resource in [*self._in_database(), *self._in_brokers()]:
            transaction = xid.gtrid.decode("ascii", "replace")
            if self._is_touchable(transaction):
                self._finish(xid, resource, transaction)
        for transaction, broker in self._decisions.items():
            if not self._is_needed(transaction, broker):
                self._log.forget(transaction)

    def _finish(self, xid: Xid, resource: Any, transaction: str) -> None:
        commit = transaction in self._log.committed()  # which may have been written just now
        try:
            if not finish(resource, xid, commit):
                self.denied = True
                self.left[str(xid)] = "it is prepared, and cannot be reached yet"
                self._stuck.add(transaction)
                return
        except (XAError, MixedOutcome) as error:
            self.left[str(xid)] = str(error)
            self._stuck.add(transaction)
            return
        self._outcomes[transaction] = commit
        if xid.bqual == MESSAGES:
            self._sent.add(transaction)
        self._told(Step.RESOLVED, transaction)

    def _is_needed(self, transaction: str, broker: str) -> bool:
        """Whether a branch may still be somewhere; a broker may have come back elsewhere."""
        away = broker in self.left and transaction not in self._sent
        return away or "database" in self.left or transaction in self._stuck

    def _in_database(self) -> list[tuple[Xid, Any]]:
        try:
            return [(xid, self._database) for xid in self._database.recover()]
        except XAError as error:
            self.left["database"] = str(error)
            return []

    def _in_brokers(self) -> list[tuple[Xid, Any]]:
        """A broker that has a decided branch is asked also when it is not registered."""
        urls = set(self._decisions.values())
        try:
            resources = [self._resource(url) for url in sorted(urls)]
            resource = resources[0] if resources else self._resource(None)
            recovered = resource.recover()
        except XAError as error:
            self.left.update({url: str(error) for url in urls or {"messages"}})
            return []
        self.left.update({url: str(error) for url, error in recovered.failed.items()})
        return [(xid, resource) for xid in recovered if xid.format_id == FORMAT_ID]


def finish(resource: Any, xid: Xid, commit: bool) -> bool:
    """
    Give a branch its outcome; whether the branch was still there.

    :raises XAError: not possible now.
    :raises MixedOutcome: an administrator has given it the other one.
    """
    try:
        if commit:
            resource.commit(xid)
        else:
            resource.rollback(xid)
    except XAError as error:
        if error.code in DECIDED_ELSEWHERE:
            if error.code != (XA_HEURCOM if commit else XA_HEURRB):
                wanted = "commit" if commit else "rollback"
                raise MixedOutcome(f"{xid}: the decision is {wanted}, and: {error}") from error
            resource.forget(xid)
        elif error.code == XAER_NOTA:
            return False
        elif commit or error.code not in ROLLED_BACK:
            raise
    return True
