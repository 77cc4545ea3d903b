"""``broker.slowspells``: for how long a connection stays slow."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.slowspells import LONGEST, WORTH, SlowSpells


class SpellTests(SynchronousTestCase):
    """One connection, and what its events come to."""

    def setUp(self) -> None:
        self.spells = SlowSpells()

    def spell(self, taken: int = 0) -> int:
        """The events of the spell that begins now."""
        self.spells.left(5, taken)
        events = 0
        while self.spells.goes_on(5):
            events += 1
        return events

    def test_none(self) -> None:
        """A connection of which the turn has left nothing."""
        self.assertFalse(self.spells.goes_on(5))

    def test_doubled(self) -> None:
        """Each spell is about twice as long as the one before, up to the longest."""
        self.assertEqual([1, 3, 7, 15, 31, 63, LONGEST], [self.spell() for _ in range(7)])

    def test_begins_again(self) -> None:
        """What is left of a spell does not count when the next begins."""
        self.spells.left(5, 0)
        self.assertEqual(3, self.spell())

    def test_worth(self) -> None:
        """After many bytes that the turn has taken there is no spell, and the next is short."""
        self.assertEqual([1, 3], [self.spell(), self.spell(WORTH - 1)])
        self.assertEqual([0, 1], [self.spell(WORTH), self.spell()])

    def test_forget(self) -> None:
        """The descriptor may be that of another connection now; those of others stay."""
        self.spells.left(5, 0)
        self.spells.left(6, 0)
        self.spells.forget(5)
        self.spells.forget(7)
        self.assertFalse(self.spells.goes_on(5))
        self.assertTrue(self.spells.goes_on(6))
