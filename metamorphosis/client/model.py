"""
The values of the client: partitions, what a send came to, what a consumer gets, how far it is.
Pure.

Source: ``Partition``, ``SendResult``, ``TopicPartitionRegInfo``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from metamorphosis.message import Message


class Partition(NamedTuple):
    """A partition of a topic on a broker; sorts by number. The text is that of ZooKeeper's nodes."""

    broker_id: int
    number: int

    def __str__(self) -> str:
        return f"{self.broker_id}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> Partition:
        """
        ``<brokerId>-<number>``.

        :raises ValueError: it is something else.
        """
        broker_id, hyphen, number = text.partition("-")
        if not (hyphen and broker_id.isdecimal() and number.isdecimal()):
            raise ValueError(f"partition {text!r}: <brokerId>-<number> expected, as in 0-3")
        return cls(int(broker_id), int(number))


ANY_PARTITION = Partition(-1, -1)
"""The broker chooses: what a producer without ZooKeeper sends to."""


class SendResult(NamedTuple):
    """
    Where a message was stored.

    :ivar message_id: given by the broker; negative from Java brokers of 1.4.5 and later.
    :ivar offset: bytes from the start of the partition; -1 inside a transaction.
    """

    message_id: int
    partition: Partition
    offset: int


@dataclass(slots=True)
class Position:
    """
    How far a group is in a partition; shared by whoever claims, delivers and commits.

    :ivar offset: bytes from the start of the partition, where the next fetch begins.
    :ivar message_id: of the last message in front of it, -1 when unknown.
    :ivar modified: not committed yet.
    """

    topic: str
    partition: Partition
    offset: int
    message_id: int = -1
    modified: bool = False


class StoredOffset(NamedTuple):
    """What an offset store keeps of a ``Position``."""

    topic: str
    partition: Partition
    offset: int
    message_id: int = -1


@dataclass(frozen=True, slots=True, repr=False)
class ReceivedMessage(Message):
    """
    A message as a consumer gets it.

    :ivar partition: where it came from.
    :ivar offset: of its record, bytes from the start of the partition.
    """

    partition: Partition
    offset: int

    @property
    def next_offset(self) -> int:
        """Where the next record begins."""
        return self.offset + self.record_bytes
