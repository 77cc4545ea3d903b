"""
One client: frames in, packets out in order, and limits both ways.

Theory of operation. The complete frames of a chunk go to the server one by one; its replies leave
together, in one write, when the chunk has been taken in. A packet that is sent after a change waits
in the outbox for its barrier (see ``commits``), and so do all later packets: packets never overtake
each other. Without a change to wait for, the outbox stays empty.

Back-pressure: reading pauses while 1 MiB waits for the disk, or while the peer does not read its
replies; see ``readgate``. Bytes that are not a frame end this connection only. Its start and end
are in ``life``.

Source: ``NIOServerCnxn``. Differs: the original has no limit on the first frame, on the time until
it arrives, and on unread events.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from metamorphosis.readgate import Reason
from metamorphosis.zookeeper.commits import Commits
from metamorphosis.zookeeper.life import ConnectionLife, State
from metamorphosis.zookeeper.members import HANDSHAKE, Members
from metamorphosis.zookeeper.server import Server
from metamorphosis.zookeeper.watches import TooManyWatches

MAX_FRAME = 0xFFFFF
"""Bytes; ZooKeeper's ``jute.maxbuffer``."""

MAX_HANDSHAKE = 1024
"""Limit in bytes for the first frame, which has 44 or 45, so that a peer without a session cannot
use more memory."""

TURN_REQUESTS = 200
"""Requests that are answered for one connection in a turn; the rest of its chunk waits for the
next. A chunk holds 3,000 small requests: without this limit all other connections would wait 50
ms."""

HOLD_LIMIT = 1 << 20
"""Limit of the bytes that wait for the disk or the peer; above it, reading pauses."""

READY_LIMIT = 1 << 16
"""Bytes of replies that are joined into one write."""

EVENTS_LIMIT = 8 << 20
"""Limit of the bytes of events that wait for a peer that does not read."""

REQUEST_HEAD = 8
"""Bytes of a request with its xid and operation."""

REPLY_HEAD = 16
"""Bytes of a reply with its xid, zxid and error."""

_SIZE = struct.Struct(">I")
_EVENT = b"\xff\xff\xff\xff"  # the xid of an event
_NEGATIVE = b"\x80"  # the first byte of a negative xid, or more


_SERVING = State.SERVING  # looked up once a request


