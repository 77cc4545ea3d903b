"""
The life of the links to one broker: one link at a time, and at the end none.

==========  ====================================================  ==============================
state       meaning                                               next state
==========  ====================================================  ==============================
DOWN        no socket; the next attempt brings a link             UP: ``connected``
                                                                  CLOSED: ``close``
UP          requests can be sent                                  DOWN: ``disconnected``
                                                                  ENDING: ``fail``
                                                                  CLOSING: ``close``
ENDING      the link was given up, its socket is still open       DOWN: ``disconnected``
                                                                  CLOSING: ``close``
CLOSING     closed for good, the socket is still open             CLOSED: ``disconnected``
CLOSED      closed for good; a link that comes late is aborted    none
==========  ====================================================  ==============================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from enum import Enum
from typing import Final

from metamorphosis.client.network.flow import Event, Watchers, wait_unless_refused
from metamorphosis.client.network.links import Link, Log
from metamorphosis.client.network.recurrences import Recurrences
from metamorphosis.cluster.model import ConnectionFault
from metamorphosis.interfaces import IRuntime

LOGGED: Final = 3
"""Links to a broker whose begin and end have lines of their own, before the log counts those that
begin and end again and again."""


class LinkState(Enum):
    """See the table."""

    DOWN = "down"
    UP = "up"
    ENDING = "ending"
    CLOSING = "closing"
    CLOSED = "closed"


_DISCONNECTED: Final = {
    LinkState.DOWN: LinkState.DOWN,
    LinkState.UP: LinkState.DOWN,
    LinkState.ENDING: LinkState.DOWN,
    LinkState.CLOSING: LinkState.CLOSED,
    LinkState.CLOSED: LinkState.CLOSED,
}
_CLOSED: Final = {
    LinkState.DOWN: LinkState.CLOSED,
    LinkState.UP: LinkState.CLOSING,
    LinkState.ENDING: LinkState.CLOSING,
    LinkState.CLOSING: LinkState.CLOSING,
    LinkState.CLOSED: LinkState.CLOSED,
}


class LinkLife(ABC):
    """
    The part of a ``Receiver`` that begins and ends links. Thread: the loop's.

    :ivar url: ``meta://host:port``.
    :ivar state: see the table.
    :ivar fault: why there is no connection; None while there is one, and before the first attempt
        has failed.
    :ivar changes: told whenever the connection has come or gone.
    :ivar received_at: when the last bytes came, or could have begun to come, seconds.
    :ivar reading_paused: nothing is read from the socket.
    :ivar recurrences: the lines of the log about this broker.
    """

    def __init__(self, runtime: IRuntime, url: str, log: Log) -> None:
        self.url = url
        self.state = LinkState.DOWN
        self.fault: ConnectionFault | None = None
        self.changes = Watchers()
        self.received_at = 0.0
        self.reading_paused = False
        self.recurrences = Recurrences(runtime, log, LOGGED)
        self._runtime = runtime
        self._log = log
        self._link: Link | None = None  # in UP
        self._socket: Link | None = None  # the same, also in ENDING and CLOSING
        self._up = Event(runtime)
        self._down = Event(runtime)
        self._down.set()

    # -- for other modules

    @property
    def is_connected(self) -> bool:
        """Whether requests can be sent."""
        return self._link is not None

    @property
    def has_socket(self) -> bool:
        """Whether there is a socket, open or closing."""
        return not self._down.is_set

    def ready(self, timeout: float) -> Awaitable[bool]:
        """Whether there is a connection within ``timeout`` seconds."""
        return self._up.wait(timeout)

    async def reached(self, timeout: float, patience: float) -> bool:
        """The same, but only within ``patience`` seconds while every attempt is refused."""
        return await wait_unless_refused(self._up, timeout, patience, lambda: self.fault)

    def gone(self, timeout: float) -> Awaitable[bool]:
        """Whether the socket has been closed within ``timeout`` seconds."""
        return self._down.wait(timeout)

    # -- reading

    def pause_reading(self) -> None:
        """Read nothing from the socket; the time limits of requests go on."""
        self.reading_paused = True
        if self._link is not None:
            self._link.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        self.reading_paused = False
        self.received_at = self._runtime.seconds()
        if self._link is not None:
            self._link.resume_reading()

    # -- transitions

    def connected(self, link: Link) -> None:
        """See ``Receiver``."""
        if self.state in (LinkState.CLOSING, LinkState.CLOSED):
            link.abort()
            return
        self.state = LinkState.UP
        self._link = self._socket = link
        self.fault = None
        self._down.clear()
        self.received_at = self._runtime.seconds()
        if self.reading_paused:
            link.pause_reading()
        self._begun()
        self._up.set()
        self.changes.tell()

    def disconnected(self, reason: str) -> None:
        """See ``Receiver``."""
        self.state = _DISCONNECTED[self.state]
        self._socket = None
        self._down.set()
        if self._link is not None:
            self._end(reason)
        self._gone()

    def fail(self, reason: str) -> None:
        """Give the link up: abort it now."""
        if self._link is not None:
            self.state = LinkState.ENDING
            self._link.abort()
            self._end(reason)

    def _fail_for_garbage(self, fault: str) -> None:
        """Give the link up, because what came was no reply."""
        if self.recurrences.begins(f"broker {self.url} sends what is no reply"):
            self._log.error("Broker {url}: {fault}; closing", url=self.url, fault=fault)
        self.fail(fault)

    def close(self) -> None:
        """Close for good, as soon as the requests have left; waiters get ``LOST``."""
        self.state = _CLOSED[self.state]
        self.recurrences.close()
        self._up.abandon()
        link = self._link
        if link is not None:
            self._flush()
            link.close()
            self._end("closed")

    def cut(self) -> None:
        """Close the socket now, without the bytes that wait for it."""
        if self._socket is not None:
            self._socket.abort()

    def _end(self, reason: str) -> None:
        """No more requests on this link: answer all that are under way."""
        self._link = None
        self.fault = ConnectionFault(reason)
        self._up.clear()
        if self.state not in (LinkState.CLOSING, LinkState.CLOSED):
            if self.recurrences.begins(f"broker {self.url}: {reason}"):
                self._log.warn("Broker {url}: {reason}", url=self.url, reason=reason)
        self._ended()

    # -- for the requests: see ``connection``

    @abstractmethod
    def _begun(self) -> None:
        """There is a new link."""

    @abstractmethod
    def _flush(self) -> None:
        """Write the requests that have not been written."""

    @abstractmethod
    def _ended(self) -> None:
        """The link has ended: tell ``changes``, then the waiters."""

    @abstractmethod
    def _gone(self) -> None:
        """The socket is closed."""
