"""Records collected for one partition, which are stored or refused together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metamorphosis.store.messagestore import MessageStore

PENDING = 0
"""Collecting, or written and not yet flushed."""
STORED = 1
"""Every record is stored; with group commit also flushed."""
FAILED = 2
"""Records that end above ``stored_end`` are not in the log."""


class Batch:
    """
    What one partition stores with one write. Thread: reactor.

    :ivar store: where it goes.
    :ivar offset: offset of the first record.
    :ivar pieces: header, body, header, body, ...: two per record. Emptied on completion.
    :ivar owned: so many pieces are known to be no views of a receive buffer.
    :ivar size: bytes, known when the batch is committed.
    :ivar state: ``PENDING``, ``STORED`` or ``FAILED``.
    :ivar stored_end: after completion: records that end at or below this offset are stored.
    :ivar error: why it failed.
    :ivar waiters: called once each on completion; never from within ``open_batch``.
    """

    __slots__ = (
        "error",
        "offset",
        "owned",
        "pieces",
        "size",
        "state",
        "store",
        "stored_end",
        "waiters",
    )

    def __init__(self, store: MessageStore, offset: int) -> None:
        self.store = store
        self.offset = offset
        self.pieces: list[bytes | memoryview] = []
        self.owned = 0
        self.size = 0
        self.state = PENDING
        self.stored_end = offset
        self.error: BaseException | None = None
        self.waiters: list[Callable[[], None]] = []

    def complete(self, stored_end: int, error: BaseException | None = None) -> None:
        """Set the outcome and tell everybody who waits for it."""
        self.stored_end = stored_end
        self.error = error
        self.state = STORED if error is None else FAILED
        self.pieces = []
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()
