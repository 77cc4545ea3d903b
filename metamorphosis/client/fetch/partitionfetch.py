"""
The fetch loop of one partition: ask, deliver, pause.

Source: ``SimpleFetchManager.FetchRequestRunner``.
"""

from __future__ import annotations

from metamorphosis.client.delivery.delivery import PartitionDelivery
from metamorphosis.client.delivery.progress import OPEN, PAUSED
from metamorphosis.client.fetch.asking import Asking
from metamorphosis.client.fetch.gets import FetchRules, Request
from metamorphosis.client.fetch.lostend import LostEnd
from metamorphosis.client.fetch.partitionstate import PartitionState
from metamorphosis.client.fetch.pieces import Pieces
from metamorphosis.client.fetch.redirects import Redirects
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.flow import Event
from metamorphosis.client.network.replies import LOST, VALUE
from metamorphosis.client.settings import AT_TIME
from metamorphosis.errors import MetaQError
from metamorphosis.wire.status import Status


class PartitionFetch:
    """
    Thread: the loop's.

    :param size: bytes of a fetch.
    :param max_body: longest message accepted, bytes.
    :ivar ended: set when ``run`` has ended, or its listener is not waited for any longer.
    """

    def __init__(
        self,
        rules: FetchRules,
        delivery: PartitionDelivery,
        connection: BrokerConnection,
        size: int,
        max_body: int,
    ) -> None:
        self.delivery = delivery
        self.ended = Event(rules.runtime)
        self._rules = rules
        state = self._state = PartitionState(rules, delivery, connection, size, max_body)
        self._asking = Asking(state)
        self._pieces = Pieces(state, self._asking)
        self._redirects = Redirects(state)
        self._lost_end = LostEnd(state)

    def stop(self) -> None:
        """End ``run`` when the listener has finished its call."""
        self.delivery.stop()
        if not self._pieces.delivering:
            self.ended.set()
        self._asking.wake()

    def pause(self) -> None:
        """Fetch and deliver nothing before ``resume``; the listener finishes its call."""
        self.delivery.pause()

    def resume(self) -> None:
        """Go on after ``pause``."""
        self.delivery.resume()

    def abandon(self) -> None:
        """Do not wait for the listener any longer."""
        self.delivery.abandon()
        self.ended.set()

    async def run(self) -> None:
        """Fetch and deliver until ``stop``; ends with ``abandon`` at the latest."""
        self._rules.runtime.start(self._loop())
        await self.ended.wait()

    async def _loop(self) -> None:
        try:
            await self._until_stopped()
        except GeneratorExit:  # the loop is gone: ``ended`` has no listeners left
            raise
        except BaseException:
            self.ended.set()
            raise
        self._asking.forget()
        self.ended.set()

    async def _until_stopped(self) -> None:
        state = self._state
        while not state.is_stopping:
            try:
                await self._once()
                continue
            except MetaQError as error:
                state.say(type(error), error)
            except Exception:
                state.log.failure(
                    "Fetching {topic} {partition} at offset {offset} failed",
                    topic=state.topic,
                    partition=state.partition,
                    offset=state.progress.resume_offset,
                )
            self._asking.forget()
            state.unfinished.clear()
            state.pacing.nothing()

    async def _once(self) -> None:
        """One request, and the work that its answer asks for."""
        state = self._state
        progress = state.progress
        if progress.state is PAUSED:
            await self._asking.until_changed()
            return
        await self._asking.pause()
        if progress.state is not OPEN:
            return
        if progress.resume_offset >= AT_TIME and not await self._redirects.find_start():
            return
        request = await self._asking.answer()
        if request is None:
            return
        if request.status == VALUE:
            state.complaint = None
            await self._pieces.received(request.body)
        elif request.status == Status.MOVED:
            self._redirects.follow(request.body)
        elif request.status == Status.NOT_FOUND and state.unfinished.data:
            self._nothing(request)
            await self._pieces.never_whole()
        else:
            self._nothing(request)
            await self._lost_end.compare(request.status)

    def _nothing(self, request: Request) -> None:
        """No message, a refusal, or no answer: the pause grows, unless the broker has waited."""
        state, rules = self._state, self._rules
        if request.status == Status.NOT_FOUND:
            state.complaint = None
            waited = (state.runtime.seconds() - request.asked_at) * 1000
            if rules.wait_ms and waited >= rules.wait_ms / 2:
                state.pacing.at_once()
                return
        else:
            state.unfinished.clear()
            if request.status != LOST:  # the connection logs that itself
                state.complain(request.status, request.body)
        state.pacing.nothing()
