"""
Keeps a consumer a member of its group through joins, leaves, crashes, moved brokers and lost
sessions.

One coroutine repeats attempts (``balance``) until one succeeds, and waits for the next change.
Watches, the session, a released claim and time wake it. While ZooKeeper is not connected, the owned
partitions are read further without any change; when the session has ended, fetching stops,
positions are set aside (``committing``) and the member begins again with the same id.

Source: ``ConsumerZooKeeper``, ``ZKLoadRebalanceListener``.

Differs: the original is idle after 7 failed tries until the next change of its lists; releases all
partitions after any error, without commit; fails as long as one registered broker does not reply,
or none has ever registered; and does not report this to the subscriber. Ours waits for the deletion
of others' nodes instead of a fixed time, audits all claims every ``balance.AUDIT_SECONDS``, and
wakes members that leave their partitions unclaimed.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Iterable, Mapping

from metamorphosis.client.group.balance import Balance
from metamorphosis.client.group.committing import Committing, Key
from metamorphosis.client.group.holdings import Fetches
from metamorphosis.client.group.member import Member
from metamorphosis.client.group.membership import Contested, make_consumer_id
from metamorphosis.client.group.sessionwatch import SessionOver, SessionWatch
from metamorphosis.client.model import Position
from metamorphosis.client.network.flow import Event, within
from metamorphosis.client.network.links import Log
from metamorphosis.client.settings import ConsumerConfig
from metamorphosis.cluster.model import SessionEvent, SessionState
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import ClientClosed, InvalidState, MetaQError, RegistryUnavailable
from metamorphosis.interfaces import IRegistry, IRuntime, OffsetStore

FIRST_RETRY_SECONDS = 0.1  # doubles up to the sync time
LEAST_PAUSE_SECONDS = 0.05  # between two attempts
QUICK_TRIES = 3  # attempts before ``register`` raises an error other than a contested claim
PATIENT_SYNCS = 7  # sync times before ``register`` raises a contested claim
LEAVE_SECONDS = 10.0


class Rebalance:
    """
    One member of a group. Thread: the loop's.

    Its ``__init__`` is long, because it connects the independent parts of a member.

    :param registry: results are futures of ``runtime``.
    :param subscriptions: the topics; call ``refresh`` after a change.
    :param sync_seconds: the longest pause after a failed attempt.
    :param session_seconds: ZooKeeper removes the nodes of a dead member after this time.
    :ivar assignment: the partitions that are read at present, and their positions.
    """

    def __init__(
        self,
        runtime: IRuntime,
        registry: IRegistry,
        paths: Paths,
        config: ConsumerConfig,
        subscriptions: Iterable[str],
        store: OffsetStore,
        fetching: Fetches,
        log: Log,
        sync_seconds: float = 5.0,
        session_seconds: float = 30.0,
        consumer_id: str | None = None,
    ) -> None:
        self.consumer_id = consumer_id or make_consumer_id(config)
        self.committing = Committing(runtime, store, config, log)
        self._runtime = runtime
        self._group = config.group
        self._log = log
        self._sync_seconds = sync_seconds
        self._patience = max(PATIENT_SYNCS * sync_seconds, session_seconds + 2 * sync_seconds)
        self._wake = Event(runtime)
        self._closing = Event(runtime)
        wake, closing, me = self._wake, self._closing, self.consumer_id
        member = Member(runtime, registry, paths, config, me, subscriptions, log, wake, closing)
        self._session = SessionWatch(registry, self._session_changed, self._closing)
        self._balance = Balance(member, self._session, self.committing, fetching)
        self._holdings = self._balance.holdings
        self._nodes = self._balance.nodes
        self._failures = 0
        self._loop: Awaitable[None] | None = None
        self._settled = Event(runtime)  # the first outcome is known, for ``register``
        self._deadline = 0.0
        self._error: Exception | None = None

    @property
    def assignment(self) -> Mapping[Key, Position]:
        """The partitions that are read, and their positions; a copy."""
        return self._holdings.assignment

    # -- the consumer's calls

    async def register(self) -> None:
        """
        Become a member and get the first partitions, if there are any.

        :raises InvalidState: a second time.
        :raises MetaQError: the first attempts failed; further ones follow.
        """
        if self._loop is not None or self._closing.is_set:
            raise InvalidState("the consumer is registered already")
        self._deadline = self._runtime.seconds() + self._patience
        self._session.start()
        if self._session.is_connected:
            self._nodes.session_began()
        self.committing.start()
        self._loop = self._runtime.start(self._run())
        await self._settled.wait()
        if self._error is not None:
            raise self._error

    def refresh(self) -> None:
        """The subscribed topics have changed: register them and balance."""
        self._nodes.registered = False
        self._wake.set()

    async def unregister(self) -> None:
        """Stop fetching, commit, release all claims, remove the id. Never fails."""
        self._closing.set()
        self._wake.set()
        loop, self._loop = self._loop, None
        if loop is not None:
            await loop
        try:
            await self._holdings.stop(self._holdings.keys)
        except Exception:
            self._log.failure("Group {group}: fetching did not stop", group=self._group)
        await self.committing.stop()
        await self.committing.flush()
        self._holdings.drop()
        try:
            leaving = self._runtime.start(self._nodes.leave())
            await within(self._runtime, leaving, LEAVE_SECONDS, "leaving the group")
        except Exception as error:
            self._log.warn(
                "Group {group}: {member} could not be removed and stays until its session ends:"
                " {error}",
                group=self._group,
                member=self.consumer_id,
                error=error,
            )

    # -- the loop

    def _session_changed(self, event: SessionEvent) -> None:
        self._balance.reader.forget_watches()
        if event.new_session:
            self._nodes.session_began()
        if event.state is not SessionState.SUSPENDED:
            self._balance.audit_at = 0.0
            self._wake.set()

    async def _run(self) -> None:
        while not self._closing.is_set:
            pause = await self._step()
            if pause is None:  # balanced, or not connected
                until = self._balance.audit_at if self._session.is_connected else float("inf")
                if not self._settled.is_set:
                    until = min(until, self._deadline)
                pause = max(until - self._runtime.seconds(), LEAST_PAUSE_SECONDS)
            else:
                await self._closing.wait(LEAST_PAUSE_SECONDS)
            await self._wake.wait(pause if pause < float("inf") else None)
        self._settle(ClientClosed("the consumer was closed"))

    async def _step(self) -> float | None:
        """Make one attempt; returns the seconds to the next one, or None: wait for a change."""
        self._wake.clear()
        try:
            if self._session.has_ended:
                await self._balance.give_up()
            if not self._session.is_connected:
                self._lacks_connection()
                return None
            await self._balance.attempt()
        except SessionOver:
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
        """Set the outcome of ``register``, once."""
        if not self._settled.is_set:
            self._error = error
            self._settled.set()

    async def _failed(self, error: Exception) -> float:
        """Continue to read the owned partitions; returns the seconds to the next attempt."""
        self._failures += 1
        contested = isinstance(error, Contested)
        tried_enough = self._failures >= QUICK_TRIES and not contested
        if tried_enough or self._runtime.seconds() >= self._deadline:
            self._settle(error)
        self._tell_failure(error)
        pause = min(self._sync_seconds, FIRST_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 20))
        if isinstance(error, Contested):
            await self._balance.watch_for(error.paths)
        if not self._holdings.reading and not self._session.has_ended:
            self._holdings.resume()
        return pause * random.uniform(0.5, 1)

    def _tell_failure(self, error: Exception) -> None:
        """A contested claim is usual at first; an unexpected error is logged with a traceback."""
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
