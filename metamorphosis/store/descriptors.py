"""
The open segment files of all stores: opened on demand, closed again when there are too many.

The descriptors of a process are limited; every partition has a segment that is appended to, and
older ones that are read. Those that are not in use are closed, oldest first, when the bound is
reached.

Differs: the original keeps a descriptor for every segment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from metamorphosis.errors import StoreError

if TYPE_CHECKING:
    from metamorphosis.store.segment import Segment

TRIES = 50
"""Segments that are looked at to make room for one; if all are needed the bound is exceeded."""


class DescriptorsTaken(StoreError):
    """No segment can be closed in favour of another that is to stay open."""


class Log(Protocol):
    """The owner of segments."""

    def needs(self, segment: Segment) -> bool:
        """Whether the descriptor must stay open although it is not read."""


class Descriptors:
    """
    Which segments are open. Thread: reactor.

    :param bound: how many, as long as that many can be closed.
    """

    def __init__(self, bound: int = 1 << 30) -> None:
        self._bound = bound
        self._open: dict[Segment, Log] = {}

    @property
    def scarce(self) -> bool:
        """Whether the bound is reached: workers then open files for themselves."""
        return len(self._open) >= self._bound

    def open(self, log: Log, segment: Segment, at_once: bool = True) -> None:
        """
        Open a segment of ``log``.

        :param at_once: the caller needs it for this moment only, so that the bound may be exceeded.
        :raises DescriptorsTaken: too many are in use.
        :raises StoreError: the file cannot be opened; naming it.
        """
        self.make_room()
        if not at_once and self.scarce:
            raise DescriptorsTaken(f"All descriptors are in use, {segment.path} has to wait")
        segment.reopen()
        self._open[segment] = log

    def opened(self, log: Log, segment: Segment) -> None:
        """A segment is open already: it was made just now."""
        self._open[segment] = log
        self.make_room(0)

    def make_room(self, count: int = 1) -> None:
        """Close segments until ``count`` more can be opened."""
        tries = 0
        while len(self._open) + count > self._bound and tries < TRIES:
            segment = next(iter(self._open))
            log = self._open.pop(segment)
            if segment.fd >= 0:
                if segment.in_use or log.needs(segment):
                    self._open[segment] = log
                    tries += 1
                else:
                    segment.close()
