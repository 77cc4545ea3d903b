"""
``offset``: where a consumer that has lost its place goes on.

Source: ``BrokerCommandProcessor``, section 6.3 of the wire specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metamorphosis.broker import refusals
from metamorphosis.broker.dispatch import Table
from metamorphosis.wire import commands as wire
from metamorphosis.wire.encoding import result

if TYPE_CHECKING:
    from metamorphosis.broker.responders.shared import Shared
    from metamorphosis.broker.session import Session


class Offsets:
    """Tells where logs begin and end. Thread: reactor."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def table(self) -> Table:
        """What is answered here."""
        return {wire.OffsetCommand: self.offset}

    def offset(self, command: wire.OffsetCommand, session: Session) -> None:
        """The offset nearest to the one that was asked for."""
        shared = self._shared
        shared.refuse_if_stopping()
        shared.statistics.count_offset(command.topic)
        store = shared.stores.get(command.topic, command.partition)
        if store is None:
            raise refusals.no_store(command.topic, command.partition)
        nearest = b"%d" % store.nearest_offset(command.offset)
        session.replies.add(result(200, command.opaque, nearest))
