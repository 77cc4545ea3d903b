"""
Worker threads that flush files without the interpreter.

A flush in a Python thread costs its lock twice, a queue, a waker, and one more turn of the reactor
between the disk and the reply. The threads of the part in C (``native/flush.c``) only wait in
``fdatasync``, and tell an eventfd that the reactor watches: what has ended is delivered from there,
and the turn ends at once after it.

They take a ``Sync`` of the real disk. All other work, and everything where there is no part in C,
goes to ``WorkerThreads``, with the same outcome.
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
        Begin.

        :raises OSError: there is no thread, and none can be made.
        """

    def take(self) -> list[tuple[int, int, float]]:
        """Of each flush that has ended: its token, an errno or 0, and how many seconds it took."""

    def fileno(self) -> int:
        """Readable when there is something to take."""

    def end(self) -> None:
        """End the threads but those that hang."""


class Answers(Protocol):
    """The turn of the broker, for whom completions are like answers from elsewhere."""

    def begin_answers(self) -> None:
        """Completions are about to be told."""

    def end_answers(self) -> None:
        """They have been: what they have led to is written and sent now."""


@implementer(IWorkerThreads, IReadDescriptor)
class FlushThreads:
    """
    Thread: reactor. The threads in C are started with the first flush, so after a fork.

    :param workers: do the other work; they belong to this object.
    :param count: how many flushes run at the same time at most.
    :param make_flusher: ``Flusher`` of the part in C.
    """

    _log = Logger()

    def __init__(
        self,
        workers: IWorkerThreads,
        reactor: IReactorFDSet,
        count: int,
        answers: Answers,
        make_flusher: Callable[[int], Flusher],
    ) -> None:
        self._workers = workers
        self._reactor = reactor
        self._count = count
        self._answers = answers
        self._make_flusher = make_flusher
        self._flusher: Flusher | None = None
        self._next = 0
        self._flushes: dict[int, Done] = {}  # that have begun, by their tokens
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
        """Begin a flush; False: the system gives no thread."""
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
        """The name in the log while completions are told."""
        return "flushes"

    def doRead(self) -> None:
        """Tell what has ended."""
        assert self._flusher is not None  # or nobody looks at it
        self._answers.begin_answers()
        try:
            for token, number, seconds in self._flusher.take():
                self._tell(self._flushes.pop(token), number, seconds)
        finally:
            self._answers.end_answers()
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
    workers: IWorkerThreads, reactor: IReactorFDSet, count: int, answers: Answers
) -> IWorkerThreads:
    """
    The same workers with threads in C beside them, where there is such a part; a double stays as it
    is.
    """
    make_flusher = getattr(compiled, "Flusher", None)
    if make_flusher is None or type(workers) is not WorkerThreads:
        return workers
    return FlushThreads(workers, reactor, count, answers, make_flusher)
