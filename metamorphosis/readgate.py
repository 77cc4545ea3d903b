"""
The decision whether a connection reads: it does while no reason to stop holds.

Each reason is set and cleared by its own part, independently of the others. The transport is paused
at the first reason and resumed after the last one. So no part can resume reading that another part
has paused.

    reasons hold    event                     transport             reasons hold
    none            stop(reason)              pauseProducing()      one
    some            stop, clear (not last)    -                     some
    one             clear(reason)             resumeProducing()     none
    one, ended      clear(reason)             -                     none

After ``end`` the connection is closing: it may still be paused, and never resumes.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from twisted.internet.interfaces import IPushProducer


class Reason(Enum):
    """The reasons why a connection does not read."""

    PEER = "the peer does not read its replies"
    REPLIES = "the replies that wait, or their requests, exceed their limit"
    TURN = "complete requests in the buffer wait for the next turn of the reactor"
    SERVER = "the replies that wait in all connections together exceed their limit"


class ReadGate:
    """
    The reasons for which one connection does not read. Thread: reactor.

    :param transport: is paused and resumed. A pause after its end must be harmless, as with
        Twisted's transports.
    :ivar reasons: those that hold, each once; read-only. A tuple: most connections never have any,
        and an empty set has 216 bytes.
    """

    __slots__ = ("_ended", "_transport", "reasons")

    def __init__(self, transport: IPushProducer) -> None:
        self._transport: Final = transport
        self.reasons: tuple[Reason, ...] = ()
        self._ended = False

    def __contains__(self, reason: Reason) -> bool:
        """Whether this reason holds."""
        return reason in self.reasons

    @property
    def paused(self) -> bool:
        """Whether any reason holds."""
        return bool(self.reasons)

    def stop(self, reason: Reason) -> None:
        """Set a reason; setting it again has no effect."""
        reasons = self.reasons
        if not reasons:
            self.reasons = (reason,)  # first: the transport may call back
            self._transport.pauseProducing()
        elif reason not in reasons:
            self.reasons = (*reasons, reason)

    def clear(self, reason: Reason) -> None:
        """Clear a reason; no effect if it is not set."""
        reasons = self.reasons
        if reason in reasons:
            self.reasons = tuple([each for each in reasons if each is not reason])
            if not self.reasons and not self._ended:
                self._transport.resumeProducing()

    def set(self, reason: Reason, holds: bool) -> None:
        """``stop`` or ``clear``."""
        if holds:
            self.stop(reason)
        else:
            self.clear(reason)

    def end(self) -> None:
        """The connection is closing: never resume."""
        self._ended = True
