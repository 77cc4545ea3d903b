"""
Writes of one store in a worker instead of the reactor thread.

One batch is written at a time; later records collect meanwhile. It costs a lone put two thread
switches, and a disk that hangs does not block the reactor.
"""

from __future__ import annotations

from functools import partial

from metamorphosis.errors import StoreError
from metamorphosis.store.batch import PENDING, Batch
from metamorphosis.store.disk import write_rest
from metamorphosis.store.segmentwriter import Pieces
from metamorphosis.store.writablelog import WritableLog


class ApartWrites:
    """The writes of one store; ``WritableLog.apart`` is the batch of the running write. Thread:
    reactor."""

    def __init__(self, store: WritableLog) -> None:
        self._store = store

    def start(self, batch: Batch) -> None:
        """Write ``batch`` at the end of the last segment."""
        store = self._store
        segment = store.last
        try:
            store.open_last()
        except StoreError as failure:
            store.wrote(batch, *store.writer.cannot_open(segment, failure), False)
            return
        store.apart = batch
        data = b"".join(batch.pieces)
        store.environment.threads.submit(
            partial(write_rest, store.environment.disk, segment.fd, data, 0, segment.size),
            partial(self._done, batch, batch.pieces, batch.more, data),
        )

    def _done(
        self,
        batch: Batch,
        pieces: Pieces,
        more: int,
        data: bytes,
        result: tuple[int, OSError | None] | None,
        unexpected: BaseException | None,
    ) -> None:
        store = self._store
        store.apart = None
        if batch.state is not PENDING:  # refused while the disk did not answer
            store.writer.cut(store.last, store.last.size)
            if store.writer.damage is not None:
                # It is cut at the next put, which must not find a later batch behind it.
                store.refuse_unwritten(store.writer.damage)
            batch.size = 0
            store.wrote(batch, 0, 0, None, False)  # batches before it may wait for their flush
        else:
            written, failed = result or (0, OSError(str(unexpected)))
            count, size, error = store.writer.took(
                store.last, pieces, batch.size, [data], written, failed, more
            )
            store.wrote(batch, count, size, error, store.block_is_next)
        store.proceed()
