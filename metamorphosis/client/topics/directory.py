"""
What producers know of topics: their writable partitions, and the brokers that have them.

One directory serves a session factory. A published topic is read from ZooKeeper, watched, and read
again whenever something about it or one of its brokers changes, and after every reconnection,
because watches are silently gone with the connection. It is tried for ever; until then the last
view stays in force, and the brokers that can be reached are used.

Without ZooKeeper (direct mode) every topic has the one partition ``ANY_PARTITION`` at the one
broker.

Source: ``ProducerZooKeeper``, ``MetaZookeeper``.

Differs: a topic whose first reading failed, or one of whose brokers cannot be reached, is usable as
soon as it can be; in the original every later send of that topic fails.

Differs: connections that did not change stay; the original closes and opens all of a topic's.

Differs: a default topic that its producer has published before becomes the default.
"""

from __future__ import annotations

from typing import Any, Final

from metamorphosis.client.checks import require
from metamorphosis.client.model import ANY_PARTITION, Partition
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.connections import Connections
from metamorphosis.client.network.flow import Event, settle
from metamorphosis.client.network.links import Log
from metamorphosis.client.settings import ClientConfig
from metamorphosis.client.topics.absence import Absence, not_published
from metamorphosis.client.topics.topicview import BrokerView, TopicView, partitions_in
from metamorphosis.cluster.model import SessionEvent, SessionState, WatchEvent
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import (
    ClientClosed,
    InvalidConfig,
    InvalidState,
    NoPartition,
    NotConnected,
    RegistryUnavailable,
)
from metamorphosis.interfaces import IRuntime

LOOK_AGAIN_SECONDS: Final = 5.0
"""Between two looks why a topic has no partitions, while there are sends."""

AGAIN_SECONDS: Final = (0.1, 0.5, 1.0, 5.0)
"""Before each further attempt to read a topic; the last one for ever."""


class PublishedTopic:
    """
    A topic that some producer publishes; everyone in the factory shares it. Look, do not touch.

    :ivar listed: all that ZooKeeper tells, sorted by number; the broker of one may be missing in
        ``brokers``. What is chosen by a key is chosen from these, so that a lost connection moves
        no key.
    :ivar partitions: of these, what a selector chooses from now: those whose broker is connected;
        if none is, those whose broker has an address; else all.
    :ivar brokers: broker id -> its connection, be it connected or not.
    """

    __slots__ = (
        "absence",
        "again",
        "brokers",
        "failures",
        "known",
        "listed",
        "looked_at",
        "looking",
        "name",
        "partitions",
        "timer",
        "urls",
        "users",
    )  # fmt: skip

    def __init__(self, runtime: IRuntime, name: str) -> None:
        self.name = name
        self.listed: tuple[Partition, ...] = ()
        self.absence: NoPartition | None = None  # why there are none
        self.looked_at = 0.0
        self.partitions: tuple[Partition, ...] = ()
        self.brokers: dict[int, BrokerConnection] = {}
        self.urls: dict[int, str] = {}
        self.users: set[int] = set()  # by id, see ``connections``
        self.known = Event(runtime)  # has been read once
        self.looking = False
        self.again = False  # what is being read may be old news
        self.failures = 0
        self.timer: Any = None

    def choose_from(self) -> None:
        """Find ``partitions``; a connection came or went, or what is listed changed."""
        brokers = self.brokers
        near = [each for each in self.listed if each[0] in brokers]
        connected = [each for each in near if brokers[each[0]].is_connected]
        self.partitions = tuple(connected or near or self.listed)


