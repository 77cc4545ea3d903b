"""
The open segment files of all stores: opened on demand, closed again when there are too many.

The descriptors of a process are limited; every partition has a segment that is appended to, and
older ones that are read. When the limit is reached, segments that are not in use are closed, oldest
first.

Differs: the original keeps a descriptor for every segment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from metamorphosis.errors import StoreError

if TYPE_CHECKING:
    from metamorphosis.store.segment import Segment

TRIES = 50
"""Segments that are checked to make room for one; if all are needed, the limit is exceeded."""


class DescriptorsTaken(StoreError):
    """No segment can be closed to make room for another that must stay open."""


class Log(Protocol):
    """The owner of segments."""

    def needs(self, segment: Segment) -> bool:
        """Whether the descriptor must stay open although it is not read."""


class Descriptors:
    """
    The open segments. Thread: reactor.

    :param bound: the limit, exceeded only when no segment can be closed.
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

        :param at_once: the caller needs the descriptor only during this call, so the limit may be
            exceeded.
        :raises DescriptorsTaken: too many are in use.
        :raises StoreError: the file cannot be opened; naming it.
        """
        self.make_room()
        if not at_once and self.scarce:
            raise DescriptorsTaken(f"All descriptors are in use, {segment.path} has to wait")
        segment.reopen()
        self._open[segment] = log

    def opened(self, log: Log, segment: Segment) -> None:
        """Register a segment that was created open."""
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
