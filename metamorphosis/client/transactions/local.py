"""
Local transactions of a producer: messages for one broker that become visible together, or never.

Nothing is sent before the first message; its partition decides the broker, unless one was named.
The transaction belongs to the connection: when it is lost the broker rolls the transaction back,
and every later call raises. One failed message, or a refused step, fails the transaction: only a
rollback is possible then, and a commit turns into one and raises.

Source: ``SimpleMessageProducer``, ``TransactionContext``.

Differs: a transaction is an object, and not the state of a thread; any number may be open.

Differs: a commit without messages sends nothing and succeeds; the original fails.

Differs: the broker is chosen once, before ``BEGIN``; in the original a failed first message leaves
it open, and a later one goes to a broker that does not know the transaction.

Differs: a commit without an answer says that the outcome is unknown, and so does code 104 of the
original broker, which it also gives when the messages have been stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from typing import TYPE_CHECKING, Final, Self

from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.flow import Event
from metamorphosis.client.producer.puts import Put
from metamorphosis.client.topics.selectors import Selector
from metamorphosis.client.transactions.enlisted import Enlisted
from metamorphosis.client.transactions.localsteps import Commit, LocalSteps, is_unknown
from metamorphosis.client.transactions.placement import Placement
from metamorphosis.client.transactions.sends import Sends
from metamorphosis.errors import (
    CommitUnknown,
    InvalidState,
    MetaQError,
    TransactionFailed,
    TransactionLost,
)
from metamorphosis.wire.transactionids import LocalTransactionId

if TYPE_CHECKING:
    from metamorphosis.client.session import Session


class TransactionState(Enum):
    """The state of a local transaction."""

    NEW = "new"  # nothing was sent
    BEGINNING = "beginning"
    OPEN = "open"
    FAILED = "failed"  # a message, or BEGIN, failed
    LOST = "lost"  # the broker has it no more
    ENDING = "ending"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    UNKNOWN = "committed or rolled back"  # a commit got no answer


_S = TransactionState
_AT_THE_BROKER: Final = (_S.BEGINNING, _S.OPEN, _S.FAILED, _S.ENDING)
_ENDED: Final = (_S.ENDING, _S.COMMITTED, _S.ROLLED_BACK, _S.UNKNOWN)


class LocalTransactions:
    """The local transactions of one producer. Thread: the loop's."""

    def __init__(
        self, session: Session, selector: Selector, in_order: bool, timeout: float
    ) -> None:
        """:param timeout: for the answer to a message, unless its sender gives another."""
        self.session = session
        self.selector = selector
        self.in_order = in_order
        self.send_timeout = timeout
        self.session_id = session.next_session_id().replace(":", "-")
        self._number = 0
        self._open: set[Transaction] = set()

    def new(self, lifetime: int | None, target: str | None, timeout: float) -> Transaction:
        """See ``Producer.transaction``."""
        self._number += 1
        made = Transaction(self, self._number, lifetime or 0, target, timeout)
        self._open.add(made)
        return made

    def ended(self, transaction: Transaction) -> None:
        """The transaction has ended: release its connection."""
        self._open.discard(transaction)

    async def close(self) -> None:
        """Roll back open transactions, and wait for those that are being ended."""
        for each in list(self._open):
            await each.close()


