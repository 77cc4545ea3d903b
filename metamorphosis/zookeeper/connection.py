"""
One client: frames in, packets out in order, and limits both ways.

Theory of operation. The complete frames of a chunk go to the server one by one; what it sends
meanwhile leaves together, in one write, when the chunk has been taken in. A packet that is sent
after a change waits in the outbox for its barrier (see ``commits``), and everything behind it, too:
packets never overtake each other. Without a change to wait for the outbox stays empty.

Back-pressure: nothing is read while 1 MiB waits for the disk, or while the peer does not read what
it gets. Bytes that are no frame end this connection and nothing else.

Source: ``NIOServerCnxn``. Differs: that has no limit on the first frame, on the time until it
comes, and on events that are not read.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from metamorphosis.zookeeper.outbox import Outbox

if TYPE_CHECKING:
    from metamorphosis.zookeeper.factory import ZooKeeperFactory
    from metamorphosis.zookeeper.sessions import Session

MAX_FRAME = 0xFFFFF
"""Bytes, ZooKeeper's ``jute.maxbuffer``."""

MAX_HANDSHAKE = 1024
"""The first frame has 44 or 45 bytes; before it, nobody may make us hold more."""

HANDSHAKE_SECONDS = 10.0
"""For the first frame, and for the peer to read the last bytes before we close."""

TURN_REQUESTS = 200
"""Requests that one connection gets answered in a turn; the rest of its chunk waits for the next.
A chunk holds 3,000 small ones, and everybody else would wait 50 ms."""

HOLD_LIMIT = 1 << 20
"""Bytes that wait for the disk or the peer, above which nothing is read."""

READY_LIMIT = 1 << 16
"""Bytes of replies that are joined into one write."""

EVENTS_LIMIT = 8 << 20
"""Bytes of events that wait for a peer that does not read."""

_SIZE = struct.Struct(">I")


