"""
A service that starts its parts one after the other and stops them in reverse.

Twisted's ``MultiService`` begins all stops at once and ignores the Deferred of a start: a store
would be closed while the port still accepts, and after a failed start an idle process would remain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure


def nothing() -> None:
    """The start or stop of a part that has none."""


@dataclass(frozen=True, slots=True)
class Part:
    """
    One part of a service; both functions may return a Deferred.

    :ivar name: for the log, as in "Could not stop <name>".
    :ivar start: cleans up after itself when it fails.
    :ivar stop: called once, and only after ``start`` has succeeded.
    """

    name: str
    start: Callable[[], object] = nothing
    stop: Callable[[], object] = nothing


class OrderedService(Service):
    """
    Starts ``parts`` in order once the reactor runs, each when the one before has started.

    If a part fails, ``start_failed`` stops those before it. A stop during the start waits for the
    part that is being started. Thread: reactor.

    :ivar parts: complete before ``startService``.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.parts: list[Part] = []
        self._started: list[Part] = []
        self._starting: Deferred[None] | None = None
        self._stopped: Deferred[None] | None = None

    def startService(self) -> None:
        """Start when the reactor runs."""
        super().startService()
        self._reactor.callWhenRunning(self._begin)

    def stopService(self) -> Deferred[None]:
        """Stop what was started, last first, each when the one before has stopped; never fails."""
        super().stopService()
        if self._stopped is None:
            self._stopped = Deferred.fromCoroutine(self._stop())
        # Each caller gets its own Deferred, because a caller may add callbacks that change the
        # result.
        done: Deferred[None] = Deferred()
        self._stopped.addCallback(lambda _: done.callback(None))
        return done

    def start_failed(self, part: Part, failure: Failure) -> None:
        """``part`` did not start. Overrides end the process, and ``stopService`` follows."""
        self._log.failure("Could not start {part}", failure, part=part.name)

    def started(self) -> None:
        """Every part runs."""

    def _begin(self) -> None:
        if self.running:
            self._starting = Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        for part in self.parts:
            if not self.running:
                return
            try:
                await maybeDeferred(part.start)
            except Exception as error:
                if self.running:
                    self.start_failed(part, Failure())
                else:  # the stop that waits for this may have caused it
                    self._log.info("Start of {part} ended: {error}", part=part.name, error=error)
                return
            self._started.append(part)
        if self.running:
            self.started()

    async def _stop(self) -> None:
        if self._starting is not None:
            await self._starting
        while self._started:
            part = self._started.pop()
            try:
                await maybeDeferred(part.stop)
            except Exception:
                self._log.failure("Could not stop {part}", part=part.name)
