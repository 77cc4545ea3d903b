"""
A clock that a test sets while processes run: the time of day of those processes, and of nobody
else. A small C library is preloaded into them.

A test says::

    clock = SetClock(self.mktemp())
    broker = SetBroker(clock, self.mktemp())
    broker.start()
    clock.step(-DAY)
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

from tests.support.broker import BrokerProcess, environment
from tests.support.embedded import EmbeddedZooKeeper

DAY = 86400
SOURCE = Path(__file__).with_suffix(".c")


def missing() -> str | None:
    """The reason why no clock can be set here, for a test's ``skip``, or ``None``."""
    return None if shutil.which("cc") else "no cc: Debian package gcc"


class SetClock:
    """
    The clock of all processes that get ``environment``.

    :param directory: made if missing; holds library and state.
    """

    def __init__(self, directory: str) -> None:
        directory = os.path.abspath(directory)
        os.makedirs(directory, exist_ok=True)
        self._library = os.path.join(directory, "setclock.so")
        self._state = os.path.join(directory, "seconds")
        self._moved = 0
        self._write(os.O_CREAT)
        command = ["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC"]
        subprocess.run([*command, "-o", self._library, str(SOURCE)], check=True)

    def step(self, seconds: int) -> None:
        """Set it forward, or back, for all processes at once."""
        self._moved += seconds
        self._write(0)

    def _write(self, flags: int) -> None:
        descriptor = os.open(self._state, os.O_WRONLY | flags, 0o600)
        try:
            os.pwrite(descriptor, struct.pack("l", self._moved), 0)
        finally:
            os.close(descriptor)

    def environment(self) -> dict[str, str]:
        """Of a process of ours whose time of day this is."""
        return {**environment(), **self.variables()}

    def variables(self) -> dict[str, str]:
        """What makes it so."""
        return {"LD_PRELOAD": self._library, "SET_CLOCK": self._state}


class SetBroker(BrokerProcess):
    """A broker with such a clock."""

    def __init__(self, clock: SetClock, directory: str, **options: Any) -> None:
        super().__init__(directory, **options)
        self._clock = clock

    def environment(self) -> dict[str, str]:
        """With the clock."""
        return self._clock.environment()


class SetZooKeeper(EmbeddedZooKeeper):
    """An embedded ZooKeeper with such a clock."""

    def __init__(self, clock: SetClock, directory: str, tick_time: int = 500) -> None:
        super().__init__(directory, tick_time)
        self._clock = clock

    def environment(self) -> dict[str, str]:
        """With the clock."""
        return self._clock.environment()
