"""
``python -m benchmarks.timerprobe FILE OPTIONS``: ``twistd OPTIONS`` with a timer of 1 kHz in its
reactor.

SIGUSR1 begins a measurement, SIGUSR2 ends it and writes how late the timer came, in milliseconds,
to ``FILE``. Every millisecond counts, those as well that a late call has passed over.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

from twisted.scripts.twistd import run

PERIOD = 1e-3


class Probe:
    """The timer. Thread: reactor."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self._path = path
        self._late: list[float] = []
        self._due = 0.0

    def start(self) -> None:
        """From now on."""
        signal.signal(signal.SIGUSR1, lambda number, frame: self._late.clear())
        signal.signal(signal.SIGUSR2, lambda number, frame: self._write())
        self._due = time.monotonic() + PERIOD
        self._reactor.callLater(PERIOD, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        while self._due <= now:
            self._late.append(now - self._due)
            self._due += PERIOD
        self._reactor.callLater(self._due - now, self._tick)

    def _write(self) -> None:
        late = sorted(self._late)
        found = {
            "p50": late[len(late) // 2] * 1e3,
            "p99": late[len(late) * 99 // 100] * 1e3,
            "max": late[-1] * 1e3,
        }
        temporary = f"{self._path}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(found, file)
        os.replace(temporary, self._path)


def main(argv: list[str]) -> None:
    """Becomes ``twistd``."""
    from twisted.internet import reactor

    path, *rest = argv
    sys.argv = ["twistd", *rest]
    reactor.callWhenRunning(Probe(reactor, path).start)  # type: ignore[attr-defined]
    run()


if __name__ == "__main__":
    main(sys.argv[1:])
