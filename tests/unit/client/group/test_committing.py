"""The times of commits, their failures, and the start of a claimed partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.group.committing import STORE_SECONDS, Committing
from metamorphosis.client.model import Partition, Position, StoredOffset
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.client.settings import MAX_OFFSET, ConsumerConfig
from metamorphosis.errors import OffsetStoreError
from metamorphosis.testing.runtime import MemoryRuntime

P0, P1, P2 = (Partition(0, number) for number in range(3))


class Store(MemoryOffsetStore):
    """
    A scriptable store. :ivar fault: raised by every call while it is set. :ivar commits: the
    commits, in order. :ivar tried: number of commits, failed ones included. :ivar held: futures
    that commits wait for.

    :ivar fault: raised by everything while it is set.
    :ivar commits: what was committed, in order.
    :ivar tried: number of commits, those included that failed.
    :ivar held: futures that commits wait for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fault: Exception | None = None
        self.commits: list[list[StoredOffset]] = []
        self.initialised: list[tuple[str, str, Partition, int]] = []
        self.tried = 0
        self.hold = False
        self.held: list[Deferred[None]] = []

    async def load(self, topic: str, group: str, partition: Partition) -> StoredOffset | None:
        """See ``IOffsetStore``."""
        if self.fault:
            raise self.fault
        return await super().load(topic, group, partition)

    async def initialise(self, topic: str, group: str, partition: Partition, offset: int) -> None:
        """See ``IOffsetStore``."""
        self.initialised.append((topic, group, partition, offset))

    async def commit(self, group: str, offsets: Sequence[StoredOffset]) -> None:
        """See ``IOffsetStore``."""
        self.tried += 1
        if self.hold:
            waiting: Deferred[None] = Deferred()
            self.held.append(waiting)
            await waiting
        if self.fault:
            raise self.fault
        self.commits.append(list(offsets))
        await super().commit(group, offsets)


class CommittingCase(SynchronousTestCase):
    """Group ``g`` with the default period, 5 s."""

    def setUp(self) -> None:
        """Nothing is stored."""
        self.runtime = MemoryRuntime()
        self.store = Store()
        self.committing = self.make()

    def make(self, store: Any = None, **settings: Any) -> Committing:
        """With a configuration."""
        config = ConsumerConfig(group="g", **settings)
        return Committing(self.runtime, store or self.store, config, self.runtime.log)

    def take(self, partition: Partition = P0, committing: Committing | None = None) -> Position:
        """Claim a partition of ``test``."""
        taken: Position = self.runtime.run((committing or self.committing).take("test", partition))
        return taken

    def commit(self) -> bool:
        """Commit now."""
        done: bool = self.runtime.run(self.committing.commit())
        return done

    def stored(self, partition: Partition = P0) -> StoredOffset | None:
        """The stored positions."""
        return self.store.offsets.get(("g", "test", partition))

    def put(self, offset: int, partition: Partition = P0) -> None:
        """Another member stores this."""
        stored = StoredOffset("test", partition, offset, 5)
        self.store.offsets["g", "test", partition] = stored


def move(position: Position, offset: int, message_id: int = 7) -> None:
    """Move a position, as delivery does."""
    position.offset, position.message_id, position.modified = offset, message_id, True


