"""Each system call of the store fails, hangs or is short at its n-th call, in both modes."""

from __future__ import annotations

import shutil

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.store.calls import Broken, Life
from tests.unit.store.shadowdisk import KINDS

SEEDS = 3


class EachCallTests(SynchronousTestCase):
    """All calls of a few seeds; ``make disk-faults`` tries many."""

    def try_all(self, threshold: int) -> None:
        """Every call, every kind."""
        for seed in range(SEEDS):
            path = self.mktemp()
            calls = Life(path, seed, threshold).run()
            self.assertGreater(calls, 20)
            for number in range(1, calls + 1):
                for kind in KINDS:
                    shutil.rmtree(path)
                    try:
                        Life(path, seed, threshold, number, kind).run()
                    except Broken as error:
                        self.fail(f"seed {seed}, call {number}, {kind}: {error}")

    def test_default_mode(self) -> None:
        """What is acknowledged stays, whatever the kernel drops after a flush that fails."""
        self.try_all(3)

    def test_group_commit(self) -> None:
        """What is acknowledged is on the disk."""
        self.try_all(0)
