"""
Worker threads that flush files without the interpreter.

A flush in a Python thread takes the interpreter's lock twice, a queue, a waker, and one more turn
of the reactor between the disk and the reply. The threads of the C module (``native/flush.c``) only
wait in ``fdatasync``, and signal an eventfd that the reactor watches: the reactor delivers the
completions, and the turn ends at once after them.

They execute a ``Sync`` of the real disk. All other work goes to ``WorkerThreads``; so does
everything without the C module, with the same results.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from metamorphosis.interfaces import IWorkerThreads
from metamorphosis.native import compiled
from metamorphosis.store.disk import Disk
from metamorphosis.store.flushing import Sync
from metamorphosis.threads import ThreadsStopped, WorkerThreads

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorFDSet
    from twisted.python.failure import Failure

T = TypeVar("T")
Done = Callable[[Any, BaseException | None], None]


class Flusher(Protocol):
    """Threads that flush; in C."""

    def submit(self, fd: int, token: int, /) -> None:
        """
        Begin a flush.

        :raises OSError: there is no thread, and none can be started.
        """

    def take(self) -> list[tuple[int, int, float]]:
        """For each flush that has ended: its token, an errno or 0, and its seconds."""

    def fileno(self) -> int:
        """Readable when there is something to take."""

    def end(self) -> None:
        """End all threads except those that hang."""


class Stretches(Protocol):
    """The turn of the broker: what the completions of flushes lead to leaves together."""

    def begin_stretch(self) -> None:
        """Called before completions are delivered."""

    def end_stretch(self) -> None:
        """Called after them: the resulting data are written and sent now."""


@implementer(IWorkerThreads, IReadDescriptor)
class FlushThreads:
    """
    Thread: reactor. The first flush starts the threads in C, so they start after a fork.

    :param workers: do all other work; this object owns and stops them.
    :param count: the most flushes at the same time.
    :param make_flusher: ``Flusher`` of the part in C.
    """

    _log = Logger()

    def __init__(
        self,
        workers: IWorkerThreads,
        reactor: IReactorFDSet,
        count: int,
        turn: Stretches,
        make_flusher: Callable[[int], Flusher],
    ) -> None:
        self._workers = workers
        self._reactor = reactor
        self._count = count
        self._turn = turn
        self._make_flusher = make_flusher
        self._flusher: Flusher | None = None
        self._next = 0
        self._flushes: dict[int, Done] = {}  # running, by token
        self._stopped: Deferred[None] | None = None

    def submit(
        self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        """See ``IWorkerThreads``."""
        if self._stopped is not None:
            raise ThreadsStopped()
        if type(work) is Sync and type(work.disk) is Disk and self._flush(work.fd, done):
            return
        self._workers.submit(work, done)

    def _flush(self, fd: int, done: Done) -> bool:
        """Begin a flush; False: the system cannot start a thread."""
        try:
            if self._flusher is None:
                self._flusher = self._make_flusher(self._count)
                self._reactor.addReader(self)
            self._flusher.submit(fd, self._next)
        except OSError:
            return False
        self._flushes[self._next] = done
        self._next += 1
        return True

    def stop(self) -> Deferred[None]:
        """See ``IWorkerThreads``."""
        if self._stopped is None:
            self._stopped = Deferred()
            self._end_if_idle()
        stopping = DeferredList([self._stopped, self._workers.stop()])
        return stopping.addCallback(lambda _: None)

    def _end_if_idle(self) -> None:
        if self._stopped is None or self._stopped.called or self._flushes:
            return
        if self._flusher is not None:
            self._reactor.removeReader(self)
            self._flusher.end()
            self._flusher = None
        self._stopped.callback(None)

    # For the reactor

    def fileno(self) -> int:
        """Readable when a flush has ended; -1 before the first and at the end."""
        return -1 if self._flusher is None else self._flusher.fileno()

    def logPrefix(self) -> str:
        """The name in the log while completions are delivered."""
        return "flushes"

    def doRead(self) -> None:
        """Deliver the completions of ended flushes."""
        assert self._flusher is not None  # the reactor watches only a started flusher
        self._turn.begin_stretch()
        try:
            for token, number, seconds in self._flusher.take():
                self._tell(self._flushes.pop(token), number, seconds)
        finally:
            self._turn.end_stretch()
        self._end_if_idle()

    def _tell(self, done: Done, number: int, seconds: float) -> None:
        try:
            if number:
                done(None, OSError(number, os.strerror(number)))
            else:
                done(seconds, None)
        except Exception:
            self._log.failure("The completion of a flush failed")

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""


def flush_threads(
    workers: IWorkerThreads, reactor: IReactorFDSet, count: int, turn: Stretches
) -> IWorkerThreads:
    """
    The same workers with threads in C beside them, if the C module is built. Test doubles are
    returned as they are.
    """
    make_flusher = getattr(compiled, "Flusher", None)
    if make_flusher is None or type(workers) is not WorkerThreads:
        return workers
    return FlushThreads(workers, reactor, count, turn, make_flusher)
