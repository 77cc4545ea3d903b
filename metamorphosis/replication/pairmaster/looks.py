"""
Every ``LOOK_SECONDS`` the slave is asked for the ends of its logs: frames of an earlier connection,
or puts of another client, may have reached it, which would otherwise show only at the next put.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from metamorphosis.errors import PeerError
from metamorphosis.parallel import in_parallel
from metamorphosis.replication.pairmaster.pairedlog import PairedLog
from metamorphosis.replication.pairmaster.partitionjoin import GROUP
from metamorphosis.replication.pairmaster.standing import Standing

if TYPE_CHECKING:
    from metamorphosis.interfaces import IRuntime, Timer
    from metamorphosis.replication.pairmaster.pairedlogs import PairedLogs
    from metamorphosis.replication.peer import Peer

LOOK_SECONDS: Final = 10.0
QUESTIONS: Final = 16
"""Limit of requests at a time."""


class EndLooks:
    """Compares the ends of the logs at intervals. Thread: reactor."""

    _log = Logger()

    def __init__(self, runtime: IRuntime, peer: Peer, logs: PairedLogs) -> None:
        self._runtime = runtime
        self._peer = peer
        self._logs = logs
        self._row = 0  # of looks; a new one begins with each connection
        self._timer: Timer | None = None

    def begin(self) -> None:
        """The pair is joined."""
        self.end()
        self._later()

    def end(self) -> None:
        """The connection is lost."""
        self._row += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _later(self) -> None:
        self._timer = self._runtime.call_later(LOOK_SECONDS, self._look, self._row)

    def _look(self, row: int) -> None:
        self._timer = None
        looked = Deferred.fromCoroutine(self._look_at_all(row))
        looked.addErrback(lambda failure: self._log.failure("Looking at the slave", failure))

    async def _look_at_all(self, row: int) -> None:
        async def one(log: PairedLog) -> None:
            if row != self._row or not _is_still(log):
                return
            try:
                ends = await self._peer.ends(log.topic, log.partition, GROUP)
            except PeerError:
                return
            own = log.store.next_offset
            if ends is not None and ends.end > own and _is_still(log):
                log.part(f"the slave's log ends at {ends.end}, this one at {own}")

        await in_parallel(list(self._logs), one, QUESTIONS)
        if row == self._row:
            self._later()


def _is_still(log: PairedLog) -> bool:
    """Whether the slave's log should end where the log here does."""
    return log.standing is Standing.JOINED and log.is_quiet and log.batch is None
