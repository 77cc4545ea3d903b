"""The packets of a connection that have not left."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.outbox import Outbox
from tests.support.zookeeperserved import Served


class Nobody:
    """Is released when a batch is on the disk."""

    def release(self, durable: int) -> None:
        """Nothing comes of it."""


class OutboxTests(SynchronousTestCase):
    """What is ready and what is held."""

    def test_sizes(self) -> None:
        """They count every byte, over any number of batches."""
        commits = Served().commits
        outbox = Outbox(commits, Nobody())
        for _ in range(3):
            commits.barrier += 1
            outbox.add(b"1234", event=True, now=1.0)
            outbox.add(b"12", event=False, now=2.0)
            self.assertEqual((outbox.packets, outbox.held_size, outbox.held_events), (2, 14, 8))
            (held,) = outbox.release(commits.barrier)
            self.assertEqual((held.size, held.events, held.since), (14, 8, 1.0))
            self.assertEqual((outbox.held_size, outbox.held_events, outbox.ready_size), (0, 0, 14))
            self.assertEqual(outbox.take(), b"\0\0\0\x041234\0\0\0\x0212")
            self.assertEqual(outbox.ready_size, 0)

    def test_clear(self) -> None:
        """Nothing is left that could leave, nor its size."""
        served = Served()
        outbox = Outbox(served.commits, Nobody())
        outbox.add(b"ready", event=False, now=0.0)
        self.assertEqual((outbox.ready_size, outbox.held_size), (9, 0))
        served.threads.hold()
        client = served.wire()
        client.deliver(b"\0\0\0\x2c" + bytes(44))  # a handshake: a session for the disk
        served.turn()
        outbox.add(b"held", event=True, now=0.0)
        self.assertEqual((outbox.packets, outbox.held_events, outbox.held_size), (1, 8, 8))
        outbox.clear()
        self.assertEqual((outbox.ready, list(outbox.held)), ([], []))
        self.assertEqual((outbox.ready_size, outbox.held_size, outbox.take()), (0, 0, b""))
