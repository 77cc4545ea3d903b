"""
A TCP transport for request-reply traffic at full speed, in place of Twisted's own.

Three things differ from ``twisted.internet.tcp.Server``, each measured on two cores with 100 byte
messages:

* bytes are received into room that the protocol offers (one 256 KiB buffer for the whole process)
  instead of a new 64 KiB string a read: half the CPU time of pipelined 8 KiB messages;
* ``write`` sends at once and queues only what the socket does not take: saves two ``epoll_ctl`` and
  a trip through ``epoll_wait`` a reply, 30 % of the CPU time of a synchronous client;
* ``write_file`` sends a range of a segment file with ``sendfile``: no byte of it passes through
  Python.

A protocol made for it also works on any other transport (see ``connection``).
"""

from __future__ import annotations

import os
import socket
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet import main, tcp
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from metamorphosis.broker.sockets import BrokerSockets
    from metamorphosis.store.segment import Segment

BACKLOG = 1000
"""Connections that wait to be accepted; Twisted's 50 drops the burst of a restart (the original
uses 1000)."""

FEW = 4
"""Up to this number of connections are watched by the reactor itself: a poll of the socket set
costs a lone client's request 3 us, and pays off once three connections are ready at the same
time."""

WRITE_LIMIT = 1 << 20
"""Bytes that one ``doWrite`` sends at most, so that a fast reader does not starve the others."""

AMPLE_SECONDS = 10.0
"""A quarter of the places must be free after this time before the log reports free places again."""

QUEUE_LIMIT = 1 << 20
"""Queued bytes, those of file ranges included, above which the protocol is asked to pause."""


class Room(Protocol):
    """Where received bytes go. Provider: ``Inbox``."""

    def room(self) -> memoryview:
        """The buffer for the next bytes; valid until ``ChunkReceiver.received``."""


class ChunkReceiver(Protocol):
    """The protocol of a ``BrokerTransport``, beside ``IProtocol``."""

    inbox: Room
    """Gives the buffer for the next bytes."""

    active: bool
    """Set when bytes went either way."""

    def received(self, count: int) -> None:
        """``count`` bytes were put there."""


class QueuedRange:
    """A range of a segment file that waits to be sent; keeps the file open until then."""

    __slots__ = ("left", "position", "segment")

    def __init__(self, segment: Segment, position: int, left: int) -> None:
        self.segment = segment
        self.position = position
        self.left = left


Queue = deque[memoryview | QueuedRange]


