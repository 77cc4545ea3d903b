"""The wait for the next ordinary requests, and a socket that the broker has opened itself."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from twisted.internet.task import Clock

from metamorphosis.broker.lanes import LaneSet
from metamorphosis.native import compiled
from tests.support.lanes import Peer, Reactor, Served, alarms, no_calls
from tests.unit.broker.test_hotpath import put
from tests.unit.broker.test_lanes import LaneCase
from tests.unit.broker.test_synclanes import SlaveCase
from tests.unit.broker.test_syncscan import sync
from tests.unit.test_sockets import Transport

POLL = 60
"""Microseconds of a busy poll."""

FAR = 1e9
"""Seconds of the monotonic clock that do not come."""

NOTHING, AT_ONCE, LATER = range(3)
"""Outcomes of a wait, as in ``lingering.c``."""

LINGER_SECONDS, LINGER_MILLISECONDS = 0.004, 4
SOON_SECONDS = 0.0005
LINGER_BYTES = 32 << 10
MOST_SKIPPED = 255
"""As there."""


class Wait:
    """In place of the wait: each call does the next thing, and says whether the set is ready.
    After the last one nothing comes. Time stands still, unless a test moves it."""

    def __init__(self, served: Served, *calls: Callable[[], bool]) -> None:
        assert isinstance(served.sockets, LaneSet)
        self.calls = list(calls)
        self.asked: list[tuple[int, int]] = []
        self.now = 100.0
        served.sockets.lingering = compiled.Lingering(POLL, no_calls, self, lambda: self.now)

    def __call__(self, microseconds: int, milliseconds: int) -> int:
        """See the class."""
        self.asked.append((microseconds, milliseconds))
        return AT_ONCE if self.calls and self.calls.pop(0)() else NOTHING


def comes(peer: Peer, data: bytes) -> Callable[[], bool]:
    """Bytes that come during the wait."""

    def send() -> bool:
        peer.send(data)
        return True

    return send


class RuleTests(LaneCase):
    """When it is waited, and how."""

    def setUp(self) -> None:
        """Waits of which nothing comes."""
        sockets = self.serve().sockets
        assert isinstance(sockets, LaneSet)
        self.lanes = sockets._lanes
        self.now = 100.0
        self.due: float | None = None
        self.outcomes: list[int] = []
        self.asked: list[tuple[int, int]] = []

    def lingering(self, busy_poll: int = POLL) -> Any:
        """The rules."""
        return compiled.Lingering(busy_poll, lambda: self.due, self.wait, lambda: self.now)

    def more(self, lingering: Any, sleeps: bool, answers: bool = False) -> bool:
        """A wait; whether something has come."""
        came: bool = self.lanes.linger(lingering, sleeps, answers)
        self.assertEqual(came, not lingering.is_over)
        return came

    def wait(self, microseconds: int, milliseconds: int) -> int:
        """The next outcome."""
        self.asked.append((microseconds, milliseconds))
        return self.outcomes.pop(0) if self.outcomes else NOTHING

    def turns(self, lingering: Any, count: int, sleeps: bool) -> list[int]:
        """The numbers of those turns that have waited with a busy poll."""
        polled = []
        for number in range(count):
            del self.asked[:]
            lingering.begin()
            self.more(lingering, sleeps)
            lingering.end()
            if any(microseconds for microseconds, _ in self.asked):
                polled.append(number)
        return polled

    def test_soon(self) -> None:
        """So is a turn that begins within the time of the end of the one before."""
        lingering = self.lingering()
        self.assertFalse(lingering.soon)
        for pause, soon in ((0.0, False), (SOON_SECONDS * 0.99, True), (SOON_SECONDS, False)):
            self.now += pause
            lingering.begin()
            self.assertEqual(lingering.soon, soon, pause)
            self.now += 1  # the turn itself
            lingering.end()

    def test_outcomes(self) -> None:
        """Whether something has come."""
        for sleeps in (True, False):
            for outcome, came in ((NOTHING, False), (AT_ONCE, True), (LATER, True)):
                lingering = self.lingering()
                lingering.begin()
                self.outcomes = [outcome]
                self.assertEqual(self.more(lingering, sleeps), came)
        self.assertEqual(self.asked, [(POLL, LINGER_MILLISECONDS)] * 3 + [(POLL, 0)] * 3)

    def test_limit(self) -> None:
        """No wait begins four milliseconds after the turn."""
        lingering = self.lingering()
        self.outcomes = [AT_ONCE] * 3
        lingering.begin()
        self.now += LINGER_SECONDS * 0.99
        self.assertTrue(self.more(lingering, True))
        self.now += LINGER_SECONDS * 0.01
        self.assertFalse(self.more(lingering, True))
        self.assertEqual(len(self.asked), 1)

    def test_next_delayed_call(self) -> None:
        """No wait begins after the time of the next delayed call, as the first wait has seen it."""
        for due, limit in ((0.001, 0.001), (0.0, 0.0), (0.01, LINGER_SECONDS)):
            lingering = self.lingering()
            self.due, self.outcomes = due, [AT_ONCE] * 3
            lingering.begin()
            self.assertEqual(self.more(lingering, True), due > 0, due)
            self.due = 0.0
            self.now += limit * 0.99
            self.assertEqual(self.more(lingering, True), due > 0, due)
            self.now += limit * 0.02
            self.assertFalse(self.more(lingering, True), due)

    def test_not_begun(self) -> None:
        """The reactor is asked again in the next turn."""
        lingering = self.lingering()
        for due in (0.0, None, 0.0):
            self.due, self.outcomes = due, [AT_ONCE]
            lingering.begin()
            self.assertEqual(self.more(lingering, True), due is None)

    def test_error_of_the_reactor(self) -> None:
        """It is logged, and there is no wait."""
        lingering = compiled.Lingering(POLL, lambda: "soon", self.wait, lambda: self.now)  # type: ignore[arg-type,return-value]
        seen = []
        self.patch(sys, "unraisablehook", seen.append)
        lingering.begin()
        self.assertFalse(self.more(lingering, True))
        self.assertEqual([error.exc_type for error in seen], [TypeError])

    def test_in_vain(self) -> None:
        """After busy polls in vain one, three, seven waits have none, and so on up to a limit."""
        for sleeps in (True, False):
            polled = self.turns(self.lingering(), 1000, sleeps)
            gaps = [after - before - 1 for before, after in pairwise(polled)]
            self.assertEqual(gaps, [1, 3, 7, 15, 31, 63, 127, 255, MOST_SKIPPED], sleeps)

    def test_later_is_in_vain(self) -> None:
        """What came after the busy poll would have come without it."""
        lingering = self.lingering()
        self.outcomes = [LATER] * 20
        self.assertEqual(self.turns(lingering, 8, True), [0, 2, 6])

    def test_in_time_again(self) -> None:
        """After one that found something each wait has one again."""
        lingering = self.lingering()
        self.turns(lingering, 6, False)
        self.outcomes = [AT_ONCE] * 3
        self.assertEqual(self.turns(lingering, 5, False), [0, 1, 2, 3])

    def test_answers_apart(self) -> None:
        """Busy polls for answers that are in vain leave those for requests as they are."""
        lingering = self.lingering()
        polled = []
        for turn in range(20):
            answers = bool(turn % 2)
            self.outcomes = [LATER if answers else AT_ONCE]
            before = len(self.asked)
            lingering.begin()
            self.assertTrue(self.more(lingering, True, answers))
            lingering.end()
            if self.asked[before][0]:
                polled.append(turn)
        self.assertEqual([turn for turn in polled if turn % 2], [1, 5, 13])
        self.assertEqual([turn for turn in polled if not turn % 2], list(range(0, 20, 2)))

    def test_none(self) -> None:
        """Without a busy poll there is only the sleep."""
        lingering = self.lingering(0)
        self.assertEqual(self.turns(lingering, 3, True), [])
        self.assertEqual(self.asked, [(0, LINGER_MILLISECONDS)])
        self.assertEqual(self.turns(lingering, 3, False), [])
        self.assertEqual(self.asked, [])


class SlaveTests(SlaveCase):
    """The slave of a pair."""

    def test_next_record(self) -> None:
        """It is answered before the reactor looks at anything else, as long as one comes."""
        served = self.slave()
        peer = self.master(served)
        wait = Wait(served, comes(peer, sync(b"b")), comes(peer, sync(b"c")))
        peer.send(sync(b"a"))
        served.sockets.doRead()
        self.assertEqual(peer.received().count(b"result 200"), 3)
        self.assertEqual(len(wait.asked), 3)

    def test_something_else(self) -> None:
        """After another request the reactor continues."""
        served = self.slave()
        peer = self.master(served)
        wait = Wait(served, comes(peer, b"version 5\r\n"))
        peer.send(sync(b"a"))
        served.sockets.doRead()
        self.assertEqual(len(wait.asked), 1)
        peer.send(b"version 6\r\n")
        served.sockets.doRead()
        self.assertEqual(len(wait.asked), 1)
        served.turn()
        self.assertEqual(peer.received().count(b"result 200"), 3)

    def test_much(self) -> None:
        """After many bytes the reactor goes on."""
        served = self.slave()
        peer = self.master(served)
        wait = Wait(served)
        peer.send(sync(b"x" * 1000) * (LINGER_BYTES // 1000))
        served.sockets.doRead()
        self.assertEqual(len(wait.asked), 0)
        peer.send(sync(b"x" * 1000))
        served.sockets.doRead()
        self.assertEqual(len(wait.asked), 1)

    def test_limit(self) -> None:
        """The reactor continues after a while, however much comes."""
        served = self.slave()
        peer = self.master(served)

        def comes_later() -> bool:
            wait.now += 0.0016
            peer.send(sync(b"b"))
            return True

        wait = Wait(served, *[comes_later] * 4)
        peer.send(sync(b"a"))
        served.sockets.doRead()
        self.assertEqual(wait.asked, [(POLL, LINGER_MILLISECONDS)] * 3)
        wait.calls.clear()


class ReactorTests(LaneCase):
    """The reactor's delayed calls."""

    def test_timeout(self) -> None:
        """A set asks its reactor for them, where the reactor tells."""
        shared = self.serve().broker.factory.shared
        asked = []

        class Told(Reactor):
            def timeout(self) -> float:
                asked.append(1)
                return 0.0

        for reactor, count in ((Told(Clock()), 1), (Reactor(Clock()), 0)):
            sockets = LaneSet(reactor, shared)  # type: ignore[arg-type]
            self.addCleanup(sockets.close)
            sockets.lingering.begin()
            sockets._lanes.linger(sockets.lingering, True, False)
            self.assertEqual(len(asked), count)
            del asked[:]


