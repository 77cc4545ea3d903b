"""
A log that ends before the position of its reader: the broker has lost its tail, or all of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from metamorphosis.client.delivery.progress import Progress
from metamorphosis.client.model import Partition
from metamorphosis.client.network.links import Log
from metamorphosis.interfaces import IRuntime
from metamorphosis.wire.status import Status

IDLE_SECONDS = 60.0
"""Time without messages after which the broker is asked for the end of its log."""


class LostEnd:
    """
    Logs it, once for each position: new messages lie before the position and are not read. Thread:
    the loop's.

    :param ask: asks for the end of the log.
    """

    def __init__(
        self,
        runtime: IRuntime,
        log: Log,
        ask: Callable[[], Awaitable[int]],
        topic: str,
        partition: Partition,
    ) -> None:
        self._runtime = runtime
        self._log = log
        self._ask = ask
        self._topic = topic
        self._partition = partition
        self._idle = -1, 0.0  # offset without a message, and since when

    async def compare(self, status: int, progress: Progress) -> None:
        """A get was answered with this status, without messages."""
        offset = progress.resume_offset
        now: float = self._runtime.seconds()
        if status != Status.NOT_FOUND:
            self._idle = -1, 0.0
        elif self._idle[0] != offset:
            self._idle = offset, now
        elif now - self._idle[1] >= IDLE_SECONDS:
            self._idle = offset, float("inf")
            end = await self._ask()
            if end < offset == progress.resume_offset:
                self._log.error(
                    "{topic} {partition}: the log ends at {end}, before offset {offset}, where the"
                    " group is: messages in between will not be read; seek, or set"
                    " updateConsumerOffsets at the broker",
                    topic=self._topic,
                    partition=self._partition,
                    end=end,
                    offset=offset,
                )
