"""
A fetched piece of the log on its way to the listener, and pieces without a whole message: longer
messages are put together, damaged ones are passed over.
"""

from __future__ import annotations

from metamorphosis.client.delivery.delivery import MOST
from metamorphosis.client.fetch.asking import Asking
from metamorphosis.client.fetch.partitionstate import PartitionState
from metamorphosis.client.fetch.passing import Passing
from metamorphosis.client.fetch.records import FetchedRecords
from metamorphosis.client.model import ReceivedMessage
from metamorphosis.client.network.complaints import some_of
from metamorphosis.client.network.flow import sleep
from metamorphosis.message import HEADER_BYTES

OVERLAP_BYTES = 64 << 10
"""From this length on, the loop does other work before each list of messages of an answer: the next
request leaves, and other partitions get their turn."""


class Pieces:
    """
    The pieces of one partition, one at a time. Thread: the loop's.

    :ivar delivering: the listener has messages at present.
    """

    __slots__ = ("_asking", "_passing", "_state", "delivering")

    def __init__(self, state: PartitionState, asking: Asking) -> None:
        self.delivering = False
        self._state = state
        self._asking = asking
        self._passing = Passing(
            state.runtime,
            state.places,
            state.topic,
            state.partition,
            state.max_body,
            state.rules.config.max_increase_fetch_data_retries,
        )

    async def received(self, body: bytes) -> None:
        """Deliver the messages of an answer for the present offset."""
        state = self._state
        start = state.unfinished.data
        data = start + body if start else body
        records = state.records(state.progress.resume_offset, data)
        messages = records.read(MOST)
        if not messages:
            if not await self._pass_by(records):
                await self._incomplete(records, data)
            return
        state.unfinished.clear()
        state.pacing.received(len(data))
        complete = await self._deliver_all(records, messages, len(data) >= OVERLAP_BYTES)
        if complete is None:
            return
        state.pacing.processed(state.progress.retries)
        passes = records.jumped or records.damage is not None
        if passes and complete and not state.is_stopping:
            await self._pass_by(records)

    async def _deliver_all(
        self, records: FetchedRecords, messages: list[ReceivedMessage], overlaps: bool
    ) -> bool | None:
        """
        Deliver ``messages`` and all that follow them in ``records``.

        :param overlaps: let the loop do other work before each list.
        :returns: whether all were delivered; None: the consumer stops.
        """
        state = self._state
        while messages:
            if records.exhausted and not state.progress.retries:
                self._asking.ask_ahead(records.next_offset)
            if overlaps:
                await sleep(state.runtime, 0)
                if state.is_stopping:
                    return None
                if state.progress.resume_offset != messages[0].offset:
                    return False  # a seek or rollback moved the position
            self.delivering = True
            try:
                complete = await state.delivery.deliver(messages)
            finally:
                self.delivering = False
            if not complete:
                return False
            messages = records.read(MOST)
        return True

    async def _pass_by(self, records: FetchedRecords) -> bool:
        """Go on after a jump or damage at the end of ``records``; False: there is neither."""
        state = self._state
        if records.jumped:  # past messages that the group's filter rejects
            state.unfinished.clear()
            state.pacing.at_once()
            state.progress.move_to(records.next_offset)
        elif records.damage is not None:
            await self._damaged(records)
        else:
            return False
        return True

    async def _incomplete(self, records: FetchedRecords, data: bytes) -> None:
        """
        No whole message came. A broker sends at most its ``maxTransferSize`` at a time: a longer
        message is put together.
        """
        state = self._state
        needed = records.needed
        ends_here = 0 < len(data) < HEADER_BYTES <= state.pacing.size
        if state.pacing.too_small(needed):
            state.unfinished.clear()
        elif ends_here:
            if await state.places.is_segment_end(records.next_offset + len(data)):
                records.cut_off()
                await self._damaged(records)
        elif needed and state.unfinished.keep(records.next_offset, data):
            state.pacing.at_once()

    async def never_whole(self) -> None:
        """The log ends inside a message: its length is wrong, or the rest is not there yet."""
        state = self._state
        offset, data = state.progress.resume_offset, state.unfinished.data
        if await state.unfinished.is_damaged():
            records = state.records(offset, data)
            records.cut_off()
            await self._damaged(records)
        elif state.unfinished.is_remarkable:
            place = f"{state.topic} {state.partition} at offset {offset} after {len(data)} bytes"
            state.rules.gathering.add(type(self), place, self._tell_unfinished)

    def _tell_unfinished(self, places: list[str]) -> None:
        self._state.log.warn(
            "The log ends inside a message; waiting for the rest: {places}", places=some_of(places)
        )

    async def _damaged(self, records: FetchedRecords) -> None:
        """Go on after the damage at the end of ``records``; a whole but too long one costs no
        pause."""
        state = self._state
        damage = records.damage
        assert damage is not None
        state.unfinished.clear()
        self._asking.forget()
        state.pacing.nothing()

        def wanted() -> bool:
            return not state.is_stopping and state.progress.resume_offset == damage.offset

        passed = await self._passing.after(damage, records.rest, wanted)
        if passed is not None:
            state.pacing.passed_over(passed.too_long)
            state.progress.move_to(passed.next_offset)
            state.rules.passed_over(passed)
