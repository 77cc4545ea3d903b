"""What was fetched of a partition and is not in its log yet, and the memory that it takes."""

from __future__ import annotations

from collections import deque
from typing import Final

from metamorphosis.replication.follower.budget import Budget
from metamorphosis.replication.follower.records import complete_first

FETCH_BYTES: Final = 1 << 20
"""A ``get`` asks for so many at most, as the original's slave."""


class Fetched:
    """
    Bytes of one log that join each other. Thread: reactor.

    Memory is taken from the ``Budget`` before a request is sent, by the caller; it is given back
    when the bytes are in the log or dropped, that of bytes which did not come at once.

    :param start: the end of our log.
    :ivar stored_to: the end of our log as far as it was copied here.
    :ivar position: of the next byte to ask for.
    :ivar needed: bytes of the long record that is being fetched in pieces; 0: there is none.
    """

    def __init__(self, budget: Budget, start: int) -> None:
        self.stored_to = self.position = start
        self.needed = 0
        self._budget = budget
        self._held = 0  # bytes of the budget for what is here
        self._reserve = 0  # bytes taken for the long record and not asked for now
        self._tail = b""  # from our end on: a part of a record
        self._waiting: deque[bytes | memoryview] = deque()  # after it
        self._pieces: list[bytes] = []  # of the long record

    @property
    def is_waiting(self) -> bool:
        """Whether something is here that was not looked at."""
        return bool(self._waiting)

    @property
    def is_empty(self) -> bool:
        """Whether there is not even a part of a record."""
        return not self._held

    def begin_long(self, needed: int) -> None:
        """The memory for a long record was taken: its pieces come next."""
        self.needed = self._reserve = needed

    def next_piece(self) -> int:
        """The size of the next request for the long record."""
        size = min(FETCH_BYTES, self.needed - self._held)
        self._reserve -= size
        return size

    def add(self, body: bytes, size: int) -> bool:
        """
        Bytes have come.

        :param size: that of the request.
        :returns: whether there is something to look at: the long record is whole, or there is none.
        """
        self.not_come(size - len(body))
        self._held += len(body)
        self.position += len(body)
        if self.needed:
            self._pieces.append(body)
            if self._held < self.needed:
                return False
            body = b"".join(self._pieces)
            self._pieces.clear()
            self.needed = 0
        self._waiting.append(body)
        return True

    def not_come(self, size: int) -> None:
        """Bytes that were asked for."""
        if self.needed:
            self._reserve += size
        else:
            self._budget.give_back(size)

    def take(self, joined: bool) -> bytes | memoryview:
        """
        What is to be looked at, from our end on: the rest of a record that is here in part comes
        first and alone.

        :param joined: everything at once instead, at the price of a copy.
        """
        body = self._waiting.popleft()
        tail, self._tail = self._tail, b""
        if not tail:
            return body
        if joined:
            return b"".join((tail, body))
        first, rest = complete_first(tail, body)
        if rest:
            self._waiting.appendleft(rest)
        return first

    def keep(self, tail: bytes) -> None:
        """What was taken ends with a part of a record."""
        self._tail = tail

    def stored(self, size: int) -> None:
        """So many bytes are in the log."""
        self.stored_to += size
        self._held -= size
        self._budget.give_back(size)

    def drop(self) -> None:
        """Begin again at the end of our log. Nothing is under way or being stored."""
        size, self._held, self._reserve = self._held + self._reserve, 0, 0
        self.needed = 0
        self._tail = b""
        self._waiting.clear()
        self._pieces.clear()
        self.position = self.stored_to
        if size:
            self._budget.give_back(size)