class StartTests(CommittingCase):
    """The start of a partition that was just claimed."""

    def test_starts_that_are_not_stored(self) -> None:
        """One line for all partitions, and another one for those of the next outage."""

        def fail(*_: object) -> None:
            raise OffsetStoreError("away")

        initialise = self.store.initialise
        for outage in (1, 2):
            self.patch(self.store, "initialise", fail)
            for number in range(3):
                self.take(Partition(outage, number))
            self.assertEqual(outage, len(self.runtime.log.texts("warn")))
            self.patch(self.store, "initialise", initialise)
            self.take(Partition(outage, 3))

    def test_stored(self) -> None:
        """At the stored position, with its message id, and clean."""
        self.put(100)
        self.assertEqual(Position("test", P0, 100, 5, False), self.take())
        self.assertEqual([], self.store.initialised)

    def test_nothing_stored(self) -> None:
        """At the configured offset; ``initialise`` is called with the group's name."""
        committing = self.make(offset=30)
        self.assertEqual(Position("test", P0, 30, -1, False), self.take(committing=committing))
        self.assertEqual([("test", "g", P0, 30)], self.store.initialised)

    def test_from_the_end(self) -> None:
        """A new group may begin at the end; a known one continues at its position."""
        committing = self.make(offset=MAX_OFFSET)
        self.assertEqual(MAX_OFFSET, self.take(committing=committing).offset)
        self.put(100, P1)
        self.assertEqual(100, self.take(P1, committing).offset)

    def test_always_from_the_end(self) -> None:
        """Whatever is stored."""
        committing = self.make(always_consume_from_max_offset=True)
        self.put(100)
        self.assertEqual(MAX_OFFSET, self.take(committing=committing).offset)

    def test_unreadable_store(self) -> None:
        """An unknown position is an error, not the beginning."""
        self.store.fault = ValueError("broken")
        taking = self.runtime.start(self.committing.take("test", P0))
        error = self.failureResultOf(taking, OffsetStoreError)
        self.assertIn("test 0-0", str(error.value))
        self.assertIn("broken", str(error.value))

    def test_initialise_fails(self) -> None:
        """The first commit creates the entry: a warning, and the partition is read."""

        async def fail(*_: object) -> None:
            raise OffsetStoreError("out of range")

        self.store.initialise = fail  # type: ignore[method-assign]
        self.assertEqual(0, self.take().offset)
        self.assertIn("out of range", self.runtime.log.texts("warn")[0])


class CommitTests(CommittingCase):
    """The written positions."""

    def test_only_dirty(self) -> None:
        """Row 72: moved positions only, and none before the first message was processed."""
        first, second = self.take(), self.take(P1)
        self.assertTrue(self.commit())
        self.assertEqual([], self.store.commits)
        move(second, 50)
        self.assertTrue(self.commit())
        self.assertEqual([[StoredOffset("test", P1, 50, 7)]], self.store.commits)
        self.assertFalse(second.modified)
        move(first, 10, -8)
        move(second, 60)
        self.commit()
        self.assertEqual(2, len(self.store.commits[1]))
        self.assertEqual(StoredOffset("test", P0, 10, -8), self.stored())

    def test_periodically(self) -> None:
        """Every period, 5 s by default."""
        position = self.take()
        self.committing.start()
        for count in (1, 2, 3):
            move(position, 100 * count)
            self.runtime.advance(4.9)
            self.assertEqual(count - 1, len(self.store.commits))
            self.runtime.advance(0.1)
            self.assertEqual(100 * count, self.stored().offset)  # type: ignore[union-attr]

    def test_stop(self) -> None:
        """After ``stop`` there is no periodic commit."""
        position = self.take()
        self.committing.start()
        self.runtime.run(self.committing.stop())
        move(position, 100)
        self.runtime.advance(60)
        self.assertEqual([], self.store.commits)

    def test_start_again(self) -> None:
        """A second start does nothing, and neither does one after the end."""
        position = self.take()
        self.committing.start()
        self.committing.start()
        self.assertEqual(1, len(self.runtime.clock.getDelayedCalls()))
        self.runtime.run(self.committing.stop())
        self.committing.start()
        move(position, 100)
        self.runtime.advance(60)
        self.assertEqual([], self.store.commits)

    def test_stop_during_a_commit(self) -> None:
        """It waits for that."""
        move(self.take(), 100)
        self.committing.start()
        self.store.hold = True
        self.runtime.advance(5)
        stopped = self.runtime.start(self.committing.stop())
        self.assertNoResult(stopped)
        self.store.held[0].callback(None)
        self.successResultOf(stopped)
        self.assertEqual(100, self.stored().offset)  # type: ignore[union-attr]

    def test_moved_meanwhile(self) -> None:
        """A position that moves while it is written stays dirty, and what was read is stored."""
        position = self.take()
        move(position, 100)
        self.store.hold = True
        committing = self.runtime.start(self.committing.commit())
        move(position, 200)
        self.store.hold = False
        self.store.held[0].callback(None)
        self.assertTrue(self.successResultOf(committing))
        self.assertEqual(100, self.stored().offset)  # type: ignore[union-attr]
        self.assertTrue(position.modified)

    def test_one_at_a_time(self) -> None:
        """An old commit cannot overtake a newer one."""
        position = self.take()
        move(position, 100)
        self.store.hold = True
        first = self.runtime.start(self.committing.commit())
        move(position, 200)
        second = self.runtime.start(self.committing.commit())
        self.assertEqual(1, len(self.store.held))
        self.store.hold = False
        self.store.held[0].callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual([100, 200], [each[0].offset for each in self.store.commits])


