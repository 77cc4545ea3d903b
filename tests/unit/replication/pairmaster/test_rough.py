"""Rough random runs of a pair: also of the slave, which refuses, freezes and goes."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable

from tests.support.lanes import Peer
from tests.support.pairing import put
from tests.support.rough import SMALL_BUFFER, RoughCase, RoughRun, settings
from tests.support.scriptedpeers import Fault
from tests.unit.replication.pairmaster.test_lines import LinePair

STEP = 0.5  # seconds of the clock, between which the bytes of the pair move
FLOOD = 30_000  # bytes of a body
QUIET_TURNS = 20
LAST_TURNS = 3000
"""After the last reply: all of them at most, until the slave has answered everything."""


class PairRun(RoughRun):
    """One of a pair master and its slave."""

    def __init__(self, rng: random.Random, directory: str, clients: int) -> None:
        self.pair = LinePair(
            directory,
            unflush_threshold=rng.choice((0, 0, 20, 1000)),
            max_segment_size=rng.choice((5000, 200_000)),
            settings=settings(rng),
            threshold=10**9,
        )
        self.broker = self.pair.broker
        self.sockets = self.pair.sockets
        self._peers: list[Peer] = []
        super().__init__(rng, clients)
        self.join()

    def connect(self) -> Peer:
        """See ``RoughRun``."""
        peer = Peer(self.pair)
        self._peers.append(peer)
        return peer

    def serve(self) -> None:
        """See ``RoughRun``; a connection to the slave that the master has ended is lost."""
        self.pair.serve()
        self._notice_loss()

    def advance(self, seconds: float) -> None:
        """See ``RoughRun``."""
        self.pair.advance(seconds, STEP)

    def log(self, partition: int) -> bytes:
        """See ``RoughRun``."""
        return self.pair.own(partition)

    def end(self) -> None:
        """See ``RoughRun``."""
        self.pair.end(self._peers)
        self.broker.stores.close()

    def _notice_loss(self) -> None:
        wire = self.pair.wire
        if wire is not None and not wire.transport.connected:
            self.pair.lose()

    # -- disturbances

    def disturbances(self) -> dict[Callable[[], object], float]:
        """See ``RoughRun``."""
        gregor = self.pair.gregor
        return {
            **super().disturbances(),
            self.flood: 0.05,
            self.lose: 0.03,
            self.refuse: 0.07,
            gregor.freeze: 0.03,
            gregor.thaw: 0.07,
            self.answer_nothing: 0.04,
            lambda: self.pair.advance(2.1, 0.7): 0.02,
        }

    def disturb(self) -> None:
        """See ``RoughRun``; the slave may answer, and come again."""
        if self.pair.wire is not None:
            super().disturb()
        elif self.rng.random() < 0.5:
            self.join()
        if self.rng.random() < 0.6:
            self.pair.settle()
            self._notice_loss()

    def join(self) -> None:
        """The slave comes again; the socket to it may take little."""
        self.pair.connect()
        self.pair.advance(1.5, STEP)
        if self.rng.random() < 0.7 and self.pair.wire is not None:
            near = self.pair.socket.transport.socket
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)

    def lose(self) -> None:
        """The connection to the slave ends."""
        self.pair.lose()

    def refuse(self) -> None:
        """The slave will refuse a record."""
        gregor = self.pair.gregor
        gregor.faults[len(gregor.syncs) + self.rng.randrange(1, 30)] = Fault.REFUSE

    def flood(self) -> None:
        """After some quiet turns with ordinary puts, by which C gets the connections again, all
        send more than the socket to the slave takes."""
        self.calm()
        for _ in range(QUIET_TURNS):
            self.put_each(0)
            self.work()
        for _ in range(2):
            self.put_each(FLOOD)
        for client in self.clients:
            client.send()

    def put_each(self, size: int) -> None:
        """Each client puts a record of that size."""
        for client in self.clients:
            number = len(client.asked)
            client.asked.append(True)
            client.out += put(self.rng.randbytes(size), number, self.rng.randrange(2))

    def answer_nothing(self) -> None:
        """The slave answers what nobody has asked."""
        with contextlib.suppress(OSError):
            self.pair.socket.give(b"result 200 0 2000000000\r\n")

    # -- the end

    def calm(self) -> None:
        """See ``RoughRun``."""
        super().calm()
        self.pair.gregor.thaw()
        self.pair.gregor.faults.clear()

    def turn(self) -> None:
        """See ``RoughRun``."""
        self.serve()
        self.pair.settle()
        self._notice_loss()
        if self.pair.wire is None:
            self.pair.connect()

    def drain(self) -> None:
        """See ``RoughRun``; then until the logs are the same."""
        super().drain()
        for _ in range(LAST_TURNS):
            if not self.pair.role.syncs.under_way:
                break
            self.turn()
        self.advance(3)

    def check(self) -> None:
        """See ``RoughRun``; both brokers have the same."""
        super().check()
        for partition in (0, 1):
            assert self.pair.own(partition) == self.pair.slaves(partition), partition
        syncs = self.pair.role.syncs
        waits = (syncs.under_way, syncs.waiting, syncs.landing)
        assert waits == (0, 0, 0), waits
        self.pair.gregor.verify()


class RandomTests(RoughCase):
    """Producers and readers of a pair."""

    def test_random(self) -> None:
        """See ``tests.support.rough``."""
        self.run_each(self.run_one, 6)

    def run_one(self, rng: random.Random) -> None:
        """One pair."""
        PairRun(rng, self.mktemp(), rng.choice((3, 25))).run(rng.choice((60, 150)))
