"""
The process around the broker: signals, exit status, refusal of a start, pid file, limits and
memory.
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
"""Boot time and start of a process are each exact to a second."""

_log = Logger()


class StartRefused(SystemExit, MetaQError):
    """
    The broker cannot start, found before the reactor runs.

    ``twistd`` cleans up (pid file, the waiting parent of a daemon) after an ``Exception`` and lets
    it through; as a ``SystemExit`` with a number it then ends the process without a traceback. The
    log has the reason in one line.
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

    ``twistd`` and ``twist`` cannot do that: both return 0 after the reactor ran, and swallow a
    ``SystemExit`` in it. This takes effect after the rest of their clean-up.
    """

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(end)


def use_pid_file(options: Any) -> None:
    """
    Keep an outdated pid file of ``twistd`` from blocking a start.

    In the foreground no pid file is written, unless a name other than the default is given: the
    parent of the process knows its id. For a daemon, an outdated file is removed: one without a
    number, with the number of this process (in a container it is the same after each restart), or
    with that of a process that is younger than the file. The directory lock protects the data.

    :param options: the options of ``twistd``, which reads them after its service's; ``twist``
        has no pid file.
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
    """The start of a process, in seconds since 1970; None: there is no such process, or no
    Linux."""
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
    Raise the limit of open files to the hard limit.

    Every connection and every partition needs one, and the usual soft limit, 1024, exists for
    programs that use ``select``.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class FileShares(NamedTuple):
    """
    The division of the files that the process may open.

    :ivar limit: the whole.
    :ivar segments: for partitions; beyond it, files that are not in use are closed.
    :ivar clients: for connections; beyond it, clients wait until one leaves.
    """

    limit: int
    segments: int
    clients: int


def file_shares() -> FileShares:
    """
    One half for partitions, one for clients, after a reserve for ZooKeeper, for directories that
    are synced, and for the files of an orderly stop.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserve = min(RESERVED_FILES, limit * 3 // 8)
    segments = (limit - reserve) // 2
    return FileShares(limit, segments, limit - reserve - segments)


def use_monotonic_timers(reactor: object, seconds: Callable[[], float] = time.monotonic) -> None:
    """
    Let the timers of one of our processes follow the monotonic clock.

    A reactor's timers follow ``time.time``: if the clock is set back by a day, all timers are a day
    late. Pending calls keep their remaining time. Not for other programs' processes, which may use
    ``reactor.seconds`` as the time of day. Thread: reactor.
    """
    if not isinstance(reactor, ReactorBase) or reactor.seconds is seconds:
        return
    moved = seconds() - reactor.seconds()
    for call in (*reactor._pendingTimedCalls, *reactor._newTimedCalls):  # cancelled ones too
        call.time += moved
        call.seconds = seconds
    reactor.seconds = seconds


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of <malloc.h>


def keep_freed_memory() -> bool:
    """
    Let glibc keep up to 32 MiB of freed memory instead of returning it at once.

    The 8 KiB messages of a turn are allocated and freed together; with the defaults their pages
    return to the kernel every time and are faulted in again: 30 us per request instead of 21.

    :returns: whether the C library supports it.
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

    Twisted's own handler would log an error for the second, and let the process end by the signal
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
        Install the handlers. Twisted installs its own for SIGTERM and SIGINT when the reactor
        starts, so ours follow after that; SIGHUP is handled at once, because it would end the
        process until then.
        """
        self._install(signal.SIGHUP, self._hangup)
        self._reactor.callWhenRunning(self._install_endings)

    def _install_endings(self) -> None:
        self._install(signal.SIGTERM, self._end)
        self._install(signal.SIGINT, self._end)

    # A handler may interrupt the reactor anywhere: only callFromThread is safe.

    def _hangup(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._reload)

    def _end(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._stop, signal.Signals(number).name)

    def _stop(self, name: str) -> None:
        self._log.info("Received {name}: stopping", name=name)
        try:
            self._reactor.stop()
        except ReactorNotRunning:  # it stops already, after a signal or a failed start
            self._hurry()
