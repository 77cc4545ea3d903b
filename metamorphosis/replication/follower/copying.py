"""
One run of copying a partition: bytes are requested, checked and appended, until the run ends.

The run begins at the end of our log and requests adjacent ranges. A ``get`` may begin inside a
record, so the next range is requested as soon as the previous one has arrived, before it is
checked; and a record longer than a reply arrives in pieces. An incomplete record stays in memory
until the rest arrives (``fetched``).

    phase      event                                            phase
    ASKING     a value                                          ASKING, and the value is stored
    ASKING     404, 403                                         PAUSING, or ASKING at once if the
                                                                master has held the request
    ASKING     no memory for the next range                     QUEUEING: the tail is dropped
    any        a record longer than ``FETCH_BYTES``             QUEUEING, for memory for all of it
    PAUSING    the pause is over                                ASKING
    QUEUEING   the memory is granted                            ASKING
    any        301, damage, no connection, the store refuses    ENDED

Differs: the original's slave decodes messages, leaves out those with known ids, and never gets past
a record that is longer than a reply.

Memory: each request takes its number of bytes from the ``Budget``; ``Fetched`` returns them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final

from metamorphosis.client.network.opaques import next_opaque
from metamorphosis.client.network.replies import VALUE
from metamorphosis.errors import StoreError
from metamorphosis.interfaces import IRuntime, Timer
from metamorphosis.replication.follower.budget import Budget, Wish
from metamorphosis.replication.follower.fetched import FETCH_BYTES, Fetched
from metamorphosis.replication.follower.ownlog import OwnLog
from metamorphosis.replication.follower.records import Whole, whole_records
from metamorphosis.replication.peer import READ_SECONDS, Peer, offset_of
from metamorphosis.store.batch import PENDING, STORED, Copy
from metamorphosis.wire.status import Status

HOLD_MS: Final = 5000
"""Time for which our master may hold a ``get`` at the end of the log."""

HELD_SHARE: Final = 0.5
"""A 404 after less than this share of ``HOLD_MS`` was not held: a pause follows."""

STEPS: Final = 10
"""Empty replies until the pause has its full length."""


class Phase(Enum):
    """See the module."""

    ASKING = "a request is pending, or its reply is being stored"
    PAUSING = "a pause after an empty reply"
    QUEUEING = "waits for memory"
    ENDED = "is over"


class Why(Enum):
    """The reason for the end of a run."""

    STOPPED = "it was stopped"
    LOST = "the master does not answer"
    MOVED = "the master's log is to be read elsewhere"
    DAMAGED = "no record follows on the master"
    STORE = "our store takes nothing"
    REFUSED = "the master refuses, or answers nonsense"


@dataclass(frozen=True, slots=True)
class End:
    """
    The end of a run.

    :ivar text: details.
    :ivar to: for MOVED: the offset in the master's reply.
    """

    why: Why
    text: str = ""
    to: int = 0


@dataclass(slots=True)
class Pace:
    """
    The limits for a slave's partitions, which share a master and memory.

    :ivar budget: of all partitions.
    :ivar poll_bytes: the size of a request that may be held, or get an empty reply.
    :ivar max_delay: seconds of the longest pause, ``slaveMaxDelayInMills``.
    :ivar longest_body: bytes; a record with a greater length is damaged.
    """

    budget: Budget
    max_delay: float
    longest_body: int
    poll_bytes: int = FETCH_BYTES


class Copying:
    """
    One run. Thread: reactor.

    :param group: of the slave, for the requests.
    :param copied: called with the number of stored records.
    :param ended: called once at the end of the run, never from within ``begin``.
    :ivar level: both logs end at the same offset, by the last reply.
    :ivar level_at: the last time of that, seconds of the runtime; None: never in this run.
    :ivar phase: see the module.
    """

    def __init__(
        self,
        runtime: IRuntime,
        peer: Peer,
        group: str,
        log: OwnLog,
        pace: Pace,
        copied: Callable[[int], None],
        ended: Callable[[End], None],
    ) -> None:
        self.level = False
        self.level_at: float | None = None
        self.phase = Phase.ASKING
        self._runtime = runtime
        self._peer = peer
        self._log = log
        self._pace = pace
        self._copied = copied
        self._told_end = ended
        self._line = f"get {log.topic} {group} {log.partition} ".encode()
        self._fetched = Fetched(pace.budget, log.end)
        self._size = pace.poll_bytes  # of the next request
        self._short = False  # the last value was shorter than requested
        self._asked = False  # a request is pending, and its reply counts
        self._generation = 0  # of the requests whose replies count
        self._copy: Copy | None = None  # being stored
        self._delay = 0.0
        self._wish: Wish | None = None
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Request the first bytes."""
        self._ask()

    def stop(self) -> None:
        """End without calling ``ended``; a pending write goes on."""
        self._end(None)

    # Asking

    def _ask(self) -> None:
        """Request the next bytes; drop the tail while waiting for memory."""
        self.phase = Phase.ASKING
        if self._pace.budget.try_take(self._size):
            self._send(self._size)
        else:
            self._fetched.drop()
            self._acquire(self._size, self._send)

    def _acquire(self, size: int, use: Callable[[int], None]) -> None:
        """Call ``use`` with ``size`` when its bytes are taken from the budget."""

        def granted() -> None:
            self._wish = None
            self.phase = Phase.ASKING
            use(size)

        if self._pace.budget.try_take(size):
            use(size)
        else:
            self.phase = Phase.QUEUEING
            self._wish = self._pace.budget.wait(size, granted)

    def _send(self, size: int) -> None:
        """Send a ``get``; its bytes are taken from the budget already."""
        self._asked = True
        opaque = next_opaque()
        frame = b"%b%d %d %d %d\r\n" % (self._line, self._fetched.position, size, opaque, HOLD_MS)
        waiter = partial(self._answered, self._generation, size, self._runtime.seconds())
        self._peer.request(opaque, frame, waiter, READ_SECONDS + HOLD_MS / 1000)

    def _answered(
        self, generation: int, size: int, sent: float, status: int, body: bytes, _: int
    ) -> None:
        if generation != self._generation:
            self._pace.budget.give_back(size)
            return
        self._asked = False
        if status == VALUE and 0 < len(body) <= size:
            self._take(size, body)
            return
        self._fetched.not_come(size)
        if status in (Status.NOT_FOUND, Status.FORBIDDEN):
            self._nothing(status, sent)
        elif status == Status.MOVED and (to := offset_of(body)) is not None:
            self._end(End(Why.MOVED, to=to))
        elif status == VALUE:
            self._end(End(Why.REFUSED, f"it sent {len(body)} bytes for {size} asked for"))
        else:
            text = body.decode("utf-8", "replace")
            self._end(End(Why.LOST, text) if status < 0 else End(Why.REFUSED, f"{status} {text}"))

    def _nothing(self, status: int, sent: float) -> None:
        """The reply was empty."""
        idle = not self._fetched.is_waiting and self._copy is None
        self._note(idle and self._fetched.is_empty and status == Status.NOT_FOUND)
        self._size = self._pace.poll_bytes
        if idle:
            self._fetched.drop()  # a part of a record is requested again
        held = self._runtime.seconds() - sent >= HELD_SHARE * HOLD_MS / 1000
        if held and status == Status.NOT_FOUND:
            self._delay = 0.0
            self._ask_if_idle()
            return
        longest = self._pace.max_delay
        self._delay = min(self._delay + longest / STEPS, longest)
        self.phase = Phase.PAUSING
        self._timer = self._runtime.call_later(self._delay, self._pause_over)

    def _pause_over(self) -> None:
        self._timer = None
        self._ask_if_idle()

    def _ask_if_idle(self) -> None:
        """Request more, unless received bytes are still to be stored: then their end requests."""
        self.phase = Phase.ASKING
        idle = self._copy is None and not self._fetched.is_waiting
        if idle and not self._asked and self._timer is None:
            self._ask()

    # Taking

    def _take(self, size: int, body: bytes) -> None:
        """Take the bytes of a reply, which may be shorter than requested."""
        fetched = self._fetched
        self._delay = 0.0
        self.level = False
        if not fetched.needed:
            self._short = len(body) < size
            self._size = self._pace.poll_bytes if self._short else FETCH_BYTES
        first = not fetched.is_waiting and self._copy is None
        if not fetched.add(body, size):
            self._send(fetched.next_piece())
            return
        if first and self._pace.budget.try_take(self._size):
            self._send(self._size)
        self._runtime.call_soon(self._store_soon)

    def _note(self, level: bool) -> None:
        self.level = level
        if level:
            self.level_at = self._runtime.seconds()

    def _store_soon(self) -> None:
        try:
            self._store_next()
        except Exception as error:  # a run must not end without a report
            self._end(End(Why.STORE, f"{type(error).__name__}: {error}"))

    def _store_next(self) -> None:
        """Check and append received bytes."""
        fetched = self._fetched
        if self.phase is Phase.ENDED or self._copy is not None or not fetched.is_waiting:
            return
        data = memoryview(fetched.take(self._log.waits_for_flushes))
        whole = whole_records(data, self._pace.longest_body)
        fetched.keep(bytes(data[whole.size :]))
        if not whole.size:
            self._go_on(whole)
            return
        if self._log.end != fetched.stored_to:
            text = f"our log ends at {self._log.end}, not at {fetched.stored_to}"
            self._end(End(Why.STORE, text))
            return
        try:
            copy = self._log.append(data[: whole.size], whole.records)
        except StoreError as error:
            self._end(End(Why.STORE, str(error)))
            return
        if copy.state is PENDING:
            self._copy = copy
            copy.waiters.append(partial(self._copy_done, copy, whole))
        else:
            self._copy_done(copy, whole)

    def _copy_done(self, copy: Copy, whole: Whole) -> None:
        if self.phase is Phase.ENDED:
            return
        self._copy = None
        if copy.state is not STORED:
            self._end(End(Why.STORE, str(copy.error)))
            return
        self._copied(whole.records)
        self._fetched.stored(whole.size)
        self._go_on(whole)

    def _go_on(self, whole: Whole) -> None:
        """Continue: the whole records among the last received bytes are stored."""
        if whole.fault is not None:
            self._end(End(Why.DAMAGED, whole.fault))
        elif whole.needed > FETCH_BYTES:
            self._fetch_long(whole.needed)
        elif self._fetched.is_waiting:
            self._store_next()
        else:
            self._note(self._short and self._fetched.is_empty)
            self._ask_if_idle()

    # A record longer than a reply

    def _fetch_long(self, needed: int) -> None:
        """Drop its part and fetch all of it, when memory is available."""
        self._generation += 1
        self._asked = False
        self._fetched.drop()
        self._acquire(needed, self._begin_long)

    def _begin_long(self, needed: int) -> None:
        self._fetched.begin_long(needed)
        self._send(self._fetched.next_piece())

    # The end

    def _end(self, end: End | None) -> None:
        if self.phase is Phase.ENDED:
            return
        self.phase = Phase.ENDED
        self._generation += 1
        self.level = False
        if self._timer is not None:
            self._timer.cancel()
        if self._wish is not None:
            self._wish.cancel()
        self._fetched.drop()
        if end is not None:
            self._told_end(end)
