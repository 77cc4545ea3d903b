"""
Group commit: a put is acknowledged when it is flushed. While one flush runs, the next batch
collects.

Differs: in the original big messages bypass the queue, are acknowledged unflushed and may stay
unreadable, and an I/O error ends the partition's writer thread and with it the partition (D-4,
D-5). Here everything goes one way whatever its size, a batch that cannot be flushed is refused and
taken out of the file again, and the next one is tried.

Source: ``MessageStore``.
"""

from __future__ import annotations

from functools import partial

from metamorphosis.store.batch import Batch
from metamorphosis.store.flushing import sync_segment
from metamorphosis.store.messagestore import MessageStore


class GroupCommitStore(MessageStore):
    """See the module. Nothing is written while a flush runs. Thread: reactor."""

    group_commit = True

    _flying: Batch | None = None
    """Written, and being flushed."""
    _flying_count = 0
    _sync_failing = False

    def _check_writable(self) -> None:
        """Every batch is tried."""

    def _written(self, batch: Batch, count: int) -> None:
        if self.next_offset == batch.offset:
            batch.complete(batch.offset, 0, batch.error)
            return
        self._flying = batch
        self._flying_count = count
        self._busy = self._syncing = True
        segment = self._last
        self._environment.threads.submit(
            partial(sync_segment, self._disk, segment.fd, segment.unsynced_directories, None),
            self._synced,
        )

    def _synced(self, _: None, error: BaseException | None) -> None:
        self._syncing = False
        batch, self._flying = self._flying, None
        assert batch is not None
        if error is not None:
            self._take_back(batch, error)
        else:
            self._last.unsynced_directories = ()
            self._flushed(self._last.end)
            batch.complete(self.max_offset, self._flying_count, batch.error)
        self._proceed()

    def _flushed(self, end: int) -> None:
        self.max_offset = self._read_end = end
        if self._sync_failing:
            self._sync_failing = False
            self._log.info("{path} can be flushed again", path=self._last.path)
        self._now_readable()

    def _take_back(self, batch: Batch, error: BaseException) -> None:
        """
        Nothing of the batch may be taken for stored, and what collected behind it has wrong
        offsets.
        """
        segment = self._last
        behind, self.batch = self.batch, None
        self.next_offset = self.max_offset
        if not self._sync_failing:
            self._sync_failing = True
            self._log.error(
                "{path} could not be flushed, messages are refused until it works again: {error}",
                path=segment.path,
                error=error,
            )
        self._writer.take_back(segment, self._flying_count, segment.end - self.max_offset)
        batch.complete(self.max_offset, 0, error)
        if behind is not None:
            behind.complete(self.max_offset, 0, error)

    def _flush_failed(self, error: BaseException) -> None:
        """
        Only at a roll, where every message was flushed before: go on in the old segment and try
        again later.
        """
        self._roll_failed(self._last.path, error)
        self._proceed()

    def flush(self) -> None:
        """Nothing to ask for: what is written is being flushed."""

    def _last_flush(self) -> bool:
        return False
