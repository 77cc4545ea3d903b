"""Events, slots and time, beyond what the contract of the runtimes shows."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.network.flow import (
    CANCELLED_MOST,
    Event,
    Slots,
    Watchers,
    detached,
    settle,
    sleep,
    wait_unless_refused,
    within,
)
from metamorphosis.cluster.model import ConnectionFault
from metamorphosis.errors import RequestTimeout
from metamorphosis.testing.runtime import MemoryRuntime


class EventTests(SynchronousTestCase):
    """A flag to wait for."""

    def setUp(self) -> None:
        """Surroundings."""
        self.runtime = MemoryRuntime()
        self.event = Event(self.runtime)

    def test_set(self) -> None:
        """All waiters get True, later ones at once."""
        waiting = [self.event.wait(), self.event.wait(5)]
        self.event.set()
        self.assertEqual([True, True], [self.runtime.result(each) for each in waiting])
        self.assertTrue(self.runtime.result(self.event.wait()))
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    def test_clear(self) -> None:
        """After ``clear`` one has to wait again."""
        self.event.set()
        self.event.clear()
        waiting: Any = self.event.wait()
        self.assertNoResult(waiting)
        self.event.set()
        self.assertTrue(self.successResultOf(waiting))

    def test_timeout(self) -> None:
        """False after the time, and nothing after that."""
        waiting: Any = self.event.wait(5)
        self.runtime.advance(4.9)
        self.assertNoResult(waiting)
        self.runtime.advance(0.1)
        self.assertFalse(self.successResultOf(waiting))
        self.assertEqual({}, self.event._waiting, "kept for ever")
        self.event.set()

    def test_pulse(self) -> None:
        """Wakes without a flag."""
        waiting: Any = self.event.wait()
        self.event.pulse()
        self.assertTrue(self.successResultOf(waiting))
        self.assertNoResult(self.event.wait())  # type: ignore[arg-type]

    def test_abandon(self) -> None:
        """Wakes with False."""
        waiting: Any = self.event.wait(5)
        self.event.abandon()
        self.assertFalse(self.successResultOf(waiting))
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    def test_cancelled(self) -> None:
        """A cancelled waiter affects neither the others nor the timer."""
        gone: Any = self.event.wait(1)
        other: Any = self.event.wait()
        gone.cancel()
        self.failureResultOf(gone)
        self.event.set()
        self.assertTrue(self.successResultOf(other))
        again: Any = Event(self.runtime).wait(1)
        again.cancel()
        self.failureResultOf(again)
        self.runtime.advance(2)

    def test_cancelled_again_and_again(self) -> None:
        """Waits for what does not happen do not take more and more memory; others stay."""
        waits: list[Any] = [self.event.wait() for _ in range(5)]
        for _ in range(1000):
            given_up: Any = self.event.wait()
            given_up.cancel()
            self.failureResultOf(given_up, CancelledError)
        self.assertLess(len(self.event._waiting), 2 * CANCELLED_MOST)
        self.event.pulse()
        self.assertEqual([True] * 5, [self.successResultOf(each) for each in waits])

    def test_wait_again_when_woken(self) -> None:
        """A waiter that waits again from within is not woken by the same call."""
        woken = []

        async def wait() -> None:
            for _ in range(2):
                await self.event.wait()
                woken.append(1)

        self.runtime.start(wait())
        self.event.pulse()
        self.assertEqual([1], woken)
        self.event.pulse()
        self.assertEqual([1, 1], woken)


class RefusedTests(SynchronousTestCase):
    """``wait_unless_refused``."""

    def setUp(self) -> None:
        """No connection, and no fault so far."""
        self.runtime = MemoryRuntime()
        self.event = Event(self.runtime)
        self.fault: ConnectionFault | None = None

    def ended(self, timeout: float, patience: float, refused_at: float = 1e9) -> float:
        """When the wait ends without a connection; attempts are refused from some time on."""
        began = self.runtime.seconds()
        waiting: Any = self.runtime.start(
            wait_unless_refused(self.event, timeout, patience, lambda: self.fault)
        )
        while not waiting.called:
            if self.runtime.seconds() - began >= refused_at:
                self.fault = ConnectionFault("refused", True)
            self.runtime.advance(1 / 64)
        self.assertFalse(self.runtime.result(waiting))
        return self.runtime.seconds() - began

    def test_time(self) -> None:
        """It is kept, whatever the patience is, and whether or not it divides by it."""
        for patience in (0.5, 1, 3, 10):
            for timeout in (1, 3, 3.0625):
                self.assertEqual(timeout, self.ended(timeout, patience), (timeout, patience))

    def test_other_faults(self) -> None:
        """They may pass by themselves."""
        self.fault = ConnectionFault("no route", False)
        self.assertEqual(8, self.ended(8, 2))

    def test_refused(self) -> None:
        """It ends after the patience; one that is refused later, a quarter of a second later at
        most."""
        self.assertEqual(2, self.ended(8, 2, refused_at=0))
        self.fault = None
        self.assertLessEqual(4, self.ended(8, 2, refused_at=4))
        self.fault = None
        self.assertGreaterEqual(4.25, self.ended(8, 2, refused_at=4))

    def test_connected(self) -> None:
        """True as soon as there is a connection."""
        waiting: Any = self.runtime.start(wait_unless_refused(self.event, 8, 2, lambda: self.fault))
        self.runtime.advance(3)
        self.assertNoResult(waiting)
        self.event.set()
        self.assertTrue(self.successResultOf(waiting))

    def test_abandoned(self) -> None:
        """The session ends: nobody waits on."""
        waiting: Any = self.runtime.start(wait_unless_refused(self.event, 8, 2, lambda: self.fault))
        self.event.abandon()
        self.assertFalse(self.successResultOf(waiting))


class SlotsTests(SynchronousTestCase):
    """A number of places."""

    def setUp(self) -> None:
        """Three places."""
        self.runtime = MemoryRuntime()
        self.slots = Slots(self.runtime, 3)

    def test_first_come(self) -> None:
        """A small wish does not overtake a large one."""
        self.assertTrue(self.slots.try_acquire(2))
        large: Any = self.slots.acquire(2)
        small: Any = self.slots.acquire(1)
        self.assertFalse(self.slots.try_acquire(1))
        self.assertNoResult(small)
        self.slots.release(2)
        self.assertTrue(self.successResultOf(large))
        self.assertTrue(self.successResultOf(small))
        self.assertEqual(0, self.slots.free)

    def test_free(self) -> None:
        """What is free is taken at once."""
        self.assertIs(True, self.runtime.result(self.slots.acquire()))
        self.assertEqual(2, self.slots.free)

    def test_more_than_there_is(self) -> None:
        """Comes alone, when everything has been given back."""
        self.assertTrue(self.slots.try_acquire(1))
        huge: Any = self.slots.acquire(10)
        self.assertNoResult(huge)
        self.slots.release(1)
        self.assertTrue(self.successResultOf(huge))
        self.assertFalse(self.slots.try_acquire(1))
        self.slots.release(10)
        self.assertEqual(3, self.slots.free)

    def test_cancelled(self) -> None:
        """A cancelled waiter gets no place."""
        self.slots.try_acquire(3)
        gone: Any = self.slots.acquire()
        other: Any = self.slots.acquire()
        gone.cancel()
        self.failureResultOf(gone)
        self.slots.release()
        self.assertTrue(self.successResultOf(other))
        self.assertEqual(0, self.slots.free)

    def test_close(self) -> None:
        """No waiter gets anything any more."""
        self.slots.try_acquire(3)
        waiting: Any = self.slots.acquire()
        self.slots.close()
        self.assertFalse(self.successResultOf(waiting))
        self.slots.release(3)
        self.assertFalse(self.slots.try_acquire())
        self.assertFalse(self.runtime.result(self.slots.acquire()))


class WaitingTests(SynchronousTestCase):
    """``sleep``, ``within``, ``settle``."""

    def test_late_result_is_nobodys(self) -> None:
        """What comes after the time is swallowed, an error as well."""
        runtime = MemoryRuntime()
        slow: Any = runtime.api.create_future()
        late = runtime.start(within(runtime, slow, 1, "it"))
        runtime.advance(1)
        self.failureResultOf(late)
        slow.errback(ValueError("late"))
        self.assertEqual([], self.flushLoggedErrors())

    def test_within(self) -> None:
        """The result, or the error, that comes in time; the text says what did not come."""
        runtime = MemoryRuntime()
        for outcome in (5, ValueError("no")):
            future: Any = runtime.api.create_future()
            waiting: Any = runtime.start(within(runtime, future, 2, "it"))
            runtime.advance(1)
            self.assertNoResult(waiting)
            if isinstance(outcome, int):
                future.callback(outcome)
                self.assertEqual(outcome, self.successResultOf(waiting))
            else:
                future.errback(outcome)
                self.assertIs(outcome, self.failureResultOf(waiting).value)
        self.assertEqual([], runtime.clock.getDelayedCalls())
        late: Any = runtime.start(within(runtime, runtime.api.create_future(), 2, "it"))
        runtime.advance(2)
        error = self.failureResultOf(late, RequestTimeout).value
        self.assertEqual("it: not done within 2 s", str(error))

    def test_detached(self) -> None:
        """The result or the error; without the future it goes on."""
        runtime = MemoryRuntime()

        async def carry_out(awaited: Any) -> object:
            found = await awaited
            done.append(found)
            return found

        done: list[object] = []
        outcomes: list[Any] = [runtime.api.create_future() for _ in range(4)]
        futures: list[Any] = [detached(runtime, carry_out(each)) for each in outcomes]
        for each in futures[2:]:
            each.cancel()
            self.failureResultOf(each, CancelledError)
        for each in outcomes[::2]:
            each.callback(5)
        for each in outcomes[1::2]:
            each.errback(ValueError("no"))
        self.assertEqual(5, self.successResultOf(futures[0]))
        self.failureResultOf(futures[1], ValueError)
        self.assertEqual([5, 5], done)
        self.assertEqual([], self.flushLoggedErrors())

    def test_watchers(self) -> None:
        """Each user has one function, the last one; who has left is not called."""
        watchers, told = Watchers(), []
        users = object(), object()
        for number, user in enumerate((users[0], users[0], users[1])):
            watchers.watch(user, partial(told.append, number))
        watchers.tell()
        watchers.unwatch(users[0])
        watchers.unwatch(users[0])
        watchers.tell()
        self.assertEqual([1, 2, 2], told)

    def test_sleep(self) -> None:
        """So long and no longer."""
        runtime = MemoryRuntime()
        slept: Any = sleep(runtime, 3)
        runtime.advance(2.5)
        self.assertNoResult(slept)
        runtime.advance(0.5)
        self.successResultOf(slept)

    def test_settle(self) -> None:
        """Errors are outcomes."""
        runtime = MemoryRuntime()
        error = ValueError("no")

        async def good() -> int:
            return 1

        async def bad() -> int:
            raise error

        self.assertEqual([1, error], runtime.run(settle([good(), bad()])))
