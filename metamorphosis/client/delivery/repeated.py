"""The messages that came again although they were processed, as one line for all partitions."""

from __future__ import annotations

from metamorphosis.client.model import ReceivedMessage
from metamorphosis.client.network.complaints import GATHER_SECONDS, some_of
from metamorphosis.client.network.links import Log
from metamorphosis.interfaces import IRuntime, Timer


class Repeated:
    """Of one consumer. Thread: the loop's."""

    def __init__(self, runtime: IRuntime, log: Log) -> None:
        self._runtime = runtime
        self._log = log
        self._count = 0
        self._places: dict[tuple[str, object], int] = {}  # the first offset of each partition
        self._timer: Timer | None = None

    def add(self, count: int, first: ReceivedMessage) -> None:
        """
        They are not delivered again.

        :param first: of the messages among which they came.
        """
        self._count += count
        self._places.setdefault((first.topic, first.partition), first.offset)
        if self._timer is None:
            self._timer = self._runtime.call_later(GATHER_SECONDS, self._tell)

    def close(self) -> None:
        """Log the gathered places."""
        if self._timer is not None:
            self._timer.cancel()
            self._tell()

    def _tell(self) -> None:
        places = [
            f"{topic} {where} from offset {at} on" for (topic, where), at in self._places.items()
        ]
        self._log.info(
            "{count} messages were processed before and are not delivered again: {places}",
            count=self._count,
            places=some_of(places),
        )
        self._count = 0
        self._places.clear()
        self._timer = None
