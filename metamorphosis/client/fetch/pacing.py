"""
The pause before the next fetch of a partition, and its size: the original's arithmetic. Pure.

Source: ``FetchRequest``, ``SimpleFetchManager``.

Differs: fetches without a whole message have a counter of their own; with the original's shared
counter a long message that fits at last counts as failed too often, and is rejected.

Differs: the size grows at once to the length in the record's header; the original doubles it from
the seventh fetch on, ten seconds later. Doubling remains for pieces too short to hold a header.
"""

from __future__ import annotations

STEPS = 10
"""Steps of the longest pause."""


class Pacing:
    """
    The pace of one partition.

    :ivar delay_ms: pause before the next fetch.
    :ivar size: bytes of the next fetch.
    :ivar fruitless: fetches in a row that brought bytes but no whole message.
    :param max_delay_ms: ``max_delay_fetch_time_ms``.
    :param size: the subscription's, or less.
    :param limit: the size does not grow beyond it.
    :param fruitless_limit: ``max_increase_fetch_data_retries``.
    """

    __slots__ = ("_base", "_limit", "_max_delay", "_most", "_step", "delay_ms", "fruitless", "size")

    def __init__(self, max_delay_ms: int, size: int, limit: int, fruitless_limit: int) -> None:
        self.delay_ms = 0
        self.size = size
        self.fruitless = 0
        self._max_delay = max_delay_ms
        self._step = max_delay_ms // STEPS
        self._base = size
        self._limit = limit
        self._most = fruitless_limit

    def nothing(self) -> None:
        """No message was found, or an error occurred: a longer pause each time."""
        self.delay_ms = min(self.delay_ms + self._step, self._max_delay)

    def at_once(self) -> None:
        """No pause."""
        self.delay_ms = 0

    def processed(self, retries: int) -> None:
        """
        A batch was processed.

        :param retries: failures of its first message.
        """
        self.fruitless = 0
        self.delay_ms = min(self._step * retries, self._max_delay)

    def passed_over(self, too_long: bool) -> None:
        """A message was passed over: the shortest pause for a damaged one, none for a long one."""
        self.delay_ms = 0 if too_long else self._step

    def received(self, length: int) -> None:
        """
        ``length`` bytes came, with whole messages; a size that grew for a long message goes back in
        steps.
        """
        if length < self.size // 2:
            if self.size < self._base:
                self.size = self._base
            elif self.size > self._base:
                self.size = max(self.size // 2, self._base)

    def too_small(self, needed: int) -> bool:
        """
        Bytes came, but no whole message.

        :param needed: total length of the record; 0: not known.
        :returns: whether the size is large enough now; fetch at once.
        """
        self.fruitless += 1
        if self.size < needed <= self._limit:
            self.size = needed
            self.delay_ms = 0
            return True
        if self.fruitless > self._most + 1 and self.size <= self._limit // 2:
            self.size *= 2
        self.nothing()
        return False
