"""
The broker as a whole: which parts there are, in which order they start and stop, and what a reload
touches.

Start: data directories locked, message ids, stores loaded, journal of transactions recovered,
retention, port, ZooKeeper. What can be found out before the reactor runs is, so that ``twistd``
fails at once; registration goes on in the background, so that a broker serves while ZooKeeper is
away.

Stop, the reverse: unregister, go on serving for ``zk.zkSyncTimeMs`` so that clients can leave,
close the port, answer or refuse what is in flight, flush and close the stores, let go
of the journal's finished records, write down the last id, unlock.

Source: ``MetaMorphosisBroker``, ``MetamorphosisStartup``. Differs: the original closes its stores
before its connections, so that late puts fail with an internal error; and it stays alive, half
started, when a part cannot start. Ours ends with status 1.
"""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from metamorphosis.broker.factory import BrokerFactory
from metamorphosis.broker.filters import unusable_filters
from metamorphosis.broker.responders import Responders
from metamorphosis.broker.topics import TopicRules
from metamorphosis.broker.turn import Turn
from metamorphosis.cluster.model import Broker, TopicRegistration
from metamorphosis.cluster.paths import Paths
from metamorphosis.cluster.registration import BrokerRegistration, RegistrationStatus
from metamorphosis.cluster.registry import ZooKeeperRegistry
from metamorphosis.config.hostname import published_host
from metamorphosis.config.model import BrokerConfig, Settings, TopicConfig
from metamorphosis.daemon.directorylock import DirectoryLock
from metamorphosis.daemon.parts import OrderedService, Part, nothing
from metamorphosis.daemon.process import StartRefused, exit_with, file_shares
from metamorphosis.daemon.reload import Reloaded, hidden_partitions, read_again, shortened
from metamorphosis.errors import MetaQError
from metamorphosis.ids import FILE_NAME as IDS_FILE
from metamorphosis.ids import RETRY_SECONDS, IdCeiling, MessageIds
from metamorphosis.interfaces import IRegistry, IWorkerThreads
from metamorphosis.store.descriptors import Descriptors
from metamorphosis.store.environment import StoreEnvironment
from metamorphosis.store.flushing import FlushSchedule
from metamorphosis.store.layout import ensure_directory
from metamorphosis.store.messagestore import MessageStore
from metamorphosis.store.messagestores import MessageStores
from metamorphosis.store.retention import Retention
from metamorphosis.threads import WorkerThreads
from metamorphosis.transactions.administration import TransactionAdministration
from metamorphosis.transactions.journalfiles import journal_directory
from metamorphosis.transactions.service import TransactionService
from metamorphosis.transactions.transaction import Partition
from metamorphosis.web.administration import Administration

REFUSE_SECONDS = 0.2
"""From the first refusal to the end of the connections: a client gets a 503 instead of a reset."""

EXPECTED = (MetaQError, OSError, CannotListenError)
"""Failures of a start whose text says everything; anything else is logged with its traceback."""

VISIBLE = (
    RegistrationStatus.REGISTERED,
    RegistrationStatus.REGISTERING,
    RegistrationStatus.RETRYING,
)
"""Clients may have found us in ZooKeeper."""

RETENTION_THREADS = 2


