"""
Keeps this broker and its topics registered in ZooKeeper, through faults of either.

``HeldNodes`` has the nodes that the broker should have and those that this session is known to
hold. One *pass* at a time removes the difference; every event that may have changed either starts
one::

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
              withdraw ----- from everywhere: WITHDRAWING --nothing held--> WITHDRAWN. A fault leads
                             to RETRYING, and from there back. A broker may start like this
                resume ----- from there to REGISTERING
                 stop  ----- from everywhere: STOPPING --ours deleted or STOP_SECONDS--> STOPPED

The broker node comes first; while it is another broker's, no other node is written. ``ownership``
decides whose a node is.

The wish to be withdrawn is independent of the status: a broker of either wish can be WAITING or
RETRYING.

Source: ``BrokerZooKeeper``. Differs: the original fails at a node that exists, registers the nodes
after a fault only in the next session, treats a topic as registered although that failed, refuses
the put that brought it, deletes and creates all nodes of a topic whose section changed in any way,
and deletes nodes without a check of their owner.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from metamorphosis.cluster.heldnodes import HeldNodes
from metamorphosis.cluster.model import (
    Broker,
    NodeStat,
    SessionEvent,
    SessionState,
    TopicRegistration,
    WatchEvent,
)
from metamorphosis.cluster.ownership import Occupied
from metamorphosis.cluster.paths import Paths
from metamorphosis.cluster.reports import RegistrationReports
from metamorphosis.errors import RegistryError
from metamorphosis.interfaces import IRegistry

RECHECK_SECONDS = 5.0  # between checks of another broker's node, in case its watch is lost
FIRST_RETRY_SECONDS = 0.1  # after a fault; doubles up to the next
LAST_RETRY_SECONDS = 5.0
STOP_SECONDS = 3.0  # for deleting our nodes; the rest goes with the session


class RegistrationStatus(Enum):
    """The states of a registration, in words for a log."""

    IDLE = "not started"
    DISABLED = "disabled by zk.zkEnable=false"
    WAITING = "waiting for ZooKeeper"
    REGISTERING = "registering"
    BLOCKED = "waiting for another broker's nodes to go"
    RETRYING = "retrying after an error"
    REGISTERED = "registered"
    WITHDRAWING = "withdrawing"
    WITHDRAWN = "withdrawn until it is resumed"
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
        self._enabled = enabled
        self._nodes = HeldNodes(registry, paths, broker, checksum)
        self._reports = RegistrationReports(broker)
        self._connected = False
        self._pass: Deferred[None] | None = None
        self._again = False  # another pass must follow the present one
        self._withdrawn: list[Deferred[None]] | None = (
            None  # fire when no node is held; None: register
        )
        self._timer: IDelayedCall | None = None
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._watched: set[str] = set()

    # -- calls of the broker

    def start(self, topics: Iterable[TopicRegistration], withdrawn: bool = False) -> None:
        """
        Register the broker, which listens by now, and ``topics`` as soon as possible.

        :param withdrawn: start as after ``withdraw``: nodes of the last run are deleted, and none
            are created before ``resume``.
        """
        if not self._enabled:
            self.status = RegistrationStatus.DISABLED
            return
        self.status = RegistrationStatus.WAITING
        if withdrawn:
            self._withdrawn = []
            self._nodes.leaving = True
            self._nodes.expect_leftovers()
        self.update_topics(topics)
        self._registry.on_session(self._session_changed)
        if self._registry.session_id():
            self._session_changed(SessionEvent(SessionState.CONNECTED, new_session=True))

    def register_topic(self, topic: TopicRegistration) -> Deferred[None] | None:
        """Register the topic of a first message; None if it is known, or cannot be registered now.
        Fires when it is registered."""
        if topic.topic in self._nodes.topics:
            return None
        if self.status in _NOT_RUNNING or self._withdrawn is not None:
            self.update_topics([topic])
            return None
        done = self._nodes.await_topic(topic.topic)
        self.update_topics([topic])
        return done

    def update_topics(self, topics: Iterable[TopicRegistration]) -> None:
        """Register the topics of a configuration that was read again. Removed topics stay until
        ``stop``."""
        self._nodes.update_topics(topics)
        self._wake()

    def set_checksum(self, checksum: int) -> None:
        """Publish the checksum of a changed configuration file. Slaves watch this node, so its data
        change in place."""
        self._nodes.checksum = checksum
        self._wake()

    def look_again(self) -> None:
        """
        Read all nodes again and create the missing ones, because another process may have deleted
        them while the session continued. A Java slave of a pair does that to its master when it
        starts.
        """
        if self._withdrawn is None:
            self._nodes.session_changed(False)
            self._wake()

    def withdraw(self) -> Deferred[None]:
        """
        Delete the nodes while the broker and the session continue, so that clients find another
        broker; ``resume`` registers again.

        :returns: fires when none of our nodes is left, however long ZooKeeper is away meanwhile, or
            when ``resume`` or ``stop`` is called before. Never fails.
        """
        if self.status in _NOT_RUNNING:
            return succeed(None)
        done: Deferred[None] = Deferred()
        if self._withdrawn is None:
            self._withdrawn = []
            self._nodes.leaving = True
            self._nodes.give_up_waiting()
        self._withdrawn.append(done)
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._wake()
        return done

    def resume(self) -> None:
        """Register again the nodes that ``withdraw`` has deleted, and the topics added
        meanwhile."""
        if self._withdrawn is None or self.status in _NOT_RUNNING:
            return
        self._end_withdrawal()
        self._withdrawn = None
        self._nodes.leaving = False
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._wake()

    def _end_withdrawal(self) -> None:
        """Fire the Deferreds of ``withdraw``."""
        if self._withdrawn:
            told, self._withdrawn = self._withdrawn, []
            for done in told:
                done.callback(None)

    def stop(self) -> Deferred[None]:
        """Delete our nodes, within ``STOP_SECONDS``. Never fails; the session is closed next."""
        if self.status in _NOT_RUNNING:
            return succeed(None)
        self.status = RegistrationStatus.STOPPING
        self._cancel_timer()
        self._nodes.leaving = True
        stopped = Deferred.fromCoroutine(self._release())
        return stopped.addTimeout(STOP_SECONDS, self._clock).addBoth(self._stopped)

    async def _release(self) -> None:
        if self._pass is not None:
            await self._pass
        await self._nodes.release()

    def _stopped(self, result: object) -> None:
        self.status = RegistrationStatus.STOPPED
        self._end_withdrawal()
        if isinstance(result, Failure):
            self._log.info(
                "not everything was unregistered ({reason}); it goes with the session",
                reason=result.value,
            )

    # -- passes

    def _session_changed(self, event: SessionEvent) -> None:
        if self.status in _NOT_RUNNING:
            return
        self._connected = event.state is SessionState.CONNECTED
        self._watched.clear()
        self._nodes.session_changed(event.new_session)
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._wake()

    def _wake(self) -> None:
        """Start a pass, now or after the present one."""
        if self.status in _NOT_RUNNING:
            return
        self._cancel_timer()
        if self._pass is not None:
            self._again = True
        elif not self._connected:
            self.status = RegistrationStatus.WAITING
        else:
            self._again = False
            self._pass = Deferred()
            if self._withdrawn is None:
                self.status = RegistrationStatus.REGISTERING
                work = self._nodes.register()
            else:
                self.status = RegistrationStatus.WITHDRAWING
                work = self._nodes.withdraw()
            Deferred.fromCoroutine(work).addBoth(self._pass_ended)

    def _pass_ended(self, result: list[RegistryError] | Failure) -> None:
        """Decide what follows: no pass, another one at once, or one after a delay."""
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
        self._reports.faults(occupied, others)
        if others:
            self.status = RegistrationStatus.RETRYING
            self._timer = self._clock.callLater(self._retry_seconds, self._wake)
            self._retry_seconds = min(self._retry_seconds * 2, LAST_RETRY_SECONDS)
        elif occupied:
            self.status = RegistrationStatus.BLOCKED
            self._timer = self._clock.callLater(RECHECK_SECONDS, self._wake)
        else:
            self._done()
        for each in occupied:
            self._watch(each.path)

    def _done(self) -> None:
        """All nodes are held, or none after a withdrawal."""
        self._retry_seconds = FIRST_RETRY_SECONDS
        if self._withdrawn is None:
            self.status = RegistrationStatus.REGISTERED
            self._reports.registered(len(self._nodes.topics), self._nodes.changed)
            return
        self._reports.withdrawn(self._nodes.changed)
        self.status = RegistrationStatus.WITHDRAWN
        self._end_withdrawal()

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _watch(self, path: str) -> None:
        """Start a pass when a node of another broker is deleted."""
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
