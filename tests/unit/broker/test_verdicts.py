"""The memory of filters' verdicts."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.verdicts import JUMPS, OVERHEAD, VerdictMemory, Verdicts


class VerdictsTests(SynchronousTestCase):
    """One partition."""

    def test_any_order(self) -> None:
        """Remembered verdicts are returned, in whatever order they were added, and no others."""
        numbers = random.Random(7)
        verdicts, model = Verdicts(), {}
        for offset in numbers.sample(range(1 << 40), 500):
            model[offset] = numbers.random() < 0.5
            verdicts.remember(offset, model[offset])
        for offset, accepted in model.items():
            self.assertIs(verdicts.recall(offset), accepted)
            for other in (offset - 1, offset + 1):
                self.assertIs(verdicts.recall(other), model.get(other))

    def test_what_is_far_is_forgotten(self) -> None:
        """The memory is bounded; the verdicts of the last messages are always known."""
        verdicts = Verdicts(most=8)
        for offsets in (range(100, 200), range(50), range(150, 170)):
            for offset in offsets:
                verdicts.remember(offset, True)
                self.assertLessEqual(len(verdicts), 8)
                for known in range(max(offsets[0], offset - 1), offset + 1):
                    self.assertIs(verdicts.recall(known), True)

    def test_jumps(self) -> None:
        """The last jumps are known."""
        verdicts = Verdicts()
        for offset in range(JUMPS + 3):
            verdicts.remember_jump(offset, offset + 10)
            verdicts.remember_jump(JUMPS + 9, 99)
        self.assertEqual(len(verdicts.jumps), JUMPS)
        self.assertEqual(verdicts.jumps[JUMPS + 2], JUMPS + 12)
        self.assertEqual(verdicts.jumps[JUMPS + 9], 99)
        self.assertNotIn(3, verdicts.jumps)


class VerdictMemoryTests(SynchronousTestCase):
    """All partitions."""

    def test_least_recently_read_goes(self) -> None:
        """The number of verdicts is limited; those of the partition that was read last stay."""
        memory = VerdictMemory(most=3 * (OVERHEAD + 10))
        made = {}
        for key in "abc":
            made[key] = Verdicts()
            for offset in range(10):
                made[key].remember(offset, True)
            memory.used(key, made[key])
        memory.used("a", made["a"])
        self.assertEqual([memory.find(key) for key in "abc"], list(made.values()))
        made["a"].remember(10, True)
        memory.used("a", made["a"])
        self.assertEqual([memory.find(key) for key in "abc"], [made["a"], None, made["c"]])
        for offset in range(11, 1000):
            made["a"].remember(offset, True)
        memory.used("a", made["a"])
        self.assertEqual([memory.find(key) for key in "abc"], [made["a"], None, None])
        self.assertEqual(len(memory), 1)
