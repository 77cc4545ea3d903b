"""
The embedded ZooKeeper as a whole: its directory, its port, and its behaviour when the disk fails.

Start: directory locked, database opened and loaded, port opened, all before the reactor runs, so
that ``twistd`` fails at once and clients never connect to a server that does not serve yet.

A batch that cannot be committed (a full disk) is not acknowledged: the port is closed, the clients
are disconnected, and the changes in memory are dropped. Once the disk works again, the service
continues with the contents of the disk, as after a restart.

Source: ``ZooKeeperServerMain``. Differs: the original ends its process when a write fails.
"""

from __future__ import annotations

import gc
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from metamorphosis.daemon.directorylock import DirectoryLock
from metamorphosis.daemon.process import StartRefused
from metamorphosis.errors import MetaQError
from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.threads import WorkerThreads
from metamorphosis.zookeeper.commits import Commits
from metamorphosis.zookeeper.expiry import Expiry
from metamorphosis.zookeeper.factory import ZooKeeperFactory
from metamorphosis.zookeeper.members import Members
from metamorphosis.zookeeper.reserve import open_storage
from metamorphosis.zookeeper.server import Server
from metamorphosis.zookeeper.storage import Storage
from metamorphosis.zookeeper.transport import ZooKeeperPort
from metamorphosis.zookeeper.words import Words, configuration

RETRY_SECONDS = 2.0
"""Seconds between two attempts to use a disk that has failed."""

DRAIN_SECONDS = 5.0
"""The longest wait of a stop for the last commit and for clients to read their last replies."""

DRAIN_STEP = 0.02

TIDY_SECONDS = 1.0
"""Seconds between two runs of the storage's deferred work."""

HANG_SECONDS = 10.0
"""The longest wait of a stop for a disk that hangs, after the connections are closed."""

BACKLOG = 1000
"""Connections that wait to be accepted."""

EXPECTED = (MetaQError, OSError)
"""Failures of a start whose text is sufficient; others have a traceback."""


@dataclass(frozen=True)
class ZooKeeperSettings:
    """
    The settings of the service.

    :ivar directory: for its files; created if missing.
    :ivar interface: the address to listen on, "" for all.
    :ivar tick: milliseconds; session timeouts are 2 to 20 of them.
    :ivar port_name: the option or key of the port, for the error when it is taken.
    :ivar accept_loss: start with the contents of the files, although more was acknowledged.
    """

    directory: str
    port: int = 2181
    interface: str = "127.0.0.1"
    max_connections: int = 1000
    tick: int = 2000
    port_name: str = "--port"
    accept_loss: bool = False


