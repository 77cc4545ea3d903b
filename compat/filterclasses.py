"""Consumer filters of the tests' brokers."""

from __future__ import annotations

from metamorphosis.message import Message


class EverySecond:
    """Counts, as the filter of the original's own test does."""

    def __init__(self) -> None:
        self._asked = 0

    def accept(self, group: str, message: Message) -> bool:
        """Whether it is the second, fourth, ... message asked about."""
        self._asked += 1
        return self._asked % 2 == 0


class Wanted:
    """Looks at the message alone."""

    def accept(self, group: str, message: Message) -> bool:
        """Whether its first word is "yes"."""
        return message.data.startswith(b"yes ")
