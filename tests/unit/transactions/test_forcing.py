"""The thread that forces the journal: a worker, or the reactor for a single client."""

from __future__ import annotations

from metamorphosis import lone
from metamorphosis.store.batch import PENDING, STORED
from metamorphosis.transactions.redofile import Written
from metamorphosis.transactions.redolog import JournalEnvironment, RedoLog
from tests.unit.transactions.test_redolog import RedoLogTestCase


class AloneTests(RedoLogTestCase):
    """``gather``."""

    gather = True

    def setUp(self) -> None:
        super().setUp()
        self.patch(lone, "QUICK_SECONDS", 3600.0)  # whatever the disk of this machine does

    def open(self, limit: int = 100) -> RedoLog:
        """A journal that watches what clients do."""
        environment = JournalEnvironment(
            self.threads,
            self.clock,
            self.dirty.append,
            self.broken.append,
            self.disk,
            gather=self.gather,
        )
        return RedoLog(self.directory, environment, self.mode, limit=1000)

    def commit(self, *waiters: int) -> list[Written]:
        """A turn with records that a number of replies wait for."""
        forced = []
        for count in waiters:
            _, written = self.take(b"x", force=True)
            written.waiters += [lambda: None] * count
            forced.append(written)
        self.end_turn()
        return forced

    def test_alone(self) -> None:
        """From the second record in a row on the reactor forces itself, however often."""
        self.commit(1)
        self.threads.hold()
        for _ in range(3):
            (forced,) = self.commit(1)
            self.assertEqual((STORED, 0), (forced.state, self.threads.held))
        self.assertEqual(4, self.log.forces)

    def test_several(self) -> None:
        """A worker forces when several wait, and for the first one after them."""
        self.commit(1)
        self.commit(1)
        self.threads.hold()
        (first, _) = self.commit(1, 1)
        self.assertEqual((PENDING, 1), (first.state, self.threads.held))
        self.threads.release_one()
        (alone,) = self.commit(1)
        self.assertEqual((PENDING, 1), (alone.state, self.threads.held))
        self.threads.release()
        self.assertIs(STORED, alone.state)

    def test_slow_disk(self) -> None:
        """Never has the reactor."""
        self.patch(lone, "QUICK_SECONDS", 0.0)
        self.commit(1)
        self.threads.hold()
        for number in range(1, 4):
            self.commit(1)
            self.assertEqual(1, self.threads.held, number)
            self.threads.release_one()

    def test_failed(self) -> None:
        """A force that fails in the reactor breaks the journal as any other."""
        self.commit(1)
        self.commit(1)
        self.disk.failing["sync"] = 1
        (forced,) = self.commit(1)
        self.assertEqual((PENDING, 1), (forced.state, len(self.broken)))
        self.assertIsNotNone(self.log.broken)
        self.flushLoggedErrors()


class NeverTests(AloneTests):
    """Without ``gather`` a worker forces always."""

    gather = False

    def test_alone(self) -> None:
        """Also for one client."""
        self.commit(1)
        self.threads.hold()
        (forced,) = self.commit(1)
        self.assertEqual((PENDING, 1), (forced.state, self.threads.held))
        self.threads.release()
