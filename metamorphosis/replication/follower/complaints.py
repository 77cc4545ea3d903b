"""Log lines about one partition: each fault once, until it is over."""

from __future__ import annotations

from typing import Final

from metamorphosis.client.network.links import Log
from metamorphosis.replication import alarms
from metamorphosis.replication.follower.ownlog import OwnLog
from metamorphosis.replication.logs import LogEnds

STANDS: Final = (
    "It is not copied any more and answers 404; the other partitions go on. Look with metaq"
    " compare, then move the wrong directory away, or set on-divergence=copy-again"
)
COPIED_AGAIN: Final = "Its directory is moved aside, and the master's log is copied again"


class Complaints:
    """Thread: reactor."""

    def __init__(self, log: Log, own: OwnLog) -> None:
        self._log = log
        self._own = own
        self._told = ""

    def over(self) -> None:
        """Records were copied: the next fault is a new one."""
        self._told = ""

    def retried(self, reason: str, seconds: float) -> None:
        """An attempt has failed, and is repeated."""
        if self._is_new(reason):
            self._log.warn(
                "Copying {partition} from {offset} on is tried again every {seconds} s: {reason}",
                partition=self._own,
                offset=self._own.end,
                seconds=seconds,
                reason=reason,
            )

    def damaged(self, reason: str, seconds: float) -> None:
        """The master's next bytes are not a record."""
        if self._is_new(f"{self._own.end} {reason}"):
            alarms.damaged(str(self._own), self._own.end, reason, seconds)

    def diverged(self, own: LogEnds, theirs: LogEnds, reason: str, copy_again: bool) -> None:
        """The logs differ."""
        if self._is_new(reason):
            remedy = COPIED_AGAIN if copy_again else STANDS
            alarms.diverged(str(self._own), own, theirs, reason, remedy)

    def _is_new(self, complaint: str) -> bool:
        new, self._told = complaint != self._told, complaint
        return new
