"""
The topics of a session's producers: their writable partitions, and the brokers of these.

One directory serves all producers of a session. ``topicwatch`` updates published topics when
ZooKeeper changes. Without ZooKeeper (direct mode) every topic has the one partition
``ANY_PARTITION`` at the one broker.

Source: ``ProducerZooKeeper``, ``MetaZookeeper``.

Differs: a default topic that its producer has published before becomes the default.
"""

from __future__ import annotations

from typing import Final

from metamorphosis.client.checks import require
from metamorphosis.client.model import ANY_PARTITION, Partition
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.connections import Connections
from metamorphosis.client.network.flow import settle
from metamorphosis.client.network.links import Log
from metamorphosis.client.settings import ClientConfig
from metamorphosis.client.topics.absence import not_published, unregistered
from metamorphosis.client.topics.published import PublishedTopic
from metamorphosis.client.topics.topicwatch import TopicWatch
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import ClientClosed, InvalidState, NoPartition, NotConnected
from metamorphosis.interfaces import IRegistry, IRuntime

LOOK_AGAIN_SECONDS: Final = 5.0
"""Between two checks for the reason why a topic has no partitions, while messages are sent."""


class PartitionDirectory:
    """
    The published topics of a session. Thread: the loop's.

    :ivar topics: the published ones, by name; each send looks here first.
    """

    def __init__(
        self,
        runtime: IRuntime,
        config: ClientConfig,
        connections: Connections,
        registry: IRegistry | None,
        paths: Paths,
        log: Log,
    ) -> None:
        """:param registry: ``IRegistry`` with futures of the runtime; None in direct mode."""
        self.topics: dict[str, PublishedTopic] = {}
        self.default_topic: str | None = None
        self._runtime = runtime
        self._config = config
        self._connections = connections
        self._paths = paths
        self._log = log
        self._closed = False
        self._watch: TopicWatch | None = None
        if registry is not None:
            where = config.zookeeper or ""
            self._watch = TopicWatch(runtime, connections, registry, paths, where, log, self.topics)

    @property
    def is_direct(self) -> bool:
        """Whether the one broker chooses the partitions."""
        return self._watch is None

    # -- publishing

    async def publish(self, topic: str, user: object) -> None:
        """
        Keep the topic's partitions up to date as long as ``user`` needs them.

        Returns when they have been read, even if there are none, and each of their brokers is
        connected or did not reply within ``publish_connect_timeout_ms``.

        :raises InvalidArgument: not the name of a topic.
        :raises NotConnected: ZooKeeper did not reply in that time; further attempts follow, and
            sends work as soon as it does.
        """
        require("topic", topic)
        published = self._add(topic, user)
        limit = self._config.publish_connect_timeout_ms / 1000
        if not await published.known.wait(limit):
            if self.topics.get(topic) is not published:
                raise ClientClosed(f"topic {topic} not published: the producer has been closed")
            raise NotConnected(
                f"topic {topic}: ZooKeeper has not told its partitions within {limit:g} s;"
                " it is asked on"
            )
        brokers = list(published.brokers.values())
        patience = self._config.refused_timeout_ms / 1000
        outcomes = await settle(
            [self._runtime.start(each.reached(limit, patience)) for each in brokers]
        )
        for broker, ready in zip(brokers, outcomes, strict=True):
            if ready is not True:
                fault = broker.fault
                self._log.warn(
                    "Topic {topic}: broker {url} has not been reached yet ({reason}); what must go"
                    " to its partitions waits for it",
                    topic=topic,
                    url=broker.url,
                    reason="no answer" if fault is None else fault.reason,
                )

    async def set_default_topic(self, topic: str, user: object) -> None:
        """
        Publish the topic, and use its partitions for topics that were not published.

        :raises InvalidState: another one is the default already.
        """
        require("topic", topic)
        if self.default_topic not in (None, topic):
            raise InvalidState(
                f"the default topic is {self.default_topic} and cannot become {topic}: a session"
                " factory has one"
            )
        self.default_topic = topic
        await self.publish(topic, user)

    def release(self, topic: str, user: object) -> None:
        """End the use of a topic by ``user``; a topic without users is forgotten."""
        published = self.topics.get(topic)
        if published is None:
            return
        published.users.discard(id(user))
        if not published.users:
            self._forget(published)

    def close(self) -> None:
        """Forget all topics, and end the waits for them."""
        self._closed = True
        for published in list(self.topics.values()):
            self._forget(published)

    # -- asking

    def topic_for(self, topic: str) -> PublishedTopic:
        """
        The topic whose partitions take the messages: the topic itself or, if it has not been
        published, the default topic.

        :raises NoPartition: there are none; class and text give the reason.
        """
        published = self.topics.get(topic)
        if published is None and self.default_topic is not None:
            published = self.topics.get(self.default_topic)
        if published is None:
            raise not_published(topic, self.topics)
        if not published.partitions:
            assert self._watch is not None  # in direct mode there is always a partition
            if published.absence is None:
                raise self._watch.not_read(published)
            if self._runtime.seconds() - published.looked_at > LOOK_AGAIN_SECONDS:
                self._watch.look(published)
            raise type(published.absence)(str(published.absence))
        return published

    def unregistered(self, topic: str, partition: Partition) -> NoPartition:
        """The error for a partition whose broker has no address at present."""
        return unregistered(topic, partition, self._paths, self._config.zookeeper or "")

    def broker_of(self, topic: str, partition: Partition) -> BrokerConnection:
        """
        The master of a partition of a published topic.

        :raises NoPartition: it has no master at present.
        """
        published = self.topics.get(topic)
        broker = None if published is None else published.brokers.get(partition.broker_id)
        if broker is None:
            raise self.unregistered(topic, partition)
        return broker

    async def partitions_of(self, topic: str) -> list[Partition]:
        """
        The writable partitions of any topic, sorted by number; none if no broker has it. Reads
        ZooKeeper, publishes nothing.

        :raises InvalidState: in direct mode, without ZooKeeper.
        :raises RegistryError: ZooKeeper does not reply.
        """
        if self._watch is None:
            raise InvalidState("partitions are known by ZooKeeper, and this is direct mode")
        require("topic", topic)
        return await self._watch.partitions(topic)

    # -- topics

    def _add(self, topic: str, user: object) -> PublishedTopic:
        if self._closed:
            raise ClientClosed(f"topic {topic} not published: the factory has been closed")
        published = self.topics.get(topic)
        if published is None:
            published = self.topics[topic] = PublishedTopic(self._runtime, topic)
            if self._watch is None:
                assert self._config.broker is not None
                broker = self._connections.acquire(self._config.broker, published)
                published.partitions = published.listed = (ANY_PARTITION,)
                published.brokers = {ANY_PARTITION.broker_id: broker}
                published.urls = {ANY_PARTITION.broker_id: broker.url}
                published.known.set()
            else:
                self._watch.look(published)
        published.users.add(id(user))
        return published

    def _forget(self, published: PublishedTopic) -> None:
        del self.topics[published.name]
        if published.timer is not None:
            published.timer.cancel()
        for broker in published.brokers.values():
            broker.changes.unwatch(published)
        for url in set(published.urls.values()):
            self._connections.release(url, published)
        published.listed = published.partitions = ()
        published.brokers, published.urls = {}, {}
        published.known.abandon()
