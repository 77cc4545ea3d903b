"""
The frames that one connection sends, in order: each packet waits until the batch with the last
change before it is on the disk. Packets never overtake each other.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metamorphosis.zookeeper.commits import Commits, Waiter

_SIZE = struct.Struct(">I")


class Held:
    """
    Packets that wait for the same batch.

    :ivar size: their bytes.
    :ivar events: the bytes of events among them.
    :ivar since: the time of the first of them.
    """

    __slots__ = ("barrier", "events", "packets", "since", "size")

    def __init__(self, barrier: int, since: float) -> None:
        self.barrier = barrier
        self.packets: list[bytes] = []
        self.size = 0
        self.events = 0
        self.since = since


class Outbox:
    """
    The packets of one connection that have not been passed to its transport. Thread: reactor.

    :ivar ready: packets that can leave; ``take`` empties it.
    :ivar ready_size: their bytes.
    :ivar held: packets that wait for a batch, oldest first.
    :ivar held_size: their bytes.
    :param waiter: is released when a batch that packets wait for is on the disk.
    """

    __slots__ = ("_commits", "_waiter", "held", "held_size", "ready", "ready_size")

    def __init__(self, commits: Commits, waiter: Waiter) -> None:
        self.ready: list[bytes] = []
        self.ready_size = 0
        self.held: deque[Held] = deque()
        self.held_size = 0
        self._commits = commits
        self._waiter = waiter

    @property
    def packets(self) -> int:
        """The number of packets that wait for a batch."""
        return sum(len(held.packets) for held in self.held)

    @property
    def held_events(self) -> int:
        """Bytes of events that wait for a batch."""
        return sum(held.events for held in self.held)

    def add(self, packet: bytes, event: bool, now: float) -> None:
        """Add a packet, preceded by its length."""
        data = _SIZE.pack(len(packet)) + packet
        size = len(data)
        commits = self._commits
        barrier = commits.barrier
        if barrier == commits.durable:
            self.ready.append(data)
            self.ready_size += size
            return
        if self.held and self.held[-1].barrier == barrier:
            held = self.held[-1]
        else:
            held = Held(barrier, now)
            self.held.append(held)
            commits.wait(self._waiter)
        held.packets.append(data)
        held.size += size
        if event:
            held.events += size
        self.held_size += size

    def release(self, durable: int) -> list[Held]:
        """The batches up to ``durable`` are on the disk; returns the packets that are now ready."""
        released = []
        while self.held and self.held[0].barrier <= durable:
            held = self.held.popleft()
            self.held_size -= held.size
            self.ready += held.packets
            self.ready_size += held.size
            released.append(held)
        return released

    def take(self) -> bytes:
        """All ready packets as one string of bytes."""
        ready, self.ready = self.ready, []
        self.ready_size = 0
        return ready[0] if len(ready) == 1 else b"".join(ready)

    def clear(self) -> None:
        """Drop all packets."""
        self.ready.clear()
        self.held.clear()
        self.ready_size = self.held_size = 0
