"""
Records of one store from the turn in C (``broker.hotpath.turn``).

``begin`` returns the place of the next records, once a round; ``took``, ``failed`` or ``collected``
follows in the same turn of the reactor, before other code can use the store. A store that can write
at once is written by the turn, without a batch. The records of another one collect in its batch, as
in the turn in Python.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from metamorphosis.errors import StoreError, StoreStalled
from metamorphosis.message import HEADER_BYTES
from metamorphosis.store.batch import Batch
from metamorphosis.store.directflush import DirectFlush
from metamorphosis.store.disk import Disk, write_rest
from metamorphosis.store.fields import AppenderFields
from metamorphosis.store.states import Life, Worker

if TYPE_CHECKING:
    from metamorphosis.store.collectinglog import CollectingLog
    from metamorphosis.store.policy import FlushPolicy

HOLDING = Worker.HOLDING
OPEN = Life.OPEN

COLLECTS: Final = -1
"""In place of a descriptor: the records are passed to ``collected``; as in ``turncalls.c``."""

UNKNOWN_END: Final = StoreStalled(
    "the end of its log is not known since an error, which is in the log of the broker;"
    " the next start of the broker finds it"
)
"""Why a store takes no more messages, see ``Appender.withdraw``."""

Place = tuple[object, int, int, int, bool]
"""See ``Appender.begin``."""


class Appender(AppenderFields):
    """See the module. Thread: reactor."""

    __slots__ = ()

    def __init__(self, store: CollectingLog, policy: FlushPolicy) -> None:
        self._store = store
        self._writer = store.writer
        environment = store.environment
        # Only this mode acknowledges records that are not flushed. The disk of a test must see
        # every write.
        at_once = not environment.apart and type(environment.disk) is Disk
        self._policy = policy if at_once and isinstance(policy, DirectFlush) else None

    def begin(self) -> Place | None:
        """
        This, the descriptor (or ``COLLECTS``), position in the file and offset of the next record,
        and whether only puts with a checksum are taken. None: the store takes no records.
        """
        store, policy = self._store, self._policy
        last = store.last
        if (
            policy is not None
            and last.fd >= 0
            and store.worker is not HOLDING
            and store.life is OPEN
            and store.stalled is None
            and self._writer.damage is None
            and policy.flush_error is None
            and not store.collects
        ):
            return self, last.fd, last.size, store.next_offset, False
        return self._begin()

    def _begin(self) -> Place | None:
        """
        The same for a store in another than the usual state.

        It opens no file: if descriptors are scarce, that would close another, whose number the new
        one would get, and the turn may be about to write there.
        """
        store, last = self._store, self._store.last
        if self._writer.damage is not None:
            return None  # opening a batch repairs the file
        try:
            store.check_open()
        except StoreError:
            return None  # opening a batch reports the error
        holds = store.worker is HOLDING or store.collects
        if self._policy is None or last.fd < 0 or holds:
            return self, COLLECTS, 0, store.next_offset, False
        return self, last.fd, last.size, store.next_offset, False

    def collected(self, data: bytes, count: int) -> tuple[Batch, int]:
        """
        Add records to the batch that collects.

        :param data: whole records.
        :param count: their number.
        :returns: the batch, and the number of the first of these records in it.
        :raises StoreError: the store has changed since ``begin``.
        """
        store = self._store
        batch = store.batch or store.open_batch()
        first = batch.count
        batch.add_run(data, count)
        store.next_offset += len(data)
        return batch, first

    def took(self, data: bytes, count: int) -> None:
        """
        Account for records that were written at the place of ``begin``.

        :param data: the records.
        :param count: their number.
        """
        store = self._store
        size = len(data)
        store.put_count += count
        store.put_bytes += size - HEADER_BYTES * count
        store.next_offset = end = store.next_offset + size
        self._writer.grew(store.last, count, size, data)
        assert self._policy is not None  # or ``begin`` returned None
        self._policy.appended(end, count)

    def withdraw(self) -> None:
        """
        Let the store take no more messages until the next start: ``took`` has failed, and messages
        that are acknowledged may lie where it would write next. This needs no memory, the lack of
        which is the likely reason.
        """
        self._store.stalled = UNKNOWN_END

    def failed(self, data: bytes, ends: Sequence[int], written: int, number: int) -> Batch:
        """
        Continue a failed or short write with the rest of the records, as the store itself does.

        :param data: all records; empty: there was no memory for them.
        :param ends: the end of each record in it.
        :param written: the number of written bytes.
        :param number: errno of the error; 0: the write was short.
        :returns: a decided batch of these records.
        """
        store = self._store
        batch = Batch(store, store.next_offset)
        batch.counted = True
        for start, end in pairwise((0, *ends)):
            batch.pieces += (data[start:end], b"") if data else (bytes(end - start), b"")
        batch.size = ends[-1]
        store.next_offset += batch.size
        store.count_puts(len(ends), batch.size)
        error: OSError | None = None
        if number:
            error = OSError(number, os.strerror(number))
        else:
            disk, last = store.environment.disk, store.last
            written, error = write_rest(disk, last.fd, data, written, last.size)
        count, size, error = self._writer.took(
            store.last, batch.pieces, batch.size, [data], written, error
        )
        store.wrote(batch, count, size, error, False)
        return batch
