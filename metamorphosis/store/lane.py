"""
The worker threads of one disk, and the check that it answers.

Calls that wait for a hung disk (a frozen file system, a dead network share) do not return. So each
device with data paths has its own threads and timers, its *lane*: a hung device blocks only these.
A call that has not returned for ``STALL_SECONDS`` makes the lane *stalled*:

    state      event                                             state answers    a call has not
    returned for STALL_SECONDS         stalled: the stores are told stalled every call that was late
    has returned answers

Differs: while a lane is stalled its stores refuse the puts that they hold and all new ones, so
neither memory nor the replies to other requests of a connection wait for the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from metamorphosis.errors import StoreStalled
from metamorphosis.interfaces import IWorkerThreads

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

T = TypeVar("T")

STALL_SECONDS = 10.0
"""Longer than clients wait for a reply, and longer than a flush of a healthy disk."""


@implementer(IWorkerThreads)
class Lane:
    """
    Worker threads whose calls are watched. Thread: reactor.

    :param threads: the lane's own threads, which do the work.
    :param clock: the reactor.
    :param path: a data path on the device, for the log.
    :ivar on_stall: called with the reason when the disk stops answering, with None when it answers
        again.
    """

    _log = Logger()

    def __init__(self, threads: IWorkerThreads, clock: IReactorTime, path: str) -> None:
        self.path = path
        self.on_stall: Callable[[StoreStalled | None], None] = lambda error: None
        self._threads = threads
        self._clock = clock
        self._began: dict[object, float] = {}  # calls that have not returned, oldest first
        self._look: IDelayedCall | None = None
        self._stalled: StoreStalled | None = None
        self._stopping: list[Deferred[None]] = []  # fired when nothing is waited for

    @property
    def stalled(self) -> StoreStalled | None:
        """The reason why work is refused now; None while the disk answers."""
        return self._stalled

    def submit(
        self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        """See ``IWorkerThreads``."""
        call = object()
        self._began[call] = self._clock.seconds()
        if self._look is None:
            self._look = self._clock.callLater(STALL_SECONDS, self._check)
        self._threads.submit(work, partial(self._returned, call, done))

    def _returned(
        self,
        call: object,
        done: Callable[[T | None, BaseException | None], None],
        result: T | None,
        error: BaseException | None,
    ) -> None:
        del self._began[call]
        if self._stalled is not None and not self._late():
            self._stalled = None
            self._log.info("{path} answers again", path=self.path)
            self.on_stall(None)
        done(result, error)

    def _late(self) -> bool:
        """Whether the oldest call has run longer than ``STALL_SECONDS``."""
        oldest = next(iter(self._began.values()), None)
        return oldest is not None and self._clock.seconds() - oldest >= STALL_SECONDS

    def _check(self) -> None:
        self._look = None
        if self._late() and self._stalled is None:
            text = f"{self.path} does not answer: a call takes more than {STALL_SECONDS:g} s"
            self._stalled = StoreStalled(text)
            self._log.error("{text}; messages for it are refused until it does", text=text)
            self.on_stall(self._stalled)
            if self._stopping:
                self._tell_stopped()
                return
        if self._began:
            oldest = next(iter(self._began.values()))
            due = oldest + STALL_SECONDS - self._clock.seconds()
            self._look = self._clock.callLater(max(due, 1.0), self._check)

    def stop(self) -> Deferred[None]:
        """See ``IWorkerThreads``; threads that hang are not waited for, even if it shows later."""
        stopped: Deferred[None] = Deferred()
        self._stopping.append(stopped)
        if self._stalled is not None:
            self._tell_stopped()
        else:
            self._threads.stop().addCallback(lambda _: self._tell_stopped())
        return stopped

    def _tell_stopped(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        stopping, self._stopping = self._stopping, []
        for stopped in stopping:
            stopped.callback(None)
