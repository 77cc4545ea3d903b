"""A process with few descriptors: many partitions, many clients."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from tests.faults.peer import Peer, get, put
from tests.support import broker
from tests.support.broker import BrokerProcess

LIMIT = int(os.environ.get("FILES", "256"))
PARTITIONS = int(os.environ.get("PARTITIONS", "2000"))
SECONDS = 60 if PARTITIONS <= 2000 else 600
"""A start has to be over by then, on a machine that does other things as well."""


class LimitedBroker(BrokerProcess):
    """A broker that may open ``LIMIT`` files."""

    def command(self, options: Sequence[str] = ()) -> list[str]:
        """See ``BrokerProcess``."""
        return ["sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh", *super().command(options)]


class DescriptorsTests(SynchronousTestCase):
    """Real descriptors."""

    timeout = 900

    def setUp(self) -> None:
        """One topic with many partitions, and a wildcard section for other topics."""
        self.patch(broker, "START_SECONDS", SECONDS)
        topics = {"test": {"numPartitions": PARTITIONS}, "many*": {}}
        self.broker = LimitedBroker(self.mktemp(), topics=topics)
        self.addCleanup(self.broker.kill)

    def open_files(self) -> int:
        """Of the process."""
        return len(os.listdir(f"/proc/{self.broker.pid}/fd"))

    def exchange(self, requests: list[bytes]) -> list[tuple[int, bytes]]:
        """Status and body of each reply; a thousand requests at a time."""
        found = []
        with Peer(self.broker.port, SECONDS) as peer:
            for first in range(0, len(requests), 1000):
                some = requests[first : first + 1000]
                peer.send(b"".join(some))
                replies = [peer.reply() for _ in some]
                found += [(reply.status, reply.body) for reply in replies]
        return found

    def test_many_partitions(self) -> None:
        """All partitions are created, written, read, and opened again by the next start, in bounded
        time."""
        self.broker.start()
        bodies = [b"message %d" % number for number in range(PARTITIONS)]
        puts = [put("test", number, body, number) for number, body in enumerate(bodies)]
        topics = [put(f"many{number}", 0, b"x", number) for number in range(100)]
        gets = [get("test", number, 0, 1000, number) for number in range(PARTITIONS)]
        self.assertEqual({status for status, _ in self.exchange(puts + topics)}, {200})
        self.assertLess(self.open_files(), LIMIT)
        self.broker.stop()
        before = time.monotonic()
        self.broker.start()
        self.assertLess(time.monotonic() - before, SECONDS)
        self.assertIn(f"{PARTITIONS + 100} partitions", self.broker.output())
        for expected in (0, 0):
            found = self.exchange(gets)
            self.assertEqual({status for status, _ in found}, {expected})
            self.assertEqual([body[20:] for _, body in found], bodies)
        self.assertEqual({status for status, _ in self.exchange(puts)}, {200})
        self.assertLess(self.open_files(), LIMIT)
        self.assertEqual(self.broker.stop(), 0)
        self.assertNotIn("Too many open files", self.broker.output())

    def test_many_clients(self) -> None:
        """Clients beyond the limit wait; the others are served meanwhile, and no connection is
        cut."""
        self.broker.start()
        peers = []
        for _ in range(LIMIT):
            peer = Peer(self.broker.port)
            self.addCleanup(peer.close)
            peer.send(b"version 1\r\n")
            peers.append(peer)
        time.sleep(1)
        sockets = [peer.socket for peer in peers]
        answered = set(select.select(sockets, [], [], 1)[0])
        served = [peer for peer in peers if peer.socket in answered]
        self.assertGreater(len(served), LIMIT // 4)
        self.assertLess(len(served), LIMIT)
        waiting = [peer for peer in peers if peer not in served]
        for number, peer in enumerate(served):
            self.assertEqual(peer.reply().status, 200)
            self.assertEqual(peer.ask(put("test", number % 7, b"hello", 1)).status, 200)
        ticks = self.processor_ticks()
        time.sleep(1)
        self.assertLess(self.processor_ticks() - ticks, 50, "the reactor spins")
        for peer in served:
            peer.close()
        for peer in waiting[: len(served)]:
            self.assertEqual(peer.reply().status, 200)
        output = self.broker.output()
        self.assertEqual(output.count("places for clients are taken"), 1)
        self.assertNotIn("Traceback", output)

    def processor_ticks(self) -> int:
        """CPU time of the process, in hundredths of a second."""
        with open(f"/proc/{self.broker.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
