"""
One client: bytes in, replies out in request order, and back-pressure both ways.

Theory of operation. The transport puts received bytes into the inbox's ``room()``.
``received`` takes complete requests off its front: with ``hotpath.scan``, the rest of a
transaction's requests with ``Routes.steps``, and all others with ``wire.decoding`` and
``Dispatch``. The replies stand in a ``ReplyQueue``; ``drain`` sends what waits for nothing.

A connection is open, then closing, then lost:

    state     event                                        state
    OPEN      quit, end of input, garbage, broker stops    CLOSING: takes no more requests
    CLOSING   the last reply has left                      CLOSING: the transport closes
    any       connectionLost                               LOST

Back-pressure: a ``ReadGate`` pauses reading while the requests whose replies wait, or the replies
that the peer does not read, exceed their limits; no client is disconnected for being fast or slow.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from metamorphosis.broker.hotpath import scan as ordinary_scan
from metamorphosis.broker.inbox import SMALL_CHUNK, Inbox
from metamorphosis.broker.replies import Reply, ReplyGroup, ReplyQueue
from metamorphosis.broker.session import Session
from metamorphosis.errors import BadRequest, FrameTooLong, RemoteProtocolError
from metamorphosis.readgate import ReadGate, Reason
from metamorphosis.store.batch import Batch
from metamorphosis.wire.decoding import NeedMore, decode_frame
from metamorphosis.wire.encoding import result

if TYPE_CHECKING:
    from metamorphosis.broker.connections import Connections

TURN_BYTES = 1 << 20
"""The turn also ends for a connection when the replies to such commands take more memory than this,
or filters have looked through more bytes for them. A get of a group with a filter may have 1 MiB,
and takes 30 ms if that is small messages."""

TURN_COMMANDS = 100
"""Commands off the hot path that are answered for one connection in a turn; the rest waits for the
next turn. One takes up to 30 us and a chunk holds up to 26,000: without this limit all other
connections would wait 0.6 s."""

# A small chunk, or one that is likely to go to many partitions, is copied once and batched over the
# turn, one write per partition; the bodies of others are written straight from the receive buffer.

SPREAD = 4096
"""A chunk with fewer bytes than this for each run of puts to one partition counts as spread over
many."""

LONG = 2048
"""From this request size on, the body is a view of the copied chunk, which saves 5 % of the
request's time at 8 KiB. A short body is cheaper to copy."""


class Life(Enum):
    """How far a connection is; see the module."""

    OPEN = "takes requests"
    CLOSING = "takes none, and closes when the last reply has left"
    LOST = "is gone"


OPEN = Life.OPEN
ONLY_TURN = (Reason.TURN,)


