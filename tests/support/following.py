"""An asynchronous slave's partitions in memory: real stores, and a scripted master."""

from __future__ import annotations

from typing import Any

from metamorphosis.client.network.flow import Slots
from metamorphosis.message import encode_record
from metamorphosis.replication.follower.budget import Budget
from metamorphosis.replication.follower.copying import Pace
from metamorphosis.replication.follower.ownlog import OwnLog
from metamorphosis.replication.follower.partition import Following, PartitionCopy
from metamorphosis.replication.peer import Peer
from metamorphosis.testing.runtime import MemoryRuntime
from tests.support.memorymaster import MemoryMaster
from tests.support.partitions import BreakableDisk
from tests.support.serving import Broker

GROUP = "meta-slave-group_0"


def records(count: int, size: int = 20, first_id: int = 1) -> bytes:
    """So many, with bodies of ``size`` bytes."""
    return b"".join(
        encode_record(first_id + number, 0, (b"%d " % number).ljust(size, b".")[:size])
        for number in range(count)
    )


class FollowingBroker:
    """
    One slave and its master.

    :param system: keys of ``[system]``.
    :ivar shown: (topic, partition, whether it may be read), in order.
    :ivar copied: records that were stored.
    """

    def __init__(
        self,
        directory: str,
        holds: bool = True,
        copy_again: bool = False,
        memory: int = 64 << 20,
        threshold: int = 1000,
        **system: Any,
    ) -> None:
        self.runtime = MemoryRuntime()
        self.disk = BreakableDisk()
        self.broker = Broker(directory, disk=self.disk, unflush_threshold=threshold, **system)
        self.runtime.clock = self.broker.clock
        self.master = MemoryMaster(self.runtime, "master:8123", holds)
        self.peer = Peer(self.runtime, "meta://master:8123")
        self.pace = Pace(Budget(memory), 0.5, 64 << 20)
        self.shown: list[tuple[str, int, bool]] = []
        self.copied = 0
        self.partitions: list[PartitionCopy] = []
        self.following = Following(
            self.runtime,
            self.peer,
            GROUP,
            self.pace,
            Slots(self.runtime, 16),
            self.runtime.log,
            copy_again,
            self._count,
            self._show,
        )
        self.peer.on_change(self._changed)
        self.peer.start()

    def _count(self, records: int) -> None:
        self.copied += records

    def _show(self, topic: str, partition: int, shown: bool) -> None:
        """Record the change."""
        last = [each[2] for each in self.shown if each[:2] == (topic, partition)][-1:]
        if last != [shown] and (last or not shown):
            self.shown.append((topic, partition, shown))

    def _changed(self, connected: bool) -> None:
        for each in self.partitions:
            each.connected() if connected else each.lost()

    def partition(self, number: int = 0, topic: str = "test") -> PartitionCopy:
        """A partition that is followed from now on."""
        own = OwnLog(self.broker.responders, topic, number)
        copy = PartitionCopy(self.following, own)
        self.partitions.append(copy)
        if self.peer.is_connected:
            copy.connected()
        return copy

    def own_bytes(self, number: int = 0) -> bytes:
        """The bytes of the log here."""
        store = self.broker.stores.get("test", number)
        assert store is not None
        return store.bytes_at(store.min_offset, 1 << 30)
