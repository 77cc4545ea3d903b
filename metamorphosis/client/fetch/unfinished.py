"""
The start of a message of which no answer of the broker's holds all: it sends at most its
``maxTransferSize`` at a time, or the rest is not there yet, or the message's length is wrong.
"""

from __future__ import annotations

from metamorphosis.client.fetch.boundaries import ends_early, holds_record
from metamorphosis.client.fetch.searching import in_steps
from metamorphosis.interfaces import IRuntime


class Unfinished:
    """
    Of one partition. Thread: the loop's.

    :param patience: times that nothing more comes before the bytes are looked through for others.
    :ivar data: what there is of it, nothing most of the time.
    """

    def __init__(self, runtime: IRuntime, max_body: int, patience: int) -> None:
        self.data = b""
        self._runtime = runtime
        self._max_body = max_body
        self._patience = patience
        self._offset = 0
        self._missed = 0  # times that nothing more of it was there
        self._searched = 0  # bytes of it that do not end early

    def clear(self) -> None:
        """Ask for the message from its start."""
        self.data = b""

    def at(self, offset: int) -> int:
        """Where to ask on for the message that begins at ``offset``, if it is still that one."""
        if self._offset != offset:
            self.data = b""
        return offset + len(self.data)

    def keep(self, offset: int, data: bytes) -> bool:
        """Go on behind these bytes, which begin with the message; whether they are more."""
        if len(data) <= len(self.data):
            return False
        if not self.data:
            self._missed = self._searched = 0
        self.data = data
        self._offset = offset
        return True

    async def is_damaged(self) -> bool:
        """
        Nothing more is there. No broker shows a part of a message for long: its length is wrong if
        it ends earlier by its checksum, or if whole messages lie where its body should be.
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
        """It has just taken too long."""
        return self._missed == self._patience + 1
