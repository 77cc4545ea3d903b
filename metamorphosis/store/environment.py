"""The parts that all stores of a broker share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from metamorphosis.store.descriptors import Descriptors
from metamorphosis.store.disk import Disk
from metamorphosis.store.flushing import FlushSchedule

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from metamorphosis.errors import StoreStalled
    from metamorphosis.interfaces import IWorkerThreads
    from metamorphosis.store.batch import Collecting


@dataclass(frozen=True, slots=True)
class StoreEnvironment:
    """
    The parts that all stores of a broker share.

    :ivar threads: run the calls that may block for long.
    :ivar clock: the reactor's time.
    :ivar schedule: timers of later flushes.
    :ivar on_dirty: called when a batch is opened; the broker's turn commits it at its end.
    :ivar max_segment_size: bytes; a segment that has reached it after a commit gets a successor.
    :ivar flush_delay: seconds between background flushes in direct mode; 0 or less: no such
        flushes, messages become readable by threshold or interval only, as in the original.
    :ivar disk: the system calls.
    :ivar descriptors: the open segments; a table of its own unless one is given.
    :ivar apart: writes also run in the threads, so that a disk that hangs never blocks the reactor.
    :ivar gather: group commits adapt to the behaviour of clients; see ``gathering``.
    :ivar stalled: returns the reason why the disk takes no writes now; None while it answers.
    """

    threads: IWorkerThreads
    clock: IReactorTime
    schedule: FlushSchedule
    on_dirty: Callable[[Collecting], None] = lambda store: None
    max_segment_size: int = 1 << 30
    flush_delay: float = 0.025
    disk: Disk = Disk()
    descriptors: Descriptors = field(default_factory=Descriptors)
    apart: bool = False
    gather: bool = False
    stalled: Callable[[], StoreStalled | None] = lambda: None