class Transaction(Sends):
    """
    A local transaction; ``Producer.transaction`` makes it. Thread: the loop's.

    ``async with`` commits at the end, and rolls back when the block ends with an exception, a
    cancellation included.

    One long class, because each of its methods moves the one ``state``, also when the connection
    breaks in between; the requests themselves are in ``LocalSteps``.

    :ivar id: its key on the wire.
    :ivar state: see ``TransactionState``.
    """

    def __init__(
        self,
        home: LocalTransactions,
        number: int,
        lifetime: int,
        target: str | None,
        timeout: float,
    ) -> None:
        session = home.session
        super().__init__(session, home.send_timeout)
        self.id = LocalTransactionId(home.session_id, number)
        self.state = _S.NEW
        self._home = home
        self._log = session.log
        self._connections = session.connections
        self._steps = LocalSteps(self.id, home.session_id, lifetime, timeout)
        self._began = Event(self._runtime)
        self._done = Event(self._runtime)
        self._error: Exception | None = None  # of the end
        self._beginning: Awaitable[None] | None = None
        self._lost_by = ""
        self._messages = Enlisted(self._runtime, self.id, home.in_order, self._failed)
        broker = None if target is None else self._connections.acquire(target, self)
        self._placement = Placement(session.directory, home.selector, broker)

    @property
    def target(self) -> str | None:
        """URL of its broker; None before the first message, unless it was named."""
        broker = self._placement.broker
        return None if broker is None else broker.url

    @property
    def is_ended(self) -> bool:
        """Whether ``commit`` or ``rollback`` was called."""
        return self.state in _ENDED or self._done.is_set

    # -- messages

    def _enlisted(self) -> Enlisted:
        return self._messages

    def _enlist(self, put: Put) -> None:
        self._check_usable()
        put.partition, broker = self._placement.place(put.message, put.partition)
        if self.state is _S.NEW:
            self._begin_at(broker)
        self._messages.add(put)

    def _refused(self, error: Exception) -> None:
        if self.state not in _ENDED:
            self._fail(error)

    def _begin_at(self, broker: BrokerConnection) -> None:
        self.state = _S.BEGINNING
        if self._placement.broker is None:
            self._placement.broker = self._connections.acquire(broker.url, self)
        self._beginning = self._runtime.start(self._begin(broker))

    async def _begin(self, broker: BrokerConnection) -> None:
        try:
            await self._steps.connected(broker)
            broker.changes.watch(self, self._connection_changed)
            await self._steps.begin(broker)
        except Exception as error:
            self._fail(error)
        else:
            if self.state is _S.BEGINNING:
                self.state = _S.OPEN
            self._messages.begin(broker)
        self._began.set()

    def _check_usable(self) -> None:
        """:raises ClientError: no further message can be taken."""
        if self.state is _S.LOST:
            raise self._loss()
        if self.state is _S.FAILED:
            raise TransactionFailed(
                f"{self._what()} has failed and has to be rolled back: {self._messages.failure}"
            )
        if self.state in _ENDED:
            raise self._over()

    def _over(self) -> InvalidState:
        return InvalidState(f"{self._what()}: it is {self.state.value} already")

    # -- faults

    def _fail(self, error: Exception) -> None:
        if self.state in (_S.NEW, _S.BEGINNING, _S.OPEN):
            self.state = _S.FAILED
        self._messages.fail(error)

    def _failed(self, error: Exception) -> Exception:
        """The error of a message, for its sender."""
        if is_unknown(error):
            self._lose(f"the broker has it no more, its lifetime is over ({error})")
        if self.state is _S.LOST:
            return self._loss()
        if self.state in (_S.BEGINNING, _S.OPEN):
            self.state = _S.FAILED
        return error

    def _connection_changed(self) -> None:
        broker = self._placement.broker
        assert broker is not None
        if not broker.is_connected:
            reason = "" if broker.fault is None else f" ({broker.fault.reason})"
            self._lose(f"its connection was lost{reason}, and the broker has rolled it back")

    def _lose(self, reason: str) -> None:
        if self.state in _AT_THE_BROKER:
            self.state = _S.LOST
            self._lost_by = reason
            self._messages.fail(self._loss())

    def _loss(self) -> TransactionLost:
        return TransactionLost(f"{self._what()} is gone: {self._lost_by}")

    def _what(self) -> str:
        broker = self._placement.broker
        return f"transaction {self.id}" + ("" if broker is None else f" at {broker.url}")

    # -- the end

    def commit(self) -> Awaitable[None]:
        """
        Make the messages visible, all of them, when those under way were answered. Cancelling a
        future of it does not stop the commit. Costs one request; none without messages.

        :raises CommitUnknown: no answer came; ``outcome_known`` is false.
        :raises TransactionFailed: a message failed, or the broker refused; it was rolled back.
        :raises TransactionLost: it was gone before.
        :raises InvalidState: it has ended already.
        """
        return self._end_by(self._commit)

    def rollback(self) -> Awaitable[None]:
        """
        Forget the messages. Cancelling a future of it does not stop it. Costs one request; none
        without messages.

        :raises TransactionLost: it was gone before; none of its messages becomes visible.
        :raises RequestTimeout: no answer; none of its messages becomes visible.
        :raises InvalidState: it has ended already.
        """
        return self._end_by(self._roll_back)

    def close(self) -> Awaitable[None]:
        """Roll back, unless it has ended; raises nothing. Costs one request at most."""
        return self._runtime.start(self._close())

    async def _close(self) -> None:
        if not self.is_ended:
            self._begin_end(self._roll_back)
        await self._done.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *reason: object) -> None:
        if self.is_ended:
            return
        if kind is None:
            await self.commit()
            return
        ended = self.rollback()
        if kind is not GeneratorExit:  # a coroutine that is closed may not wait
            try:
                await ended
            except MetaQError as error:
                self._log.debug("{error}", error=error)

    def _end_by(self, perform: Callable[[], Coroutine[object, object, None]]) -> Awaitable[None]:
        if self.state in _ENDED:
            return self._runtime.start(self._refuse())
        if self._done.is_set:  # it was lost, and its user was told
            return self._runtime.start(self._outcome())
        self._begin_end(perform)
        return self._runtime.start(self._outcome())

    def _begin_end(self, perform: Callable[[], Coroutine[object, object, None]]) -> None:
        if self.state is not _S.LOST:
            self.state = _S.ENDING
        self._runtime.start(self._carry_out(perform))

    async def _refuse(self) -> None:
        raise self._over()

    async def _carry_out(self, perform: Callable[[], Coroutine[object, object, None]]) -> None:
        """A task of its own, because a caller may be cancelled."""
        try:
            await perform()
        except Exception as error:
            self._error = error
        broker = self._placement.broker
        if broker is not None:
            broker.changes.unwatch(self)
            self._connections.release(broker.url, self)
        self._home.ended(self)
        self._done.set()

    async def _outcome(self) -> None:
        await self._done.wait()
        if self._error is not None:
            raise self._error

    async def _commit(self) -> None:
        await self._settled()
        if self.state is _S.LOST:
            raise self._loss()
        if self._messages.failure is not None:
            await self._abandon()
            raise TransactionFailed(
                f"{self._what()} is rolled back, not committed: {self._messages.failure}"
            ) from self._messages.failure
        broker = self._placement.broker
        if broker is None or not self._messages.stored_count:
            self.state = _S.COMMITTED
            return
        outcome, error = await self._steps.commit(broker)
        if outcome is Commit.DONE:
            self.state = _S.COMMITTED
        elif outcome is Commit.UNKNOWN:
            self.state = _S.UNKNOWN
            raise CommitUnknown(
                f"{error}; {self._what()} is committed or rolled back as a whole, which of them is"
                " not known"
            )
        elif outcome is Commit.GONE:
            self._lose(f"the broker has it no more, its lifetime or its connection ended ({error})")
            raise self._loss()
        else:
            await self._abandon()
            raise TransactionFailed(
                f"{self._what()} is rolled back, not committed: {error}"
            ) from error

    async def _roll_back(self) -> None:
        self._messages.fail(TransactionFailed(f"{self._what()} is being rolled back"))
        await self._settled()
        if self.state is _S.LOST:
            raise self._loss()
        error = await self._abandon()
        if error is not None:
            raise error

    async def _settled(self) -> None:
        """Wait until the messages and BEGIN have been answered."""
        await self._messages.settled()
        if self._beginning is not None:
            await self._began.wait()

    async def _abandon(self) -> Exception | None:
        """Roll back, if the broker may know the transaction; the error of the rollback."""
        broker = self._placement.broker
        error = None
        if broker is not None and self._began.is_set:
            error = await self._steps.roll_back(broker)
        self.state = _S.ROLLED_BACK
        return error
