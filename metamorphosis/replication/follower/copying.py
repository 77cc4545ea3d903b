"""
One run of copying a partition: bytes are asked for, checked and appended, until something ends it.

The run begins at the end of our log and asks for bytes that join each other. A ``get`` may begin
inside a record, so the next range is asked for as soon as the one before has come, before it is
looked at; and a record longer than an answer arrives in pieces. What is not a whole record stays in
memory until the rest comes (``fetched``).

    phase      event                                            phase
    ASKING     a value                                          ASKING, and the value is stored
    ASKING     404, 403                                         PAUSING, or ASKING at once if the
                                                                master has held the request
    ASKING     no memory for the next range                     QUEUEING: its tail is dropped
    any        a record longer than ``FETCH_BYTES``             QUEUEING, for memory for all of it
    PAUSING    the pause is over                                ASKING
    QUEUEING   the memory is granted                            ASKING
    any        301, damage, no connection, the store refuses    ENDED

Differs: the original's slave takes messages apart, leaves out those whose ids it has seen, and
stands for ever at a record that is longer than an answer.

Memory: each request takes the bytes that it asks for from the ``Budget``; ``Fetched`` gives them
back.
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
"""How long a master of ours may hold a ``get`` while there is nothing to read."""

HELD_SHARE: Final = 0.5
"""A 404 that comes after less than this part of ``HOLD_MS`` was not held: a pause follows."""

STEPS: Final = 10
"""Empty answers until the pause has its full length."""


class Phase(Enum):
    """See the module."""

    ASKING = "a request is under way, or what it brought is being stored"
    PAUSING = "a pause follows an empty answer"
    QUEUEING = "waits for memory"
    ENDED = "is over"


class Why(Enum):
    """What ended a run."""

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

    :ivar text: in words.
    :ivar to: of MOVED: the offset that the master named.
    """

    why: Why
    text: str = ""
    to: int = 0


@dataclass(slots=True)
class Pace:
    """
    How the partitions of a slave share master and memory.

    :ivar budget: of all of them.
    :ivar poll_bytes: what a request asks for that may be held, or find nothing.
    :ivar max_delay: seconds of the longest pause, ``slaveMaxDelayInMills``.
    :ivar longest_body: bytes; a record that says more is damaged.
    """

    budget: Budget
    max_delay: float
    longest_body: int
    poll_bytes: int = FETCH_BYTES


class Copying:
    """
    Thread: reactor.

    :param group: of the slave, for the requests.
    :param copied: told how many records were stored.
    :param ended: told once when the run is over, never from within ``begin``.
    :ivar level: the master has nothing more, as far as the last answer says.
    :ivar level_at: when that was so last, seconds of the runtime; None: never in this run.
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
        self._short = False  # the last value was less than what was asked for
        self._asked = False  # a request is under way whose answer counts
        self._generation = 0  # of the requests whose answers count
        self._copy: Copy | None = None  # being stored
        self._delay = 0.0
        self._wish: Wish | None = None
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Ask for the first bytes."""
        self._ask()

    def stop(self) -> None:
        """End without a word; what is being stored will be, or not."""
        self._end(None)

    # Asking

    def _ask(self) -> None:
        """Ask for what follows; without memory for it wait with nothing in hand."""
        self.phase = Phase.ASKING
        if self._pace.budget.try_take(self._size):
            self._send(self._size)
        else:
            self._fetched.drop()
            self._acquire(self._size, self._send)

    def _acquire(self, size: int, use: Callable[[int], None]) -> None:
        """Call ``use`` with ``size`` when so many bytes were taken from the budget."""

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
        """Send a ``get`` for bytes that were taken from the budget."""
        self._asked = True
        opaque = next_opaque()
        frame = b"%b%d %d %d %d\r\n" % (self._line, self._fetched.position, size, opaque, HOLD_MS)
        waiter = partial(self._answered, self._generation, size, self._runtime.seconds())
        self._peer.request(opaque, frame, waiter, READ_SECONDS + HOLD_MS / 1000)

    def _answered(self, generation: int, size: int, sent: float, status: int, body: bytes) -> None:
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
        """There is nothing to read now."""
        idle = not self._fetched.is_waiting and self._copy is None
        self._note(idle and self._fetched.is_empty and status == Status.NOT_FOUND)
        self._size = self._pace.poll_bytes
        if idle:
            self._fetched.drop()  # a part of a record is asked for again
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
        """What was received is stored first, and its end asks."""
        self.phase = Phase.ASKING
        idle = self._copy is None and not self._fetched.is_waiting
        if idle and not self._asked and self._timer is None:
            self._ask()

    # Taking

    def _take(self, size: int, body: bytes) -> None:
        """What was asked for has come, or a part of it."""
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
        except Exception as error:  # a run must not end in silence
            self._end(End(Why.STORE, f"{type(error).__name__}: {error}"))

    def _store_next(self) -> None:
        """Check and append what has come."""
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
        """What was received last is stored as far as it is whole."""
        if whole.fault is not None:
            self._end(End(Why.DAMAGED, whole.fault))
        elif whole.needed > FETCH_BYTES:
            self._fetch_long(whole.needed)
        elif self._fetched.is_waiting:
            self._store_next()
        else:
            self._note(self._short and self._fetched.is_empty)
            self._ask_if_idle()

    # A record longer than an answer

    def _fetch_long(self, needed: int) -> None:
        """Drop what is here of it and fetch all of it, when there is memory for that."""
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
