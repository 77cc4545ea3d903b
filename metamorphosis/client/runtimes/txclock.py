"""
Timers that no change of the system's clock moves, on the reactor of a user's program.

A reactor's own timers follow ``time.time``. When the clock is set back by a day, every planned
call, a ``callLater(0)`` too, is made a day late. In a process of ours the reactor is given another
clock (``process.use_monotonic_timers``). The reactor of a user's program keeps its clock, because
other code takes the time of day from it: twisted.web for the lines of its log. There the client has
timers of its own: a heap of calls, and a timerfd. That is a descriptor that becomes readable at a
time of the monotonic clock; the reactor watches it like a socket.

While no call is due the reactor is as it was: no reader, no delayed call, no descriptor.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Any, Protocol

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IReadDescriptor
from twisted.internet.posixbase import PosixReactorBase
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

FEW_CANCELLED = 50
"""The number of cancelled calls that may stay in the heap; more are removed when they are the
majority."""

LONG_AGO = 0.0
"""Seconds since 1970; due on every clock, whatever it is set to."""

NEVER = float("inf")

RINGING = -NEVER
"""The alarm is set when all calls that are due have been made."""


def with_monotonic_timers(reactor: Any) -> Any:
    """
    The reactor with timers of the monotonic clock; the reactor itself if its timers are monotonic
    already or moved by a test, and where there are no timerfds, which is outside of Linux.
    """
    if not isinstance(reactor, PosixReactorBase) or reactor.seconds is time.monotonic:
        return reactor
    return MonotonicReactor(reactor) if TimerDescriptor.available() else reactor


class Alarm(Protocol):
    """Rings at one time."""

    def set(self, when: float) -> None:
        """Ring at that time, seconds of ``time.monotonic``, and at no time that was set before."""

    def close(self) -> None:
        """Do not ring any more."""


class _TimerSpec(ctypes.Structure):
    """``struct itimerspec``: once, then."""

    _fields_ = [
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    ]


TFD_TIMER_ABSTIME = 1  # of <sys/timerfd.h>


@implementer(IReadDescriptor)
class TimerDescriptor:
    """
    An ``Alarm`` that a reactor watches: a timerfd. Thread: the reactor's.

    ``os`` has timerfds from Python 3.13 on; ``ctypes`` works everywhere.

    :param ring: called when the time has come; sets or closes the alarm.
    :raises OSError: there is no descriptor left.
    """

    _create: Any = None
    _set: Any = None

    def __init__(self, reactor: Any, ring: Callable[[], None]) -> None:
        self._reactor = reactor
        self._ring = ring
        self._spec = _TimerSpec()
        self._descriptor: int = self._create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"no timer for the client: {os.strerror(number)}")
        reactor.addReader(self)

    @classmethod
    def available(cls) -> bool:
        """Whether the system has timerfds."""
        if cls._create is None:
            library = ctypes.CDLL(None, use_errno=True)
            cls._create = getattr(library, "timerfd_create", None)
            cls._set = getattr(library, "timerfd_settime", None)
        return cls._create is not None

    def set(self, when: float) -> None:
        """See ``Alarm``; clears the event of the time before, too."""
        spec = self._spec
        spec.seconds, spec.nanoseconds = divmod(int(when * 1e9) + 1, 10**9)
        self._set(self._descriptor, TFD_TIMER_ABSTIME, ctypes.byref(spec), None)

    def close(self) -> None:
        """See ``Alarm``."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        return self._descriptor

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return "client-timer"

    def doRead(self) -> None:
        """See ``IReadDescriptor``."""
        self._ring()

    def connectionLost(self, reason: Failure) -> None:
        """See ``IFileDescriptor``: the reactor ends."""
        self.close()


@implementer(IReactorTime)
class MonotonicReactor:
    """
    See the module. All other attributes are the reactor's. Thread: the reactor's.

    :param reactor: a real one.
    :param make_alarm: takes the reactor and the function to call.
    :param seconds: the clock of the alarm.
    :ivar reactor: as given.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        make_alarm: Callable[[Any, Callable[[], None]], Alarm] = TimerDescriptor,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reactor = reactor
        self.seconds = seconds
        self._make_alarm = make_alarm
        self._alarm: Alarm | None = None
        self._set_to = NEVER
        self._calls: list[DelayedCall] = []  # a heap
        self._cancelled = 0  # calls in the heap
        # this reactor makes a call from a thread a timer of its own, and its loop does not
        self._loop: Any = getattr(reactor, "_asyncioEventloop", None)
        if self._loop is not None:
            self.callFromThread = self._call_from_thread
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reactor, name)

    # IReactorTime

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> DelayedCall:
        """See ``IReactorTime``."""
        if delay <= 0:
            return self._call_soon(partial(callable, *args, **kw) if args or kw else callable)
        when = self.seconds() + delay
        call = DelayedCall(when, callable, args, kw, self._cancel, self._hasten, self.seconds)
        heappush(self._calls, call)
        if when < self._set_to:
            self._set(when)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """See ``IReactorTime``; those of the client."""
        return [call for call in self._calls if not call.cancelled]

    def _call_soon(self, function: Callable[[], object]) -> DelayedCall:
        """
        With the reactor's own timers, which cost a seventh of a descriptor that becomes readable;
        the call is due whatever the reactor's clock says.
        """
        call: DelayedCall = self.reactor.callLater(0, function)
        new = self.reactor._newTimedCalls
        if new and new[-1] is call:
            call.time = LONG_AGO
        else:  # it has a place in an order already
            call.delay(LONG_AGO - call.time)
        return call

    def _call_from_thread(
        self, function: Callable[..., object], *args: object, **kw: object
    ) -> None:
        self._loop.call_soon_threadsafe(partial(self._run, partial(function, *args, **kw)))

    # The heap

    def _set(self, when: float) -> None:
        if self._alarm is None:
            self._alarm = self._make_alarm(self.reactor, self._ring)
        self._alarm.set(when)
        self._set_to = when

    def _set_for_next(self) -> None:
        """Also remove cancelled calls from the heap, if there are many."""
        count = len(self._calls)
        if self._cancelled == count or self._cancelled > max(FEW_CANCELLED, count // 2):
            self._calls = [call for call in self._calls if not call.cancelled]
            heapify(self._calls)
            self._cancelled = 0
        if self._calls:
            if self._calls[0].time != self._set_to:
                self._set(self._calls[0].time)
        elif self._alarm is not None:
            self._alarm.close()
            self._alarm = None
            self._set_to = NEVER

    def _cancel(self, call: DelayedCall) -> None:
        call.cancelled = 1  # as the call itself does when this returns
        self._cancelled += 1
        if self._set_to != RINGING:
            self._set_for_next()

    def _hasten(self, call: DelayedCall) -> None:
        heapify(self._calls)
        if call.time < self._set_to:
            self._set(call.time)

    def _ring(self) -> None:
        """Make the calls that are due by now; calls that they plan come later."""
        self._set_to = RINGING
        now = self.seconds()
        while self._calls and self._calls[0].time <= now:
            call = heappop(self._calls)
            if call.cancelled:
                self._cancelled -= 1
            elif call.delayed_time > 0.0:
                call.activate_delay()
                heappush(self._calls, call)
            else:
                call.called = 1
                self._run(partial(call.func, *call.args, **call.kw))
        self._set_for_next()

    def _run(self, function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException:  # also anything but an Exception: the reactor would close the alarm
            self._log.failure("A call of the client failed")
