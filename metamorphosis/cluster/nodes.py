"""
The nodes of one broker and their contents. Pure.

Source: ``BrokerZooKeeper``.
"""

from __future__ import annotations

from collections.abc import Iterator

from metamorphosis.cluster.model import Broker, TopicBroker, TopicRegistration
from metamorphosis.cluster.paths import Paths


class BrokerNodes:
    """
    The nodes of one broker.

    :ivar own: the broker node, ``master`` or ``slave<n>``; its data are ``url``.
    :ivar parent: the persistent node above it, whose data are for clients older than 1.4.
    :ivar checksum: the node with the checksum of the configuration file.
    :ivar is_master: a slave writes neither the data of ``parent`` nor ``checksum``.
    """

    def __init__(self, paths: Paths, broker: Broker) -> None:
        self._paths = paths
        self._name = broker.node_name
        self.url = broker.url.encode("utf-8")
        self.parent = paths.broker(broker.broker_id)
        self.checksum = paths.checksum(broker.broker_id)
        self.is_master = broker.slave_id is None
        if broker.slave_id is None:
            self.own = paths.master(broker.broker_id)
        else:
            self.own = paths.slave(broker.broker_id, broker.slave_id)

    def of_topic(self, topic: TopicRegistration) -> Iterator[tuple[str, bytes | None]]:
        """Path and data of a topic's three nodes; ``None``: this broker must not have that node."""
        described = TopicBroker(topic.num_partitions, self._name).encode()
        yield f"{self._paths.topics(topic.topic)}/{self._name}", b"%d" % topic.num_partitions
        published = described if topic.accept_publish else None
        yield f"{self._paths.topics_pub(topic.topic)}/{self._name}", published
        subscribed = described if topic.accept_subscribe else None
        yield f"{self._paths.topics_sub(topic.topic)}/{self._name}", subscribed
