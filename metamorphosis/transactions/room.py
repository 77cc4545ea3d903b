"""
Whether the disks have room for what a commit is about to store.

A full disk is to refuse a commit before it is recorded: after that the broker has to stop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from metamorphosis.errors import StoreError
from metamorphosis.interfaces import IWorkerThreads

if TYPE_CHECKING:
    from metamorphosis.store.messagestore import MessageStore

CheckRoom = Callable[["MessageStore", int], None]

MARGIN = 1 << 20
"""Bytes that must be free beside the blocks of all commits that are under way."""

FRESH_SECONDS = 1.0
"""How long an answer of a disk that is asked in a worker holds."""


class Room:
    """
    Thread: reactor.

    With data paths on several devices a disk is asked in its own threads, and the last answer
    counts: one that hangs must not have the reactor.

    :param clock: the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._free: dict[IWorkerThreads, int] = {}
        self._asked: dict[IWorkerThreads, float] = {}
        self._asking: set[IWorkerThreads] = set()

    def check(self, store: MessageStore, size: int) -> None:
        """
        :param size: bytes that commits are about to store.
        :raises StoreError: the disk of ``store`` has no room for them; names the file.
        :raises OSError: it cannot be asked.
        """
        path = store.last.path
        free = self._known(store, path) if store.environment.apart else _ask(store, path)
        if free is not None and free < size + MARGIN:
            raise StoreError(f"{path}: No space left on device for {size} bytes")

    def _known(self, store: MessageStore, path: str) -> int | None:
        lane, now = store.environment.threads, self._clock.seconds()
        if lane not in self._asking and now - self._asked.get(lane, 0.0) >= FRESH_SECONDS:
            self._asking.add(lane)
            self._asked[lane] = now
            lane.submit(partial(_ask, store, path), partial(self._answered, lane))
        return self._free.get(lane)

    def _answered(self, lane: IWorkerThreads, free: int | None, _: BaseException | None) -> None:
        self._asking.discard(lane)
        if free is not None:
            self._free[lane] = free


def _ask(store: MessageStore, path: str) -> int:
    """Thread: any."""
    return store.environment.disk.free(path)