class FailureTests(CommittingCase):
    """A failed commit is repeated, and never lost."""

    def test_flag_is_restored(self) -> None:
        """The position stays dirty, and the log names topic, partition and offset."""
        position = self.take()
        move(position, 100)
        self.store.fault = OffsetStoreError("away")
        self.assertFalse(self.commit())
        self.assertTrue(position.modified)
        self.assertEqual((1, 1), (self.committing.commits, self.committing.failed_commits))
        self.assertIn("test 0-0 at 100", self.runtime.log.texts("warn")[0])
        self.store.fault = None
        self.assertTrue(self.commit())
        self.assertEqual(100, self.stored().offset)  # type: ignore[union-attr]
        self.assertIn("stored again", self.runtime.log.texts("info")[0])

    def test_sooner_than_the_period(self) -> None:
        """After a failure the next try comes after 1, 2, 4... seconds, at most after the period."""
        committing = self.make(commit_offset_period_ms=60000)
        position = self.take(committing=committing)
        committing.start()
        move(position, 100)
        self.store.fault = OffsetStoreError("away")
        self.runtime.advance(60)
        for pause, count in ((0.9, 1), (0.1, 2), (2, 3), (4, 4), (8, 5)):
            self.runtime.advance(pause)
            self.assertEqual(count, self.store.tried)
        self.assertEqual(1, len(self.runtime.log.texts("warn")))
        self.store.fault = None
        self.runtime.advance(16)
        self.assertEqual(100, self.stored().offset)  # type: ignore[union-attr]

    def test_short_period(self) -> None:
        """A period below a second stays the same after failures."""
        committing = self.make(commit_offset_period_ms=100)
        move(self.take(committing=committing), 100)
        self.store.fault = OffsetStoreError("away")
        committing.start()
        self.runtime.advance(1.05)
        self.assertEqual(10, self.store.tried)

    def test_lines_of_an_outage(self) -> None:
        """One when it begins, one when its error is another one, one when it is over."""
        committing = self.make(commit_offset_period_ms=1000)
        position = self.take(committing=committing)
        move(position, 100)
        committing.start()
        for error in (OffsetStoreError("away"), OffsetStoreError("away still"), OSError("full")):
            self.store.fault = error
            self.runtime.advance(20)
        lines = self.runtime.log.texts("warn")
        self.assertEqual(["(away)", "(full)"], [line[line.index("(") :][:6] for line in lines])
        self.store.fault = None
        self.runtime.advance(2)
        self.store.fault = OSError("full")
        move(position, 200)
        self.runtime.advance(2)
        self.assertEqual((3, 1), tuple(map(len, map(self.runtime.log.texts, ("warn", "info")))))

    def test_hanging_store(self) -> None:
        """The wait for a store that does not answer is limited, and the commit repeated."""
        position = self.take()
        move(position, 100)
        self.store.hold = True
        committing = self.runtime.start(self.committing.commit())
        self.runtime.advance(STORE_SECONDS)
        self.assertFalse(self.successResultOf(committing))
        self.assertTrue(position.modified)
        self.store.hold = False
        self.assertTrue(self.commit())

    def test_flush(self) -> None:
        """A commit that is needed now is tried three times, and no more than it has to be."""
        self.assertTrue(self.runtime.run(self.committing.flush()))
        move(self.take(), 100)
        self.store.fault = OffsetStoreError("away")
        flushing = self.runtime.start(self.committing.flush())
        self.runtime.advance(0.2)
        self.store.fault = None
        self.runtime.advance(0.5)
        self.assertTrue(self.successResultOf(flushing))

    def test_flush_in_vain(self) -> None:
        """After that the partition is released, and the log names the messages that are delivered
        again."""
        move(self.take(), 100)
        self.store.fault = OffsetStoreError("away")
        flushing = self.runtime.start(self.committing.flush())
        self.runtime.advance(0.7)
        self.assertFalse(self.successResultOf(flushing))
        self.committing.drop([("test", P0)])
        line = self.runtime.log.texts("error")[0]
        for text in ("test 0-0", "offset 100", "0 is stored"):
            self.assertIn(text, line)

    def test_flush_does_not_wait_for_what_hangs(self) -> None:
        """A hanging store is asked only once."""
        move(self.take(), 100)
        self.store.hold = True
        flushing = self.runtime.start(self.committing.flush())
        self.runtime.advance(STORE_SECONDS)
        self.assertFalse(self.successResultOf(flushing))


