"""
The parts of the process beside the broker in it: signals, exit status, how a start is refused.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.base import ReactorBase
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from metamorphosis.errors import MetaQError

RESERVED_FILES = 64
DEFAULT_PID_FILE = "twistd.pid"
CLOCK_SLACK_SECONDS = 2.0
"""Boot time and start of a process are known to a second each."""

_log = Logger()


class StartRefused(SystemExit, MetaQError):
    """
    The broker cannot start, found before the reactor runs.

    ``twistd`` cleans up (pid file, the waiting parent of a daemon) after an ``Exception`` and lets
    it through; as a ``SystemExit`` with a number it then ends the process without a traceback. The
    one line that says why is in the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(1)
        self.reason = reason

    def __str__(self) -> str:
        """The reason; ``twistd`` shows its beginning on the terminal that started a daemon."""
        return self.reason


def exit_with(status: int) -> None:
    """
    Let the process end with ``status`` once the reactor has stopped.

    Neither ``twistd`` nor ``twist`` has a way for it: both return 0 after the reactor ran, and
    swallow a ``SystemExit`` in it. Everything else of their clean-up has happened when this takes
    effect.
    """

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(end)


def use_pid_file(options: Any) -> None:
    """
    Let a pid file of ``twistd`` keep nothing from starting that is not running.

    In the foreground none is written, unless another name than the default is asked for: whoever
    waits for the process knows its id. As a daemon, what an earlier process left behind goes: a
    file without a number, with the number of this very process (in a container it is the same after
    each restart), or with that of a process that is younger than the file. The directory lock
    protects the data.

    :param options: those of ``twistd``; read by it after the options of its service. ``twist`` has
        no pid file.
    """
    if "pidfile" not in options:
        return
    name = options["pidfile"]
    if options["nodaemon"] and name == DEFAULT_PID_FILE:
        options["pidfile"] = ""
    elif name and _is_stale(name):
        _log.info("Removing {path}: its process has ended", path=os.path.abspath(name))
        os.remove(name)


def _is_stale(path: str) -> bool:
    """Whether the process that wrote a pid file has ended; False if that is unknown."""
    try:
        with open(path, "rb") as file:
            text = file.read(32).strip()
            written = os.fstat(file.fileno()).st_mtime
    except OSError:
        return False
    if not text.isdigit() or int(text) == os.getpid():
        return True
    started = _start_of(int(text))
    return started is not None and started > written + CLOCK_SLACK_SECONDS


def _start_of(pid: int) -> float | None:
    """When a process began, in seconds since 1970; None: it is not there, or not Linux."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/stat", "rb") as file:
            boot = next(int(line.split()[1]) for line in file if line.startswith(b"btime "))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return boot + ticks / os.sysconf("SC_CLK_TCK")


def raise_file_limit() -> None:
    """
    Allow as many open files as the hard limit does.

    Every connection and every partition needs one, and the usual soft limit, 1024, is there for
    programs that use ``select``.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class FileShares(NamedTuple):
    """
    The shares of the files that the process may open.

    :ivar limit: all.
    :ivar segments: for partitions; beyond it those that are not in use are closed.
    :ivar clients: for connections; beyond it clients wait until one leaves.
    """

    limit: int
    segments: int
    clients: int


def file_shares() -> FileShares:
    """
    Half and half, after a reserve for ZooKeeper, for directories that are synced, and for the files
    that end a stop in order.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserve = min(RESERVED_FILES, limit * 3 // 8)
    segments = (limit - reserve) // 2
    return FileShares(limit, segments, limit - reserve - segments)


def use_monotonic_timers(reactor: object, seconds: Callable[[], float] = time.monotonic) -> None:
    """
    Let the timers of a process of ours follow the monotonic clock.

    A reactor's timers follow ``time.time``: set back by a day, they all come a day late. Calls that
    are pending keep the time that is left to them. Not for a process of others, which may take the
    time of day from ``reactor.seconds``. Thread: reactor.
    """
    if not isinstance(reactor, ReactorBase) or reactor.seconds is seconds:
        return
    moved = seconds() - reactor.seconds()
    for call in (*reactor._pendingTimedCalls, *reactor._newTimedCalls):  # cancelled ones as well
        call.time += moved
        call.seconds = seconds
    reactor.seconds = seconds


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of <malloc.h>


def keep_freed_memory() -> bool:
    """
    Tell glibc to keep up to 32 MiB of freed memory instead of handing it back at once.

    A turn's worth of 8 KiB messages is allocated and freed together; with the defaults its pages go
    back to the kernel every time and are faulted in again: 30 us a request instead of 21.

    :returns: whether there is such a C library.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    set_all = (
        mallopt(M_MMAP_THRESHOLD, 8 << 20),
        mallopt(M_TRIM_THRESHOLD, 32 << 20),
        mallopt(M_TOP_PAD, 1 << 20),
    )
    return all(set_all)


class Signals:
    """
    SIGTERM and SIGINT stop in order, a second one stops without waiting, SIGHUP reloads.

    Twisted's own handler would log an error for the second, and let the process die by the signal
    after an orderly stop. Thread: reactor; Python runs signal handlers in the main thread.

    :param hurry: called for a SIGTERM or SIGINT while the reactor stops.
    :param reload: called for SIGHUP.
    :param install: ``signal.signal``.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        hurry: Callable[[], None],
        reload: Callable[[], None],
        install: Callable[..., object] = signal.signal,
    ) -> None:
        self._reactor = reactor
        self._hurry = hurry
        self._reload = reload
        self._install = install

    def install(self) -> None:
        """
        Take the signals over. Twisted takes SIGTERM and SIGINT when the reactor starts, so those
        follow it; SIGHUP would end the process until then.
        """
        self._install(signal.SIGHUP, self._hangup)
        self._reactor.callWhenRunning(self._install_endings)

    def _install_endings(self) -> None:
        self._install(signal.SIGTERM, self._end)
        self._install(signal.SIGINT, self._end)

    # The reactor may be in the middle of anything when a handler runs: only callFromThread is safe.

    def _hangup(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._reload)

    def _end(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._stop, signal.Signals(number).name)

    def _stop(self, name: str) -> None:
        self._log.info("Received {name}: stopping", name=name)
        try:
            self._reactor.stop()
        except ReactorNotRunning:  # it stops already, after a signal or a start that failed
            self._hurry()
