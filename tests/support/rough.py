"""
Rough random runs of a broker that clients reach over real sockets: late readers, small buffers and
limits, requests in halves, clients that go, flushes that take long, a full disk.

Each run checks that every request has its one reply, in order; that what was acknowledged is in the
log, where the reply says, once; and that afterwards nothing is held, waits or is in use.

``ROUGH_SEEDS`` is the number of runs; ``make fuzz-native`` sets it.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import select
import socket
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable

from twisted.python import util
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.lanes import LaneSet
from metamorphosis.config.model import Settings
from metamorphosis.message import iterate_records
from metamorphosis.native import compiled, turn, way
from tests.support.lanes import Peer, no_calls
from tests.support.pairing import put
from tests.support.seeds import seeds
from tests.support.serving import Broker

SMALL_BUFFER = 4096  # bytes that the kernel keeps of what is sent
MUCH = 300_000  # bytes that a client has not sent yet: it asks no more
ALL = 1 << 30
RESET = b"\1\0\0\0\0\0\0\0"
"""Of ``SO_LINGER``: the connection ends with a reset."""

TURNS = 3000
"""After so many a reply is lost."""
QUICK_TURNS, WAIT_MS = 300, 2
"""The kernel delays acknowledgements between small buffers: after so many turns each waits for it a
moment."""
LAST_TURNS = 5  # after the last reply: what it has used is let go

Ack = tuple[int, int, int]
"""Id, partition and offset of a record, as a reply tells them."""


def settings(rng: random.Random, *connection_bytes: int) -> Settings:
    """Limits of which some are reached soon."""
    return Settings(
        max_connection_bytes=rng.choice((*connection_bytes, 20_000, 200_000, 4 << 20)),
        max_total_bytes=rng.choice((50_000, 500_000, 256 << 20)),
        max_waiting_bytes=rng.choice((100_000, 64 << 20)),
    )


class RoughClient:
    """
    A client that may read late and send half requests.

    :ivar peer: its connection.
    :ivar out: what it has not sent yet.
    :ivar asked: whether each request was to store a record; its number is the opaque.
    :ivar answered: how many of them have a reply.
    :ivar acks: the records that the broker has acknowledged.
    """

    def __init__(self, peer: Peer, rng: random.Random) -> None:
        self.peer = peer
        self.rng = rng
        if rng.random() < 0.5:
            near = peer.transport.socket
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        self.out = b""
        self.asked: list[bool] = []
        self.answered = 0
        self.acks: list[Ack] = []
        self._late = rng.random() < 0.4
        self._big = rng.random() < 0.4
        self._data = bytearray()

    @property
    def is_done(self) -> bool:
        """Whether everything has a reply."""
        return not self.out and self.answered == len(self.asked)

    def ask(self, most: int) -> None:
        """Up to so many more requests; send all of them, or as much as ends anywhere."""
        for _ in range(self.rng.randrange(most)):
            if len(self.out) < MUCH:
                self.out += self.request(len(self.asked))
        part = self.rng.random() < 0.3
        self.send(self.rng.randrange(len(self.out) + 1) if part else len(self.out))

    def request(self, opaque: int) -> bytes:
        """One more request."""
        rng = self.rng
        kind = rng.random()
        self.asked.append(kind < 0.7)
        if kind < 0.7:
            body, partition = self.body(), rng.randrange(2)
            if rng.random() < 0.1:
                return b"put test %d %d 0 %d\r\n%b" % (partition, len(body), opaque, body)
            return put(body, opaque, partition)
        if kind < 0.9:
            size = rng.choice((50, 30_000, 200_000))
            return b"get test g %d 0 %d %d\r\n" % (rng.randrange(2), size, opaque)
        return rng.choice((b"version %d\r\n", b"offset test g 0 5 %d\r\n")) % opaque

    def body(self) -> bytes:
        """Of a record."""
        most = 60_000 if self._big and self.rng.random() < 0.3 else 300
        return self.rng.randbytes(self.rng.randrange(most))

    def send(self, most: int = ALL) -> None:
        """Send as much as the socket takes."""
        end = min(most, len(self.out))
        with contextlib.suppress(BlockingIOError):
            while end > 0:
                sent = self.peer.socket.send(self.out[:end])
                self.out = self.out[sent:]
                end -= sent

    def read(self, most: int = ALL) -> None:
        """Read so many bytes, and check the replies in them."""
        with contextlib.suppress(BlockingIOError):
            while most > 0:
                piece = self.peer.socket.recv(min(most, 1 << 16))
                assert piece, "the broker has ended the connection"
                most -= len(piece)
                self._data += piece
        while self._take_reply():
            pass

    def read_sometimes(self) -> None:
        """As a client does that may be late."""
        if not self._late or self.rng.random() < 0.2:
            self.read(self.rng.choice((100, 5000, ALL)))

    def _take_reply(self) -> bool:
        end = self._data.find(b"\r\n")
        if end < 0:
            return False
        word, *tokens = bytes(self._data[:end]).split(b" ")
        assert word in (b"result", b"value"), word[:100]
        numbers = [int(token) for token in tokens]
        status = numbers.pop(0) if word == b"result" else 0
        size, opaque = numbers
        past = end + 2 + size
        if len(self._data) < past:
            return False
        assert opaque == self.answered, f"{opaque} is answered before {self.answered}"
        body = bytes(self._data[end + 2 : past])
        if self.asked[opaque]:
            assert status in (200, 403, 500), (status, body)
            if status == 200:
                number, partition, offset = map(int, body.split())
                self.acks.append((number, partition, offset))
        self.answered += 1
        del self._data[:past]
        return True

    def leave(self) -> None:
        """End the connection in some way."""
        if self.rng.random() < 0.5:
            self.read()
        kind = self.rng.random()
        if kind < 0.3:
            self.peer.socket.shutdown(socket.SHUT_WR)
            return
        if kind < 0.65:
            self.peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.peer.socket.close()


class RoughRun(ABC):
    """
    One run.

    :param clients: how many there are.
    """

    broker: Broker
    sockets: LaneSet
    most = 4
    """A client asks fewer times than that before each turn."""

    def __init__(self, rng: random.Random, clients: int) -> None:
        self.rng = rng
        self.sockets.lingering = compiled.Lingering(0, no_calls, lambda *_: 0)
        self.clients = [self.client(number) for number in range(clients)]
        self._gone: list[Ack] = []  # acknowledged to clients that have gone
        self._fills = rng.random() < 0.3
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    # -- what it is a run of

    @abstractmethod
    def connect(self) -> Peer:
        """One more connection."""

    @abstractmethod
    def serve(self) -> None:
        """Serve what is ready, once."""

    @abstractmethod
    def advance(self, seconds: float) -> None:
        """Let time pass."""

    @abstractmethod
    def log(self, partition: int) -> bytes:
        """The bytes of its files."""

    @abstractmethod
    def end(self) -> None:
        """Close everything."""

    def client(self, number: int) -> RoughClient:
        """A new one in the place of that number."""
        return RoughClient(self.connect(), self.rng)

    def disturbances(self) -> dict[Callable[[], object], float]:
        """What may happen between two turns, and how often."""
        threads = self.broker.threads
        return {
            threads.hold: 0.08,
            threads.release: 0.15,
            self.replace: 0.06,
            self.fill_disk: 0.05,
            self.lift: 0.15,
            lambda: self.advance(self.rng.choice((0.01, 0.5, 2))): 0.04,
            lambda: None: 0.4,
        }

    def disturb(self) -> None:
        """Something of that, before a turn."""
        choices = self.disturbances()
        (happen,) = self.rng.choices(list(choices), list(choices.values()))
        happen()

    def turn(self) -> None:
        """One of those after all disturbances."""
        self.serve()

    # -- its course

    def run(self, steps: int) -> None:
        """So many turns and disturbances, and then until all is answered."""
        try:
            for _ in range(steps):
                for client in self.clients:
                    client.ask(self.most)
                self.disturb()
                for _ in range(self.rng.randrange(1, 4)):
                    self.serve()
                for client in self.clients:
                    client.read_sometimes()
            self.calm()
            self.drain()
            self.check()
        finally:
            self.lift()
            self.end()

    def calm(self) -> None:
        """End what disturbs."""
        self.lift()
        self.broker.threads.release()

    def work(self) -> None:
        """A turn without disturbances, and all that the clients send and read then."""
        for client in self.clients:
            client.send()
        self.turn()
        for client in self.clients:
            client.read()

    def drain(self) -> None:
        """Until each request has its reply."""
        poll = select.poll()
        for client in self.clients:
            poll.register(client.peer.socket, select.POLLIN)
        for number in range(TURNS):
            self.work()
            if number % 10 == 9:
                self.advance(0.3)
            if all(client.is_done for client in self.clients):
                break
            if number > QUICK_TURNS:
                poll.poll(WAIT_MS)
        for client in self.clients:
            state = (len(client.out), client.peer.connection._gate.reasons)
            assert client.is_done, f"no reply to {client.answered}; not taken: {state}"
        for _ in range(LAST_TURNS):
            self.advance(1)
            self.turn()

    def check(self) -> None:
        """What was acknowledged is there, and nothing waits."""
        acks = sum((client.acks for client in self.clients), self._gone)
        assert len({number for number, _, _ in acks}) == len(acks)
        logs = [self.log(partition) for partition in (0, 1)]
        for log in logs:
            assert sum(20 + len(record.body) for record in iterate_records(log)) == len(log)
        for number, partition, offset in acks:
            found = logs[partition][offset + 8 : offset + 16]
            assert found == number.to_bytes(8, "big", signed=True), (number, partition, offset)
        assert self.sockets._lanes.held() == 0
        assert self.broker.factory.shared.waiting == 0
        for store in self.broker.stores:
            assert not any(segment.in_use for segment in store.segments)

    # -- disturbances

    def replace(self) -> None:
        """A client goes, and another comes, which may get its descriptor."""
        number = self.rng.randrange(len(self.clients))
        client = self.clients[number]
        client.leave()
        self._gone += client.acks
        if self.rng.random() < 0.5:
            self.serve()
        if self.rng.random() < 0.1 and client.peer.transport.connected:
            client.peer.transport.abortConnection()
        client.peer.socket.close()
        self.clients[number] = self.client(number)

    def fill_disk(self) -> None:
        """Files take few more bytes than one of the logs has."""
        stores = list(self.broker.stores)
        if self._fills and stores:
            size = self.rng.choice(stores).last.size + self.rng.randrange(60)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, self._limits[1]))

    def lift(self) -> None:
        """There is room again."""
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)


class RoughCase(SynchronousTestCase):
    """Runs of one kind."""

    if turn is None:
        skip = f"the turn in C is not used ({way})"

    def setUp(self) -> None:
        """What is logged while the disk is full is not written: the file of the log is longer than
        files may be then."""
        self.patch(util, "untilConcludes", lambda *_: None)

    def run_each(self, run_one: Callable[[random.Random], object], count: int) -> None:
        """
        Runs from the seed 0 on; a failure names its seed.

        :param count: of the runs, unless ``ROUGH_SEEDS`` says another.
        """
        wanted = os.environ.get("ROUGH_SEEDS")
        for seed in range(int(wanted)) if wanted else seeds(count):
            try:
                run_one(random.Random(seed))
            except Exception as error:
                raise AssertionError(f"seed {seed}: {traceback.format_exc()}") from error
            for failure in self.flushLoggedErrors():
                self.fail(f"seed {seed}: {failure.getTraceback()}")