class BrokerTransport(tcp.Server):
    """
    One client's socket. Thread: reactor.

    :ivar queued_bytes: bytes accepted by ``write`` and ``write_file`` that the socket did not take
        yet.
    """

    protocol: Any
    server: Any  # a BrokerPort, or None
    queued_bytes = 0
    _queue: Queue | None = None  # None when nothing waits: an empty one has 760 bytes

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.setTcpNoDelay(True)
        self.setTcpKeepAlive(True)

    def notice_loss(self, seconds: int) -> None:
        """Let the kernel end the connection about ``seconds`` after the other machine has stopped
        answering; by default that takes hours on a quiet connection."""
        for option, value in (
            (socket.TCP_KEEPIDLE, max(seconds // 3, 1)),
            (socket.TCP_KEEPINTVL, max(seconds // 6, 1)),
            (socket.TCP_KEEPCNT, 4),
            (socket.TCP_USER_TIMEOUT, seconds * 1000),
        ):
            self.socket.setsockopt(socket.IPPROTO_TCP, option, value)

    def keep_slow(self) -> None:
        """The protocol takes no more requests."""
        keep_slow = getattr(self.reactor, "keep_slow", None)
        if keep_slow is not None and self.connected:
            keep_slow(self)

    def doRead(self) -> Any:
        """Receive once into the protocol's room."""
        protocol = self.protocol
        try:
            count = self.socket.recv_into(protocol.inbox.room())
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not count:
            return main.CONNECTION_DONE
        protocol.received(count)
        return None

    def write(self, data: bytes) -> None:
        """Send the bytes that the socket takes now, queue the rest. An error of the socket is left
        for ``doWrite``."""
        if not self.connected or not data:
            return
        sent = 0
        if not self._queue:
            try:
                sent = self.socket.send(data)
            except OSError:
                pass
            if sent == len(data):
                return
        self._enqueue(memoryview(data)[sent:], len(data) - sent)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """The pieces as one write."""
        self.write(b"".join(iovec))

    def write_file(self, head: bytes, segment: Segment, position: int, length: int) -> None:
        """
        Send ``head`` and then ``length`` bytes of the segment file from ``position`` on.

        The range must lie within the file. Header and data share packets (``MSG_MORE``).
        """
        if not self.connected:
            return
        if not self._queue:
            try:
                sent = self.socket.send(head, socket.MSG_MORE)
                if sent == len(head):
                    head = b""
                    sent = os.sendfile(self.socket.fileno(), segment.fd, position, length)
                    position += sent
                    length -= sent
                else:
                    head = head[sent:]
            except OSError:
                pass
            if not length and not head:
                return
        if head:
            self._enqueue(memoryview(head), len(head))
        segment.retain()
        self._enqueue(QueuedRange(segment, position, length), length)

    def _enqueue(self, item: memoryview | QueuedRange, size: int) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append(item)
        self.queued_bytes += size
        self._maybePauseProducer()
        self.startWriting()

    def _isSendBufferFull(self) -> bool:
        return self.queued_bytes > QUEUE_LIMIT

    def doWrite(self) -> Any:
        """Send from the queue; at its end do what ``FileDescriptor.doWrite`` does there."""
        budget = WRITE_LIMIT
        queue = self._queue
        try:
            while queue and budget > 0:
                item = queue[0]
                sent = (
                    self._send_range(queue, item)
                    if type(item) is QueuedRange
                    else self._send_bytes(queue, item)
                )
                self.queued_bytes -= sent
                budget -= sent
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            return main.CONNECTION_LOST
        self.protocol.active = True
        producer: Any = self.producer
        if producer is not None and self.producerPaused and self.queued_bytes <= QUEUE_LIMIT // 2:
            self.producerPaused = False
            producer.resumeProducing()
        return None if self._queue else self._queue_empty()

    def _send_bytes(self, queue: Queue, item: Any) -> int:
        sent = self.socket.send(item)
        if sent == len(item):
            queue.popleft()
        else:
            queue[0] = item[sent:]
        return sent

    def _send_range(self, queue: Queue, item: QueuedRange) -> int:
        sent = os.sendfile(self.socket.fileno(), item.segment.fd, item.position, item.left)
        if not sent and item.left:
            # The header that was sent promised more bytes than the file has. No further byte would
            # be valid, so the connection ends.
            raise OSError(f"{item.segment.path} ends before {item.position + item.left}")
        item.position += sent
        item.left -= sent
        if not item.left:
            queue.popleft()
            item.segment.release()
        return sent

    def _queue_empty(self) -> Exception | None:
        self._queue = None
        self.stopWriting()
        if self.disconnecting:
            return main.CONNECTION_DONE
        return None

    def connectionLost(self, reason: Failure) -> None:
        """Drop the queued bytes and release the files; Twisted does the rest."""
        queue, self._queue = self._queue, None
        for item in queue or ():
            if type(item) is QueuedRange:
                item.segment.release()
        self.queued_bytes = 0
        super().connectionLost(reason)
        if self.server is not None:
            self.server.connection_ended()


class Places(Enum):
    """
    The places for clients of a port, and the last report of them in the log::

        state    event                                                    state
        FREE     no place is free (``doRead``): reported                  FULL
        FULL     a connection has ended (``connection_ended``)            SCARCE
        SCARCE   no place is free                                         FULL
                 a connection has ended, a quarter of the places is free  EASING
        EASING   no place is free                                         FULL
                 AMPLE_SECONDS are over, a quarter is free: reported      FREE
                 AMPLE_SECONDS are over, less is free                     SCARCE
    """

    FREE = "the port accepts"
    FULL = "the port does not accept; the log says that all places are taken"
    SCARCE = "the port accepts; the log still says that all places are taken"
    EASING = "as SCARCE, with a timer that checks whether places stay free"


class BrokerPort(tcp.Port):
    """
    A listening port whose connections are ``BrokerTransport``s.

    :ivar sockets: watches them when there are many.
    """

    sockets: BrokerSockets
    factory: Any
    reactor: Any
    _places = Places.FREE
    _easing: IDelayedCall | None = None  # the timer of EASING

    _log = Logger()

    @property
    def _room(self) -> int:
        """Clients that may still come."""
        room: int = self.factory.max_connections - len(self.factory.connections)
        return room

    def doRead(self) -> None:
        """
        Accept, as long as there is room. Clients beyond it wait in the kernel: without a descriptor
        for them they could only be cut off, or the listening socket would keep the reactor busy.
        """
        room = self._room
        if room <= 0:
            self._wait()
            return
        self.numberAccepts = min(self.numberAccepts, room)
        super().doRead()

    def _wait(self) -> None:
        before, self._places = self._places, Places.FULL
        self.stopReading()
        self._cancel_easing()
        if before is Places.FREE:
            self._log.warn(
                "All {count} places for clients are taken (limit of open files): others wait until"
                " one leaves",
                count=self.factory.max_connections,
            )

    def connection_ended(self) -> None:
        """A place is free: accept again if clients wait."""
        if not self.connected:
            return
        if self._places is Places.FULL and self._room > 0:
            self._places = Places.SCARCE
            self.startReading()
        if self._places is Places.SCARCE and self._ample:
            self._places = Places.EASING
            self._easing = self.reactor.callLater(AMPLE_SECONDS, self._end_if_ample)

    @property
    def _ample(self) -> bool:
        return bool(self._room > self.factory.max_connections // 4)

    def _end_if_ample(self) -> None:
        self._easing = None
        if not self._ample:
            self._places = Places.SCARCE
            return
        self._places = Places.FREE
        self._log.info("There are places for clients again")

    def _cancel_easing(self) -> None:
        timer, self._easing = self._easing, None
        if timer is not None:
            timer.cancel()

    def connectionLost(self, reason: Failure) -> None:
        """The port is closed."""
        self._cancel_easing()
        super().connectionLost(reason)

    def transport(  # type: ignore[override]  # the class of Twisted's transports stands here
        self, skt: socket.socket, protocol: Any, client: Any, port: Any, number: int, reactor: Any
    ) -> BrokerTransport:
        """The transport of an accepted connection; the first few stay with the reactor."""
        self.factory.congestion.choose(skt)
        few = len(self.factory.connections) < FEW and not self.sockets.looks_first
        watcher = reactor if few else self.sockets
        return BrokerTransport(skt, protocol, client, port, number, watcher)
