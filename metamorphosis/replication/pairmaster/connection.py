"""
The connection to the pair slave: that of a ``Peer``, with a fast path for replies to ``sync``.

Replies to ``sync`` arrive by the thousand. Between two replies of the stream they are taken off its
front many at a time (``Syncs.take``); other and unusual replies go to the general reader, which
passes them on one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from metamorphosis.broker.sockets import NoLine
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.links import Log
from metamorphosis.client.runtimes.txlink import TwistedLink
from metamorphosis.client.settings import ClientConfig
from metamorphosis.interfaces import IRuntime

if TYPE_CHECKING:
    from metamorphosis.broker.sockets import Line
    from metamorphosis.broker.turn import Turn
    from metamorphosis.replication.pairmaster.syncs import Syncs
    from metamorphosis.replication.role import Adopt


class SlaveConnection(BrokerConnection):
    """
    Thread: reactor.

    :param syncs: sends on this connection, and gets the replies.
    :param turn: at its end the writes and replies that result from the slave's replies leave.
    :param adopt: serves its socket together with those of the clients.
    """

    def __init__(
        self,
        runtime: IRuntime,
        url: str,
        config: ClientConfig,
        log: Log,
        lost: Callable[[BrokerConnection], None],
        syncs: Syncs,
        turn: Turn,
        adopt: Adopt,
    ) -> None:
        super().__init__(runtime, url, config, log, lost)
        self._syncs = syncs
        self._turn = turn
        self._adopt = adopt
        self._line: Line = NoLine()
        syncs.use(self)

    def send(self, data: bytes) -> None:
        """See ``syncs.Line``."""
        if self._link is not None:
            self._link.write(data)

    def data_received(self, data: bytes) -> None:
        """See ``Receiver``."""
        self._turn.begin_stretch()
        try:
            self.take(data)
        finally:
            self._turn.end_stretch()

    def take(self, data: bytes) -> bool:
        """Take bytes that were received in a turn which ends soon; returns whether they were
        nothing but usual replies to ``sync``."""
        if self._link is None:
            return False
        rest = self._syncs.take(data) if self._reader.is_between else data
        if rest:
            super().data_received(rest)
            return False
        self.received_at = self._now = self._runtime.seconds()
        self.answered = True
        number = self._syncs.next_answer
        if number is not None:
            self._line.resume(number)
        return True

    def _sweep(self) -> None:
        """See ``BrokerConnection``."""
        if self._syncs.is_heard:
            self._syncs.is_heard = False
            self.received_at = self._runtime.seconds()
        super()._sweep()

    def _unknown(self, status: int, body: bytes, opaque: int) -> None:
        """See ``BrokerConnection``: a reply without a waiter, as all replies to ``sync``."""
        if not self._syncs.answer(status, body, opaque):
            super()._unknown(status, body, opaque)

    def _begun(self) -> None:
        """See ``LinkLife``."""
        super()._begun()
        if isinstance(self._link, TwistedLink):
            expected = self._syncs.waits_only_for_slave
            self._line = self._adopt(self._link.transport, self.take, expected)
            self._syncs.expect = self._line.expect
        self._syncs.begun()

    def _ended(self) -> None:
        """See ``LinkLife``."""
        self._syncs.lost()
        super()._ended()
