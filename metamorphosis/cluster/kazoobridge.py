"""
kazoo's side of the bridge: its threads made to behave (a connection attempt that ends in time, a
connection that can be cut, a thread whose death is noticed), a log that does not repeat itself
every second, its errors and stats as ours.

A kazoo client takes its threads as ``handler`` and its log as ``logger``; nothing private of kazoo
is touched.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

from kazoo.exceptions import (
    AuthFailedError,
    ConnectionClosedError,
    ConnectionLoss,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    OperationTimeoutError,
    SessionExpiredError,
    SessionMovedError,
)
from kazoo.handlers.threading import SequentialThreadingHandler

from metamorphosis.cluster.connect import parse_connect
from metamorphosis.cluster.model import ConnectionFault, NodeStat
from metamorphosis.errors import (
    ConfigError,
    NodeExists,
    NoNode,
    NotEmpty,
    RegistryError,
    RegistryUnavailable,
)

CONNECT_SECONDS = 5.0  # a connection attempt, which stop waits for; kazoo's: a session timeout

_ERRORS: dict[type[Exception], type[RegistryError]] = {
    NodeExistsError: NodeExists,
    NoNodeError: NoNode,
    NotEmptyError: NotEmpty,
    ConnectionLoss: RegistryUnavailable,
    ConnectionClosedError: RegistryUnavailable,
    OperationTimeoutError: RegistryUnavailable,
    SessionExpiredError: RegistryUnavailable,
    SessionMovedError: RegistryUnavailable,
    AuthFailedError: RegistryUnavailable,
}


def translated(error: Exception, path: str) -> RegistryError:
    """The error of ours that stands for one of kazoo's."""
    found = (ours for theirs, ours in _ERRORS.items() if isinstance(error, theirs))
    return next(found, RegistryError)(f"{path}: {type(error).__name__} {error}".rstrip())


def node_stat(stat: Any) -> NodeStat:
    """kazoo's ``ZnodeStat`` as ours."""
    return NodeStat(stat.ephemeralOwner, stat.version, stat.numChildren, stat.mtime)


def split_connect(connect: str) -> tuple[str, str]:
    """
    ``zk.zkConnect`` as hosts and chroot; the chroot is empty or starts with a slash and does not
    end with one.

    :raises ConfigError: the hosts cannot be understood.
    """
    try:
        return parse_connect(connect)
    except ValueError as error:
        raise ConfigError(f"zk.zkConnect={connect!r}: {error}") from error


class KazooThreads(SequentialThreadingHandler):  # type: ignore[misc]
    """
    The threads of one kazoo client.

    Thread: every method but ``abort`` runs in threads of kazoo.

    :ivar accepted: TCP connections that were accepted so far, by any program that listens there.
    :ivar complaint: kazoo's last complaint, the reason in our own log line.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        super().__init__()
        self.accepted = 0
        self.complaint = "no answer"
        self._faults: dict[object, ConnectionFault] = {}  # address or host: its last attempt's
        self._attempting = False
        self._ended = ended
        self._aborted = False
        self._socket: socket.socket | None = None

    def create_connection(self, *args: Any, **options: Any) -> socket.socket:
        """Connect within ``CONNECT_SECONDS``, and not at all after ``abort``."""
        options["timeout"] = min(options.get("timeout") or CONNECT_SECONDS, CONNECT_SECONDS)
        if self._aborted:
            raise OSError("closing")
        address = args[0] if args else options.get("address")
        self._attempting = True
        try:
            connection: socket.socket = super().create_connection(*args, **options)
        except Exception as error:
            self._faults[address] = ConnectionFault.of(error)
            raise
        finally:
            self._attempting = False
        self._faults[address] = ConnectionFault("no answer")
        self.accepted += 1
        self._socket = connection
        if self._aborted:
            self._cut(connection)
        return connection

    def unresolved(self, host: object, error: socket.gaierror) -> None:
        """The name of a server cannot be resolved."""
        self._faults[host] = ConnectionFault.of(error)

    @property
    def fault(self) -> ConnectionFault:
        """
        Why there is no session. ``refused`` only when that is so of every server, and no attempt
        is under way. Thread: any.
        """
        faults = list(self._faults.values())
        if faults and not self._attempting and all(each.refused for each in faults):
            return faults[-1]
        return ConnectionFault(self.complaint)

    def spawn(self, func: Callable[..., object], *args: object, **options: object) -> object:
        """Start a thread; when it ends for whatever reason, say so."""

        def run() -> None:
            try:
                func(*args, **options)
            except Exception as error:  # kazoo logged it; it need not go to stderr as well
                self.complaint = f"{type(error).__name__}: {error}"
            finally:
                self._ended()

        return super().spawn(run)

    def abort(self) -> None:
        """Cut the connection, so that waiting for a frozen server ends. Thread: any."""
        self._aborted = True
        if self._socket is not None:
            self._cut(self._socket)

    @staticmethod
    def _cut(connection: socket.socket) -> None:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed already


class _Complaints(logging.Handler):
    """Keeps the last warning as a reason; hands on what kazoo calls an error."""

    def __init__(self, threads: KazooThreads, report: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._threads = threads
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """kazoo warns at every attempt, once a second for as long as ZooKeeper is away."""
        self._threads.complaint = record.getMessage()
        if isinstance(record.args, tuple) and len(record.args) == 2:
            host, error = record.args
            if isinstance(error, socket.gaierror):
                self._threads.unresolved(host, error)
        if record.levelno >= logging.ERROR:
            self._report(self.format(record))


def kazoo_logger(threads: KazooThreads, report: Callable[[str], None]) -> logging.Logger:
    """
    A logger for one client, apart from the tree of the process.

    :param report: called in a thread of kazoo with the text of each error, traceback included.
    """
    logger = logging.Logger("metamorphosis.zookeeper", logging.WARNING)
    logger.addHandler(_Complaints(threads, report))
    return logger
