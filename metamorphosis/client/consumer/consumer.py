"""
The consumer: what users subscribe with, and how its parts belong together.

Source: ``SimpleMessageConsumer``.

Differs: ``complete_subscribe`` says what went wrong with the registration, and goes on trying; the
original returns as if nothing had happened, and may stay idle for ever.

Differs: topics can be subscribed later, too; the original never reads them.

Differs: closing forgets the consumer's own subscriptions, not all of its group in the factory, and
leaves a store alone that was given to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from metamorphosis.client.checked import checked
from metamorphosis.client.consumer.direct import DirectAssignment
from metamorphosis.client.consumer.lookups import Lookups
from metamorphosis.client.delivery.delivery import PartitionDelivery
from metamorphosis.client.delivery.duplicates import DuplicateCache
from metamorphosis.client.delivery.iteration import Iteration
from metamorphosis.client.delivery.recovery import RecoveredMessage, deliver_recovered
from metamorphosis.client.delivery.subscription import (
    DeliveryRules,
    Filter,
    Listener,
    Reject,
    Subscription,
)
from metamorphosis.client.fetch.fetching import Fetching
from metamorphosis.client.fetch.passing import PassesOver
from metamorphosis.client.group.rebalance import Rebalance
from metamorphosis.client.model import Partition, Position, ReceivedMessage
from metamorphosis.client.network.flow import Event, Slots, settle
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.client.offsets.zookeeper import ZooKeeperOffsetStore
from metamorphosis.client.settings import ConsumerConfig
from metamorphosis.errors import ClientClosed, InvalidArgument, InvalidState, NotConnected

if TYPE_CHECKING:
    from metamorphosis.client.session import SessionFactory


class Consumer(Lookups, PassesOver):
    """
    One member of a group. Thread: the loop's.

    Methods that take time give futures of the runtime.

    :param store: an ``IOffsetStore``, which is not closed with the consumer; None: ZooKeeper, or
        memory in direct mode.
    """

    def __init__(self, session: SessionFactory, config: ConsumerConfig, store: Any = None) -> None:
        Lookups.__init__(self, session, config.group)
        PassesOver.__init__(self, session.log)
        self.config = config
        self._log = session.log
        self._own_store = store is None
        self._store = store
        self._subscriptions: dict[str, Subscription] = {}
        self._assignment: Rebalance | DirectAssignment | None = None
        self._reject: Reject | None = None
        self._closing: Event | None = None
        self._iteration = Iteration(session.runtime, self._delivery_of)
        most = config.max_deliveries
        self._rules = DeliveryRules(
            session.runtime,
            config.group,
            session.log,
            config.max_fetch_retries,
            DuplicateCache(session.config.duplicate_cache_size),
            self._rejected,
            Slots(session.runtime, most) if most else None,
            self._iteration,
        )
        self._fetching = Fetching(
            session.runtime,
            session.connections,
            config,
            session.config.max_body_bytes,
            self._make_delivery,
            session.log,
            self.passed_over,
        )
        session.add_child(self)

    @property
    def assignment(self) -> Mapping[tuple[str, Partition], Position]:
        """The partitions that are this consumer's at present, and how far it is in each."""
        return {} if self._assignment is None else self._assignment.assignment

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self.close()

    # -- subscribing

    @checked()
    def subscribe(
        self,
        topic: str,
        max_size: int = 1 << 20,
        listener: Listener | None = None,
        filter: Filter | None = None,
        *,
        batch: bool = False,
        auto_ack: bool = True,
    ) -> Self:
        """
        Want the messages of a topic, from ``complete_subscribe`` on.

        :param max_size: bytes of one fetch, and of the longest message if that is more than
            ``max_body_bytes``.
        :param listener: called with each message, in the order of its partition; what it returns,
            if it can be waited for, is waited for. None: the messages are for ``async for``.
        :param filter: called with group and message; what it refuses counts as processed.
        :param batch: the listener takes lists of messages. When it fails without saying where, see
            ``Rollback``, each of them comes again by itself.
        :param auto_ack: False: only ``ack`` moves the position.
        :raises InvalidArgument: no name of a topic, no size, no callable.
        :raises InvalidState: this factory has a consumer of this group and topic already.
        :raises ClientClosed: after ``close``.
        """
        self._check_open()
        if "," in topic:  # the group would read it as several topics, and balance for ever
            raise InvalidArgument(f"topic {topic!r}: a comma parts the topics of a member")
        taken = self._session.subscriptions
        if (self.group, topic) in taken:
            raise InvalidState(
                f"topic {topic} is subscribed by group {self.group} in this session factory already"
            )
        taken[self.group, topic] = self
        subscription = Subscription(topic, max_size, listener, filter, batch, auto_ack)
        self._subscriptions[topic] = subscription
        if self._assignment is not None:
            self._begin_recovery(subscription)
            self._assignment.refresh()
        return self

    @checked()
    def on_rejection(self, strategy: Reject) -> Self:
        """
        What becomes of a message that failed more than ``max_fetch_retries`` times: ``strategy`` is
        called with it, and what it returns, if it can be waited for, is waited for. By default it
        is kept on disk and delivered again later; ``recovery.drop`` forgets it.

        :raises InvalidArgument: that cannot be called.
        """
        self._reject = strategy
        return self

    def own_store(self) -> None:
        """Close the store with the consumer, though it was given to it."""
        self._own_store = True

    def complete_subscribe(self) -> Any:
        """
        Join the group and begin to read: a future that fires after the first balance.

        :raises InvalidState: a second time.
        :raises MetaQError: what kept it from that; it goes on trying all the same, until ``close``.
        """
        return self._runtime.start(self._complete_subscribe())

    async def _complete_subscribe(self) -> None:
        self._check_open()
        if self._assignment is not None:
            raise InvalidState(f"group {self.group}: complete_subscribe was called before")
        session = self._session
        unreached: NotConnected | None = None
        try:
            await session.started()
        except NotConnected as error:
            unreached = error
        self._check_open()
        if self._assignment is not None:
            raise InvalidState(f"group {self.group}: complete_subscribe was called before")
        self._assignment = self._direct() if session.config.direct else self._balanced()
        for subscription in self._subscriptions.values():
            self._begin_recovery(subscription)
        if unreached is not None:
            self._runtime.start(self._register_later(self._assignment))
            raise unreached
        await self._assignment.register()

    async def _register_later(self, assignment: Rebalance | DirectAssignment) -> None:
        """Go on trying, with nobody who waits for it."""
        try:
            await assignment.register()
        except Exception as error:
            if self._closing is None:
                self._log.warn(
                    "Group {group} is not joined yet ({error}); trying on",
                    group=self.group,
                    error=error,
                )

    def _direct(self) -> DirectAssignment:
        session = self._session
        assert session.config.broker is not None
        if self._store is None:
            self._store = MemoryOffsetStore()
        return DirectAssignment(
            session.runtime,
            session.connections.acquire(session.config.broker, self),
            self.config,
            self._subscriptions,
            self._store,
            self._fetching,
            session.log,
        )

    def _balanced(self) -> Rebalance:
        session = self._session
        if self._store is None:
            self._store = ZooKeeperOffsetStore(session.registry, session.paths)
        return Rebalance(
            session.runtime,
            session.registry,
            session.paths,
            self.config,
            self._subscriptions,
            self._store,
            self._fetching,
            session.log,
            session.config.zookeeper_sync_time_ms / 1000,
            session.config.zookeeper_session_timeout_ms / 1000,
        )

    # -- messages

    def __aiter__(self) -> Iteration:
        """
        The messages of topics without a listener. Each is acknowledged when the next is asked for;
        before leaving the loop for good, ``ack`` the last one.

        :raises InvalidState: there is no such topic, or ``complete_subscribe`` was not called.
        """
        if all(each.listener is not None for each in self._subscriptions.values()):
            raise InvalidState("every subscribed topic has a listener; nothing is left to iterate")
        if self._assignment is None:
            raise InvalidState("call complete_subscribe first")
        return self._iteration

    @checked()
    def ack(self, message: ReceivedMessage) -> None:
        """
        The message has been processed: with ``auto_ack=False`` this message and all before it in
        its partition, in an iteration with ``auto_ack`` the one that was taken last.

        :raises InvalidState: it is not waiting for that: acknowledged, rolled back, or the
            partition belongs to somebody else by now.
        """
        if isinstance(message, RecoveredMessage):
            if self._iteration.holds(message):
                self._iteration.ack(message)
        elif self._iterates(message):
            self._iteration.ack(message)
        else:
            self._claimed(message).ack(message)

    @checked()
    def rollback(self, message: ReceivedMessage) -> None:
        """
        Deliver again: with ``auto_ack=False`` everything behind the last ``ack`` in the partition
        of this message, in an iteration with ``auto_ack`` the message that was taken last. Both
        count as a failure of this message. Listeners raise ``Rollback`` for the latter.

        :raises InvalidState: see ``ack``.
        """
        if isinstance(message, RecoveredMessage):
            message.rolled_back = True
        elif self._iterates(message):
            self._iteration.rollback(message)
        else:
            self._claimed(message).rollback(message)

    @checked()
    def seek(self, topic: str, partition: Partition, offset: int) -> None:
        """
        Go on at another place of a partition that is this consumer's: at a message's offset, at 0
        for the beginning, at ``MAX_OFFSET`` for the end. What the listener is busy with is not
        acknowledged; messages that were processed before are delivered again.

        :raises InvalidArgument: a negative offset.
        :raises InvalidState: the partition is not in ``assignment``.
        """
        delivery = self._delivery_of(topic, partition)
        if delivery is None:
            raise InvalidState(f"{topic} {partition} is not this consumer's at present")
        delivery.seek(offset)

    def commit(self) -> Any:
        """A future of whether every position is stored now; otherwise it is tried again later."""
        return self._runtime.start(self._commit())

    async def _commit(self) -> bool:
        return self._assignment is None or await self._assignment.committing.commit()

    def _iterates(self, message: ReceivedMessage) -> bool:
        subscription = self._subscriptions.get(message.topic)
        return subscription is not None and subscription.listener is None and subscription.auto_ack

    def _claimed(self, message: ReceivedMessage) -> PartitionDelivery:
        delivery = self._delivery_of(message.topic, message.partition)
        if delivery is None:
            raise InvalidState(
                f"{message.topic} {message.partition} is not this consumer's any more; offset"
                f" {message.offset} is delivered to whoever has it now"
            )
        return delivery

    # -- the end

    def close(self) -> Any:
        """
        A future: listeners have finished, positions are stored, the group has been left. It never
        fails, and may be asked for again.
        """
        return self._runtime.start(self._close())

    async def _close(self) -> None:
        if self._closing is not None:
            await self._closing.wait()
            return
        self._closing = Event(self._runtime)
        forgetting = self._forget_kept()  # or what the iteration gives back comes to it once more
        self._iteration.close()
        try:
            await settle(forgetting)
            await self._end()
        except Exception:
            self._log.failure("Closing the consumer of group {group} failed", group=self.group)
        if self._rules.slots is not None:
            self._rules.slots.close()
        for topic in self._subscriptions:
            self._session.subscriptions.pop((self.group, topic), None)
        self._session.remove_child(self)
        self._closing.set()

    def _forget_kept(self) -> list[Any]:
        """No more kept messages; futures that fire when the listeners are not busy with one."""
        if self._assignment is None:
            return []
        limit = self.config.stop_timeout_ms / 1000 or None
        forget = self._session.recovery.forget
        return [
            self._runtime.start(forget(topic, self.group, limit)) for topic in self._subscriptions
        ]

    async def _end(self) -> None:
        try:
            if self._assignment is not None:
                await self._assignment.unregister()
            if self._own_store and self._store is not None:
                await self._store.close()
        finally:
            self._fetching.close()
            self._close_readers()
            if self._session.config.broker is not None:
                self._session.connections.release(self._session.config.broker, self)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise ClientClosed("Consumer has been shutdown")

    # -- parts

    def _delivery_of(self, topic: str, partition: Partition) -> PartitionDelivery | None:
        return self._fetching.delivery_of(topic, partition)

    def _make_delivery(self, position: Position) -> PartitionDelivery:
        return PartitionDelivery(self._rules, self._subscriptions[position.topic], position)

    def _rejected(self, message: ReceivedMessage) -> object:
        if self._reject is not None:
            return self._reject(message)
        return self._session.recovery.keep(message, self.group)

    def _begin_recovery(self, subscription: Subscription) -> None:
        """What was kept of the topic for this group, before this process too, comes here."""

        async def take(message: ReceivedMessage) -> None:
            await deliver_recovered(self._rules, subscription, message)

        self._session.recovery.listen(subscription.topic, self.group, take)
