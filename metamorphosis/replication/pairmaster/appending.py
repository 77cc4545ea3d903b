"""
Puts of one partition from the turn in C, in the place of a store's ``Appender``.

They always collect: the replies wait in C until both brokers have the records. The records of a
round are one flight. C sends its frames with those of all partitions at the end of the turn, and
takes the replies to it if each is the expected one; then it calls ``accepted`` and ``landed``. It
tells nothing of other replies: those, and the same ones where a flight is not in its usual state,
take the path in Python (``Syncs.take``), which knows every flight. Until C has the connection, see
``BrokerSockets.adopt``, and where other frames leave at the end of this turn, the frames take the
path in Python, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from metamorphosis.replication.pairmaster.flights import Flight, PairBatch, TakesReplies
from metamorphosis.replication.pairmaster.frames import OPAQUES
from metamorphosis.replication.pairmaster.standing import JOINED
from metamorphosis.replication.pairmaster.syncs import Collector
from metamorphosis.store.appender import COLLECTS

if TYPE_CHECKING:
    from metamorphosis.replication.pairmaster.landing import Landing
    from metamorphosis.replication.pairmaster.standing import Standing
    from metamorphosis.replication.pairmaster.syncs import Syncs
    from metamorphosis.store.appender import Place
    from metamorphosis.store.messagestore import MessageStore

SENDS: Final = -2
"""In place of a descriptor: the records are passed to ``sent`` if C has the connection, else to
``collected``; as in ``turncalls.c``."""

IN_STORE: Final = (-1, 0)
"""In place of a descriptor and a position: the store has the records already."""


class TakesPuts(Collector, TakesReplies, Protocol):
    """The partition. Provider: ``PairedLog``."""

    standing: Standing
    store: MessageStore

    def passed(self, flight: Flight) -> None:
        """Records of the oldest flight were processed."""


class PairAppender:
    """See the module. Thread: reactor."""

    __slots__ = ("_landing", "_log", "_store", "_syncs")

    def __init__(self, log: TakesPuts, syncs: Syncs, landing: Landing) -> None:
        self._log = log
        self._store = log.store
        self._syncs = syncs
        self._landing = landing

    def begin(self) -> Place | None:
        """See ``Appender.begin``: only puts with a checksum are taken. None: the puts will be
        refused."""
        log, syncs = self._log, self._syncs
        if log.standing is not JOINED or syncs.waiting >= syncs.limit or not syncs.is_connected:
            return None
        return self, COLLECTS if syncs.is_planned else SENDS, 0, log.next_offset, True

    def collected(self, data: bytes, count: int) -> tuple[PairBatch, int]:
        """See ``Appender.collected``."""
        log = self._log
        batch = log.batch
        if batch is not None:
            first = batch.count
            batch.add_run(data, count)
            log.next_offset += len(data)
            return batch, first
        batch = PairBatch(log, log.next_offset, data, count)
        self._syncs.launch(log, batch)
        log.next_offset += len(data)
        return batch, 0

    def sent(self, data: bytes, count: int) -> tuple[PairBatch, Flight, int, int, bytes]:
        """
        Note records that C sends.

        :returns: their batch and flight, the number of the first frame, ``OPAQUES``, and the common
            beginning of the lines.
        """
        log = self._log
        batch = PairBatch(log, log.next_offset, data, count)
        flight = self._syncs.begin_flight(log, batch)
        log.next_offset += len(data)
        return batch, flight, flight.number, OPAQUES, log.head

    def accepted(self, flight: Flight) -> tuple[int, int] | None:
        """
        The slave has accepted all records of a flight, at the offsets in the replies to their puts.

        :returns: the descriptor and the position at which C writes them, before ``landed``;
            ``IN_STORE``; or None: the replies take the path in Python.
        """
        log, store, batch = self._log, self._store, flight.batch
        if (
            batch is None
            or batch.shifted
            or flight.done
            or flight.early
            or flight.offset != store.next_offset
            or log.standing is not JOINED
            or log.flights[0] is not flight
        ):
            return None
        place = store.appender.begin()
        if place is None:
            return None
        if place[1] >= 0:
            return place[1], place[2]
        self._landing.land(flight, flight.count, len(flight.run), flight.offset)
        log.passed(flight)
        self._syncs.acknowledged()
        return IN_STORE

    def landed(self, flight: Flight, written: int, number: int) -> None:
        """
        The records of a flight were written to the place that ``accepted`` has returned.

        :param written: the number of written bytes.
        :param number: see ``Appender.failed``.
        """
        run, count, batch = flight.run, flight.count, flight.batch
        if written < len(run) or batch is None:
            self._landing.wrote(flight, count, len(run), written, number)
        else:  # as there
            self._syncs.freed(count, written)
            flight.done = count
            batch.all_stored()
            self._store.appender.took(run, count)
        self._log.passed(flight)
        self._syncs.acknowledged()
