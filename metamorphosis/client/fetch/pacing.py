"""
When and how much to fetch next from a partition: the original's arithmetic. Pure.

Source: ``FetchRequest``, ``SimpleFetchManager``.

Differs: fetches without a whole message have a counter of their own; with the original's shared
one a big message that fits at last counts as one that failed too often, and is rejected.

Differs: the size becomes what the record's header says at once; the original doubles it from the
seventh fetch on, ten seconds later. Doubling is left for pieces too short to hold a header.
"""

from __future__ import annotations

STEPS = 10
"""The longest pause has so many steps."""


class Pacing:
    """
    :ivar delay_ms: before the next fetch.
    :ivar size: of the next fetch, bytes.
    :ivar fruitless: fetches in a row that brought bytes but no whole message.
    :param max_delay_ms: ``max_delay_fetch_time_ms``.
    :param size: what the subscription asks for, or less.
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
        """Nothing was found, or something went wrong: a longer pause each time."""
        self.delay_ms = min(self.delay_ms + self._step, self._max_delay)

    def at_once(self) -> None:
        """No pause."""
        self.delay_ms = 0

    def processed(self, retries: int) -> None:
        """
        A batch was processed.

        :param retries: how often its first message has failed, 0 when it did not.
        """
        self.fruitless = 0
        self.delay_ms = min(self._step * retries, self._max_delay)

    def passed_over(self, too_long: bool) -> None:
        """A message was passed over: the shortest pause for a damaged one, none for a long one."""
        self.delay_ms = 0 if too_long else self._step

    def received(self, length: int) -> None:
        """
        So many bytes came, whole messages among them; a size that grew for a big message goes back
        in steps.
        """
        if length < self.size // 2:
            if self.size < self._base:
                self.size = self._base
            elif self.size > self._base:
                self.size = max(self.size // 2, self._base)

    def too_small(self, needed: int) -> bool:
        """
        Bytes came, but no whole message.

        :param needed: bytes of the record, 0 if that is not known.
        :returns: the size has become large enough; fetch at once.
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
