"""
The lanes of a producer that keeps the order: of each partition one message is under way, and the
next one waits for its outcome.

A message whose partition cannot be chosen yet waits in a lane of its topic, and the later messages
of the topic wait there too: until the partition is known, any of them might overtake it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from metamorphosis.client.model import Partition
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.producer.puts import Put
from metamorphosis.interfaces import IRuntime


class Lanes:
    """
    Thread: the loop's.

    :param attempt: sends the first message of a lane.
    :param select: chooses partition and broker of a message, or raises.
    :param failed: is told, later, of a message whose partition cannot be chosen.
    :param expire: removes the messages of a lane whose time to wait is over.
    """

    def __init__(
        self,
        runtime: IRuntime,
        attempt: Callable[[Put], None],
        select: Callable[[Put], BrokerConnection],
        failed: Callable[[Put, Exception], None],
        expire: Callable[[deque[Put]], None],
    ) -> None:
        self._runtime = runtime
        self._attempt = attempt
        self._select = select
        self._failed = failed
        self._expire = expire
        # The first message is under way; in a lane without a partition, one is looked for.
        self._lanes: dict[tuple[str, Partition | None], deque[Put]] = {}

    def hold_up(self, put: Put) -> bool:
        """Whether a partition for an earlier message of the topic is still being looked for."""
        lanes = self._lanes
        return bool(lanes) and put.partition is None and (put.message[0], None) in lanes

    def enter(self, put: Put) -> None:
        """Send the message, or let it wait for those of its lane."""
        key = put.message.topic, put.partition
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = deque((put,))
            self._attempt(put)
        else:
            put.since = self._runtime.seconds()
            lane.append(put)

    def leave(self, put: Put, late: bool = False) -> None:
        """
        The outcome of the lane's first message is known: attempt the next one.

        :param late: the broker did not answer.
        """
        key = put.message.topic, put.partition
        lane = self._lanes.get(key)
        if lane is None or lane[0] is not put:
            return
        lane.popleft()
        if late:
            self._expire(lane)
        if lane:
            self._attempt(lane[0])
        else:
            del self._lanes[key]

    def place(self, put: Put) -> bool:
        """
        Look for a partition if the message is the first one of a topic's lane, and move it and
        those after it to the lanes of their partitions. False if it is in no such lane.
        """
        topic = put.message[0]
        unplaced = self._lanes.get((topic, None))
        if unplaced is None or unplaced[0] is not put:
            return False
        while unplaced:
            put = unplaced[0]
            try:
                self._select(put)
            except Exception as error:  # also whatever a selector raises
                if put.partition is None:
                    self._runtime.call_soon(self._failed, put, error)
                    break
            unplaced.popleft()
            if not unplaced:
                del self._lanes[topic, None]
            self.enter(put)
        return True
