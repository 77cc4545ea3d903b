"""
The records sent to the pair slave, and its replies.

Puts of all partitions that collect in a turn leave at its end with one write; received replies are
split together. Pending flights are sorted by their numbers, which are those of the frames: a reply
finds its flight by the number.

No more records are sent to a slave when ``max_waiting`` bytes wait for its replies: ``takes_more``
is False then, and puts are refused. Before that the connections of the producers pause, because
their replies wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from twisted.logger import Logger

from metamorphosis.replication.pairmaster import frames
from metamorphosis.replication.pairmaster.complaints import SlaveComplaints
from metamorphosis.replication.pairmaster.fields import SyncsFields
from metamorphosis.replication.pairmaster.flights import Fault, Flight, PairBatch, Sender
from metamorphosis.replication.pairmaster.underway import NEVER, STUCK_SECONDS, UnderWay

if TYPE_CHECKING:
    from metamorphosis.interfaces import IRuntime, Timer

RECORD_BYTES: Final = 512
"""Memory of a record in addition to its bytes: objects, and a prepared reply."""

SWEEP_SECONDS: Final = 0.05
"""The shortest time between two checks of time limits."""


class Line(Protocol):
    """The connection to the slave. Provider: ``SlaveConnection``."""

    def send(self, data: bytes) -> None:
        """Send at once; bytes that the socket does not take are queued."""

    def fail(self, reason: str) -> None:
        """Close the connection; a new one is made."""


class Collector(Sender, Protocol):
    """
    The place in which the puts of a partition collect. Provider: ``PairedLog``.

    :ivar flights: its pending ones, in the order in which they were sent.
    """

    head: bytes
    batch: PairBatch | None
    flights: deque[Flight]

    def close_batch(self) -> PairBatch | None:
        """Return the collected batch for sending; None if it was refused, or there is none."""


class Syncs(SyncsFields):
    """
    Sends records, and matches replies to them. Thread: reactor. A long class, because every method
    changes what waits for the slave.

    :param collect: plans a call of ``commit`` at the end of the turn.
    :param timeout: seconds, ``sendToSlaveTimeoutInMills``.
    :param max_waiting: bytes of memory that may wait for the slave.
    :param failed: called with the number of records in a row that the slave has not acknowledged,
        at each change; 0 after an acknowledgement.
    :ivar waiting: bytes of memory that wait for the slave.
    :ivar limit: with so many of them no more puts are sent.
    :ivar landing: portions that the stores here have and have not stored yet.
    :ivar is_connected: whether records can be sent.
    :ivar now: returns the seconds of the runtime.
    :ivar is_planned: a call of ``commit`` is planned.
    :ivar expect: called with the number of puts that were flushed before their replies.
    :ivar is_heard: replies came that C has taken; the connection resets it.
    :ivar unknown: the number of replies without a pending record.
    """

    _log = Logger()

    def __init__(
        self,
        runtime: IRuntime,
        collect: Callable[[Syncs], None],
        timeout: float,
        max_waiting: int,
        failed: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.waiting = self.landing = 0
        self.is_connected = self.is_planned = self.is_heard = False
        self.unknown = 0
        self.failures = 0
        self.failed = failed
        self.timeout = timeout
        self._runtime = runtime
        self._collect = collect
        self._line: Line | None = None
        # A record waits as pieces, and as a frame until the socket takes the frame.
        self.limit = max(max_waiting // 2, 1)
        self._dirty: list[Collector] = []
        self._out: list[bytes] = []  # frames that leave at the end of the turn
        self._number = 0
        self._record_bytes = RECORD_BYTES
        self.now = runtime.seconds
        self._flights = UnderWay()
        self._complaints = SlaveComplaints(runtime)
        self.expect: Callable[[int], None] = lambda count: None
        self._timer: Timer | None = None
        self._due = NEVER
        self._rest = b""  # the start of a reply

    def use(self, line: Line) -> None:
        """Set the connection, for the life of both objects."""
        self._line = line

    def begun(self) -> None:
        """The connection is established."""
        self.is_connected = True

    @property
    def takes_more(self) -> bool:
        """Whether a put may be sent."""
        return self.waiting < self.limit and self.is_connected

    def waits_only_for_slave(self) -> bool:
        """Whether puts wait for replies of the slave, and none for a store here."""
        return self.waiting > 0 and not self.landing

    @property
    def under_way(self) -> int:
        """The number of pending records."""
        return sum(each.count - each.done for each in self._flights)

    # Out

    def collecting(self, log: Collector) -> None:
        """Note that puts of this partition are to leave at the end of the turn."""
        self._plan()
        self._dirty.append(log)

    def _plan(self) -> None:
        if not self.is_planned:
            self.is_planned = True
            self._collect(self)

    def commit(self) -> None:
        """Send the collected puts with one write, at the end of the turn."""
        self.is_planned = False
        dirty, self._dirty = self._dirty, []
        if not self.is_connected:
            for log in dirty:
                self._refuse(log)
            return
        for log in dirty:
            batch = log.close_batch()
            if batch is not None:
                self._launch(log, batch)
        self._send()

    def launch(self, log: Collector, batch: PairBatch) -> None:
        """Let a batch that is complete leave at the end of the turn. It must be connected."""
        self._plan()
        self._launch(log, batch)

    def _launch(self, log: Collector, batch: PairBatch) -> None:
        """Make the frames of a batch."""
        flight = self.begin_flight(log, batch)
        made = frames.frames_of_run(
            log.head, batch.run, flight.count, flight.number, batch.unchecked
        )
        self._out.append(made)

    def begin_flight(self, log: Collector, batch: PairBatch) -> Flight:
        """Note that the records of a batch wait for replies: its frames leave with this turn."""
        number, count = self._number, batch.records
        deadline = self.now() + self.timeout
        flight = Flight(log, number, count, deadline, batch, batch.run)
        self._number = number + count
        self._flights.add(flight)
        if deadline < self._due:
            self._look_at(deadline)
        log.flights.append(flight)
        self.waiting += batch.size + count * RECORD_BYTES
        return flight

    def _refuse(self, log: Collector) -> None:
        batch, log.batch = log.batch, None
        if batch is not None:
            self.count_failures(batch.count)
            batch.refuse_all(Fault.DISCONNECTED)

    def send(
        self, sender: Sender, head: bytes, pieces: frames.Pieces, seconds: float
    ) -> Flight | None:
        """
        Send records that are not puts.

        :param seconds: time limit of the replies to all of them.
        :returns: the pending flight; None without a connection.
        """
        if not self.is_connected:
            return None
        number = self._number
        made, sizes = frames.frames_of(head, pieces, number)
        deadline = self.now() + seconds
        flight = Flight(sender, number, len(sizes), deadline, sizes=sizes)
        self._number = number + flight.count
        self._flights.add(flight)
        if deadline < self._due:
            self._look_at(deadline)
        self._out.append(made)
        self._send()
        return flight

    def _send(self) -> None:
        """Send the frames, in the order of their numbers."""
        out = self._out
        if out and self._line is not None:
            self._out = []
            self._line.send(out[0] if len(out) == 1 else b"".join(out))

    # In

    def take(self, data: bytes) -> bytes:
        """
        Take the replies at the front of received bytes; returns the rest, which begins with another
        kind of reply.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        end = self._flights.take_expected(data)
        if end:
            self._count_success()
            if end == len(data):
                return b""
            data = data[end:]
        opaques, offsets, end, waits = frames.accepted(data)
        if opaques:
            self._accepted(opaques, offsets)
            data = data[end:]
        if waits:
            self._rest = data
            return b""
        return data

    def _accepted(self, opaques: list[int], offsets: list[int]) -> None:
        """Pass rows of replies to their flights."""
        at, end = 0, len(opaques)
        while at < end:
            flight, record = self._flights.find(opaques[at])
            if flight is None:
                self.unknown += 1
                at += 1
                continue
            count = min(flight.count - record, end - at)
            if count > 1:
                count = _row(opaques, at, count)
            if flight.batch is not None:
                self._count_success()
            flight.sender.accepted(flight, record, offsets[at : at + count])
            at += count
        self._flights.trim()

    def answer(self, status: int, body: bytes, opaque: int) -> bool:
        """
        Take one reply of any kind; returns whether it belongs to a pending record.
        """
        flight, record = self._flights.find(opaque)
        if flight is None:
            self.unknown += 1
            return False
        offset = frames.offset_in(body) if status == 200 else None
        if offset is None and flight.batch is not None:
            self._complaints.refused(status, body)
        if flight.batch is not None:
            self.failures = 0 if offset is not None else self.failures + 1
            self.failed(self.failures)
        flight.sender.answered(flight, record, offset, body)
        self._flights.trim()
        return True

    def acknowledged(self) -> None:
        """C has taken all replies to a flight, which was a usual one."""
        self.is_heard = True
        if self.failures:
            self._count_success()
        self._flights.trim()

    @property
    def next_answer(self) -> int | None:
        """The number of the frame whose reply comes next, if all replies that came are whole."""
        return None if self._rest else self._flights.oldest(self._number)

    def _count_success(self) -> None:
        """A put was acknowledged."""
        if self.failures:
            self.failures = 0
            self.failed(0)

    def freed(self, count: int, size: int) -> None:
        """Return the memory of ``count`` records that have ``size`` bytes in the log."""
        self.waiting -= size + count * RECORD_BYTES

    # Faults

    def count_failures(self, count: int) -> None:
        """Count puts that were not acknowledged because of the slave."""
        if count:
            self.failures += count
            self.failed(self.failures)

    def lost(self) -> None:
        """The connection is lost: pending records will not get replies."""
        self.is_connected = False
        flights = self._flights.take_all()
        self._rest = b""
        self._out.clear()
        self._forget_look()
        self.count_failures(sum(each.sender.lost(each) for each in flights))

    def _forget_look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = NEVER

    def _look_at(self, deadline: float) -> None:
        self._forget_look()
        self._due = deadline
        delay = max(deadline - self.now(), SWEEP_SECONDS)
        self._timer = self._runtime.call_later(delay, self._sweep)

    def _sweep(self) -> None:
        """Report flights whose time limit has passed; their records stay pending."""
        self._timer = None
        self._due = NEVER
        now = self.now()
        late, following, stuck = self._flights.overdue(now)
        failures = sum(flight.sender.overdue(flight) for flight in late)
        if following < self._due:
            self._look_at(following)
        self._complaints.late(failures, self.timeout)
        self.count_failures(failures)
        if stuck and self._line is not None:
            # It blocks later records, and the joining of its partition.
            self._line.fail(f"a sync has no answer {STUCK_SECONDS:g} s after its time limit")


def _row(opaques: list[int], at: int, most: int) -> int:
    """The number of replies from ``at`` that belong to successive records."""
    first = opaques[at]
    if opaques[at + most - 1] == first + most - 1:
        if opaques[at : at + most] == list(range(first, first + most)):
            return most
    count = 1
    while count < most and opaques[at + count] == first + count:
        count += 1
    return count
