"""
The messages that a consumer has processed lately, so that they are not delivered again: after a
rebalance, or when a batch comes a second time because of one bad record. Pure.

Source: ``ConcurrentLRUHashMap``, ``MessageIdCache``, used by ``SimpleFetchManager``.

Differs: the original's cache belongs to the process, with group and message id as the key; ours
belongs to a consumer, with topic, partition, id and offset as the key. Ids of Java brokers repeat
after a reboot of their machine, and the original then drops new messages.
"""

from __future__ import annotations

from itertools import islice
from struct import iter_unpack, pack

from metamorphosis.client.model import Partition, ReceivedMessage
from metamorphosis.native import compiled

CAPACITY = 4096
"""Messages, as in the original."""


def identities(messages: list[ReceivedMessage]) -> bytes:
    """Id and offset of each, packed."""
    if compiled is not None:
        packed: bytes = compiled.identities(messages)
        return packed
    numbers = [number for each in messages for number in (each.id, each.offset)]
    return pack(f"{len(numbers)}q", *numbers)


BYTES = len(pack("2q", 0, 0))
"""Of a packed identity."""


class _Seen:
    """
    The processed messages of one partition. Those that came in the order of the log are looked at
    only when an earlier offset comes again: until then a message costs 16 bytes of a copy.

    :ivar count: messages; one that came twice is counted twice until they are looked at.
    :ivar end: the highest offset of any of them.
    """

    __slots__ = ("_packed", "_places", "count", "end")

    def __init__(self) -> None:
        self.count = 0
        self.end = -1
        self._places: dict[int, int] = {}  # id -> offset, in the order of processing; then:
        self._packed: list[bytes] = []

    def places(self) -> dict[int, int]:
        """Id -> offset of all, the oldest first."""
        places = self._places
        for packed in self._packed:
            _update(places, dict(iter_unpack("2q", packed)))
        self._packed.clear()
        self.count = len(places)
        return places

    def follow(self, messages: list[ReceivedMessage]) -> None:
        """Add messages behind ``end``."""
        self._packed.append(identities(messages))
        self.count += len(messages)
        self.end = messages[-1].offset

    def update(self, places: dict[int, int]) -> None:
        """Add messages anywhere."""
        _update(self.places(), places)
        self.count = len(self._places)
        self.end = max(self.end, *places.values())

    def forget(self, count: int) -> None:
        """Forget so many of the oldest messages."""
        self.count -= count
        # The list first: a dictionary that loses its first key again and again skips the holes of
        # all earlier keys each time.
        for message_id in list(islice(self._places, count)):
            del self._places[message_id]
            count -= 1
        while count:
            first = self._packed[0]
            most = len(first) // BYTES
            if most > count:
                self._packed[0] = first[count * BYTES :]
                return
            del self._packed[0]
            count -= most


def _update(places: dict[int, int], newer: dict[int, int]) -> None:
    if not places.keys().isdisjoint(newer):
        for message_id in newer:
            places.pop(message_id, None)
    places.update(newer)


class DuplicateCache:
    """
    Remembers the last processed messages. Beyond the capacity it forgets an eighth of it, the
    messages of the longest idle partition first.

    :param capacity: ids of all partitions together, never exceeded; 0 remembers nothing.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._seen: dict[tuple[str, Partition], _Seen] = {}  # in the order of use
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def fresh(self, messages: list[ReceivedMessage]) -> list[ReceivedMessage]:
        """
        The messages that were not processed lately; the same list object when all are fresh.

        :param messages: of one partition, in the order of its log.
        """
        if not messages:
            return messages
        seen = self._seen.get((messages[0].topic, messages[0].partition))
        if seen is None or messages[0].offset > seen.end:
            return messages
        self._count -= seen.count
        places = seen.places()
        self._count += seen.count
        if places.keys().isdisjoint([message.id for message in messages]):
            return messages
        return [message for message in messages if places.get(message.id, -1) != message.offset]

    def add(self, messages: list[ReceivedMessage]) -> None:
        """These messages of one partition were processed, in this order, that of its log."""
        if not self._capacity or not messages:
            return
        kept = messages[-self._capacity :]
        seen = self._use(messages[0].topic, messages[0].partition)
        if kept[0].offset > seen.end:
            seen.follow(kept)
        else:
            seen.update({message.id: message.offset for message in kept})
        self._count += seen.count
        self._bound()

    def add_places(self, topic: str, partition: Partition, places: dict[int, int]) -> None:
        """``add`` for messages that are not in memory any more: id -> offset, in their order."""
        if not self._capacity or not places:
            return
        seen = self._use(topic, partition)
        seen.update(places)
        self._count += seen.count
        self._bound()

    def forget(self, topic: str, partition: Partition) -> None:
        """The messages of this partition may be delivered again."""
        seen = self._seen.pop((topic, partition), None)
        if seen is not None:
            self._count -= seen.count

    def _use(self, topic: str, partition: Partition) -> _Seen:
        """Those of a partition, which has been used now; ``_count`` is without them."""
        key = (topic, partition)
        seen = self._seen.pop(key, None) or _Seen()
        self._seen[key] = seen
        self._count -= seen.count
        return seen

    def _bound(self) -> None:
        """Forget the oldest messages of the longest idle partitions."""
        if self._count <= self._capacity:
            return
        count = self._count - self._capacity + self._capacity // 8
        self._count -= min(count, self._count)
        while count > 0 and self._seen:
            key = next(iter(self._seen))
            seen = self._seen[key]
            if seen.count > count:
                seen.forget(count)
                return
            count -= seen.count
            del self._seen[key]
