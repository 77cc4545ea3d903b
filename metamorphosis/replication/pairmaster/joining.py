"""
The pair is joined after each connect, and a partition of it whenever its two logs may differ. Until
then its puts are refused.

A *round* after a connect asks for the ends of every partition that either broker may have, so that
the amount of work is known, and joins ``AT_ONCE`` partitions at a time. Later, single partitions
are joined when they part. After a failure of the slave or of the disk the attempt is repeated every
``RETRY_SECONDS``; a diverged partition is compared again every ``DIVERGED_SECONDS``, after a reload
and after every connect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger

from metamorphosis.errors import OffsetTooSmall, PeerError, PeerUnreachable, StoreError
from metamorphosis.parallel import in_parallel
from metamorphosis.replication import alarms
from metamorphosis.replication.pairmaster.looks import EndLooks
from metamorphosis.replication.pairmaster.pairedlog import PairedLog
from metamorphosis.replication.pairmaster.partitionjoin import GROUP, Diverged, PartitionJoin
from metamorphosis.replication.pairmaster.standing import Standing

if TYPE_CHECKING:
    from metamorphosis.ids import MessageIds
    from metamorphosis.interfaces import IRuntime, Timer
    from metamorphosis.replication.pairmaster.pairedlogs import PairedLogs, Place
    from metamorphosis.replication.pairmaster.syncs import Syncs
    from metamorphosis.replication.peer import Peer

AT_ONCE: Final = 4
"""Partitions joined at a time."""

QUESTIONS: Final = 64
"""Limit of requests for the ends of partitions at a time."""

RETRY_SECONDS: Final = 1.0
DIVERGED_SECONDS: Final = 60.0
PROGRESS_SECONDS: Final = 5.0
MIB: Final = 1 << 20


class Joining:
    """
    A long class, because every step of a round uses the same state. Thread: reactor.

    :param joined: called when a put may succeed again, possibly more than once.
    :ivar is_broken: the alarm was logged, or is not to be logged.
    :ivar is_joined: a round has ended since the connect.
    :ivar sent: bytes sent to the slave in the present or last round.
    :ivar fetched: likewise.
    """

    _log = Logger()

    def __init__(
        self,
        runtime: IRuntime,
        peer: Peer,
        syncs: Syncs,
        logs: PairedLogs,
        ids: MessageIds,
        joined: Callable[[], None],
    ) -> None:
        self.is_joined = False
        self.sent = 0
        self.fetched = 0
        self._runtime = runtime
        self._peer = peer
        self._syncs = syncs
        self._logs = logs
        self._ids = ids
        self._joined = joined
        self._connection = 0  # number of the present one
        self._due: dict[PairedLog, None] = {}
        self._working = False
        self._total = 0
        self._timers: dict[Callable[[], None], Timer] = {}
        self.is_broken = False
        self._told = False  # the alarm's end was logged for this connection
        self._looks = EndLooks(runtime, peer, logs)
        logs.parted = self.parted

    @property
    def takes_puts(self) -> bool:
        """Whether a put may succeed: some partition is joined, or none exists yet."""
        standings = {log.standing for log in self._logs}
        return self.is_joined and (not standings or Standing.JOINED in standings)

    # Events

    def connected(self) -> None:
        """The connection is established."""
        self._connection += 1
        self._told = False
        self._start(self._round(self._connection))

    def lost(self, reason: str) -> None:
        """The connection is lost; ``Syncs`` has informed every partition."""
        self._connection += 1
        self.is_joined = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._looks.end()
        for log in self._logs:
            log.forget(reason)
        if not self.is_broken:
            self.is_broken = True
            alarms.pair_broken(self._peer.url, reason)

    def parted(self, log: PairedLog) -> None:
        """A partition is no longer joined; or it is, and its last pending record has ended."""
        if self.is_joined and log.standing is Standing.APART and log.is_quiet:
            self._due[log] = None
            self._runtime.call_soon(self._work)

    def look_at_diverged(self) -> None:
        """Compare diverged partitions again, after a change that may have repaired them."""
        for log in self._logs:
            if log.standing is Standing.DIVERGED:
                log.standing = Standing.APART
                self.parted(log)
        self._later(DIVERGED_SECONDS, self.look_at_diverged)

    def _start(self, work: Any) -> None:
        """Run a coroutine; after an unexpected error begin again."""

        def failed(failure: Any) -> None:
            self._log.failure("Joining the pair failed", failure)
            self._later(RETRY_SECONDS, self._again)

        self._runtime.start(work).addErrback(failed)  # type: ignore[attr-defined]

    def _again(self) -> None:
        self._start(self._round(self._connection))

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once after a while, unless the connection is lost before."""
        if call in self._timers:
            self._timers[call].cancel()
        self._timers[call] = self._runtime.call_later(seconds, self._due_call, call)

    def _due_call(self, call: Callable[[], None]) -> None:
        del self._timers[call]
        call()

    # A round

    async def _round(self, connection: int) -> None:
        """Join all partitions, until the connection is lost."""
        self.sent = self.fetched = self._total = 0
        try:
            await self._find(connection)
        except (PeerError, StoreError, OSError) as error:
            if connection == self._connection:
                self._log.warn(
                    "Joining {slave}: {error}; it is tried again in {seconds} s",
                    slave=self._peer.url,
                    error=error,
                    seconds=RETRY_SECONDS,
                )
                self._later(RETRY_SECONDS, self._again)
            return
        if connection != self._connection:
            return
        self._later(PROGRESS_SECONDS, self._tell_progress)
        await self._join_all(list(self._logs), connection)
        if connection != self._connection:
            return
        self._end_of_round()

    def _end_of_round(self) -> None:
        timer = self._timers.pop(self._tell_progress, None)
        if timer is not None:
            timer.cancel()
        self.is_joined = True
        self._looks.begin()
        self._later(DIVERGED_SECONDS, self.look_at_diverged)
        for log in self._logs:
            self.parted(log)  # repeats failed attempts
        self._tell_joined()

    def _tell_joined(self) -> None:
        """Log the end of the alarm, once for each connection, if a put may succeed."""
        if not self.takes_puts:
            return
        if not self._told:
            self._told = True
            self.is_broken = False
            diverged = sum(log.standing is Standing.DIVERGED for log in self._logs)
            joined = sum(log.standing is Standing.JOINED for log in self._logs)
            alarms.pair_joined(self._peer.url, joined, self.sent, self.fetched, diverged)
        self._joined()

    async def _find(self, connection: int) -> None:
        """Ask for the ends of all partitions; this also finds those that only the slave has."""

        async def one(place: Place) -> None:
            topic, partition = place
            ends = await self._peer.ends(topic, partition, GROUP)
            if connection != self._connection:
                return
            log = self._logs.get(place)
            if log is None and ends is not None and ends.end:  # retention may have emptied it
                log = self._logs.open(place, start=ends.first)
            if log is not None:
                end = 0 if ends is None else ends.end
                self._total += abs(end - log.store.next_offset)

        await in_parallel(self._logs.places(), one, QUESTIONS)

    async def _join_all(self, logs: Iterable[PairedLog], connection: int) -> None:
        async def one(log: PairedLog) -> None:
            if connection == self._connection and log.is_quiet:
                await self._join(log, connection)

        await in_parallel(logs, one, AT_ONCE)

    def _progressed(self, sent: int, fetched: int) -> None:
        self.sent += sent
        self.fetched += fetched

    # One partition

    def _work(self) -> None:
        """Join the partitions that have parted."""
        if self._due and not self._working and self.is_joined and self._syncs.is_connected:
            self._working = True
            self._start(self._join_due(self._connection))

    async def _join_due(self, connection: int) -> None:
        try:
            while self._due and connection == self._connection:
                due, self._due = self._due, {}
                await self._join_all(due, connection)
        finally:
            self._working = False

    async def _join(self, log: PairedLog, connection: int) -> None:
        """Join one partition, log the outcome, and plan the next attempt."""
        log.standing = Standing.JOINING
        log.is_busy = True
        join = self._attempt(log)
        try:
            await join.level(lambda: connection == self._connection)
        except Diverged as error:
            if connection == self._connection:
                self._diverged(log, error)
            return
        except (PeerError, StoreError, OSError) as error:
            if connection == self._connection:
                self._try_again(log, error)
            return
        finally:
            log.is_busy = False
            if connection != self._connection:
                self.parted(log)
        if connection != self._connection:
            return
        if self.is_joined or join.sent or join.fetched:
            self._log.info(
                "{partition} is joined at {end}: {sent} bytes were sent, {fetched} fetched",
                partition=log.name,
                end=log.store.next_offset,
                sent=join.sent,
                fetched=join.fetched,
            )
        log.join()
        self._tell_joined()

    def _attempt(self, log: PairedLog) -> PartitionJoin:
        return PartitionJoin(
            self._runtime,
            log,
            self._peer,
            self._syncs,
            self._ids,
            self._progressed,
            self._logs.joined_ends,
        )

    def _diverged(self, log: PairedLog, error: Diverged) -> None:
        if log.reason != str(error):  # otherwise it is logged already
            alarms.diverged(log.name, error.own, error.other, str(error), error.remedy)
        log.reason = str(error)
        log.standing = Standing.DIVERGED

    def _try_again(self, log: PairedLog, error: Exception) -> None:
        log.standing = Standing.APART
        if isinstance(error, OffsetTooSmall):
            error = StoreError("retention has moved the beginning of the log meanwhile")
        if log.reason != str(error):
            self._log.warn(
                "{partition} cannot be joined: {error}; it is tried again every {seconds} s",
                partition=log.name,
                error=error,
                seconds=RETRY_SECONDS,
            )
        log.reason = str(error)
        if isinstance(error, PeerUnreachable) and self._peer.is_connected:
            self._peer.connection.fail(f"joining {log.name}: {error}")
            return
        self._later(RETRY_SECONDS, self._retry)

    def _retry(self) -> None:
        for log in self._logs:
            self.parted(log)

    def _tell_progress(self) -> None:
        self._log.info(
            "Joining {slave}: {done} of {total} MiB",
            slave=self._peer.url,
            done=(self.sent + self.fetched) // MIB,
            total=self._total // MIB,
        )
        self._later(PROGRESS_SECONDS, self._tell_progress)
