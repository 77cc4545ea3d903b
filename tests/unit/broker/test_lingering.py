"""The members of a pair: the wait for the next ordinary requests, and the socket to the slave."""

from __future__ import annotations

from collections.abc import Callable

from metamorphosis.broker import lanes
from metamorphosis.broker.lanes import LINGER_MILLISECONDS, LaneSet
from tests.support.lanes import Peer, Served
from tests.unit.broker.test_hotpath import put
from tests.unit.broker.test_lanes import LaneCase
from tests.unit.broker.test_sockets import Transport
from tests.unit.broker.test_synclanes import SlaveCase
from tests.unit.broker.test_syncscan import sync


class Wait:
    """In place of the wait: each call does the next thing, and says whether the set is ready.
    After the last one nothing comes."""

    def __init__(self, served: Served, *calls: Callable[[], bool]) -> None:
        assert isinstance(served.sockets, LaneSet)
        self.calls = list(calls)
        self.asked = 0
        served.sockets._wait_ready = self

    def __call__(self, milliseconds: int) -> bool:
        """See the class."""
        assert milliseconds == LINGER_MILLISECONDS
        self.asked += 1
        return bool(self.calls) and self.calls.pop(0)()


class SlaveTests(SlaveCase):
    """The slave of a pair."""

    def comes(self, peer: Peer, data: bytes) -> Callable[[], bool]:
        """Bytes that come during the wait."""

        def send() -> bool:
            peer.send(data)
            return True

        return send

    def test_next_record(self) -> None:
        """It is answered before the reactor looks at anything else, as long as one comes."""
        served = self.slave()
        peer = self.master(served)
        wait = Wait(served, self.comes(peer, sync(b"b")), self.comes(peer, sync(b"c")))
        peer.send(sync(b"a"))
        served.sockets.doRead()
        self.assertEqual(peer.received().count(b"result 200"), 3)
        self.assertEqual(wait.asked, 3)

    def test_something_else(self) -> None:
        """After another request the reactor continues."""
        served = self.slave()
        peer = self.master(served)
        wait = Wait(served, self.comes(peer, b"version 5\r\n"))
        peer.send(sync(b"a"))
        served.sockets.doRead()
        self.assertEqual(wait.asked, 1)
        peer.send(b"version 6\r\n")
        served.sockets.doRead()
        self.assertEqual(wait.asked, 1)
        served.turn()
        self.assertEqual(peer.received().count(b"result 200"), 3)

    def test_much(self) -> None:
        """After many bytes the reactor goes on."""
        served = self.slave()
        peer = self.master(served)
        wait = Wait(served)
        peer.send(sync(b"x" * 1000) * (lanes.LINGER_BYTES // 1000))
        served.sockets.doRead()
        self.assertEqual(wait.asked, 0)
        peer.send(sync(b"x" * 1000))
        served.sockets.doRead()
        self.assertEqual(wait.asked, 1)

    def test_limit(self) -> None:
        """The reactor continues after a while, however much comes."""
        served = self.slave()
        peer = self.master(served)
        times = iter((0.0, 0.0004, 0.0008, 0.0011))
        self.patch(lanes, "monotonic", lambda: next(times, 1.0))
        wait = Wait(served, *[self.comes(peer, sync(b"b"))] * 4)
        peer.send(sync(b"a"))
        served.sockets.doRead()
        self.assertEqual(wait.asked, 3)
        wait.calls.clear()


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
        self.assertEqual((wait.asked, peer.received()), (0, b""))
        served.broker.threads.release()
        served.turn()
        self.assertEqual(peer.received().count(b"result 200"), 2)


class PlainTests(LaneCase):
    """A broker of no pair."""

    def test_no_wait(self) -> None:
        """It returns to the reactor at once."""
        served = self.serve()
        peer = self.plain(served)
        wait = Wait(served)
        peer.send(put(b"x"))
        served.sockets.doRead()
        self.assertIn(b"result 200", peer.received())
        self.assertEqual(wait.asked, 0)


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
        self.assertEqual(self.wait.asked, 1)

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
