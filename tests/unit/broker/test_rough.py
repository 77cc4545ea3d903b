"""Rough random runs of a broker with the turn in C, alone and as the slave of a pair."""

from __future__ import annotations

import itertools
import random

from metamorphosis.replication.role import JOINING_GROUP
from tests.support.lanes import Peer, Served
from tests.support.rough import RoughCase, RoughClient, RoughRun, settings
from tests.support.serving import Broker
from tests.support.slaves import SlaveBroker, sync
from tests.unit.broker.test_turntwins import logs


class ServedRun(RoughRun):
    """One of a broker alone."""

    kind: type[Broker] = Broker
    most = 5

    def __init__(self, rng: random.Random, directory: str, clients: int) -> None:
        self.served = Served(
            directory,
            True,
            self.kind,
            unflush_threshold=rng.choice((0, 0, 20, 1000)),
            max_segment_size=rng.choice((5000, 200_000)),
            settings=settings(rng, 3000),
        )
        self.broker = self.served.broker
        self.sockets = self.served.lanes
        super().__init__(rng, clients)

    def connect(self) -> Peer:
        """See ``RoughRun``."""
        return self.served.connect()

    def serve(self) -> None:
        """See ``RoughRun``."""
        self.served.serve()

    def advance(self, seconds: float) -> None:
        """See ``RoughRun``."""
        self.served.advance(seconds)

    def log(self, partition: int) -> bytes:
        """See ``RoughRun``."""
        return logs(self.served)[f"test-{partition}"]

    def end(self) -> None:
        """See ``RoughRun``."""
        self.served.close()


class RoughMaster(RoughClient):
    """
    The master of a pair.

    :ivar ids: of the next records.
    """

    ids: itertools.count[int]

    def request(self, opaque: int) -> bytes:
        """See ``RoughClient``."""
        rng = self.rng
        kind = rng.random()
        self.asked.append(kind < 0.9)
        partition = b"%d" % rng.randrange(2)
        number = b"%d" % opaque
        if kind < 0.9:
            checksum = rng.choice((b"-1", b"", b"12345")) if rng.random() < 0.1 else None
            return sync(
                self.body(),
                partition=partition,
                message_id=b"%d" % next(self.ids),
                opaque=number,
                checksum=checksum,
            )
        if kind < 0.95:
            return b"get test g %b 0 %d %b\r\n" % (partition, rng.choice((50, 200_000)), number)
        group = rng.choice(("g", JOINING_GROUP)).encode()
        return b"offset test %b %b 0 %b\r\n" % (group, partition, number)


class SlaveRun(ServedRun):
    """One of a slave, whose first client is the master."""

    kind = SlaveBroker

    def __init__(self, rng: random.Random, directory: str, clients: int) -> None:
        self.ids = itertools.count(-5000)
        super().__init__(rng, directory, clients)

    def client(self, number: int) -> RoughClient:
        """See ``RoughRun``."""
        if number > 0:
            return super().client(number)
        master = RoughMaster(self.connect(), self.rng)
        master.ids = self.ids
        return master


class RandomTests(RoughCase):
    """Clients that put and get."""

    def test_random(self) -> None:
        """See ``tests.support.rough``."""
        self.run_each(self.run_one, 10)

    def run_one(self, rng: random.Random) -> None:
        """One broker."""
        ServedRun(rng, self.mktemp(), rng.choice((3, 12, 25))).run(rng.choice((60, 150)))


class SlaveTests(RoughCase):
    """A master, and clients that read and are refused their puts."""

    def test_random(self) -> None:
        """See ``tests.support.rough``."""
        self.run_each(self.run_one, 10)

    def run_one(self, rng: random.Random) -> None:
        """One slave."""
        SlaveRun(rng, self.mktemp(), rng.choice((3, 7))).run(rng.choice((60, 150)))
