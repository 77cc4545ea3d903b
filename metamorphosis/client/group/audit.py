"""
An audit of the claims: our own must still be there, and every partition must have one.

Claims are not watched, so that a claim that was deleted by hand, or a member that has given up, is
found only by an audit of all claims. Members of the original give up after 7 failed tries and stay
idle until their group changes: an audit changes the group for them.
"""

from __future__ import annotations

from metamorphosis.client.group.clusterview import ClusterReader, ClusterView
from metamorphosis.client.group.committing import Key
from metamorphosis.client.group.membership import Membership
from metamorphosis.client.model import Partition
from metamorphosis.client.network.flow import Event
from metamorphosis.client.network.links import Log
from metamorphosis.interfaces import IRegistry, IRuntime

SEEN_BEFORE_WAKING = 2  # audits in a row that find a partition unclaimed before a waking
WAKING_SECONDS = 300.0  # between two such wakings
WAKE_SECONDS = 1.0  # duration of the change of the group; its members need only the event


class Audit:
    """
    Audits the claims on the topics of one member. Thread: the loop's.

    :param closing: ends a waking early.
    """

    def __init__(
        self,
        runtime: IRuntime,
        registry: IRegistry,
        reader: ClusterReader,
        member: Membership,
        group: str,
        closing: Event,
        log: Log,
    ) -> None:
        self._runtime = runtime
        self._registry = registry
        self._reader = reader
        self._member = member
        self._group = group
        self._closing = closing
        self._log = log
        self._unclaimed: dict[str, int] = {}  # partition: audits in a row that found it so
        self._woke = float("-inf")

    async def look(self, view: ClusterView, held: set[Key]) -> list[Key]:
        """
        The keys of ``held`` whose claim is gone. Where others leave partitions unclaimed for two
        audits they are woken.

        :raises RegistryError: ZooKeeper cannot be read.
        """
        session = self._registry.session_id()
        lost: list[Key] = []
        unclaimed: dict[str, int] = {}
        for topic in view.topics:
            owners = await self._reader.owners(topic)
            for key in sorted(held):
                if key[0] == topic and owners.get(str(key[1])) != session:
                    lost.append(key)
            for text in view.partitions.get(topic, ()):
                if text not in owners and (topic, Partition.parse(text)) not in held:
                    name = f"{topic} {text}"
                    unclaimed[name] = self._unclaimed.get(name, 0) + 1
        self._unclaimed = unclaimed
        await self._wake([name for name, seen in unclaimed.items() if seen >= SEEN_BEFORE_WAKING])
        return lost

    async def _wake(self, unclaimed: list[str]) -> None:
        now = self._runtime.seconds()
        if not unclaimed or now - self._woke < WAKING_SECONDS:
            return
        self._woke = now
        self._log.warn(
            "Group {group}: unclaimed partitions: {partitions}; waking all members",
            group=self._group,
            partitions=", ".join(unclaimed),
        )
        await self._member.wake_the_others(lambda: self._closing.wait(WAKE_SECONDS))
