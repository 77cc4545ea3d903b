"""
The rules by which a store acknowledges and flushes its writes. Only in these do the default mode
(``directflush``) and group commit (``groupcommit``) differ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from metamorphosis.store.batch import Batch
from metamorphosis.store.writablelog import WritableLog


class FlushPolicy(ABC):
    """
    Decides for one store. Thread: reactor.

    A policy completes each batch passed to ``written`` once. Before it submits work with the last
    segment it sets ``WritableLog.worker``, which must be ``IDLE``. When that work is done, and all
    waiters have been called, it sets ``IDLE`` again and calls ``WritableLog.proceed``: a waiter may
    put again at once, and must not get ahead of a roll that is due.

    :ivar group_commit: a put is acknowledged after its flush.
    """

    group_commit: ClassVar[bool]

    def __init__(self, store: WritableLog) -> None:
        self.store = store

    @abstractmethod
    def reconfigure(self, threshold: int, interval: float) -> None:
        """Apply a reload: messages, and seconds."""

    @abstractmethod
    def check_writable(self) -> None:
        """
        Check before a batch is opened.

        :raises StoreDamaged: the batch could not be stored.
        """

    @abstractmethod
    def written(self, batch: Batch, count: int, more: bool) -> None:
        """
        The first ``count`` records of ``batch`` are in the file; all of them, unless the batch has
        an ``error``.

        :param more: another batch is written next; one flush is enough for both.
        """

    @abstractmethod
    def flush(self) -> None:
        """Ask for a flush in the background."""

    @abstractmethod
    def hurry(self) -> None:
        """A reader waits at the end of the log."""

    def may_roll(self) -> bool:
        """Whether a roll may be tried."""
        return True

    @abstractmethod
    def flushed(self, end: int) -> None:
        """Everything below ``end`` is on the disk."""

    @abstractmethod
    def roll_unflushed(self, error: BaseException) -> None:
        """The old segment could not be flushed at a roll; the store continues in it. Ends like the
        policy's own work, with ``IDLE`` and ``proceed``."""

    @abstractmethod
    def stalled(self, error: BaseException) -> None:
        """The disk does not answer: refuse the unacknowledged puts that wait for a flush."""

    def last_flush(self) -> bool:
        """Start the flush before the store closes; False if there is nothing to flush."""
        return False
