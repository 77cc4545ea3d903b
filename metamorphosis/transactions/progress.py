"""How far a long recovery is: a line every few seconds, also within one large file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

T = TypeVar("T")

PROGRESS_SECONDS = 5.0
"""Between two lines."""

MIB = 1 << 20


class Progress:
    """
    Thread: reactor; ``count`` is for workers.

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
        """No more lines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def next_file(self) -> None:
        """The next of the files is begun."""
        self._number += 1

    def reading(self, size: int, position: Callable[[], int]) -> None:
        """
        A file is read.

        :param position: tells how far, out of ``size`` bytes.
        """
        self._step = lambda: f"{position() / MIB:.0f} of {size / MIB:.0f} MiB are read"

    def counting(self, things: Sequence[T], what: str) -> Iterable[T]:
        """
        Go through ``things``, in any thread.

        :param what: the things, and what has been done to those that were gone through.
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