class FlushTests(SlaveCase):
    """A slave whose replies wait for a flush."""

    def test_no_wait(self) -> None:
        """The reactor has to learn of its end."""
        served = self.slave(unflush_threshold=0)
        peer = self.master(served)
        wait = Wait(served)
        served.broker.threads.hold()
        for _ in range(2):
            peer.send(sync(b"a"))
            served.sockets.doRead()
        self.assertEqual((wait.asked, peer.received()), ([], b""))
        served.broker.threads.release()
        served.turn()
        self.assertEqual(peer.received().count(b"result 200"), 2)


class PlainTests(LaneCase):
    """A broker of no pair."""

    def setUp(self) -> None:
        """Two clients."""
        self.served = self.serve()
        self.peer, self.other = self.plain(self.served), self.plain(self.served)

    def turn(self, wait: Wait, peer: Peer, data: bytes = put(b"x"), replies: int = 1) -> None:
        """A request of this client, and what comes meanwhile."""
        peer.send(data)
        self.served.sockets.doRead()
        self.assertEqual(peer.received().count(b"result 200"), replies)

    def test_first(self) -> None:
        """After a pause it returns to the reactor at once."""
        wait = Wait(self.served)
        self.turn(wait, self.peer)
        wait.now += 0.001
        self.turn(wait, self.peer)
        self.assertEqual(wait.asked, [])

    def test_lone_client(self) -> None:
        """The next requests are answered before the reactor looks at anything else."""
        more = [comes(self.peer, put(b"y")) for _ in range(2)]
        wait = Wait(self.served, *more)
        self.turn(wait, self.peer)
        self.turn(wait, self.peer, replies=3)
        self.assertEqual(wait.asked, [(POLL, 0)] * 3)

    def test_two_clients(self) -> None:
        """There is no wait after a turn of both."""
        wait = Wait(self.served)
        self.turn(wait, self.peer)
        self.other.send(put(b"y"))
        self.turn(wait, self.peer)
        self.assertIn(b"result 200", self.other.received())
        self.assertEqual(wait.asked, [])

    def test_in_turns(self) -> None:
        """There is none where each turn serves another client."""
        wait = Wait(self.served)
        for _ in range(2):
            self.turn(wait, self.peer)
            self.turn(wait, self.other)
        self.assertEqual(wait.asked, [])
        self.turn(wait, self.other)
        self.assertEqual(wait.asked, [(POLL, 0)])

    def test_something_else(self) -> None:
        """There is none after another request."""
        wait = Wait(self.served)
        self.turn(wait, self.peer)
        self.peer.send(b"version 5\r\n")
        self.served.sockets.doRead()
        self.assertEqual(wait.asked, [])

    def test_group_commit(self) -> None:
        """There is none while a reply waits for its flush; when it has left, there is."""
        served = self.serve(unflush_threshold=0)
        peer = self.plain(served)
        wait = Wait(served)
        for held in (True, False):
            if held:
                served.broker.threads.hold()
            peer.send(put(b"x"))
            served.sockets.doRead()
            self.assertEqual(wait.asked, [] if held else [(POLL, 0)])
            served.broker.threads.release()
            served.turn()
            self.assertIn(b"result 200", peer.received())


