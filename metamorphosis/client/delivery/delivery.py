"""
From fetched messages to the user's listener: duplicates and messages that the filter refuses are
left out, the others are handed over in stretches. One object for each claimed partition, with at
most one listener call under way, so that order is kept.

Source: ``SimpleFetchManager``.

Differs: a manual rollback is followed by a pause; the original redelivers at once, without end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from metamorphosis.client.delivery.handing import Handing
from metamorphosis.client.delivery.progress import OPEN, Progress
from metamorphosis.client.delivery.subscription import DeliveryRules, Filter, Subscription
from metamorphosis.client.model import Position, ReceivedMessage
from metamorphosis.client.network.flow import sleep

#: least and greatest number of messages that a plain listener gets before other work of the loop;
#: adapted so that they take about ``STRETCH_SECONDS``
STRETCHES: Final = (16, 1024)
STRETCH_SECONDS: Final = 0.01
#: longest list for a listener of batches
MOST: Final = 4096


class PartitionDelivery:
    """
    One claimed partition. Thread: the loop's.

    :ivar progress: position, failures, and the state of the delivery.
    :ivar changed: called when a rollback or seek moved ``progress.resume_offset``.
    """

    def __init__(
        self, rules: DeliveryRules, subscription: Subscription, position: Position
    ) -> None:
        self.subscription = subscription
        self.progress = Progress(position, subscription.auto_ack, rules.duplicates)
        self.changed: Callable[[], None] = lambda: None
        self._handing = Handing(rules, subscription, self.progress)
        self._rules = rules
        self._runtime = rules.runtime
        self._log = rules.log
        self._stretch = STRETCHES[0]
        self._yielded_at = 0.0

    @property
    def position(self) -> Position:
        """The acknowledged position."""
        return self.progress.position

    @property
    def under_way(self) -> ReceivedMessage | None:
        """The message that the listener has at present, for the log."""
        return self._handing.under_way

    async def deliver(self, messages: list[ReceivedMessage]) -> bool:
        """
        Process messages that follow each other from ``progress.resume_offset`` on.

        :returns: whether all were processed; otherwise ``progress`` says where and when to go on.
        """
        progress = self.progress
        progress.rolled_back = False
        self._yielded_at = self._runtime.seconds()
        start = 0
        while start < len(messages):
            if progress.state is not OPEN:
                return False
            first = messages[start]
            if progress.is_poison(first, self._rules.max_retries):
                if not await self._handing.reject(first):
                    return False
                start += 1
                continue
            stretch = progress.before_poison(
                messages[start : start + self._stretch_length(first)], self._rules.max_retries
            )
            if not await self._process(stretch):
                return False
            start += len(stretch)
        return True

    def stop(self) -> None:
        """Finish the listener call that is under way, begin no other."""
        self.progress.stop()
        self._revoke()

    def pause(self) -> None:
        """Finish the listener call that is under way, begin no other before ``resume``."""
        self.progress.pause()
        if self._rules.outlet is not None:
            self._rules.outlet.hold_back(self.progress)
        self.changed()

    def resume(self) -> None:
        """Deliver again, from ``progress.resume_offset`` on."""
        self.progress.resume()
        self.changed()

    def abandon(self) -> None:
        """The listener call under way takes too long: its outcome is not acknowledged."""
        self.progress.abandon()

    def ack(self, message: ReceivedMessage) -> None:
        """See ``Progress.ack``."""
        self.progress.ack(message)

    def rollback(self, message: ReceivedMessage) -> None:
        """See ``Progress.roll_back``."""
        self.progress.roll_back(message)
        self._revoke()
        self.changed()

    def seek(self, offset: int) -> None:
        """See ``Progress.seek``."""
        self.progress.seek(offset)
        self._revoke()
        self.changed()

    def _revoke(self) -> None:
        """The iteration gives back the messages of this partition."""
        if self._rules.outlet is not None:
            self._rules.outlet.revoke(self.progress)

    # -- stretches

    def _stretch_length(self, first: ReceivedMessage) -> int:
        if self.subscription.batch:
            return 1 if self._handing.is_isolated(first) else MOST
        return MOST if self.subscription.listener is None else self._stretch

    async def _process(self, stretch: list[ReceivedMessage]) -> bool:
        progress, handing = self.progress, self._handing
        wanted = self._wanted(stretch)
        if wanted:
            slots = None if self.subscription.listener is None else self._rules.slots
            if slots is not None and not (slots.try_acquire() or await slots.acquire()):
                return False
            try:
                if progress.state is not OPEN or progress.rolled_back:
                    return False
                counts = self._rules.counts
                counts.delivered += len(wanted)
                counts.bytes += wanted[-1].next_offset - wanted[0].offset
                if not await handing.hand_over(wanted):
                    return False
            finally:
                handing.under_way = None
                if slots is not None:
                    slots.release()
        progress.passed(stretch[-1])
        await self._breathe()
        return not progress.rolled_back

    def _wanted(self, stretch: list[ReceivedMessage]) -> list[ReceivedMessage]:
        """The messages that were not delivered before and that the filter accepts."""
        fresh = self._rules.duplicates.fresh(stretch)
        if len(fresh) < len(stretch):
            self._rules.counts.repeated += len(stretch) - len(fresh)
            self._rules.repeated.add(len(stretch) - len(fresh), stretch[0])
        accepts = self.subscription.filter
        if accepts is not None:
            fresh = [message for message in fresh if self._accepts(accepts, message)]
        return fresh

    def _accepts(self, accepts: Filter, message: ReceivedMessage) -> bool:
        try:
            return bool(accepts(self._rules.group, message))
        except Exception as error:
            what = f"the filter of {message.topic} fails with {type(error).__name__}"
            place = f"partition {message.partition} offset {message.offset}"
            if self._rules.recurrences.begins(what, place):
                self._log.failure(
                    "The filter failed on {topic} {partition} offset {offset}, which is not"
                    " delivered",
                    topic=message.topic,
                    partition=message.partition,
                    offset=message.offset,
                )
            return False

    async def _breathe(self) -> None:
        """Let the loop do other work after a long stretch, and adapt the stretch's length."""
        now = self._runtime.seconds()
        if now - self._yielded_at > STRETCH_SECONDS:
            self._stretch = max(self._stretch // 2, 1)
            await sleep(self._runtime, 0)
            self._yielded_at = self._runtime.seconds()
        else:
            self._stretch = min(self._stretch * 2, STRETCHES[1])