class ZooKeeperService(Service):
    """
    A coordination service from its files to its port. Thread: reactor.

    :param make_threads: takes the reactor, the number of threads and their name.
    :param make_port: takes the arguments of ``tcp.Port``.
    :param monotonic: seconds, for sessions: the reactor's clock may be set.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: ZooKeeperSettings,
        make_threads: Callable[[Any, int, str], IWorkerThreads] = WorkerThreads,
        make_port: Callable[..., Any] = ZooKeeperPort,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._reactor = reactor
        self._make_port = make_port
        self._monotonic = monotonic
        self._lock = DirectoryLock(settings.directory, "ZooKeeper")
        self._threads = make_threads(reactor, 1, "commits")
        self._storage: Storage | None = None
        self._port: Any = None  # the address of a port is of no common type
        self._factory: ZooKeeperFactory | None = None
        self._expiry: Expiry | None = None
        self._tidying = LoopingCall(self._tidy)
        self._tidying.clock = reactor
        self._retry: IDelayedCall | None = None
        self._closed_port: Deferred[object] = succeed(None)
        self._configuration = configuration(
            settings.port, self._lock.directory, settings.tick, settings.max_connections
        )

    # Starting

    def startService(self) -> None:
        """
        Lock, load and listen.

        :raises StartRefused: the reason is in the log.
        """
        settings = self.settings
        try:
            os.makedirs(settings.directory, exist_ok=True)
            self._lock.acquire()
            self._storage = open_storage(settings.directory, settings.accept_loss)
            self._report_loss(self._storage)
            server = self._serve(self._storage)
        except EXPECTED as error:
            self._release()
            self._log.critical("Cannot start: {error}", error=error)
            raise StartRefused(str(error)) from error
        # The loaded objects stay: a full collection over them would stop the reactor.
        gc.collect()
        gc.freeze()
        super().startService()
        self._log.info(
            "ZooKeeper serves at {interface}:{port}: {nodes} nodes, {sessions} sessions in {path}",
            interface=settings.interface or "*",
            port=self._port.getHost().port,
            nodes=len(server.tree.nodes),
            sessions=len(server.sessions.by_id),
            path=self._storage.path,
        )

    def _report_loss(self, storage: Storage) -> None:
        if storage.accepted is not None:
            self._log.warn(
                "Starting with less than was acknowledged (--accept-loss): {path}: {loss}",
                path=storage.path,
                loss=storage.accepted,
            )
        elif self.settings.accept_loss:
            self._log.warn(
                "--accept-loss was given and nothing is missing in {path}; leave it out, so that"
                " the next start would notice",
                path=storage.path,
            )

    def _serve(self, storage: Storage, zxid: int = 0) -> Server:
        """
        Serve with the contents of the disk.

        :param zxid: the last zxid in use, which may be newer than that of the disk.
        """
        tree, sessions = storage.load(self.settings.tick)
        tree.zxid = max(tree.zxid, zxid)
        commits = Commits(
            tree, sessions, storage, self._threads, self._reactor, self._disk_failed, gather=True
        )
        server = Server(tree, sessions, commits.changed, self._monotonic, time.time)
        members = Members(self.settings.max_connections)
        words = Words(self._configuration, server, commits, members)
        factory = ZooKeeperFactory(server, commits, self._reactor, members, words.answer)
        self._listen(factory)
        self._factory = factory
        self._expiry = Expiry(server, commits, self._reactor, self._monotonic)
        self._expiry.start()
        self._tidying.start(TIDY_SECONDS, now=False)
        return server

    def _listen(self, factory: ZooKeeperFactory) -> None:
        settings = self.settings
        port = self._make_port(settings.port, factory, BACKLOG, settings.interface, self._reactor)
        try:
            port.startListening()
        except CannotListenError as error:
            where = f"{settings.interface or '*'}:{settings.port}"
            reason = getattr(error.socketError, "strerror", None) or error.socketError
            raise OSError(
                f"ZooKeeper cannot listen on {where} ({settings.port_name}): {reason}"
            ) from error
        self._port = port

    def _tidy(self) -> None:
        if self._factory is not None:
            self._factory.commits.tidy()

    # A failed disk

    def _disk_failed(self, error: BaseException) -> None:
        """A batch is not on the disk: drop it, and all packets that wait for it."""
        self._log.error(
            "Cannot write {path}: {error}. ZooKeeper serves no client until the disk works again",
            path=self._lock.directory,
            error=error,
        )
        factory = self._stop_serving()
        if factory is not None:  # the service is not stopping
            factory.members.abort()
            self._try_later(factory.server.tree.zxid)

    def _stop_serving(self) -> ZooKeeperFactory | None:
        """Take no more connections and let no session expire."""
        factory, self._factory = self._factory, None
        if self._expiry is not None:
            self._expiry.stop()
            self._expiry = None
        if self._tidying.running:
            self._tidying.stop()
        if self._port is not None:
            port, self._port = self._port, None
            self._closed_port = maybeDeferred(port.stopListening)
        return factory

    def _try_later(self, zxid: int) -> None:
        self._retry = self._reactor.callLater(RETRY_SECONDS, self._probe, zxid)

    def _probe(self, zxid: int) -> None:
        storage = self._storage
        assert storage is not None

        def done(_: None, error: BaseException | None) -> None:
            if not self.running:
                return
            try:
                if error is not None:
                    raise error
                self._serve(storage, zxid)
            except (*EXPECTED, sqlite3.Error) as failure:
                self._log.debug("The disk does not work yet: {error}", error=failure)
                self._try_later(zxid)
            else:
                self._log.info("The disk works again: ZooKeeper serves")

        self._retry = None
        self._threads.submit(lambda: storage.probe(zxid), done)

    # Stopping

    def stopService(self) -> Deferred[None]:
        """
        Close port and connections, let the last commit end, close the files; never fails. Waits at
        most ``HANG_SECONDS`` for a disk that hangs.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        factory = self._stop_serving()
        await self._closed_port
        if factory is not None:
            await self._close_connections(factory)
        if await self._idle():
            self._release()
        else:
            # The worker still uses the database. The lock ends with the process.
            self._log.error(
                "The disk of {path} has not answered for {seconds:.0f} s: stopping without it;"
                " everything that was acknowledged is on it",
                path=self._lock.directory,
                seconds=HANG_SECONDS,
            )

    async def _idle(self) -> bool:
        """Wait until the worker has ended its work; False if it takes longer than
        ``HANG_SECONDS``."""
        stopped = self._threads.stop()
        stopped.addTimeout(HANG_SECONDS, self._reactor)
        try:
            await stopped
        except TimeoutError:
            return False
        return True

    async def _close_connections(self, factory: ZooKeeperFactory) -> None:
        """Close the connections after their last replies; a client that does not read is
        disconnected after ``DRAIN_SECONDS``."""
        factory.members.close()
        waited = 0.0
        while factory.members.connections and waited < DRAIN_SECONDS:
            await deferLater(self._reactor, DRAIN_STEP)
            waited += DRAIN_STEP
        factory.members.abort()
        factory.commits.stop()

    def _release(self) -> None:
        storage, self._storage = self._storage, None
        if storage is not None:
            storage.close()
        self._lock.release()
