"""
Decides which connection is the master's: only its records are stored.

    state    event                                          state
    ALONE    a first ``sync`` of any connection             PAIRED with it
    PAIRED   ``sync`` of the same connection                PAIRED
    PAIRED   ``sync`` of another one, from the same host    PAIRED with it; the older is closed
    PAIRED   ``sync`` of another one, from another host     PAIRED; it is refused
    any      a probe of any connection                      the same
    PAIRED   the connection is lost                         ALONE

A probe asks whether records would be stored, and does not change the state: a withdrawn master
sends probes over each of its connections, while another master at the same host may be working. A
probe from another host is refused like records; otherwise its master would register again and
refuse puts.

A connection from the same host belongs to a restarted master, or to one whose connection was cut
without notice: its own dead connection must not block it. Two masters on two hosts would mix two
logs; one of them has to be stopped. The kernel detects the loss of a master's machine in half a
minute, so that another master can replace it.

Differs: the original stores records from any connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from metamorphosis.broker.hotpath import scan_syncs
from metamorphosis.seldom import Seldom

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from metamorphosis.broker.session import Session

LOSS_SECONDS: Final = 30
"""Approximate time in which the loss of a master's machine is detected."""


class Takeover:
    """
    The master's connection. Thread: reactor.

    :ivar master: the connection; None: not connected now.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self.master: Session | None = None
        self._changes = Seldom(clock.seconds)
        self._takeovers = Seldom(clock.seconds)
        self._refusals = Seldom(clock.seconds)

    @property
    def host(self) -> str | None:
        """The address of the master."""
        return None if self.master is None else self.master.remote.host

    def claim(self, session: Session) -> str | None:
        """
        Decide whether a ``sync`` is to be stored.

        :returns: None if it is; or the reason of the refusal.
        """
        if session is self.master:
            return None
        refused = self.refusal(session)
        if refused is not None:
            return refused
        older, self.master = self.master, session
        session.scan = scan_syncs
        session.on_lost(self._lost)
        session.remote.notice_loss(LOSS_SECONDS)
        if older is None:
            if self._changes.may_log():
                self._log.info("The master of this pair is at {host}", host=session.remote.host)
            return None
        older.scan = None
        older.remote.abort()
        if self._takeovers.may_log():
            self._log.warn(
                "A newer connection of the master at {host} takes over; the older one is closed"
                " (such lines left out: {left_out})",
                host=session.remote.host,
                left_out=self._takeovers.left_out,
            )
        return None

    def refusal(self, session: Session) -> str | None:
        """The reason why records of this connection would be refused; None: they are stored."""
        if session is self.master or self.master is None or session.remote.host == self.host:
            return None
        if self._refusals.may_log():
            self._log.error(
                "A second master at {host} is refused; the one of this pair is at {master}. The log"
                " of a slave cannot be that of two masters: stop one of them (such lines left out:"
                " {left_out})",
                host=session.remote.host,
                master=self.host,
                left_out=self._refusals.left_out,
            )
        return f"this slave has a master at {self.host}; it takes another one when that is gone"

    def _lost(self, session: Session) -> None:
        if session is self.master:
            self.master = None
            if self._changes.may_log():
                self._log.info("The master at {host} is gone", host=session.remote.host)
