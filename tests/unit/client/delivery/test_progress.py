"""The states of a delivery."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.delivery.duplicates import DuplicateCache
from metamorphosis.client.delivery.progress import DeliveryState, Progress
from metamorphosis.client.model import Partition, Position, ReceivedMessage

PARTITION = Partition(0, 0)


class StateTests(SynchronousTestCase):
    """The table of the module, row by row."""

    def setUp(self) -> None:
        self.progress = Progress(Position("t", PARTITION, 0), True, DuplicateCache())

    def outcome(self) -> int:
        """The position after a message was processed."""
        self.progress.done([ReceivedMessage("t", PARTITION, 0, 1, 0, b"abc")])
        return self.progress.position.offset

    def test_open(self) -> None:
        """Messages are delivered and acknowledged."""
        self.assertEqual(DeliveryState.OPEN, self.progress.state)
        self.assertFalse(self.progress.is_stopping)
        self.assertEqual(23, self.outcome())

    def test_stopping(self) -> None:
        """The call under way counts; no further one begins."""
        self.progress.stop()
        self.assertEqual(DeliveryState.STOPPING, self.progress.state)
        self.assertTrue(self.progress.is_stopping)
        self.assertFalse(self.progress.is_abandoned)
        self.assertEqual(23, self.outcome())

    def test_abandoned(self) -> None:
        """No message is acknowledged, from either state; ``stop`` has no effect from here."""
        for stops in (0, 1):
            self.setUp()
            for _ in range(stops):
                self.progress.stop()
            self.progress.abandon()
            self.progress.stop()
            self.assertEqual(DeliveryState.ABANDONED, self.progress.state)
            self.assertTrue(self.progress.is_stopping)
            self.assertEqual(0, self.outcome())
