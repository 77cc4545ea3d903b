"""
The claimed partitions of one member of a group, and their reading.

A partition is read only while it is claimed, and released only after its reading has ended and its
position was committed, or a commit was tried. New partitions are claimed while the others are being
read.

Source: ``ConsumerZooKeeper``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from metamorphosis.client.group.clusterview import BrokerUrls
from metamorphosis.client.group.committing import Committing, Key
from metamorphosis.client.group.membership import Contested, Membership
from metamorphosis.client.model import FetchTarget, Position
from metamorphosis.client.network.complaints import some_of
from metamorphosis.client.network.flow import settle
from metamorphosis.client.network.links import Log
from metamorphosis.interfaces import IRuntime


class Fetches(Protocol):
    """
    The part of ``fetching.Fetching`` that a member needs.

    :ivar connection_changed: called after a change of a connection to a broker.
    """

    connection_changed: Callable[[], None]

    def start(self, targets: Iterable[FetchTarget]) -> None:
        """Read exactly these partitions."""

    async def stop(self, leaving: Collection[Key] = ()) -> None:
        """
        Stop reading; ends when all delivered messages were processed or taken back.

        :param leaving: partitions that are given away; the program is told.
        """

    def answers(self, url: str) -> bool:
        """Whether a broker in use is connected now."""


class Holdings:
    """
    The partitions of a member. Thread: the loop's, one coroutine at a time.

    :param check_session: raises when the session of the present attempt has ended.
    :ivar brokers: the addresses of the brokers, by broker id.
    :ivar reading: whether fetching was started.
    """

    def __init__(
        self,
        runtime: IRuntime,
        group: str,
        member: Membership,
        committing: Committing,
        fetching: Fetches,
        check_session: Callable[[], None],
        log: Log,
    ) -> None:
        self.brokers: Mapping[int, BrokerUrls] = {}
        self._runtime = runtime
        self._group = group
        self._member = member
        self._committing = committing
        self._fetching = fetching
        self._check_session = check_session
        self._log = log
        self._held: dict[Key, Position | None] = {}  # claimed; None: not loaded yet
        self._targets: dict[Key, str | None] | None = None  # read at present; broker's address
        self._urls: dict[Key, str | None] = {}  # address of the last read

    @property
    def keys(self) -> set[Key]:
        """The claimed partitions."""
        return set(self._held)

    @property
    def assignment(self) -> dict[Key, Position]:
        """The claimed partitions whose position is loaded."""
        return {key: position for key, position in self._held.items() if position is not None}

    @property
    def reading(self) -> bool:
        """Whether fetching was started."""
        return self._targets is not None

    # -- claims

    async def move(self, wanted: set[Key], lost: Iterable[Key], insist: bool) -> None:
        """
        Release the partitions that are not wanted, claim the missing ones.

        :param lost: claims that were lost without a release.
        :param insist: keep the new claims if some partitions are not free.
        :raises Contested: some are not free; without ``insist`` everything was released.
        """
        lost = list(lost)
        surplus = [key for key in self._held if key not in wanted and key not in lost]
        if surplus or lost:
            await self.stop({*surplus, *lost})
            await self._committing.flush()
            self._check_session()
            self.set_aside(lost)
            self._committing.drop(surplus)
            for key in surplus:
                del self._held[key]
        await self._member.release_others(wanted)
        missing = sorted(wanted.difference(self._held))
        contested: Contested | None = None
        try:
            await self._member.claim(missing)
        except Contested as error:
            contested = error
        self._check_session()
        if contested is None or insist:
            taken = {key: None for key in missing if not contested or key not in contested.keys}
            self._held.update(taken)
        if contested is not None:
            if not insist:
                await self._give_up()
            raise contested

    async def _give_up(self) -> None:
        """Release everything, as members of the original do: two may wait for each other."""
        await self.stop(self.keys)
        await self._committing.flush()
        self._check_session()
        self.set_aside()
        await self._member.release_others(())

    def set_aside(self, keys: Iterable[Key] | None = None) -> None:
        """Give up these partitions, or all; their positions are set aside."""
        gone = list(self._held if keys is None else keys)
        self._committing.set_aside(gone)
        for key in gone:
            self._held.pop(key, None)

    def drop(self) -> None:
        """Give up all partitions at the end of the member, without setting positions aside."""
        self._committing.drop(list(self._held))
        self._held.clear()

    async def load(self) -> Exception | None:
        """Load the missing positions; returns the last error, if some cannot be loaded."""
        missing = [key for key, position in self._held.items() if position is None]
        if not missing:
            return None
        await self._committing.rescue()
        take = self._committing.take
        outcomes = await settle([self._runtime.start(take(*key)) for key in missing])
        failure = None
        for key, outcome in zip(missing, outcomes, strict=True):
            if isinstance(outcome, Exception):
                failure = outcome
            else:
                self._held[key] = outcome
        return failure

    # -- reading

    async def read(self) -> None:
        """Read the loaded partitions from their present brokers; stops only for a change."""
        if self._targets is not None:
            if self._choose() == self._targets:
                return
            await self.stop()
            await self._committing.commit()
            self._check_session()
        self.resume()

    def resume(self) -> None:
        """Read the loaded partitions from the last known brokers."""
        self._targets = self._urls = self._choose()
        homeless = [key for key, url in sorted(self._targets.items()) if url is None]
        if homeless:
            places = [f"{topic} {partition}" for topic, partition in homeless]
            self._log.warn(
                "Group {group}: no broker has {places} at present",
                group=self._group,
                places=some_of(places),
            )
        positions = self.assignment
        self._fetching.start(FetchTarget(positions[key], url) for key, url in self._targets.items())

    async def stop(self, leaving: Collection[Key] = ()) -> None:
        """Stop reading; see ``Fetches.stop``."""
        if self._targets is not None or leaving:
            self._targets = None
            await self._fetching.stop(leaving)

    def is_answered(self, key: Key) -> bool:
        """Whether the last broker of a partition is still connected."""
        url = self._urls.get(key)
        return url is not None and self._fetching.answers(url)

    def _choose(self) -> dict[Key, str | None]:
        """
        The address for each loaded partition. A broker that has left ZooKeeper is used while it
        is connected: it may still have unread messages.
        """
        chosen: dict[Key, str | None] = {}
        for key in self.assignment:
            present = self._urls.get(key)
            url = self.brokers.get(key[1].broker_id, BrokerUrls()).choose(present)
            chosen[key] = present if url is None and self.is_answered(key) else url
        return chosen
