"""The waits of a stop for clients, which a second signal ends early."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger


class Waits:
    """
    The waits of one stop, one after the other. Thread: reactor.

    :param clock: the reactor.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._hurried = False
        self._wait: Deferred[None] | None = None

    def hurry(self) -> None:
        """End the present wait, and skip the later ones."""
        self._hurried = True
        if self._wait is not None:
            self._log.info("Asked again to stop: not waiting for clients")
            self._wait.cancel()

    async def pause(self, seconds: float) -> None:
        """Wait, unless ``hurry`` was called."""
        if self._hurried:
            return
        self._wait = Deferred()
        self._wait.addErrback(lambda _: None)
        call = self._clock.callLater(seconds, self._wait.callback, None)
        await self._wait
        self._wait = None
        if call.active():
            call.cancel()
