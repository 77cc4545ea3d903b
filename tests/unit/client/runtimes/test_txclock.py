"""Timers of the client in a reactor of others, whose clock is set while they run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.error import AlreadyCalled
from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from metamorphosis.client.runtimes.tx import TwistedRuntime
from metamorphosis.client.runtimes.txclock import (
    FEW_CANCELLED,
    MonotonicReactor,
    TimerDescriptor,
    with_monotonic_timers,
)
from metamorphosis.daemon.process import use_monotonic_timers
from tests.support.settable import DAY, REACTORS, SettableReactor


class PuppetAlarm:
    """
    Rings when the test says so.

    :ivar times: what it was set to, in order.
    """

    def __init__(self, reactor: object, ring: Callable[[], None]) -> None:
        self.ring = ring
        self.times: list[float] = []
        self.open = True

    def set(self, when: float) -> None:
        """See ``Alarm``."""
        self.times.append(when)

    def close(self) -> None:
        """See ``Alarm``."""
        self.open = False


class HeapTests(SynchronousTestCase):
    """The scheduler, with a scripted alarm."""

    def setUp(self) -> None:
        """A clock at 100 s."""
        self.base = SettableReactor()
        self.addCleanup(self.base.discard)
        self.alarms: list[PuppetAlarm] = []
        self.now = 100.0
        self.reactor = MonotonicReactor(self.base, self.make_alarm, lambda: self.now)
        self.called: list[object] = []

    def make_alarm(self, reactor: Any, ring: Callable[[], None]) -> PuppetAlarm:
        """Made one after the other, when the one before is closed."""
        self.assertIs(self.base, reactor)
        self.assertFalse(any(alarm.open for alarm in self.alarms))
        self.alarms.append(PuppetAlarm(reactor, ring))
        return self.alarms[-1]

    def later(self, seconds: float, name: str) -> Any:
        """A call that leaves its name behind."""
        return self.reactor.callLater(seconds, self.called.append, name)

    def advance(self, seconds: float) -> None:
        """Time goes by; the alarm rings once if it is set to a time that is over."""
        self.now += seconds
        if self.alarms and self.alarms[-1].open and self.alarms[-1].times[-1] <= self.now:
            self.alarms[-1].ring()

    def test_interface(self) -> None:
        """It is a clock, and what else the reactor is."""
        verifyObject(IReactorTime, self.reactor)
        self.assertTrue(IReactorFDSet.providedBy(self.reactor))
        self.assertEqual(self.base.getReaders(), self.reactor.getReaders())

    def test_order(self) -> None:
        """Calls come when they are due, whatever the order they were asked for in."""
        for seconds in (3, 1, 2, 1):
            self.later(seconds, f"{seconds}")
        self.assertEqual([103, 101], self.alarms[0].times)
        self.advance(0.5)
        self.assertEqual([], self.called)
        self.advance(1.5)
        self.assertEqual(["1", "1", "2"], self.called)
        self.assertEqual(103, self.alarms[0].times[-1])
        self.advance(5)
        self.assertEqual(["1", "1", "2", "3"], self.called)

    def test_at_once(self) -> None:
        """A call for the next turn needs no alarm."""
        for seconds in (0, -1):
            self.later(seconds, "soon")
        self.assertEqual([], self.alarms)

    def test_called_before(self) -> None:
        """What has been called is not active, and cannot be cancelled."""
        call = self.later(1, "one")
        self.advance(1)
        self.assertFalse(call.active())
        self.assertRaises(AlreadyCalled, call.cancel)

    def test_clock_set(self) -> None:
        """Neither a step back nor one forward moves a call."""
        for step in (-DAY, DAY):
            self.later(5, "five")
            self.base.now += step
            self.advance(4.9)
            self.assertEqual([], self.called)
            self.advance(0.2)
            self.assertEqual(["five"], self.called)
            self.called.clear()

    def test_nothing_is_open_without_calls(self) -> None:
        """The alarm is closed after the last call, also when that was cancelled."""
        self.later(1, "one")
        self.advance(1)
        self.assertFalse(self.alarms[0].open)
        first, second = self.later(1, "two"), self.later(2, "three")
        second.cancel()
        self.assertTrue(self.alarms[1].open)
        first.cancel()
        self.assertFalse(self.alarms[1].open)
        self.advance(5)
        self.assertEqual(["one"], self.called)

    def test_cancelled_in_a_call(self) -> None:
        """What a call cancels is not called, not even if it is due; the alarm is closed."""
        self.reactor.callLater(1, lambda: [call.cancel() for call in (due, later)])
        due, later = self.later(1.5, "due"), self.later(9, "later")
        self.assertTrue(due.active())
        self.advance(2)
        self.assertEqual([], self.called)
        self.assertFalse(due.active() or later.active() or self.alarms[0].open)

    def test_replaced_in_a_call(self) -> None:
        """The alarm is looked at when the calls have been made: it is not closed in between."""

        def replace() -> None:
            later.cancel()
            self.later(2, "new")

        self.reactor.callLater(1, replace)
        later = self.later(9, "later")
        self.advance(1)
        self.assertEqual(
            ([True], 103), ([each.open for each in self.alarms], self.alarms[0].times[-1])
        )

    def test_many_cancelled(self) -> None:
        """They are not kept until their time comes."""
        kept = self.later(1000, "kept")
        for _ in range(10 * FEW_CANCELLED):
            self.later(2000, "cancelled").cancel()
            self.assertLess(len(self.reactor._calls), 2 * FEW_CANCELLED)
        self.assertEqual([kept], self.reactor.getDelayedCalls())
        self.advance(1000)
        self.assertEqual(["kept"], self.called)

    def test_moved(self) -> None:
        """``reset`` and ``delay``, in both directions."""
        sooner, later = self.later(10, "sooner"), self.later(10, "later")
        sooner.reset(1)
        later.reset(20)
        self.advance(1)
        self.assertEqual(["sooner"], self.called)
        self.advance(18)
        self.assertEqual(["sooner"], self.called)
        later.delay(5)
        self.advance(5)
        self.assertEqual(["sooner"], self.called)
        self.advance(1)
        self.assertEqual(["sooner", "later"], self.called)

    def test_a_call_that_fails(self) -> None:
        """It is logged, and takes nothing along: not the next call, not the alarm."""

        def fail(error: BaseException) -> None:
            raise error

        self.reactor.callLater(1, fail, ValueError("first"))
        self.reactor.callLater(1, fail, KeyboardInterrupt("second"))
        self.later(1, "third")
        self.later(2, "fourth")
        self.advance(1)
        self.assertEqual(["third"], self.called)
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))
        self.assertEqual(1, len(self.flushLoggedErrors(KeyboardInterrupt)))
        self.advance(1)
        self.assertEqual(["third", "fourth"], self.called)

    def test_calls_of_calls(self) -> None:
        """A call that is made within a call comes at its own time; a loop keeps its interval."""
        loop = LoopingCall(lambda: self.called.append(self.now))
        loop.clock = self.reactor
        loop.start(2, now=False)
        for _ in range(4):
            self.advance(1)
            self.base.now -= DAY
        self.assertEqual([102, 104], self.called)
        loop.stop()
        self.assertFalse(self.alarms[-1].open)


class SetClockTests(SynchronousTestCase):
    """Real reactors and descriptors, and a clock that is set."""

    def reactors(self) -> list[Any]:
        """One of each kind."""
        made = [make() for make in REACTORS]
        for reactor in made:
            self.addCleanup(reactor.discard)
        return made

    def test_the_next_turn_comes(self) -> None:
        """
        ``callLater(0)``, and a call from a thread, survive a clock that is set back in that moment;
        those of the reactor do not.
        """
        for reactor in self.reactors():
            called: list[str] = []
            monotonic = with_monotonic_timers(reactor)
            reactor.sinks = DAY
            reactor.callLater(0, called.append, "lost")
            monotonic.callLater(0, called.append, "later")
            monotonic.callFromThread(called.append, "thread")
            reactor.turn()
            self.assertEqual({"later", "thread"}, set(called), reactor)

    def test_cancelled_before_the_next_turn(self) -> None:
        """A ``callLater(0)`` can be cancelled."""
        for reactor in self.reactors():
            call = with_monotonic_timers(reactor).callLater(0, self.fail, "called")
            call.cancel()
            self.assertFalse(call.active())
            reactor.turn()

    def test_runtime(self) -> None:
        """The calls of the client's core happen, in order, and no descriptor is left."""
        for reactor in self.reactors():
            readers = set(reactor.getReaders())
            runtime = TwistedRuntime(reactor)
            called: list[object] = []
            reactor.sinks = DAY
            runtime.call_soon(called.append, 1)
            runtime.call_soon(called.append, 2)
            reactor.turn()
            runtime.call_later(1e-9, called.append, 3)
            dropped = runtime.call_later(1000, self.fail)
            while 3 not in called:
                reactor.turn()
            self.assertEqual([1, 2, 3], called)
            self.assertGreater(set(reactor.getReaders()), readers)
            dropped.cancel()
            dropped.cancel()
            self.assertEqual(readers, set(reactor.getReaders()))

    def test_descriptor(self) -> None:
        """A time that is over rings at once, a later one does not; it can be set again."""
        for reactor in self.reactors():
            rung: list[None] = []
            for name in ("_create", "_set"):
                self.patch(TimerDescriptor, name, None)  # as before the first of them
            self.assertTrue(TimerDescriptor.available())
            alarm = TimerDescriptor(reactor, lambda: rung.append(None))
            alarm.set(time.monotonic() + 1000)
            reactor.turn()
            self.assertEqual([], rung)
            alarm.set(0.0)
            reactor.turn()
            self.assertNotEqual([], rung)
            alarm.set(time.monotonic() + 1000)
            rung.clear()
            reactor.turn()
            self.assertEqual([], rung)
            self.assertEqual("client-timer", alarm.logPrefix(), "named in the reactor's lines")
            number = alarm.fileno()
            alarm.close()
            alarm.close()
            self.assertEqual(-1, alarm.fileno())
            self.assertRaises(OSError, os.fstat, number)

    def test_the_reactor_ends(self) -> None:
        """The descriptor is given back."""
        reactor = SettableReactor()
        self.addCleanup(reactor.discard)
        with_monotonic_timers(reactor).callLater(1000, self.fail)
        reactor.disconnectAll()
        self.assertEqual([], [each for each in reactor.getReaders() if each.fileno() >= 0][1:])

    def test_who_gets_timers(self) -> None:
        """A clock that a test moves stays what it is, and so does a reactor of ours."""
        clock = MemoryReactorClock()
        self.assertIs(clock, with_monotonic_timers(clock))
        reactor = SettableReactor()
        self.addCleanup(reactor.discard)
        self.assertIs(reactor, with_monotonic_timers(reactor).reactor)
        self.patch(TimerDescriptor, "_create", None)
        self.patch(TimerDescriptor, "available", lambda: False)
        self.assertIs(reactor, with_monotonic_timers(reactor))
        use_monotonic_timers(reactor)
        self.assertIs(reactor, with_monotonic_timers(reactor))
