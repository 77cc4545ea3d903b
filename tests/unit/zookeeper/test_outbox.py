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
