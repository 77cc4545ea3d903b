"""
Records that the slave has, on their way into the store of the master.

In the usual case one write at once is enough (``Appender``). While the store collects, flushes
before it acknowledges, or writes in a worker, they join its batch, and a ``Portion`` waits for the
outcome. Records whose puts are answered already are copies: they do not count as puts.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING

from metamorphosis.errors import LogChanged, StoreError
from metamorphosis.replication.pairmaster.flights import Fault
from metamorphosis.store.batch import PENDING, STORED
from metamorphosis.store.disk import write_directly

if TYPE_CHECKING:
    from metamorphosis.replication.pairmaster.flights import Flight, PairBatch
    from metamorphosis.replication.pairmaster.syncs import Syncs
    from metamorphosis.store.batch import Batch
    from metamorphosis.store.messagestore import MessageStore


class Landing:
    """
    Thread: reactor.

    :param part: called with the reason when records that the slave has could not be written.
    :param landed: called when a ``Portion`` has its outcome.
    :ivar pending: portions without an outcome.
    """

    __slots__ = ("_landed", "_part", "_store", "_syncs", "pending")

    def __init__(
        self,
        store: MessageStore,
        syncs: Syncs,
        part: Callable[[str], None],
        landed: Callable[[], None],
    ) -> None:
        self._store = store
        self._syncs = syncs
        self._part = part
        self._landed = landed
        self.pending = 0

    def land_next(self, flight: Flight, count: int, size: int, offset: int) -> None:
        """The same as ``land``, at once if possible; a put whose prepared reply is right is
        answered then."""
        waits = flight.batch
        if waits is None or waits.shifted or flight.offset != offset:
            self.land(flight, count, size, offset)
            return
        appender = self._store.appender
        place = appender.begin()
        if place is None or place[1] < 0:  # the store collects
            self.land(flight, count, size, offset)
            return
        _, descriptor, position, _, _ = place
        written, number = write_directly(descriptor, flight.next_bytes(size), position)
        self.wrote(flight, count, size, written, number)

    def wrote(self, flight: Flight, count: int, size: int, written: int, number: int) -> None:
        """
        The next records of a flight were written where the store has them next. Their puts wait,
        and the prepared replies are right.

        :param count: see ``land``, as ``size``.
        :param written: the number of written bytes.
        :param number: see ``Appender.failed``.
        """
        appender, waits = self._store.appender, flight.batch
        assert waits is not None
        self._syncs.freed(count, size)
        first, data = flight.done, flight.next_bytes(size)
        if written == size:
            flight.pass_over(count, size)
            if count == waits.records:
                waits.all_stored()
            else:
                waits.settle(first, count)
            try:
                appender.took(data, count)  # after the replies, as in the turn in C
            except BaseException:
                appender.withdraw()
                raise
            return
        ends = list(accumulate(flight.sizes[first : first + count]))
        flight.pass_over(count, size)
        batch = appender.failed(data, ends, written, number)
        self._wait(Portion(self._ended, waits, first, count, None, batch, 0))

    def land(self, flight: Flight, count: int, size: int, offset: int) -> None:
        """
        Store the next records of a flight.

        :param count: their number.
        :param size: their bytes.
        :param offset: of the first, on the slave and at the end of the store.
        """
        store = self._store
        first = flight.done
        waits = flight.batch
        self._syncs.freed(count, size)
        try:
            if waits is None:
                # Its put was refused and counted before: a copy does not count as a put.
                store.commit()
                if store.next_offset != offset:  # an earlier write has failed
                    raise LogChanged(f"the log ends at {store.next_offset}")
                copy = store.append_copy(flight.next_bytes(size), count)
                flight.pass_over(count, size)
                self._wait(Portion(self._ended, None, first, count, None, copy, 0))
                return
            batch = store.batch or store.open_batch()
        except StoreError as error:
            flight.pass_over(count, size)
            if waits is not None:
                waits.refuse(first, count, Fault.MASTER)
            self._part(f"what the slave has cannot be written: {error}")
            return
        moved = waits.shifted or flight.offset != offset
        offsets = flight.offsets_from(offset, count) if moved else None
        record = batch.count
        batch.add_run(flight.next_bytes(size), count)
        store.next_offset += size
        flight.pass_over(count, size)
        self._wait(Portion(self._ended, waits, first, count, offsets, batch, record))

    def _wait(self, portion: Portion) -> None:
        """Let the portion tell its outcome, as soon as it is known."""
        self.pending += 1
        self._syncs.landing += 1
        batch = portion.batch
        if batch.state is PENDING:
            batch.waiters.append(portion.stored)
        else:
            portion.stored()

    def _ended(self, stored: int, error: BaseException | None) -> None:
        self.pending -= 1
        self._syncs.landing -= 1
        self._syncs.expect(stored)
        if error is not None:
            self._part(f"what the slave has could not be written: {error}")
        self._landed()


class Portion:
    """
    Records that are written to the store together.

    :param ended: called with the number of those that were stored, and the reason if not all were.
    :param waits: the batch of their puts; None: no put waits any longer.
    :param first: number of the first record in that batch.
    :param offsets: of the records, if those in their replies are wrong.
    :ivar batch: of the store.
    :param record: the number in it of the first record.
    """

    __slots__ = ("_count", "_ended", "_first", "_offsets", "_record", "_waits", "batch")

    def __init__(
        self,
        ended: Callable[[int, BaseException | None], None],
        waits: PairBatch | None,
        first: int,
        count: int,
        offsets: list[int] | None,
        batch: Batch,
        record: int,
    ) -> None:
        self._ended = ended
        self._waits = waits
        self._first = first
        self._count = count
        self._offsets = offsets
        self.batch = batch
        self._record = record

    def stored(self) -> None:
        """The store has written, and flushed in that mode, or has failed."""
        batch, waits, count = self.batch, self._waits, self._count
        stored = count
        if batch.state is not STORED:
            stored = min(max(batch.stored_count - self._record, 0), count)
        if waits is not None:
            if stored:
                offsets = self._offsets
                waits.settle(self._first, stored if offsets is None else offsets[:stored])
            if stored < count:
                fault = Fault.WRITE if batch.counted else Fault.MASTER
                waits.refuse(self._first + stored, count - stored, fault)
        self._ended(stored, None if stored == count else batch.error or StoreError("not stored"))
