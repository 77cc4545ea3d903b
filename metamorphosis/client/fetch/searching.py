"""
Where reading goes on after a record that cannot be read: at the nearest place, so that no readable
message is passed over.

The questions, in this order; the first answer ends the search:

1. Does the checksum fit a shorter or longer body that another header, or the end, follows? Then the
   record's length is wrong and this is its end, whatever the bytes there are. The checksum of an
   empty body is 0, as zeros are: it needs the proof of 2, and the id of the record that follows the
   header must not show that it was sent inside of this one.
2. Does a record begin where this one ends by its length? That needs a proof: a whole record with a
   right checksum, the end of the segment or of the log, or a chain of headers that leads to one of
   these, as after long and damaged records. Bytes that were not read prove nothing.
3. Which is the first whole record with a right checksum in the rest of the segment?
4. None: the next segment. At the end of the log the caller decides: a message may be there that
   cannot be read to its end yet.

A readable record before the end that question 2 found is a message that was sent inside of another
one, or a message that would be passed over; see ``inside``. If a damaged record is part of the
proof, each one within the longest accepted body is taken for the latter.

Memory holds at most two bodies of the greatest accepted length, and ``PIECE_BYTES``.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Final, NamedTuple

from metamorphosis.client.fetch.boundaries import (
    SANE_LENGTH,
    RecordEnd,
    begins_row,
    find_record,
    is_empty,
    is_record,
    may_begin,
)
from metamorphosis.client.fetch.inside import RecordsInside, ids_between, ids_fit
from metamorphosis.client.fetch.records import Damage
from metamorphosis.client.fetch.resuming import LogPlaces
from metamorphosis.client.fetch.window import PIECE_BYTES, LogWindow, NotWanted
from metamorphosis.errors import Moved, NotFound
from metamorphosis.interfaces import IRuntime
from metamorphosis.message import HEADER, HEADER_BYTES

CHAIN_MOST: Final = 16
"""A row of possible headers of this length is a chain of records."""


class Proof(Enum):
    """The proof that a record begins at a place."""

    NONE = auto()
    CHAIN = auto()
    """Headers lead from there to a known place, over damaged records."""
    SEEN = auto()
    """The same, over no record or over records that may be whole."""


class Place(NamedTuple):
    """
    Where reading goes on.

    :ivar too_long: the record before it was whole, and longer than accepted.
    :ivar sure: False: it is the present end of the log, and no readable record lies before it.
    """

    offset: int
    too_long: bool = False
    sure: bool = True


class DamageSearch:
    """
    One search. Thread: the loop's.

    One long class: the rules by which a record may follow the damage share what is known of the
    damaged one, and of the candidates so far.

    :param data: the log from ``damage.offset`` on, as far as it was fetched.
    :param max_body: longest body accepted, bytes.
    :param wanted: False ends the search.
    """

    def __init__(
        self,
        runtime: IRuntime,
        places: LogPlaces,
        damage: Damage,
        data: bytes,
        max_body: int,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._places = places
        self._window = LogWindow(runtime, places, damage.offset, data, wanted)
        self._origin = damage.offset
        self._length = damage.length
        self._is_empty = damage.checksum == 0
        self._has_checksum = damage.checksum is not None and damage.checksum > 0
        self._max_body = max_body
        self._longest = max(SANE_LENGTH - 1, max_body)
        self._end = RecordEnd(damage.checksum or 0)

    async def run(self) -> Place | None:
        """
        The place; None: it is not wanted any more.

        :raises MetaQError: the broker refused, or did not answer.
        """
        try:
            return await self._search()
        except NotWanted:
            return None

    async def _search(self) -> Place:
        before = await self._record_before()
        if before is not None:
            return Place(before)
        length, within = self._length, HEADER_BYTES + self._max_body + 1
        if self._is_empty and await self._is_followed():
            return self._place(HEADER_BYTES)
        if length is not None and 0 <= length <= self._max_body:
            found = await self._end_by_checksum(HEADER_BYTES + length)
        else:
            found = await self._end_by_checksum(within)
        if found is not None:
            return self._place(found)
        if length is not None and 0 <= length <= self._longest:
            found = await self._end_by_length(HEADER_BYTES + length)
            if found is not None:
                return self._place(found)
        found = await self._end_by_checksum(within)
        if found is not None:
            return self._place(found)
        return await self._next_record()

    def _place(self, found: int) -> Place:
        length = found - HEADER_BYTES
        return Place(self._origin + found, self._max_body < length == self._length)

    async def _record_before(self) -> int | None:
        """
        A record that begins inside of the empty one before. That one was no record then, but zeros
        of a damaged message and the start of the next one's header.
        """
        start = self._origin - HEADER_BYTES
        if start < 0:
            return None
        try:
            header = await self._places.raw(start, HEADER_BYTES)
            if len(header) < HEADER_BYTES or any(header[:8]):
                return None
        except Moved:
            return None  # the log begins after it
        finally:
            self._window.check()
        data = header + await self._window.read(0, 3 * HEADER_BYTES + self._max_body)
        for place in range(1, HEADER_BYTES):
            if begins_row(data, place, self._max_body):
                return start + place
        return None

    # -- by the checksum

    async def _is_followed(self) -> bool:
        """Whether a record follows the header, and is not one that this body holds."""
        if await self._proof_of(HEADER_BYTES) is not Proof.SEEN:
            return False
        length = self._length
        if length is None or not 0 < length <= self._max_body:
            return True
        claimed = HEADER_BYTES + length
        if await self._proof_of(claimed) is not Proof.SEEN:
            return True
        own, following = await self._ids_around(claimed)
        first: int = HEADER.unpack(await self._window.read(HEADER_BYTES, HEADER_BYTES))[2]
        ids = ids_between(own, following, sure=True)
        return not ids_fit(own, following) or any(first in each for each in ids)

    async def _end_by_checksum(self, stop: int) -> int | None:
        """Question 1, as far as ``stop``."""
        window = self._window
        while self._has_checksum:
            found = await self._end_within(stop)
            have = window.end
            if found is not None or have >= stop + 4 or not await window.fill(have + 1):
                return found
        return None

    async def _end_within(self, stop: int) -> int | None:
        if not self._has_checksum:
            return None
        window = self._window
        return await window.steps(self._end.find(window.data, window.base, stop))

    # -- by the length

    async def _end_by_length(self, claimed: int) -> int | None:
        """Question 2; a checksum that fits within a long body is the better answer."""
        border, _ = await self._window.border()
        if claimed > border:
            return None
        proof, found = await self._proof_of(claimed), None
        if claimed > HEADER_BYTES + self._max_body:
            found = await self._far_end_by_checksum(claimed)
        if found is not None:
            return found
        if proof is Proof.NONE or not await self._is_believed(claimed, proof):
            return None
        if claimed <= HEADER_BYTES + self._max_body:
            found = await self._later_end_by_checksum(claimed)
        return claimed if found is None else found

    async def _is_believed(self, claimed: int, proof: Proof) -> bool:
        """Whether no message before the end would be passed over."""
        near = min(claimed, HEADER_BYTES + self._max_body)
        if proof is Proof.CHAIN or claimed > near:
            await self._window.fill(near + HEADER_BYTES + self._max_body)
        own, following = await self._ids_around(claimed)
        ids = ids_between(own, following, proof is Proof.SEEN)
        is_doubtful = self._is_empty and not ids_fit(own, following)
        distrusted = near if proof is Proof.CHAIN or is_doubtful else HEADER_BYTES
        if claimed > near and not ids_fit(own, following):
            distrusted = claimed
        inside = RecordsInside(claimed, ids, distrusted, self._max_body)
        if await self._window.steps(inside.hold_a_message(self._window.data, 0, near)):
            return False
        if await self._follows_empty_one(claimed, ids):
            return False
        return claimed == near or not await self._passes_over(inside, near, claimed)

    async def _follows_empty_one(self, claimed: int, ids: tuple[range, ...]) -> bool:
        """Whether an empty record with one of the ids ends there: only its neighbours show it."""
        start = max(claimed - HEADER_BYTES, HEADER_BYTES)
        last = await self._window.read(start, claimed - start)
        if len(last) < HEADER_BYTES or not is_empty(last, 0):
            return False
        return any(HEADER.unpack(last)[2] in each for each in ids)

    async def _ids_around(self, claimed: int) -> tuple[int, int | None]:
        """Of the damaged record, and of the one at the claimed end, if the segment has one."""
        own: int = HEADER.unpack_from(self._window.data)[2]
        header = await self._window.read(claimed, HEADER_BYTES)
        return own, HEADER.unpack(header)[2] if len(header) == HEADER_BYTES else None

    async def _passes_over(self, inside: RecordsInside, near: int, claimed: int) -> bool:
        """Whether a message of its own is between; in pieces, as it is long."""
        window, margin, start = self._window, HEADER_BYTES + self._max_body, near
        passes = False
        while start < claimed and not passes:
            window.drop_before(start)
            await window.fill(min(start + PIECE_BYTES + margin, claimed))
            stop = claimed if window.end >= claimed else window.end - margin
            passes = stop <= start  # bytes that were not read prove nothing
            if not passes:
                passes = await window.steps(inside.hold_a_message(window.data, start, stop))
            start = stop
        window.rewind()
        return passes

    async def _later_end_by_checksum(self, claimed: int) -> int | None:
        """Question 1 after an end that may be the end of a message inside of this one."""
        window, max_body = self._window, self._max_body
        longest = HEADER_BYTES + max_body
        if claimed == HEADER_BYTES or is_record(window.data, HEADER_BYTES, max_body):
            await window.fill(2 * longest)  # with the true end and the record after it
            found = await self._end_within(min(len(window.data), 2 * longest))
        else:
            found = await self._end_within(min(len(window.data), longest))
        if found is None:
            return None
        if found > longest:
            return found if await self._holds_what_is_before(found) else None
        border, _ = await window.border()
        if found + HEADER_BYTES > len(window.data):
            return found if found == border else None
        if is_record(window.data, found, max_body) or is_empty(window.data, found):
            return found
        return found if await self._proof_of(found) is Proof.SEEN else None  # one too long follows

    async def _far_end_by_checksum(self, stop: int) -> int | None:
        """Question 1 for a body that is too long for the window."""
        data, base = bytearray(), self._end.place
        if self._has_checksum and base == stop and self._end.fits:
            return stop  # one byte longer than accepted
        while self._has_checksum and base + len(data) < stop:
            have = base + len(data)
            piece = await self._window.fetch(have, min(PIECE_BYTES, stop - have))
            if not piece:
                break
            data += piece
            found = await self._window.steps(self._end.find(data, base, stop))
            if found is not None:
                return found
            del data[: self._end.place - base]
            base = self._end.place
        return None

    async def _proof_of(self, place: int) -> Proof:
        proof = Proof.SEEN
        for _ in range(CHAIN_MOST):
            header = await self._window.read(place, HEADER_BYTES)
            if not header:
                border, _ = await self._window.border()
                return proof if place == border else Proof.NONE
            if len(header) < HEADER_BYTES or not may_begin(header, 0, self._longest):
                return Proof.NONE
            size = HEADER_BYTES + HEADER.unpack_from(header)[0]
            if size <= HEADER_BYTES + self._max_body:
                record = await self._window.read(place, size)
                if len(record) < size:
                    return Proof.NONE
                if is_record(record, 0, self._max_body):
                    return proof
                if not is_empty(header, 0):
                    proof = Proof.CHAIN
            place += size
        return proof

    async def _holds_what_is_before(self, end: int) -> bool:
        """
        Whether the records before an end that the checksum found far after the beginning were sent
        inside of this one, by their ids; as far as they are still in memory.
        """
        window = self._window
        if window.base > 0 or await self._proof_of(end) is not Proof.SEEN:
            return False
        ids = ids_between(*await self._ids_around(end), sure=True)
        inside = RecordsInside(end, ids, HEADER_BYTES, self._max_body)
        return not await window.steps(inside.hold_a_message(window.data, 0, end))

    # -- by looking

    async def _next_record(self) -> Place:
        """Questions 3 and 4."""
        window = self._window
        border, is_end = await window.border()
        start, margin = 1, HEADER_BYTES + self._max_body
        while True:
            await window.fill(start + PIECE_BYTES + margin)
            have, base = window.end, window.base
            # An accepted record that begins before this place is in the window as a whole.
            stop = have if have >= border else have - margin
            end = await self._end_within(stop)
            record = await window.steps(
                find_record(window.data, start - base, stop - base, self._max_body)
            )
            found = [each for each in (end, None if record is None else base + record) if each]
            if end is not None and await self._holds_what_is_before(end):
                return self._place(end)
            if found:
                return self._place(min(found))
            if have >= border:
                return Place(self._origin + border, sure=not is_end)
            if stop <= start:
                raise NotFound(
                    f"offset {self._origin + have} {self._places.what}: nothing is there"
                )
            start = stop
            window.drop_before(min(start, self._end.place) if self._has_checksum else start)
