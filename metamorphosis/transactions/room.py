"""
The check that the disks have space for a commit.

A full disk must refuse a commit before it is recorded: after that the broker would have to stop.
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
"""Bytes that must be free beside the blocks of all commits in progress."""

FRESH_SECONDS = 1.0
"""Seconds for which the result of a check in a worker is used."""

PLENTY = 1 << 30
PLENTY_SECONDS = 0.1
"""Seconds for which a result of ``PLENTY`` bytes or more is used: no disk is filled faster."""


class Room:
    """
    The free space of the disks. Thread: reactor.

    The result for a disk with plenty of space is used for a moment. With data paths on several
    devices a disk is checked in its own threads, and the last result is used: a disk that hangs
    must not block the reactor.

    :param clock: the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._free: dict[IWorkerThreads, int] = {}
        self._asked: dict[IWorkerThreads, float] = {}
        self._asking: set[IWorkerThreads] = set()

    def check(self, store: MessageStore, size: int) -> None:
        """
        Check the disk of a store.

        :param size: bytes that commits are about to store.
        :raises StoreError: the disk of ``store`` has no space for them; the text names the file.
        :raises OSError: the free space cannot be read.
        """
        environment = store.environment
        free = self._known(store) if environment.apart else self._lately(store)
        if free is not None and free < size + MARGIN:
            path = store.last.path
            raise StoreError(f"{path}: No space left on device for {size} bytes")

    def _lately(self, store: MessageStore) -> int:
        """The free bytes of the disk; a result of a moment ago if that was plenty."""
        lane, now = store.environment.threads, self._clock.seconds()
        free = self._free.get(lane, 0)
        if free < PLENTY or now - self._asked[lane] >= PLENTY_SECONDS:
            self._asked[lane] = now
            free = self._free[lane] = _ask(store, store.last.path)
        return free

    def _known(self, store: MessageStore) -> int | None:
        lane, now = store.environment.threads, self._clock.seconds()
        if lane not in self._asking and now - self._asked.get(lane, 0.0) >= FRESH_SECONDS:
            self._asking.add(lane)
            self._asked[lane] = now
            lane.submit(partial(_ask, store, store.last.path), partial(self._answered, lane))
        return self._free.get(lane)

    def _answered(self, lane: IWorkerThreads, free: int | None, _: BaseException | None) -> None:
        self._asking.discard(lane)
        if free is not None:
            self._free[lane] = free


def _ask(store: MessageStore, path: str) -> int:
    """Free bytes of the disk. Thread: any."""
    return store.environment.disk.free(path)