class WaitTests(LaneCase):
    """The wait itself."""

    def test_outcomes(self) -> None:
        """A ready socket is found at once, with and without a busy poll."""
        served = self.serve()
        peer = self.plain(served)
        assert isinstance(served.sockets, LaneSet)
        linger = served.sockets._lanes.linger
        for busy_poll in (0, 1000):
            lingering = compiled.Lingering(busy_poll, no_calls, None, lambda: 0)
            lingering.begin()
            self.assertFalse(linger(lingering, True, False))
            peer.send(put(b"x"))
            lingering = compiled.Lingering(busy_poll, no_calls, None, lambda: 0)
            lingering.begin()
            self.assertEqual(linger(lingering, False, False), busy_poll > 0)
            self.assertTrue(linger(lingering, True, False))
            served.turn()
            self.assertIn(b"result 200", peer.received())

    def new(self, free: int) -> Any:
        """Lanes that are made while so many descriptors are free."""
        sockets = self.serve().sockets
        assert isinstance(sockets, LaneSet)
        shared = sockets._shared
        made = [os.dup(0) for _ in range(free + 1)]  # the lowest free ones
        for descriptor in made:
            os.close(descriptor)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(made), limits[1]))
        try:
            return compiled.Lanes(sockets.fileno(), sockets._stores, shared.ids, 1000, 1000)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_alarm(self) -> None:
        """It ends a wait, each time; without a descriptor for it the wait has a time of its own."""
        for free in (0, 1):
            lanes = self.new(free)
            for _ in range(3):
                lingering = compiled.Lingering(0, no_calls)
                lingering.begin()
                self.assertFalse(lanes.linger(lingering, True, False))
                self.assertEqual(lanes.turn(None, False), [])

    def test_alarm_has_gone(self) -> None:
        """It is stopped before the reactor looks at the set, and its descriptor closed at the
        end."""
        before = len(alarms())
        served = self.serve()
        peer = self.plain(served)
        assert isinstance(served.sockets, LaneSet)
        lanes = served.sockets._lanes
        lingering = compiled.Lingering(0, no_calls, None, lambda: FAR)
        lingering.begin()
        peer.send(put(b"x"))
        self.assertTrue(lanes.linger(lingering, True, False))
        self.assertEqual(set(alarms()), {"it_value: (0, 0)\n"})
        served.turn()
        self.assertIn(b"result 200", peer.received())
        del lanes
        self.assertEqual(len(alarms()), before + 1)
        lanes = compiled.Lanes(-1, served.sockets._stores, served.sockets._shared.ids, 1, 1)
        self.assertEqual(len(alarms()), before + 1)  # there is no such set
        lanes = self.new(1)
        self.assertEqual(len(alarms()), before + 3)  # with that of another broker
        del lanes
        self.assertEqual(len(alarms()), before + 2)

    def test_its_own_clock(self) -> None:
        """Before its begin it is over."""
        served = self.serve()
        assert isinstance(served.sockets, LaneSet)
        lingering = compiled.Lingering(POLL, no_calls)
        self.assertFalse(served.sockets._lanes.linger(lingering, True, False))
        self.assertTrue(lingering.is_over)

    def test_odd_arguments(self) -> None:
        """They are refused."""
        served = self.serve()
        assert isinstance(served.sockets, LaneSet)
        lanes = served.sockets._lanes
        for arguments in ((), (1,), ("1", no_calls), (1 << 40, no_calls), (None, no_calls)):
            with self.assertRaises((TypeError, OverflowError)):
                compiled.Lingering(*arguments)
        for call, arguments in (
            (lanes.turn, (1, False)),
            (lanes.turn, ()),
            (lanes.linger, (None, False, False)),
            (lanes.linger, (compiled.Lingering(1, no_calls), False)),
            (lanes.may_linger, (None, False)),
        ):
            with self.assertRaises((TypeError, RuntimeError)):
                call(*arguments)

    def test_doubles_that_fail(self) -> None:
        """An error of a double of a test counts as nothing."""
        served = self.serve()
        assert isinstance(served.sockets, LaneSet)
        self.patch(sys, "unraisablehook", lambda error: None)
        lingering = compiled.Lingering(POLL, no_calls, lambda *_: 1 // 0, lambda: 0)
        lingering.begin()
        self.assertFalse(served.sockets._lanes.linger(lingering, True, False))


class AdoptedTests(LaneCase):
    """A socket that the broker has opened itself."""

    def setUp(self) -> None:
        """One, at a broker that serves."""
        self.served = self.serve()
        self.taken: list[bytes] = []
        self.transport = Transport(self.served.sockets)
        self.addCleanup(self.transport.peer.close)
        self.addCleanup(self.transport.socket.close)
        self.transport.startReading()
        self.served.sockets.adopt(self.transport, self.take, lambda: False)
        self.wait = Wait(self.served)

    def take(self, data: bytes) -> bool:
        """Bytes have come."""
        self.taken.append(data)
        return data.startswith(b"result 200")

    def read(self, data: bytes) -> None:
        """They come, and are served."""
        self.transport.peer.send(data)
        self.served.sockets.doRead()

    def test_received(self) -> None:
        """C receives; whatever comes is passed on as it is."""
        whole = [b"result 200 5 1\r\n1 0 0", b"r", b"put test 0 1 0 ", b"get test ", b"\xff"]
        for data in whole:
            self.read(data)
        self.assertEqual(self.taken, whole)
        self.assertEqual(self.transport.events, [])
        self.assertEqual(len(self.wait.asked), 1)

    def test_clients_in_the_same_turn(self) -> None:
        """Both are served."""
        peer = self.plain(self.served)
        peer.send(put(b"x"))
        self.read(b"result 200")
        self.assertIn(b"result 200", peer.received())
        self.assertEqual(self.taken, [b"result 200"])

    def test_end(self) -> None:
        """The transport is told."""
        self.transport.peer.close()
        self.served.sockets.doRead()
        self.assertEqual(self.transport.events, [b"", "half closed"])

    def test_writer(self) -> None:
        """While it waits for room the transport is served, then C receives again."""
        self.transport.startWriting()
        self.read(b"one")
        self.assertEqual(self.transport.events, [b"one", "write"])
        self.read(b"two")
        self.assertEqual(self.taken, [b"two"])

    def test_paused(self) -> None:
        """Nothing is received meanwhile."""
        self.transport.stopReading()
        self.read(b"one")
        self.assertEqual((self.taken, self.transport.events), ([], []))
        self.transport.startReading()
        self.served.sockets.doRead()
        self.assertEqual(b"".join([*self.taken, *self.transport.events]), b"one")

    def test_fault(self) -> None:
        """It ends that connection only."""
        self.served.sockets.adopt(self.transport, lambda data: 1 // 0 == 1, lambda: False)
        self.read(b"one")
        self.assertEqual(self.transport.events, [ZeroDivisionError])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