class AsideTests(CommittingCase):
    """Partitions that were lost without a commit."""

    def setUp(self) -> None:
        """Position 50 is stored, 100 was processed, and the partition is lost."""
        super().setUp()
        self.put(50)
        self.position = self.take()
        move(self.position, 100)

    def test_comes_back(self) -> None:
        """No position was stored in between: the old one continues, still dirty."""
        self.committing.set_aside()
        self.assertIs(self.position, self.take())
        self.assertTrue(self.commit())
        self.assertEqual(100, self.stored().offset)  # type: ignore[union-attr]

    def test_comes_back_after_a_commit(self) -> None:
        """What was stored meanwhile is known to be our own: the progress since then counts."""
        self.assertTrue(self.commit())
        move(self.position, 150)
        self.committing.set_aside()
        self.assertIs(self.position, self.take())
        self.assertEqual(150, self.position.offset)

    def test_somebody_else_had_it(self) -> None:
        """The position of another member counts."""
        self.committing.set_aside()
        self.put(80)
        self.assertEqual(80, self.take().offset)

    def test_failed_commit_that_was_done(self) -> None:
        """A commit with an unknown outcome counts as our own, too."""
        self.store.fault = OffsetStoreError("no answer")
        self.commit()
        self.store.fault = None
        self.put(100)
        move(self.position, 120)
        self.committing.set_aside()
        self.assertIs(self.position, self.take())

    def test_failed_commit_before_another_one(self) -> None:
        """From then on its offset is that of somebody else, who may have gone back to it."""
        self.store.fault = OffsetStoreError("no answer")
        self.commit()
        self.store.fault = None
        move(self.position, 120)
        self.assertTrue(self.commit())
        self.committing.set_aside()
        self.put(100)
        self.assertEqual(100, self.take().offset)

    def test_forgotten(self) -> None:
        """After all partitions have owners again, the store decides."""
        self.committing.set_aside()
        self.committing.forget_aside()
        self.assertEqual(50, self.take().offset)

    def test_not_committed_meanwhile(self) -> None:
        """Lost partitions are not committed."""
        self.committing.set_aside()
        self.assertTrue(self.commit())
        self.assertEqual(50, self.stored().offset)  # type: ignore[union-attr]

    def test_rescue(self) -> None:
        """Its position is stored for the next reader, unless another position was stored."""
        self.committing.set_aside()
        self.runtime.run(self.committing.rescue())
        self.assertEqual(100, self.stored().offset)  # type: ignore[union-attr]
        self.assertFalse(self.position.modified)
        self.assertIs(self.position, self.take())

    def test_rescue_too_late(self) -> None:
        """The present reader continues from its stored position."""
        self.committing.set_aside()
        self.put(80)
        self.runtime.run(self.committing.rescue())
        self.assertEqual(80, self.stored().offset)  # type: ignore[union-attr]
        self.put(50)  # the value that was our last one: somebody went back to it
        self.runtime.run(self.committing.rescue())
        self.assertEqual(50, self.stored().offset)  # type: ignore[union-attr]

    def test_rescue_fails(self) -> None:
        """It is kept, and tried again; one log line."""
        self.committing.set_aside()
        self.store.fault = OffsetStoreError("away")
        for _ in range(3):
            self.runtime.run(self.committing.rescue())
        (line,) = self.runtime.log.texts("info")
        self.assertIn("at 100 is not stored yet: ", line)
        self.store.fault = None
        self.runtime.run(self.committing.rescue())
        self.assertEqual(100, self.stored().offset)  # type: ignore[union-attr]
        move(self.position, 150)
        self.store.fault = OffsetStoreError("away again")
        self.runtime.run(self.committing.rescue())
        self.assertIn("at 150 is not stored yet: ", self.runtime.log.texts("info")[-1])

    def test_always_from_the_end(self) -> None:
        """A partition that comes back does not skip what arrived meanwhile."""
        committing = self.make(always_consume_from_max_offset=True)
        position = self.take(P1, committing)
        move(position, 300)
        committing.set_aside()
        self.assertEqual(300, self.take(P1, committing).offset)


