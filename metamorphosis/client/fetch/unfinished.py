"""
The start of a message that no answer holds as a whole: the broker sends at most its
``maxTransferSize`` at a time, or the rest is not there yet, or the message's length is wrong.
"""

from __future__ import annotations

from metamorphosis.client.fetch.boundaries import ends_early, holds_record
from metamorphosis.client.fetch.window import in_steps
from metamorphosis.interfaces import IRuntime


class Unfinished:
    """
    The unfinished message of one partition. Thread: the loop's.

    :param patience: answers without further bytes before the bytes are searched for other messages.
    :ivar data: its bytes; mostly none.
    """

    def __init__(self, runtime: IRuntime, max_body: int, patience: int) -> None:
        self.data = b""
        self._runtime = runtime
        self._max_body = max_body
        self._patience = patience
        self._offset = 0
        self._missed = 0  # answers without further bytes
        self._searched = 0  # bytes without an early end

    def clear(self) -> None:
        """Ask for the message from its start."""
        self.data = b""

    def at(self, offset: int) -> int:
        """The offset after the bytes of the message at ``offset``; of another one, drop them."""
        if self._offset != offset:
            self.data = b""
        return offset + len(self.data)

    def keep(self, offset: int, data: bytes) -> bool:
        """Keep these bytes, which begin with the message; whether they are more than before."""
        if len(data) <= len(self.data):
            return False
        if not self.data:
            self._missed = self._searched = 0
        self.data = data
        self._offset = offset
        return True

    async def is_damaged(self) -> bool:
        """
        No further bytes came. A broker shows a part of a message only for a short time: its length
        is wrong if it ends earlier by its checksum, or if whole messages lie in its body.
        """
        data = self.data
        self._missed += 1
        if len(data) > self._searched:
            self._searched = len(data)
            if await in_steps(self._runtime, ends_early(data, self._max_body)):
                return True
        if self._missed <= self._patience:
            return False
        return await in_steps(self._runtime, holds_record(data, self._max_body))

    @property
    def is_remarkable(self) -> bool:
        """Whether the patience has just ended."""
        return self._missed == self._patience + 1
