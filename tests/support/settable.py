"""Real reactors whose clock, the time of day, the test sets."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.selectreactor import SelectReactor

DAY = 86400.0


class SettableReactor(SelectReactor):
    """
    Make it go on by ``doIteration`` and ``runUntilCurrent``.

    :ivar now: seconds since 1970.
    :ivar sinks: seconds by which the clock is set back after every reading.
    """

    def __init__(self) -> None:
        self.now = 2e9
        self.sinks = 0.0
        super().__init__()

    def seconds(self) -> float:
        """The time of day."""
        now = self.now
        self.now -= self.sinks
        return now

    def turn(self) -> None:
        """One turn of the loop, without waiting."""
        self.runUntilCurrent()
        self.doIteration(0)

    def discard(self) -> None:
        """Close its descriptors."""
        for reader in [*self._internalReaders]:
            self._removeInternalReader(reader)
            reader.connectionLost(None)


class SettableAsyncioReactor(AsyncioSelectorReactor):
    """The same on asyncio."""

    def __init__(self) -> None:
        self.now = 2e9
        self.sinks = 0.0
        self.loop = asyncio.new_event_loop()
        super().__init__(self.loop)

    def seconds(self) -> float:
        """The time of day."""
        now = self.now
        self.now -= self.sinks
        return now

    def turn(self) -> None:
        """A few turns of the loop, without waiting."""
        for _ in range(5):
            self.loop.run_until_complete(asyncio.sleep(0))

    def discard(self) -> None:
        """Close its descriptors."""
        for reader in [*self._internalReaders]:
            self._removeInternalReader(reader)
            reader.connectionLost(None)
        self.loop.close()


REACTORS: tuple[type[Any], ...] = (SettableReactor, SettableAsyncioReactor)
