"""An incomplete message whose rest does not arrive."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.fetch import unfinished
from metamorphosis.client.fetch.boundaries import Steps
from metamorphosis.client.fetch.unfinished import Unfinished
from metamorphosis.message import HEADER, encode_record
from metamorphosis.testing.runtime import MemoryRuntime


class UnfinishedTests(SynchronousTestCase):
    """A message with another one in its body, so that its length may be wrong; patience 2."""

    def setUp(self) -> None:
        """Its first bytes."""
        self.runtime = MemoryRuntime()
        self.unfinished = Unfinished(self.runtime, 1000, 2)
        self.start = HEADER.pack(500, 7, 1, 0) + b"?" + encode_record(2, 0, b"inside")

    def verdicts(self, count: int) -> list[bool]:
        """The verdicts after this number of replies without further bytes."""
        return [bool(self.runtime.run(self.unfinished.is_damaged())) for _ in range(count)]

    def test_patience(self) -> None:
        """It is damaged when no byte has arrived for longer than the patience; then a new count
        begins."""
        for offset in (0, 100):
            self.assertTrue(self.unfinished.keep(offset, self.start))
            self.assertEqual([False, False, True], self.verdicts(3))
            self.assertTrue(self.unfinished.is_remarkable)
            self.unfinished.clear()

    def test_further_bytes(self) -> None:
        """Further bytes do not begin the patience anew, so that a broker that sends one at a time
        cannot extend it for ever; fewer bytes than before have no effect."""
        self.unfinished.keep(0, self.start)
        self.assertEqual([False], self.verdicts(1))
        self.assertTrue(self.unfinished.keep(0, self.start + b"x"))
        self.assertFalse(self.unfinished.keep(0, self.start))
        self.assertEqual(len(self.start) + 1, self.unfinished.at(0))
        self.assertEqual([False, True], self.verdicts(2))

    def test_searched_once(self) -> None:
        """However long its rest does not come, its bytes are not searched again for an early
        end."""
        searched: list[int] = []

        def early(data: bytes, max_body: int) -> Steps[bool]:
            searched.append(len(data))
            yield from ()
            return False

        self.patch(unfinished, "ends_early", early)
        self.unfinished.keep(0, self.start)
        self.verdicts(2)
        self.assertEqual([len(self.start)], searched)
        self.unfinished.keep(0, self.start + b"x")
        self.verdicts(2)
        self.assertEqual([len(self.start), len(self.start) + 1], searched)

    def test_another_place(self) -> None:
        """Its bytes are dropped when the position changes."""
        self.unfinished.keep(0, self.start)
        self.assertEqual(100, self.unfinished.at(100))
        self.assertEqual(b"", self.unfinished.data)
