"""
A stretch of messages goes to its listener, or to the iteration; the outcome goes to ``Progress``.

Order is kept: one stretch of a partition is handed over at a time, and each message of it after
the one before it has been finished.
"""

from __future__ import annotations

from metamorphosis.client.delivery.failures import Failures
from metamorphosis.client.delivery.progress import OPEN, Progress
from metamorphosis.client.delivery.subscription import (
    DeliveryRules,
    Listener,
    Outlet,
    Rollback,
    Subscription,
    finish,
)
from metamorphosis.client.model import ReceivedMessage


class Handing:
    """
    Hands over the messages of one partition. Thread: the loop's.

    :ivar under_way: the message that the listener has at present, for the log.
    """

    __slots__ = (
        "_failures",
        "_isolate_until",
        "_listener",
        "_progress",
        "_rules",
        "_runtime",
        "_subscription",
        "under_way",
    )

    def __init__(
        self, rules: DeliveryRules, subscription: Subscription, progress: Progress
    ) -> None:
        self.under_way: ReceivedMessage | None = None
        self._rules = rules
        self._runtime = rules.runtime
        self._subscription = subscription
        self._listener = subscription.listener
        self._progress = progress
        self._failures = Failures(rules, progress)
        self._isolate_until = -1  # offset up to which lists hold one message

    def is_isolated(self, message: ReceivedMessage) -> bool:
        """Whether a list must hold this message only: a list with it has failed before."""
        return message.offset < self._isolate_until

    async def reject(self, message: ReceivedMessage) -> bool:
        """See ``Failures.reject``."""
        return await self._failures.reject(message)

    async def hand_over(self, messages: list[ReceivedMessage]) -> bool:
        """Give them to the listener or the iteration; whether all were processed."""
        self.under_way = messages[0]
        if self._listener is None:
            assert self._rules.outlet is not None
            return await self._to_outlet(messages, self._rules.outlet)
        if self._subscription.batch:
            return await self._together(messages, self._listener)
        return await self._one_by_one(messages, self._listener)

    async def _one_by_one(self, messages: list[ReceivedMessage], listener: Listener) -> bool:
        progress = self._progress
        manual = not progress.auto_ack
        is_open = OPEN
        numbered = enumerate(messages)
        done = 0  # messages whose outcome is known to ``progress``
        while True:
            try:
                for index, message in numbered:
                    if manual:
                        progress.hand(message)
                    result = listener(message)
                    if result is not None:
                        self.under_way = message
                        await finish(self._runtime, result, self._rules.calls)
                        progress.finished(message)
                    if progress.state is not is_open or progress.rolled_back:
                        progress.done(messages[done : index + 1])
                        return False
            except BaseException as error:
                self._let_through(error)
                progress.done(messages[done:index])
                done = index + 1
                if not await self._failures.failed(message, error):
                    return False
            else:
                progress.done(messages[done:])
                return True

    async def _together(self, messages: list[ReceivedMessage], listener: Listener) -> bool:
        progress = self._progress
        if not progress.auto_ack:
            for message in messages:
                progress.hand(message)
        try:
            await finish(self._runtime, listener(messages), self._rules.calls)
        except BaseException as error:
            self._let_through(error)
            return await self._batch_failed(messages, error)
        progress.done(messages)
        return not progress.rolled_back

    async def _batch_failed(self, messages: list[ReceivedMessage], error: BaseException) -> bool:
        """Deliver each message alone next time, unless the error names the one that failed."""
        progress = self._progress
        first = 0
        if isinstance(error, Rollback) and error.message in messages:
            first = messages.index(error.message)
        elif len(messages) > 1:
            self._failures.report(messages[0], error)
            if not progress.is_abandoned and not progress.rolled_back:
                self._isolate_until = messages[-1].next_offset
                progress.suspect(messages)
            return False
        progress.done(messages[:first])
        return await self._failures.failed(messages[first], error) and first + 1 == len(messages)

    async def _to_outlet(self, messages: list[ReceivedMessage], outlet: Outlet) -> bool:
        progress = self._progress
        while messages:
            done, error = await outlet.take(progress, messages)
            progress.done(messages[:done])
            if error is None:
                return done == len(messages) and not progress.rolled_back
            if not await self._failures.failed(messages[done], error):
                return False
            messages = messages[done + 1 :]
        return True

    def _let_through(self, error: BaseException) -> None:
        """Raise what ends the program or the loop; a cancelled future is a listener's failure."""
        ends = isinstance(error, GeneratorExit | KeyboardInterrupt | SystemExit)
        if ends or self._runtime.is_cancelled():
            raise error
