"""
The work once at the end of a reactor turn: one write per partition, one send per connection.

While the reactor goes through the sockets that became readable, puts collect in the open batches of
their stores and replies collect in their connections. The first of them asks for the end of the
turn (``callLater(0)``, which runs before the sockets are polled again). There the stores are
committed first and the connections drained after, so replies to everything that was written leave
at once, joined, however many partitions and clients took part.

A lone synchronous client gains nothing from waiting. When the last turn with chunks had exactly
one, and the next chunk comes from the same connection, the turn ends at once, which saves the 7 us
of a ``callLater``. While such a chunk is being taken in (``taking``), an opened batch therefore
schedules no end.

What serves all that is ready in one call, as the set of sockets with the turn in C and the ends of
flushes, needs no ``callLater`` either: its turn ends with the call (``begin_stretch``), not before:
C may have sent a part of a reply whose rest is still to be queued.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from twisted.logger import Logger

if TYPE_CHECKING:
    from metamorphosis.store.batch import Batch

WORTH_A_WRITE = 16 * 1024
"""From this size of a batch in bytes on, a write costs less than a copy of the pieces."""


class Collects(Protocol):
    """Collects records and writes them at the end of a turn: a partition, the journal of
    transactions."""

    def commit(self) -> None:
        """Write the collected batch."""


class Client(Protocol):
    """The part of a connection that the turn calls."""

    def drain(self) -> None:
        """Send the replies that are ready."""

    def abort(self) -> None:
        """Close at once: its replies cannot be sent."""


class Turn:
    """
    The stores to commit and the connections to drain. Thread: reactor.

    :param call_later: ``reactor.callLater``.
    :ivar taking: the connection whose chunk is being taken in; set by it. ``chunk_done`` or
        ``broken_off`` follows.
    """

    _log = Logger()

    def __init__(self, call_later: Callable[..., object]) -> None:
        self._call_later = call_later
        self.taking: Client | None = None
        self._dirty: list[Collects] = []
        self._touched: dict[Client, None] = {}
        self._scheduled = False
        self._ending = False
        self._stretches = 0  # that have not ended
        self._chunks = 0
        self._lone: Client | None = None
        self._latest: Client | None = None

    def soon(self, call: Callable[[], None]) -> None:
        """Make the call in the next turn, after the other connections have been served."""
        self._call_later(0, call)

    def store_dirty(self, store: Collects) -> None:
        """A batch was opened, or a record collects (``on_dirty``)."""
        self._dirty.append(store)
        if self.taking is None or self.taking is not self._lone:
            self._schedule()

    def touch(self, connection: Client) -> None:
        """Replies of this connection may be ready."""
        self._touched[connection] = None
        self._schedule()

    def chunk_done(self, connection: Client) -> None:
        """One received chunk of this connection was taken in, and its replies stand in its
        queue."""
        self.taking = None
        self._touched[connection] = None
        if connection is self._lone and not self._stretches:
            self._end()
            return
        self._chunks += 1
        self._latest = connection
        self._schedule()

    def begin_stretch(self) -> None:
        """Sockets are served, or completions delivered, whose writes and replies are to leave
        together, as soon as this is over. Such stretches may be nested."""
        self._stretches += 1

    def end_stretch(self) -> None:
        """The stretch is over. With the outermost the turn ends, unless a client's chunk has
        already scheduled its end."""
        self._stretches -= 1
        if self._stretches or self._scheduled or self._ending:
            return
        self._chunks = 0
        self._latest = None
        if self._dirty or self._touched:
            self._end()

    def broken_off(self) -> None:
        """The chunk has produced no reply; batches that it changed are still written."""
        self.taking = None
        if self._dirty:
            self._schedule()

    def commit_views(self, batches: Iterable[Batch]) -> None:
        """
        Write the puts of a chunk in ``batches``, because the pieces are views of the receive
        buffer, which is about to be used again.

        Copied instead are the pieces of a store that cannot write yet (a flush or a roll is
        running), and those of a batch so small that a copy is cheaper than a write of its own: with
        a chunk spread over many partitions the turn brings several such to each.
        """
        for batch in batches:
            store = batch.store
            if store.batch is batch and store.next_offset - batch.offset >= WORTH_A_WRITE:
                store.commit()
            if store.batch is batch:
                store.own_pieces()

    def _schedule(self) -> None:
        if not self._scheduled and not self._ending and not self._stretches:
            self._scheduled = True
            self._call_later(0, self._run)

    def _run(self) -> None:
        self._scheduled = False
        if self._chunks:
            self._lone = self._latest if self._chunks == 1 else None
        self._chunks = 0
        self._latest = None
        self._end()

    def _end(self) -> None:
        # What commits and drains cause in turn (a store that becomes dirty again, a waiter that
        # touches its connection) is done in the same end, as far as it is known by then. An
        # unexpected error costs one partition its batch or one client its connection, not the
        # others of the turn their replies.
        self._ending = True
        while self._dirty:
            dirty, self._dirty = self._dirty, []
            for store in dirty:
                try:
                    store.commit()
                except Exception:
                    self._log.failure("Committing {store} failed", store=store)
        touched, self._touched = self._touched, {}
        for connection in touched:
            try:
                connection.drain()
            except Exception:
                self._log.failure("Answering {client} failed", client=connection)
                connection.abort()
        self._ending = False
        if self._dirty or self._touched:
            self._schedule()
