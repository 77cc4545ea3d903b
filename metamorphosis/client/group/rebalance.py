"""
A consumer's place in its group: which partitions are its own, through joins, leaves, crashes, moved
brokers and lost sessions.

One coroutine makes what is true here like what ZooKeeper shows. Whatever may have changed either
wakes it: a watch, the session, a claim that others gave up, time. Each *attempt*:

1. register the id, if it is not there;
2. read members, partitions and brokers, and watch them;
3. where the lists of a topic changed: stop fetching, commit, release what others get, claim what is
   ours now. If a claim is not free, release everything, wait and begin again, as every member of
   the original does: two that saw different lists would wait for each other for ever. Whoever had
   ``RELEASING_TRIES`` such chances and did not take what was released does not want it: from then
   on only the contested partitions are waited for, which may be those of a crashed member;
4. load the positions of what was claimed;
5. where partitions or addresses changed: start fetching.

An error in between leaves what is owned being read, from the addresses last known, and the attempt
is repeated until it succeeds. While ZooKeeper is not connected, nothing is decided and what is
owned is read on; when the session is over, fetching stops, positions are set aside (``committing``)
and everything begins anew with the same id.

Source: ``ConsumerZooKeeper``, ``ZKLoadRebalanceListener``.

Differs: the original is idle for good after 7 failed tries, until the next change of its lists;
releases all after any error, without commit; fails as long as one registered broker does not
answer, or none has ever registered; and says nothing of it to whoever subscribed. Ours waits for
the nodes that are in the way instead of a fixed time, looks at everything every ``AUDIT_SECONDS``,
and wakes members that leave their partitions unclaimed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any
from weakref import WeakMethod

from metamorphosis.client.group.audit import Audit
from metamorphosis.client.group.balancing import STRATEGIES
from metamorphosis.client.group.clusterview import ClusterReader, ClusterView
from metamorphosis.client.group.committing import Committing, Key
from metamorphosis.client.group.holdings import Fetches, Holdings
from metamorphosis.client.group.leaving import Leaving
from metamorphosis.client.group.membership import Contested, Membership, make_consumer_id
from metamorphosis.client.model import Partition, Position
from metamorphosis.client.network.flow import Event, settle, within
from metamorphosis.client.network.links import Log
from metamorphosis.client.settings import ConsumerConfig
from metamorphosis.cluster.model import SessionEvent, SessionState
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import (
    ClientClosed,
    InvalidState,
    MetaQError,
    NotBalanced,
    RegistryUnavailable,
)
from metamorphosis.interfaces import IOffsetStore, IRegistry, IRuntime

AUDIT_SECONDS = 30.0  # half to once as long between two looks at everything
FIRST_RETRY_SECONDS = 0.1  # doubles up to the sync time
LEAST_PAUSE_SECONDS = 0.05  # between two attempts, whatever happens
QUICK_TRIES = 3  # before an error other than a contested claim is told to who registers
RELEASING_TRIES = 3  # so often everything is released for a contested claim
PATIENT_SYNCS = 7  # how many sync times a contested claim is waited for before that
LEAVE_SECONDS = 10.0


def _ignore(event: SessionEvent) -> None:
    """The consumer that wanted to hear of it is no more."""


class _SessionOver(Exception):
    """The session ended during an attempt."""


class Rebalance:
    """
    One member of a group.

    Thread: the loop's.

    :param registry: results are futures of ``runtime``.
    :param subscriptions: its keys are the topics; it may change, then ``refresh`` has to be called.
    :param sync_seconds: the longest pause after a failed attempt.
    :param session_seconds: after which a dead member's nodes are gone.
    :ivar assignment: the partitions that are read at present, and how far they are.
    """

    def __init__(
        self,
        runtime: IRuntime,
        registry: IRegistry,
        paths: Paths,
        config: ConsumerConfig,
        subscriptions: Mapping[str, Any],
        store: IOffsetStore,
        fetching: Fetches,
        log: Log,
        sync_seconds: float = 5.0,
        session_seconds: float = 30.0,
        consumer_id: str | None = None,
    ) -> None:
        self.consumer_id = consumer_id or make_consumer_id(config)
        self.committing = Committing(runtime, store, config, log)
        self._runtime = runtime
        self._registry = registry
        self._group = config.group
        self._assign = STRATEGIES[config.load_balance_strategy]
        self._subscriptions = subscriptions
        self._log = log
        self._sync_seconds = sync_seconds
        self._patience = max(PATIENT_SYNCS * sync_seconds, session_seconds + 2 * sync_seconds)
        self._wake = Event(runtime)
        self._reader = ClusterReader(
            registry, paths, config.group, self.consumer_id, self._wake.set, log
        )
        self._member = Membership(runtime, registry, paths, self.consumer_id, config.group)
        self._holdings = Holdings(
            runtime, config.group, self._member, self.committing, fetching, self._check_session, log
        )
        self._leaving = Leaving(self._holdings.is_answered, self._wake.set)
        fetching.connection_changed = self._leaving.connection_changed
        self._seen: dict[str, Any] = {}  # topic -> its lists at the last success
        self._connected = False
        self._sessions = 0  # counts ends of sessions
        self._sessions_done = 0  # of these, dealt with
        self._audit_at = 0.0
        self._failures = 0
        self._contests = 0
        self._loop: Any = None
        self._closing = Event(runtime)
        self._audit = Audit(
            runtime, registry, self._reader, self._member, config.group, self._closing, log
        )
        self._settled = Event(runtime)  # the first outcome for who registers
        self._deadline = 0.0
        self._error: Exception | None = None

    @property
    def assignment(self) -> Mapping[Key, Position]:
        """What is read, and how far it is; a copy."""
        return self._holdings.assignment

    # -- what the consumer asks for

    async def register(self) -> None:
        """
        Become a member and get the first partitions, if there are any.

        :raises InvalidState: a second time.
        :raises MetaQError: what kept it from that; it goes on trying all the same.
        """
        if self._loop is not None or self._closing.is_set:
            raise InvalidState("the consumer is registered already")
        self._deadline = self._runtime.seconds() + self._patience
        changed = WeakMethod(self._session_changed)  # the registry outlives many consumers
        self._registry.on_session(lambda event: (changed() or _ignore)(event))
        if self._registry.session_id():
            self._connected = True
            self._member.session_began()
        self.committing.start()
        self._loop = self._runtime.start(self._run())
        await self._settled.wait()
        if self._error is not None:
            raise self._error

    def refresh(self) -> None:
        """Topics were subscribed or given up: tell the group and balance."""
        self._member.registered = False
        self._wake.set()

    async def unregister(self) -> None:
        """Stop fetching, commit, give up what is claimed, remove the id. Never fails."""
        self._closing.set()
        self._wake.set()
        loop, self._loop = self._loop, None
        if loop is not None:
            await loop
        try:
            await self._holdings.stop()
        except Exception:
            self._log.failure("Group {group}: fetching did not stop", group=self._group)
        await self.committing.stop()
        await self.committing.flush()
        self._holdings.drop()
        try:
            leaving = self._runtime.start(self._member.leave())
            await within(self._runtime, leaving, LEAVE_SECONDS, "leaving the group")
        except Exception as error:
            self._log.warn(
                "Group {group}: {member} could not be removed and stays until its session ends:"
                " {error}",
                group=self._group,
                member=self.consumer_id,
                error=error,
            )

    # -- what happens

    def _session_changed(self, event: SessionEvent) -> None:
        if self._closing.is_set:
            return
        self._reader.forget_watches()
        self._connected = event.state is SessionState.CONNECTED
        if event.new_session or event.state is SessionState.LOST:
            self._sessions += 1
        if event.new_session:
            self._member.session_began()
        if event.state is not SessionState.SUSPENDED:
            self._audit_at = 0.0
            self._wake.set()

    async def _run(self) -> None:
        while not self._closing.is_set:
            pause = await self._step()
            if self._closing.is_set:
                break
            if pause is None:  # all is well, or there is no ZooKeeper
                until = self._audit_at if self._connected else float("inf")
                if not self._settled.is_set:
                    until = min(until, self._deadline)
                pause = max(until - self._runtime.seconds(), LEAST_PAUSE_SECONDS)
            else:
                await self._closing.wait(LEAST_PAUSE_SECONDS)
            await self._wake.wait(pause if pause < float("inf") else None)
        self._settle(ClientClosed("the consumer was closed"))

    async def _step(self) -> float | None:
        """One attempt, and how long to wait for the next; None: until something happens."""
        self._wake.clear()
        try:
            if self._sessions_done != self._sessions:
                await self._begin_anew()
            if not self._connected:
                self._lacks_connection()
                return None
            await self._attempt()
        except _SessionOver:
            self._wake.set()
            return None
        except Exception as error:
            return await self._failed(error)
        if self._failures >= QUICK_TRIES:
            self._log.info("Group {group}: balanced again", group=self._group)
        self._failures = 0
        self._settle(None)
        return None

    def _lacks_connection(self) -> None:
        if not self._settled.is_set and self._runtime.seconds() >= self._deadline:
            self._settle(RegistryUnavailable("ZooKeeper is not connected"))

    def _settle(self, error: Exception | None) -> None:
        """Tell who registers, once."""
        if not self._settled.is_set:
            self._error = error
            self._settled.set()

    async def _failed(self, error: Exception) -> float:
        """Make the best of it, and say how long to wait."""
        self._failures += 1
        contested = isinstance(error, Contested)
        tried_enough = self._failures >= QUICK_TRIES and not contested
        if tried_enough or self._runtime.seconds() >= self._deadline:
            self._settle(error)
        self._tell_failure(error)
        pause = min(self._sync_seconds, FIRST_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 20))
        if isinstance(error, Contested):
            await self._watch_for(error.paths)
        if not self._holdings.reading and self._sessions_done == self._sessions:
            self._holdings.resume()
        return pause * random.uniform(0.5, 1)

    def _tell_failure(self, error: Exception) -> None:
        """A contested claim is nothing special at first; what nobody thought of has a traceback."""
        tell = self._log.warn
        if not isinstance(error, MetaQError):
            tell = self._log.failure
        elif isinstance(error, Contested) and self._failures < PATIENT_SYNCS:
            tell = self._log.info
        tell(
            "Group {group}: {member} is not balanced yet (attempt {count}): {error}",
            group=self._group,
            member=self.consumer_id,
            count=self._failures,
            error=f"{type(error).__name__}: {error}",
        )

    async def _watch_for(self, paths: list[str]) -> None:
        """Wake up when one of these nodes goes."""
        there = await settle([self._runtime.start(self._reader.watch_node(path)) for path in paths])
        if False in there:
            self._wake.set()

    async def _begin_anew(self) -> None:
        """The session is over, others may have our partitions: hold nothing."""
        self._sessions_done = self._sessions
        if self._holdings.keys:
            self._log.warn(
                "Group {group}: the ZooKeeper session of {member} ended; {count} partitions are"
                " claimed anew",
                group=self._group,
                member=self.consumer_id,
                count=len(self._holdings.keys),
            )
        # First of all, so that no periodic commit stores anything over the next owners' positions.
        self._holdings.set_aside()
        self._seen.clear()
        self._member.registered = False
        await self._holdings.stop()
        await self.committing.rescue()

    # -- an attempt

    async def _attempt(self) -> None:
        if not self._member.registered:
            await self._member.register(self._subscriptions)
        view = await self._reader.read()
        self._check_session()
        if not view.registered or set(view.topics) != set(self._subscriptions):
            self._member.registered = False
            raise NotBalanced(f"the id {self.consumer_id} has gone from ZooKeeper, or was changed")
        lost: list[Key] = []
        if self._runtime.seconds() >= self._audit_at:
            lost, unclaimed = await self._audit.look(view, self._holdings.keys)
            self._check_session()
            for topic in unclaimed:
                self._seen.pop(topic, None)  # should it be our share, it is claimed now
            self._audit_at = self._runtime.seconds() + AUDIT_SECONDS * random.uniform(0.5, 1)
        contested = await self._move(view, lost)
        failure = await self._holdings.load()
        self._check_session()
        self._holdings.brokers = view.brokers
        await self._holdings.read()
        if contested or failure:
            raise contested or failure  # type: ignore[misc]
        self._seen = {topic: view.lists(topic) for topic in view.topics}
        self.committing.forget_aside()

    async def _move(self, view: ClusterView, lost: list[Key]) -> Contested | None:
        """Give up and claim what changed lists say."""
        topics = {**self._seen, **dict.fromkeys(view.topics)}
        changed = {
            topic
            for topic in topics
            if topic not in view.topics or self._seen.get(topic) != view.lists(topic)
        }
        before = self._holdings.keys
        changed.update(key[0] for key in self._leaving.keys)
        self._leaving.look(view, before, self._runtime.seconds())
        self._audit_at = min(self._audit_at, self._leaving.next_end)
        if not (changed or lost):
            return None
        wanted = {key for key in before if key[0] not in changed}
        wanted.update(self._leaving.keys)
        for topic in changed:
            wanted.update(self._share_of(topic, view))
            self._seen.pop(topic, None)
        for topic, _ in lost:
            self._seen.pop(topic, None)  # should this fail, it is done again
        insist = self._contests >= RELEASING_TRIES
        try:
            await self._holdings.move(wanted, lost, insist)
        except Exception as error:
            if isinstance(error, Contested):
                self._contests += 1
                if insist:
                    return error
            self._seen.clear()  # whatever is held now may be less than it was
            raise
        finally:
            self._tell_holdings(before)
        self._contests = 0
        return None

    def _share_of(self, topic: str, view: ClusterView) -> list[Key]:
        consumers, partitions = view.lists(topic)
        if topic not in view.topics or not consumers or not partitions:
            return []
        mine = self._assign(self.consumer_id, consumers, partitions)
        return [(topic, Partition.parse(text)) for text in mine]

    def _tell_holdings(self, before: set[Key]) -> None:
        if self._holdings.keys != before:
            texts = [f"{topic} {partition}" for topic, partition in sorted(self._holdings.keys)]
            self._log.info(
                "Group {group}: {member} has {partitions}",
                group=self._group,
                member=self.consumer_id,
                partitions=", ".join(texts) or "no partitions",
            )

    def _check_session(self) -> None:
        """:raises _SessionOver: what was found out belongs to a session that ended."""
        if self._sessions_done != self._sessions:
            raise _SessionOver