class BrokerService(OrderedService):
    """
    A broker from its configuration to its last flush. Thread: reactor.

    :ivar config: what holds now; ``reload`` replaces it.
    :ivar settings: likewise.
    :param exit_with: told the exit status when a start fails while the reactor runs.
    :param make_threads: takes the reactor, how many threads and their name.
    :param make_registry: takes what ``ZooKeeperRegistry`` does.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        config: BrokerConfig,
        settings: Settings,
        exit_with: Callable[[int], None] = exit_with,
        make_threads: Callable[[Any, int, str], IWorkerThreads] = WorkerThreads,
        make_registry: Callable[..., IRegistry] = ZooKeeperRegistry,
    ) -> None:
        super().__init__(reactor)
        self.config = config
        self.settings = settings
        self._exit_with = exit_with
        self._make_threads = make_threads
        self._make_registry = make_registry
        self._locks: dict[str, DirectoryLock] = {}
        self._ids_timer: IDelayedCall | None = None
        self._serving = False
        self._is_broken = False
        self._hurried = False
        self._wait: Deferred[None] | None = None
        self._closing_connections = False
        self._cancel_start: Callable[[], None] = nothing
        self.parts = [
            Part("the data directories", stop=self._unlock),
            Part("the message ids", self._await_ids, self._stop_ids),
            Part("the worker threads", stop=lambda: self._threads.stop()),
            Part("the transaction journal", self._make_journal, lambda: self._journal.close()),
            Part("the message stores", self._load_stores, lambda: self._stores.close()),
            Part("the transactions", lambda: self._journal.start(), lambda: self._journal.stop()),
            Part("retention", self._start_retention, self._stop_retention),
            Part("the administration", self._start_administration, self._stop_administration),
            Part("the port", self._listen, self._stop_listening),
            Part("the registration", self._register, self._unregister),
        ]

    # Starting

    def startService(self) -> None:
        """
        Do what can be done without the reactor, and leave the rest to when it runs.

        :raises StartRefused: the reason is in the log.
        """
        self._warn()
        self._threads = self._make_threads(self._reactor, self.settings.sync_threads, "store")
        try:
            self._check_port()
            self._lock(self.config)
            ceiling = IdCeiling(os.path.join(self.config.data_path, IDS_FILE))
            self._ids = MessageIds(
                self.config.broker_id,
                ceiling,
                self._threads,
                on_fault=self._ids_fault,
                on_end=self._ids_end,
            )
        except EXPECTED as error:
            self._unlock()
            self._log.critical("Cannot start: {error}", error=error)
            raise StartRefused(str(error)) from error
        super().startService()

    def start_failed(self, part: Part, failure: Failure) -> None:
        """Say why in one line, and end the process with status 1 after an orderly stop."""
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
        """One line that says what runs here."""
        self._serving = True
        # What a start leaves behind stays: a full collection over it would stop the reactor for
        # 20 ms every now and then.
        gc.collect()
        gc.freeze()
        config = self.config
        zookeeper = config.zookeeper
        self._log.info(
            "Broker {id} serves at {url}: {partitions} partitions in {path}; topics {topics};"
            " ZooKeeper {zookeeper}",
            id=config.broker_id,
            url=self._broker.url,
            partitions=len(self._stores),
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

    def _check_port(self) -> None:
        """Find out now whether the port is free; it is bound when the stores are loaded."""
        interface, port = self.interface(), self.config.server_port
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((interface, port))
            except OSError as error:
                where = f"{interface or '*'}:{port}"
                raise OSError(f"cannot listen on {where} (serverPort): {error.strerror}") from error

    def _lock(self, config: BrokerConfig) -> None:
        """Lock every data path of ``config`` that is not locked yet."""
        paths = {config.data_path, *(topic.data_path for topic in config.topics.values())}
        paths.add(self._journal_directory)
        for path in sorted(os.path.abspath(path) for path in paths if path):
            if path not in self._locks:
                ensure_directory(path)
                lock = DirectoryLock(path)
                lock.acquire()
                self._locks[path] = lock

    def _load_stores(self) -> Deferred[None]:
        environment = StoreEnvironment(
            threads=self._threads,
            clock=self._reactor,
            schedule=FlushSchedule(self._reactor),
            on_dirty=self._turn.store_dirty,
            max_segment_size=self.config.max_segment_size,
            flush_delay=self.settings.flush_delay_ms / 1000,
            descriptors=Descriptors(file_shares().segments),
        )
        self._stores = MessageStores(
            self.config,
            environment,
            self.settings.fast_boot,
            partial(self._make_threads, self._reactor, self.settings.sync_threads, "disk"),
        )
        self._cancel_start = self._stores.cancel_load
        return self._stores.load()

    def _make_journal(self) -> None:
        """Recovered when the stores are open, and closed when they have flushed their last
        messages."""
        self._turn = Turn(self._reactor.callLater)
        rules = TopicRules(self.config, self.settings)

        def known(partition: Partition) -> bool:
            topic, number = partition
            if self._stores.get(topic, number) is not None:
                return True
            return rules.accepts(topic) and 0 <= number < rules.partition_count(topic)

        self._journal = TransactionService(
            self._journal_directory,
            self.config,
            self.settings,
            self._open_store,
            known,
            self._threads,
            self._reactor,
            self._turn.store_dirty,
            self._stop_broken,
        )

    @property
    def _journal_directory(self) -> str:
        return journal_directory(self.config.data_log_path, self.config.data_path)

    def _open_store(self, partition: Partition) -> MessageStore:
        topic, number = partition
        return self._stores.get_or_create(self.config.topic(topic), number)

    def _stop_broken(self, reason: str) -> None:
        """Stop rather than answer what may be wrong."""
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

    def _ids_fault(self, text: str) -> None:
        self._log.error("{text}", text=text)

    def _ids_end(self, text: str) -> None:
        self._log.info("{text}", text=text)

    def _await_ids(self) -> None:
        """Try to write the last message id until that works; reads are served meanwhile."""
        self._ids_timer = None
        if not self._ids.ready:
            self._ids.prepare()
            self._ids_timer = self._reactor.callLater(RETRY_SECONDS, self._await_ids)

    def _stop_ids(self) -> None:
        if self._ids_timer is not None:
            self._ids_timer.cancel()
        self._ids.stop()

    def _start_retention(self) -> None:
        # Compressing a segment takes many seconds; no flush may stand behind it.
        self._retention_threads = self._make_threads(self._reactor, RETENTION_THREADS, "retention")
        self._retention = Retention(
            self._stores, self.config, self._reactor, self._retention_threads
        )
        self._retention.start()

    def _start_administration(self) -> None:
        transactions = TransactionAdministration(self._journal, self._reactor)
        self._administration = Administration(self._reactor, self.config.data_path, transactions)
        self._administration.start()

    async def _stop_administration(self) -> None:
        await self._administration.stop()

    def _listen(self) -> None:
        config = self.config
        self._broker = Broker(config.broker_id, self.host(), config.server_port)
        self._responders = Responders(
            config,
            self.settings,
            self._broker.url,
            self._stores,
            self._ids,
            self._reactor,
            self._topic_used,
        )
        self._responders.answer_transactions(self._journal.transactions)
        self._factory = BrokerFactory(self._reactor, self._responders, self.settings, self._turn)
        self._registry, self._registration = self._make_registration()
        self._factory.max_connections = file_shares().clients
        self._factory.listen(config.server_port, self.interface())

    # In ZooKeeper

    def _make_registration(self) -> tuple[IRegistry, BrokerRegistration]:
        zookeeper = self.config.zookeeper
        self._registry_threads = self._make_threads(self._reactor, 1, "zookeeper")
        registry = self._make_registry(
            self._reactor,
            self._reactor,
            self._registry_threads,
            zookeeper.connect,
            zookeeper.session_timeout,
        )
        registration = BrokerRegistration(
            registry,
            self._reactor,
            Paths(zookeeper.root),
            self._broker,
            self.config.checksum,
            zookeeper.enable,
        )
        return registry, registration

    def _register(self) -> None:
        if self.config.zookeeper.enable:
            self._registry.start()
        self._registration.start(self._topics())

    def _topic_used(self, topic: TopicConfig) -> Deferred[None] | None:
        return self._registration.register_topic(_registration(topic))

    def _topics(self) -> list[TopicRegistration]:
        """Every topic of the configuration, and every other that has messages here."""
        names = {*self.config.topics, *(store.topic for store in self._stores)}
        return [_registration(self.config.topic(name)) for name in sorted(names)]

    # Stopping

    def stopService(self) -> Deferred[None]:
        """See the module; never fails. A load of big stores is broken off."""
        self._serving = False
        stopped = super().stopService()
        self._cancel_start()
        return stopped

    def hurry(self) -> None:
        """Stop without waiting for clients: leave the present wait, and the later ones out."""
        if self._closing_connections:
            for connection in list(self._factory.connections):
                connection.transport.abortConnection()
        self._hurried = True
        if self._wait is not None:
            self._log.info("Asked again to stop: not waiting for clients")
            self._wait.cancel()

    async def _pause(self, seconds: float) -> None:
        """Wait, unless somebody is in a hurry."""
        if self._hurried:
            return
        self._wait = Deferred()
        self._wait.addErrback(lambda _: None)
        call = self._reactor.callLater(seconds, self._wait.callback, None)
        await self._wait
        self._wait = None
        if call.active():
            call.cancel()

    async def _unregister(self) -> None:
        visible = self._registration.status in VISIBLE
        await self._registration.stop()
        await self._registry.stop()
        await self._registry_threads.stop()
        if visible:
            wait = self.config.zookeeper.sync_time
            self._log.info("Unregistered; clients have {wait} ms to leave", wait=wait)
            await self._pause(wait / 1000)

    async def _stop_listening(self) -> None:
        await self._factory.stop_accepting()
        self._responders.refuse_work()
        if self._factory.connections:
            self._log.info("Closing {count} connections", count=len(self._factory.connections))
            await self._pause(REFUSE_SECONDS)
        self._closing_connections = True
        await self._factory.close_connections()

    async def _stop_retention(self) -> None:
        await self._retention.stop()
        await self._retention_threads.stop()

    def _unlock(self) -> None:
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()

    # Reloading

    def reload(self) -> None:
        """
        Read both files again. A fault in either leaves everything as it was.
        """
        if not self._serving:
            self._log.warn("Not reloaded: the broker is starting or stopping")
            return
        try:
            reloaded = read_again(self.config, self.settings)
            self._lock(reloaded.config)
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
        # Slaves see the new checksum before the new topics, as with the original.
        self._registration.set_checksum(config.checksum)
        self._responders.reconfigure(config, settings)
        self._stores.reconfigure(config)
        self._retention.reconfigure(config)
        self._registration.update_topics(self._topics())
        self._warn_of_hidden()

    def _warn(self) -> None:
        """Log what the files say that is allowed and hardly meant."""
        config = self.config
        for warning in (*config.problems, *config.warnings, *self.settings.warnings):
            self._log.warn("{text}", text=warning)
        for topic, group, reason in unusable_filters(config):
            self._log.warn(
                "[topic={topic}] group.{group}: {reason}", topic=topic, group=group, reason=reason
            )

    def _warn_of_hidden(self) -> None:
        for warning in hidden_partitions(self.config, self._stores):
            self._log.warn("{text}", text=warning)


def _registration(topic: TopicConfig) -> TopicRegistration:
    return TopicRegistration(
        topic.name, topic.num_partitions, topic.accept_publish, topic.accept_subscribe
    )
