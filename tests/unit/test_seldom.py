"""``metamorphosis.seldom``: lines that do not fill the log."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.seldom import MOST, OTHERS, Recurring, Seldom


class SeldomTests(SynchronousTestCase):
    """One kind of line."""

    def test_first_and_later_ones(self) -> None:
        """The first at once, then one in ten seconds, with the number of those left out."""
        clock = Clock()
        line = Seldom(clock.seconds)
        self.assertEqual([True, False, False], [line.may_log() for _ in range(3)])
        self.assertEqual(0, line.left_out)
        clock.advance(9.9)
        self.assertFalse(line.may_log())
        clock.advance(0.1)
        self.assertTrue(line.may_log())
        self.assertEqual(3, line.left_out)
        clock.advance(10)
        self.assertTrue(line.may_log())
        self.assertEqual(0, line.left_out)


class RecurringTests(SynchronousTestCase):
    """Faults that come again."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[object, ...]] = []
        self.lines = self.recurring()

    def recurring(self, free: int = 1, pause: float = 10.0) -> Recurring:
        """Lines go to ``told``."""
        return Recurring(
            self.clock.seconds,
            self.clock.callLater,
            lambda *told: self.told.append(told),
            lambda *told: self.told.append(("over", *told)),
            free,
            pause,
        )

    def count(self, what: str, times: int, lines: Recurring | None = None) -> int:
        """The number of log lines for this number of faults."""
        return sum((lines or self.lines).begins(what, f"p{number}") for number in range(times))

    def test_begin_count_end(self) -> None:
        """The pauses double, up to the longest; a quiet one ends it."""
        self.assertEqual(1, self.count("a", 5))
        expected: list[tuple[object, ...]] = [("a", 4, 10.0, "p4")]
        for pause in (10, 20, 40, 80, 160, 320, 640, 640):
            self.clock.advance(pause)
            self.assertEqual(expected, self.told)
            self.assertEqual(0, self.count("a", 2))
            expected.append(("a", 2, min(2.0 * pause, 640.0), "p1"))
        self.clock.advance(640)
        self.clock.advance(640)
        self.assertEqual([*expected, ("over", "a", 21, 640.0)], self.told)
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual(1, self.count("a", 2))

    def test_single_fault(self) -> None:
        """It is over without a line and without a timer; later it begins anew."""
        self.assertEqual(1, self.count("a", 1))
        self.assertEqual([], self.clock.getDelayedCalls())
        self.clock.advance(9.9)
        self.assertEqual(0, self.count("a", 1))
        self.clock.advance(100)
        self.clock.advance(100)
        self.assertEqual(1, self.count("a", 1))
        self.clock.advance(10)
        self.assertEqual(1, self.count("a", 1))

    def test_several_kinds(self) -> None:
        """Each has its own count; beyond a number of them, the others have one together."""
        self.assertEqual(MOST, sum(self.count(f"kind {number}", 2) for number in range(MOST)))
        self.assertEqual(1, sum(self.count(f"further {number}", 2) for number in range(50)))
        self.clock.advance(10)
        self.assertEqual(MOST + 1, len(self.told))
        self.assertEqual((OTHERS, 99, 10.0, "p1"), self.told[-1])

    def test_many_kinds_one_after_the_other(self) -> None:
        """Those that are over make room."""
        for number in range(3 * MOST):
            self.assertEqual(1, self.count(f"kind {number}", 1))
            self.clock.advance(5)

    def test_free_lines(self) -> None:
        """The first few are logged each."""
        lines = self.recurring(free=3)
        self.assertEqual(3, self.count("a", 3, lines))
        self.clock.advance(10)
        self.assertEqual([], self.told)
        self.assertEqual(3, self.count("a", 5, lines))
        self.clock.advance(10)
        self.clock.advance(20)
        self.assertEqual([("a", 2, 10.0, "p4"), ("over", "a", 5, 20.0)], self.told)

    def test_long_pause(self) -> None:
        """Of a fault that comes once an attempt: those are counted, however far apart."""
        lines = self.recurring(pause=1000)
        for _ in range(5):
            self.count("a", 1, lines)
            self.clock.advance(500)
        self.assertEqual([("a", 2, 1000, "p0"), ("a", 2, 1000, "p0")], self.told)
        self.clock.advance(1000)
        self.assertEqual([("over", "a", 5, 1000)], self.told[2:])

    def test_close(self) -> None:
        """What was counted is told; later faults are logged once and leave no timer."""
        self.count("a", 3)
        self.count("b", 1)
        self.lines.close()
        self.assertEqual([("a", 2, 10.0, "p2")], self.told)
        self.assertEqual([0, 1], [self.count("a", 2), self.count("c", 2)])
        self.assertEqual([], self.clock.getDelayedCalls())
