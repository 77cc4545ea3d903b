"""
The end of silent sessions, on a monotonic clock.

A session is not charged for a time in which it could not be heard: the process was stopped, or the
disk hung, so that not every connection was read.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from metamorphosis.zookeeper.commits import Commits
from metamorphosis.zookeeper.server import Server

EXPIRY_SECONDS = 0.25
"""How often silent sessions are looked for."""

LONGEST_GAP = 1.0
"""Seconds between two such looks, above which the process was stopped or the disk hung: sessions
get them back, because nobody could be heard."""


class Expiry:
    """
    Looks for silent sessions of one ``Server``. Thread: reactor.

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
        self._committing = 0  # the batch that was being committed at the last look
        self._fails = False  # so did the last look, and it was said
        self._looping = LoopingCall(self._look)
        self._looping.clock = clock

    def start(self) -> None:
        """Look from now on."""
        self._looping.start(EXPIRY_SECONDS, now=False)

    def stop(self) -> None:
        """Let no session expire."""
        if self._looping.running:
            self._looping.stop()

    def _look(self) -> None:
        """End silent sessions, unless the disk hangs: then not every connection is read."""
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
        except Exception:  # would end this look and all later ones
            if not self._fails:
                self._log.failure("Sessions could not be ended")
            self._fails = True
        else:
            self._fails = False
