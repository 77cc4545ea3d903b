"""
Messages that cannot be delivered, because they are damaged or too long: past each of them by
itself, with an error in the log and an event for the program.

Differs: the original's consumer reads the segment file again from its start, for ever, and says so
only in its log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from metamorphosis.client.checked import checked
from metamorphosis.client.fetch.records import Damage
from metamorphosis.client.fetch.resuming import LogPlaces
from metamorphosis.client.fetch.searching import DamageSearch, Place
from metamorphosis.client.model import Partition, PassedOver
from metamorphosis.client.network.links import Log
from metamorphosis.interfaces import IRuntime

PassingListener = Callable[[PassedOver], object]
"""Is told of a message that is passed over."""


class PassedOverMessages:
    """
    Counts them, and tells the program. Thread: the loop's.

    :ivar damaged: how many could not be read.
    :ivar too_long: how many were longer than accepted.
    """

    def __init__(self, log: Log) -> None:
        self.damaged = 0
        self.too_long = 0
        self._listener: PassingListener | None = None
        self._log = log

    def tell(self, listener: PassingListener) -> None:
        """Of each one from now on."""
        self._listener = listener

    def __call__(self, message: PassedOver) -> None:
        """The ``PassingListener`` of what reads."""
        if message.too_long:
            self.too_long += 1
        else:
            self.damaged += 1
        self._log.error(
            "{topic} {partition}: the message at offset {offset} cannot be read, {reason};"
            " going on at offset {target}",
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            reason=message.reason,
            target=message.next_offset,
        )
        if self._listener is None:
            return
        try:
            self._listener(message)
        except Exception:
            self._log.failure(
                "The listener for messages that are passed over failed on {topic} {partition}"
                " offset {offset}",
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
            )


class PassesOver:
    """
    What passes messages over and says so: a consumer, a browser. Thread: the loop's.

    :ivar passed_over: counts them, ``damaged`` and ``too_long``.
    """

    def __init__(self, log: Log) -> None:
        self.passed_over = PassedOverMessages(log)

    @checked()
    def on_passed_over(self, listener: PassingListener) -> Self:
        """
        ``listener`` is called with a ``PassedOver`` for each message that is not delivered because
        it is damaged, or longer than ``max_body_bytes`` and the ``max_size`` of the fetch. The
        position is behind it then.

        :raises InvalidArgument: that cannot be called.
        """
        self.passed_over.tell(listener)
        return self


class Passing:
    """
    The search behind the damage of one partition, and its patience at the end of the log, where a
    message may be there of which not all can be seen yet. Thread: the loop's.

    :param patience: searches that find nothing but the end of the log before it is believed.
    """

    def __init__(
        self,
        runtime: IRuntime,
        places: LogPlaces,
        topic: str,
        partition: Partition,
        max_body: int,
        patience: int,
    ) -> None:
        self._runtime = runtime
        self._places = places
        self._topic = topic
        self._partition = partition
        self._max_body = max_body
        self._patience = patience
        self._in_vain = -1, 0  # offset behind which only the end was found, and how often

    async def behind(
        self, damage: Damage, data: bytes, wanted: Callable[[], bool]
    ) -> PassedOver | None:
        """
        What is passed over, and where reading goes on. None: it is not wanted any more, or not
        known yet.

        :param data: the log from the damage on, as far as it was fetched.
        """
        search = DamageSearch(self._runtime, self._places, damage, data, self._max_body, wanted)
        place = await search.run()
        if place is None or not wanted() or not self._is_believed(damage.offset, place):
            return None
        return PassedOver(
            self._topic,
            self._partition,
            damage.offset,
            place.offset,
            place.too_long,
            damage.reason,
        )

    def _is_believed(self, offset: int, place: Place) -> bool:
        if place.sure:
            return True
        before, count = self._in_vain
        count = count + 1 if before == offset else 1
        self._in_vain = offset, count
        return count > self._patience
