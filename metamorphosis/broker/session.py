"""The parts of a client connection beside its bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from metamorphosis.broker.replies import Reply, ReplyQueue
    from metamorphosis.wire.commands import GetCommand

Partition = tuple[str, int]


class HeldGet:
    """
    A get that waits for something to read. Compared by identity.

    :ivar place: where it stands among the requests of its connection.
    :ivar tick: when its time is over; see ``longpoll``.
    """

    __slots__ = ("command", "partition", "place", "session", "tick")

    def __init__(self, command: GetCommand, session: Session, tick: int) -> None:
        self.command = command
        self.session = session
        self.place = session.replies.place
        self.partition: Partition = (command.topic, command.partition)
        self.tick = tick

    def answer(self, reply: Reply) -> None:
        """Answer it; it is held no more."""
        self.session.active = True  # a connection that waited was not idle
        self.session.replies.add_late(reply, self.place)


class Connection(Protocol):
    """The connection below a session."""

    transport: Any

    def abort(self) -> None:
        """Close at once; nothing that was received is taken any more."""


class Remote:
    """The address of the peer, for the few places that need it."""

    def __init__(self, connection: Connection) -> None:
        self._transport = connection.transport
        self.abort = connection.abort

    @property
    def host(self) -> str:
        """The address of the client."""
        host: str = self._transport.getPeer().host
        return host

    def notice_loss(self, seconds: int) -> None:
        """Find out in about that time when the other machine does not answer any more; any
        transport but ours has no way to."""
        notice = getattr(self._transport, "notice_loss", None)
        if notice is not None:
            notice(seconds)


class Session:
    """
    One client, as the responders see it. Thread: reactor.

    :ivar scan: a role's own ``hotpath.Scan`` for this client; None: that of every other.
    :ivar replies: what is sent to the client.
    :ivar held: its gets that wait for something to read; kept by ``LongPolls``.
    :ivar active: bytes went either way since the idle sweep looked last.
    :ivar connection: it; None in the tests of responders.
    :param close: takes no more requests, and closes the connection when the last reply has left.
    """

    __slots__ = (
        "_on_closing",
        "_on_lost",
        "active",
        "close",
        "connection",
        "held",
        "replies",
        "scan",
    )

    def __init__(
        self, replies: ReplyQueue, close: Callable[[], None], connection: Connection | None = None
    ) -> None:
        self.connection = connection
        self.scan: Callable[..., int] | None = None
        self.replies = replies
        self.held: dict[HeldGet, None] = {}
        self.active = True
        self.close = close
        self._on_closing: tuple[Callable[[Session], None], ...] = ()
        self._on_lost: tuple[Callable[[Session], None], ...] = ()

    @property
    def remote(self) -> Remote:
        """The client, while it is connected."""
        assert self.connection is not None
        return Remote(self.connection)

    def on_closing(self, call: Callable[[Session], None]) -> None:
        """Call when no more requests are taken; once, however often it is asked for."""
        if call not in self._on_closing:
            self._on_closing += (call,)

    def on_lost(self, call: Callable[[Session], None]) -> None:
        """Call when the connection is gone; once, however often it is asked for."""
        if call not in self._on_lost:
            self._on_lost += (call,)

    def closing(self) -> None:
        """No more requests are taken; those that were held are answered."""
        calls, self._on_closing = self._on_closing, ()
        for call in calls:
            call(self)

    def lost(self) -> None:
        """The connection is gone: let go of everything that was kept for it."""
        self._on_closing = ()
        calls, self._on_lost = self._on_lost, ()
        for call in calls:
            call(self)
