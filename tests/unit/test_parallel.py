"""``metamorphosis.parallel``: the same work for many items."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.parallel import in_parallel


class ParallelTests(SynchronousTestCase):
    """Items whose work ends when the test says so."""

    def setUp(self) -> None:
        self.running: dict[int, Deferred[None]] = {}
        self.begun: list[int] = []

    async def one(self, item: int) -> None:
        """The work for an item."""
        self.begun.append(item)
        self.running[item] = Deferred()
        await self.running[item]

    def test_a_few_at_a_time(self) -> None:
        """The next item begins when one ends; the end comes after the last."""
        done = Deferred.fromCoroutine(in_parallel(range(5), self.one, 2))
        self.assertEqual([0, 1], self.begun)
        self.running[1].callback(None)
        self.assertEqual([0, 1, 2], self.begun)
        for item in (2, 3, 4):
            self.running[item].callback(None)
        self.assertEqual([0, 1, 2, 3, 4], self.begun)
        self.assertNoResult(done)
        self.running[0].callback(None)
        self.assertIsNone(self.successResultOf(done))

    def test_nothing(self) -> None:
        """Without items it has ended."""
        self.assertIsNone(
            self.successResultOf(Deferred.fromCoroutine(in_parallel([], self.one, 2)))
        )

    def test_error(self) -> None:
        """The first error is raised as it is; the other work goes on."""
        done = Deferred.fromCoroutine(in_parallel(range(4), self.one, 2))
        self.running[0].errback(ValueError("no"))
        self.assertEqual("no", str(self.failureResultOf(done, ValueError).value))
        self.running[1].callback(None)
        self.assertEqual([0, 1, 2], self.begun)

    def test_items_are_taken_late(self) -> None:
        """A generator may end early: what has happened since the call counts."""
        stopped = False

        def items() -> Iterator[int]:
            for item in range(9):
                if not stopped:
                    yield item

        done = Deferred.fromCoroutine(in_parallel(items(), self.one, 1))
        stopped = True
        self.running[0].callback(None)
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual([0], self.begun)
