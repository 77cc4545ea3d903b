"""
Puts of one partition from the turn in C, in the place of a store's ``Appender``.

They always collect: the replies wait in C until both brokers have the records. The records of a
round are one flight. C makes it (``flights.c``), sends its frames with those of all partitions at
the end of the turn, and takes the replies to it if each is the expected one; then it writes the
records and lets the replies to the puts leave, if the flight and the store are in their usual
state. It tells nothing of other replies: those, and the same ones where a flight is not in its
usual state, take the path in Python (``Syncs.take``), which knows every flight. Until C has the
connection, see ``BrokerSockets.adopt``, and where other frames leave at the end of this turn, the
frames take the path in Python, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from metamorphosis.replication.pairmaster.fields import PairAppenderFields
from metamorphosis.replication.pairmaster.flights import Flight, PairBatch, TakesReplies
from metamorphosis.replication.pairmaster.frames import OPAQUES
from metamorphosis.replication.pairmaster.standing import JOINED
from metamorphosis.replication.pairmaster.syncs import Collector
from metamorphosis.store.batch import STORED

if TYPE_CHECKING:
    from metamorphosis.replication.pairmaster.landing import Landing
    from metamorphosis.replication.pairmaster.standing import Standing
    from metamorphosis.replication.pairmaster.syncs import Syncs
    from metamorphosis.store.messagestore import MessageStore


class TakesPuts(Collector, TakesReplies, Protocol):
    """The partition. Provider: ``PairedLog``."""

    standing: Standing
    store: MessageStore

    def passed(self, flight: Flight) -> None:
        """Records of the oldest flight were processed."""


class PairAppender(PairAppenderFields):
    """See the module. Thread: reactor."""

    __slots__ = ("_landing",)

    def __init__(self, log: TakesPuts, syncs: Syncs, landing: Landing) -> None:
        self._log = log
        self._store = log.store
        self._syncs = syncs
        self._landing = landing
        self._joined = JOINED
        self._stored = STORED
        self._make_batch = PairBatch
        self._flight_type = Flight
        self._opaques = OPAQUES

    def begin(self) -> None:
        """See ``Appender.begin``: the puts will be refused. C asks only then: as long as the
        partition is joined, the slave is connected, and less than the limit waits for it, C takes
        puts that have a checksum."""

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

    def accepted(self, flight: Flight) -> bool:
        """
        The slave has accepted all records of a flight, at the offsets in the replies to their puts,
        and C cannot write them: the store collects, or the flight is not in its usual state.

        :returns: False: the replies take the path in Python.
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
            return False
        self._landing.land(flight, flight.count, len(flight.run), flight.offset)
        log.passed(flight)
        self._syncs.acknowledged()
        return True

    def landed(self, flight: Flight, written: int, number: int) -> None:
        """
        The records of a flight, which was in its usual state, were not written completely.

        :param written: the number of written bytes.
        :param number: see ``Appender.failed``.
        """
        self._landing.wrote(flight, flight.count, len(flight.run), written, number)
        self._log.passed(flight)
        self._syncs.acknowledged()
