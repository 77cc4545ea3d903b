"""
The progress of a partition's listener: the acknowledged position, the messages that wait for their
``ack``, the failures of each message. Pure.

The state of a delivery:

=========  ===========================  ===========================================================
state      reached by                   meaning
=========  ===========================  ===========================================================
OPEN       the start, and ``resume``    messages are delivered and acknowledged
PAUSED     ``pause`` in OPEN            the listener call under way ends and counts; none follows
                                        before ``resume``
STOPPING   ``stop`` in OPEN or PAUSED   the listener call under way ends and counts; none follows
ABANDONED  ``abandon`` in any state     the call under way took too long, and the partition goes to
                                        another member: nothing is acknowledged any more
=========  ===========================  ===========================================================

``rolled_back`` is independent of the state: it belongs to one call of ``deliver``.

Source: ``TopicPartitionRegInfo``, ``FetchRequest``, ``Partition`` (its flags).

Differs: a message that fails is tried again after a pause, and equally often at each place of a
batch; the original fetches at once when other messages of the batch came before it, and gives it
one more try.

Differs: acknowledged positions carry the id of the message before them; the original's positions
carry the id of the last decoded message, which may be the failed one.

Differs: ``ack`` may come later than the listener's return, and does not end the batch; the original
knows it only inside the listener, and fetches the messages after it again.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

from metamorphosis.client.delivery.duplicates import CAPACITY, DuplicateCache
from metamorphosis.client.model import Position, ReceivedMessage
from metamorphosis.client.settings import MAX_OFFSET
from metamorphosis.errors import InvalidState


class DeliveryState(Enum):
    """See the table of the module."""

    OPEN = auto()
    PAUSED = auto()
    STOPPING = auto()
    ABANDONED = auto()


OPEN = DeliveryState.OPEN  # for the hot path: looking up an enum's attribute takes longer
PAUSED = DeliveryState.PAUSED
_ABANDONED = DeliveryState.ABANDONED


class Progress:
    """
    Thread: the loop's.

    :ivar position: the acknowledged position; ``group.committing`` stores it.
    :ivar resume_offset: where the next fetch begins: at the position, or after the messages that
        wait for their ``ack``.
    :ivar retries: failures of the message that failed last; 0 after the pause for it.
    :ivar rolled_back: a rollback or seek moved the position since the delivery began.
    :ivar state: see the module.
    """

    __slots__ = (
        "_duplicates",
        "_failures",
        "_handed",
        "_unacked",
        "auto_ack",
        "position",
        "resume_offset",
        "retries",
        "rolled_back",
        "state",
    )

    def __init__(self, position: Position, auto_ack: bool, duplicates: DuplicateCache) -> None:
        self.position = position
        self.auto_ack = auto_ack
        self.resume_offset = position.offset
        self.retries = 0
        self.rolled_back = False
        self.state = OPEN
        self._duplicates = duplicates
        # Offset -> failures of that message. The count is kept until the message is acknowledged:
        # after a rollback the messages before it are delivered, and succeed, first.
        self._failures: dict[int, int] = {}
        self._handed = -1  # manual: offset of the last delivered message
        self._unacked: deque[tuple[int, int]] = deque(maxlen=CAPACITY)  # manual: offset, id

    @property
    def is_stopping(self) -> bool:
        """Whether no further listener call will begin."""
        return self.state is not OPEN and self.state is not PAUSED

    @property
    def is_abandoned(self) -> bool:
        """Whether nothing is acknowledged any more."""
        return self.state is _ABANDONED

    def stop(self) -> None:
        """See the table of the module."""
        if not self.is_stopping:
            self.state = DeliveryState.STOPPING

    def pause(self) -> None:
        """See the table of the module."""
        if self.state is OPEN:
            self.state = PAUSED

    def resume(self) -> None:
        """See the table of the module."""
        if self.state is PAUSED:
            self.state = OPEN

    def abandon(self) -> None:
        """See the table of the module."""
        self.state = _ABANDONED

    def move_to(self, offset: int) -> None:
        """The next readable message is there, by a broker's answer or after a damaged record."""
        if not self._awaits_ack and self.state is not _ABANDONED:
            self.position.offset = offset
            self.position.modified = True
        self.resume_offset = offset
        self.retries = 0

    def is_poison(self, message: ReceivedMessage, max_retries: int) -> bool:
        """Whether it failed more than ``max_retries`` times."""
        return self._failures.get(message.offset, 0) > max_retries

    def before_poison(
        self, messages: list[ReceivedMessage], max_retries: int
    ) -> list[ReceivedMessage]:
        """The messages before the first that ``is_poison``."""
        if self._failures:
            for index, message in enumerate(messages):
                if self.is_poison(message, max_retries):
                    return messages[:index]
        return messages

    def failures_of(self, message: ReceivedMessage) -> int:
        """Its failures since it was delivered first."""
        return self._failures.get(message.offset, 0)

    # -- outcomes

    def hand(self, message: ReceivedMessage) -> None:
        """Manual acknowledgement: the listener gets the message now."""
        self._handed = message.offset
        self._unacked.append(
            (message.offset, message.id)
        )  # a message would keep its piece in memory

    def done(self, messages: list[ReceivedMessage]) -> None:
        """The listener returned from these messages, which are the next ones."""
        if not messages or self.rolled_back:
            return
        last = messages[-1]
        self.resume_offset = last.next_offset
        self.retries = 0
        if self.auto_ack and self.state is not _ABANDONED:
            self._advance(last)
            self.remember(messages)

    def finished(self, message: ReceivedMessage) -> None:
        """
        The listener finished this message of a stretch, so that a commit in the middle of the
        stretch includes it. ``done`` follows.
        """
        if self.auto_ack and self.state is not _ABANDONED and not self.rolled_back:
            self._advance(message)

    def passed(self, last: ReceivedMessage) -> None:
        """Every message up to this one was processed or rejected by the filter."""
        if self.rolled_back:
            return
        self.resume_offset = last.next_offset
        self.retries = 0
        if not self._awaits_ack and self.state is not _ABANDONED:
            self._advance(last)

    def failed(self, message: ReceivedMessage) -> None:
        """The message is delivered once more."""
        self._again(message, self._count(message))

    def suspect(self, messages: list[ReceivedMessage]) -> None:
        """One of them failed, it is unknown which: all are delivered again, none is counted."""
        self._again(messages[0], 1)

    def rejected(self, message: ReceivedMessage) -> None:
        """It counts as processed; messages before it that wait for their ``ack`` do as well."""
        self.resume_offset = message.next_offset
        self.retries = 0
        if self.state is not _ABANDONED:
            self._unacked.clear()
            self._handed = -1
            self._advance(message)
            self.remember([message])

    def remember(self, messages: list[ReceivedMessage]) -> None:
        """These messages are duplicates when they come again."""
        self._duplicates.add(messages)

    # -- manual acknowledgement

    def ack(self, message: ReceivedMessage) -> None:
        """
        This message and all before it are processed.

        :raises InvalidState: the message does not wait for an ``ack``.
        """
        self._check_manual(message)
        self._advance(message)
        done: dict[int, int] = {}
        while self._unacked and self._unacked[0][0] <= message.offset:
            offset, message_id = self._unacked.popleft()
            done[message_id] = offset
        self._duplicates.add_places(message.topic, message.partition, done)

    def roll_back(self, message: ReceivedMessage) -> None:
        """
        Deliver everything after the last ``ack`` again; it counts as a failure of this message.

        :raises InvalidState: the message does not wait for an ``ack``.
        """
        self._check_manual(message)
        self._unacked.clear()
        self._handed = -1
        self.retries = self._count(message)
        self.rolled_back = True
        self.resume_offset = self.position.offset

    def seek(self, offset: int) -> None:
        """Go on at ``offset``; the listener call under way is not acknowledged."""
        self.move_to(offset)
        self.position.offset = offset
        self.position.message_id = -1
        # ``MAX_OFFSET`` is stored when the end is known; until then the old position is safer.
        self.position.modified = offset != MAX_OFFSET
        self._unacked.clear()
        self._handed = -1
        self._failures.clear()
        self.rolled_back = True
        self._duplicates.forget(self.position.topic, self.position.partition)

    def _check_manual(self, message: ReceivedMessage) -> None:
        what = f"{message.topic} {message.partition} offset {message.offset}"
        if self.auto_ack:
            raise InvalidState(
                f"{what} is acknowledged automatically; subscribe with auto_ack=False"
            )
        if self.is_abandoned:
            raise InvalidState(f"{what}: the partition belongs to another consumer now")
        if message.offset < self.position.offset:
            raise InvalidState(f"{what} has been acknowledged")
        if message.offset > self._handed:
            raise InvalidState(f"{what} was rolled back and is delivered again")

    @property
    def _awaits_ack(self) -> bool:
        """Whether the listener has messages that it must acknowledge."""
        return self._handed >= self.position.offset

    # -- details

    def _count(self, message: ReceivedMessage) -> int:
        """Count one failure more; the new count."""
        count = self._failures[message.offset] = self._failures.get(message.offset, 0) + 1
        return count

    def _again(self, message: ReceivedMessage, retries: int) -> None:
        self.retries = retries
        self.resume_offset = message.offset
        if self._handed >= message.offset:
            self._handed = message.offset - 1
            while self._unacked and self._unacked[-1][0] >= message.offset:
                self._unacked.pop()

    def _advance(self, last: ReceivedMessage) -> None:
        position = self.position
        position.offset = last.next_offset
        position.message_id = last.id
        position.modified = True
        if self._failures:
            end = position.offset
            self._failures = {each: n for each, n in self._failures.items() if each >= end}
