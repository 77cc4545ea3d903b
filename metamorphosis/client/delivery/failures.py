"""
A message that its listener failed: it is counted and delivered again, or rejected after too many
failures.

Differs: a rejected message that the reject strategy cannot keep is tried again after a pause; the
original's default loses it when the disk is full, and calls a strategy that raises in a loop.
"""

from __future__ import annotations

from metamorphosis.client.delivery.progress import Progress
from metamorphosis.client.delivery.subscription import DeliveryRules, Rollback, finish
from metamorphosis.client.model import ReceivedMessage


class Failures:
    """The failures of one partition's listener. Thread: the loop's."""

    __slots__ = ("_log", "_progress", "_rules")

    def __init__(self, rules: DeliveryRules, progress: Progress) -> None:
        self._rules = rules
        self._log = rules.log
        self._progress = progress

    async def failed(self, message: ReceivedMessage, error: BaseException) -> bool:
        """Count a failure; True: the message was rejected, so that the next one follows."""
        progress = self._progress
        self._rules.counts.failed += 1
        self.report(message, error)
        if progress.is_abandoned or progress.rolled_back:
            return False
        progress.failed(message)
        return progress.is_poison(message, self._rules.max_retries) and await self.reject(message)

    async def reject(self, message: ReceivedMessage) -> bool:
        """Whether the reject strategy took the message, which then counts as processed."""
        retries = self._progress.failures_of(message)
        try:
            rules = self._rules
            await finish(rules.runtime, rules.reject(message), rules.calls)
        except Exception:
            self.log_failure(
                message,
                f"messages of {message.topic} cannot be rejected",
                "{topic} {partition} offset {offset}, id {id} failed too often, and could not be"
                " rejected either; trying again",
            )
            self._progress.failed(message)
            return False
        if self._begins(f"messages of {message.topic} fail too often and are rejected", message):
            self._log.warn(
                "{topic} {partition} offset {offset}, id {id} failed {count} times and was"
                " rejected",
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
                id=message.id,
                count=retries,
            )
        self._rules.counts.rejected += 1
        self._progress.rejected(message)
        return True

    def report(self, message: ReceivedMessage, error: BaseException) -> None:
        """Log the listener's exception; a ``Rollback`` is not logged as an error."""
        if not isinstance(error, Rollback):
            self.log_failure(
                message,
                f"the listener of {message.topic} fails with {type(error).__name__}",
                "The listener failed on {topic} {partition} offset {offset}, id {id}",
            )

    def log_failure(self, message: ReceivedMessage, what: str, text: str) -> None:
        """Log the exception that is being handled, unless the same has just been logged."""
        if self._begins(what, message):
            self._log.failure(
                text,
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
                id=message.id,
            )

    def _begins(self, what: str, message: ReceivedMessage) -> bool:
        place = f"partition {message.partition} offset {message.offset}, id {message.id}"
        return self._rules.recurrences.begins(what, place)
