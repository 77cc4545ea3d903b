"""The progress of a long recovery: a log line every few seconds, also within one large file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

T = TypeVar("T")

PROGRESS_SECONDS = 5.0
"""Seconds between two lines."""

MIB = 1 << 20


class Progress:
    """
    The progress of one recovery. Thread: reactor; the counts may be advanced in workers.

    :param clock: the timers' clock.
    :param files: paths of the redo files.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, files: Sequence[str]) -> None:
        self._clock = clock
        self._files = files
        self._number = 0
        self._step: Callable[[], str] = str
        self._done = 0
        self._timer: IDelayedCall | None = None
        self._later()

    def _later(self) -> None:
        self._timer = self._clock.callLater(PROGRESS_SECONDS, self._say)

    def stop(self) -> None:
        """Log no more lines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def next_file(self) -> None:
        """The next file is begun."""
        self._number += 1

    def reading(self, size: int, position: Callable[[], int]) -> None:
        """
        A file is being read.

        :param position: returns the number of bytes read, out of ``size``.
        """
        self._step = lambda: f"{position() / MIB:.0f} of {size / MIB:.0f} MiB are read"

    def counting(self, things: Sequence[T], what: str) -> Iterable[T]:
        """
        Iterate over ``things``, in any thread, and count them.

        :param what: the things and the work done on them, for the line.
        """
        self._done = 0
        self._step = lambda: f"{self._done} of {len(things)} {what}"
        return self._counted(things)

    def _counted(self, things: Sequence[T]) -> Iterator[T]:
        for thing in things:
            yield thing
            self._done += 1

    def _say(self) -> None:
        self._later()
        self._log.info(
            "Recovering the transaction journal: {path}, file {number} of {count}: {step}",
            path=self._files[self._number - 1],
            number=self._number,
            count=len(self._files),
            step=self._step(),
        )
