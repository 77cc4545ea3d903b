"""Providers of what replies wait for, as the tests of replies see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from metamorphosis.broker.replies import Awaited, Reply
from metamorphosis.store.batch import FAILED, PENDING, STORED, Batch, Outcome
from metamorphosis.store.messagestore import MessageStore
from tests.support.partitions import Partition, put, record


class Provider(Protocol):
    """Something to wait for that a test can decide; three records are in it."""

    awaited: Awaited

    def succeed(self) -> None:
        """It is stored."""

    def fail(self) -> int:
        """It fails; returns how many of the three records are stored all the same."""

    def refuse(self, awaited: object, record: int, replies: list[Reply]) -> list[Reply]:
        """What is said then."""


class BatchProvider:
    """The real one: a batch of group commit whose flush the test holds."""

    def __init__(self, path: str) -> None:
        self.partition = Partition(path, unflush_threshold=0)
        self.store: MessageStore = self.partition.open()
        self.partition.threads.hold()
        self.batch = put(self.store, record(30), record(30), record(30))
        self.awaited: Awaited = self.batch

    def succeed(self) -> None:
        """See ``Provider``."""
        self.store.commit()
        self.partition.threads.release()

    def fail(self) -> int:
        """See ``Provider``; there is room for two."""
        self.partition.disk.room = 75
        self.store.commit()
        self.partition.threads.release()
        return 2

    def refuse(self, awaited: object, record: int, replies: list[Reply]) -> list[Reply]:
        """See ``Provider``."""
        assert awaited is self.batch
        kept = min(max(self.batch.stored_count - record, 0), len(replies))
        return replies[:kept] + [b"refused "] * (len(replies) - kept)


class ForcedRecord:
    """A fake: the record of a journal that is forced to the disk, all or nothing."""

    def __init__(self, path: str) -> None:
        self.state: Outcome = PENDING
        self.waiters: list[Callable[[], None]] = []
        self.awaited: Awaited = self

    def succeed(self) -> None:
        """See ``Provider``."""
        self._decide(STORED)

    def fail(self) -> int:
        """See ``Provider``."""
        self._decide(FAILED)
        return 0

    def refuse(self, awaited: object, record: int, replies: list[Reply]) -> list[Reply]:
        """See ``Provider``."""
        assert awaited is self
        return [b"refused "] * len(replies)

    def _decide(self, state: Outcome) -> None:
        self.state = state
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()


class PairProvider(ForcedRecord):
    """A fake: a batch that a slave must have, too; the batch is stored long before."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        local = BatchProvider(path)
        self.batch: Batch = local.batch
        self.batch.waiters.append(self._local)
        self._local_done = False
        self._slave: Outcome = PENDING
        local.succeed()

    def _local(self) -> None:
        self._local_done = True

    def succeed(self) -> None:
        """See ``Provider``; the slave has answered."""
        assert self._local_done and self.batch.state is STORED
        super().succeed()


PROVIDERS: tuple[Callable[[str], Provider], ...] = (BatchProvider, ForcedRecord, PairProvider)
