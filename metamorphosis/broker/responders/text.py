"""
The commands for people and for the connection itself: ``version``, ``stats``, ``quit``.

Source: ``BrokerCommandProcessor``, sections 6.4 and 7 of the wire specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metamorphosis.broker.dispatch import Table
from metamorphosis.broker.figures import VERSION
from metamorphosis.broker.statstext import stats_reply
from metamorphosis.wire import commands as wire
from metamorphosis.wire.encoding import result

if TYPE_CHECKING:
    from metamorphosis.broker.figures import FigureSource
    from metamorphosis.broker.session import Session


class Text:
    """
    Answers in text. Thread: reactor.

    :param figures: for ``stats``.
    """

    def __init__(self, figures: FigureSource) -> None:
        self._figures = figures

    def table(self) -> Table:
        """The commands that are answered here."""
        return {
            wire.VersionCommand: self.version,
            wire.StatsCommand: self.stats,
            wire.QuitCommand: self.quit,
            wire.BooleanCommand: self.ignore,
            wire.DataCommand: self.ignore,
        }

    def version(self, command: wire.VersionCommand, session: Session) -> None:
        """Answer with the release; clients use it as a heartbeat."""
        session.replies.add(result(200, command.opaque, VERSION))

    def stats(self, command: wire.StatsCommand, session: Session) -> None:
        """Answer with the counters, of all or of one item."""
        status, text = stats_reply(command.item or "", self._figures.take())
        session.replies.add(result(status, command.opaque, text))

    def quit(self, command: wire.QuitCommand, session: Session) -> None:
        """The client ends the connection."""
        session.close()

    def ignore(self, command: wire.Reply, session: Session) -> None:
        """Consume a reply that reaches the broker, as the original does."""
