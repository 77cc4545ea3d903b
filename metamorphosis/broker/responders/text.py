"""
The commands for people and for the connection itself: ``version``, ``stats``, ``quit``.

Source: ``BrokerCommandProcessor``, sections 6.4 and 7 of the wire specification.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from metamorphosis.broker.dispatch import Table
from metamorphosis.broker.statstext import Figures, stats_reply
from metamorphosis.wire import commands as wire
from metamorphosis.wire.encoding import result

if TYPE_CHECKING:
    from metamorphosis.broker.responders.shared import Shared
    from metamorphosis.broker.session import Session
    from metamorphosis.store.messagestore import MessageStore

VERSION = "1.4.6.2"
"""The release of the original that we stand in for; what ``version`` and ``stats`` say."""


class Text:
    """
    Answers in text. Thread: reactor.

    :ivar connection_count: how many clients there are; for ``stats``.
    :ivar port: where they come in; for ``stats``.
    """

    def __init__(self, shared: Shared) -> None:
        self.connection_count: Callable[[], int] = lambda: 0
        self.port = shared.config.server_port
        self._shared = shared
        self._tallied: dict[MessageStore, tuple[int, int, int]] = {}

    def table(self) -> Table:
        """What is answered here."""
        return {
            wire.VersionCommand: self.version,
            wire.StatsCommand: self.stats,
            wire.QuitCommand: self.quit,
            wire.BooleanCommand: self.ignore,
            wire.DataCommand: self.ignore,
        }

    def version(self, command: wire.VersionCommand, session: Session) -> None:
        """Which release this is; clients use it as a heartbeat."""
        session.replies.add(result(200, command.opaque, VERSION))

    def stats(self, command: wire.StatsCommand, session: Session) -> None:
        """Counters, of all or of one item."""
        self.tally()
        figures = Figures(
            config=self._shared.config,
            statistics=self._shared.statistics,
            stores=list(self._shared.stores),
            connections=self.connection_count(),
            port=self.port,
            version=VERSION,
        )
        status, text = stats_reply(command.item or "", figures)
        session.replies.add(result(status, command.opaque, text))

    def tally(self) -> None:
        """
        Carry what the stores counted since the last time over to the statistics.

        The hot path only bumps integers of a store; this runs before statistics are shown and every
        few seconds.
        """
        statistics = self._shared.statistics
        for store in self._shared.stores:
            now = (store.put_count, store.put_bytes, store.get_count)
            puts, size, gets = self._tallied.get(store, (0, 0, 0))
            if now[0] != puts:
                statistics.count_puts(store.topic, now[0] - puts, now[1] - size)
            if now[2] != gets:
                statistics.count_get(store.topic, now[2] - gets)
            self._tallied[store] = now

    def quit(self, command: wire.QuitCommand, session: Session) -> None:
        """The client has said all it wanted."""
        session.close()

    def ignore(self, command: wire.Reply, session: Session) -> None:
        """A reply that reaches a broker is consumed, as the original does."""
