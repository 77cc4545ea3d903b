"""
The replies of an asynchronous slave that differ from a plain broker's: it refuses puts, and
requests for a partition that has diverged.

Source: ``MetamorphosisSlaveBroker``. Differs: the original accepts puts and transactions; then its
log is no longer a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metamorphosis.broker import refusals
from metamorphosis.broker.dispatch import Respond
from metamorphosis.errors import Forbidden
from metamorphosis.replication.role import SLAVE
from metamorphosis.wire import commands as wire

if TYPE_CHECKING:
    from metamorphosis.broker.responders import Responders
    from metamorphosis.broker.session import Session


class Serving:
    """The responders that the slave replaces. Thread: reactor."""

    def __init__(self, responders: Responders) -> None:
        self._responders = responders
        self._hidden: set[tuple[str, int]] = set()
        dispatch = responders.dispatch
        dispatch.replace(
            {
                wire.PutCommand: self._refuse,
                wire.GetCommand: self._unless_hidden(dispatch.answers(wire.GetCommand)),
                wire.OffsetCommand: self._unless_hidden(dispatch.answers(wire.OffsetCommand)),
            }
        )

    def show(self, topic: str, partition: int, shown: bool) -> None:
        """Set whether a partition may be read; a hidden partition is answered with 404."""
        if shown:
            self._hidden.discard((topic, partition))
        else:
            self._hidden.add((topic, partition))
            self._responders.routes.clear()

    def _refuse(self, command: wire.PutCommand, session: Session) -> None:
        raise Forbidden(SLAVE)

    def _unless_hidden(self, respond: Respond) -> Respond:
        def guarded(command: wire.GetCommand | wire.OffsetCommand, session: Session) -> None:
            if (command.topic, command.partition) in self._hidden:
                raise refusals.no_store(command.topic, command.partition)
            respond(command, session)

        return guarded
