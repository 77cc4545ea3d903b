"""
Rolls: a full segment is flushed for the last time, then gets a successor.

The worker has the descriptor meanwhile, so batches collect. If the new file cannot be created, the
old one grows, and the roll is tried again.
"""

from __future__ import annotations

import os
from functools import partial

from twisted.logger import Logger

from metamorphosis.store.flushing import Rolled, roll_segment
from metamorphosis.store.layout import segment_name
from metamorphosis.store.policy import FlushPolicy
from metamorphosis.store.segment import Segment
from metamorphosis.store.states import Worker
from metamorphosis.store.writablelog import WritableLog

RETRY_SECONDS = 1.0
"""Seconds from a failed roll to the next attempt; until then the old segment grows."""


class Roller:
    """The rolls of one store. Thread: reactor."""

    _log = Logger()

    def __init__(self, store: WritableLog, policy: FlushPolicy) -> None:
        self._store = store
        self._policy = policy
        self._not_before = 0.0  # after a roll that failed

    def start_if_due(self) -> bool:
        """
        Start a roll if the last segment is full; True if one runs, or has to wait for the worker.
        """
        store = self._store
        segment = store.last
        environment = store.environment
        if segment.size < environment.max_segment_size or not segment.size:
            return False
        if (
            store.apart is not None
            or store.stalled is not None  # also for ever, if the end of the log is not known
            or store.writer.damage is not None
            or not self._policy.may_roll()
        ):
            return False
        if environment.clock.seconds() < self._not_before:
            return False
        idle = store.worker is Worker.IDLE
        store.worker = Worker.HOLDING
        if idle:
            path = os.path.join(store.directory, segment_name(segment.end))
            environment.threads.submit(
                partial(
                    roll_segment,
                    environment.disk,
                    store.lend(),
                    segment.path,
                    path,
                    segment.unsynced_directories,
                ),
                partial(self._rolled, path),
            )
        return True

    def _rolled(self, path: str, result: Rolled | None, error: BaseException | None) -> None:
        """Apply the outcome of a roll; nothing was written during it."""
        store = self._store
        old = store.last
        sync_error = error if result is None else result.sync_error
        if result is None or sync_error is not None:
            assert sync_error is not None
            self._policy.roll_unflushed(sync_error)
            return
        old.unsynced_directories = ()
        self._policy.flushed(old.end)
        if result.create_error is not None:
            self.failed(path, result.create_error)
        else:
            segment = Segment(old.end, path, 0, 0, result.fd)
            segment.unsynced_directories = (store.directory,)
            store.add_segment(segment)
            if self._not_before:
                self._not_before = 0.0
                self._log.info("Rolls of {old} work again", old=old.path)
        store.worker = Worker.IDLE
        store.proceed()

    def failed(self, path: str, error: BaseException) -> None:
        """Continue in the old segment, and try again later."""
        store = self._store
        if not self._not_before:
            self._log.error(
                "Could not roll to {path}, {old} grows until it works: {error}",
                path=path,
                old=store.last.path,
                error=error,
            )
        self._not_before = store.environment.clock.seconds() + RETRY_SECONDS