@implementer(IPushProducer, IHalfCloseableProtocol)
class ClientConnection(Protocol):
    """
    One client connection. Thread: reactor. A long class, because all that changes its bytes, its
    replies and its life changes the others too.

    :ivar session: what belongs to it beside its bytes.
    :ivar inbox: its bytes that are not consumed yet.
    """

    transport: Any

    _log = Logger()

    def __init__(self, shared: Connections) -> None:
        self._shared = shared
        self._replies = ReplyQueue(self._wake)
        self.session = Session(self._replies, self._no_more, self)
        self.inbox = Inbox(shared.buffer)
        self._life = OPEN
        self._gate: ReadGate
        self._ordinary = True  # the last chunk had nothing but ordinary puts and gets
        self._spread = False  # the last chunk went to many partitions
        self._long = False  # the last chunk's requests were long ones
        self._goes_on = False  # the turn will call ``_go_on``

    # Life

    def connectionMade(self) -> None:
        """Let the transport pause the connection while the peer does not read."""
        self._gate = ReadGate(self.transport)
        self.transport.registerProducer(self, True)
        self._shared.open[self] = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Drop the replies; messages that were put are still stored."""
        self._life = Life.LOST
        self._gate.end()
        self._shared.open.pop(self, None)
        self._shared.waiting_changed(-self._replies.clear())
        self.inbox.clear()
        self.session.lost()

    def readConnectionLost(self) -> None:
        """The peer will send no more: answer what it sent, then close."""
        self.close_after_replies()

    def writeConnectionLost(self) -> None:
        """Never called: the broker does not half-close."""

    def _no_more(self) -> None:
        """Take no more requests; may be called while a chunk is being taken in."""
        if self._life is OPEN:
            self._life = Life.CLOSING
            self._gate.end()
            keep_slow = getattr(self.transport, "keep_slow", None)
            if keep_slow is not None:
                keep_slow()

    def close_after_replies(self) -> None:
        """Take no more requests; close when the last reply has left."""
        self._no_more()
        self.inbox.clear()
        self.session.closing()
        if not self._replies:
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once; requests that were received but not taken are dropped."""
        self._no_more()
        self.transport.abortConnection()

    # Bytes in

    @property
    def active(self) -> bool:
        """Bytes went in or out since the last idle sweep."""
        return self.session.active

    @active.setter
    def active(self, active: bool) -> None:
        self.session.active = active

    def dataReceived(self, data: bytes) -> None:
        """Bytes from a transport other than ``BrokerTransport``."""
        view = memoryview(data)
        while view and self._life is OPEN:
            room = self.inbox.room()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            view = view[count:]
            self.received(count)
            while Reason.TURN in self._gate and self._life is OPEN:
                self._take_rest()  # it has already been delivered: pausing comes too late

    def received(self, count: int) -> bool:
        """
        Take in ``count`` bytes that were put into ``inbox.room()``.

        One long function, because it makes as few calls as it can for each chunk, which may be a
        single request.

        :returns: whether no complete request is left for the next turn.
        """
        self.session.active = True
        if self._life is not OPEN:
            return True
        inbox, shared = self.inbox, self._shared
        end = inbox.add(count)
        if end < inbox.needed:
            inbox.keep(0)
            return True
        inbox.needed = 0
        turn = shared.turn
        turn.taking = self
        group = self._replies.begin()
        try:
            consumed, finished = self._take(end, group)
        except BaseException:
            turn.broken_off()
            raise
        self._spread = consumed < SPREAD * len(group.runs)
        self._long = consumed > LONG * len(group.replies)
        answered = self._replies.end(consumed)
        if answered:  # requests and replies count until the replies have left
            shared.waiting_changed(group.size)
            if self._replies.size > shared.max_waiting or shared.overloaded:
                self.check_pressure()
        if self._life is OPEN:
            inbox.keep(consumed)
            if not finished:
                self._go_on_later()
        else:
            self.close_after_replies()
        if answered:
            turn.chunk_done(self)
        else:
            turn.broken_off()
        return finished

    def _go_on_later(self) -> None:
        self._gate.stop(Reason.TURN)
        self._go_on_soon()

    def _go_on_soon(self) -> None:
        if not self._goes_on:
            self._goes_on = True
            self._shared.turn.soon(self._go_on)

    def _go_on(self) -> None:
        """Take more of the bytes left by the last turn, or leave that to the end of another reason
        not to read: the replies would take more and more memory."""
        self._goes_on = False
        if self._gate.reasons == ONLY_TURN and self._life is OPEN:
            try:
                self._take_rest()
            except Exception:  # a transport would close it
                self._log.failure("Serving {client} failed", client=self)
                self.abort()

    def _take_rest(self) -> None:
        self.inbox.room()
        if self.received(0):
            self._gate.clear(Reason.TURN)

    def _take(self, end: int, group: ReplyGroup) -> tuple[int, bool]:
        """
        Take the complete requests of the first ``end`` bytes, up to this turn's limit.

        One long function, because the position, the budget and the life of the connection decide
        together where the loop ends.

        :param group: gets the replies.
        :returns: how many bytes were consumed, and whether the rest only waits for more bytes.
        """
        inbox, shared = self.inbox, self._shared
        session = self.session
        session.filtered = 0
        scan = session.scan or ordinary_scan
        small = end <= SMALL_CHUNK or self._spread
        data: bytes | bytearray = inbox.data
        source: bytes | memoryview = inbox.view
        if small:
            data = source = bytes(source[:end])
            if self._long:
                source = memoryview(data)
        position = 0
        finished = True
        budget = TURN_COMMANDS
        steps = shared.routes.steps
        try:
            while self._life is OPEN:
                position = scan(data, source, position, end, shared.routes, shared.ids, group)
                if position == end:
                    break
                if budget and steps is not None:
                    past = steps(data, source, position, end, session, group)
                    if past > position:
                        position = past
                        if position == end:
                            break
                        budget -= 1
                        continue
                frame = decode_frame(data, position, end, shared.limits)
                if isinstance(frame, NeedMore):
                    inbox.needed = frame.total or 0
                    break
                if not budget or max(group.size, session.filtered) > TURN_BYTES:
                    finished = False
                    break
                budget -= 1
                command, position = frame
                shared.dispatch.respond(command, session)
        except RemoteProtocolError as error:
            self._broke_protocol(error, group)
        finally:  # also after an error: no batch may refer to the receive buffer after this
            if not small:
                awaited = {run[0] for run in group.runs}
                shared.turn.commit_views(each for each in awaited if isinstance(each, Batch))
        self._ordinary = budget == TURN_COMMANDS
        return position, finished

    def _broke_protocol(self, error: RemoteProtocolError, group: ReplyGroup) -> None:
        """Answer if the opaque is known, and take no more requests."""
        self._shared.protocol_error(self, error)
        if isinstance(error, FrameTooLong) and error.opaque is not None:
            group.add(result(BadRequest.status, error.opaque, str(error)))
        self._no_more()

    # Plain, see ``hotpath.turn``

    def begin_plain(self) -> bytes | None:
        """The turn in C takes over, with the bytes that are left; None: something is under way."""
        if self._life is not OPEN or self._replies or not self._ordinary or self._gate.paused:
            return None
        return self.inbox.take_left(SMALL_CHUNK)

    def take_in(self, data: bytes) -> None:
        """It has received these, and did not take them."""
        self.inbox.room()[: len(data)] = data
        self.received(len(data))

    def answer(self, size: int, replies: list[tuple[Batch | None, int, Reply]]) -> None:
        """It has taken ``size`` bytes of requests and does not send these replies: they wait for
        their batches, or have to be refused."""
        group, refuse = self._replies.begin(), self._shared.routes.refuse
        for batch, record, reply in replies:
            group.add(reply, batch, record, None if batch is None else refuse)
        if self._replies.end(size):
            self._shared.waiting_changed(size)
            self.check_pressure()
        self._wake()

    # Replies

    def _wake(self) -> None:
        """A reply may be ready."""
        self._shared.turn.touch(self)

    def drain(self) -> None:
        """Send the replies that are ready."""
        replies = self._replies
        answered = replies.drain(self.transport)
        if answered:
            self._shared.waiting_changed(-answered)
        if self._life is OPEN:
            if self._gate.paused:
                self.check_pressure()
        elif not replies:
            self.transport.loseConnection()

    # Back-pressure

    def check_pressure(self) -> None:
        """Pause or resume reading, by the bytes that wait here and in all connections together."""
        gate, shared = self._gate, self._shared
        size = self._replies.size
        limit = shared.max_waiting
        gate.set(Reason.REPLIES, size > (limit // 2 if Reason.REPLIES in gate else limit))
        gate.set(Reason.SERVER, shared.overloaded and size > 0)
        if gate.reasons == ONLY_TURN:
            self._go_on_soon()

    def pauseProducing(self) -> None:
        """The peer does not read its replies: take no more requests from it."""
        self._gate.stop(Reason.PEER)

    def resumeProducing(self) -> None:
        """The peer has read them."""
        self._gate.clear(Reason.PEER)
        if self._gate.reasons == ONLY_TURN:
            self._go_on_soon()

    def stopProducing(self) -> None:
        """The connection is gone; ``connectionLost`` cleans up."""
