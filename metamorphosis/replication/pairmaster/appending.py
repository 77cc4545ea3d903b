"""
Puts of one partition from the turn in C, in the place of a store's ``Appender``.

They always collect: the replies wait in C until both brokers have the records. The records of a
round are sent as they come, as one flight; they join the batch of the turn only if there is one, so
that their order stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from metamorphosis.replication.pairmaster.flights import PairBatch, TakesReplies
from metamorphosis.replication.pairmaster.standing import JOINED
from metamorphosis.replication.pairmaster.syncs import Collector
from metamorphosis.store.appender import COLLECTS

if TYPE_CHECKING:
    from metamorphosis.replication.pairmaster.standing import Standing
    from metamorphosis.replication.pairmaster.syncs import Syncs
    from metamorphosis.store.appender import Place


class TakesPuts(Collector, TakesReplies, Protocol):
    """The partition. Provider: ``PairedLog``."""

    standing: Standing


class PairAppender:
    """See the module. Thread: reactor."""

    __slots__ = ("_log", "_syncs")

    def __init__(self, log: TakesPuts, syncs: Syncs) -> None:
        self._log = log
        self._syncs = syncs

    def begin(self) -> Place | None:
        """See ``Appender.begin``: only puts with a checksum are taken. None: the puts will be
        refused."""
        log = self._log
        if log.standing is not JOINED or not self._syncs.takes_more:
            return None
        return self, COLLECTS, 0, log.next_offset, True

    def collected(self, data: bytes, count: int) -> tuple[PairBatch, int]:
        """See ``Appender.collected``."""
        log = self._log
        batch = log.batch
        if batch is not None:
            first = batch.count
            batch.add_run(data, count)
            log.next_offset += len(data)
            return batch, first
        batch = PairBatch(log, log.next_offset)
        batch.hold(data, count)
        self._syncs.launch(log, batch)
        log.next_offset += len(data)
        return batch, 0
