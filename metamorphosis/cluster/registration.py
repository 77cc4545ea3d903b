"""
Keeps this broker and its topics registered in ZooKeeper, whatever happens to either.

The registration knows which nodes there should be and which this session is known to hold. One
*pass* at a time makes the second like the first; whatever may have changed the first or the second
wakes it::

    IDLE --start--> WAITING --CONNECTED--> REGISTERING --every node held--> REGISTERED
                       ^                   |    ^  ^                            |
                       |   a node is not   |    |  +-- new topic, reload, ------+
                       |   ours: BLOCKED <-+    |      checksum
                       |     watch, RECHECK ----+
                       |   other fault:    |    |
                       |   RETRYING <------+    |
                       |     back-off ----------+
                       |
       SUSPENDED, LOST +---- from everywhere. A new session holds nothing; in the same session every
                             node is looked at again, the server may have lost some
                 stop  ----- from everywhere: STOPPING --ours deleted or STOP_SECONDS--> STOPPED

The broker node comes first; while it is another broker's nothing else is written. ``ownership``
says whose a node is.

Source: ``BrokerZooKeeper``. Differs: the original fails at a node that exists, registers what
follows a fault only in the next session, takes a topic for registered when that failed, refuses the
put that brought it, deletes and creates all nodes of a topic whose section changed in any way, and
deletes nodes without looking whose they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from metamorphosis.cluster.model import (
    Broker,
    NodeStat,
    SessionEvent,
    SessionState,
    TopicRegistration,
    WatchEvent,
)
from metamorphosis.cluster.nodes import BrokerNodes
from metamorphosis.cluster.ownership import Occupied, OwnNodes
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import NoNode, NotEmpty, RegistryError, RegistryUnavailable
from metamorphosis.interfaces import IRegistry

RECHECK_SECONDS = 5.0  # how often a node of another broker is looked at, should its watch get lost
FIRST_RETRY_SECONDS = 0.1  # after a fault; doubles up to the next
LAST_RETRY_SECONDS = 5.0
STOP_SECONDS = 3.0  # for deleting our nodes; the end of the session does the rest
LANES = 16  # topics registered at a time


class RegistrationStatus(Enum):
    """Where the registration stands, in words for a log."""

    IDLE = "not started"
    DISABLED = "disabled by zk.zkEnable=false"
    WAITING = "waiting for ZooKeeper"
    REGISTERING = "registering"
    BLOCKED = "waiting for another broker's nodes to go"
    RETRYING = "retrying after an error"
    REGISTERED = "registered"
    STOPPING = "unregistering"
    STOPPED = "stopped"


_NOT_RUNNING = frozenset(
    {
        RegistrationStatus.IDLE,
        RegistrationStatus.DISABLED,
        RegistrationStatus.STOPPING,
        RegistrationStatus.STOPPED,
    }
)


class BrokerRegistration:
    """
    The nodes of one broker.

    Thread: reactor. Nothing here raises because of ZooKeeper, waits for it or touches clients of
    the broker.

    :param broker: a master, or a slave, which has neither checksum nor legacy data.
    :param checksum: unsigned CRC-32 of the configuration file's bytes.
    :param enabled: ``zk.zkEnable``; without it nothing in ZooKeeper is read or changed.
    :ivar status: for logs.
    """

    _log = Logger()

    def __init__(
        self,
        registry: IRegistry,
        clock: IReactorTime,
        paths: Paths,
        broker: Broker,
        checksum: int = 0,
        enabled: bool = True,
    ) -> None:
        self.status = RegistrationStatus.IDLE
        self._registry = registry
        self._clock = clock
        self._broker = broker
        self._checksum = checksum
        self._enabled = enabled
        self._nodes = BrokerNodes(paths, broker)
        self._owned = OwnNodes(registry, self._nodes.own, self._nodes.url)
        self._topics: dict[str, TopicRegistration] = {}
        self._awaited: dict[str, Deferred[None]] = {}  # told when the topic is registered
        self._open: set[str] = set()  # topics whose nodes may not be right
        self._held: dict[str, bytes | None] = {}  # what this session wrote; None: no node of ours
        self._verified: set[str] = set()  # of these, what was seen since the last session event
        self._connected = False
        self._generation = 0  # of the connection; what was begun in one is not held in the next
        self._pass: Deferred[None] | None = None
        self._again = False
        self._news = False  # whether this pass changed anything
        self._timer: IDelayedCall | None = None
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._watched: set[str] = set()
        self._reported: set[str] = set()

    # -- what the broker asks for

    def start(self, topics: Iterable[TopicRegistration]) -> None:
        """Register the broker, which listens by now, and ``topics`` as soon as possible."""
        if not self._enabled:
            self.status = RegistrationStatus.DISABLED
            return
        self.status = RegistrationStatus.WAITING
        self.update_topics(topics)
        self._registry.on_session(self._session_changed)
        if self._registry.session_id():
            self._session_changed(SessionEvent(SessionState.CONNECTED, new_session=True))

    def register_topic(self, topic: TopicRegistration) -> Deferred[None] | None:
        """The first message of a topic came: register it unless it is known; fires when done."""
        if topic.topic in self._topics:
            return None
        done = self._awaited[topic.topic] = Deferred()
        self.update_topics([topic])
        return None if self.status in _NOT_RUNNING else done

    def update_topics(self, topics: Iterable[TopicRegistration]) -> None:
        """The configuration was read again. A topic that left it stays until ``stop``."""
        for topic in topics:
            if self._topics.get(topic.topic) != topic:
                self._topics[topic.topic] = topic
                self._open.add(topic.topic)
        self._wake()

    def set_checksum(self, checksum: int) -> None:
        """The configuration file changed. Slaves watch this node, so its data change in place."""
        self._checksum = checksum
        self._wake()

    def stop(self) -> Deferred[None]:
        """Delete what is ours, within ``STOP_SECONDS``. Never fails; the session is closed next."""
        if self.status in _NOT_RUNNING:
            return succeed(None)
        self.status = RegistrationStatus.STOPPING
        self._cancel_timer()
        stopped = Deferred.fromCoroutine(self._unregister())
        return stopped.addTimeout(STOP_SECONDS, self._clock).addBoth(self._stopped)

    def _stopped(self, result: object) -> None:
        self.status = RegistrationStatus.STOPPED
        if isinstance(result, Failure):
            self._log.info(
                "not everything was unregistered ({reason}); it goes with the session",
                reason=result.value,
            )

    # -- when a pass begins, and what follows it

    def _session_changed(self, event: SessionEvent) -> None:
        if self.status in _NOT_RUNNING:
            return
        self._generation += 1
        self._connected = event.state is SessionState.CONNECTED
        self._watched.clear()
        self._verified.clear()
        self._open.update(self._topics)
        self._retry_seconds = FIRST_RETRY_SECONDS
        if event.new_session:
            self._owned.remember(self._registry.session_id())
            self._held.clear()
        self._wake()

    def _wake(self) -> None:
        """Begin a pass, now or after the present one."""
        if self.status in _NOT_RUNNING:
            return
        self._cancel_timer()
        if self._pass is not None:
            self._again = True
        elif not self._connected:
            self.status = RegistrationStatus.WAITING
        else:
            self._again = self._news = False
            self.status = RegistrationStatus.REGISTERING
            self._pass = Deferred()
            Deferred.fromCoroutine(self._register()).addBoth(self._pass_ended)

    def _pass_ended(self, result: list[RegistryError] | Failure) -> None:
        """Decide what follows: unregistration, another pass at once, or one after a while."""
        ended, self._pass = self._pass, None
        if isinstance(result, Failure):
            self._log.failure("registration in ZooKeeper", result)
            result = [RegistryError(str(result.value))]
        if ended is not None:
            ended.callback(None)
        if self.status in _NOT_RUNNING:
            return
        if self._again:
            self._wake()
            return
        occupied = [fault for fault in result if isinstance(fault, Occupied)]
        others = [fault for fault in result if not isinstance(fault, Occupied)]
        self._report(occupied, others)
        if others:
            self.status = RegistrationStatus.RETRYING
            self._timer = self._clock.callLater(self._retry_seconds, self._wake)
            self._retry_seconds = min(self._retry_seconds * 2, LAST_RETRY_SECONDS)
        elif occupied:
            self.status = RegistrationStatus.BLOCKED
            self._timer = self._clock.callLater(RECHECK_SECONDS, self._wake)
        else:
            self._all_held()
        for each in occupied:
            self._watch(each.path)

    def _all_held(self) -> None:
        self.status = RegistrationStatus.REGISTERED
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._reported.clear()
        if self._news:
            self._log.info(
                "registered in ZooKeeper: broker {id} at {url}, topics: {topics}",
                id=self._broker.broker_id,
                url=self._broker.url,
                topics=len(self._topics),
            )

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _watch(self, path: str) -> None:
        """Wake when somebody else's node is gone."""
        if path in self._watched:
            return
        self._watched.add(path)

        def fired(_: WatchEvent) -> None:
            self._watched.discard(path)
            self._wake()

        def looked(stat: NodeStat | None) -> None:
            if stat is None:
                self._wake()

        looking = self._registry.exists(path, fired)
        looking.addCallbacks(looked, lambda failure: self._watched.discard(path))

    def _report(self, occupied: Sequence[Occupied], others: Sequence[RegistryError]) -> None:
        """Say each thing once until all is well again; lost connections the registry tells."""
        if occupied and self._is_news(str(occupied[0])):
            self._log.error(
                "brokerId {id} is in use by another broker, or an earlier run of this one is still"
                " known to ZooKeeper: {fault} (nodes: {count}); this broker is {url}. Such nodes"
                " are left alone: we register when they are gone and serve our clients meanwhile."
                " If both brokers are meant to run, give one another brokerId",
                id=self._broker.broker_id,
                fault=occupied[0],
                count=len(occupied),
                url=self._broker.url,
            )
        told = [fault for fault in others if not isinstance(fault, RegistryUnavailable)]
        if told and self._is_news(str(told[0])):
            self._log.error(
                "cannot register in ZooKeeper, trying on: {fault} (faults: {count})",
                fault=told[0],
                count=len(told),
            )

    def _is_news(self, text: str) -> bool:
        known = text in self._reported
        self._reported.add(text)
        return not known

    # -- a pass

    async def _register(self) -> list[RegistryError]:
        """Make every node right that is not known to be; what could not be done is returned."""
        generation = self._generation
        faults: list[RegistryError] = []
        try:
            await self._register_broker(generation)
        except RegistryError as error:
            return [error]
        names = iter(sorted(self._open))
        lanes = (self._register_topics(names, generation, faults) for _ in range(LANES))
        await gatherResults([Deferred.fromCoroutine(lane) for lane in lanes], consumeErrors=True)
        return faults

    async def _register_broker(self, generation: int) -> None:
        await self._hold(self._nodes.own, self._nodes.url, generation)
        if self._nodes.is_master:
            await self._register_parent(self._nodes.parent, generation)
            checksum = b"%d" % self._checksum
            await self._hold(self._nodes.checksum, checksum, generation, in_place=True)

    async def _register_parent(self, parent: str, generation: int) -> None:
        """The legacy data. The node is there, as our own is below it, and stays persistent."""
        if parent in self._verified:
            return
        try:
            if (await self._registry.get(parent))[0] != self._nodes.url:
                await self._registry.set_data(parent, self._nodes.url)
        except NoNode:
            await self._registry.create(parent, self._nodes.url, False)
        self._note(parent, self._nodes.url, generation)

    async def _register_topics(
        self, names: Iterator[str], generation: int, faults: list[RegistryError]
    ) -> None:
        """One lane: takes the next topic until none is left, the session changes or we stop."""
        for name in names:
            topic = self._topics[name]
            right = True
            for path, data in self._nodes.of_topic(topic):
                if generation != self._generation or self.status is RegistrationStatus.STOPPING:
                    return
                try:
                    await self._hold(path, data, generation)
                except RegistryError as error:
                    faults.append(error)
                    right = False
                    if isinstance(error, RegistryUnavailable):
                        return
            if right and generation == self._generation and topic is self._topics[name]:
                self._open.discard(name)
                self._awaited.pop(name, Deferred()).callback(None)

    async def _hold(
        self, path: str, data: bytes | None, generation: int, in_place: bool = False
    ) -> None:
        """Make the node what it should be unless it is known to be so."""
        if path in self._verified and self._held[path] == data:
            return
        if data is None:
            await self._owned.remove(path)
        else:
            await self._owned.claim(path, data, in_place, look_first=path in self._held)
        self._note(path, data, generation)

    def _note(self, path: str, data: bytes | None, generation: int) -> None:
        """Remember a success, unless it may have been in a session that is over."""
        if generation == self._generation:
            self._news = self._news or path not in self._held or self._held[path] != data
            self._held[path] = data
            self._verified.add(path)

    # -- stop

    async def _unregister(self) -> None:
        """Delete what this session holds: the broker first, then its topics, as the original."""
        if self._pass is not None:
            await self._pass
        of_broker = [self._nodes.own, self._nodes.checksum]
        for path in of_broker:
            if path in self._held:
                await self._owned.release(path)
        if self._nodes.parent in self._held:
            await self._clear_parent(self._nodes.parent)
        others = {*of_broker, self._nodes.parent}
        held = (path for path, data in self._held.items() if data is not None)
        topics = iter([path for path in held if path not in others])
        lanes = (self._release_all(topics) for _ in range(LANES))
        await gatherResults([Deferred.fromCoroutine(lane) for lane in lanes], consumeErrors=True)

    async def _release_all(self, paths: Iterator[str]) -> None:
        for path in paths:
            await self._owned.release(path)

    async def _clear_parent(self, parent: str) -> None:
        """Delete it; if a slave is below it, empty data say that its master left in order."""
        try:
            if (await self._registry.get(parent))[0] == self._nodes.url:
                await self._registry.delete(parent)
        except NoNode:
            pass
        except NotEmpty:
            await self._registry.set_data(parent, b"")
