"""
The consumer: its public methods, and the order in which its parts begin and end.

Source: ``SimpleMessageConsumer``.

Differs: ``complete_subscribe`` raises the error of the registration, and keeps trying; the
original returns without an error, and may stay idle.

Differs: topics can be subscribed later, too; the original never reads them.

Differs: ``close`` forgets the consumer's own subscriptions, not all of its group in the factory,
and does not close a store that the user made.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Self

from metamorphosis.client.checked import as_future, checked
from metamorphosis.client.consumer.acknowledging import Acknowledging
from metamorphosis.client.consumer.assigned import Assigned
from metamorphosis.client.consumer.joining import Joining
from metamorphosis.client.consumer.lags import Lags
from metamorphosis.client.consumer.lookups import Lookups
from metamorphosis.client.consumer.taking import Taking
from metamorphosis.client.delivery.assigning import AssignmentNews
from metamorphosis.client.delivery.delivery import PartitionDelivery
from metamorphosis.client.delivery.duplicates import DuplicateCache
from metamorphosis.client.delivery.iteration import Iteration
from metamorphosis.client.delivery.recovery import Recovery, deliver_recovered
from metamorphosis.client.delivery.subscription import (
    INSIDE,
    DeliveryRules,
    Filter,
    Listener,
    Reject,
    Subscription,
)
from metamorphosis.client.fetch.fetching import Fetching
from metamorphosis.client.fetch.passing import PassesOver
from metamorphosis.client.model import ConsumerCounts, Partition, Position, ReceivedMessage
from metamorphosis.client.network.flow import Event, Slots, detached, settle
from metamorphosis.client.settings import ConsumerConfig
from metamorphosis.errors import ClientClosed, InvalidArgument, InvalidState
from metamorphosis.interfaces import OffsetStore

if TYPE_CHECKING:
    from metamorphosis.client.session import Session


class Consumer(Taking, Acknowledging, Assigned, Lookups, Lags, PassesOver):
    """
    One member of a group. Thread: the loop's.

    Methods that take time return futures of the runtime. ``__init__`` is long, because it connects
    the independent parts of a consumer.

    :param recovery: keeps messages for which a listener failed too often.
    :param store: not closed with the consumer; None: ZooKeeper, or memory in direct mode.
    :ivar calls: those of its listeners.
    """

    def __init__(
        self,
        session: Session,
        config: ConsumerConfig,
        recovery: Recovery,
        store: OffsetStore | None = None,
    ) -> None:
        self._subscriptions: dict[str, Subscription] = {}
        self._iteration = Iteration(session.runtime, self._delivery_of)
        Acknowledging.__init__(self, self._subscriptions, self._iteration)
        Lookups.__init__(self, session, config.group)
        PassesOver.__init__(self, session.runtime, session.log)
        self.config = config
        self._log = session.log
        self._recovery = recovery
        self._reject: Reject | None = None
        self._closing: Event | None = None  # set when ``close`` has ended
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
        self.calls = self._rules.calls
        news = AssignmentNews(session.runtime, session.log, config, self.calls)
        self._fetching = Fetching(
            session.runtime,
            session.connections,
            config,
            session.config.max_body_bytes,
            self._make_delivery,
            session.log,
            self.passed_over,
            news,
        )
        self._joining = Joining(
            session, config, store, self._subscriptions, self._fetching, self._check_open
        )
        Taking.__init__(self, session.runtime, self._subscriptions, self._iteration, self._joining)
        Assigned.__init__(self, self._fetching, news, self._joining)
        Lags.__init__(self, session, config.group, self._joining.store)
        session.add_child(self)

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
        Read a topic, from ``complete_subscribe`` on; later topics at once.

        Costs nothing before; then ``max_buffered_bytes`` of memory at most, for all topics.

        :param max_size: bytes of one fetch, and of the longest message if that is more than
            ``max_body_bytes``.
        :param listener: called with each message, in the order of its partition; its result, if it
            can be awaited, is awaited. None: the messages are for a loop or ``poll``.
        :param filter: called with group and message; messages that it refuses count as processed.
        :param batch: the listener takes lists of messages. After a failure that names no message
            (by ``Rollback(message)``) each message of the list comes again alone.
        :param auto_ack: False: only ``ack`` moves the position.
        :returns: this consumer.
        :raises InvalidArgument: no name of a topic, no size, no callable.
        :raises InvalidState: this factory has a consumer of this group and topic already.
        :raises ClientClosed: after ``close``.
        """
        self._check_open()
        self._take_topic(topic)
        subscription = Subscription(topic, max_size, listener, filter, batch, auto_ack)
        self._subscriptions[topic] = subscription
        assignment = self._joining.assignment
        if assignment is not None:
            self._begin_recovery(subscription)
            assignment.refresh()
        return self

    def _take_topic(self, topic: str) -> None:
        if "," in topic:  # the group would read it as several topics, and never finish balancing
            raise InvalidArgument(f"topic {topic!r}: a comma parts the topics of a member")
        taken = self._session.subscriptions
        if (self.group, topic) in taken:
            raise InvalidState(
                f"topic {topic} is subscribed by group {self.group} in this session factory already"
            )
        taken[self.group, topic] = self

    @checked()
    def on_rejection(self, strategy: Reject) -> Self:
        """
        ``strategy`` is called with each message that failed more than ``max_fetch_retries`` times;
        its result, if it can be awaited, is awaited. By default the message is kept on disk and
        delivered again later; ``client.delivery.recovery.drop`` forgets it.

        Costs nothing.

        :returns: this consumer.
        :raises InvalidArgument: ``strategy`` cannot be called.
        """
        self._reject = strategy
        return self

    def own_store(self) -> None:
        """Close the store with the consumer."""
        self._joining.owns_store = True

    @property
    def counts(self) -> ConsumerCounts:
        """What it has done since it was made: a snapshot, for metrics. Counting costs nothing to
        speak of: once for each piece of the log."""
        done, passed = self._rules.counts, self.passed_over
        assignment = self._joining.assignment
        stored = (0, 0)
        if assignment is not None:
            stored = assignment.committing.commits, assignment.committing.failed_commits
        return ConsumerCounts(
            done.delivered,
            done.bytes,
            done.failed,
            done.rejected,
            done.repeated,
            passed.damaged,
            passed.too_long,
            *stored,
        )

    def complete_subscribe(self) -> Awaitable[None]:
        """
        Join the group and begin to read; returns after the first balance. Cancelling the future
        does not cancel that.

        Costs some reads and writes of ZooKeeper, a read of the offset store for each partition, and
        the connections of the brokers.

        :raises InvalidState: a second time.
        :raises MetaQError: the reason why the group is not joined yet; further attempts follow,
            until ``close``.
        :raises ClientClosed: after ``close``.
        """
        return detached(self._runtime, self._joining.join(self._begin_recoveries))

    # -- positions

    def commit(self) -> Awaitable[bool]:
        """
        Store the positions now; it is done every ``commit_offset_period_ms``, and before partitions
        are given away, without that. Cancelling the future does not cancel the commit.

        Costs one write of the offset store for each partition that moved.

        :returns: whether every position is stored; otherwise a later commit stores it.
            Raises nothing.
        """
        return detached(self._runtime, self._commit())

    async def _commit(self) -> bool:
        assignment = self._joining.assignment
        return assignment is None or await assignment.committing.commit()

    # -- the end

    def close(self) -> Awaitable[None]:
        """
        Leave the group, when listeners have finished and positions are stored. Further calls give
        the same outcome; cancelling a future of it does not cancel the close.

        Costs the time of listener calls under way, ``stop_timeout_ms`` at most, a commit, and a few
        requests to ZooKeeper.

        :raises InvalidState: one of its listeners calls it, which it would wait for; nothing is
            closed then. It raises nothing else: what fails is logged.
        """
        if self.calls.is_inside():
            return as_future(self, InvalidState(INSIDE), {})
        closing = detached(self._runtime, self._close())
        self.calls.ends.append(closing)
        return closing

    async def _close(self) -> None:
        if self._closing is not None:
            await self._closing.wait()
            return
        self._closing = Event(self._runtime)
        # Before the iteration ends: otherwise it would get the kept messages that it returns again.
        forgetting = self._forget_kept()
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

    def _forget_kept(self) -> list[Awaitable[None]]:
        """End the delivery of kept messages; returns futures of the pending listener calls."""
        if self._joining.assignment is None:
            return []
        limit = self.config.stop_timeout_ms / 1000 or None
        forget = self._recovery.forget
        return [
            self._runtime.start(forget(topic, self.group, limit)) for topic in self._subscriptions
        ]

    async def _end(self) -> None:
        try:
            await self._joining.leave()
        finally:
            self._fetching.close()
            self._rules.repeated.close()
            self._rules.recurrences.close()
            self.passed_over.close()
            self._close_readers()
            self._close_lags()
            self._joining.release()

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
        return self._recovery.keep(message, self.group)

    def _begin_recoveries(self) -> None:
        for subscription in self._subscriptions.values():
            self._begin_recovery(subscription)

    def _begin_recovery(self, subscription: Subscription) -> None:
        """Deliver the kept messages of topic and group, including those of earlier processes."""

        async def take(message: ReceivedMessage) -> None:
            await deliver_recovered(self._rules, subscription, message)

        self._recovery.listen(subscription.topic, self.group, take)
