"""
The end of silent sessions, on a monotonic clock.

The time in which clients could not be heard does not count for a session: the process was stopped,
or the disk hung, so that not every connection was read.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from metamorphosis.zookeeper.commits import Commits
from metamorphosis.zookeeper.server import Server

EXPIRY_SECONDS = 0.25
"""Seconds between two checks for silent sessions."""

LONGEST_GAP = 1.0
"""A longer time in seconds between two checks means that the process was stopped or the disk hung:
sessions are prolonged by it, because no client could be heard."""


class Expiry:
    """
    Ends the silent sessions of one ``Server``. Thread: reactor.

    :param clock: for the timer.
    :param monotonic: seconds, for sessions: the reactor's clock may be set.
    """

    _log = Logger()

    def __init__(
        self,
        server: Server,
        commits: Commits,
        clock: IReactorTime,
        monotonic: Callable[[], float],
    ) -> None:
        self._server = server
        self._commits = commits
        self._monotonic = monotonic
        self._looked = monotonic()
        self._committing = 0  # the batch that was being committed at the last check
        self._fails = False  # the last check failed, and that was logged
        self._looping = LoopingCall(self._look)
        self._looping.clock = clock

    def start(self) -> None:
        """Start the checks."""
        self._looping.start(EXPIRY_SECONDS, now=False)

    def stop(self) -> None:
        """Stop the checks: no session expires."""
        if self._looping.running:
            self._looping.stop()

    def _look(self) -> None:
        """End silent sessions, unless the disk hangs, because then not every connection is read."""
        before, self._committing = self._committing, self._commits.committing
        if before and before == self._committing:
            return
        now = self._monotonic()
        gap, self._looked = now - self._looked, now
        if gap > LONGEST_GAP:
            self._server.sessions.prolong(gap, now)
            self._log.info(
                "Process or disk stood still for {gap:.1f} s; no session is charged for it", gap=gap
            )
        try:
            self._server.expire()
        except Exception:  # it would end this check and all later ones
            if not self._fails:
                self._log.failure("Sessions could not be ended")
            self._fails = True
        else:
            self._fails = False
