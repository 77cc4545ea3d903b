"""A pair whose frames leave, and whose answers are matched, in C: the connection to the slave is a
socket."""

from __future__ import annotations

import contextlib
import gc
import random
import resource
import socket
import sys
from collections import deque
from typing import Any
from unittest import mock

from twisted.internet import tcp
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from metamorphosis.client.runtimes.txlink import LinkTransport, TwistedLink
from metamorphosis.native import compiled
from metamorphosis.replication.pairmaster import appending
from metamorphosis.replication.pairmaster.connection import SlaveConnection
from metamorphosis.replication.pairmaster.flights import PairBatch
from metamorphosis.replication.pairmaster.frames import OPAQUES
from metamorphosis.replication.pairmaster.pairedlog import Standing
from metamorphosis.store.appender import UNKNOWN_END, Appender
from metamorphosis.store.segmentwriter import SegmentWriter
from metamorphosis.store.states import Worker
from tests.support.lanes import Peer, alarms, no_calls
from tests.support.pairing import MASTER_FAILED, SLAVE, SLAVE_FAILED, Pair, put, result
from tests.support.scriptedpeers import Fault
from tests.support.scriptedwire import LinkWire
from tests.unit.replication.pairmaster import test_lanes
from tests.unit.replication.pairmaster.test_lanes import LaneCase, LanePair

MOST_READS = 100_000
"""Of the master, for what the slave says at a time."""


class Transport(LinkTransport):
    """That of a client on a socket which is connected already."""

    def __init__(self, end: socket.socket, protocol: TwistedLink, reactor: Any) -> None:
        tcp.Connection.__init__(self, end, protocol, reactor)  # a client would connect
        self._queue = deque()
        self.connected = 1

    def connectionLost(self, reason: Failure) -> None:
        """Tell the protocol, and no connector."""
        tcp.Connection.connectionLost(self, reason)


class SlaveSocket(LinkWire):
    """The connection of a scripted slave: a socket, in place of the link that was accepted."""

    def __init__(self, pair: LinePair) -> None:
        super().__init__(pair.gregor, pair.runtime.accept(SLAVE))
        self.pair = pair
        connection: Any = pair.role.peer.connection
        assert isinstance(connection, SlaveConnection)
        self.far, near = socket.socketpair()
        self.far.setblocking(False)
        near.setblocking(False)
        link = TwistedLink(connection, mock.Mock())
        self.transport = Transport(near, link, pair.sockets)
        link.transport = self.transport
        connection._link = connection._socket = link
        self.transport.startReading()
        expected = pair.role.syncs.waits_only_for_slave
        line = pair.sockets.adopt(self.transport, connection.take, expected)
        connection._line = line
        pair.role.syncs.expect = line.expect

    def take(self) -> bytes:
        """See ``PumpedWire``."""
        self.pair.runtime.turn()
        data = bytearray(self.link.take())
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while piece := self.far.recv(1 << 20):
                data += piece
        return bytes(data)

    def give(self, data: bytes) -> None:
        """See ``PumpedWire``; the master reads meanwhile what the socket does not take at once."""
        view = memoryview(data)
        for _ in range(MOST_READS):
            try:
                view = view[self.far.send(view) :] if view else view
            except BlockingIOError:
                pass
            except OSError:
                return  # the master has ended the connection
            self.pair.sockets.doRead()
            if not view:
                return
        raise AssertionError("the master does not read")

    def break_off(self) -> None:
        """See ``PumpedWire``."""
        self.far.close()
        if self.transport.connected:
            self.transport.stopReading()
            self.transport.connectionLost(Failure(ConnectionDone()))

    @property
    def closing(self) -> bool:
        """See ``PumpedWire``."""
        return not self.transport.connected


class LinePair(LanePair):
    """A pair master with sockets on both sides."""

    wire: SlaveSocket | None  # type: ignore[assignment]

    def connect(self) -> None:
        """See ``Pair``."""
        while SLAVE not in [repr(each) for each in self.runtime.attempts]:
            self.runtime.advance(0.05)
        self.wire = SlaveSocket(self)
        self.settle()

    def end(self, peers: list[Peer]) -> None:
        """See ``LanePair``."""
        if self.wire is not None:
            self.lose()
        super().end(peers)

    @property
    def socket(self) -> SlaveSocket:
        """The present connection."""
        assert self.wire is not None
        return self.wire

    @property
    def flies_in_c(self) -> bool:
        """Whether C has the connection."""
        return self.sockets._line == self.socket.transport.fileno()