@implementer(IPushProducer)
class ZooKeeperConnection(ConnectionLife):
    """
    One client connection; the server uses the part in ``sessions.Client``. Thread: reactor.

    :param clock: ``callLater`` and ``seconds``.
    :param members: the table of connections in which it registers.
    :param answer_word: makes the answer to a four-letter word, None for other bytes.
    """

    _log = Logger()

    def __init__(
        self,
        server: Server,
        commits: Commits,
        clock: IReactorTime,
        members: Members,
        answer_word: Callable[[bytes], bytes | None],
    ) -> None:
        super().__init__(commits, clock, members)
        self._server = server
        self._answer_word = answer_word
        self._needed = 4  # buffer size at which the next frame can be taken; 0: at once
        self._since = 0.0  # time at which the present chunk arrived
        self._newest = b""  # the last request of that chunk
        self._unread_events = 0  # bytes of events since the peer stopped reading

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remove the watches; the session stays until it expires."""
        super().connectionLost(reason)
        self._server.disconnected(self)

    # Bytes in

    def dataReceived(self, data: bytes) -> None:
        """Take in a chunk."""
        if self._state is not _SERVING and self._closing():
            return
        buffer = self._buffer
        if buffer:
            buffer += data
            if self._needed and len(buffer) >= self._needed:
                self._take_buffer()
            return
        consumed = self._take(data)
        if consumed < len(data) and not self._closing():
            buffer += memoryview(data)[consumed:]

    def _take_buffer(self) -> None:
        consumed = self._take(bytes(self._buffer))
        if not self._closing():
            del self._buffer[:consumed]

    def _take(self, data: bytes) -> int:
        """Pass the complete frames of ``data`` to the server; returns the number of their bytes."""
        self._taking = True
        self._since = self._clock.seconds()
        try:
            return self._take_frames(data)
        except TooManyWatches as error:
            self._members.complain(self, str(error))
            self.close()
            return len(data)
        except Exception:
            self._log.failure("A request of {peer} failed", peer=self.transport.getPeer())
            self.close()
            return len(data)
        finally:
            self._taking = False
            if self._newest:
                self._note_request()
            if self._outbox.ready:
                self._answered(self._since)
                self._flush()
            if self._state is not _SERVING and self._closing():
                self._close_when_empty()
            elif self._outbox.held_size > HOLD_LIMIT:
                self._gate.stop(Reason.REPLIES)

    def _note_request(self) -> None:
        """Keep the part of the chunk's last request that ``cons`` shows."""
        head, self._newest = self._newest[:REQUEST_HEAD], b""
        self.traffic.last_request = head
        if head < _NEGATIVE:
            self.traffic.last_numbered = head

    def _take_frames(self, data: bytes) -> int:
        outbox, gate = self._outbox, self._gate
        position, end = 0, len(data)
        budget = TURN_REQUESTS
        while end - position >= 4:
            (size,) = _SIZE.unpack_from(data, position)
            stop = position + 4 + size
            if stop > end or self._state is not _SERVING:
                if not self._acceptable(size, data[position : position + 4]):
                    return end
                if stop > end:
                    self._needed = stop - position
                    return position
            full = outbox.ready_size > READY_LIMIT or outbox.held_size > HOLD_LIMIT or gate.reasons
            if not budget or (full and self._congested()):
                self._needed = 0
                self._gate.stop(Reason.TURN)
                self._go_on_later()
                return position
            budget -= 1
            frame = data[position + 4 : stop]
            position = stop
            self.traffic.received += 1
            if self._state is _SERVING:
                self._newest = frame
                self._server.receive(self, frame)
            else:
                self._connect(frame)
            if self._state is not _SERVING:
                return end
        self._needed = 4
        return position

    def _acceptable(self, size: int, head: bytes) -> bool:
        """Whether a frame of this size is allowed; if not, the connection is being closed."""
        handshake = self._state is State.HANDSHAKE
        if size <= (MAX_HANDSHAKE if handshake else MAX_FRAME):
            return True
        if handshake:
            self._take_word(size, head)
        else:
            self._complain(size)
            self.abort()
        return False

    def _complain(self, size: int) -> None:
        self._members.complain(self, f"a frame of {size} bytes")

    def _take_word(self, size: int, word: bytes) -> None:
        """Answer a four-letter word, then close."""
        traffic = self.traffic
        traffic.received += 1  # ``cons`` counts itself
        answer = self._answer_word(word)
        if answer is None:
            traffic.received -= 1
            self._complain(size)
        else:
            self.transport.write(answer)
            traffic.sent += 1
        self.close()

    def _connect(self, frame: bytes) -> None:
        """Take the first frame."""
        self._state = _SERVING
        self._stop_timer()
        self._server.connect(self, frame)
        self.traffic.began(self._server.tree.zxid)

    def _congested(self) -> bool:
        if self._outbox.ready_size > READY_LIMIT:
            self._flush()
        return self._outbox.held_size > HOLD_LIMIT or Reason.PEER in self._gate

    def _go_on_later(self) -> None:
        if not self._congested():
            self._clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        """Take more of the bytes left by an earlier turn."""
        if not self._needed and not self._closing() and not self._congested():
            self._take_buffer()
            if self._needed:
                self._gate.clear(Reason.TURN)

    # Packets out

    def send(self, packet: bytes) -> None:
        """See ``ConnectionLife``."""
        if self._state is not _SERVING and self._closing():
            return
        self.traffic.sent += 1
        if self._taking:
            self._outbox.add(packet, False, self._since)
        else:
            self._send_event(packet)

    def _send_event(self, packet: bytes) -> None:
        outbox = self._outbox
        outbox.add(packet, True, self._clock.seconds())
        if outbox.ready:
            self._count_unread(outbox.ready_size)
            self._flush()
        waiting = outbox.held_size + self._unread_events
        if waiting > EVENTS_LIMIT:
            waiting = outbox.held_events + self._unread_events
            if waiting > EVENTS_LIMIT:
                self._members.complain(self, f"{waiting} bytes of events wait for it")
                self.abort()

    def _count_unread(self, size: int) -> None:
        if Reason.PEER in self._gate:
            self._unread_events += size

    def release(self, durable: int) -> None:
        """See ``ConnectionLife``."""
        for held in self._outbox.release(durable):
            self._answered(held.since)
            if held.events:
                self._count_unread(held.events)
        if self._outbox.ready:
            self._flush()
        if self._state is not _SERVING and self._closing():
            self._close_when_empty()
        elif self._gate.reasons:
            self._ease()

    def _flush(self) -> None:
        head = self._outbox.ready[-1][4 : 4 + REPLY_HEAD]
        traffic = self.traffic
        if head[:4] != _EVENT and traffic.last_request is not HANDSHAKE:
            traffic.last_reply = head
        self.transport.write(self._outbox.take())

    def _answered(self, since: float) -> None:
        """The replies to a chunk that arrived at ``since`` leave now."""
        now = self._clock.seconds()
        seconds = max(0.0, now - since)
        self._members.latency.add(seconds)
        self.traffic.latency.add(seconds)
        self.traffic.answered = now

    # Back-pressure

    def _ease(self) -> None:
        """Resume reading if the limits allow it: waiting packets have left."""
        if self._outbox.held_size <= HOLD_LIMIT:
            self._gate.clear(Reason.REPLIES)
        if not self._needed:
            self._go_on_later()

    def pauseProducing(self) -> None:
        """The peer does not read: take no more requests from it."""
        self._gate.stop(Reason.PEER)

    def resumeProducing(self) -> None:
        """The peer has read."""
        self._gate.clear(Reason.PEER)
        self._unread_events = 0
        self._ease()

    def stopProducing(self) -> None:
        """The connection is gone; ``connectionLost`` cleans up."""
