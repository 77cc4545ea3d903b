"""
Selectors: the choice of the partition for a message. Pure.

A selector is any function with three arguments: the topic, which is the default topic if the
message's own was not published; the partitions of that topic, sorted by number and never empty; and
the message, which is immutable. It returns one of the partitions; ``None`` fails the send.

**A message with a key** goes to the partition that its key hashes to: ``CRC-32(key) & 0x7FFFFFFF``
modulo the number of partitions, of the key's bytes in UTF-8. This is stable over processes,
versions and languages; the partition changes when the number of partitions does.

Source: ``RoundRobinPartitionSelector``, ``RandomPartitionSelector``,
``OrderedMessagePartitionSelector``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from metamorphosis.client.checked import checked
from metamorphosis.client.model import OutgoingMessage, Partition
from metamorphosis.errors import NoPartition, PartitionNotWritable
from metamorphosis.message import checksum

Selector = Callable[[str, Sequence[Partition], OutgoingMessage], Partition | None]


def partition_of_key(key: str | bytes, partitions: Sequence[Partition]) -> Partition:
    """The partition that the key hashes to; see above."""
    data = key.encode("utf-8", "replace") if isinstance(key, str) else key
    return partitions[checksum(data) % len(partitions)]


class RoundRobinSelector:
    """
    Each partition in turn. One counter for all topics is incremented before its use: with four
    partitions the first message gets index 1, then 2, 3, 0.
    """

    __slots__ = ("_counter",)

    def __init__(self) -> None:
        self._counter = 0

    def __call__(
        self, topic: str, partitions: Sequence[Partition], message: OutgoingMessage
    ) -> Partition:
        """The next partition; for a message with a key that of the key, without counting."""
        if message.key is not None:
            return partition_of_key(message.key, partitions)
        self._counter = counter = (self._counter + 1) & 0x7FFFFFFF
        return partitions[counter % len(partitions)]


class RandomSelector:
    """
    A random partition, with equal probabilities.

    :param chance: the source of randomness; None: the module ``random``.
    """

    __slots__ = ("_choice",)

    @checked()
    def __init__(self, chance: random.Random | None = None) -> None:
        self._choice = random.choice if chance is None else chance.choice

    def __call__(
        self, topic: str, partitions: Sequence[Partition], message: OutgoingMessage
    ) -> Partition:
        """A random partition; for a message with a key that of the key."""
        if message.key is not None:
            return partition_of_key(message.key, partitions)
        return self._choice(partitions)


class KeyHashSelector:
    """
    By a key that a function derives from the message, for programs that send without keys.

    :param key_of: the key of a message, ``attribute`` for example; a key given to ``send`` comes
        first.
    """

    __slots__ = ("_key_of",)

    @checked()
    def __init__(self, key_of: Callable[[OutgoingMessage], str | bytes]) -> None:
        self._key_of = key_of

    def __call__(
        self, topic: str, partitions: Sequence[Partition], message: OutgoingMessage
    ) -> Partition:
        """The partition of the key."""
        key = self._key_of(message) if message.key is None else message.key
        return partition_of_key(key, partitions)


class OrderedSelector:
    """
    For producers that keep an order: a message's partition depends on the configured partitions,
    not on those that happen to be available.

    :param configured: topic -> all of its partitions, see ``client.partitionsinfo``.
    :param choose: picks one of the configured partitions; by default that of the key.
    """

    __slots__ = ("_choose", "configured")

    def __init__(
        self,
        configured: Mapping[str, Sequence[Partition]],
        choose: Selector | None = None,
    ) -> None:
        self.configured = configured
        self._choose: Selector = _by_key if choose is None else choose

    def __call__(
        self, topic: str, partitions: Sequence[Partition], message: OutgoingMessage
    ) -> Partition:
        """
        The chosen partition, if it is available.

        :param partitions: the available ones; may be empty.
        :raises NoPartition: see ``choose`` and ``check``.
        """
        chosen = self.choose(topic, message)
        self.check(topic, chosen, partitions)
        return chosen

    def choose(self, topic: str, message: OutgoingMessage) -> Partition:
        """
        The partition of the message, available or not.

        :raises NoPartition: the topic is not configured, or no partition was chosen.
        """
        configured = self.configured.get(topic)
        if not configured:
            raise NoPartition(
                f"There is no config partitions for topic {topic},maybe you don't config it at"
                f" first? partitions_info needs {topic!r}: '<brokerId>:<count>;...'"
            )
        chosen = self._choose(topic, configured, message)
        if chosen is None:
            raise NoPartition(f"selected null partition for topic {topic}")
        return chosen

    def check(self, topic: str, chosen: Partition, partitions: Sequence[Partition]) -> None:
        """
        Check that a partition can be written.

        :raises NoPartition: the partition is neither configured nor available.
        :raises PartitionNotWritable: it is only one of the two, or no partition is available.
        """
        is_configured, is_available = chosen in self.configured[topic], chosen in partitions
        if is_configured and is_available:
            return
        if partitions and not is_configured and not is_available:
            raise NoPartition(
                f"invalid selected partition {chosen} for topic {topic}: neither configured nor"
                " available"
            )
        raise PartitionNotWritable(topic, chosen)


def _by_key(topic: str, partitions: Sequence[Partition], message: OutgoingMessage) -> Partition:
    """The partition of the key; without a key always the same one, although order is irrelevant."""
    return partition_of_key("" if message.key is None else message.key, partitions)
