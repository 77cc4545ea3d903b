"""A broker in ZooKeeper: its session, its registration, and the topics that it registers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred

from metamorphosis.cluster.model import Broker, TopicRegistration
from metamorphosis.cluster.paths import Paths
from metamorphosis.cluster.registration import BrokerRegistration, RegistrationStatus
from metamorphosis.config.model import BrokerConfig, TopicConfig
from metamorphosis.interfaces import IRegistry, IWorkerThreads

VISIBLE = (
    RegistrationStatus.REGISTERED,
    RegistrationStatus.REGISTERING,
    RegistrationStatus.RETRYING,
)
"""In these states clients may have found the broker in ZooKeeper."""


class Presence:
    """
    Session and registration of one broker. Thread: reactor.

    :param threads: for the session; stopped with it.
    :param make_registry: takes the arguments of ``ZooKeeperRegistry``.
    """

    def __init__(
        self,
        reactor: Any,
        config: BrokerConfig,
        broker: Broker,
        threads: IWorkerThreads,
        make_registry: Callable[..., IRegistry],
    ) -> None:
        zookeeper = config.zookeeper
        self._enabled = zookeeper.enable
        self._threads = threads
        self.registry = make_registry(
            reactor, reactor, threads, zookeeper.connect, zookeeper.session_timeout
        )
        self.registration = BrokerRegistration(
            self.registry,
            reactor,
            Paths(zookeeper.root),
            broker,
            config.checksum,
            zookeeper.enable,
        )

    def start(self, topics: Iterable[TopicConfig], withdrawn: bool = False) -> None:
        """
        Register the broker, which listens by now, and ``topics`` as soon as possible.

        :param withdrawn: do not register before ``BrokerRegistration.resume``.
        """
        if self._enabled:
            self.registry.start()
        self.registration.start(map(_registration, topics), withdrawn)

    def topic_used(self, topic: TopicConfig) -> Deferred[None] | None:
        """See ``BrokerRegistration.register_topic``."""
        return self.registration.register_topic(_registration(topic))

    def update(self, topics: Iterable[TopicConfig]) -> None:
        """Register the topics of a configuration that was read again."""
        self.registration.update_topics(map(_registration, topics))

    async def stop(self) -> bool:
        """Unregister and end the session; returns whether clients may have found the broker."""
        visible = self.registration.status in VISIBLE
        await self.registration.stop()
        await self.registry.stop()
        await self._threads.stop()
        return visible


def _registration(topic: TopicConfig) -> TopicRegistration:
    return TopicRegistration(
        topic.name, topic.num_partitions, topic.accept_publish, topic.accept_subscribe
    )