class PartitionDirectory:
    """
    :ivar topics: those published, by name; the hot path looks here first.

    Thread: the loop's.
    """

    def __init__(
        self,
        runtime: IRuntime,
        config: ClientConfig,
        connections: Connections,
        registry: Any,
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
        self._reader: TopicView | None = None
        self._absence = Absence(registry, paths, config.zookeeper or "")
        if registry is not None:
            self._reader = TopicView(registry, paths, self._fired, log)
            registry.on_session(self._session_changed)

    # -- publishing

    async def publish(self, topic: str, user: object) -> None:
        """
        Know the topic's partitions as long as ``user`` needs them.

        Returns when they have been read, however many there are, and each of their brokers is
        connected or was waited for ``publish_connect_timeout_ms``.

        :raises InvalidArgument: no name of a topic.
        :raises NotConnected: ZooKeeper did not answer in that time; it is tried on, and a send
            works as soon as it has.
        """
        require("topic", topic)
        published = self._add(topic, user)
        limit = self._config.publish_connect_timeout_ms / 1000
        if not await published.known.wait(limit):
            if not self._is_current(published):
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
        Publish the topic, and take its partitions for those topics that nobody has published.

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
        """The user needs it no longer; the last one's leaving ends the watching."""
        published = self.topics.get(topic)
        if published is None:
            return
        published.users.discard(id(user))
        if not published.users:
            self._forget(published)

    def close(self) -> None:
        """Forget everything; whoever waits is told."""
        self._closed = True
        for published in list(self.topics.values()):
            self._forget(published)

    # -- asking

    def topic_for(self, topic: str) -> PublishedTopic:
        """
        Where messages of a topic go: to its own partitions or, where nobody published it, to those
        of the default topic.

        :raises NoPartition: there are none; the class and the text say why.
        """
        published = self.topics.get(topic)
        if published is None and self.default_topic is not None:
            published = self.topics.get(self.default_topic)
        if published is None:
            raise not_published(topic, self.topics)
        if not published.partitions:
            if published.absence is None:
                raise self._absence.not_read(published.name)
            if self._runtime.seconds() - published.looked_at > LOOK_AGAIN_SECONDS:
                self._look(published)
            raise type(published.absence)(str(published.absence))
        return published

    def unregistered(self, topic: str, partition: Partition) -> NoPartition:
        """The error for a partition whose broker has no address at present."""
        return self._absence.unregistered(topic, partition)

    def broker_of(self, topic: str, partition: Partition) -> BrokerConnection:
        """
        The master of a partition of a published topic.

        :raises NoPartition: it has none at present.
        """
        published = self.topics.get(topic)
        broker = None if published is None else published.brokers.get(partition.broker_id)
        if broker is None:
            raise self.unregistered(topic, partition)
        return broker

    async def partitions_of(self, topic: str) -> list[Partition]:
        """
        The writable partitions of any topic, sorted by number; none if nobody knows it. Reads
        ZooKeeper, publishes nothing.

        :raises InvalidState: in direct mode, where nobody could know.
        :raises RegistryError: ZooKeeper does not answer.
        """
        if self._reader is None:
            raise InvalidState("partitions are known by ZooKeeper, and this is direct mode")
        require("topic", topic)
        return await self._reader.partitions(topic)

    # -- looking

    def _add(self, topic: str, user: object) -> PublishedTopic:
        if self._closed:
            raise ClientClosed(f"topic {topic} not published: the factory has been closed")
        published = self.topics.get(topic)
        if published is None:
            published = self.topics[topic] = PublishedTopic(self._runtime, topic)
            if self._reader is None:
                assert self._config.broker is not None
                broker = self._connections.acquire(self._config.broker, published)
                published.partitions = published.listed = (ANY_PARTITION,)
                published.brokers = {ANY_PARTITION.broker_id: broker}
                published.urls = {ANY_PARTITION.broker_id: broker.url}
                published.known.set()
            else:
                self._look(published)
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

    def _session_changed(self, event: SessionEvent) -> None:
        if event.state is SessionState.CONNECTED:
            assert self._reader is not None
            self._reader.forget_watches()
            for published in list(self.topics.values()):
                self._look(published)

    def _fired(self, event: WatchEvent) -> None:
        """A topic's directory changed, or a broker's own node, which any topic may need."""
        of_topic = self.topics.get(event.path.rpartition("/")[2])
        if of_topic is not None and event.path == self._paths.topics_pub(of_topic.name):
            self._look(of_topic)
        elif event.path.startswith(self._paths.broker_ids):
            for published in list(self.topics.values()):
                self._look(published)

    def _look(self, published: PublishedTopic) -> None:
        if published.looking:
            published.again = True
            return
        published.looking = True
        if published.timer is not None:
            published.timer.cancel()
            published.timer = None
        self._runtime.start(self._keep_looking(published))

    def _is_current(self, published: PublishedTopic) -> bool:
        return self.topics.get(published.name) is published

    async def _keep_looking(self, published: PublishedTopic) -> None:
        """Read the topic until what was read is the last word, or later if it cannot be read."""
        assert self._reader is not None
        while self._is_current(published):
            published.again = False
            try:
                view = await self._reader.brokers(published.name)
                absence = None
                if not partitions_in(view):
                    absence = await self._absence.reason(published.name)
                if self._is_current(published):
                    self._adopt(published, view, absence)
            except Exception as error:
                if not published.again and self._is_current(published):
                    self._look_later(published, error)
            if not published.again:
                break
        published.looking = False

    def _look_later(self, published: PublishedTopic, error: Exception) -> None:
        delay = AGAIN_SECONDS[min(published.failures, len(AGAIN_SECONDS) - 1)]
        published.failures += 1
        if published.failures == 1 or not isinstance(error, RegistryUnavailable):
            self._log.warn(
                "Topic {topic}: partitions cannot be read ({error}); trying on",
                topic=published.name,
                error=error,
            )
        published.timer = self._runtime.call_later(delay, self._look, published)

    def _adopt(
        self,
        published: PublishedTopic,
        view: dict[int, BrokerView],
        absence: NoPartition | None,
    ) -> None:
        """What was read is in force from now on; unchanged connections stay."""
        brokers, urls = {}, {}
        for broker_id, seen in view.items():
            if seen.url is None:
                continue
            try:
                brokers[broker_id] = self._connections.acquire(seen.url, published)
                urls[broker_id] = seen.url
            except InvalidConfig as error:
                self._log.error("Broker {id} is left out: {error}", id=broker_id, error=error)
        for broker in published.brokers.values():
            broker.changes.unwatch(published)
        for url in set(published.urls.values()) - set(urls.values()):
            self._connections.release(url, published)
        listed = tuple(partitions_in(view))
        self._tell(published, listed, absence)
        published.listed, published.absence = listed, absence
        published.looked_at = self._runtime.seconds()
        published.brokers, published.urls = brokers, urls
        for broker in brokers.values():
            broker.changes.watch(published, published.choose_from)
        published.choose_from()
        published.failures = 0
        published.known.set()

    def _tell(
        self, published: PublishedTopic, listed: tuple[Partition, ...], absence: NoPartition | None
    ) -> None:
        """News in the log."""
        if absence is not None:
            if str(absence) != str(published.absence):
                self._log.warn("{error}", error=absence)
        elif listed != published.listed:
            self._log.info(
                "Topic {topic}: {count} writable partitions on brokers {brokers}",
                topic=published.name,
                count=len(listed),
                brokers=", ".join(map(str, sorted({each.broker_id for each in listed}))),
            )
