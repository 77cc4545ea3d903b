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
start calls, commits what the file says and rolls back every other prepared branch.

Blocking, on the blocking face. Thread: any; one transaction belongs to one thread at a time.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Self

from metamorphosis.client.checked import checked
from metamorphosis.client.model import Partition, SendResult
from metamorphosis.client.transactions.database import DatabaseResource
from metamorphosis.client.transactions.decisionlog import DecisionLog
from metamorphosis.client.transactions.resolving import (
    DATABASE,
    FORMAT_ID,
    MESSAGES,
    Pass,
    Resolution,
    Step,
    finish,
)
from metamorphosis.client.transactions.xa import (
    XA_RDONLY,
    Xid,
)
from metamorphosis.errors import InvalidState, LocalStoreError, MixedOutcome, Unresolved, XAError

if TYPE_CHECKING:
    from metamorphosis.client.runtimes.plaintransactions import XAProducer, XAResource
    from metamorphosis.client.transactions.database import Database

PATIENCE_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 0.1

_log = logging.getLogger("metamorphosis.client")


class Coordinator:
    """
    See the module.

    :param path: of the decisions; a file of this coordinator alone, on a disk that is not lost with
        the machine.
    :param producer: of the blocking face; its ``unique_qualifier`` is the same after each restart.
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
        connect: Callable[[], Database],
        *,
        target: str | None = None,
        lifetime: int = 60,
        on_step: Callable[[Step, str], object] | None = None,
    ) -> None:
        self.decisions = DecisionLog(path, producer.unique_qualifier)
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
        """Close the file and the connections to the database. Prepared branches stay."""
        self.database.close()
        self.decisions.close()

    def transaction(self) -> GlobalTransaction:
        """
        Begin a transaction: a branch in the database and one at a broker. Branches left by an
        earlier transaction are resolved first, as far as possible.

        :raises XAError: one of the branches cannot begin.
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

    def resource(self, target: str | None = None) -> XAResource:
        """A new resource for messages, at this broker or at the usual one."""
        made = self.producer.resource(target or self.target)
        made.set_transaction_timeout(self.lifetime)
        return made

    def over(self, transaction: str, left: bool = False) -> None:
        """
        A transaction has ended.

        :param left: not all of its branches have its outcome.
        """
        with self._lock:
            self._under_way.discard(transaction)
        self._left = self._left or left

    # -- what is left

    def resolve(self) -> Resolution:
        """
        Commit, or roll back, the branches that earlier processes and failed steps have left. Call
        it at the start, or at any time; transactions under way are not touched.

        The database says that a branch does not exist until it notices the end of the branch's
        connection; such a branch is tried again for ``PATIENCE_SECONDS``.

        :raises LocalStoreError: the decisions cannot be read.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        outcomes: dict[str, bool] = {}
        while True:
            found = Pass(
                self.decisions,
                self.database,
                self.resource,
                self.is_touchable,
                self.told,
                outcomes,
            )
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
        """Whether a branch belongs to this coordinator, and its transaction is not under way."""
        own = transaction.startswith(f"{self.decisions.name}-")
        with self._lock:
            return own and transaction not in self._under_way


class GlobalTransaction:
    """
    One transaction of a ``Coordinator``; ``with`` commits it at its end, and rolls it back on an
    exception.

    :ivar id: names it in the decisions and in both branches.
    :ivar connection: to the database; its statements are part of the transaction. No statement may
        end it: no ``COMMIT``, no ``ROLLBACK``, no ``ALTER TABLE``.
    """

    connection: Database

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
        Roll back both branches. ``resolve`` rolls back one that cannot be reached now.

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
            # transaction under way, until the next start reads it.
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
            finish(resource, xid, True)
        except (XAError, MixedOutcome) as error:
            left.append(error)
        else:
            self._did(step)

    def _undo(self) -> None:
        """Roll back both. Presumed abort: ``resolve`` rolls back a branch where this fails."""
        left = False
        for resource, xid in (
            (self._resource, self._messages_xid),
            (self._database, self._database_xid),
        ):
            try:
                finish(resource, xid, False)
            except (XAError, MixedOutcome) as error:
                left = True
                _log.warning("Two phases: rollback of %s is left: %s", xid, error)
        self._coordinator.over(self.id, left)

    def _did(self, step: Step) -> None:
        self._coordinator.told(step, self.id)


def _nothing(step: Step, transaction: str) -> None:
    """Tells nobody."""
