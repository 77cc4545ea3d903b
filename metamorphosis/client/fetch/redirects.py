"""
The position moves without a message: after a 301 of the broker, from ``MAX_OFFSET`` to the end of
the log, and from ``AT_TIME`` to the place of the consumer's ``offset_at_ms``.

Differs: a 301 to an earlier offset is followed when the broker has insisted for a while; the
original goes back over messages that the broker has handed out and not flushed yet.
"""

from __future__ import annotations

from metamorphosis.client.fetch.partitionstate import PartitionState
from metamorphosis.client.fetch.timesearch import TimeSearch
from metamorphosis.client.network.complaints import some_of
from metamorphosis.client.settings import MAX_OFFSET
from metamorphosis.errors import NotFound, TimeNotKnown
from metamorphosis.wire.status import Status

SENT_BACK_SECONDS = 15.0
"""A broker must insist for so long that its log ends before the position: ``unflushInterval`` and a
margin."""


class Redirects:
    """The redirects of one partition. Thread: the loop's."""

    __slots__ = ("_sent_back", "_state")

    def __init__(self, state: PartitionState) -> None:
        self._state = state
        self._sent_back = -1, 0.0  # offset before which the log ends by a 301, and its first time

    async def find_start(self) -> bool:
        """Replace ``MAX_OFFSET`` or ``AT_TIME`` by the place that it means; whether to go on."""
        state = self._state
        meant = state.progress.resume_offset
        if meant == MAX_OFFSET:
            found = await state.end_of_log()
        else:
            found = await self._place_of_time()
        if not state.is_stopping and state.progress.resume_offset == meant:
            state.progress.move_to(found)
        return not state.is_stopping

    async def _place_of_time(self) -> int:
        """The place of ``offset_at_ms``; the beginning, if the messages do not tell the time."""
        state, rules = self._state, self._state.rules
        milliseconds = rules.config.offset_at_ms
        if milliseconds is None:  # not of this consumer: nothing is left out
            return 0
        search = TimeSearch(
            state.runtime,
            state.connection,
            state.topic,
            state.partition,
            state.max_body,
            rules.timeout,
        )
        try:
            return await search.find(milliseconds)
        except NotFound:
            return 0
        except TimeNotKnown as error:
            state.log.warn(
                "The place of {milliseconds} ms since 1970 is not known, the group begins at the"
                " beginning: {error}",
                milliseconds=milliseconds,
                error=error,
            )
            return await state.places.nearest(0)

    def follow(self, body: bytes) -> None:
        """301: the log begins, ends, or continues for this group at the offset in ``body``."""
        state = self._state
        before = state.progress.resume_offset
        if state.unfinished.data or not body.isdigit():
            # The request was not for the start of a message: ask again for that.
            state.unfinished.clear()
            state.complain(Status.MOVED, body)
            state.pacing.nothing()
            return
        after = int(body)
        if after > before:
            state.pacing.at_once()
        else:
            state.pacing.nothing()
        if after < before and not self._is_sent_back(before):
            return
        if after != before and state.complaint != Status.MOVED:
            state.complaint = Status.MOVED
            place = f"{state.topic} {state.partition} at {after} instead of {before}"
            state.rules.gathering.add(type(self), place, self._tell)
        state.progress.move_to(after)

    def _tell(self, places: list[str]) -> None:
        self._state.log.warn(
            "There is nothing at the next offset any more; going on where the broker says:"
            " {places}",
            places=some_of(places),
        )

    def _is_sent_back(self, offset: int) -> bool:
        """
        Whether the broker has said for a while that its log ends before ``offset``.

        A broker hands out messages that are not flushed yet; with ``updateConsumerOffsets`` it
        answers 301 to a request for the offset after them.
        """
        now = self._state.runtime.seconds()
        if self._sent_back[0] != offset:
            self._sent_back = offset, now
        return now - self._sent_back[1] >= SENT_BACK_SECONDS
