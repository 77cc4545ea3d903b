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

    :ivar place: its position among the requests of its connection.
    :ivar tick: the tick at which its time ends; see ``longpoll``.
    """

    __slots__ = ("command", "partition", "place", "session", "tick")

    def __init__(self, command: GetCommand, session: Session, tick: int) -> None:
        self.command = command
        self.session = session
        self.place = session.replies.place
        self.partition: Partition = (command.topic, command.partition)
        self.tick = tick

    def answer(self, reply: Reply) -> None:
        """Send the reply; the get is no longer held."""
        self.session.active = True  # a connection that waited was not idle
        self.session.replies.add_late(reply, self.place)


class Connection(Protocol):
    """The connection below a session."""

    transport: Any

    def abort(self) -> None:
        """Close at once; requests that were received but not taken are dropped."""


class Remote:
    """The peer's address, and control of its transport, for the few places that need them."""

    def __init__(self, connection: Connection) -> None:
        self._transport = connection.transport
        self.abort = connection.abort

    @property
    def host(self) -> str:
        """The address of the client."""
        host: str = self._transport.getPeer().host
        return host

    def notice_loss(self, seconds: int) -> None:
        """End the connection about ``seconds`` after the other machine has stopped answering; no
        effect on a transport other than ``BrokerTransport``."""
        notice = getattr(self._transport, "notice_loss", None)
        if notice is not None:
            notice(seconds)


class Session:
    """
    A client connection as the responders use it. Thread: reactor.

    :ivar scan: takes the ``sync`` requests of the master of a pair, whose connection this is; None:
        it is the connection of a client.
    :ivar replies: the replies to the client.
    :ivar held: its gets that wait for data, None without any; kept by ``LongPolls``.
    :ivar active: bytes went in or out since the last idle sweep.
    :ivar filtered: bytes of logs that a filter has looked through for it, in this turn.
    :ivar connection: the connection; None in the tests of responders.
    :param close: takes no more requests, and closes the connection when the last reply has left.
    """

    __slots__ = (
        "_on_closing",
        "_on_lost",
        "active",
        "close",
        "connection",
        "filtered",
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
        self.held: dict[HeldGet, None] | None = None
        self.active = True
        self.filtered = 0
        self.close = close
        self._on_closing: tuple[Callable[[Session], None], ...] = ()
        self._on_lost: tuple[Callable[[Session], None], ...] = ()

    @property
    def remote(self) -> Remote:
        """The client, while it is connected."""
        assert self.connection is not None
        return Remote(self.connection)

    def on_closing(self, call: Callable[[Session], None]) -> None:
        """Register a call for the moment when no more requests are taken; a second registration has
        no effect."""
        if call not in self._on_closing:
            self._on_closing += (call,)

    def on_lost(self, call: Callable[[Session], None]) -> None:
        """Register a call for the end of the connection; a second registration has no effect."""
        if call not in self._on_lost:
            self._on_lost += (call,)

    def closing(self) -> None:
        """No more requests are taken; those that were held are answered."""
        calls, self._on_closing = self._on_closing, ()
        for call in calls:
            call(self)

    def lost(self) -> None:
        """The connection has ended: make the calls that were registered for that."""
        self._on_closing = ()
        calls, self._on_lost = self._on_lost, ()
        for call in calls:
            call(self)
