"""
Where the messages of a transaction go: every one of them to the same broker.

The first message is placed like any other; its broker is that of the transaction. Later ones are
placed on partitions of that broker alone. A key is hashed over these partitions, so that it may
lead to another partition than outside a transaction.

Source: ``SimpleMessageProducer.selectPartition``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from metamorphosis.client.checks import require
from metamorphosis.client.model import ANY_PARTITION, OutgoingMessage, Partition
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.topics.selectors import KeyHashSelector, OrderedSelector, Selector
from metamorphosis.errors import InvalidMessage, NoPartition, NothingSelected

if TYPE_CHECKING:
    from metamorphosis.client.topics.directory import PartitionDirectory
    from metamorphosis.client.topics.published import PublishedTopic


class Placement:
    """
    Chooses partitions for one transaction. Thread: the loop's.

    :ivar broker: the only one allowed; None: whichever has the first message's partition.
    """

    def __init__(
        self, directory: PartitionDirectory, selector: Selector, broker: BrokerConnection | None
    ) -> None:
        self.broker = broker
        self._directory = directory
        self._selector = selector
        self._by_key = isinstance(selector, KeyHashSelector | OrderedSelector)

    def place(
        self, message: OutgoingMessage, wanted: Partition | None
    ) -> tuple[Partition, BrokerConnection]:
        """
        Partition and broker of a message.

        :param wanted: the sender's choice.
        :raises NoPartition: there is none at the transaction's broker. Errors of the selector are
            raised as they are.
        """
        published = self._directory.topic_for(message.topic)
        if published.partitions[0] is ANY_PARTITION:
            return self._direct(published, wanted)
        partition = self._choose(published, message) if wanted is None else wanted
        broker = published.brokers.get(partition.broker_id)
        if broker is None:
            raise self._directory.unregistered(message.topic, partition)
        if self.broker is not None and broker is not self.broker:
            raise NoPartition(
                f"topic {message.topic}, partition {partition}: it is at {broker.url}, and the"
                f" transaction at {self.broker.url}; a transaction has one broker"
            )
        return partition, broker

    def _direct(
        self, published: PublishedTopic, wanted: Partition | None
    ) -> tuple[Partition, BrokerConnection]:
        """Without ZooKeeper: a broker does not choose the partition of a transaction's message."""
        if wanted is None or wanted.number < 0:
            raise InvalidMessage(
                f"topic {published.name}: without ZooKeeper a message of a transaction needs its"
                " partition, as in partition=Partition(0, 3)"
            )
        return wanted, published.brokers[ANY_PARTITION.broker_id]

    def _choose(self, published: PublishedTopic, message: OutgoingMessage) -> Partition:
        found = self._selector(published.name, self._candidates(published, message), message)
        if found is None:
            raise NothingSelected(f"the selector found no partition for topic {message.topic}")
        if type(found) is not Partition:
            require("partition", found)
        return found

    def _candidates(
        self, published: PublishedTopic, message: OutgoingMessage
    ) -> Sequence[Partition]:
        if self.broker is None:
            of_key = message.key is not None or self._by_key
            return published.listed if of_key else published.partitions
        brokers = published.brokers
        found = [each for each in published.listed if brokers.get(each[0]) is self.broker]
        if not found:
            raise NoPartition(
                f"topic {message.topic}: the transaction's broker {self.broker.url} has no"
                " partition of it"
            )
        return found
