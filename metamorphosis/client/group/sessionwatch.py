"""
The ZooKeeper session of a member: its connection, and the ends of sessions.

Connection and end are independent: after an end the next session may exist at once, or only after
hours. An end is pending until the member has given up its partitions of that session. Ends are
counted, because a session may end while an earlier end is being processed.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakMethod

from metamorphosis.client.network.flow import Event
from metamorphosis.cluster.model import SessionEvent, SessionState
from metamorphosis.interfaces import IRegistry


class SessionOver(Exception):
    """The session ended during an attempt."""


def _ignore(event: SessionEvent) -> None:
    """Replaces a listener that was garbage-collected."""


class SessionWatch:
    """
    The state of the session. Thread: the loop's.

    :param changed: called after each event of the session.
    :param closing: once it is set, events are ignored.
    :ivar is_connected: whether ZooKeeper is connected.
    """

    def __init__(
        self, registry: IRegistry, changed: Callable[[SessionEvent], None], closing: Event
    ) -> None:
        self.is_connected = False
        self._registry = registry
        self._changed = changed
        self._closing = closing
        self._ends = 0
        self._ends_done = 0  # of these, processed

    def start(self) -> None:
        """Listen from now on; ``changed`` is not called for an existing session."""
        event = WeakMethod(self.event)  # the registry outlives many consumers
        self._registry.on_session(lambda each: (event() or _ignore)(each))
        self.is_connected = bool(self._registry.session_id())

    def event(self, event: SessionEvent) -> None:
        """The registry's listener."""
        if self._closing.is_set:
            return
        self.is_connected = event.state is SessionState.CONNECTED
        if event.new_session or event.state is SessionState.LOST:
            self._ends += 1
        self._changed(event)

    @property
    def has_ended(self) -> bool:
        """Whether the end of a session is pending."""
        return self._ends_done != self._ends

    def deal_with_end(self) -> None:
        """Mark all ends up to now as processed."""
        self._ends_done = self._ends

    def check(self) -> None:
        """:raises SessionOver: the data that were read belong to a session that has ended."""
        if self.has_ended:
            raise SessionOver
