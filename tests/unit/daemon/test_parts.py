"""Parts start in order, one after the other, and stop in reverse, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.daemon.parts import OrderedService, Part


class RecordingService(OrderedService):
    """Notes what is reported to it."""

    def __init__(self, reactor: MemoryReactorClock, calls: list[str]) -> None:
        super().__init__(reactor)
        self.calls = calls

    def start_failed(self, part: Part, failure: Failure) -> None:
        """Note it."""
        self.calls.append(f"failed {part.name}: {failure.getErrorMessage()}")

    def started(self) -> None:
        """Note it."""
        self.calls.append("started")


class OrderedServiceTests(SynchronousTestCase):
    """Three parts, whose starts and stops fire when the test says so."""

    def setUp(self) -> None:
        """A service whose calls are noted."""
        self.reactor = MemoryReactorClock()
        self.calls: list[str] = []
        self.service = RecordingService(self.reactor, self.calls)

    def note(self, text: str, result: Any = None) -> Callable[[], Any]:
        """A start or stop that is noted and returns ``result``."""

        def call() -> Any:
            self.calls.append(text)
            return result

        return call

    def add(self, name: str, start: Any = None, stop: Any = None) -> None:
        """A part whose start and stop return these."""
        part = Part(name, self.note(f"start {name}", start), self.note(f"stop {name}", stop))
        self.service.parts.append(part)

    def start(self) -> None:
        """Start as ``twistd`` does, then let the reactor run."""
        self.service.startService()
        for function, args, kwargs in self.reactor.whenRunningHooks:
            function(*args, **kwargs)

    def test_nothing_starts_before_the_reactor(self) -> None:
        """startService alone starts no part."""
        self.add("a")
        self.service.startService()
        self.assertEqual(self.calls, [])

    def test_each_part_waits_for_the_one_before(self) -> None:
        """The second part starts when the Deferred of the first has fired."""
        first: Deferred[None] = Deferred()
        self.add("a", first)
        self.add("b")
        self.start()
        self.assertEqual(self.calls, ["start a"])
        first.callback(None)
        self.assertEqual(self.calls, ["start a", "start b", "started"])

    def test_stop_is_the_reverse_and_waits(self) -> None:
        """The last part stops first, and the one before it when that has ended."""
        last: Deferred[None] = Deferred()
        self.add("a")
        self.add("b", stop=last)
        self.start()
        self.calls.clear()
        stopped = self.service.stopService()
        self.assertEqual(self.calls, ["stop b"])
        self.assertNoResult(stopped)
        last.callback(None)
        self.assertEqual(self.calls, ["stop b", "stop a"])
        self.successResultOf(stopped)

    def test_a_failed_start_is_reported_and_later_parts_stay_down(self) -> None:
        """After a failure no further part starts, and only what was started is stopped."""
        self.add("a")
        self.add("b", fail(ValueError("no room")))
        self.add("c")
        self.start()
        self.assertEqual(self.calls, ["start a", "start b", "failed b: no room"])
        self.calls.clear()
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.calls, ["stop a"])

    def test_a_raised_start_is_a_failed_one(self) -> None:
        """A start that raises is reported like one whose Deferred fails."""

        def start() -> None:
            raise OSError("raised")

        self.service.parts.append(Part("a", start))
        self.start()
        self.assertEqual(self.calls, ["failed a: raised"])

    def test_stop_during_start_waits_for_the_part_that_starts(self) -> None:
        """What is being started is stopped once it has started; what follows is not started."""
        first: Deferred[None] = Deferred()
        self.add("a", first)
        self.add("b")
        self.start()
        stopped = self.service.stopService()
        self.assertNoResult(stopped)
        first.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.calls, ["start a", "stop a"])

    def test_stop_before_the_reactor_ran_keeps_it_down(self) -> None:
        """A service that was stopped before its reactor ran does not start any more."""
        self.add("a")
        self.service.startService()
        self.successResultOf(self.service.stopService())
        for function, args, kwargs in self.reactor.whenRunningHooks:
            function(*args, **kwargs)
        self.assertEqual(self.calls, [])

    def test_a_failed_stop_is_logged_and_the_rest_stops(self) -> None:
        """One part that cannot be stopped does not keep the others up."""
        self.add("a")
        self.add("b", stop=fail(ValueError("stuck")))
        self.start()
        self.calls.clear()
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.calls, ["stop b", "stop a"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_stop_twice_stops_once(self) -> None:
        """A second stop waits for the first and stops nothing again."""
        last: Deferred[None] = Deferred()
        self.add("a", stop=last)
        self.start()
        self.calls.clear()
        first, second = self.service.stopService(), self.service.stopService()
        last.callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.calls, ["stop a"])

    def test_the_plain_service_logs_a_failed_start(self) -> None:
        """Without an override a failed start is logged with the part's name."""
        service = OrderedService(self.reactor)
        service.parts.append(Part("a", lambda: fail(ValueError("no"))))
        service.startService()
        for function, args, kwargs in self.reactor.whenRunningHooks:
            function(*args, **kwargs)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
