"""
One client: bytes in, replies out in request order, and back-pressure both ways.

Theory of operation. The transport puts received bytes into ``room()``, which is the inbox's.
``received`` takes complete requests off its front with ``hotpath.scan``, and whatever scan leaves
with ``wire.decoding`` and ``Responders``. Replies stand in a queue of ``ReplyGroup``, one for each
chunk; ``drain`` sends from its front as far as nothing has to wait for a batch. A failed batch
turns the replies of exactly the records that were not stored into 500.

Law: no reply overtakes an earlier one, but that of a get which is held (``longpoll``) leaves when
it is there; nothing is sent for a put before its batch is written (flushed, with group commit).

Back-pressure: reading pauses while the requests whose replies wait, or the replies that the peer
does not read, exceed their limits; nobody is cut off for being fast or slow.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from metamorphosis.broker.hotpath import FileReply, ReplyGroup, scan
from metamorphosis.broker.inbox import SMALL_CHUNK, Inbox
from metamorphosis.errors import RemoteProtocolError
from metamorphosis.store.batch import FAILED
from metamorphosis.wire.decoding import NeedMore, decode_frame

if TYPE_CHECKING:
    from metamorphosis.broker.factory import BrokerFactory
    from metamorphosis.broker.longpoll import HeldGet
    from metamorphosis.store.batch import Batch

TURN_COMMANDS = 100
"""Commands off the hot path that one connection gets answered in a turn; the rest waits for the
next. They take up to 30 us each, and one chunk holds 26,000: everybody else would wait 0.6 s."""

SPREAD = 4096
"""Bytes of a chunk for each run of puts to one partition, below which it counts as spread over
many."""

LONG = 2048
"""Bytes of a request from which on its body is no second copy but a view of the first: at 8 KiB
that saves a twentieth of the request; a short body costs less copied."""


@implementer(IPushProducer, IHalfCloseableProtocol)
class BrokerConnection(Protocol):
    """
    One client connection. Thread: reactor.

    :ivar active: bytes went either way since the idle sweep looked last.
    :ivar held: its gets that wait for something to read; kept by ``LongPolls``.
    """

    factory: BrokerFactory
    transport: Any

    def __init__(self, factory: BrokerFactory) -> None:
        self.factory = factory
        self.active = True
        self.held: dict[HeldGet, None] = {}
        self._groups: deque[ReplyGroup] = deque()
        self._inbox = Inbox(factory.buffer)
        self.room = self._inbox.room
        self._awaited: Batch | None = None  # holds the replies back, and will tell us its end
        self._spread = False  # the last chunk went to many partitions
        self._long = False  # the last chunk's requests were long ones
        self._waiting_bytes = 0  # requests whose replies are in _groups
        self._closing = False
        self._peer_slow = False
        self._paused = False
        self._unfinished = False  # complete requests in the inbox wait for the next turn

    # Life

    def connectionMade(self) -> None:
        """Let the transport pause us while the peer does not read."""
        self.transport.registerProducer(self, True)
        self.factory.connections[self] = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the replies; what was put is stored all the same."""
        self._closing = True
        self.factory.connections.pop(self, None)
        self.factory.waiting_changed(-self._waiting_bytes)
        self._waiting_bytes = 0
        for group in self._groups:
            for reply in group.replies if group.files else ():
                if isinstance(reply, FileReply):
                    reply.release()
        self._groups.clear()
        self._inbox.clear()
        if self.held:
            self.factory.responders.long_polls.forget(self)

    def readConnectionLost(self) -> None:
        """The peer will send no more: answer what it sent, then close."""
        self.close_after_replies()

    def writeConnectionLost(self) -> None:
        """Never happens: we do not half-close."""

    def close_after_replies(self) -> None:
        """Take no more requests; close when the last reply has left."""
        self._closing = True
        self._inbox.clear()
        if self.held:
            self.factory.responders.long_polls.release(self)
        if not self._groups:
            self.transport.loseConnection()

    # Bytes in

    def dataReceived(self, data: bytes) -> None:
        """The same through any other transport."""
        view = memoryview(data)
        while view and not self._closing:
            room = self.room()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            view = view[count:]
            self.received(count)
            while self._unfinished:  # this transport cannot be kept from delivering the rest
                self._go_on()

    def received(self, count: int) -> None:
        """Take in ``count`` bytes that were put into ``room()``."""
        self.active = True
        if self._closing:
            return
        inbox = self._inbox
        end = inbox.add(count)
        if end < inbox.needed:
            inbox.keep(0)
            return
        inbox.needed = 0
        consumed = self._take(end)
        if self._closing:
            self.close_after_replies()
        else:
            inbox.keep(consumed)
            if self._unfinished:
                self.check_pressure()
                self.factory.turn.soon(self._go_on)
        if self._groups:
            self.factory.turn.chunk_done(self)

    def _go_on(self) -> None:
        """Take more of what the last turn left."""
        if self._unfinished and not self._closing:
            self._unfinished = False
            self.room()
            self.received(0)
            if not self._unfinished:
                self.check_pressure()

    def _take(self, end: int) -> int:
        """
        The complete requests of the first ``end`` bytes, as far as this turn has time for them;
        returns what was consumed.
        """
        # A small chunk, or one that is likely to go to many partitions, is copied once and batched
        # over the turn, one write per partition; the bodies of others are written straight from
        # the receive buffer.
        inbox = self._inbox
        small = end <= SMALL_CHUNK or self._spread
        data: Any = bytes(inbox.view[:end]) if small else inbox.data
        if not small:
            source: Any = inbox.view
        else:
            source = memoryview(data) if self._long else data
        factory = self.factory
        position = 0
        group = ReplyGroup()
        self._groups.append(group)
        budget = TURN_COMMANDS
        try:
            while not self._closing:
                position = scan(data, source, position, end, factory.routes, factory.ids, group)
                if position == end:
                    break
                frame = decode_frame(data, position, end, factory.limits)
                if isinstance(frame, NeedMore):
                    inbox.needed = frame.total or 0
                    break
                if not budget:
                    self._unfinished = True
                    break
                budget -= 1
                command, position = frame
                factory.responders.respond(command, self)
        except RemoteProtocolError as error:
            factory.protocol_error(self, error)
            self._closing = True
        finally:  # whatever happens, no batch may go on referring to the receive buffer
            if not small:
                factory.turn.commit_views({batch for batch, _ in group.runs if batch is not None})
        if group.replies:
            self._account(group, position)
        else:
            self._groups.pop()
        self._spread = position < SPREAD * len(group.runs)
        self._long = position > LONG * len(group.replies)
        return position

    # Replies

    def add_reply(self, reply: bytes | FileReply) -> None:
        """Answer behind what still waits; called while a chunk is taken in."""
        group = self._groups[-1]
        group.add(reply)
        if isinstance(reply, FileReply):
            group.files = True

    def add_put_reply(self, batch: Batch, reply: bytes) -> None:
        """Answer when ``batch`` is stored."""
        self._groups[-1].add(reply, batch)

    def add_late_reply(self, reply: bytes | FileReply) -> None:
        """Answer a request that was held, in front of everything that still waits."""
        group = ReplyGroup()
        group.add(reply)
        group.files = isinstance(reply, FileReply)
        self._groups.appendleft(group)
        self.factory.turn.touch(self)

    def batch_done(self) -> None:
        """The batch that holds the replies back is stored or has failed."""
        self._awaited = None
        self.factory.turn.touch(self)

    def drain(self) -> None:
        """
        Send every reply that waits for nothing, in order, with as few writes as the files between
        them allow.
        """
        groups = self._groups
        ready: list[Any] = []
        while groups:
            group = groups[0]
            batch = group.undecided()
            if batch is not None:
                if batch is not self._awaited:
                    self._awaited = batch
                    batch.waiters.append(self.batch_done)
                break
            if group.failed:
                self._put_right(group)
            if group.files:
                self._send_mixed(ready + group.replies)
                ready = []
            else:
                ready += group.replies
            groups.popleft()
            self._waiting_bytes -= group.size
            self.factory.waiting_changed(-group.size)
        if ready:
            self.transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
        if self._closing and not groups:
            self.transport.loseConnection()
        elif self._paused:
            self.check_pressure()

    def _put_right(self, group: ReplyGroup) -> None:
        """Turn the replies to what was not stored into refusals."""
        ends = [start for _, start in group.runs[1:]] + [len(group.replies)]
        for (batch, start), end in zip(group.runs, ends):
            if batch is not None and batch.state == FAILED:
                failed = self.factory.responders.failed_puts(batch, group.replies[start:end])
                group.replies[start:end] = failed

    def _send_mixed(self, replies: list[Any]) -> None:
        """Send replies with file ranges among them."""
        texts: list[bytes] = []
        for reply in replies:
            if isinstance(reply, FileReply):
                if texts:
                    self.transport.write(b"".join(texts))
                    texts = []
                self._send_file(reply)
            else:
                texts.append(reply)
        if texts:
            self.transport.write(b"".join(texts))

    def _send_file(self, reply: FileReply) -> None:
        write_file = getattr(self.transport, "write_file", None)
        if write_file is not None:
            write_file(reply.head, reply.segment, reply.position, reply.length)
        else:
            data = os.pread(reply.segment.fd, reply.length, reply.position)
            self.transport.write(reply.head + data)
        reply.release()

    # Back-pressure

    def _account(self, group: ReplyGroup, consumed: int) -> None:
        """The requests just taken count until their replies have left."""
        group.size = consumed
        self._waiting_bytes += consumed
        self.factory.waiting_changed(consumed)
        if self._waiting_bytes > self.factory.max_waiting or self.factory.overloaded:
            self.check_pressure()

    def check_pressure(self) -> None:
        """Pause or go on reading, by what waits here and in all connections together."""
        factory = self.factory
        heavy = self._waiting_bytes > (
            factory.max_waiting // 2 if self._paused else factory.max_waiting
        )
        stop = (
            self._peer_slow
            or heavy
            or self._unfinished
            or (factory.overloaded and self._waiting_bytes > 0)
        )
        if stop != self._paused:
            self._paused = stop
            if stop:
                self.transport.pauseProducing()
            elif not self._closing:
                self.transport.resumeProducing()

    def pauseProducing(self) -> None:
        """The peer does not read its replies: take no more requests from it."""
        self._peer_slow = True
        self.check_pressure()

    def resumeProducing(self) -> None:
        """The peer has read them."""
        self._peer_slow = False
        self.active = True
        self.check_pressure()

    def stopProducing(self) -> None:
        """The connection is gone; ``connectionLost`` cleans up."""
