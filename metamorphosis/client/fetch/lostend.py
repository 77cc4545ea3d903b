"""
A log that ends before the position of its reader: the broker has lost its tail, or all of it.
"""

from __future__ import annotations

from metamorphosis.client.fetch.partitionstate import PartitionState
from metamorphosis.client.network.complaints import some_of
from metamorphosis.wire.status import Status

IDLE_SECONDS = 60.0
"""Time without messages after which the broker is asked for the end of its log."""


class LostEnd:
    """
    Logs it, once for each position: new messages lie before the position and are not read. Thread:
    the loop's.
    """

    def __init__(self, state: PartitionState) -> None:
        self._state = state
        self._idle = -1, 0.0  # offset without a message, and since when

    async def compare(self, status: int) -> None:
        """A get was answered with this status, without messages."""
        state = self._state
        offset, now = state.progress.resume_offset, state.runtime.seconds()
        if status != Status.NOT_FOUND:
            self._idle = -1, 0.0
        elif self._idle[0] != offset:
            self._idle = offset, now
        elif now - self._idle[1] >= IDLE_SECONDS:
            self._idle = offset, float("inf")
            end = await state.end_of_log()
            if end < offset == state.progress.resume_offset:
                place = f"{state.topic} {state.partition} at {offset} instead of {end}"
                state.rules.gathering.add(type(self), place, self._tell)

    def _tell(self, places: list[str]) -> None:
        self._state.log.error(
            "The log ends before the offset where the group is: messages in between will not be"
            " read; seek, or set updateConsumerOffsets at the broker: {places}",
            places=some_of(places),
        )
