"""
The adaptation of kazoo: its threads (a connection attempt with a time limit, a connection that can
be cut, a report when a thread ends), a log that does not repeat itself every second, its errors and
stats as ours.

A kazoo client takes its threads as ``handler`` and its log as ``logger``; no private part of kazoo
is used.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
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

CONNECT_SECONDS = 5.0  # of a connection attempt; a stop waits for it
ANSWER_SHARE = 1 / 3  # of the session timeout, in which a server answers the first request

Ready = tuple[list[Any], list[Any], list[Any]]
"""What ``select`` found: to be read, to be written, in an exceptional state."""

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
    """The ``RegistryError`` for an error of kazoo."""
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

    Thread: every method except ``abort`` runs in threads of kazoo.

    **A server that starts.** It may accept a connection and never answer it. kazoo would wait for
    the answer as long as a session lasts, and the session would expire meanwhile. ``select`` gives
    up sooner, so that the next attempt can still resume the session.

    :param answer_seconds: the limit for the first answer on a connection.
    :ivar accepted: TCP connections accepted so far, by whatever program listens at the address.
    :ivar complaint: kazoo's last warning, used as the reason in our own log line.
    """

    def __init__(self, ended: Callable[[], None], answer_seconds: float = CONNECT_SECONDS) -> None:
        super().__init__()
        self._answer_seconds = answer_seconds
        self.accepted = 0
        self.complaint = "no answer"
        self._faults: dict[object, ConnectionFault] = {}  # last fault, by address or host
        self._attempting = False
        self._ended = ended
        self._aborted = False
        self._socket: socket.socket | None = None
        self._unanswered: socket.socket | None = None  # nothing was received from it yet

    def create_connection(self, *args: Any, **options: Any) -> socket.socket:
        """Connect within ``CONNECT_SECONDS``; refuse after ``abort``."""
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
        self._socket = self._unanswered = connection
        if self._aborted:
            self._cut(connection)
        return connection

    def select(
        self,
        readers: Sequence[Any],
        writers: Sequence[Any],
        others: Sequence[Any],
        timeout: float | None = None,
    ) -> Ready:
        """Wait as kazoo asks, but at most ``answer_seconds`` for the first answer of a server."""
        first = self._unanswered is not None and list(readers) == [self._unanswered]
        if first and (timeout is None or timeout > self._answer_seconds):
            timeout = self._answer_seconds
        ready: Ready = super().select(readers, writers, others, timeout)
        if first and ready[0]:
            self._unanswered = None
        return ready

    def unresolved(self, host: object, error: socket.gaierror) -> None:
        """The name of a server cannot be resolved."""
        self._faults[host] = ConnectionFault.of(error)

    @property
    def fault(self) -> ConnectionFault:
        """
        The reason why there is no session. ``refused`` only if every server refuses and no attempt
        is in progress. Thread: any.
        """
        faults = list(self._faults.values())
        if faults and not self._attempting and all(each.refused for each in faults):
            return faults[-1]
        return ConnectionFault(self.complaint)

    def spawn(self, func: Callable[..., object], *args: object, **options: object) -> object:
        """Start a thread that reports its end, whatever the cause."""

        def run() -> None:
            try:
                func(*args, **options)
            except Exception as error:  # kazoo has logged it; the thread must not also print it
                self.complaint = f"{type(error).__name__}: {error}"
            finally:
                self._ended()

        return super().spawn(run)

    def abort(self) -> None:
        """Cut the connection, which ends a wait for a frozen server. Thread: any."""
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
    """Keeps the last warning as a reason, and passes errors on."""

    def __init__(self, threads: KazooThreads, report: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._threads = threads
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record; kazoo warns at every attempt, once a second while ZooKeeper is away."""
        self._threads.complaint = record.getMessage()
        if isinstance(record.args, tuple) and len(record.args) == 2:
            host, error = record.args
            if isinstance(error, socket.gaierror):
                self._threads.unresolved(host, error)
        if record.levelno >= logging.ERROR:
            self._report(self.format(record))


def kazoo_logger(threads: KazooThreads, report: Callable[[str], None]) -> logging.Logger:
    """
    A logger for one client, outside of the process's tree of loggers.

    :param report: called in a thread of kazoo with the text of each error, traceback included.
    """
    logger = logging.Logger("metamorphosis.zookeeper", logging.WARNING)
    logger.addHandler(_Complaints(threads, report))
    return logger
