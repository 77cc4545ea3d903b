"""
The broker as a whole: its parts, the order of their start and stop, and the effect of a reload.

Start: data directories locked, message ids, stores loaded, journal of transactions recovered,
retention, port, ZooKeeper, the role. Checks that need no reactor are made before it runs, so that
``twistd`` fails at once. Registration continues in the background, so that a broker serves while
ZooKeeper is away.

Stop, the reverse: unregister, keep serving for ``zk.zkSyncTimeMs`` so that clients can leave, close
the port, answer or refuse the requests in flight, end the work of the role, flush and close the
stores, drop the journal's finished records, write the last id, unlock.

    phase       event                                                      phase
    STARTING    every part runs                                            SERVING
    any         stopService                                                LEAVING
    LEAVING     the last wait for clients is over                          CUTTING

A reload needs SERVING. ``hurry`` ends the present wait and skips the later ones; in CUTTING it
aborts the remaining connections.

Source: ``MetaMorphosisBroker``, ``MetamorphosisStartup``. Differs: the original closes its stores
before its connections, so that late puts fail with an internal error; and when a part cannot start,
its process stays, half started. Ours ends with status 1.
"""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure

from metamorphosis import __version__, native
from metamorphosis.broker.factory import BrokerFactory
from metamorphosis.broker.filters import unusable_filters
from metamorphosis.broker.responders import Responders
from metamorphosis.cluster.model import Broker
from metamorphosis.cluster.presence import Presence
from metamorphosis.cluster.registry import ZooKeeperRegistry
from metamorphosis.config.hostname import published_host
from metamorphosis.config.model import BrokerConfig, Settings, TopicConfig
from metamorphosis.daemon.built import Served, Stored
from metamorphosis.daemon.parts import OrderedService, Part
from metamorphosis.daemon.process import StartRefused, exit_with, file_shares
from metamorphosis.daemon.reload import Reloaded, hidden_partitions, read_again, shortened
from metamorphosis.daemon.storage import BrokerStorage, MakeThreads
from metamorphosis.daemon.waits import Waits
from metamorphosis.errors import MetaQError
from metamorphosis.interfaces import IRegistry
from metamorphosis.replication.role import PLAIN, Attached, Registers, Role
from metamorphosis.threads import WorkerThreads
from metamorphosis.transactions.administration import TransactionAdministration
from metamorphosis.web.administration import Administration

REFUSE_SECONDS = 0.2
"""Seconds from the first refusal to the end of the connections, in which a client gets a 503
instead of a reset."""

EXPECTED = (MetaQError, OSError, CannotListenError)
"""Failures of a start whose text is sufficient; others are logged with a traceback."""


class Phase(Enum):
    """The phase of a broker; see the module."""

    STARTING = "parts are being started"
    SERVING = "every part runs"
    LEAVING = "stops, and waits for clients"
    CUTTING = "stops, and its connections are being closed"


