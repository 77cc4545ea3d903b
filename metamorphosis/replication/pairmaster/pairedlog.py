"""
One partition of the pair, which the hot path and ``put`` use in place of its store.

A record collects here, is sent to the slave at the end of the turn, and is written to the store
when the slave has stored it at the offset that it will have in the store. So the slave's log is
never behind the store, and a client cannot read a message that only one of the two brokers has.

    standing    event                                                     standing
    APART       the joining begins                                        JOINING
    JOINING     both logs are equal                                       JOINED
    JOINING     other bytes, ranges that do not touch, a damaged record   DIVERGED
    JOINING     a request without a reply, the slave refuses the topic    APART
    JOINED      the slave replies with an offset that is not ours         APART
    JOINED      a record of the slave cannot be written here              APART
    JOINED      the slave's end is beyond the sent records                APART
    DIVERGED    compared again after a reload, a connect or a minute      JOINING
    any         the connection is lost                                    APART

Puts are accepted only in JOINED. Records pending at its end are refused with the slave's text and
not written here, whatever the slave replies; the joining fetches them if the slave has them. A
joining begins only when no record is pending: ``is_quiet``.

Differs: the original appends after any reply of the slave, and does not compare offsets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from metamorphosis.errors import StoreError
from metamorphosis.message import HEADER, HEADER_BYTES
from metamorphosis.replication.pairmaster.appending import PairAppender
from metamorphosis.replication.pairmaster.fields import PairedLogFields
from metamorphosis.replication.pairmaster.flights import Fault, Flight, PairBatch
from metamorphosis.replication.pairmaster.frames import OPAQUES, accepted_of_run, head_of
from metamorphosis.replication.pairmaster.landing import Landing
from metamorphosis.replication.pairmaster.standing import JOINED, Standing

if TYPE_CHECKING:
    from metamorphosis.replication.pairmaster.syncs import Syncs
    from metamorphosis.store.messagestore import MessageStore


class NotJoined(StoreError):
    """A put cannot be accepted now."""


class PairedLog(PairedLogFields):
    """
    Thread: reactor.

    :ivar store: the log here.
    :ivar batch: the puts that collect in this turn.
    :ivar appender: for the turn in C.
    :ivar next_offset: of the next put, if the slave stores all earlier ones; the hot path advances
        it.
    :ivar head: of its frames, see ``frames.head_of``.
    :ivar reason: the reason why it is not joined.
    :ivar apart_since: seconds of the runtime; None while it is joined.
    :ivar flights: its pending ones, in the order in which they were sent.
    :ivar is_busy: a joining runs, possibly for a lost connection.
    :param parted: called when it is no longer joined.
    """

    def __init__(
        self, store: MessageStore, syncs: Syncs, parted: Callable[[PairedLog], None]
    ) -> None:
        self.store = store
        self.topic = store.topic
        self.partition = store.partition
        self.head = head_of(store.topic, store.partition)
        self.batch: PairBatch | None = None
        self.next_offset = store.next_offset
        self.standing = Standing.APART
        self.reason = "the slave was not asked yet"
        self.apart_since: float | None = syncs.now()
        self.is_busy = False
        self._syncs = syncs
        self._parted = parted
        self.flights: deque[Flight] = deque()
        self._landing = Landing(store, syncs, self.part, self._landed)
        self.appender = PairAppender(self, syncs, self._landing)

    def __repr__(self) -> str:
        return f"<PairedLog {self.topic}-{self.partition} {self.standing.name}>"

    @property
    def name(self) -> str:
        """``<topic>-<partition>``."""
        return f"{self.topic}-{self.partition}"

    @property
    def is_quiet(self) -> bool:
        """Whether no record is pending, neither at the slave nor in the store."""
        idle = not self.flights and not self._landing.pending and not self.is_busy
        return idle and self.store.batch is None

    @property
    def takes_puts(self) -> bool:
        """Whether puts can be accepted now."""
        return self.standing is JOINED and self._syncs.takes_more

    # Collecting

    def open_batch(self) -> PairBatch:
        """
        The present batch, or a new one.

        :raises NotJoined: puts cannot be accepted now.
        """
        if self.batch is not None:
            return self.batch
        syncs = self._syncs
        if not self.takes_puts:
            raise NotJoined(f"{self.name}: {self.standing.value}")
        batch = self.batch = PairBatch(self, self.next_offset)
        syncs.collecting(self)
        return batch

    def add(self, message_id: int, flag: int, checksum: int, body: bytes) -> int:
        """
        Add a record; returns its offset. The hot path does the same inline.

        :raises NotJoined: as ``open_batch``.
        """
        batch = self.batch or self.open_batch()
        batch.pieces += (HEADER.pack(len(body), checksum, message_id, flag), body)
        offset = self.next_offset
        self.next_offset = offset + HEADER_BYTES + len(body)
        return offset

    def commit(self) -> None:
        """Copy views of the receive buffer before it is reused; the end of the turn sends."""
        self.own_pieces()

    def own_pieces(self) -> None:
        """Copy the pieces that are views of a receive buffer."""
        if self.batch is not None:
            self.batch.own()

    def refused(self) -> None:
        """See ``Collecting``; a ``PairBatch`` has its refused records in ``deviating``."""

    def close_batch(self) -> PairBatch | None:
        """Return the collected batch for sending; None if it was refused, or has no record."""
        batch = self.batch
        if batch is None:
            return None
        self.batch = None
        if not batch.count:
            return None  # its first put has failed before it was added
        if self.standing is JOINED:
            batch.close()
            return batch
        batch.refuse_all(Fault.SLAVE)
        return None

    # The slave's replies: see ``flights.Sender``

    def accepted(self, flight: Flight, record: int, offsets: list[int]) -> None:
        """See ``Sender``."""
        flights = self.flights
        if flights and flights[0] is flight and record == flight.done:
            if self.standing is JOINED and flight.fits(self.store.next_offset, offsets):
                count = len(offsets)
                size = sum(flight.sizes[record : record + count])
                self._landing.land_next(flight, count, size, offsets[0])
                self._proceed()
                return
        for number, offset in enumerate(offsets, record):
            flight.early[number] = offset
        self._proceed()

    def accepted_next(self, flight: Flight, data: bytes, position: int) -> int:
        """See ``TakesReplies``: the usual case, in which the replies need no objects of their
        own."""
        flights = self.flights
        if self.standing is not JOINED or flight.early or flights[0] is not flight:
            return position
        at, offset = flight.at, self.store.next_offset
        opaque = (flight.number + flight.done) % OPAQUES
        count, past, end = accepted_of_run(data, position, flight.run, at, opaque, OPAQUES, offset)
        if count:
            self._landing.land_next(flight, count, past - at, offset)
            self.passed(flight)
        return end

    def passed(self, flight: Flight) -> None:
        """Records of the oldest flight were processed."""
        if flight.done == flight.count and self.standing is JOINED:
            self.flights.popleft()
        else:
            self._proceed()

    def answered(self, flight: Flight, record: int, offset: int | None, text: bytes) -> None:
        """See ``Sender``; replies are processed in the order of the frames."""
        flight.early[record] = offset
        self._proceed()

    def overdue(self, flight: Flight) -> int:
        """See ``Sender``: the puts are refused, and their records stay pending."""
        return flight.give_up(Fault.SLAVE)

    def lost(self, flight: Flight) -> int:
        """See ``Sender``: the joining finds the records that the slave has stored."""
        self._syncs.freed(flight.count - flight.done, sum(flight.sizes[flight.done :]))
        count = flight.give_up(Fault.SLAVE)
        self.flights.remove(flight)
        self._drop_ended()
        self.part("the connection was lost")
        return count

    def _drop_ended(self) -> None:
        """Remove the flights at the front that have ended. Without an error in the middle of a
        landing that is one at most; the joining would wait for ever for one that stays."""
        while self.flights and self.flights[0].is_over:
            self.flights.popleft()

    def _proceed(self) -> None:
        flights = self.flights
        while flights:
            flight = flights[0]
            early = flight.early
            while flight.done in early:
                offset = early.pop(flight.done)
                if offset is None:
                    self._refused(flight)
                elif self.standing is JOINED and offset == self.store.next_offset:
                    self._landing.land(flight, 1, flight.sizes[flight.done], offset)
                else:
                    self._foreign(flight, offset)
            if not flight.is_over:
                return
            self._drop_ended()
        if self.standing is not JOINED:
            self._parted(self)

    def _refused(self, flight: Flight) -> None:
        """The slave has refused the next record; the offsets of later ones move down."""
        first = flight.done
        size = flight.sizes[first]
        self._syncs.freed(1, size)
        flight.pass_over(1, size)
        if flight.batch is not None:
            flight.batch.refuse(first, 1, Fault.SLAVE)
        self.next_offset -= size
        if self.batch is not None:
            self.batch.offset -= size
            self.batch.shifted = True

    def _foreign(self, flight: Flight, offset: int) -> None:
        """Refuse the put of the next record: the slave has it at another offset than here."""
        first = flight.done
        size = flight.sizes[first]
        self._syncs.freed(1, size)
        flight.pass_over(1, size)
        if flight.batch is not None:
            flight.batch.refuse(first, 1, Fault.SLAVE)
        self.part(f"the slave has stored at {offset} what belongs at {self.store.next_offset}")

    # Standing

    def part(self, reason: str) -> None:
        """Leave JOINED: the logs may differ."""
        if self.standing is JOINED:
            self.forget(reason)
            self._parted(self)

    def forget(self, reason: str) -> None:
        """Discard all knowledge of the slave's log."""
        self.reason = reason
        self.standing = Standing.APART
        self._drop_ended()
        if self.apart_since is None:
            self.apart_since = self._syncs.now()

    def join(self) -> None:
        """Enter JOINED: both logs are equal."""
        self.standing = JOINED
        self.reason = ""
        self.apart_since = None
        self.next_offset = self.store.next_offset

    def _landed(self) -> None:
        """Records were stored, or were not."""
        if self.standing is not JOINED and self.is_quiet:
            self._parted(self)
