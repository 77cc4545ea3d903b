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

from metamorphosis.client.model import Partition, ReceivedMessage

CAPACITY = 4096
"""Messages, as in the original."""


class DuplicateCache:
    """
    Remembers the last processed messages. Beyond the capacity it forgets an eighth of it, the
    messages of the longest idle partition first.

    :param capacity: ids of all partitions together, never exceeded; 0 remembers nothing.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        # Both dictionaries are in the order of use. Each partition has a dictionary, id -> offset:
        # a key made for each message would cost more than the rest of its delivery.
        self._seen: dict[tuple[str, Partition], dict[int, int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def fresh(self, messages: list[ReceivedMessage]) -> list[ReceivedMessage]:
        """
        The messages that were not processed lately; the same list object when all are fresh.

        :param messages: of one partition.
        """
        if not messages:
            return messages
        seen = self._seen.get((messages[0].topic, messages[0].partition))
        if not seen or seen.keys().isdisjoint([message.id for message in messages]):
            return messages
        return [message for message in messages if seen.get(message.id, -1) != message.offset]

    def add(self, messages: list[ReceivedMessage]) -> None:
        """These messages of one partition were processed, in this order."""
        if self._capacity and messages:
            places = {message.id: message.offset for message in messages[-self._capacity :]}
            self.add_places(messages[0].topic, messages[0].partition, places)

    def add_places(self, topic: str, partition: Partition, places: dict[int, int]) -> None:
        """``add`` for messages that are not in memory any more: id -> offset, in their order."""
        if not self._capacity or not places:
            return
        key = (topic, partition)
        seen = self._seen.pop(key, {})
        self._seen[key] = seen
        self._count -= len(seen)
        if not seen.keys().isdisjoint(places):
            for message_id in places:
                seen.pop(message_id, None)
        seen.update(places)
        self._count += len(seen)
        if self._count > self._capacity:
            self._forget(self._count - self._capacity + self._capacity // 8)

    def forget(self, topic: str, partition: Partition) -> None:
        """The messages of this partition may be delivered again."""
        self._count -= len(self._seen.pop((topic, partition), ()))

    def _forget(self, count: int) -> None:
        """Forget the oldest messages of the longest idle partitions."""
        self._count -= min(count, self._count)
        while count > 0 and self._seen:
            key = next(iter(self._seen))
            seen = self._seen[key]
            if len(seen) <= count:
                count -= len(seen)
                del self._seen[key]
                continue
            # The list first: a dictionary that loses its first key again and again skips the
            # holes of all earlier keys each time.
            for message_id in list(islice(seen, count)):
                del seen[message_id]
            return