class LineCase(LaneCase):
    """A connected pair whose next answers C takes."""

    pair: LinePair

    def new_pair(self) -> Pair:
        """See ``PairCase``."""
        return LinePair(self.mktemp(), unflush_threshold=self.threshold)

    def setUp(self) -> None:
        """Connect; an answer is taken in Python."""
        super().setUp()
        self.quick = self.peer()
        self.assertTrue(self.pair.flies_in_c)
        self.calls: list[str] = []
        self.lift = lambda: None
        self.landed = appending.PairAppender.landed
        for name in ("accepted", "landed"):
            self.patch(appending.PairAppender, name, self.noted(name))

    def noted(self, name: str) -> Any:
        """A method that tells of its calls."""
        method = getattr(appending.PairAppender, name)

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            return method(*arguments)

        return call

    def only_c(self) -> Any:
        """No reply of the slave comes to Python meanwhile."""
        return mock.patch.object(self.pair.role.syncs, "take", side_effect=AssertionError)

    def limit(self, size: int) -> None:
        """The last file of the log takes so many more bytes, and so do all others, until
        ``lift``."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.lift = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
        self.addCleanup(self.lift)
        end = self.pair.log().store.last.size + size
        resource.setrlimit(resource.RLIMIT_FSIZE, (end, before[1]))

    def answers(self) -> bytes:
        """What the slave answers to the frames that have come; it is not sent yet."""
        wire = self.pair.socket
        wire.line.receive(wire.take())
        data = b"".join(wire.coming)
        wire.coming.clear()
        return data


class TakenTests(LineCase):
    """What C does alone."""

    def test_one_round(self) -> None:
        """All puts of a turn leave at its end with one write, each partition's as one flight; when
        the slave has accepted them, they are written and answered."""
        others = [self.peer() for _ in range(3)]
        self.calls.clear()
        for number, peer in enumerate(others):
            peer.send(put(b"x" * number, 5) + put(b"y", 6, 1) + put(b"z", 7))
        with self.only_c():
            self.pair.serve()
            self.assertEqual([peer.received() for peer in others], [b""] * 3)
            self.pair.settle()
        for peer in others:
            replies = peer.received()
            self.assertEqual(self.statuses(replies), [b"200"] * 3)
            opaques = [int(part.split()[2]) for part in replies.split(b"result ")[1:]]
            self.assertEqual(opaques, [5, 6, 7])
        self.assertEqual(self.calls, [])
        self.assert_identical()
        self.assert_nothing_waits()

    def test_many_flights(self) -> None:
        """Answers to several flights that come together are all taken."""
        with self.only_c():
            for number in range(200):
                self.quick.send(put(b"x" * number, number, number % 2))
                self.pair.serve()
            self.pair.settle()
        self.assertEqual(self.statuses(self.quick.received()), [b"200"] * 200)
        self.assert_identical()
        self.assert_nothing_waits()

    def test_cut(self) -> None:
        """An answer may come in pieces."""
        self.quick.send(put(b"a", 5))
        self.pair.serve()
        data = self.answers()
        with self.only_c():
            for at in range(len(data)):
                self.assertEqual(self.quick.received(), b"")
                self.pair.socket.give(data[at : at + 1])
        self.assertEqual(self.statuses(self.quick.received()), [b"200"])
        self.assert_identical()

    def test_opaques_begin_again(self) -> None:
        """The frames of one flight may have the last opaques and the first."""
        self.pair.role.syncs._number = 3 * OPAQUES - 2
        with self.only_c():
            self.quick.send(b"".join(put(b"x", n) for n in range(5)))
            self.pair.serve()
            self.pair.settle()
        self.assertEqual(self.statuses(self.quick.received()), [b"200"] * 5)
        self.assert_identical()

    def test_heard(self) -> None:
        """The slave is not asked for its version while it answers."""
        said = self.pair.socket.line.said
        for _ in range(30):
            self.quick.send(put(b"x"))
            self.pair.serve()
            self.pair.advance(0.2, 0.2)
        self.assertNotIn(b"1.4.6", said[-3000:])
        connection = self.pair.role.peer.connection
        self.assertGreater(connection.received_at, self.pair.runtime.seconds() - 3)


class GroupCommitTests(LineCase):
    """A log that is flushed before the reply."""

    threshold = 0

    def test_joins_the_batch(self) -> None:
        """The records join the batch of the store."""
        self.pair.broker.threads.hold()
        with self.only_c():
            for number in range(4):
                self.quick.send(put(b"x" * number, number))
                self.pair.serve()
            self.pair.settle()
        self.assertEqual(self.quick.received(), b"")
        self.pair.broker.threads.release()
        self.pair.settle()
        self.assertEqual(self.statuses(self.quick.received()), [b"200"] * 4)
        self.assertEqual(self.calls, ["accepted"] * 4)
        self.assert_identical()
        self.assert_nothing_waits()


class GatheringTests(LineCase):
    """Frames of group commit that leave together."""

    threshold = 0

    def setUp(self) -> None:
        """Two producers; the second one's next put comes when the first one's was taken."""
        super().setUp()
        self.other = self.peer()
        self.next_put: list[bytes] = []

        def and_another(*arguments: Any) -> PairBatch:
            if self.next_put:
                self.other.send(self.next_put.pop())
            return PairBatch(*arguments)

        self.patch(self.pair.log().appender, "_make_batch", and_another)
        self.patch(self.pair.sockets, "lingering", compiled.Lingering(0, no_calls, lambda *_: 0))

    def serve(self) -> int:
        """One turn in which the first producer puts, too; the number of records that have left."""
        self.next_put.append(put(b"b", 6))
        self.quick.send(put(b"a", 5))
        self.pair.serve()
        before = len(self.pair.gregor.syncs)
        self.answers()
        count = len(self.pair.gregor.syncs) - before
        self.pair.serve()
        self.answers()
        return count

    def test_expected(self) -> None:
        """Puts of producers that have their replies leave together."""
        syncs = self.pair.role.syncs
        syncs.expect(2)
        self.assertEqual(self.serve(), 2)
        self.assertEqual(self.serve(), 1)  # no longer

    def test_not_expected(self) -> None:
        """Otherwise those leave that are there."""
        self.assertEqual(self.serve(), 1)

    def test_not_soon(self) -> None:
        """After a moment they leave without the others, and the next ones at once."""
        self.pair.role.syncs.expect(1000)
        self.assertEqual(self.serve(), 2)
        self.assertEqual(self.serve(), 1)

    def test_number(self) -> None:
        """As many are expected as were flushed."""
        counts: list[int] = []
        self.pair.broker.threads.hold()
        self.patch(self.pair.role.syncs, "expect", counts.append)
        self.quick.send(put(b"a", 5) + put(b"b", 6) + put(b"c", 7, 1))
        self.pair.serve()
        self.pair.settle()
        self.assertEqual(counts, [])
        self.pair.broker.threads.release()
        self.pair.settle()
        self.assertEqual(sorted(counts), [1, 2])

    def test_much_waits(self) -> None:
        """Where much waits for replies, one ready socket is enough for another look."""
        self.pair.gregor.freeze()
        self.quick.send(put(b"x" * 40000, 4))
        for _ in range(3):
            self.pair.serve()
        self.assertTrue(self.is_plain(self.quick))
        taken = []
        while 2 not in taken and len(taken) < 20:  # a turn looks no more after a millisecond
            self.next_put.append(put(b"b", 6 + 2 * len(taken)))
            self.quick.send(put(b"a", 5 + 2 * len(taken)))
            before = self.pair.role.syncs.under_way
            self.pair.serve()
            taken.append(self.pair.role.syncs.under_way - before)
            self.pair.serve()
        self.assertIn(2, taken)

    def test_odd_number(self) -> None:
        """A negative number is an error."""
        self.assertRaises(ValueError, self.pair.role.syncs.expect, -1)
        self.assertRaises(TypeError, self.pair.role.syncs.expect, b"")


class LeftTests(LineCase):
    """What C leaves to Python, and then takes again."""

    def takes_again(self) -> None:
        """C takes the answer to the next put but one, at the latest."""
        for meanwhile in (contextlib.nullcontext(), self.only_c()):
            self.calls.clear()
            with meanwhile:
                self.quick.send(put(b"again", 77))
                self.pair.serve()
                self.pair.settle()
            self.assertEqual(self.statuses(self.quick.received()), [b"200"])
        self.assertEqual(self.calls, [])
        self.assert_identical()
        self.assert_nothing_waits()

    def test_a_part_of_the_answers(self) -> None:
        """The answers to a part of a flight: its records are written."""
        self.quick.send(put(b"a", 5) + put(b"b", 6))
        self.pair.serve()
        data = self.answers()
        end = len(self.pair.own())
        first = data.index(b"result", 1)
        self.pair.socket.give(data[: first + 3])
        self.assertEqual(len(self.pair.own()), end + 21)
        self.assertEqual(self.quick.received(), b"")
        self.pair.socket.give(data[first + 3 :])
        self.assertEqual(self.statuses(self.quick.received()), [b"200"] * 2)
        self.takes_again()

    def test_another_answer_first(self) -> None:
        """That of another request, and one that nobody expects."""
        version = self.pair.role.peer.version()
        self.quick.send(put(b"a", 5))
        self.pair.serve()
        self.pair.socket.give(b"result 200 0 2000000000\r\n")
        self.pair.settle()
        self.assertEqual(self.statuses(self.quick.received()), [b"200"])
        version.close()
        self.takes_again()

    def test_refused_in_the_middle(self) -> None:
        """Its put is refused; the later ones have lower offsets, also those of later flights."""
        self.pair.gregor.faults[len(self.pair.gregor.syncs) + 2] = Fault.REFUSE
        self.quick.send(b"".join(put(b"x" * n, n) for n in range(4)))
        self.pair.serve()
        self.quick.send(put(b"y", 4))
        self.pair.serve()
        self.pair.settle()
        replies = self.quick.received()
        self.assertEqual(self.statuses(replies), [b"200", b"500", b"200", b"200", b"200"])
        self.assertIn(result(500, SLAVE_FAILED % 0, 1), replies)
        self.assertTrue(replies.endswith(b" %d" % (len(self.pair.own()) - 21)))
        self.quick = self.peer()
        self.takes_again()

    def test_late(self) -> None:
        """The puts are refused after the time limit; a late answer stores their records."""
        self.pair.gregor.freeze()
        self.quick.send(put(b"a", 5))
        self.pair.serve()
        self.pair.advance(2.2)
        self.assertEqual(self.quick.received(), result(500, SLAVE_FAILED % 0, 5))
        self.pair.gregor.thaw()
        self.pair.settle()
        self.assert_identical()
        self.quick = self.peer()
        self.takes_again()

    def test_parted(self) -> None:
        """Nothing is written for a partition that was parted meanwhile, whatever the answer."""
        end = len(self.pair.own())
        self.quick.send(put(b"a", 5))
        self.pair.serve()
        data = self.answers()
        log = self.pair.log()
        log.part("for the test")
        self.pair.socket.give(data)
        self.assertEqual(len(self.pair.own()), end)
        self.pair.advance(3, 0.5)
        self.assertEqual(log.standing, Standing.JOINED)
        self.assertEqual(self.quick.received(), result(500, SLAVE_FAILED % 0, 5))
        self.assert_identical()

    def test_old_offset(self) -> None:
        """After a refusal the offset that was expected before is not that of our log."""
        end = len(self.pair.own())
        for opaque in (5, 6):
            self.quick.send(put(b"a", opaque))
            self.pair.serve()
        first, second = (b"result " + part for part in self.answers().split(b"result ")[1:])
        opaque_of_first = int(first.split()[3])
        self.pair.socket.give(result(500, b"no", opaque_of_first))
        self.pair.socket.give(b"result 200 0 2000000000\r\n")
        self.pair.role.peer.connection._line.resume(opaque_of_first + 1)
        self.pair.socket.give(second)
        self.assertEqual(len(self.pair.own()), end)
        self.assertEqual(self.statuses(self.quick.received()), [b"500"] * 2)
        self.pair.advance(3, 0.5)
        self.assertEqual(self.pair.log().standing, Standing.JOINED)
        self.assert_identical()

    def test_lost(self) -> None:
        """All pending puts are refused, and joining makes the logs the same."""
        self.quick.send(put(b"a", 5) + put(b"b", 6, 1))
        self.pair.serve()
        self.answers()
        self.pair.lose()
        failed = result(500, SLAVE_FAILED % 0, 5) + result(500, SLAVE_FAILED % 1, 6)
        self.assertEqual(self.quick.received(), failed)
        self.pair.connect()
        self.pair.advance(3, 0.5)
        self.assertEqual(self.pair.log().standing, Standing.JOINED)
        self.assert_identical()
        self.quick = self.peer()
        self.takes_again()

    def test_busy_worker(self) -> None:
        """While the store cannot be written, the records join its batch."""
        store = self.pair.log().store
        store.worker, worker = Worker.HOLDING, store.worker
        self.quick.send(put(b"a", 5))
        self.pair.serve()
        self.pair.settle()
        self.assertEqual(self.quick.received(), b"")
        self.assertEqual(self.calls, ["accepted"])
        store.worker = worker
        store.commit()
        self.pair.settle()
        self.assertEqual(self.statuses(self.quick.received()), [b"200"])
        self.takes_again()

    def test_turn_of_python(self) -> None:
        """While frames leave at the end of a turn in Python, later ones leave behind them."""
        before = len(self.pair.own())
        other = self.pair.client()
        other.connection.dataReceived(put(b"a", 1))
        self.assertTrue(self.pair.role.syncs.is_planned)
        self.quick.send(put(b"b", 2))
        self.pair.serve()
        self.pair.settle()
        self.assertEqual(self.statuses(other.received()), [b"200"])
        self.assertEqual(self.statuses(self.quick.received()), [b"200"])
        self.assertEqual(self.pair.log().standing, Standing.JOINED)
        self.assertEqual(self.pair.own()[before:][20::21], b"ab")
        self.takes_again()

    def test_put_in_python_before(self) -> None:
        """Puts that leave at the end of the turn keep their place before later ones."""
        other = self.any_peer()
        other.send(b"put test 0 1 0 1\r\na")
        self.quick.send(put(b"b", 2))
        for _ in range(3):
            self.pair.serve()
        self.pair.settle()
        self.assertEqual(self.statuses(other.received() + self.quick.received()), [b"200"] * 2)
        self.takes_again()


class FaultTests(LineCase):
    """Errors of the system."""

    def lifted(self, call: Any) -> Any:
        """A call after ``lift``."""

        def lift(*arguments: Any) -> None:
            self.lift()
            call(*arguments)

        return lift

    def test_short_write(self) -> None:
        """The rest is written; the put is acknowledged."""
        self.patch(appending.PairAppender, "landed", self.lifted(appending.PairAppender.landed))
        self.limit(11)
        self.quick.send(put(b"abc", 5))
        self.pair.serve()
        self.pair.settle()
        self.assertEqual(self.calls, ["landed"])
        self.assertEqual(self.statuses(self.quick.received()), [b"200"])
        self.assert_identical()

    def test_failed_write(self) -> None:
        """The put is refused with the master's text, and the partition is joined again."""
        self.patch(appending.PairAppender, "landed", self.lifted(appending.PairAppender.landed))
        self.limit(0)
        self.quick.send(put(b"abc", 5))
        self.pair.serve()
        self.pair.settle()
        self.assertEqual(self.quick.received(), result(500, MASTER_FAILED % 0, 5))
        self.pair.advance(3, 0.5)
        self.assertEqual(self.pair.log().standing, Standing.JOINED)
        self.assert_identical()
        self.assert_nothing_waits()

    def test_full_socket(self) -> None:
        """Frames that the socket does not take leave by Python, in their order."""
        self.pair.gregor.freeze()
        near = self.pair.socket.transport.socket
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sent = 0
        while self.pair.flies_in_c:
            self.quick.send(put(b"x" * 40000, sent))
            sent += 1
            for _ in range(3):
                self.pair.serve()
            self.assertLess(sent, 500)
        self.quick.send(put(b"y", sent))
        self.pair.serve()
        self.pair.gregor.thaw()
        for _ in range(200):
            self.pair.serve()
            self.pair.settle()
        self.assertEqual(self.statuses(self.quick.received()), [b"200"] * (sent + 1))
        self.assertTrue(self.pair.flies_in_c)
        self.assert_identical()
        self.assert_nothing_waits()

    def test_full_socket_between_rounds(self) -> None:
        """The frames of a later round of the turn leave behind those that were not taken."""
        peers = [self.peer() for _ in range(20)]
        near = self.pair.socket.transport.socket
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for peer in peers:
            peer.send(b"".join(put(b"x" * 30000, number) for number in range(2)))
        for _ in range(200):
            self.pair.serve()
            self.pair.settle()
        for peer in peers:
            self.assertEqual(self.statuses(peer.received()), [b"200"] * 2)
        self.assert_identical()
        self.assert_nothing_waits()

    def test_defect(self) -> None:
        """An error in Python ends the connection to the slave; afterwards the logs are the same."""
        store = self.pair.log().store
        usual = store.worker
        for name in ("accepted", "landed"):
            transport = self.pair.socket.transport
            if name == "accepted":
                store.worker = Worker.HOLDING
            else:
                self.limit(0)
            fails = self.lifted(mock.Mock(side_effect=ValueError))
            with mock.patch.object(appending.PairAppender, name, fails):
                self.quick.send(put(b"abc", 5))
                self.pair.serve()
                self.pair.settle()
                store.worker = usual
                self.pair.serve()
            self.assertFalse(transport.connected)
            self.pair.wire = None
            self.pair.connect()
            self.pair.advance(3, 0.5)
            self.assertEqual(len(self.quick.received().split(b"result ")), 2)
            self.assertEqual(self.pair.log().standing, Standing.JOINED)
            self.assert_identical()
            self.quick = self.peer()

    def test_defect_after_the_write(self) -> None:
        """A flight that has ended by an error is in the way of no joining."""
        for others in (0, 2):
            fails = mock.Mock(side_effect=ValueError)
            with mock.patch.object(Appender, "failed", fails):
                self.patch(appending.PairAppender, "landed", self.lifted(self.landed))
                self.limit(0)
                for number in range(1 + others):
                    self.quick.send(put(b"abc", number))
                    self.pair.serve()
                self.pair.settle()
                self.pair.serve()
            fails.assert_called_once()
            self.pair.wire = None
            self.pair.connect()
            self.pair.advance(3, 0.5)
            self.assertEqual(self.pair.log().standing, Standing.JOINED)
            self.assert_identical()
            self.quick = self.peer()

    def test_defect_in_the_account(self) -> None:
        """What was acknowledged is not written over: the store takes no more messages until the
        next start."""
        self.pair.advance(1)  # Python has to be told of the next put
        self.patch(sys, "unraisablehook", lambda error: None)
        with mock.patch.object(SegmentWriter, "grew", side_effect=GeneratorExit):
            self.quick.send(put(b"kept", 5))
            self.pair.serve()
            self.pair.settle()
        self.assertEqual(self.statuses(self.quick.received()), [b"200"])
        self.assertIs(self.pair.log().store.stalled, UNKNOWN_END)

    def test_defect_at_the_start(self) -> None:
        """An error before the send ends the connection of the put, and nothing else."""
        before = self.pair.own()
        other = self.peer()
        with mock.patch.object(self.pair.log().appender, "_make_batch", side_effect=ValueError):
            self.quick.send(put(b"abc", 5))
            self.pair.serve()
        self.pair.settle()
        self.pair.serve()
        self.assertEqual(self.quick.socket.recv(10), b"")  # its end
        self.assertTrue(self.pair.flies_in_c)
        other.send(put(b"abc", 6))
        self.pair.serve()
        self.pair.settle()
        self.assertEqual(self.statuses(other.received()), [b"200"])
        self.assertEqual(len(self.pair.own()), len(before) + 25 + 23)
        self.assert_identical()
        self.assert_nothing_waits()


