"""
Lets a consumer join and leave its group: chooses the assignment of partitions, with ZooKeeper or at
a single broker, and the store of its positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from metamorphosis.client.consumer.direct import DirectAssignment
from metamorphosis.client.delivery.subscription import Subscription
from metamorphosis.client.fetch.fetching import Fetching
from metamorphosis.client.group.rebalance import Rebalance
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.client.offsets.zookeeper import ZooKeeperOffsetStore
from metamorphosis.client.settings import ConsumerConfig
from metamorphosis.errors import ClientClosed, InvalidState, NotConnected
from metamorphosis.interfaces import OffsetStore

if TYPE_CHECKING:
    from metamorphosis.client.session import Session

Assignment = Rebalance | DirectAssignment


class Joining:
    """
    The membership of one consumer. Thread: the loop's.

    :param store: None: ZooKeeper, or memory in direct mode.
    :param check_open: raises ``ClientClosed`` when the consumer is closing.
    :ivar assignment: None before ``join``.
    :ivar owns_store: close the store with the consumer.
    """

    def __init__(
        self,
        session: Session,
        config: ConsumerConfig,
        store: OffsetStore | None,
        subscriptions: Mapping[str, Subscription],
        fetching: Fetching,
        check_open: Callable[[], None],
    ) -> None:
        self.assignment: Assignment | None = None
        self.owns_store = store is None
        self._session = session
        self._config = config
        self._store = store
        self._subscriptions = subscriptions
        self._fetching = fetching
        self._check_open = check_open

    def store(self) -> OffsetStore:
        """The store of the group's positions; made here unless the user has given one."""
        session = self._session
        if self._store is None:
            if session.registry is None:
                self._store = MemoryOffsetStore()
            else:
                self._store = ZooKeeperOffsetStore(session.registry, session.paths)
        return self._store

    async def join(self, joined: Callable[[], None]) -> None:
        """
        Join the group.

        :param joined: called when there is an assignment, before it has partitions.
        :raises InvalidState: a second time.
        :raises MetaQError: the reason why the group is not joined yet; further attempts follow.
        """
        self._check_first()
        session = self._session
        unreached: NotConnected | None = None
        try:
            await session.started()
        except NotConnected as error:
            unreached = error
        self._check_first()
        assignment = self._direct() if session.config.direct else self._balanced()
        self.assignment = assignment
        joined()
        if unreached is not None:
            session.runtime.start(self._register_later(assignment))
            raise unreached
        await assignment.register()

    async def leave(self) -> None:
        """Leave the group, and close the store if it is the consumer's own."""
        if self.assignment is not None:
            await self.assignment.unregister()
        if self.owns_store and self._store is not None:
            closing = self._store.close()
            if closing is not None:
                await closing

    def release(self) -> None:
        """Release the connection of direct mode."""
        if self._session.config.broker is not None:
            self._session.connections.release(self._session.config.broker, self)

    def _check_first(self) -> None:
        self._check_open()
        if self.assignment is not None:
            raise InvalidState(f"group {self._config.group}: complete_subscribe was called before")

    async def _register_later(self, assignment: Assignment) -> None:
        """Continue after the error that ``join`` has raised."""
        try:
            await assignment.register()
        except Exception as error:
            try:
                self._check_open()
            except ClientClosed:
                return
            self._session.log.warn(
                "Group {group} is not joined yet ({error}); still trying",
                group=self._config.group,
                error=error,
            )

    def _direct(self) -> DirectAssignment:
        session = self._session
        assert session.config.broker is not None
        return DirectAssignment(
            session.runtime,
            session.connections.acquire(session.config.broker, self),
            self._config,
            self._subscriptions,
            self.store(),
            self._fetching,
            session.log,
        )

    def _balanced(self) -> Rebalance:
        session = self._session
        assert session.registry is not None  # this is not direct mode
        return Rebalance(
            session.runtime,
            session.registry,
            session.paths,
            self._config,
            self._subscriptions,
            self.store(),
            self._fetching,
            session.log,
            session.config.zookeeper_sync_time_ms / 1000,
            session.config.zookeeper_session_timeout_ms / 1000,
        )