class UserStoreTests(CommittingCase):
    """Stores of users with plain or awaitable results."""

    def test_plain(self) -> None:
        """Methods that are not coroutines."""
        kept: dict[str, Any] = {}

        class Plain:
            """Everything at once."""

            def load(self, topic: str, group: str, partition: Partition) -> StoredOffset | None:
                """The last."""
                return kept.get("last")

            def initialise(self, *args: object) -> None:
                """Nothing."""

            def commit(self, group: str, offsets: Sequence[StoredOffset]) -> None:
                """Keep the last."""
                kept["last"] = offsets[-1]

        self.committing = self.make(store=Plain())
        move(self.take(), 100)
        self.assertTrue(self.commit())
        self.assertEqual(StoredOffset("test", P0, 100, 7), kept["last"])
        self.committing = self.make(store=Plain())
        self.assertEqual(100, self.take().offset)

    def test_deferred(self) -> None:
        """Methods that return Deferreds."""
        commits: list[Any] = []

        class Deferring:
            """Everything later."""

            def load(self, *args: object) -> Deferred[StoredOffset | None]:
                """Fixed."""
                return succeed(StoredOffset("test", P0, 30))

            def commit(self, group: str, offsets: Sequence[StoredOffset]) -> Deferred[None]:
                """Keep it."""
                commits.extend(offsets)
                return succeed(None)

        self.committing = self.make(store=Deferring())
        position = self.take()
        self.assertEqual(30, position.offset)
        move(position, 100)
        self.assertTrue(self.commit())
        self.assertEqual(100, commits[0].offset)

    def test_raising(self) -> None:
        """A plain method that raises is a failed commit."""

        class Raising(Store):
            """Not today."""

            def commit(self, *args: object) -> None:  # type: ignore[override]
                """Raise at once."""
                raise KeyError("not today")

        self.committing = self.make(store=Raising())
        position = self.take()
        move(position, 100)
        self.assertFalse(self.commit())
        self.assertTrue(position.modified)
