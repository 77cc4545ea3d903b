"""
The lanes of a producer that keeps the order: those of a partition are stored in the order in which
they were sent, whatever fails.

A broker that executes the requests of a connection in their order, as ours does, has up to
``WINDOW`` messages of a partition under way. Any other has one: the next one waits for its fate.

**Attempts.** When a message fails and may be tried again, nothing more of its lane is sent until
the fates of those under way are known (``DRAINING``). Then all of them that failed go again, in
their order, after one pause (``PAUSED``). If a message behind a refused one was stored meanwhile,
or may have been, another attempt would put the refused one behind it: it is given up instead, with
its error. That needs a broker that refuses a message and takes the next one at once. Where a
connection breaks, or no answer comes, everything from the first message without an answer goes
again: messages may be repeated, as a stretch, and their first copies are in order.

**No answer in time.** Answers come in the order of the requests, so that the first message without
one stands for those behind it: they count as timed out with it.

A message whose partition cannot be chosen yet waits in a queue of its topic, and the later messages
of the topic wait there too, even those that know their partition: until that of the first one is
known, any of them might overtake it.

**Direct mode.** The broker chooses the partition of a message that names none, and any partition
may be chosen. All messages of a topic have one lane there.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final, Protocol

from metamorphosis.client.model import ANY_PARTITION, Partition
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.replies import NOT_SENT, TIMED_OUT
from metamorphosis.client.network.sweeps import NEVER
from metamorphosis.client.producer.puts import Put
from metamorphosis.errors import RequestTimeout
from metamorphosis.interfaces import IRuntime

WINDOW: Final = 1000
"""Messages of a partition under way at a time."""


class Sender(Protocol):
    """What sends the messages of lanes."""

    def select(self, put: Put) -> BrokerConnection:
        """Choose partition and broker, or raise."""

    def attempt(self, put: Put) -> BrokerConnection | None:
        """Send a message; None: it has no broker, and ``failed`` will be told."""

    def failed(self, put: Put, error: Exception) -> None:
        """An attempt failed."""

    def try_later(self, put: Put, error: Exception) -> None:
        """``Lanes.attempt`` it after a pause."""

    def may_retry(self, put: Put, error: Exception) -> bool:
        """Whether it may have another attempt."""

    def give_up(self, put: Put, error: Exception) -> None:
        """It has failed for good; ``Lanes.given_up`` is told."""

    def expire(self, waiting: deque[Put]) -> None:
        """Remove those from the front whose time to wait is over."""


class LaneState(Enum):
    """What a lane does."""

    FLOWING = "flowing"
    DRAINING = "draining"  # one has failed: the fates of the others are waited for
    PAUSED = "paused"  # all that are under way have failed, and wait for their next attempt


class Lane:
    """
    The messages of one partition.

    :ivar under_way: those that were sent, in that order, each with the error of its attempt; None:
        there is no answer yet.
    :ivar unanswered: how many of these have none.
    :ivar waiting: those behind them.
    :ivar moved: when a message was stored, seconds.
    :ivar broker: that of the last attempt; None if it found none.
    """

    __slots__ = ("broker", "moved", "state", "unanswered", "under_way", "waiting")

    def __init__(self) -> None:
        self.state = LaneState.FLOWING
        self.under_way: dict[Put, Exception | None] = {}
        self.unanswered = 0
        self.waiting: deque[Put] = deque()
        self.broker: BrokerConnection | None = None
        self.moved = -NEVER

    def is_first(self, put: Put) -> bool:
        """Whether it is the first of those under way."""
        return next(iter(self.under_way)) is put

    def flow_again(self) -> None:
        """Those that failed wait for their next attempt, in front of all others."""
        self.waiting.extendleft(reversed(self.under_way))
        self.under_way.clear()
        self.state = LaneState.FLOWING


class Lanes:
    """
    The lanes of one producer. Thread: the loop's.

    :param direct: all partitions of a topic are one lane.
    """

    def __init__(self, runtime: IRuntime, sender: Sender, direct: bool) -> None:
        self._runtime = runtime
        self._sender = sender
        self._direct = direct
        self._lanes: dict[tuple[str, Partition], Lane] = {}
        # By topic; of the first message a partition is looked for.
        self._unplaced: dict[str, deque[Put]] = {}

    def hold_up(self, put: Put) -> bool:
        """Whether a partition for an earlier message of the topic is still being looked for."""
        return put.message[0] in self._unplaced

    # -- ways in

    def enter(self, put: Put) -> None:
        """Send the message, or let it wait for those of its lane."""
        if put.partition is None or self.hold_up(put):
            self._enter_unplaced(put)
        else:
            self._enter_lane(put)

    def _enter_lane(self, put: Put) -> None:
        key = self._key(put)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane()
        lane.waiting.append(put)
        self._flow(lane)
        if lane.waiting:
            put.since = put.since or self._runtime.seconds()

    def attempt(self, put: Put) -> None:
        """The pause of a message is over: send it, and those that failed with it."""
        if put.partition is None:
            self._place(put.message[0])
            return
        lane = self._lane_of(put)
        lane.flow_again()
        self._flow(lane)

    # -- fates

    def stored(self, put: Put) -> None:
        """The broker has it."""
        lane = self._lane_of(put)
        if lane.state is not LaneState.FLOWING:
            for each, error in self._overtaken_by(lane, put):
                self._sender.give_up(each, error)
        del lane.under_way[put]
        lane.unanswered -= 1
        assert put.broker is not None
        lane.moved = put.broker.received_at
        self._go_on(lane, put)

    def is_early(self, put: Put, error: Exception) -> bool:
        """
        Whether a message got no answer in time only because it was behind others in the broker: its
        time begins when the one before it is answered, and then it goes on waiting.
        """
        if not isinstance(error, RequestTimeout) or put.broker is None:
            return False
        left = self._lane_of(put).moved + put.timeout - self._runtime.seconds()
        if left <= 0:
            return False
        put.broker.wait_longer(put.opaque, put.answered, left)
        return True

    def failed(self, put: Put, error: Exception) -> None:
        """An attempt failed, and there is time for another one."""
        if put.partition is None:
            self._sender.try_later(put, error)
            return
        lane = self._lane_of(put)
        lane.state = LaneState.DRAINING
        lane.under_way[put] = error
        lane.unanswered -= 1
        if isinstance(error, RequestTimeout) and lane.is_first(put):
            self._time_out(lane)
        self._go_on(lane, put)

    def given_up(self, put: Put, late: bool) -> None:
        """
        It has failed for good.

        :param late: the broker did not answer.
        """
        lane = None if put.partition is None else self._lanes.get(self._key(put))
        if lane is None or put not in lane.under_way:
            self._leave_unplaced(put)  # it failed before it entered a lane
            return
        if lane.under_way.pop(put) is None:
            lane.unanswered -= 1
        if late:
            self._sender.expire(lane.waiting)
        self._go_on(lane, put)

    def end(self) -> dict[Put, Exception]:
        """Make none of the planned attempts: their messages, to be given up, each with its last
        error."""
        failed: dict[Put, Exception] = {}
        for lane in self._lanes.values():
            if lane.state is LaneState.PAUSED:
                failed |= {put: error for put, error in lane.under_way.items() if error is not None}
                lane.state = LaneState.FLOWING
        return failed

    # -- inside

    def _key(self, put: Put) -> tuple[str, Partition]:
        assert put.partition is not None
        return put.message[0], ANY_PARTITION if self._direct else put.partition

    def _lane_of(self, put: Put) -> Lane:
        return self._lanes[self._key(put)]

    def _flow(self, lane: Lane) -> None:
        """Send what may be sent."""
        waiting = lane.waiting
        while waiting and lane.state is LaneState.FLOWING:
            if lane.under_way and not self._may_follow(lane, waiting[0]):
                return
            put = waiting.popleft()
            lane.under_way[put] = None
            lane.unanswered += 1
            lane.broker = self._sender.attempt(put)

    def _may_follow(self, lane: Lane, put: Put) -> bool:
        """Whether a message may be sent while others of its lane are under way."""
        broker = lane.broker
        if broker is None or not broker.keeps_order() or len(lane.under_way) >= WINDOW:
            return False
        try:
            return self._sender.select(put) is broker
        except Exception:
            return False  # as soon as it is the first it gets its error

    def _go_on(self, lane: Lane, put: Put) -> None:
        if lane.state is LaneState.DRAINING and not lane.unanswered:
            self._drained(lane)
        self._flow(lane)
        if not lane.under_way and not lane.waiting:
            key = self._key(put)
            if self._lanes.get(key) is lane:  # and not a later one
                del self._lanes[key]

    def _drained(self, lane: Lane) -> None:
        """All fates are known: what failed goes again, or is given up."""
        failed = [(put, error) for put, error in lane.under_way.items() if error is not None]
        passed = _passed(failed)
        again = {
            put: error
            for put, error in failed
            if put not in passed and self._sender.may_retry(put, error)
        }
        lane.under_way = {**again}
        lane.state = LaneState.PAUSED if again else LaneState.FLOWING
        for put, error in failed:
            if put not in again:
                self._sender.give_up(put, error)
        if again:
            self._stamp(lane)
            self._sender.try_later(*next(iter(again.items())))

    def _stamp(self, lane: Lane) -> None:
        """Those behind the first that failed: they have had an attempt, and wait from now on."""
        now = self._runtime.seconds()
        for put in list(lane.under_way)[1:]:
            put.attempts += 1
            put.since = now

    def _overtaken_by(self, lane: Lane, put: Put) -> list[tuple[Put, Exception]]:
        """Those in front of a message that was stored, which are not tried again."""
        found = []
        for each, error in lane.under_way.items():
            if each is put:
                break
            if error is not None:
                _say_passed(error, "were")
                found.append((each, error))
        return found

    def _time_out(self, lane: Lane) -> None:
        """The first message got no answer in time, so that those behind it get none either."""
        for put, error in list(lane.under_way.items()):
            if error is None and put in lane.under_way:
                assert put.broker is not None
                status = TIMED_OUT if put.broker.drop(put.opaque) else NOT_SENT
                put.answered(status, b"", put.opaque)

    # -- without a partition

    def _enter_unplaced(self, put: Put) -> None:
        queue = self._unplaced.get(put.message[0])
        if queue is None:
            self._unplaced[put.message[0]] = deque((put,))
            self._place(put.message[0])
        else:
            put.since = put.since or self._runtime.seconds()
            queue.append(put)

    def _place(self, topic: str) -> None:
        """Choose partitions, as long as that is possible."""
        queue = self._unplaced.get(topic)
        while queue:
            put = queue[0]
            try:
                self._sender.select(put)
            except Exception as error:  # also whatever a selector raises
                if put.partition is None:
                    self._runtime.call_soon(self._sender.failed, put, error)
                    return
            queue.popleft()
            if not queue:
                del self._unplaced[topic]
            self._enter_lane(put)

    def _leave_unplaced(self, put: Put) -> None:
        """The first of its queue has failed for good: the next one gets its chance."""
        queue = self._unplaced.get(put.message[0])
        if queue is None or queue[0] is not put:
            return
        queue.popleft()
        if queue:
            self._place(put.message[0])
        else:
            del self._unplaced[put.message[0]]


def _passed(failed: list[tuple[Put, Exception]]) -> set[Put]:
    """Those that were certainly not stored, with a message behind them that may have been."""
    found = set()
    may_be_stored = False
    for put, error in reversed(failed):
        if not getattr(error, "outcome_known", True):
            may_be_stored = True
        elif may_be_stored:
            _say_passed(error, "may have been")
            found.add(put)
    return found


def _say_passed(error: Exception, were: str) -> None:
    """Add to an error that its message is not tried again, for the sake of the order."""
    error.args = (f"{error}; not tried again: later messages of its partition {were} stored",)
