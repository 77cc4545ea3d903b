"""A session factory that closes itself when its reactor stops."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.runtimes.tx import ShutdownTrigger


class Reactor:
    """Keeps its triggers."""

    def __init__(self) -> None:
        self.triggers: dict[int, Callable[[], object]] = {}

    def addSystemEventTrigger(self, phase: str, event: str, function: Callable[[], object]) -> int:
        """See ``IReactorCore``."""
        assert (phase, event) == ("before", "shutdown")
        number = len(self.triggers)
        self.triggers[number] = function
        return number

    def removeSystemEventTrigger(self, number: int) -> None:
        """The same; one that was called is not there any more."""
        del self.triggers[number]

    def stop(self) -> list[object]:
        """What the triggers returned."""
        triggers, self.triggers = self.triggers, {}
        return [each() for each in triggers.values()]


class Factory:
    """Counts how often it is closed."""

    closes = 0

    def close(self) -> Deferred[None]:
        """See the session factory."""
        self.closes += 1
        return succeed(None)


class ShutdownTests(SynchronousTestCase):
    """Three ways in which it ends."""

    def setUp(self) -> None:
        self.reactor, self.factory = Reactor(), Factory()
        self.trigger = ShutdownTrigger(self.reactor, self.factory.close)

    def close(self) -> None:
        """The factory ends its children."""
        self.successResultOf(Deferred.fromCoroutine(self.trigger.close()))

    def test_reactor_stops(self) -> None:
        """It waits for the factory, whose own end looks for no trigger."""
        (closing,) = self.reactor.stop()
        self.assertIsInstance(closing, Deferred)
        self.assertEqual(1, self.factory.closes)
        self.close()

    def test_factory_was_closed_before(self) -> None:
        """The reactor knows nothing of it any more; a second end does nothing."""
        self.close()
        self.close()
        self.assertEqual([], self.reactor.stop())

    def test_factory_was_dropped(self) -> None:
        """The reactor does not keep it alive."""
        del self.factory
        self.assertEqual([None], self.reactor.stop())
