"""The requests of one fetch loop: the pause before each, and the answer for the present offset."""

from __future__ import annotations

from metamorphosis.client.delivery.progress import OPEN
from metamorphosis.client.fetch.gets import Gets, Request
from metamorphosis.client.fetch.partitionstate import PartitionState
from metamorphosis.client.network.flow import Event
from metamorphosis.client.network.replies import NOT_SENT, VALUE

CONNECT_SECONDS = 5.0
"""A broker that is out of reach for so long is logged, with its partitions."""


class Asking:
    """
    At most one request is under way, or answered and not read yet. Thread: the loop's.
    """

    __slots__ = ("_gets", "_request", "_state", "_wake")

    def __init__(self, state: PartitionState) -> None:
        self._state = state
        self._wake = Event(state.runtime)
        self._gets = Gets(state.rules, state.connection, state.topic, state.partition, self._wake)
        self._request: Request | None = None  # the last one sent
        state.delivery.changed = self._wake.pulse

    def wake(self) -> None:
        """Look again whether to go on."""
        self._wake.pulse()

    def forget(self) -> None:
        """The answer of the last request is not wanted any more."""
        self._request = None

    async def until_changed(self) -> None:
        """The partition is paused: forget the last request, and wait for the end of the pause."""
        self.forget()
        await self._wake.wait()

    def ask_ahead(self, offset: int) -> None:
        """Send the next request while the messages before ``offset`` are delivered."""
        self._request = self._gets.ask(offset, self._state.pacing.size)

    async def pause(self) -> None:
        """Wait for the time of the pacing, and for a connection."""
        state = self._state
        progress = state.progress
        delay_ms = state.pacing.delay_ms
        if delay_ms:
            until = state.runtime.seconds() + delay_ms / 1000
            while progress.state is OPEN:
                left = until - state.runtime.seconds()
                if left <= 0:
                    break
                await self._wake.wait(left)
        while progress.state is OPEN and not state.connection.is_connected:
            state.runtime.start(self._wake_when_connected())
            await self._wake.wait()

    async def _wake_when_connected(self) -> None:
        state = self._state
        if not await state.connection.ready(CONNECT_SECONDS) and not state.is_stopping:
            state.complain(NOT_SENT, b"")
        self._wake.pulse()

    async def answer(self) -> Request | None:
        """
        The answer for the present offset: of the request that was sent ahead if it has brought
        bytes or is under way, otherwise of a new one. None: the answer is not wanted any more.
        """
        state = self._state
        progress, unfinished = state.progress, state.unfinished
        offset = unfinished.at(progress.resume_offset)
        request = self._request
        if request is None or request.offset != offset or request.done and request.status != VALUE:
            request = self._request = self._gets.ask(offset, state.pacing.size)
        while not request.done:
            await self._wake.wait()
            if progress.state is not OPEN:
                return None
            if offset != unfinished.at(progress.resume_offset):
                state.pacing.processed(progress.retries)
                return None  # a seek or rollback moved the position
        self._request = None
        return request
