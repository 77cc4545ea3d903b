"""
From fetched messages to the user's listener: duplicates and filter, then the listener; what it
finished is acknowledged, what it failed is tried again and at last rejected. One object for each
claimed partition, which has at most one listener call under way, so that order is kept.

Source: ``SimpleFetchManager``.

Differs: a rejected message that the reject strategy cannot keep is tried again after a pause; the
original's default loses it when the disk is full, and a strategy that raises is called in a loop.

Differs: a manual rollback is followed by a pause; the original redelivers at once, for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CoroutineType
from typing import Final

from metamorphosis.client.delivery.progress import Progress
from metamorphosis.client.delivery.subscription import (
    DeliveryRules,
    Listener,
    Rollback,
    Subscription,
)
from metamorphosis.client.model import Position, ReceivedMessage
from metamorphosis.client.network.flow import sleep

#: a plain listener gets so many messages before the loop may do something else, adapted so that
#: they take no longer than that
STRETCHES: Final = (16, 1024)
STRETCH_SECONDS: Final = 0.01
#: longest list for a listener of batches
MOST: Final = 4096


class PartitionDelivery:
    """
    One claimed partition. Thread: the loop's.

    :ivar stopping: no further listener call begins.
    :ivar changed: called when ``progress.resume_offset`` goes back from outside.
    :ivar under_way: the message the listener has, for the log.
    """

    def __init__(
        self, rules: DeliveryRules, subscription: Subscription, position: Position
    ) -> None:
        self.subscription = subscription
        self.progress = Progress(position, subscription.auto_ack, rules.duplicates)
        self.stopping = False
        self.changed: Callable[[], None] = lambda: None
        self.under_way: ReceivedMessage | None = None
        self._rules = rules
        self._runtime = rules.runtime
        self._log = rules.log
        self._isolate_until = -1  # offset up to which lists hold one message
        self._stretch = STRETCHES[0]
        self._yielded_at = 0.0

    @property
    def position(self) -> Position:
        """What is acknowledged."""
        return self.progress.position

    async def deliver(self, messages: list[ReceivedMessage]) -> bool:
        """
        Process messages that follow each other from ``progress.resume_offset`` on.

        :returns: whether all were; otherwise ``progress`` says where and when to go on.
        """
        progress = self.progress
        progress.rolled_back = False
        self._yielded_at = self._runtime.seconds()
        start = 0
        while start < len(messages):
            if self.stopping:
                return False
            first = messages[start]
            if progress.is_poison(first, self._rules.max_retries):
                if not await self._reject(first):
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
        self.stopping = True
        if self._rules.outlet is not None:
            self._rules.outlet.revoke(self)

    def abandon(self) -> None:
        """The listener call under way takes too long: whatever it does is not acknowledged."""
        self.stopping = self.progress.abandoned = True

    def ack(self, message: ReceivedMessage) -> None:
        """See ``Progress.ack``."""
        self.progress.ack(message)

    def rollback(self, message: ReceivedMessage) -> None:
        """See ``Progress.roll_back``."""
        self.progress.roll_back(message)
        if self._rules.outlet is not None:
            self._rules.outlet.revoke(self)
        self.changed()

    def seek(self, offset: int) -> None:
        """See ``Progress.seek``."""
        self.progress.seek(offset)
        if self._rules.outlet is not None:
            self._rules.outlet.revoke(self)
        self.changed()

    # -- stretches

    def _stretch_length(self, first: ReceivedMessage) -> int:
        if self.subscription.batch:
            return 1 if first.offset < self._isolate_until else MOST
        return MOST if self.subscription.listener is None else self._stretch

    async def _process(self, stretch: list[ReceivedMessage]) -> bool:
        wanted = self._wanted(stretch)
        if wanted:
            slots = None if self.subscription.listener is None else self._rules.slots
            if slots is not None and not (slots.try_acquire() or await slots.acquire()):
                return False
            try:
                if self.stopping or self.progress.rolled_back or not await self._hand_over(wanted):
                    return False
            finally:
                self.under_way = None
                if slots is not None:
                    slots.release()
        self.progress.passed(stretch[-1])
        await self._breathe()
        return not self.progress.rolled_back

    def _wanted(self, stretch: list[ReceivedMessage]) -> list[ReceivedMessage]:
        """Without those delivered before and those the filter refuses."""
        fresh = self._rules.duplicates.fresh(stretch)
        if len(fresh) < len(stretch):
            self._log.info(
                "{topic} {partition}: {count} messages from offset {offset} on were processed"
                " before and are not delivered again",
                topic=self.position.topic,
                partition=self.position.partition,
                count=len(stretch) - len(fresh),
                offset=stretch[0].offset,
            )
        if self.subscription.filter is not None:
            fresh = [message for message in fresh if self._accepts(message)]
        return fresh

    def _accepts(self, message: ReceivedMessage) -> bool:
        assert self.subscription.filter is not None
        try:
            return bool(self.subscription.filter(self._rules.group, message))
        except Exception:
            self._failure(
                message,
                "The filter failed on {topic} {partition} offset {offset}, which is not delivered",
            )
            return False

    async def _hand_over(self, messages: list[ReceivedMessage]) -> bool:
        self.under_way = messages[0]
        if self.subscription.listener is None:
            return await self._to_outlet(messages)
        if self.subscription.batch:
            return await self._together(messages, self.subscription.listener)
        return await self._one_by_one(messages, self.subscription.listener)

    async def _one_by_one(self, messages: list[ReceivedMessage], listener: Listener) -> bool:
        progress = self.progress
        manual = not progress.auto_ack
        numbered = enumerate(messages)
        done = 0  # messages whose outcome is in the books
        while True:
            try:
                for index, message in numbered:
                    if manual:
                        progress.hand(message)
                    result = listener(message)
                    if result is not None:
                        self.under_way = message
                        await self._finish(result)
                        progress.finished(message)
                    if self.stopping or progress.rolled_back:
                        progress.done(messages[done : index + 1])
                        return False
            except BaseException as error:
                self._let_through(error)
                progress.done(messages[done:index])
                done = index + 1
                if not await self._failed(message, error):
                    return False
            else:
                progress.done(messages[done:])
                return True

    async def _together(self, messages: list[ReceivedMessage], listener: Listener) -> bool:
        progress = self.progress
        if not self.subscription.auto_ack:
            for message in messages:
                progress.hand(message)
        try:
            await self._finish(listener(messages))
        except BaseException as error:
            self._let_through(error)
            return await self._batch_failed(messages, error)
        progress.done(messages)
        return not progress.rolled_back

    async def _batch_failed(self, messages: list[ReceivedMessage], error: BaseException) -> bool:
        """Not knowing which one it was, each is delivered by itself next time."""
        progress = self.progress
        first = 0
        if isinstance(error, Rollback) and error.message in messages:
            first = messages.index(error.message)
        elif len(messages) > 1:
            self._report(messages[0], error)
            if not progress.abandoned and not progress.rolled_back:
                self._isolate_until = messages[-1].next_offset
                progress.suspect(messages)
            return False
        progress.done(messages[:first])
        return await self._failed(messages[first], error) and first + 1 == len(messages)

    async def _to_outlet(self, messages: list[ReceivedMessage]) -> bool:
        assert self._rules.outlet is not None
        while messages:
            done, error = await self._rules.outlet.take(self, messages)
            self.progress.done(messages[:done])
            if error is None:
                return done == len(messages) and not self.progress.rolled_back
            if not await self._failed(messages[done], error):
                return False
            messages = messages[done + 1 :]
        return True

    async def _breathe(self) -> None:
        """Let the loop go on with other things if this went on for long, and mind the time."""
        now = self._runtime.seconds()
        if now - self._yielded_at > STRETCH_SECONDS:
            self._stretch = max(self._stretch // 2, 1)
            await sleep(self._runtime, 0)
            self._yielded_at = self._runtime.seconds()
        else:
            self._stretch = min(self._stretch * 2, STRETCHES[1])

    async def _finish(self, result: object) -> None:
        """Wait for what a function of the user's returned, if that can be waited for."""
        if type(result) is CoroutineType:
            await result  # as a part of our own: a fifth of the time that a future takes
        elif hasattr(result, "__await__"):
            await self._runtime.adopt(result)

    # -- failures

    async def _failed(self, message: ReceivedMessage, error: BaseException) -> bool:
        """Count it; whether to go on behind the message, because it was rejected."""
        progress = self.progress
        self._report(message, error)
        if progress.abandoned or progress.rolled_back:
            return False
        progress.failed(message)
        return progress.is_poison(message, self._rules.max_retries) and await self._reject(message)

    async def _reject(self, message: ReceivedMessage) -> bool:
        """Whether the reject strategy took the message, which counts as processed then."""
        retries = self.progress.failures_of(message)
        try:
            await self._finish(self._rules.reject(message))
        except Exception:
            self._failure(
                message,
                "{topic} {partition} offset {offset}, id {id} failed too often, and could not be"
                " rejected either; trying again",
            )
            self.progress.failed(message)
            return False
        self._log.warn(
            "{topic} {partition} offset {offset}, id {id} failed {count} times and was rejected",
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            id=message.id,
            count=retries,
        )
        self.progress.rejected(message)
        return True

    def _report(self, message: ReceivedMessage, error: BaseException) -> None:
        if isinstance(error, Rollback):
            return
        self._failure(
            message, "The listener failed on {topic} {partition} offset {offset}, id {id}"
        )

    def _failure(self, message: ReceivedMessage, text: str) -> None:
        """Log the exception that is being handled."""
        self._log.failure(
            text,
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            id=message.id,
        )

    def _let_through(self, error: BaseException) -> None:
        """What ends program or loop is no failure of a listener; a cancelled future is one."""
        if isinstance(error, Exception):
            return
        ends = isinstance(error, GeneratorExit | KeyboardInterrupt | SystemExit)
        if ends or self._runtime.is_cancelled():
            raise error
