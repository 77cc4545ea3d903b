"""
Updates published topics when ZooKeeper changes.

A topic is read when it is published, watched, and read again whenever its nodes or those of one of
its brokers change, and after every reconnection, because watches are lost with the connection
without notice. Reading is repeated until it succeeds; until then the last view stays valid, and the
reachable brokers are used.

Source: ``ProducerZooKeeper``, ``MetaZookeeper``.

Differs: a topic whose first reading failed, or with an unreachable broker, can be used as soon as
the fault ends; in the original every later send of that topic fails.

Differs: connections that did not change stay; the original closes and opens all of a topic's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from metamorphosis.client.model import Partition
from metamorphosis.client.network.connections import Connections
from metamorphosis.client.network.links import Log
from metamorphosis.client.topics.absence import Absence
from metamorphosis.client.topics.published import PublishedTopic
from metamorphosis.client.topics.topicview import BrokerView, TopicView, partitions_in
from metamorphosis.cluster.model import SessionEvent, SessionState, WatchEvent
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import NoPartition, RegistryUnavailable
from metamorphosis.interfaces import IRegistry, IRuntime

AGAIN_SECONDS: Final = (0.1, 0.5, 1.0, 5.0)
"""Pauses before further attempts to read a topic; the last one is repeated."""


class TopicWatch:
    """
    Reads and watches published topics. Thread: the loop's.

    :param registry: results are futures of the runtime.
    :param where: ``host:port,.../chroot`` of ZooKeeper, for texts.
    :param topics: the published ones; the directory adds and removes them.
    """

    def __init__(
        self,
        runtime: IRuntime,
        connections: Connections,
        registry: IRegistry,
        paths: Paths,
        where: str,
        log: Log,
        topics: Mapping[str, PublishedTopic],
    ) -> None:
        self._runtime = runtime
        self._connections = connections
        self._paths = paths
        self._log = log
        self._topics = topics
        self._absence = Absence(registry, paths, where)
        self._view = TopicView(registry, paths, self._fired, log)
        registry.on_session(self._session_changed)

    async def partitions(self, topic: str) -> list[Partition]:
        """See ``TopicView``."""
        return await self._view.partitions(topic)

    def not_read(self, published: PublishedTopic) -> NoPartition:
        """The error for a topic that could not be read yet."""
        return self._absence.not_read(published.name)

    def _session_changed(self, event: SessionEvent) -> None:
        if event.state is SessionState.CONNECTED:
            self._view.forget_watches()
            for published in list(self._topics.values()):
                self.look(published)

    def _fired(self, event: WatchEvent) -> None:
        """A topic's directory has changed, or a broker's own node, which concerns all topics."""
        of_topic = self._topics.get(event.path.rpartition("/")[2])
        if of_topic is not None and event.path == self._paths.topics_pub(of_topic.name):
            self.look(of_topic)
        elif event.path.startswith(self._paths.broker_ids):
            for published in list(self._topics.values()):
                self.look(published)

    def look(self, published: PublishedTopic) -> None:
        """Read the topic, again if it is being read."""
        if published.looking:
            published.again = True
            return
        published.looking = True
        if published.timer is not None:
            published.timer.cancel()
            published.timer = None
        self._runtime.start(self._keep_looking(published))

    def _is_current(self, published: PublishedTopic) -> bool:
        return self._topics.get(published.name) is published

    async def _keep_looking(self, published: PublishedTopic) -> None:
        """Read the topic until it did not change meanwhile; after a failure try later."""
        while self._is_current(published):
            published.again = False
            try:
                view = await self._view.brokers(published.name)
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
                "Topic {topic}: partitions cannot be read ({error}); still trying",
                topic=published.name,
                error=error,
            )
        published.timer = self._runtime.call_later(delay, self.look, published)

    def _adopt(
        self,
        published: PublishedTopic,
        view: dict[int, BrokerView],
        absence: NoPartition | None,
    ) -> None:
        """Use a new view; connections that did not change stay."""
        brokers, urls = {}, {}
        for broker_id, seen in view.items():
            if seen.url is not None:
                brokers[broker_id] = self._connections.acquire(seen.url, published)
                urls[broker_id] = seen.url
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
        """Log the changes."""
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
