"""
Messages and rows of MariaDB in one transaction, in two phases, with a durable decision.

::

    with MessageSessionFactory(zookeeper="localhost:2181") as factory:
        producer = factory.create_xa_producer("orders", unique_qualifier="shop")
        connect = lambda: pymysql.connect(host="db", user="shop", database="shop")
        with Coordinator("/var/lib/shop/decisions.sqlite3", producer, connect) as coordinator:
            with coordinator.transaction() as transaction:
                with transaction.connection.cursor() as cursor:
                    cursor.execute("UPDATE stock SET left_over = left_over - 1 WHERE id = 7")
                transaction.send("orders", b"7")

Both are prepared, the decision to commit is written to the file and forced to the disk, both are
committed, the decision is forgotten. Whatever the moment of a crash, ``resolve``, which the next
start calls, commits what the file says and rolls back all else that was prepared.

Blocking, on the blocking face. Thread: any; one transaction belongs to one thread at a time.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Self

from metamorphosis.client.checked import checked
from metamorphosis.client.model import Partition, SendResult
from metamorphosis.client.transactions.database import Connection, DatabaseResource
from metamorphosis.client.transactions.decisionlog import DecisionLog
from metamorphosis.client.transactions.xa import (
    ROLLED_BACK,
    XA_HEURCOM,
    XA_HEURHAZ,
    XA_HEURRB,
    XA_RDONLY,
    XAER_NOTA,
    Xid,
)
from metamorphosis.errors import InvalidState, LocalStoreError, MixedOutcome, Unresolved, XAError

if TYPE_CHECKING:
    from metamorphosis.client.runtimes.plaintransactions import XAProducer, XAResource

FORMAT_ID: Final = 0x4D51
"""Of the branches of all coordinators."""
MESSAGES: Final = b"messages"
DATABASE: Final = b"database"
PATIENCE_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 0.1
DECIDED_ELSEWHERE: Final = {XA_HEURCOM, XA_HEURRB, XA_HEURHAZ}

_log = logging.getLogger("metamorphosis.client")


class Step(Enum):
    """What has just been done for a transaction, in this order."""

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
    What ``resolve`` came to.

    :ivar committed: transactions, branches of which it has committed.
    :ivar rolled_back: the same, rolled back.
    :ivar left: what could not be done -> why; it is tried again by the next ``resolve``.
    """

    committed: tuple[str, ...] = ()
    rolled_back: tuple[str, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)


class Coordinator:
    """
    See the module.

    :param path: of the decisions; a file of this coordinator alone, on a disk that keeps it.
    :param producer: of the blocking face; its ``unique_qualifier`` is the same in every life.
    :param connect: makes connections to the database.
    :param target: the broker of all transactions; None: see ``XAProducer.resource``.
    :param lifetime: seconds after which a broker rolls back what has not been prepared.
    :param on_step: is told of each step with the transaction's id; for tests and traces.
    :raises LocalStoreError: the file cannot be used, or another coordinator has it.
    """

    @checked()
    def __init__(
        self,
        path: str | os.PathLike[str],
        producer: XAProducer,
        connect: Callable[[], Connection[Any]],
        *,
        target: str | None = None,
        lifetime: int = 60,
        on_step: Callable[[Step, str], object] | None = None,
    ) -> None:
        self.decisions = DecisionLog(path)
        self.database = DatabaseResource(connect, FORMAT_ID)
        self.producer = producer
        self.lifetime = lifetime
        self.target = target
        self.told: Callable[[Step, str], object] = on_step or _nothing
        self._under_way: set[str] = set()  # not to be touched by ``resolve``
        self._lock = Lock()
        self._left = False

    def __enter__(self) -> Self:
        try:
            self.resolve()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and the connections to the database. What is prepared stays."""
        self.database.close()
        self.decisions.close()

    def transaction(self) -> GlobalTransaction:
        """
        Begin a transaction: a branch in the database and one at a broker. What an earlier one has
        left is resolved first, as far as that is possible.

        :raises XAError: one of them cannot begin.
        """
        if self._left:
            self.resolve()
        made = GlobalTransaction(self, f"{self.decisions.name}-{uuid.uuid4().hex}")
        with self._lock:
            self._under_way.add(made.id)
        try:
            made.begin()
        except BaseException:
            self.over(made.id)
            raise
        return made

    def resource(self) -> XAResource:
        """A new one for messages."""
        made = self.producer.resource(self.target)
        made.set_transaction_timeout(self.lifetime)
        return made

    def over(self, transaction: str, left: bool = False) -> None:
        """
        A transaction is no more under way.

        :param left: not all of its branches have its outcome.
        """
        with self._lock:
            self._under_way.discard(transaction)
        self._left = self._left or left

    # -- what is left

    def resolve(self) -> Resolution:
        """
        Commit, or roll back, what earlier lives and failed steps have left. Called at the start,
        and at any time; transactions under way are not touched.

        The database denies a branch as long as it has not noticed the end of its connection, so
        that such a branch is tried again for ``PATIENCE_SECONDS``.

        :raises LocalStoreError: the decisions cannot be read.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        outcomes: dict[str, bool] = {}
        while True:
            found = Pass(self, outcomes)
            found.run()
            if not found.denied or time.monotonic() > deadline:
                break
            time.sleep(AGAIN_SECONDS)
        self._left = bool(found.left)
        for what, reason in found.left.items():
            _log.warning("Two phases: %s is left: %s", what, reason)
        return Resolution(
            tuple(name for name, commit in outcomes.items() if commit),
            tuple(name for name, commit in outcomes.items() if not commit),
            found.left,
        )

    def is_touchable(self, transaction: str) -> bool:
        """Whether it is one of this coordinator's, and not under way."""
        own = transaction.startswith(f"{self.decisions.name}-")
        with self._lock:
            return own and transaction not in self._under_way


