"""Fetched bytes of a partition that are not yet in its log, and their memory."""

from __future__ import annotations

from collections import deque
from typing import Final

from metamorphosis.replication.follower.budget import Budget
from metamorphosis.replication.follower.records import complete_first

FETCH_BYTES: Final = 1 << 20
"""Largest size of a ``get``, as of the original's slave."""


class Fetched:
    """
    Adjacent bytes of one log. Thread: reactor.

    The caller takes memory from the ``Budget`` before a request is sent. It is returned when the
    bytes are in the log or dropped, and at once for bytes that did not arrive.

    :param start: the end of our log.
    :ivar stored_to: the end of our log after the copied bytes.
    :ivar position: of the next byte to request.
    :ivar needed: bytes of the long record that is fetched in pieces; 0: none.
    """

    def __init__(self, budget: Budget, start: int) -> None:
        self.stored_to = self.position = start
        self.needed = 0
        self._budget = budget
        self._held = 0  # bytes of the budget for the present bytes
        self._reserve = 0  # bytes taken for the long record and not requested now
        self._tail = b""  # from our end on: a part of a record
        self._waiting: deque[bytes | memoryview] = deque()  # after it
        self._pieces: list[bytes] = []  # of the long record

    @property
    def is_waiting(self) -> bool:
        """Whether received bytes were not checked yet."""
        return bool(self._waiting)

    @property
    def is_empty(self) -> bool:
        """Whether no byte is held, not even a part of a record."""
        return not self._held

    def begin_long(self, needed: int) -> None:
        """Begin with a long record, whose memory is taken: its pieces come next."""
        self.needed = self._reserve = needed

    def next_piece(self) -> int:
        """The size of the next request for the long record."""
        size = min(FETCH_BYTES, self.needed - self._held)
        self._reserve -= size
        return size

    def add(self, body: bytes, size: int) -> bool:
        """
        Take received bytes.

        :param size: that of the request.
        :returns: whether bytes can be checked: the long record is whole, or there is none.
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
        """Return the memory of requested bytes that did not arrive."""
        if self.needed:
            self._reserve += size
        else:
            self._budget.give_back(size)

    def take(self, joined: bool) -> bytes | memoryview:
        """
        The next bytes to check, from our end: the rest of an incomplete record comes first and
        alone.

        :param joined: all bytes at once instead, at the cost of a copy.
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
        """Keep the part of a record at the end of the taken bytes."""
        self._tail = tail

    def stored(self, size: int) -> None:
        """Return the memory of ``size`` bytes that are in the log now."""
        self.stored_to += size
        self._held -= size
        self._budget.give_back(size)

    def drop(self) -> None:
        """Begin again at the end of our log. Called without a pending request or write."""
        size, self._held, self._reserve = self._held + self._reserve, 0, 0
        self.needed = 0
        self._tail = b""
        self._waiting.clear()
        self._pieces.clear()
        self.position = self.stored_to
        if size:
            self._budget.give_back(size)
