"""
Where reading goes on behind a record that cannot be read: as near as can be, so that no readable
message is passed over.

The questions, in this order; the first that has an answer ends the search:

1. Does the checksum fit a shorter or longer body that another header, or the end, follows? Then the
   record's length is wrong and that is its end, whatever stands there. That of an empty body is 0,
   as zeros are: it needs the proof of 2.
2. Is a record where this one says that it ends? That needs a proof: a whole record with a right
   checksum, the end of the segment or of the log, or a chain of headers that leads to one of these,
   as behind long and damaged records. Nobody knows what the bytes are that cannot be seen.
3. Which is the first whole record with a right checksum in the rest of the segment?
4. None: the next segment. At the end of the log that is for the caller to decide: a message may be
   there of which not all can be seen yet.

A readable record in front of the end that question 2 found is a message that was sent inside of
another one, or a message that would be passed over. It is taken for the former if no damaged record
is part of the proof, and if it begins with the body, or does not lead up to that end.

In memory at a time are two bodies of the greatest length that is accepted, and ``PIECE_BYTES``.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Final, NamedTuple, TypeVar

from metamorphosis.client.fetch.boundaries import (
    SANE_LENGTH,
    RecordEnd,
    Steps,
    find_record,
    is_empty,
    is_record,
    leads_to,
    may_begin,
)
from metamorphosis.client.fetch.records import Damage
from metamorphosis.client.fetch.resuming import LogPlaces
from metamorphosis.client.network.flow import sleep
from metamorphosis.errors import Moved, NotFound
from metamorphosis.interfaces import IRuntime
from metamorphosis.message import HEADER, HEADER_BYTES

T = TypeVar("T")

PIECE_BYTES: Final = 1 << 20
"""Fetched at a time."""
CHAIN_MOST: Final = 16
"""So many headers in a row that could be some are a chain of records."""


class Proof(Enum):
    """How well it is known that a record begins at a place."""

    NONE = auto()
    CHAIN = auto()
    """Headers lead from there to a place that is known, by way of records that are damaged."""
    SEEN = auto()
    """The same, by way of none or of records that may be whole."""


class Place(NamedTuple):
    """
    Where reading goes on.

    :ivar too_long: the record in front of it was whole, and longer than accepted.
    :ivar sure: False: it is the end of the log as it was, and nothing readable lies before it.
    """

    offset: int
    too_long: bool = False
    sure: bool = True


class _NotWanted(Exception):
    """Nobody waits for the result any more."""


class DamageSearch:
    """
    One search. Thread: the loop's.

    :param data: the log from ``damage.offset`` on, as far as it was fetched.
    :param max_body: longest body accepted, bytes.
    :param wanted: False: give it up.
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
        self._runtime = runtime
        self._places = places
        self._origin = damage.offset
        self._length = damage.length
        self._is_empty = damage.checksum == 0
        self._has_checksum = damage.checksum is not None and damage.checksum > 0
        self._max_body = max_body
        self._longest = max(SANE_LENGTH - 1, max_body)
        self._wanted = wanted
        self._data = bytearray(data)
        self._base = 0  # where data begin; like all places a distance from the record's beginning
        self._end = RecordEnd(damage.checksum or 0)
        self._known_border: tuple[int, bool] | None = None

    async def run(self) -> Place | None:
        """
        The place, None if it is not wanted any more.

        :raises MetaQError: the broker refused, or did not answer.
        """
        try:
            return await self._search()
        except _NotWanted:
            return None

    async def _search(self) -> Place:
        before = await self._record_before()
        if before is not None:
            return Place(before)
        length, within = self._length, HEADER_BYTES + self._max_body + 1
        if self._is_empty and await self._proof_of(HEADER_BYTES) is Proof.SEEN:
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
        A record that begins inside of the empty one in front. That was none then, but zeros of a
        damaged message and the start of the next one's header.
        """
        start = self._origin - HEADER_BYTES
        if start < 0:
            return None
        try:
            data = await self._places.raw(start, HEADER_BYTES)
            if len(data) < HEADER_BYTES or any(data[:8]):
                return None
            data = await self._places.raw(start, 2 * HEADER_BYTES + self._max_body)
        except Moved:
            return None  # the log begins behind it
        finally:
            self._check()
        for place in range(1, HEADER_BYTES):
            if is_record(data, place, self._max_body):
                return start + place
        return None

    # -- by the checksum

    async def _end_by_checksum(self, stop: int) -> int | None:
        """Question 1, as far as ``stop``."""
        while self._has_checksum:
            found = await self._end_within(stop)
            have = self._base + len(self._data)
            if found is not None or have >= stop + 4 or not await self._fill(have + 1):
                return found
        return None

    async def _end_within(self, stop: int) -> int | None:
        if not self._has_checksum:
            return None
        return await self._steps(self._end.find(self._data, self._base, stop))

    # -- by the length

    async def _end_by_length(self, claimed: int) -> int | None:
        """Question 2; a checksum that fits within a long body is still the better answer."""
        border, _ = await self._border()
        if claimed > border:
            return None
        proof = await self._proof_of(claimed)
        believed = proof is not Proof.NONE and await self._is_believed(claimed, proof)
        found = None
        if claimed > HEADER_BYTES + self._max_body:
            found = await self._far_end_by_checksum(claimed)
        elif believed:
            found = await self._later_end_by_checksum(claimed)
        return claimed if found is None and believed else found

    async def _is_believed(self, claimed: int, proof: Proof) -> bool:
        """Whether no message would be passed over that stands in front of the end."""
        stop = min(claimed, HEADER_BYTES + self._max_body)
        if proof is Proof.CHAIN or claimed > stop:
            await self._fill(stop + HEADER_BYTES + self._max_body)
        inside = await self._steps(find_record(self._data, 1, stop, self._max_body))
        if inside is None:
            return True
        if proof is Proof.CHAIN or inside < HEADER_BYTES or self._is_empty:
            return False
        if await self._is_of_the_log(inside, claimed):
            return False
        return inside == HEADER_BYTES or not leads_to(self._data, inside, claimed, self._max_body)

    async def _is_of_the_log(self, inside: int, claimed: int) -> bool:
        """
        Whether the record there was stored after this one and before the one at ``claimed``, by
        their ids: a message that a body holds has an older id, or one of another broker.
        """
        header = await self._read(claimed, HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            return False
        places = (self._data, 0), (self._data, inside), (header, 0)
        own, found, following = (HEADER.unpack_from(*each)[2] for each in places)
        return bool(own < found < following)

    async def _later_end_by_checksum(self, claimed: int) -> int | None:
        """Question 1 behind an end that may be that of a message inside of this one."""
        longest = HEADER_BYTES + self._max_body
        if claimed == HEADER_BYTES or is_record(self._data, HEADER_BYTES, self._max_body):
            await self._fill(2 * longest)  # its own end, and the record there, may not be here yet
        found = await self._end_within(min(len(self._data), longest))
        if found is None:
            return None
        border, _ = await self._border()
        if found + HEADER_BYTES > len(self._data):
            return found if found == border else None
        seen = is_record(self._data, found, self._max_body) or is_empty(self._data, found)
        return found if seen else None

    async def _far_end_by_checksum(self, stop: int) -> int | None:
        """Question 1 for a body that is not kept in memory."""
        data, base = bytearray(), self._end.place
        while self._has_checksum and base + len(data) < stop:
            have = base + len(data)
            piece = await self._fetch(have, min(PIECE_BYTES, stop - have))
            if not piece:
                break
            data += piece
            found = await self._steps(self._end.find(data, base, stop))
            if found is not None:
                return found
            del data[: self._end.place - base]
            base = self._end.place
        return None

    async def _proof_of(self, place: int) -> Proof:
        proof = Proof.SEEN
        for _ in range(CHAIN_MOST):
            header = await self._read(place, HEADER_BYTES)
            if not header:
                border, _ = await self._border()
                return proof if place == border else Proof.NONE
            if len(header) < HEADER_BYTES or not may_begin(header, 0, self._longest):
                return Proof.NONE
            size = HEADER_BYTES + HEADER.unpack_from(header)[0]
            if size <= HEADER_BYTES + self._max_body:
                record = await self._read(place, size)
                if len(record) < size:
                    return Proof.NONE
                if is_record(record, 0, self._max_body):
                    return proof
                if not is_empty(header, 0):
                    proof = Proof.CHAIN
            place += size
        return proof

    async def _read(self, place: int, size: int) -> bytes | bytearray:
        """Bytes from a place on, fewer than ``size`` if the segment or the log ends there."""
        start = place - self._base
        if start + size <= len(self._data):
            return self._data[start : start + size]
        border, _ = await self._border()
        size = min(size, border - place)
        if size <= 0:
            return b""
        found = bytearray()
        while len(found) < size:
            piece = await self._fetch(place + len(found), min(size - len(found), PIECE_BYTES))
            if not piece:
                break
            found += piece
        return found

    # -- by looking

    async def _next_record(self) -> Place:
        """Questions 3 and 4."""
        border, is_end = await self._border()
        start, margin = 1, HEADER_BYTES + self._max_body
        while True:
            await self._fill(start + PIECE_BYTES + margin)
            have = self._base + len(self._data)
            # What begins in front of this is there as a whole, if it is accepted.
            stop = have if have >= border else have - margin
            end = await self._end_within(stop)
            record = await self._steps(
                find_record(self._data, start - self._base, stop - self._base, self._max_body)
            )
            found = [
                each for each in (end, None if record is None else self._base + record) if each
            ]
            if found:
                return self._place(min(found))
            if have >= border:
                return Place(self._origin + border, sure=not is_end)
            if stop <= start:
                raise NotFound(
                    f"offset {self._origin + have} {self._places.what}: nothing is there"
                )
            start = stop
            done = min(start, self._end.place) if self._has_checksum else start
            del self._data[: done - self._base]
            self._base = done

    # -- data

    async def _fill(self, size: int) -> bool:
        """Have the bytes up to place ``size``, if there are so many; whether some have come."""
        border, _ = await self._border()
        have = self._base + len(self._data)
        size = min(size, border)
        came = False
        while have < size:
            piece = await self._fetch(have, PIECE_BYTES)
            if not piece:
                break
            self._data += piece
            have += len(piece)
            came = True
        return came

    async def _fetch(self, place: int, size: int) -> bytes:
        self._check()
        piece = await self._places.raw(self._origin + place, size)
        self._check()
        return piece

    async def _border(self) -> tuple[int, bool]:
        """
        Where the segment ends, which no record crosses, and whether that is the end of the log.
        """
        if self._known_border is None:
            end = await self._places.end()
            border = await self._places.next_segment(self._origin)
            self._check()
            self._known_border = border - self._origin, border >= end
            del self._data[border - self._origin :]  # of the next segment
        return self._known_border

    async def _steps(self, steps: Steps[T]) -> T:
        return await in_steps(self._runtime, steps, self._check)

    def _check(self) -> None:
        if not self._wanted():
            raise _NotWanted


async def in_steps(
    runtime: IRuntime, steps: Steps[T], between: Callable[[], object] = lambda: None
) -> T:
    """
    The result of work that others are let in between.

    :param between: called each time; what it raises ends the work.
    """
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        await sleep(runtime, 0)
        between()