class Pass:
    """
    One look at everything that is prepared.

    :param outcomes: transaction -> committed or not; filled.
    :ivar left: what could not be done -> why.
    :ivar denied: a branch was listed, and then was said not to be there.
    """

    def __init__(self, coordinator: Coordinator, outcomes: dict[str, bool]) -> None:
        self.left: dict[str, str] = {}
        self.denied = False
        self._coordinator = coordinator
        self._outcomes = outcomes
        self._decisions = coordinator.decisions.committed()
        self._stuck: set[str] = set()  # transactions with a branch that is left
        self._sent: set[str] = set()  # transactions whose messages were committed just now

    def run(self) -> None:
        """Give every branch its outcome; forget the decisions that nobody needs any more."""
        for xid, resource in [*self._in_database(), *self._in_brokers()]:
            transaction = xid.gtrid.decode("ascii", "replace")
            if self._coordinator.is_touchable(transaction):
                self._finish(xid, resource, transaction)
        for transaction, broker in self._decisions.items():
            if self._coordinator.is_touchable(transaction):
                if not self._is_needed(transaction, broker):
                    self._coordinator.decisions.forget(transaction)

    def _finish(self, xid: Xid, resource: Any, transaction: str) -> None:
        commit = transaction in self._decisions
        try:
            if not _finish(resource, xid, commit):
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
        self._coordinator.told(Step.RESOLVED, transaction)

    def _is_needed(self, transaction: str, broker: str) -> bool:
        """Whether a branch may still be somewhere; a broker may have come back elsewhere."""
        away = broker in self.left and transaction not in self._sent
        return away or "database" in self.left or transaction in self._stuck

    def _in_database(self) -> list[tuple[Xid, Any]]:
        database = self._coordinator.database
        try:
            return [(xid, database) for xid in database.recover()]
        except XAError as error:
            self.left["database"] = str(error)
            return []

    def _in_brokers(self) -> list[tuple[Xid, Any]]:
        """A broker that has a decided branch is asked also when it is not registered."""
        coordinator = self._coordinator
        urls = set(self._decisions.values())
        try:
            resources = [coordinator.producer.resource(url) for url in sorted(urls)]
            resource = resources[0] if resources else coordinator.resource()
            recovered = resource.recover()
        except XAError as error:
            self.left.update({url: str(error) for url in urls or {"messages"}})
            return []
        self.left.update({url: str(error) for url, error in recovered.failed.items()})
        return [(xid, resource) for xid in recovered if xid.format_id == FORMAT_ID]