@implementer(IPushProducer)
class ZooKeeperConnection(Protocol):
    """
    One client connection; ``server.Client`` says what the server needs of it. Thread: reactor.

    :ivar received: requests so far.
    :ivar sent: replies and events so far.
    """

    _log = Logger()
    factory: ZooKeeperFactory
    transport: Any

    def __init__(self, factory: ZooKeeperFactory) -> None:
        self.factory = factory
        self.session: Session | None = None
        self.identities: list[tuple[str, str]] = []
        self.watching: set[tuple[bool, str]] = set()
        self.received = 0
        self.sent = 0
        self._server = factory.server
        self._outbox = Outbox(factory.commits, self)
        self._greeted = False  # the handshake has come
        self._buffer = bytearray()
        self._needed = 4
        self._taking = False  # a chunk is being taken in: what is sent is a reply, not an event
        self._since = 0.0  # when that chunk came
        self._unread_events = 0  # bytes of events since the peer fell behind
        self._peer_slow = False
        self._unfinished = False  # complete frames in the buffer wait for the next turn
        self._paused = False
        self._closing = False
        self._ended = False  # nothing more goes to the transport
        self._timer: Any = None

    @property
    def waiting(self) -> int:
        """Replies and events that wait for the disk."""
        return self._outbox.packets

    # Life

    def connectionMade(self) -> None:
        """Wait for the handshake, unless there are too many of us."""
        self.identities = [("ip", self.transport.getPeer().host)]
        if not self.factory.admit(self):
            self.abort()
            return
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)  # an event would wait for the reply before it
            self.transport.setTcpKeepAlive(True)
        self.transport.registerProducer(self, True)
        self._timer = self.factory.clock.callLater(HANDSHAKE_SECONDS, self.abort)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The watches go; the session stays until it expires."""
        self._closing = self._ended = True
        self._stop_timer()
        self.factory.forget(self)
        self._outbox.clear()
        self._buffer.clear()
        if self._greeted:
            self._server.disconnected(self)

    def abort(self) -> None:
        """End the connection now, whatever waits."""
        self._closing = self._ended = True
        self._outbox.clear()
        self.transport.abortConnection()

    def close(self) -> None:
        """Take no more requests; close when everything sent has left."""
        if self._closing:
            return
        self._closing = True
        self._buffer.clear()
        self._stop_timer()
        self._timer = self.factory.clock.callLater(HANDSHAKE_SECONDS, self.abort)
        if not self._taking:
            self._close_when_empty()

    def _close_when_empty(self) -> None:
        if not self._outbox.held and not self._ended:
            self._ended = True
            # A producer that is paused would keep Twisted from closing at the end of its buffer.
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    # Bytes in

    def dataReceived(self, data: bytes) -> None:
        """Take in a chunk."""
        if self._closing:
            return
        buffer = self._buffer
        if buffer or self._unfinished:
            buffer += data
            if len(buffer) >= self._needed and not self._unfinished:
                self._take_buffer()
            return
        consumed = self._take(data)
        if consumed < len(data) and not self._closing:
            buffer += memoryview(data)[consumed:]

    def _take_buffer(self) -> None:
        consumed = self._take(bytes(self._buffer))
        if not self._closing:
            del self._buffer[:consumed]

    def _take(self, data: bytes) -> int:
        """Give the complete frames of ``data`` to the server; returns how many bytes they were."""
        self._taking = True
        self._since = self.factory.clock.seconds()
        try:
            return self._take_frames(data)
        except Exception:
            self._log.failure("A request of {peer} failed", peer=self.transport.getPeer())
            self.abort()
            return len(data)
        finally:
            self._taking = False
            if self._outbox.ready:
                if self._greeted:
                    self.factory.answered(self._since)
                self._flush()
            if self._closing:
                self._close_when_empty()
            elif self._unfinished or self._outbox.held_size > HOLD_LIMIT:
                self._check_pressure()

    def _take_frames(self, data: bytes) -> int:
        position, end = 0, len(data)
        budget = TURN_REQUESTS
        while end - position >= 4:
            (size,) = _SIZE.unpack_from(data, position)
            stop = position + 4 + size
            if stop > end or not self._greeted:
                if not self._acceptable(size, data[position : position + 4]):
                    return end
                if stop > end:
                    self._needed = stop - position
                    return position
            if not budget or self._congested():
                self._go_on_later()
                return position
            budget -= 1
            self._receive(data[position + 4 : stop])
            position = stop
            if self._closing:
                return end
        self._needed = 4
        return position

    def _acceptable(self, size: int, head: bytes) -> bool:
        """Whether a frame of this size may come; otherwise the connection is closing."""
        if size <= (MAX_FRAME if self._greeted else MAX_HANDSHAKE):
            return True
        answer = None if self._greeted else self.factory.answer_word(head)
        if answer is None:
            self.factory.protocol_error(self, f"a frame of {size} bytes")
            self.abort()
        else:
            self._outbox.add_raw(answer)
            self.close()
        return False

    def _receive(self, frame: bytes) -> None:
        self.received += 1
        if self._greeted:
            self._server.receive(self, frame)
            return
        self._greeted = True
        self._stop_timer()
        self._server.connect(self, frame)

    def _congested(self) -> bool:
        if self._outbox.ready_size > READY_LIMIT:
            self._flush()
        return self._peer_slow or self._outbox.held_size > HOLD_LIMIT

    def _go_on_later(self) -> None:
        self._unfinished = True
        if not self._congested():
            self.factory.clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        """Take more of what an earlier turn left."""
        if self._unfinished and not self._closing and not self._congested():
            self._unfinished = False
            self._take_buffer()
            self._check_pressure()

    # Packets out

    def send(self, packet: bytes) -> None:
        """A frame without its length; leaves behind everything sent before, after its barrier."""
        if self._closing:
            return
        self.sent += 1
        if self._taking:
            self._outbox.add(packet, False, self._since)
        else:
            self._send_event(packet)

    def _send_event(self, packet: bytes) -> None:
        outbox = self._outbox
        outbox.add(packet, True, self.factory.clock.seconds())
        if outbox.ready:
            self._count_unread(outbox.ready_size)
            self._flush()
        waiting = outbox.held_size + self._unread_events
        if waiting > EVENTS_LIMIT:
            waiting = outbox.held_events + self._unread_events
            if waiting > EVENTS_LIMIT:
                self.factory.protocol_error(self, f"{waiting} bytes of events wait for it")
                self.abort()

    def _count_unread(self, size: int) -> None:
        if self._peer_slow:
            self._unread_events += size

    def release(self, durable: int) -> None:
        """Send what waited for the batches up to ``durable``."""
        for held in self._outbox.release(durable):
            self.factory.answered(held.since)
            self._count_unread(held.events)
        if self._outbox.ready:
            self._flush()
        if self._closing:
            self._close_when_empty()
        elif self._paused:
            self._ease()

    def _flush(self) -> None:
        self.transport.write(self._outbox.take())

    # Back-pressure

    def _check_pressure(self) -> None:
        """Pause or go on reading."""
        stop = self._peer_slow or self._unfinished or self._outbox.held_size > HOLD_LIMIT
        if stop != self._paused and not self._closing:
            self._paused = stop
            if stop:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def _ease(self) -> None:
        """Something that waited has left."""
        if self._unfinished:
            self._go_on_later()
        else:
            self._check_pressure()

    def pauseProducing(self) -> None:
        """The peer does not read: take no more requests from it."""
        self._peer_slow = True
        self._check_pressure()

    def resumeProducing(self) -> None:
        """The peer has read."""
        self._peer_slow = False
        self._unread_events = 0
        self._ease()

    def stopProducing(self) -> None:
        """The connection is gone; ``connectionLost`` cleans up."""
