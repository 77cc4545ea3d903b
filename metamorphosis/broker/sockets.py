"""
The sockets of the broker's port: those of its clients, and the one of a pair that it has adopted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from metamorphosis.sockets import SocketSet

if TYPE_CHECKING:
    from twisted.internet.posixbase import PosixReactorBase

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


class BrokerSockets(SocketSet):
    """
    The sockets of the broker's port. Thread: reactor.

    :cvar looks_first: it has sockets even where there are few.
    :ivar adopted: transports that are no clients, see ``adopt``.
    """

    looks_first: ClassVar[bool] = False

    def __init__(self, reactor: PosixReactorBase) -> None:
        super().__init__(reactor)
        self.adopted: dict[Any, Take] = {}

    def note_active(self) -> None:
        """Tell the connections of which bytes have come, where they do not see it themselves."""

    def adopt(self, transport: Any, take: Take, is_expected: Callable[[], bool]) -> Line:
        """
        Take over a socket of the reactor that is no client's: it is served in the same turn as the
        clients.

        :param transport: see ``take_over``.
        :param take: gets its bytes where the set receives them itself.
        :param is_expected: whether the replies of clients wait for its bytes, and for nothing else.
        """
        for ended in [each for each in self.adopted if not each.connected]:
            del self.adopted[ended]
        self.adopted[transport] = take
        self.take_over(transport)
        return NoLine()
