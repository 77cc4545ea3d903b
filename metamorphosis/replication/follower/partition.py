"""
The states of one partition of an asynchronous slave: it is compared with the master's log, copied,
and compared again after any fault.

    standing    event                                             standing
    any         the connection is lost                            WAITING
    WAITING     the master is connected                           COMPARING
    COMPARING   our log is a prefix, or there is none             COPYING
    COMPARING   404 for a log that we have                        UNSEEN
    COMPARING   the master's begins after ours ends               COPYING, after our directory was
                                                                  moved aside
    COMPARING   ours is longer, or has other bytes                DIVERGED; with ``on-divergence=
                                                                  copy-again`` as above
    COPYING     301                                               COMPARING
    COPYING     bytes that are not a record                       DAMAGED
    COPYING     our disk is full, the master refuses              RETRYING
    UNSEEN, DAMAGED, RETRYING: after a while                      COMPARING
    DIVERGED    the connection comes back                         COMPARING
    any         ``stop``                                          STOPPED

Differs: the original continues at any offset after a gap, a damaged record or a loss on the master.

404 does not prove an empty partition. Without a log of our own a ``get`` at 0 is sent until data or
``301`` show the beginning of the log; with one, the logs are compared before the first read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from metamorphosis.client.network.flow import Slots
from metamorphosis.client.network.links import Log
from metamorphosis.errors import LogChanged, OffsetTooSmall, PeerError, StoreError
from metamorphosis.interfaces import IRuntime, Timer
from metamorphosis.replication import alarms
from metamorphosis.replication.follower.complaints import Complaints
from metamorphosis.replication.follower.copying import Copying, End, Pace, Why
from metamorphosis.replication.follower.ownlog import OwnLog
from metamorphosis.replication.logs import (
    Comparison,
    LogEnds,
    StoreLog,
    Verdict,
    compare_tail,
    read_fully,
)
from metamorphosis.replication.peer import Peer, PeerLog

RETRY_SECONDS: Final = 2.0
"""Until the next attempt after a failure."""

DAMAGE_SECONDS: Final = 30.0
"""Between two reads of a record that is damaged on the master."""

AHEAD_SECONDS: Final = 1.0
AHEAD_LOOKS: Final = 3
"""Comparisons of a log that is longer than the master's before it counts as diverged: unflushed
messages of a master can be read from before its shown end, and not at it."""

STEP_BYTES: Final = 1 << 20


class Standing(Enum):
    """See the module."""

    WAITING = "waits for the master"
    COMPARING = "is being compared with the master's log"
    UNSEEN = "the master shows no log of it"
    COPYING = "is copied"
    RETRYING = "is tried again"
    DAMAGED = "stands at a damaged record of the master"
    DIVERGED = "has diverged"
    STOPPED = "is not copied any more"


@dataclass(frozen=True, slots=True)
class Following:
    """
    The objects that the partitions of a slave share.

    :ivar group: for the requests.
    :ivar lanes: limits the comparisons at a time.
    :ivar copy_again: whether a diverged partition is copied again.
    :ivar copied: called with the number of stored records.
    :ivar shown: called with the partition and whether it may be read.
    """

    runtime: IRuntime
    peer: Peer
    group: str
    pace: Pace
    lanes: Slots
    log: Log
    copy_again: bool
    copied: Callable[[int], None]
    shown: Callable[[str, int, bool], None]


class PartitionCopy:
    """
    The copy of one partition. Thread: reactor.

    :ivar standing: see the module.
    :ivar reason: the reason for the standing; empty if its name suffices.
    :ivar master: the last known range of the master's log; None: never known.
    """

    def __init__(self, following: Following, own: OwnLog) -> None:
        self.own = own
        self.standing = Standing.WAITING
        self.reason = ""
        self.master: LogEnds | None = None
        self._following = following
        self._complaints = Complaints(following.log, own)
        self._theirs = PeerLog(following.peer, own.topic, own.partition, following.group)
        self._run = 0  # results of an earlier one do not count
        self._copying: Copying | None = None
        self._timer: Timer | None = None
        self._looks = 0  # comparisons in a row in which our log was longer
        self._since = following.runtime.seconds()  # when it was last level

    # Events

    def connected(self) -> None:
        """The master is connected."""
        if self.standing is not Standing.STOPPED:
            self._compare()

    def lost(self) -> None:
        """The master is lost. A diverged partition stays hidden."""
        self._end_run()
        if self.standing not in (Standing.STOPPED, Standing.DIVERGED):
            self._stand(Standing.WAITING)

    def stop(self) -> None:
        """End the copying."""
        self._end_run()
        self._stand(Standing.STOPPED)

    def _end_run(self) -> None:
        self._run += 1
        self._looks = 0
        self._note_level()
        if self._copying is not None:
            self._copying.stop()
            self._copying = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # State

    @property
    def is_level(self) -> bool:
        """Whether both logs ended at the same offset by the master's last reply."""
        return self._copying is not None and self._copying.level

    @property
    def behind(self) -> int | None:
        """Bytes that are missing here, by the last known range; None: unknown."""
        if self.is_level:
            return 0
        return None if self.master is None else max(self.master.end - self.own.end, 0)

    @property
    def seconds_behind(self) -> float:
        """The time since it was last level; 0 if it is."""
        self._note_level()
        return 0.0 if self.is_level else self._following.runtime.seconds() - self._since

    def _note_level(self) -> None:
        copying = self._copying
        if copying is not None and copying.level:
            self._since = self._following.runtime.seconds()
        elif copying is not None and copying.level_at is not None:
            self._since = max(self._since, copying.level_at)

    async def look(self) -> None:
        """
        Ask for the master's range.

        :raises PeerError: no reply.
        """
        self.master = await self._theirs.ends() or self.master

    # Comparing

    def _compare(self) -> None:
        looks = self._looks
        self._end_run()
        self._looks = looks
        if self.standing is not Standing.DIVERGED:
            self._stand(Standing.COMPARING)
        self._following.runtime.start(self._comparison(self._run))

    async def _comparison(self, run: int) -> None:
        following = self._following
        await following.lanes.acquire()
        try:
            if run == self._run:
                await self._decide(run)
        except (PeerError, StoreError, OSError) as error:
            if run == self._run:
                wait = isinstance(error, OffsetTooSmall | LogChanged)  # retention deleted a segment
                self._again(Standing.COMPARING if wait else Standing.RETRYING, str(error))
        except Exception:
            following.log.failure("Comparing {partition} failed", partition=self.own)
            if run == self._run:
                self._again(Standing.RETRYING, "an unexpected error, see the log")
        finally:
            following.lanes.release()

    async def _decide(self, run: int) -> None:
        """
        Compare the logs, and choose the next state.

        :raises PeerError: the master does not reply.
        :raises StoreError: our directory cannot be moved.
        :raises OSError: our files cannot be read.
        """
        if self.own.is_moving:
            self._again(Standing.COMPARING, "its old directory is being moved aside")
            return
        if self.own.is_leaving:
            await self.own.set_aside()
        reader = self.own.reader
        if reader is None:
            ends = await self._theirs.ends()
            if run == self._run:
                self.master = ends
                self._begin_at(0 if ends is None else ends.first)
            return
        found = await compare_tail(reader, self._theirs)
        if run != self._run:
            return
        self.master = found.b or self.master
        if found.verdict is Verdict.ABSENT_B:
            self._again(Standing.UNSEEN, "")
        elif found.verdict in (Verdict.EQUAL, Verdict.B_AHEAD):
            self._copy()
        elif found.verdict is Verdict.DIFFERENT:
            await self._diverged(run, found, f"the bytes at {found.differs_at} differ")
        elif found.a is not None and found.b is not None and found.a.end < found.b.first:
            await self._renew(run, found.b.first, found.a)
        else:
            await self._ahead(run, reader, found)

    async def _ahead(self, run: int, reader: StoreLog, found: Comparison) -> None:
        """Our log is longer than the master's shown range."""
        assert found.a is not None and found.b is not None
        if await is_written_there(reader, self._theirs, found.a, found.b):
            if run == self._run:
                self._copy()
            return
        if run != self._run:
            return
        self._looks += 1
        if self._looks < AHEAD_LOOKS:
            text = f"our log ends at {found.a.end}, that of the master at {found.b.end}"
            self._again(Standing.COMPARING, text, AHEAD_SECONDS)
            return
        lost = found.a.end - found.b.end
        await self._diverged(run, found, f"ours is longer by {lost} bytes")

    async def _diverged(self, run: int, found: Comparison, reason: str) -> None:
        assert found.a is not None and found.b is not None
        again = self._following.copy_again
        self._complaints.diverged(found.a, found.b, reason, again)
        if again:
            await self._set_aside_and_begin(run, found.b.first)
        else:
            self._stand(Standing.DIVERGED, reason)

    async def _renew(self, run: int, first: int, ours: LogEnds) -> None:
        """The master has deleted the bytes that are needed next."""
        aside = await self._set_aside_and_begin(run, first)
        alarms.gap(str(self.own), ours.end, first, aside)

    async def _set_aside_and_begin(self, run: int, first: int) -> str | None:
        aside = await self.own.set_aside()
        if run == self._run:
            self._begin_at(first)
        return aside

    # Copying

    def _begin_at(self, first: int) -> None:
        """Begin a new log here at the beginning of the master's."""
        self.own.begin = first
        self._copy()

    def _copy(self) -> None:
        following = self._following
        self._looks = 0
        self._stand(Standing.COPYING)
        self._copying = Copying(
            following.runtime,
            following.peer,
            following.group,
            self.own,
            following.pace,
            self._copied,
            self._ended,
        )
        self._copying.begin()

    def _copied(self, records: int) -> None:
        self._complaints.over()
        self._following.copied(records)

    def _ended(self, end: End) -> None:
        self._note_level()
        self._copying = None
        if end.why is Why.MOVED and self.own.store is None and end.to > self.own.begin:
            self._begin_at(end.to)
        elif end.why is Why.MOVED:
            self._again(Standing.COMPARING, f"the master sent us to {end.to}", AHEAD_SECONDS)
        elif end.why is Why.DAMAGED:
            self._complaints.damaged(end.text, DAMAGE_SECONDS)
            self._again(Standing.DAMAGED, f"at {self.own.end} {end.text}", DAMAGE_SECONDS)
        else:
            self._again(Standing.RETRYING, end.text or end.why.value)

    def _again(self, standing: Standing, reason: str, seconds: float = RETRY_SECONDS) -> None:
        """Compare again after a while."""
        if standing is Standing.RETRYING and self._following.peer.is_connected:
            self._complaints.retried(reason, RETRY_SECONDS)
        if self.standing is not Standing.DIVERGED:
            self._stand(standing, reason)
        self._timer = self._following.runtime.call_later(seconds, self._compare)

    def _stand(self, standing: Standing, reason: str = "") -> None:
        self.standing, self.reason = standing, reason
        if standing in (Standing.DIVERGED, Standing.COPYING):
            shown = standing is Standing.COPYING
            self._following.shown(self.own.topic, self.own.partition, shown)


async def is_written_there(reader: StoreLog, theirs: PeerLog, own: LogEnds, shown: LogEnds) -> bool:
    """
    Whether the master has the bytes of our log beyond its shown end: written there and not yet
    flushed.

    :raises PeerError: the master does not reply.
    """
    at = max(own.first, shown.first, shown.end - 1)
    if at >= shown.end:
        return False  # no byte of it is flushed, so none can be read
    while at < own.end:
        data = await theirs.read(at, min(STEP_BYTES, own.end - at))
        if not data or data != await read_fully(reader, at, len(data)):
            return False
        at += len(data)
    return True
