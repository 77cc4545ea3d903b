"""
The set of client sockets whose ordinary requests are answered in C; see ``hotpath.turn``.

``BrokerSockets`` serves each ready socket in Python. Here the turn in C runs first, and the sockets
that it leaves are served in Python.

A connection is plain while Python has no pending request of it. A slow connection becomes plain
when its socket is readable. A plain one becomes slow as soon as the turn leaves a part of its data,
or its transport has to write or pause; ``slowspells`` says for how many events at least.

Replies that wait for a batch, because their store cannot write at once, wait in C. They leave when
the batch is stored. When its records have to be refused, the connection becomes slow, and Python
has its replies.

After a turn with nothing but ordinary requests the set may linger for the next: ``lingering.h`` has
the rules. C waits by itself where Python had nothing to do in the turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from select import EPOLLIN
from typing import TYPE_CHECKING, Any

from metamorphosis.broker.hotpath.turn import BYTES, EVENT, UNSENT, WAITING, TurnStores
from metamorphosis.broker.replies import FileReply, send_mixed
from metamorphosis.broker.slowspells import SlowSpells
from metamorphosis.broker.sockets import BrokerSockets, Line, Take
from metamorphosis.native import compiled, turn
from metamorphosis.store.batch import STORED

if TYPE_CHECKING:
    from twisted.internet.abstract import FileDescriptor
    from twisted.internet.posixbase import PosixReactorBase

    from metamorphosis.broker.connections import Connections
    from metamorphosis.store.batch import Batch


class LaneSet(BrokerSockets):
    """
    See the module. Thread: reactor.

    :param shared: what the connections share.
    :ivar plain: descriptors of the plain connections.
    :ivar lingering: its waits for the next requests.
    :raises TypeError: the turn in C is not built or is disabled.
    """

    looks_first = True

    def __init__(self, reactor: PosixReactorBase, shared: Connections) -> None:
        super().__init__(reactor)
        assert turn is not None and compiled is not None
        self._shared = shared
        routes = shared.routes
        self._stores = TurnStores(routes, self._decided)
        self._lanes = turn(
            self._epoll.fileno(), self._stores, shared.ids, routes.max_body, shared.max_waiting
        )
        self._held = 0  # bytes of requests whose replies wait in C
        self.plain: set[int] = set()
        self._line = -1  # the adopted socket on which C sends and receives
        self._is_of_pair = False
        self._is_expected: Callable[[], bool] = lambda: False
        self._serving = False
        self._ordinary = True  # so were the requests of this turn
        self._slowed: dict[int, Any] = {}  # transports that were plain in this turn; some pause
        self.lingering = compiled.Lingering(shared.busy_poll, _timeout_of(reactor))
        self._spells = SlowSpells()

    def doRead(self) -> None:
        """Let the turn serve the ready sockets, serve in Python those that it leaves, then write
        what has collected; then linger for more, if it comes soon."""
        lingering = self.lingering
        lingering.begin()
        while self._serve_ready() and not lingering.is_over and self._may_linger():
            if not self._lanes.linger(lingering, self._is_of_pair, self._held > 0):
                break
        lingering.end()

    def _serve_ready(self) -> bool:
        """Serve the ready sockets; returns whether all their requests were ordinary."""
        self._ordinary = self._serving = True
        turn = self._shared.turn
        turn.begin_stretch()
        try:
            in_python = self._shared.waiting - self._held  # C knows nothing of these
            may = not in_python or self._is_expected()
            left = self._lanes.turn(self.lingering if may else None, self._is_of_pair)
            if left and self._serve_left(left):
                self._serve_left(self._lanes.turn(None, False))
            if self._lanes.held() != self._held:
                self._count_held()
        finally:
            self._serving = False
            self._slowed.clear()
            turn.end_stretch()
        return self._ordinary

    def _may_linger(self) -> bool:
        """Whether the next requests come soon, little is under way, and no reply waits, or only for
        an adopted socket."""
        may = self._lanes.may_linger(self.lingering, self._is_of_pair)
        return may and (not self._shared.waiting or self._is_expected())

    def _serve_left(self, left: Sequence[Any]) -> bool:
        """Serve what the turn has left; returns whether a ready socket has become plain."""
        found = False
        for kind, descriptor, *rest in left:
            watched = self._transports.get(descriptor)
            transport = watched if kind == EVENT else self._slowed.get(descriptor, watched)
            if transport is None or not transport.connected:  # closed by an earlier item
                _let_go(kind, rest)
            elif kind != EVENT and transport in self.adopted:
                self._serve_line(transport, kind, rest[0])
            elif kind == EVENT:
                (event,) = rest
                if transport in self.adopted:
                    self._serve_adopted(descriptor, transport, event)
                    continue
                if (
                    descriptor not in self.plain
                    and event == EPOLLIN
                    and self._begin_plain(transport)
                ):
                    found = True
                    continue
                self._ordinary = False
                self._end_plain(descriptor, transport)
                self._serve(transport, event)
            else:
                self._ordinary = False
                self._end_plain(descriptor, transport)
                self._guard(transport, kind, rest)
        return found

    def _guard(self, transport: Any, kind: int, rest: Sequence[Any]) -> None:
        """Serve one item. An error ends its connection only."""
        try:
            connection = transport.protocol
            if kind == BYTES:
                data, taken = rest
                self._spells.left(transport.fileno(), taken)
                connection.take_in(data)
            elif kind == WAITING:
                connection.answer(*rest)
            else:
                send_mixed(transport, rest[0])
        except Exception as error:
            self._log.failure("Serving {transport} failed", transport=transport)
            self._disconnect(transport, error, True)

    # Replies that wait

    def _decided(self, batch: Batch) -> None:
        """Replies have waited for this batch in C."""
        left = self._lanes.release(batch, batch.state is not STORED)
        if left:
            self._serve_left(left)
        if not self._serving:
            self._count_held()

    def _count_held(self) -> None:
        """Count the requests whose replies wait in C among those of all connections. Over the
        limit these connections pause."""
        held = self._lanes.held()
        if held != self._held:
            change, self._held = held - self._held, held
            self._shared.waiting_changed(change)
            if held and self._shared.overloaded:
                for descriptor in list(self.plain):
                    self._end_plain(descriptor, self._transports[descriptor])

    # Adopted sockets

    def adopt(self, transport: Any, take: Take, is_expected: Callable[[], bool]) -> Line:
        """See ``BrokerSockets``. C sends and receives; it leaves the bytes that are no answers to
        its frames, and those until ``take`` lets it resume."""
        self._is_of_pair = True
        self._is_expected = is_expected
        super().adopt(transport, take, is_expected)
        self._open_line(transport)
        line: Line = self._lanes
        return line

    def _open_line(self, transport: Any) -> None:
        """Let C send and receive."""
        descriptor = transport.fileno()
        if self._masks.get(descriptor) == EPOLLIN and self._lanes.line(descriptor):
            self._line = descriptor

    def _close_line(self, descriptor: int, transport: Any) -> None:
        """Let Python send and receive, if C does."""
        if descriptor != self._line:
            return
        self._line = -1
        left, _, _ = self._lanes.slow(descriptor)
        if left:
            self._take_received(transport, left)

    def _serve_line(self, transport: Any, kind: int, rest: Any) -> None:
        """Send frames that the socket did not take, or take bytes that are left."""
        if kind == UNSENT:
            self._ordinary = False
            transport.write(b"".join(rest))
        else:
            self._take_received(transport, rest)

    def _take_received(self, transport: Any, data: bytes) -> None:
        try:
            if not self.adopted[transport](data):
                self._ordinary = False
        except Exception as error:
            self._log.failure("Serving {transport} failed", transport=transport)
            self._disconnect(transport, error, True)

    def _serve_adopted(self, descriptor: int, transport: Any, event: int) -> None:
        """Serve an event that C has left: its end, or room to write."""
        self._ordinary = False
        self._close_line(descriptor, transport)
        self._serve(transport, event)
        if self._transports.get(descriptor) is transport:
            self._open_line(transport)

    # States

    def _begin_plain(self, transport: Any) -> bool:
        """Let the turn in C serve the connection, if that is possible."""
        descriptor = transport.fileno()
        if self._masks[descriptor] != EPOLLIN:
            return False  # bytes are queued, and the replies would overtake them
        if self._spells.goes_on(descriptor):
            return False
        left = transport.protocol.begin_plain()
        if left is None:
            return False
        syncs = transport.protocol.session.scan is not None
        self._is_of_pair = self._is_of_pair or syncs
        if not self._lanes.plain(descriptor, left, syncs):
            transport.protocol.inbox.put_back(left)
            return False
        self.plain.add(descriptor)
        return True

    def _end_plain(self, descriptor: int, transport: Any) -> None:
        """Let Python serve the connection."""
        if descriptor not in self.plain:
            return
        self.plain.discard(descriptor)
        if self._serving:
            self._slowed[descriptor] = transport
        if self._lanes.active(descriptor):
            transport.protocol.active = True
        left, size, replies = self._lanes.slow(descriptor)
        if replies:
            transport.protocol.answer(size, replies)
        transport.protocol.inbox.put_back(left)

    def note_active(self) -> None:
        """Mark the plain connections that have sent bytes as active."""
        for descriptor in self.plain:
            if self._lanes.active(descriptor):
                transport: Any = self._transports[descriptor]
                transport.protocol.active = True

    def keep_slow(self, transport: FileDescriptor) -> None:
        """Keep a connection slow: it takes no more requests."""
        self._end_plain(transport.fileno(), transport)

    def _change(self, transport: FileDescriptor, more: int, less: int) -> None:
        descriptor = transport.fileno()
        before = self._masks.get(descriptor, 0)
        mask = (before | more) & ~less
        if mask != before:
            if mask != EPOLLIN:
                self._end_plain(descriptor, transport)
                self._close_line(descriptor, transport)
            if not mask:
                self._lanes.slow(descriptor)  # drops an event that was not served yet
                self._spells.forget(descriptor)
        super()._change(transport, more, less)


def _timeout_of(reactor: PosixReactorBase) -> Callable[[], float | None]:
    """The method that tells the seconds until the next delayed call, or None. It stands in no
    interface of Twisted: another reactor's calls may be as late as lingering allows."""
    timeout: Callable[[], float | None] = getattr(reactor, "timeout", _unknown)
    return timeout


def _unknown() -> None:
    pass


def _let_go(kind: int, rest: Sequence[Any]) -> None:
    """Release the files of replies that cannot be sent any more."""
    replies = rest[0] if kind == UNSENT else []
    if kind == WAITING:
        replies = [reply for _, _, reply in rest[1]]
    for reply in replies:
        if isinstance(reply, FileReply):
            reply.release()
