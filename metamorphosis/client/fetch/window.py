"""
The log from a damaged record on, as far as it was fetched, up to the end of its segment.

Places are distances from the beginning of the damaged record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from metamorphosis.client.fetch.boundaries import Steps
from metamorphosis.client.fetch.resuming import LogPlaces
from metamorphosis.client.network.flow import sleep
from metamorphosis.interfaces import IRuntime

T = TypeVar("T")

PIECE_BYTES: Final = 1 << 20
"""Bytes of one fetch."""


class NotWanted(Exception):
    """The result of the search is not wanted any more."""


class LogWindow:
    """
    A piece of the log that moves forward. Thread: the loop's.

    :param origin: offset of the damaged record.
    :param data: the log from ``origin`` on, as far as it was fetched.
    :param wanted: False ends the search with ``NotWanted``.
    :ivar data: the bytes from ``base`` on.
    :ivar base: a place.
    """

    __slots__ = ("_border", "_origin", "_places", "_runtime", "_wanted", "base", "data")

    def __init__(
        self,
        runtime: IRuntime,
        places: LogPlaces,
        origin: int,
        data: bytes,
        wanted: Callable[[], bool],
    ) -> None:
        self.data = bytearray(data)
        self.base = 0
        self._runtime = runtime
        self._places = places
        self._origin = origin
        self._wanted = wanted
        self._border: tuple[int, bool] | None = None

    @property
    def end(self) -> int:
        """The place after the data."""
        return self.base + len(self.data)

    def drop_before(self, place: int) -> None:
        """Forget the bytes before ``place``."""
        del self.data[: place - self.base]
        self.base = place

    def rewind(self) -> None:
        """Begin at the damaged record again, with nothing."""
        self.data.clear()
        self.base = 0

    async def fill(self, size: int) -> bool:
        """Fetch up to place ``size``, or to the border; whether bytes have come."""
        border, _ = await self.border()
        have = self.end
        size = min(size, border)
        came = False
        while have < size:
            piece = await self.fetch(have, PIECE_BYTES)
            if not piece:
                break
            self.data += piece
            have += len(piece)
            came = True
        return came

    async def read(self, place: int, size: int) -> bytes | bytearray:
        """Bytes from a place on, fewer than ``size`` if the segment or the log ends there."""
        start = place - self.base
        if start + size <= len(self.data):
            return self.data[start : start + size]
        border, _ = await self.border()
        size = min(size, border - place)
        if size <= 0:
            return b""
        found = bytearray()
        while len(found) < size:
            piece = await self.fetch(place + len(found), min(size - len(found), PIECE_BYTES))
            if not piece:
                break
            found += piece
        return found

    async def fetch(self, place: int, size: int) -> bytes:
        """Bytes of the broker, which are not kept."""
        self.check()
        piece = await self._places.raw(self._origin + place, size)
        self.check()
        return piece

    async def border(self) -> tuple[int, bool]:
        """
        The end of the segment, which no record crosses, and whether it is the end of the log.
        """
        if self._border is None:
            end = await self._places.end()
            border = await self._places.next_segment(self._origin)
            self.check()
            self._border = border - self._origin, border >= end
            del self.data[border - self._origin :]  # of the next segment
        return self._border

    async def steps(self, steps: Steps[T]) -> T:
        """See ``in_steps``."""
        return await in_steps(self._runtime, steps, self.check)

    def check(self) -> None:
        """:raises NotWanted: the search is not wanted any more."""
        if not self._wanted():
            raise NotWanted


async def in_steps(
    runtime: IRuntime, steps: Steps[T], between: Callable[[], object] = lambda: None
) -> T:
    """
    The result of a long search, which lets the loop do other work in between.

    :param between: called after each step; its exception ends the search.
    """
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        await sleep(runtime, 0)
        between()
