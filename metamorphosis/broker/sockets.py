"""
All client sockets as one reader of the reactor.

For each event of a socket the reactor spends 3 us on its log context, a fifth of a synchronous
client's whole request. So the sockets stand in an epoll set of their own. Any reactor sees that set
as one descriptor, readable when a socket is ready, and pays once for all sockets that are ready
together.

Transports use the set as their reactor: it has the part of ``IReactorFDSet`` that they call.
"""

from __future__ import annotations

from collections.abc import Callable
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, epoll
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from twisted.internet import main
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.abstract import FileDescriptor
    from twisted.internet.posixbase import PosixReactorBase

MAX_EVENTS = 1024
"""Sockets that are served before the reactor looks at anything else."""

_GONE = EPOLLERR | EPOLLHUP

Take = Callable[[bytes], bool]
"""Takes received bytes; returns whether they were nothing but the usual ones."""


class Line(Protocol):
    """The turn in C, for an adopted connection. Provider: ``Lanes``, and ``NoLine``."""

    def resume(self, number: int, /) -> None:
        """
        Let C take the next answers: ``take`` has taken all bytes, and nothing incomplete is left.

        :param number: of the frame whose answer comes next.
        """

    def expect(self, count: int, /) -> None:
        """So many producers have their replies: their next puts leave together, if they come
        soon."""


class NoLine:
    """A set of sockets that takes no answers."""

    def resume(self, number: int, /) -> None:
        """See ``Line``."""

    def expect(self, count: int, /) -> None:
        """See ``Line``."""


@implementer(IReadDescriptor)
class SocketSet:
    """
    The sockets of one port. Thread: reactor.

    :ivar callLater: the reactor's, for transports.
    :cvar looks_first: it has sockets even where there are few.
    :ivar adopted: transports that are no clients, see ``adopt``.
    """

    looks_first: ClassVar[bool] = False

    _log = Logger()

    def __init__(self, reactor: PosixReactorBase) -> None:
        self.callLater = reactor.callLater
        self._reactor = reactor
        self._epoll = epoll()
        self._transports: dict[int, FileDescriptor] = {}
        self._masks: dict[int, int] = {}
        self.adopted: dict[Any, Take] = {}

    def open(self) -> None:
        """Let the reactor watch the set."""
        self._reactor.addReader(self)

    def note_active(self) -> None:
        """Tell the connections of which bytes have come, where they do not see it themselves."""

    def adopt(self, transport: Any, take: Take, is_expected: Callable[[], bool]) -> Line:
        """
        Watch a socket that the reactor has watched for input until now: it is served in the same
        turn as the clients. It returns to the reactor when the set closes.

        :param transport: a ``FileDescriptor``, whose ``reactor`` this becomes.
        :param take: gets its bytes where the set receives them itself.
        :param is_expected: whether the replies of clients wait for its bytes, and for nothing else.
        """
        for ended in [each for each in self.adopted if not each.connected]:
            del self.adopted[ended]
        transport.stopReading()
        transport.reactor = self
        self.adopted[transport] = take
        transport.startReading()
        return NoLine()

    def close(self) -> None:
        """Close the descriptor of the set; its clients have ended before."""
        if self._epoll.closed:
            return
        for transport in list(self.adopted):
            mask = self._masks.get(transport.fileno(), 0)
            self._change(transport, 0, mask)
            transport.reactor = self._reactor
            if mask & EPOLLIN:
                transport.startReading()
            if mask & EPOLLOUT:
                transport.startWriting()
        self._reactor.removeReader(self)
        self._epoll.close()

    # For the reactor

    @property
    def is_closed(self) -> bool:
        """Whether it watches no more sockets."""
        return self._epoll.closed

    def fileno(self) -> int:
        """The descriptor of the set, -1 when it is closed."""
        return -1 if self._epoll.closed else self._epoll.fileno()

    def logPrefix(self) -> str:
        """The name in the log while sockets are served."""
        return "clients"

    def doRead(self) -> None:
        """Serve every socket that is ready."""
        transports = self._transports
        for descriptor, event in self._epoll.poll(0, MAX_EVENTS):
            transport = transports.get(descriptor)
            if transport is not None:  # an earlier event of this round may have closed it
                self._serve(transport, event)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends: end all connections."""
        for transport in list(self._transports.values()):
            transport.connectionLost(reason)
        self.close()

    def _serve(self, transport: FileDescriptor, event: int) -> None:
        reading = True
        try:
            if event & EPOLLIN:
                why = transport.doRead()
            elif event & _GONE:
                why = main.CONNECTION_LOST
            else:
                why = None
            if event & EPOLLOUT and why is None and transport.connected:
                reading = False
                why = transport.doWrite()
        except Exception as error:
            self._log.failure("Serving {transport} failed", transport=transport)
            why = error
        if why is not None:
            self._disconnect(transport, why, reading)

    def _disconnect(self, transport: FileDescriptor, why: Exception, reading: bool) -> None:
        """As the reactor does: the end of the peer's input alone does not end the connection."""
        self.removeReader(transport)
        if reading and isinstance(why, ConnectionDone):
            transport.readConnectionLost(Failure(why))
            return
        self.removeWriter(transport)
        transport.connectionLost(Failure(why))

    # For transports

    def addReader(self, transport: FileDescriptor) -> None:
        """Watch the transport for input."""
        self._change(transport, EPOLLIN, 0)

    def removeReader(self, transport: FileDescriptor) -> None:
        """Stop watching for input."""
        self._change(transport, 0, EPOLLIN)

    def addWriter(self, transport: FileDescriptor) -> None:
        """Watch the transport until it can be written to."""
        self._change(transport, EPOLLOUT, 0)

    def removeWriter(self, transport: FileDescriptor) -> None:
        """Stop watching for room to write."""
        self._change(transport, 0, EPOLLOUT)

    def _change(self, transport: FileDescriptor, more: int, less: int) -> None:
        descriptor = transport.fileno()
        before = self._masks.get(descriptor, 0)
        mask = (before | more) & ~less
        if mask == before:
            return
        if not before:
            self._epoll.register(descriptor, mask)
            self._transports[descriptor] = transport
        elif mask:
            self._epoll.modify(descriptor, mask)
        else:  # with an empty mask, epoll would still report a hang-up at each poll
            self._epoll.unregister(descriptor)
            del self._transports[descriptor]
        if mask:
            self._masks[descriptor] = mask
        else:
            del self._masks[descriptor]
