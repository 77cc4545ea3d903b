"""
Messages that cannot be delivered, because they are damaged or too long: each of them is passed over
alone, with an error in the log and an event for the program.

Differs: the original's consumer reads the segment file again and again from its start, and only its
log says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Self

from metamorphosis.client.checked import checked
from metamorphosis.client.fetch.records import Damage
from metamorphosis.client.fetch.resuming import LogPlaces
from metamorphosis.client.fetch.searching import DamageSearch, Place
from metamorphosis.client.model import Partition, PassedOver
from metamorphosis.client.network.links import Log
from metamorphosis.client.network.recurrences import Recurrences
from metamorphosis.interfaces import IRuntime

LOGGED: Final = 10
"""Messages that are passed over with a line of their own, before the log counts them."""

PassingListener = Callable[[PassedOver], object]
"""Called with each message that is passed over."""


class PassedOverMessages:
    """
    Counts the messages that are passed over, and calls the program's listener. Thread: the loop's.

    :ivar damaged: number of messages that could not be read.
    :ivar too_long: number of messages longer than accepted.
    """

    def __init__(self, runtime: IRuntime, log: Log) -> None:
        self.damaged = 0
        self.too_long = 0
        self._listener: PassingListener | None = None
        self._log = log
        self._recurrences = Recurrences(runtime, log, LOGGED)

    def tell(self, listener: PassingListener) -> None:
        """Call ``listener`` for each one from now on."""
        self._listener = listener

    def __call__(self, message: PassedOver) -> None:
        """The ``PassingListener`` of the readers."""
        if message.too_long:
            self.too_long += 1
        else:
            self.damaged += 1
        kind = "are too long" if message.too_long else "are damaged"
        place = f"partition {message.partition} offset {message.offset}"
        if self._recurrences.begins(f"messages of {message.topic} {kind}", place):
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
            what = f"the listener for messages of {message.topic} that are passed over fails"
            if self._recurrences.begins(what, place):
                self._log.failure(
                    "The listener for messages that are passed over failed on {topic} {partition}"
                    " offset {offset}",
                    topic=message.topic,
                    partition=message.partition,
                    offset=message.offset,
                )

    def close(self) -> None:
        """Log what was counted."""
        self._recurrences.close()


class PassesOver:
    """
    A part of ``Consumer`` and ``TopicBrowser``, which pass messages over. Thread: the loop's.

    :ivar passed_over: their numbers, ``damaged`` and ``too_long``.
    """

    def __init__(self, runtime: IRuntime, log: Log) -> None:
        self.passed_over = PassedOverMessages(runtime, log)

    @checked()
    def on_passed_over(self, listener: PassingListener) -> Self:
        """
        ``listener`` is called with a ``PassedOver`` for each message that is not delivered because
        it is damaged, or longer than ``max_body_bytes`` and the ``max_size`` of the fetch. The
        position is already after it.

        Costs nothing.

        :returns: this object.
        :raises InvalidArgument: ``listener`` cannot be called.
        """
        self.passed_over.tell(listener)
        return self


class Passing:
    """
    The search after the damage of one partition, and its patience at the end of the log, where a
    message may be whole and not readable to its end yet. Thread: the loop's.

    :param patience: searches that find only the end of the log before this end is believed.
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
        self._in_vain = -1, 0  # offset after which only the end was found, and how often

    async def after(
        self, damage: Damage, data: bytes, wanted: Callable[[], bool]
    ) -> PassedOver | None:
        """
        The damaged message, and the offset after it. None: not wanted any more, or not known yet.

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
