"""
Messages of a one-way producer that are lost. The sender of such a message gets no result, so each
loss is counted and told to the program; the log has a line when losses of a kind begin, lines that
count them, and one when they are over.
"""

from __future__ import annotations

from collections.abc import Callable

from metamorphosis.client.model import ANY_PARTITION, LostMessage, OutgoingMessage, Partition
from metamorphosis.client.network.links import Log
from metamorphosis.client.network.recurrences import Recurrences
from metamorphosis.interfaces import IRuntime

LossListener = Callable[[LostMessage], object]
"""Called with each message that is lost."""

POLICY_FAILED = "the policy for one-way messages failed"


class Losses:
    """
    Of one producer. Thread: the loop's.

    :ivar count: messages lost.
    """

    def __init__(self, runtime: IRuntime, log: Log) -> None:
        self.count = 0
        self._log = log
        self._listener: LossListener | None = None
        self._lines = Recurrences(runtime, log)

    def tell(self, listener: LossListener) -> None:
        """Call ``listener`` for each one from now on."""
        self._listener = listener

    def dropped(
        self, message: OutgoingMessage, error: Exception, partition: Partition = ANY_PARTITION
    ) -> None:
        """A message is invalid, or a broker has refused it for good."""
        topic = message[0] if isinstance(message[0], str) else repr(message[0])
        if self._lines.begins(f"messages are lost: {error}", f"topic {topic}"):
            self._log.error("Message of topic {topic} is lost: {error}", topic=topic, error=error)
        self._note(message, partition, str(error))

    def not_kept(self, message: OutgoingMessage, partition: Partition, reason: str) -> None:
        """A message could be neither sent nor kept on this machine's disk."""
        place = f"topic {message.topic}, partition {partition}"
        if self._lines.begins(f"messages are lost: {reason}", place):
            self._log.error(
                "Message of topic {topic}, partition {partition}, {length} bytes, is lost:"
                " {reason}",
                topic=message.topic,
                partition=partition,
                length=len(message.data),
                reason=reason,
            )
        self._note(message, partition, reason)

    def policy_failed(self, message: OutgoingMessage, partition: Partition) -> None:
        """The program's policy raised the exception that is being handled."""
        if self._lines.begins(f"messages are lost: {POLICY_FAILED}", f"topic {message.topic}"):
            self._log.failure(
                "The policy for one-way messages failed; a message of topic {topic} is lost",
                topic=message.topic,
            )
        self._note(message, partition, POLICY_FAILED)

    def close(self) -> None:
        """Log what was counted."""
        self._lines.close()

    def _note(self, message: OutgoingMessage, partition: Partition, reason: str) -> None:
        self.count += 1
        if self._listener is None:
            return
        try:
            self._listener(LostMessage(message, partition, reason))
        except Exception:
            if self._lines.begins("the listener for lost messages failed"):
                self._log.failure("The listener for messages that are lost failed")