class BrokerService(OrderedService):
    """
    A broker from its configuration to its last flush. Thread: reactor.

    One long class, because every part that it makes is passed to a later one.

    :ivar config: the present configuration; ``reload`` replaces it.
    :ivar settings: the present settings; ``reload`` replaces them.
    :ivar served: the parts that answer clients; None until the port is open.
    :ivar role: the broker's role in replication.
    :param exit_with: called with the exit status when a start fails while the reactor runs.
    :param make_threads: takes the reactor, how many threads and their name.
    :param make_registry: takes the arguments of ``ZooKeeperRegistry``.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        config: BrokerConfig,
        settings: Settings,
        role: Role = PLAIN,
        exit_with: Callable[[int], None] = exit_with,
        make_threads: MakeThreads = WorkerThreads,
        make_registry: Callable[..., IRegistry] = ZooKeeperRegistry,
    ) -> None:
        super().__init__(reactor)
        if role.registers is Registers.NEVER:
            config = replace(config, zookeeper=replace(config.zookeeper, enable=False))
        self.config = config
        self.settings = settings
        self.role = role
        self._exit_with = exit_with
        self._make_threads = make_threads
        self._make_registry = make_registry
        self.served: Served | None = None
        self._phase = Phase.STARTING
        self._is_broken = False  # the reason was logged
        self._role_works = False
        self._waits = Waits(reactor)
        self._storage = BrokerStorage(
            reactor, config, settings, make_threads, self._stop_broken, role.has_transactions
        )
        self.parts = [
            *self._storage.parts,
            Part("the administration", self._start_administration, self._stop_administration),
            Part(f"the work of the {role.name}", stop=self._stop_role),
            Part("the port", self._listen, self._stop_listening),
            Part("the registration", self._register, self._unregister),
            Part(f"the {role.name}", self._start_role),
        ]

    # Starting

    def startService(self) -> None:
        """
        Do the steps that need no reactor, and let the others follow when it runs.

        :raises StartRefused: the reason is in the log.
        """
        self._log.info(
            "metamorphosis {version} starts broker {id}{role} with {path}; {way}",
            version=__version__,
            id=self.config.broker_id,
            role=self.role.name and f", {self.role.name},",
            path=self.config.path,
            way=native.way,
        )
        self._warn()
        try:
            check_port(self.interface(), self.config.server_port)
            self._storage.prepare()
        except EXPECTED as error:
            self._storage.unlock()
            self._log.critical("Cannot start: {error}", error=error)
            raise StartRefused(str(error)) from error
        super().startService()

    def start_failed(self, part: Part, failure: Failure) -> None:
        """Log the reason in one line, and end the process with status 1 after an orderly stop."""
        if failure.check(*EXPECTED):
            self._log.critical("Cannot start: {error}", error=failure.value)
        else:
            self._log.failure("Cannot start {part}", failure, part=part.name)
        self._exit_with(1)
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            pass  # a signal came first

    def started(self) -> None:
        """Log one line about this broker."""
        self._phase = Phase.SERVING
        # The objects of a start live as long as the process: without ``freeze``, each full
        # collection would traverse them and stop the reactor for 20 ms.
        gc.collect()
        gc.freeze()
        config = self.config
        zookeeper = config.zookeeper
        self._log.info(
            "Broker {id}{role} serves at {url}: {partitions} partitions in {path}; topics {topics};"
            " ZooKeeper {zookeeper}",
            id=config.broker_id,
            role=self.role.name and f", {self.role.name},",
            url=self._served.broker.url,
            partitions=len(self._stored.stores),
            path=os.path.abspath(config.data_path),
            topics=shortened(config.topics),
            zookeeper=f"{zookeeper.connect}{zookeeper.root}" if zookeeper.enable else "not used",
        )
        self._warn_of_hidden()

    def interface(self) -> str:
        """The address to listen on, empty: all."""
        return self.settings.interface

    def host(self) -> str:
        """The host that clients find in ZooKeeper."""
        return published_host(self.config)

    def _stop_broken(self, reason: str) -> None:
        """Stop, because later answers could be wrong."""
        if self._is_broken:
            return
        self._is_broken = True
        self._log.critical("Stopping, because {reason}", reason=reason)
        self._exit_with(1)
        self.hurry()
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            pass  # it stops already

    @property
    def _stored(self) -> Stored:
        """The parts on the disks; available once they have started."""
        stored = self._storage.stored
        assert stored is not None
        return stored

    @property
    def _served(self) -> Served:
        """The parts that answer clients; available once the port is open."""
        assert self.served is not None
        return self.served

    def _start_administration(self) -> None:
        journal = self._stored.journal
        transactions = (
            None if journal is None else TransactionAdministration(journal, self._reactor)
        )
        self._administration = Administration(self._reactor, self.config.data_path, transactions)
        self._administration.start()

    async def _stop_administration(self) -> None:
        await self._administration.stop()

    def _listen(self) -> None:
        config = self.config
        stored = self._stored
        broker = Broker(config.broker_id, self.host(), config.server_port, self.role.slave_id)
        self._presence = Presence(
            self._reactor,
            config,
            broker,
            self._make_threads(self._reactor, 1, "zookeeper"),
            self._make_registry,
        )
        responders = Responders(
            config,
            self.settings,
            broker.url,
            stored.stores,
            stored.ids,
            self._reactor,
            self._presence.topic_used,
        )
        if stored.journal is not None:
            responders.answer_transactions(stored.journal.transactions)
        self._attach(broker, responders)
        factory = BrokerFactory(self._reactor, responders, self.settings, self._storage.turn)
        factory.max_connections = file_shares().clients
        self.served = Served(broker, responders, factory)
        factory.listen(config.server_port, self.interface())

    def _attach(self, broker: Broker, responders: Responders) -> None:
        """Let the role replace responders."""
        self.role.attach(
            Attached(
                self._reactor,
                self.config,
                self.settings,
                broker,
                responders,
                self._stored.stores,
                self._stored.ids,
                self._storage.threads,
                self._storage.turn,
                self._presence,
                self.reload,
                lambda *socket: self._served.factory.adopt(*socket),
            )
        )

    def _register(self) -> None:
        self._presence.start(self._topics(), self.role.registers is Registers.WHEN_TOLD)

    def _start_role(self) -> object:
        self._role_works = True
        return self.role.start()

    def _stop_role(self) -> object:
        """Stop the role's work; after the port, because puts may need it until then."""
        return self.role.stop() if self._role_works else None

    def _topics(self) -> list[TopicConfig]:
        """Every topic of the configuration, and every other topic with messages here."""
        names = {*self.config.topics, *(store.topic for store in self._stored.stores)}
        return [self.config.topic(name) for name in sorted(names)]

    # Stopping

    def stopService(self) -> Deferred[None]:
        """See the module; never fails. A running load of the stores is cancelled."""
        self._phase = Phase.LEAVING
        stopped = super().stopService()
        self._storage.cancel_start()
        return stopped

    def hurry(self) -> None:
        """Stop without waiting for clients: end the present wait, and skip the later ones."""
        if self._phase is Phase.CUTTING:
            for connection in list(self._served.factory.connections):
                connection.transport.abortConnection()
        self._waits.hurry()

    async def _unregister(self) -> None:
        if await self._presence.stop():
            wait = self.config.zookeeper.sync_time
            self._log.info("Unregistered; clients have {wait} ms to leave", wait=wait)
            await self._waits.pause(wait / 1000)

    async def _stop_listening(self) -> None:
        factory = self._served.factory
        await factory.stop_accepting()
        self._served.responders.refuse_work()
        if factory.connections:
            self._log.info("Closing {count} connections", count=len(factory.connections))
            await self._waits.pause(REFUSE_SECONDS)
        self._phase = Phase.CUTTING
        await factory.close_connections()

    # Reloading

    def reload(self) -> None:
        """
        Read both files again. A fault in either keeps the present configuration.
        """
        if self._phase is not Phase.SERVING:
            self._log.warn("Not reloaded: the broker is starting or stopping")
            return
        try:
            reloaded = read_again(self.config, self.settings)
            self._storage.lock(reloaded.config)
        except EXPECTED as error:
            self._log.error("Reload failed, everything stays as it was: {error}", error=error)
            return
        self._apply(reloaded)
        self._log.info(
            "Reloaded {path}: {changes}", path=self.config.path, changes=reloaded.changes
        )

    def _apply(self, reloaded: Reloaded) -> None:
        config, settings = self.config, self.settings = reloaded.config, reloaded.settings
        self._warn()
        if reloaded.fixed:
            self._log.warn(
                "Changed in the settings, but only a restart applies it: {names}",
                names=", ".join(reloaded.fixed),
            )
        # The checksum first: slaves see it before the new topics, as with the original.
        self._presence.registration.set_checksum(config.checksum)
        self._served.responders.reconfigure(config, settings)
        self._storage.reconfigure(config)
        self._presence.update(self._topics())
        self.role.reconfigure(config, settings)
        self._warn_of_hidden()

    def _warn(self) -> None:
        """Log the lines of the files that are allowed but probably mistakes."""
        config = self.config
        for warning in (*config.problems, *config.warnings, *self.settings.warnings):
            self._log.warn("{text}", text=warning)
        for topic, group, reason in unusable_filters(config):
            self._log.warn(
                "[topic={topic}] group.{group}: {reason}", topic=topic, group=group, reason=reason
            )

    def _warn_of_hidden(self) -> None:
        for warning in hidden_partitions(self.config, self._stored.stores):
            self._log.warn("{text}", text=warning)


def check_port(interface: str, port: int) -> None:
    """
    Check that the port is free; it is bound later, when the stores are loaded.

    :raises OSError: the port is taken; the text names the key.
    """
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((interface, port))
        except OSError as error:
            where = f"{interface or '*'}:{port}"
            raise OSError(f"cannot listen on {where} (serverPort): {error.strerror}") from error
