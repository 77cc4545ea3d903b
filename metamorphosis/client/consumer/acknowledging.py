"""Control of positions by the user: acknowledge, roll back, seek."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from metamorphosis.client.checked import checked
from metamorphosis.client.delivery.delivery import PartitionDelivery
from metamorphosis.client.delivery.iteration import Iteration
from metamorphosis.client.delivery.recovery import RecoveredMessage
from metamorphosis.client.delivery.subscription import Subscription
from metamorphosis.client.model import Partition, ReceivedMessage
from metamorphosis.errors import InvalidState


class Acknowledging(ABC):
    """
    A part of ``Consumer``. Thread: the loop's.

    :param subscriptions: topic -> subscription; it may change.
    """

    def __init__(self, subscriptions: Mapping[str, Subscription], iteration: Iteration) -> None:
        self._subscriptions = subscriptions
        self._iteration = iteration

    @checked()
    def ack(self, message: ReceivedMessage) -> None:
        """
        The message has been processed: with ``auto_ack=False`` this message and all before it in
        its partition; in a loop or after a ``poll`` with ``auto_ack`` the messages that were taken
        last, up to this one.

        Costs nothing: a later commit stores the position.

        :raises InvalidState: the message is already acknowledged or rolled back, or another member
            has the partition now.
        """
        if isinstance(message, RecoveredMessage):
            if self._iteration.holds(message):
                self._iteration.ack(message)
        elif self._iterates(message):
            self._iteration.ack(message)
        else:
            self._claimed(message).ack(message)

    @checked()
    def rollback(self, message: ReceivedMessage) -> None:
        """
        Deliver again: with ``auto_ack=False`` everything after the last ``ack`` in the partition of
        this message; in a loop or after a ``poll`` with ``auto_ack`` this one of the messages that
        were taken last and those after it. It counts as a failure of this message. Listeners raise
        ``Rollback`` instead.

        Costs a fetch, after a pause that grows with the failures.

        :raises InvalidState: the message does not wait for this: it is acknowledged or rolled back,
            or another member has the partition by now.
        """
        if isinstance(message, RecoveredMessage):
            message.rolled_back = True
        elif self._iterates(message):
            self._iteration.rollback(message)
        else:
            self._claimed(message).rollback(message)

    @checked()
    def seek(self, topic: str, partition: Partition, offset: int) -> None:
        """
        Continue at another place of a partition of this consumer: at a message's offset, at 0 for
        the beginning, at ``MAX_OFFSET`` for the end. A pending listener call is not acknowledged;
        messages after the new place are delivered again.

        Costs a fetch; what was fetched ahead is forgotten.

        :param offset: bytes; where no message begins the next one is searched, as after damage.
        :raises InvalidArgument: a negative offset.
        :raises InvalidState: the partition is not in ``assignment``.
        """
        delivery = self._delivery_of(topic, partition)
        if delivery is None:
            raise InvalidState(f"{topic} {partition} is not this consumer's at present")
        delivery.seek(offset)

    @abstractmethod
    def _delivery_of(self, topic: str, partition: Partition) -> PartitionDelivery | None:
        """The present delivery of a partition; None: another member has it."""

    def _iterates(self, message: ReceivedMessage) -> bool:
        subscription = self._subscriptions.get(message.topic)
        return subscription is not None and subscription.listener is None and subscription.auto_ack

    def _claimed(self, message: ReceivedMessage) -> PartitionDelivery:
        delivery = self._delivery_of(message.topic, message.partition)
        if delivery is None:
            raise InvalidState(
                f"{message.topic} {message.partition} is not this consumer's any more; its new"
                f" owner gets offset {message.offset}"
            )
        return delivery
