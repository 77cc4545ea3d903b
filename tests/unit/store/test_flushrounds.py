"""Rounds of background flushes: their begin, their stores, and the results."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.store.flushrounds import FIRST_DELAY, JOBS, SHARE, Flush, FlushRounds
from metamorphosis.threads import SynchronousThreads

DISTANCE = 0.025


class Store:
    """Notes when it is flushed; fails with ``error``."""

    def __init__(self, clock: Clock, error: OSError | None = None) -> None:
        self.clock = clock
        self.error = error
        self.began: list[float] = []
        self.told: list[BaseException | None] = []
        self.dirty = True

    def begin(self) -> Flush | None:
        """Take part, unless there is nothing to do."""
        self.began.append(round(self.clock.seconds(), 3))
        return Flush(self.work, self.told.append) if self.dirty else None

    def work(self) -> None:
        """The flush itself."""
        if self.error is not None:
            raise self.error


class FlushRoundsTests(SynchronousTestCase):
    """With a clock, and threads that a test can hold."""

    def setUp(self) -> None:
        """An idle broker."""
        self.clock = Clock()
        self.threads = SynchronousThreads()
        self.rounds = FlushRounds(self.clock)

    def join(self, store: Store) -> None:
        """Something unflushed."""
        self.rounds.join(store.begin, self.threads, DISTANCE)

    def test_idle_broker_flushes_at_once(self) -> None:
        """The first message after a pause is readable milliseconds later."""
        self.clock.advance(100)
        store = Store(self.clock)
        self.join(store)
        self.assertEqual(store.told, [])
        self.clock.advance(FIRST_DELAY)
        self.assertEqual(store.told, [None])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rounds_keep_their_distance(self) -> None:
        """Under load a store is flushed once per distance, not after every write."""
        store = Store(self.clock)
        for _ in range(100):
            self.join(store)
            self.clock.advance(0.001)
        self.assertEqual(len(set(store.began)), 4)

    def test_many_stores_share_few_jobs(self) -> None:
        """Two hundred stores are four jobs, each store is told once, and a failure is its own."""
        self.threads.hold()
        error = OSError("bad device")
        stores = [Store(self.clock, error if n == 7 else None) for n in range(200)]
        for store in stores:
            self.join(store)
        self.clock.advance(FIRST_DELAY)
        self.assertEqual(self.threads.held, JOBS)
        self.threads.release()
        self.assertEqual(
            [s.told for s in stores], [[error if n == 7 else None] for n in range(200)]
        )

    def test_slow_disk_is_given_pauses(self) -> None:
        """When a round takes 100 ms the next begins no sooner than 400 ms after it began."""
        store = Store(self.clock)
        self.join(store)
        self.threads.hold()
        self.clock.advance(FIRST_DELAY)
        self.clock.advance(0.1)
        self.join(store)
        self.threads.release()
        self.clock.advance(SHARE * 0.1 - 0.1 - 0.002)
        self.assertEqual(len(store.began), 1)
        self.clock.advance(0.003)
        self.assertEqual(len(store.began), 2)

    def test_hurry(self) -> None:
        """A round that a get waits for begins at once, also in the pause after another."""
        store = Store(self.clock)
        for _ in range(3):
            self.join(store)
            self.rounds.hurry(self.threads, DISTANCE)
            self.clock.advance(0)
        self.assertEqual(store.told, [None] * 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hurry_during_a_round(self) -> None:
        """It begins when the present round is over; a hurry without a store to flush has no
        effect."""
        store = Store(self.clock)
        self.rounds.hurry(self.threads, DISTANCE)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.join(store)
        self.threads.hold()
        self.clock.advance(FIRST_DELAY)
        self.join(store)
        self.rounds.hurry(self.threads, DISTANCE)
        self.clock.advance(1)
        self.assertEqual(len(store.began), 1)
        self.threads.release()
        self.clock.advance(0)
        self.assertEqual(store.told, [None, None])

    def test_hurry_after_a_round_of_many(self) -> None:
        """After a round of many stores the disk gets its pause nevertheless."""
        stores = [Store(self.clock) for _ in range(JOBS + 1)]
        for store in stores:
            self.join(store)
        self.threads.hold()
        self.clock.advance(FIRST_DELAY)
        self.clock.advance(0.1)
        self.threads.release()
        self.join(stores[0])
        self.rounds.hurry(self.threads, DISTANCE)
        self.clock.advance(SHARE * 0.1 - 0.1 - 0.002)
        self.assertEqual(len(stores[0].began), 1)
        self.clock.advance(0.003)
        self.assertEqual(len(stores[0].began), 2)

    def test_nothing_to_do(self) -> None:
        """A round without anything to flush ends, and the next comes with a request."""
        store = Store(self.clock)
        store.dirty = False
        self.join(store)
        self.clock.advance(FIRST_DELAY)
        store.dirty = True
        self.join(store)
        self.clock.advance(DISTANCE)
        self.assertEqual(store.told, [None])

    def test_stop(self) -> None:
        """After the end no round begins."""
        store = Store(self.clock)
        self.join(store)
        self.rounds.stop()
        self.clock.advance(1)
        self.assertEqual(store.began, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
