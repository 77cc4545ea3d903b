"""Thousands of damaged logs; ``make damaged-logs`` continues for as long as asked."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.damagedlogs import run

LOGS = 2000
FIRST = 1000
"""Seed; those of the unit test come before."""


class DamagedLogTests(SynchronousTestCase):
    """Bits, lengths, holes, torn ends, long records, at random."""

    def test_damaged_logs(self) -> None:
        """Every kind of consumer delivers the messages that the model predicts."""
        faults = [fault for seed in range(FIRST, FIRST + LOGS) for fault in run(seed)]
        self.assertEqual([], faults)