class GlobalTransaction:
    """
    One transaction of a ``Coordinator``; ``with`` commits it at its end, and rolls it back on an
    exception.

    :ivar id: names it in the decisions and in both branches.
    :ivar connection: to the database; what is done over it is part of the transaction. No
        statement may end it: no ``COMMIT``, no ``ROLLBACK``, no ``ALTER TABLE``.
    """

    connection: Connection[Any]

    def __init__(self, coordinator: Coordinator, id: str) -> None:
        self.id = id
        self._coordinator = coordinator
        self._database = coordinator.database
        self._resource = coordinator.resource()
        self._messages_xid = Xid(FORMAT_ID, id.encode(), MESSAGES)
        self._database_xid = Xid(FORMAT_ID, id.encode(), DATABASE)
        self._is_open = False

    @property
    def target(self) -> str:
        """URL of its broker."""
        return self._resource.target

    def begin(self) -> None:
        """Both branches; for the coordinator."""
        self.connection = self._database.start(self._database_xid)
        try:
            self._resource.start(self._messages_xid)
        except BaseException:
            self._undo()
            raise
        self._is_open = True
        self._did(Step.BEGUN)

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
        """See ``Transaction.send`` of the blocking face."""
        options: dict[str, Any] = {"key": key, "partition": partition, "timeout": timeout}
        return self._resource.send(topic, data, attribute, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        if not self._is_open:
            return
        if reason[0] is None:
            self.commit()
        else:
            self.rollback()

    def commit(self) -> None:
        """
        Commit both branches, or roll both back.

        :raises XAError: a branch cannot be prepared; both are rolled back.
        :raises Unresolved: decided, and not carried out everywhere (``committed`` is true), or not
            known whether it is decided (None): ``resolve``, or the next start, does the rest.
        :raises MixedOutcome: an administrator has decided otherwise for one of them.
        :raises InvalidState: it has ended already.
        """
        self._end_once()
        try:
            self._database.end(self._database_xid)
            self._resource.end(self._messages_xid)
            self._did(Step.ENDED)
            vote = self._resource.prepare(self._messages_xid)
            self._did(Step.MESSAGES_PREPARED)
            self._database.prepare(self._database_xid)
            self._did(Step.DATABASE_PREPARED)
        except BaseException:
            self._undo()
            raise
        self._decide()
        self._carry_out(with_messages=vote != XA_RDONLY)

    def rollback(self) -> None:
        """
        Undo both branches. What cannot be reached now is undone by ``resolve``.

        :raises InvalidState: it has ended already.
        """
        self._end_once()
        self._undo()

    def _end_once(self) -> None:
        if not self._is_open:
            raise InvalidState(f"transaction {self.id} has ended already")
        self._is_open = False

    def _decide(self) -> None:
        try:
            self._coordinator.decisions.commit(self.id, self.target)
        except LocalStoreError as error:
            # The file may say either after a crash. Both branches stay prepared, and the
            # transaction under way, until the next life reads it.
            raise Unresolved(
                f"transaction {self.id} is prepared, and its decision may be written or not:"
                f" {error}; the next start of the coordinator reads it and resolves it",
                None,
            ) from error
        self._did(Step.DECIDED)

    def _carry_out(self, with_messages: bool) -> None:
        left: list[Exception] = []
        if with_messages:
            self._commit_one(self._resource, self._messages_xid, Step.MESSAGES_COMMITTED, left)
        self._commit_one(self._database, self._database_xid, Step.DATABASE_COMMITTED, left)
        if not left:
            self._coordinator.decisions.forget(self.id)
            self._did(Step.FORGOTTEN)
            self._coordinator.over(self.id)
            return
        self._database.drop(self._database_xid)
        self._coordinator.over(self.id, left=True)
        for error in left:
            if isinstance(error, MixedOutcome):
                raise error
        raise Unresolved(
            f"transaction {self.id} is decided: commit; not carried out everywhere yet: {left[0]}",
            True,
        ) from left[0]

    def _commit_one(self, resource: Any, xid: Xid, step: Step, left: list[Exception]) -> None:
        try:
            _finish(resource, xid, True)
        except (XAError, MixedOutcome) as error:
            left.append(error)
        else:
            self._did(step)

    def _undo(self) -> None:
        """Roll back both; presumed abort: what fails here is rolled back by ``resolve``."""
        self._is_open = False
        left = False
        for resource, xid in (
            (self._resource, self._messages_xid),
            (self._database, self._database_xid),
        ):
            try:
                _finish(resource, xid, False)
            except (XAError, MixedOutcome) as error:
                left = True
                _log.warning("Two phases: rollback of %s is left: %s", xid, error)
        self._database.drop(self._database_xid)
        self._coordinator.over(self.id, left)

    def _did(self, step: Step) -> None:
        self._coordinator.told(step, self.id)


def _finish(resource: Any, xid: Xid, commit: bool) -> bool:
    """
    Give a branch its outcome; whether it was there to be given one.

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


def _nothing(step: Step, transaction: str) -> None:
    """Tells nobody."""
