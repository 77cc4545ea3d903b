"""
Partitions, and the position of a reader in one: the values that the client passes to a user's
offset store. Pure; users import both from ``metamorphosis.client.model``.

Source: ``Partition``, ``TopicPartitionRegInfo``.
"""

from __future__ import annotations

from typing import NamedTuple


class Partition(NamedTuple):
    """A partition of a topic on a broker; sorts by number. Its text is as in ZooKeeper's nodes."""

    broker_id: int
    number: int

    def __str__(self) -> str:
        return f"{self.broker_id}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> Partition:
        """
        Parse ``<brokerId>-<number>``.

        :raises ValueError: the text has another form.
        """
        broker_id, hyphen, number = text.partition("-")
        if not (hyphen and broker_id.isdecimal() and number.isdecimal()):
            raise ValueError(f"partition {text!r}: <brokerId>-<number> expected, as in 0-3")
        return cls(int(broker_id), int(number))


class StoredOffset(NamedTuple):
    """The part of a ``Position`` that an offset store keeps."""

    topic: str
    partition: Partition
    offset: int
    message_id: int = -1
