"""
``offset``: the place at which a consumer continues after it has lost its own.

Source: ``BrokerCommandProcessor``, section 6.3 of the wire specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metamorphosis.broker import refusals
from metamorphosis.broker.dispatch import Table
from metamorphosis.broker.readable import holds_message, next_message
from metamorphosis.wire import commands as wire
from metamorphosis.wire.encoding import result

if TYPE_CHECKING:
    from metamorphosis.broker.responders.shared import Shared
    from metamorphosis.broker.session import Session
    from metamorphosis.store.messagestore import MessageStore


class Offsets:
    """Answers with the places where logs begin and end. Thread: reactor."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def table(self) -> Table:
        """The commands that are answered here."""
        return {wire.OffsetCommand: self.offset}

    def offset(self, command: wire.OffsetCommand, session: Session) -> None:
        """Answer with the offset nearest to the one that was asked for."""
        shared = self._shared
        shared.refuse_if_stopping()
        shared.statistics.count_offset(command.topic)
        store = shared.stores.get(command.topic, command.partition)
        if store is None:
            raise refusals.no_store(command.topic, command.partition)
        place = self._after_reply(command, store)
        if place is None:
            place = store.nearest_offset(command.offset)
        session.replies.add(result(200, command.opaque, b"%d" % place))

    def _after_reply(self, command: wire.OffsetCommand, store: MessageStore) -> int | None:
        """
        The place after a filtered reply that ended with a jump, or that began with a record which
        the consumer cannot read; ``None``: neither applies.

        When the jump is not remembered (the broker was restarted meanwhile), the place is the start
        of the reply; the start of the segment would send a whole segment once more.

        Differs: the original answers every group with the start of the segment.
        """
        filters = self._shared.filters
        topic, group, offset = command.topic, command.group, command.offset
        if not filters.has_filter(topic, group):
            return None
        target = filters.jump_from(topic, group, command.partition, offset)
        if target is not None:
            return target
        return offset if holds_message(store, offset) else next_message(store, offset)
