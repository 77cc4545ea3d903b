"""
One attempt to make the partitions of a member match the lists in ZooKeeper.

1. Register the id, if it is not there.
2. Read members, partitions and brokers, and watch them.
3. Where the lists of a topic changed: stop fetching, commit, release the partitions of other
   members, claim the new ones. If a claim is not free, release everything, wait and begin again, as
   every member of the original does: two members that saw different lists would wait for each other
   without end. A member that did not take the released partitions after ``RELEASING_TRIES`` chances
   does not want them: from then on only the contested partitions are waited for; they may be those
   of a crashed member.
4. Load the positions of the claimed partitions.
5. Where partitions or addresses changed: start fetching.

An error leaves the owned partitions being read, from the addresses last known.
"""

from __future__ import annotations

import random

from metamorphosis.client.group.audit import Audit
from metamorphosis.client.group.balancing import STRATEGIES
from metamorphosis.client.group.clusterview import ClusterReader, ClusterView, Lists
from metamorphosis.client.group.committing import Committing, Key
from metamorphosis.client.group.holdings import Fetches, Holdings
from metamorphosis.client.group.leaving import Leaving
from metamorphosis.client.group.member import Member
from metamorphosis.client.group.membership import Contested, Membership
from metamorphosis.client.group.sessionwatch import SessionWatch
from metamorphosis.client.model import Partition
from metamorphosis.client.network.flow import settle
from metamorphosis.errors import NotBalanced

AUDIT_SECONDS = 30.0  # the time between two audits is half of this to all of it
RELEASING_TRIES = 3  # everything is released this often for a contested claim


class Balance:
    """
    The attempts of one member, one at a time. Thread: the loop's.

    :ivar audit_at: the time from which an attempt audits all claims, seconds.
    """

    def __init__(
        self, member: Member, session: SessionWatch, committing: Committing, fetching: Fetches
    ) -> None:
        runtime, registry, group, log = member.runtime, member.registry, member.group, member.log
        self.audit_at = 0.0
        self._runtime = runtime
        self._member = member
        self._session = session
        self._log = log
        self._assign = STRATEGIES[member.config.load_balance_strategy]
        self._committing = committing
        self.nodes = Membership(runtime, registry, member.paths, member.consumer_id, group)
        self.reader = ClusterReader(
            registry, member.paths, group, member.consumer_id, member.wake.set, log
        )
        self.holdings = Holdings(
            runtime, group, self.nodes, committing, fetching, session.check, log
        )
        self._leaving = Leaving(self.holdings.is_answered, member.wake.set)
        fetching.connection_changed = self._leaving.connection_changed
        self._audit = Audit(runtime, registry, self.reader, self.nodes, group, member.closing, log)
        self._seen: dict[str, Lists] = {}  # topic -> its lists at the last success
        self._contests = 0

    async def give_up(self) -> None:
        """Give up all partitions: the session has ended, and others may have them."""
        self._session.deal_with_end()
        if self.holdings.keys:
            self._log.warn(
                "Group {group}: the ZooKeeper session of {member} ended; {count} partitions are"
                " claimed anew",
                group=self._member.group,
                member=self._member.consumer_id,
                count=len(self.holdings.keys),
            )
        # First of all, so that no periodic commit overwrites the positions of the next owners.
        gone = self.holdings.keys
        self.holdings.set_aside()
        self._seen.clear()
        self.nodes.registered = False
        await self.holdings.stop(gone)
        await self._committing.rescue()

    async def attempt(self) -> None:
        """
        One attempt; see the module.

        :raises SessionOver: the session ended meanwhile.
        :raises MetaQError: the attempt has to be repeated.
        """
        member, nodes = self._member, self.nodes
        if not nodes.registered:
            await nodes.register(member.topics)
        view = await self.reader.read()
        self._session.check()
        if not view.registered or set(view.topics) != set(member.topics):
            nodes.registered = False
            raise NotBalanced(
                f"the id {member.consumer_id} has gone from ZooKeeper, or was changed"
            )
        lost = await self._lost(view)
        contested = await self._move(view, lost)
        failure = await self.holdings.load()
        self._session.check()
        self.holdings.brokers = view.brokers
        await self.holdings.read()
        problem = contested or failure
        if problem is not None:
            raise problem
        self._seen = {topic: view.lists(topic) for topic in view.topics}
        self._committing.forget_aside()

    async def watch_for(self, paths: list[str]) -> None:
        """Wake the member when one of these nodes is deleted."""
        start = self._runtime.start
        there = await settle([start(self.reader.watch_node(path)) for path in paths])
        if False in there:
            self._member.wake.set()

    async def _lost(self, view: ClusterView) -> list[Key]:
        """Claims that an audit finds gone, if the time for an audit has come."""
        if self._runtime.seconds() < self.audit_at:
            return []
        lost = await self._audit.look(view, self.holdings.keys)
        self._session.check()
        self.audit_at = self._runtime.seconds() + AUDIT_SECONDS * random.uniform(0.5, 1)
        return lost

    async def _move(self, view: ClusterView, lost: list[Key]) -> Contested | None:
        """Release and claim partitions by the changed lists."""
        changed = self._changed_topics(view)
        before = self.holdings.keys
        changed.update(key[0] for key in self._leaving.keys)
        self._leaving.look(view, before, self._runtime.seconds())
        self.audit_at = min(self.audit_at, self._leaving.next_end)
        if not (changed or lost):
            return None
        wanted = {key for key in before if key[0] not in changed}
        wanted.update(self._leaving.keys)
        for topic in changed:
            wanted.update(self._share_of(topic, view))
            self._seen.pop(topic, None)
        insist = self._contests >= RELEASING_TRIES
        try:
            await self.holdings.move(wanted, lost, insist)
        except Exception as error:
            if isinstance(error, Contested):
                self._contests += 1
                if insist:
                    return error
            self._seen.clear()  # fewer partitions may be held than at the last success
            raise
        finally:
            self._tell_holdings(before)
        self._contests = 0
        return None

    def _changed_topics(self, view: ClusterView) -> set[str]:
        """Topics whose lists differ from those of the last success."""
        topics = {**self._seen, **dict.fromkeys(view.topics)}
        return {topic for topic in topics if self._seen.get(topic) != view.lists(topic)}

    def _share_of(self, topic: str, view: ClusterView) -> list[Key]:
        consumers, partitions = view.lists(topic)
        if topic not in view.topics or not consumers or not partitions:
            return []
        mine = self._assign(self._member.consumer_id, consumers, partitions)
        return [(topic, Partition.parse(text)) for text in mine]

    def _tell_holdings(self, before: set[Key]) -> None:
        if self.holdings.keys != before:
            texts = [f"{topic} {partition}" for topic, partition in sorted(self.holdings.keys)]
            self._log.info(
                "Group {group}: {member} has {partitions}",
                group=self._member.group,
                member=self._member.consumer_id,
                partitions=", ".join(texts) or "no partitions",
            )