class LingerTests(LineCase):
    """The waits for the next requests and answers."""

    def wait(self, microseconds: int, milliseconds: int) -> int:
        """Nothing comes."""
        self.waits.append((microseconds, milliseconds))
        return 0

    def linger(self) -> None:
        """A put, and then its answer."""
        self.waits: list[tuple[int, int]] = []
        self.patch(
            self.pair.sockets, "lingering", compiled.Lingering(60, no_calls, self.wait, lambda: 1)
        )
        for number in range(2):
            self.quick.send(put(b"a", number))
            self.pair.serve()
            self.pair.settle()
            self.assertEqual(self.statuses(self.quick.received()), [b"200"])

    def test_answers(self) -> None:
        """While a reply waits, the next is an answer of the slave, and not afterwards: busy polls
        for these are counted apart."""
        self.linger()
        self.assertEqual(self.waits, [(60, 4), (60, 4), (0, 4), (0, 4)])

    def test_alarm(self) -> None:
        """It is set for all waits of a turn, and stopped at the end."""
        puts = [put(b"b", 6)]

        def and_another(*arguments: Any) -> PairBatch:
            if puts:
                self.quick.send(puts.pop())
            return PairBatch(*arguments)

        self.patch(self.pair.log().appender, "_make_batch", and_another)
        far = 1e9  # seconds of the monotonic clock that do not come
        times = [far, far, far + 1, far + 1]
        self.patch(
            self.pair.sockets,
            "lingering",
            compiled.Lingering(0, no_calls, None, lambda: times.pop(0)),
        )
        self.quick.send(put(b"a", 5))
        self.pair.sockets.doRead()
        self.assertEqual((puts, times), ([], []))
        self.assertEqual(set(alarms()), {"it_value: (0, 0)\n"})
        self.patch(self.pair.sockets, "lingering", compiled.Lingering(0, no_calls, self.wait))
        self.waits = []
        self.pair.serve()
        self.pair.settle()
        self.assertEqual(self.statuses(self.quick.received()), [b"200"] * 2)

    def test_flush(self) -> None:
        """While a reply waits for the store here there is no wait."""
        store = self.pair.log().store
        with mock.patch.object(store, "worker", Worker.HOLDING):
            self.waits = []
            self.patch(
                self.pair.sockets,
                "lingering",
                compiled.Lingering(60, no_calls, self.wait, lambda: 1),
            )
            self.quick.send(put(b"a", 1))
            self.pair.serve()
            self.pair.settle()
            self.assertEqual(len(self.waits), 1)  # for the slave
            self.pair.serve()
            self.quick.send(put(b"a", 2))
            self.pair.serve()
            self.assertEqual(len(self.waits), 1)
        store.commit()
        self.pair.settle()
        self.assertEqual(self.statuses(self.quick.received()), [b"200"] * 2)

    def test_flush_of_python(self) -> None:
        """Nor while such a reply waits in Python, as that to a put without a checksum."""
        other = self.any_peer()
        store = self.pair.log().store
        with mock.patch.object(store, "worker", Worker.HOLDING):
            self.waits = []
            lingering = compiled.Lingering(60, no_calls, self.wait, lambda: 1)
            self.patch(self.pair.sockets, "lingering", lingering)
            other.send(b"put test 0 1 0 1\r\na")
            self.pair.serve()
            self.pair.settle()
            self.assertEqual(self.pair.role.syncs.landing, 1)
            self.quick.send(put(b"b", 2, 1))
            self.pair.serve()
            self.assertEqual(self.waits, [])
        store.commit()
        self.pair.settle()
        self.assertEqual(self.statuses(other.received()), [b"200"])


class CollectedTests(LineCase):
    """The garbage collector."""

    def test_cycle(self) -> None:
        """A set that is dropped with flights releases them."""
        self.quick.send(put(b"a", 5))
        self.pair.serve()
        gc.collect()
        self.pair.settle()
        self.assertEqual(self.statuses(self.quick.received()), [b"200"])


class RandomTests(test_lanes.RandomTests):
    """As there, with the connection to the slave in C."""

    seeds = 24

    def new_pair(self, threshold: int) -> LanePair:
        """See there."""
        return LinePair(self.mktemp(), unflush_threshold=threshold, max_segment_size=5000)

    def disturb(self, pair: LanePair, rng: random.Random) -> None:
        """Other answers between."""
        assert isinstance(pair, LinePair)
        if rng.random() < 0.05 and pair.wire is not None:
            pair.socket.give(b"result 200 0 2000000000\r\n")
